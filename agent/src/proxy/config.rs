//! `[proxy]`, checked: off unless `proxy.listen` is set.

use std::net::SocketAddr;
use std::time::Duration;

use http::HeaderName;
use http::uri::Authority;
use lens_model::limits::PROXY_SLICES_MAX;
use lens_model::{Arm, Slice, Stage};
use lens_service::config::{Problem, Settings};

use super::label::Pattern;
use super::ledger::Slices;

/// Keys that mean nothing without `proxy.listen`.
const NEEDS_LISTEN: [&str; 2] = ["proxy.stable", "proxy.canary"];

/// Keys that a proxy cannot do without, and what to say.
const NEEDED: [(&str, &str); 2] = [
    ("proxy.stable", "name the service as host:port"),
    ("proxy.slice", "say what is searched, as repo_type/language/size"),
];

/// The proxy's configuration.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The upstream of the version everyone had before.
    pub stable: Authority,
    /// The upstream of the version being rolled out; without one everyone is in the baseline.
    pub canary: Option<Authority>,
    /// How requests are labelled.
    pub pattern: Pattern,
    /// Which slices have a place of their own.
    pub slices: Slices,
    /// The header that names the user; a client's address where it is unset or absent.
    pub user_header: Option<HeaderName>,
    /// The stage that is timed.
    pub stage: Stage,
    /// Longest an upstream may keep a request waiting.
    pub timeout: Duration,
    /// Longest a connection to an upstream may take to open.
    pub connect_timeout: Duration,
    /// Longest a client may send or read nothing.
    pub client_timeout: Duration,
    /// Longest an unused connection to an upstream is kept.
    pub idle_timeout: Duration,
    /// Largest request body that is forwarded.
    pub body_bytes_max: u64,
    /// Client connections at once.
    pub connections_max: usize,
    /// Texts in a failed answer that make it a client's fault.
    pub bad_query: Vec<String>,
}

impl ProxyConfig {
    /// What the settings say; `None` when the proxy is off.
    ///
    /// # Errors
    /// Every problem found.
    pub fn check(settings: &Settings) -> Result<Option<Self>, Vec<Problem>> {
        let mut read = Reader { settings, problems: Vec::new() };
        let Some(listen) = settings.address("proxy.listen") else {
            read.none_of(&NEEDS_LISTEN);
            return read.end(None);
        };
        read.all_of(&NEEDED);
        let stable = read.parse("proxy.stable", upstream);
        let canary = read.parse("proxy.canary", upstream);
        read.others(listen, [&stable, &canary]);
        let pattern = read.parse("proxy.slice", |text| text.parse().map_err(said));
        let user_header = read.parse("proxy.user_header", header);
        let stage = read.parse("proxy.stage", |text| text.parse().map_err(said));
        let (slices, bad_query) = (read.slices(), read.bad_query());
        let (Some(stable), Some(pattern)) = (stable, pattern) else { return read.end(None) };
        let millis = |key| Duration::from_millis(settings.integer(key));
        read.end(Some(Self {
            listen,
            stable,
            canary,
            pattern,
            slices,
            user_header,
            stage: stage.unwrap_or(Stage::E2e),
            timeout: millis("proxy.timeout_ms"),
            connect_timeout: millis("proxy.connect_timeout_ms"),
            client_timeout: millis("proxy.client_timeout_ms"),
            idle_timeout: millis("proxy.idle_timeout_ms"),
            body_bytes_max: settings.integer("proxy.body_bytes_max"),
            connections_max: read.size("proxy.connections_max"),
            bad_query,
        }))
    }

    /// The upstream of an arm. Only a proxy with a canary gives anyone that arm.
    pub fn upstream(&self, arm: Arm) -> &Authority {
        match arm {
            Arm::Baseline => &self.stable,
            Arm::Canary => self.canary.as_ref().unwrap_or(&self.stable),
        }
    }
}

