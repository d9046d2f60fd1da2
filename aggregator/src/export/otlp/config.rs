//! `[otlp]`, once checked.
//!
//! Promise: every problem is reported, none of them shows a secret. What is secret is read from
//! files that only their owner can read, and goes in clear to loopback only.

use std::path::Path;

use axum::http::{HeaderName, HeaderValue, Uri};
use lens_model::Nanos;
use lens_service::config::{Problem, Settings};

use super::ledger::Temporality;
use crate::alerts::config::{private, read_secret, web};
use crate::alerts::sink::Secret;

/// Headers one file may hold.
const HEADERS_MAX: usize = 32;

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf in an HTTP POST.
    Http,
}

/// The export, configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// The receiver's address; with HTTP that of the metrics themselves.
    pub endpoint: String,
    /// How requests travel.
    pub protocol: Protocol,
    /// Time between two exports.
    pub interval: Nanos,
    /// Longest one request may take.
    pub timeout: Nanos,
    /// What histograms count since.
    pub temporality: Temporality,
    /// Scale of the histograms.
    pub scale: u8,
    /// Whether requests are compressed.
    pub gzip: bool,
    /// Headers of every request.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Authority of the receiver, PEM; the system's when `None`.
    pub ca: Option<Vec<u8>>,
    /// Further attributes of the resource.
    pub resource: Vec<(String, String)>,
}

impl Config {
    /// Checks what the table alone cannot. Problems are appended; `None` when export is off or wrong.
    pub fn check(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut wrong = Vec::new();
        let config = read(settings, &mut wrong);
        let configured = |what: String| Problem { origin: "configuration".into(), what };
        let fine = wrong.is_empty();
        problems.extend(wrong.into_iter().map(configured));
        config.filter(|_| fine)
    }
}

fn read(settings: &Settings, wrong: &mut Vec<String>) -> Option<Config> {
    let mut choice = |key: &str, known: [&str; 2]| {
        let text = settings.text(key).unwrap_or_default();
        if !known.contains(&text) {
            wrong.push(format!("{key} is {text:?}: use {} or {}", known[0], known[1]));
        }
        text == known[1]
    };
    let http = choice("otlp.protocol", ["grpc", "http/protobuf"]);
    let gzip = choice("otlp.compression", ["none", "gzip"]);
    choice("otlp.temporality", ["cumulative", "delta"]);
    let protocol = if http { Protocol::Http } else { Protocol::Grpc };
    let headers = headers(settings, wrong);
    let endpoint = settings.text("otlp.endpoint")?;
    let open = if headers.is_empty() { web(endpoint) } else { private(endpoint) };
    if let Err(what) = open {
        wrong.push(format!("otlp.endpoint {what}"));
    }
    let ca = settings.path("otlp.ca").and_then(|path| authority(&path, wrong));
    let secs = |key| Nanos::from_secs(settings.integer(key));
    Some(Config {
        endpoint: address(endpoint, protocol),
        protocol,
        interval: secs("otlp.interval_s"),
        timeout: secs("otlp.timeout_s"),
        temporality: Temporality::of(settings.text("otlp.temporality")?).unwrap_or_default(),
        scale: u8::try_from(settings.integer("otlp.scale")).unwrap_or(5),
        gzip,
        headers,
        ca,
        resource: settings.labels("otlp.resource").into_iter().collect(),
    })
}

/// Where requests go: with HTTP the path of metrics is added where the address has none.
fn address(endpoint: &str, protocol: Protocol) -> String {
    let base = endpoint.trim_end_matches('/');
    let path = endpoint.parse::<Uri>().map(|uri| uri.path().to_owned()).unwrap_or_default();
    match protocol {
        Protocol::Http if !path.ends_with("/v1/metrics") => format!("{base}/v1/metrics"),
        _ => base.to_owned(),
    }
}

fn authority(path: &Path, wrong: &mut Vec<String>) -> Option<Vec<u8>> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let read = std::fs::read(path).map_err(|error| error.to_string()).and_then(|pem| {
        let found = CertificateDer::pem_slice_iter(&pem).filter(Result::is_ok).count();
        if found == 0 { Err("holds no certificate in PEM".into()) } else { Ok(pem) }
    });
    read.map_err(|what| wrong.push(format!("otlp.ca {}: {what}", path.display()))).ok()
}

fn headers(settings: &Settings, wrong: &mut Vec<String>) -> Vec<(HeaderName, Secret)> {
    let mut read = |key: &'static str| {
        let path = settings.path(key)?;
        let text = read_secret(&path);
        text.map_err(|what| wrong.push(format!("{key} {}: {what}", path.display()))).ok()
    };
    let (bearer, lines) = (read("otlp.bearer_file"), read("otlp.headers_file"));
    let mut all = Vec::new();
    if let Some(token) = bearer {
        match token.trim() {
            "" => wrong.push("otlp.bearer_file holds no token".into()),
            token => take(
                "authorization",
                &format!("Bearer {token}"),
                &mut all,
                "otlp.bearer_file",
                wrong,
            ),
        }
    }
    let lines = lines.unwrap_or_default();
    for (at, line) in (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("otlp.headers_file, line {at},");
        match line.split_once(':') {
            Some((name, value)) => take(name.trim(), value.trim(), &mut all, &place, wrong),
            None => wrong.push(format!("{place} is no `name: value`")),
        }
    }
    if all.len() > HEADERS_MAX {
        wrong.push(format!("otlp.headers_file holds more than {HEADERS_MAX} headers"));
    }
    all
}

