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
        let Some(listen) = settings.address("proxy.listen") else {
            let set = NEEDS_LISTEN.into_iter().find(|key| settings.text(key).is_some());
            return set.map_or(Ok(None), |key| {
                Err(vec![problem(key, "is set and proxy.listen is not: set both or neither")])
            });
        };
        let mut problems = Vec::new();
        let stable = settings.text("proxy.stable").map(|text| upstream("proxy.stable", text));
        let missing = "is not set: name the service as host:port";
        let stable =
            taken(stable.unwrap_or_else(|| Err(problem("proxy.stable", missing))), &mut problems);
        let canary = settings.text("proxy.canary").map(|text| upstream("proxy.canary", text));
        let canary = canary.and_then(|canary| taken(canary, &mut problems));
        let pattern = settings.text("proxy.slice").unwrap_or_default().parse::<Pattern>();
        let pattern = pattern.map_err(|error| problem("proxy.slice", &error.to_string()));
        let pattern = taken(pattern, &mut problems);
        let slices = taken(slices(settings), &mut problems);
        let user_header = settings.text("proxy.user_header").map(|name| {
            HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| problem("proxy.user_header", "is no header's name"))
        });
        let user_header = user_header.and_then(|name| taken(name, &mut problems));
        let stage = settings.text("proxy.stage").unwrap_or_default().parse::<Stage>();
        let stage = stage.map_err(|error| problem("proxy.stage", &error.to_string()));
        let stage = taken(stage, &mut problems);
        let bad_query = settings.list("proxy.bad_query");
        if bad_query.iter().any(String::is_empty) {
            problems
                .push(problem("proxy.bad_query", "holds an empty text, which is in any answer"));
        }
        let own = listen.to_string();
        for (key, upstream) in [("proxy.stable", &stable), ("proxy.canary", &canary)] {
            if upstream.as_ref().is_some_and(|upstream| upstream.as_str() == own) {
                problems.push(problem(key, "is proxy.listen: name the service, not the proxy"));
            }
        }
        let (Some(stable), Some(pattern), Some(slices), Some(stage), true) =
            (stable, pattern, slices, stage, problems.is_empty())
        else {
            return Err(problems);
        };
        let millis = |key| Duration::from_millis(settings.integer(key));
        Ok(Some(Self {
            listen,
            stable,
            canary,
            pattern,
            slices,
            user_header,
            stage,
            timeout: millis("proxy.timeout_ms"),
            connect_timeout: millis("proxy.connect_timeout_ms"),
            client_timeout: millis("proxy.client_timeout_ms"),
            idle_timeout: millis("proxy.idle_timeout_ms"),
            body_bytes_max: settings.integer("proxy.body_bytes_max"),
            connections_max: usize::try_from(settings.integer("proxy.connections_max"))
                .unwrap_or(usize::MAX),
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

fn problem(key: &str, what: &str) -> Problem {
    Problem { origin: "configuration".into(), what: format!("{key} {what}") }
}

fn taken<T>(result: Result<T, Problem>, problems: &mut Vec<Problem>) -> Option<T> {
    result.map_err(|problem| problems.push(problem)).ok()
}

/// `host:port`, with `http://` before it if one likes.
fn upstream(key: &str, text: &str) -> Result<Authority, Problem> {
    if text.starts_with("https://") {
        let what = "is https: this proxy speaks plain HTTP to the service beside it";
        return Err(problem(key, what));
    }
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    let good = |authority: &Authority| {
        authority.port_u16().is_some_and(|port| port > 0) && !bare.contains('@')
    };
    bare.parse().ok().filter(good).ok_or_else(|| {
        problem(key, &format!("is {text:?}, which is not host:port such as 127.0.0.1:8080"))
    })
}

fn slices(settings: &Settings) -> Result<Slices, Problem> {
    let known = settings.list("proxy.slices");
    if known.is_empty() {
        let most = usize::try_from(settings.integer("proxy.slices_max")).unwrap_or(usize::MAX);
        return Ok(Slices::First(most));
    }
    if known.len() > PROXY_SLICES_MAX {
        let what = format!("names {} slices, more than {PROXY_SLICES_MAX}", known.len());
        return Err(problem("proxy.slices", &what));
    }
    let known: Result<Vec<Slice>, _> = known.iter().map(|text| text.parse()).collect();
    let mut known = known.map_err(|error| problem("proxy.slices", &error.to_string()))?;
    known.sort();
    known.dedup();
    Ok(Slices::Known(known))
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
            assert!(upstream("k", good).is_ok(), "{good}");
        }
        for bad in ["search.local", "https://a:1", "a:0", "a:70000", "http://a:1/x", "u@a:1", ""] {
            assert!(upstream("k", bad).is_err(), "{bad}");
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