/// Settings as they are read, and everything wrong with them.
struct Reader<'a> {
    settings: &'a Settings,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    /// What was read, if nothing is wrong.
    fn end<T>(&mut self, read: Option<T>) -> Result<Option<T>, Vec<Problem>> {
        let problems = std::mem::take(&mut self.problems);
        if problems.is_empty() { Ok(read) } else { Err(problems) }
    }

    fn problem(&mut self, key: &str, what: &str) {
        self.problems
            .push(Problem { origin: "configuration".into(), what: format!("{key} {what}") });
    }

    /// The meaning of a key; `None` where it is unset or has none, which then is a problem.
    fn parse<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        parse(self.settings.text(key)?).map_err(|what| self.problem(key, &what)).ok()
    }

    fn size(&self, key: &'static str) -> usize {
        usize::try_from(self.settings.integer(key)).unwrap_or(usize::MAX)
    }

    fn none_of(&mut self, keys: &[&'static str]) {
        for key in keys.iter().filter(|key| self.settings.text(key).is_some()) {
            self.problem(key, "is set and proxy.listen is not: set both or neither");
        }
    }

    fn all_of(&mut self, keys: &[(&'static str, &str)]) {
        for (key, remedy) in keys.iter().filter(|(key, _)| self.settings.text(key).is_none()) {
            self.problem(key, &format!("is not set: {remedy}"));
        }
    }

    /// A proxy before itself would ask itself for ever.
    fn others(&mut self, listen: SocketAddr, upstreams: [&Option<Authority>; 2]) {
        let own = listen.to_string();
        for (key, upstream) in NEEDS_LISTEN.into_iter().zip(upstreams) {
            if upstream.as_ref().is_some_and(|upstream| upstream.as_str() == own) {
                self.problem(key, "is proxy.listen: name the service, not the proxy");
            }
        }
    }

    fn bad_query(&mut self) -> Vec<String> {
        let texts = self.settings.list("proxy.bad_query");
        if texts.iter().any(String::is_empty) {
            self.problem("proxy.bad_query", "holds an empty text, which is in any answer");
        }
        texts
    }

    fn slices(&mut self) -> Slices {
        let known = self.settings.list("proxy.slices");
        if known.is_empty() {
            return Slices::First(self.size("proxy.slices_max"));
        }
        if known.len() > PROXY_SLICES_MAX {
            let what = format!("names {} slices, more than {PROXY_SLICES_MAX}", known.len());
            self.problem("proxy.slices", &what);
        }
        let mut slices: Vec<Slice> = Vec::new();
        for text in known {
            match text.parse() {
                Ok(slice) => slices.push(slice),
                Err(error) => self.problem("proxy.slices", &said(error)),
            }
        }
        slices.sort();
        slices.dedup();
        Slices::Known(slices)
    }
}

/// An error as the end of a sentence that begins with its key.
fn said(error: impl std::fmt::Display) -> String {
    format!("says {error}")
}

fn header(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("is {name:?}, no header's name"))
}

/// `host:port`, with `http://` before it if one likes.
fn upstream(text: &str) -> Result<Authority, String> {
    if text.starts_with("https://") {
        return Err("is https: this proxy speaks plain HTTP to the service beside it".into());
    }
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let good = |authority: &Authority| {
        authority.port_u16().is_some_and(|port| port > 0) && !bare.contains('@')
    };
    let parsed = bare.parse().ok().filter(good);
    parsed.ok_or_else(|| format!("is {text:?}, which is not host:port such as 127.0.0.1:8080"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KEYS, PREFIX};
    use lens_model::limits::{
        PROXY_BODY_BYTES_MAX, PROXY_CONNECTIONS_MAX, PROXY_TIMEOUT_MILLIS_MAX,
    };
    use lens_service::config::Sources;

    const LEAST: [(&str, &str); 3] = [
        ("proxy.listen", "127.0.0.1:8080"),
        ("proxy.stable", "127.0.0.1:9001"),
        ("proxy.slice", "backend/rust/large"),
    ];

    fn settings(given: &[(&str, &str)]) -> Result<Settings, String> {
        let flags = given.iter().map(|(key, text)| ((*key).into(), (*text).into())).collect();
        let sources = Sources { flags, ..Sources::default() };
        Settings::load(KEYS, PREFIX, &sources).map_err(|problems| problems.to_string())
    }

    fn problems(given: &[(&str, &str)]) -> String {
        let all: Vec<_> = LEAST.iter().chain(given).copied().collect();
        let problems = ProxyConfig::check(&settings(&all).unwrap()).unwrap_err();
        problems.iter().map(|problem| format!("{problem}\n")).collect()
    }

    #[test]
    fn the_proxy_is_off_unless_it_is_told_where_to_listen() {
        assert!(ProxyConfig::check(&settings(&[]).unwrap()).unwrap().is_none());
        let half = settings(&LEAST[1..2]).unwrap();
        assert!(ProxyConfig::check(&half).unwrap_err()[0].what.contains("proxy.listen"));
    }

    #[test]
    fn the_least_there_is_to_say_is_enough() {
        let config = ProxyConfig::check(&settings(&LEAST).unwrap()).unwrap().unwrap();
        assert_eq!((config.stable.as_str(), config.canary), ("127.0.0.1:9001", None));
        assert_eq!((config.stage, config.user_header), (Stage::E2e, None));
        assert_eq!(config.slices, Slices::First(32));
    }

    #[test]
    fn an_upstream_is_host_and_port() {
        for good in ["search.local:80", "http://[::1]:9/", "http://10.0.0.1:80"] {
            assert!(upstream(good).is_ok(), "{good}");
        }
        for bad in ["search.local", "https://a:1", "a:0", "a:70000", "http://a:1/x", "u@a:1", ""] {
            assert!(upstream(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_problem_is_named_with_its_key() {
        let said = problems(&[
            ("proxy.canary", "https://canary:443"),
            ("proxy.slice", "backend/rust"),
            ("proxy.user_header", "not a header"),
            ("proxy.stage", "stage_x"),
            ("proxy.slices", "backend/rust"),
        ]);
        for key in ["canary", "slice", "user_header", "stage", "slices"] {
            assert!(said.contains(&format!("proxy.{key} ")), "{key}: {said}");
        }
        assert!(problems(&[("proxy.stable", "127.0.0.1:8080")]).contains("not the proxy"));
        let bare = ProxyConfig::check(&settings(&LEAST[..1]).unwrap()).unwrap_err();
        assert_eq!(bare.len(), 2, "{bare:?}");
    }

    #[test]
    fn every_bound_can_be_set_to_itself_and_not_past_it() {
        let too_many: Vec<String> = (0..=PROXY_SLICES_MAX).map(|n| format!("a/l{n}/x")).collect();
        assert!(problems(&[("proxy.slices", &too_many.join(","))]).contains("more than 62"));
        for (key, most) in [
            ("proxy.connections_max", PROXY_CONNECTIONS_MAX as u64),
            ("proxy.body_bytes_max", PROXY_BODY_BYTES_MAX as u64),
            ("proxy.timeout_ms", PROXY_TIMEOUT_MILLIS_MAX),
            ("proxy.slices_max", PROXY_SLICES_MAX as u64),
        ] {
            assert!(settings(&[(key, &most.to_string())]).is_ok(), "{key}");
            assert!(settings(&[(key, &(most + 1).to_string())]).is_err(), "{key}");
        }
    }
}