fn take(
    name: &str,
    value: &str,
    into: &mut Vec<(HeaderName, Secret)>,
    place: &str,
    wrong: &mut Vec<String>,
) {
    let usable = HeaderValue::from_str(value).is_ok_and(|value| value.to_str().is_ok());
    match HeaderName::try_from(name) {
        Ok(name) if usable && !name.as_str().ends_with("-bin") => {
            into.push((name, Secret::new(value)));
        }
        // The value stays unsaid.
        _ => wrong.push(format!("{place} holds no header: use visible ASCII characters")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::checked;
    use std::os::unix::fs::PermissionsExt;

    fn check(flags: &[(&str, &str)]) -> (Option<Config>, String) {
        checked(flags, Config::check)
    }

    fn file(dir: &tempfile::TempDir, name: &str, text: &str, mode: u32) -> String {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.display().to_string()
    }

    #[test]
    fn export_is_off_until_there_is_an_endpoint() {
        let (config, text) = check(&[("otlp.interval_s", "5")]);
        assert!(config.is_none() && text.is_empty(), "{text}");
        let (config, text) = check(&[("otlp.endpoint", "http://127.0.0.1:4317/")]);
        let config = config.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(config.endpoint, "http://127.0.0.1:4317");
        assert_eq!((config.protocol, config.scale, config.gzip), (Protocol::Grpc, 5, true));
        assert_eq!(config.temporality, Temporality::Cumulative);
    }

    #[test]
    fn every_problem_is_said_at_once_and_no_secret_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = file(&dir, "open", "hush", 0o644);
        let lines = file(&dir, "headers", "x-key: hush\u{7}\nhush", 0o600);
        let ca = file(&dir, "ca", "no certificate", 0o600);
        let (config, text) = check(&[
            ("otlp.endpoint", "collector:4317"),
            ("otlp.protocol", "thrift"),
            ("otlp.temporality", "sideways"),
            ("otlp.compression", "zip"),
            ("otlp.bearer_file", &open),
            ("otlp.headers_file", &lines),
            ("otlp.ca", &ca),
        ]);
        assert!(config.is_none());
        for says in [
            "otlp.endpoint is \"collector:4317\": use an address",
            "otlp.protocol is \"thrift\": use grpc or http/protobuf",
            "otlp.temporality is \"sideways\": use cumulative or delta",
            "otlp.compression is \"zip\": use none or gzip",
            "chmod 600",
            "line 1, holds no header",
            "line 2, is no `name: value`",
            "holds no certificate in PEM",
        ] {
            assert!(text.contains(says), "{says} in {text}");
        }
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn what_is_secret_goes_in_clear_to_loopback_only() {
        let dir = tempfile::tempdir().unwrap();
        let token = file(&dir, "token", "t0ken\n", 0o600);
        let bearer = ("otlp.bearer_file", token.as_str());
        let (config, text) = check(&[("otlp.endpoint", "http://collector:4317"), bearer]);
        assert!(config.is_none() && text.contains("use https"), "{text}");
        let (config, text) = check(&[("otlp.endpoint", "https://collector:4317"), bearer]);
        let config = config.unwrap_or_else(|| panic!("{text}"));
        assert_eq!(config.headers[0].1.expose(), "Bearer t0ken");
        assert!(!format!("{config:?}").contains("t0ken"));
    }

    #[test]
    fn http_posts_to_the_path_of_metrics() {
        for (given, used) in [
            ("http://c:4318", "http://c:4318/v1/metrics"),
            ("http://c:4318/", "http://c:4318/v1/metrics"),
            ("http://c/otlp", "http://c/otlp/v1/metrics"),
            ("http://c/v1/metrics", "http://c/v1/metrics"),
        ] {
            assert_eq!(address(given, Protocol::Http), used);
        }
    }

    #[test]
    fn headers_are_taken_up_to_their_number_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let of = |count: usize| -> String { (0..count).map(|at| format!("x-{at}: 1\n")).collect() };
        for (count, taken) in [(HEADERS_MAX, true), (HEADERS_MAX + 1, false)] {
            let lines = file(&dir, "headers", &of(count), 0o600);
            let (config, text) =
                check(&[("otlp.endpoint", "https://c"), ("otlp.headers_file", &lines)]);
            assert_eq!(config.is_some(), taken, "{text}");
        }
    }
}
