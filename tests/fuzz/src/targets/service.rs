//! Configuration files and certificates.

use std::io::Write;

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
