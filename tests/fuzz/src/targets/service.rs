//! Configuration, certificates, tokens and verbs, and recorded latencies to be replayed.

use std::io::Write;

use lens_aggregator::auth::token::{Presented, Tokens};
use lens_aggregator::auth::verb::Verb;
use lens_model::UnixNanos;

use lens_model::SpiffeId;
use lens_service::config::{Key, Settings, Sources};
use lens_service::tls;
use rustls_pki_types::CertificateDer;

/// A configuration file for either service: it is taken, or every problem is told in one answer.
pub(crate) fn config(bytes: &[u8]) {
    let Some((which, text)) = bytes.split_first() else { return };
    let agent = (lens_agent::config::KEYS, lens_agent::config::PREFIX);
    let aggregator = (lens_aggregator::config::KEYS, lens_aggregator::config::PREFIX);
    let (keys, prefix): (&'static [Key], &str) = if which & 1 == 0 { agent } else { aggregator };
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(text).is_err() {
        return;
    }
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    match Settings::load(keys, prefix, &sources) {
        Ok(settings) => assert!(!settings.print().is_empty()),
        Err(problems) => {
            assert!(!problems.0.is_empty());
            assert!(problems.0.iter().all(|problem| !problem.what.is_empty()));
        }
    }
}

/// The alerts' part of a configuration: whom to tell, or every problem.
pub(crate) fn alerts(bytes: &[u8]) {
    // Secrets are read from files that the operator names; here nothing but this one is read.
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if text.contains("_file") || file.write_all(bytes).is_err() {
        return;
    }
    let sources = Sources { file: Some(file.path().to_owned()), ..Sources::default() };
    let (keys, prefix) = (lens_aggregator::config::KEYS, lens_aggregator::config::PREFIX);
    let Ok(settings) = Settings::load(keys, prefix, &sources) else { return };
    let mut problems = Vec::new();
    let config = lens_aggregator::alerts::config::Config::check(&settings, &mut problems);
    assert!(problems.iter().all(|problem| !problem.what.is_empty()));
    assert!(config.sinks.len() <= settings.tables("alerts.sink").len());
}

/// A file of tokens, what a caller presents, and what they ask for, each a part ended by a zero byte:
/// tokens that are taken read back the same, and nobody is let in by what is no token.
pub(crate) fn doors(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split('\0');
    let mut part = || parts.next().unwrap_or_default();
    let (tokens, presented, method, route) = (part(), part(), part(), part());
    match Tokens::parse(tokens) {
        Ok(tokens) => {
            let again = Tokens::parse(&tokens.text()).expect("our own tokens are refused");
            assert_eq!(again.text(), tokens.text());
            if let Presented::Good(token) = tokens.check(presented, UnixNanos(1)) {
                assert!(presented.contains(&token.id));
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(method) = method.parse()
        && let Some(verb) = Verb::of(&method, route)
    {
        assert!(!verb.needs().is_empty());
    }
}

/// Recorded latencies in whichever form: judged to the end, or refused with the line.
pub(crate) fn replay(bytes: &[u8]) {
    let mut out = Vec::new();
    match lens_cli::replay(bytes, &mut out) {
        Ok(()) => assert!(out.ends_with(b"\n")),
        Err(error) => assert!(!error.is_empty()),
    }
}

/// A certificate as a peer presents it: who it says its bearer is reads back as itself.
pub(crate) fn certificate(bytes: &[u8]) {
    let chain = [CertificateDer::from(bytes.to_vec())];
    match tls::agent_identity(&chain) {
        Ok(identity) => {
            let again: Result<SpiffeId, _> = identity.to_string().parse();
            assert_eq!(again.ok().as_ref(), Some(&identity));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
