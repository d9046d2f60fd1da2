//! `[remote_write]`: what its keys mean once checked.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, header};
use lens_service::config::{Problem, Settings};

use crate::alerts::config::{private, read_secret, web};
use crate::alerts::sink::Secret;

/// Labels a configuration adds to every series at most.
const LABELS_MAX: usize = 32;

/// Headers a configuration adds to every request at most.
const HEADERS_MAX: usize = 32;

/// Remote write, configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to.
    pub url: Secret,
    /// Time between two collections.
    pub interval: Duration,
    /// Headers of every request, the protocol's own among them.
    pub headers: Vec<(HeaderName, Secret)>,
    /// Labels of every series that lacks them.
    pub labels: BTreeMap<String, String>,
    /// Whether histograms go in exponential buckets instead of classic ones.
    pub native: bool,
    /// Most that waits, bytes.
    pub queue_bytes: usize,
    /// Most samples of one request.
    pub samples: usize,
}

impl Config {
    /// Checks what the table alone cannot; `None` when it is off. Problems are appended.
    pub fn check(settings: &Settings, problems: &mut Vec<Problem>) -> Option<Self> {
        let mut wrong = Vec::new();
        let url = settings.text("remote_write.url");
        let token = settings.path("remote_write.bearer_token_file");
        if let Some(Err(what)) = url.map(if token.is_some() { private } else { web }) {
            wrong.push(format!("url {what}"));
        }
        if url.is_none() && token.is_some() {
            wrong.push("bearer_token_file is set and url is not".into());
        }
        let labels = settings.labels("remote_write.labels");
        check_labels(&labels, &mut wrong);
        let mut headers = own_headers();
        more_headers(&settings.labels("remote_write.headers"), &mut headers, &mut wrong);
        match token.map(|path| (read_secret(&path), path)) {
            None => {}
            Some((Ok(text), _)) if HeaderValue::from_str(text.trim()).is_ok() => {
                let bearer = format!("Bearer {}", text.trim());
                headers.push((header::AUTHORIZATION, Secret::new(bearer)));
            }
            Some((Ok(_), path)) => {
                wrong.push(format!("bearer_token_file {} holds no token", path.display()));
            }
            Some((Err(what), path)) => {
                wrong.push(format!("bearer_token_file {}: {what}", path.display()));
            }
        }
        problems.extend(wrong.into_iter().map(|what| Problem {
            origin: "configuration".into(),
            what: format!("remote_write.{what}"),
        }));
        let count = |key| usize::try_from(settings.integer(key)).unwrap_or(usize::MAX);
        Some(Self {
            url: Secret::new(url?),
            interval: Duration::from_secs(settings.integer("remote_write.interval_s")),
            headers,
            labels,
            native: settings.switch("remote_write.send_native_histograms"),
            queue_bytes: count("remote_write.queue_mib") << 20,
            samples: count("remote_write.samples_per_request"),
        })
    }
}

/// What the protocol asks for.
fn own_headers() -> Vec<(HeaderName, Secret)> {
    vec![
        (header::CONTENT_TYPE, Secret::new("application/x-protobuf")),
        (header::CONTENT_ENCODING, Secret::new("snappy")),
        (HeaderName::from_static("x-prometheus-remote-write-version"), Secret::new("0.1.0")),
    ]
}

fn check_labels(labels: &BTreeMap<String, String>, wrong: &mut Vec<String>) {
    if labels.len() > LABELS_MAX {
        wrong.push(format!("labels has {} labels, more than {LABELS_MAX}", labels.len()));
    }
    for name in labels.keys() {
        let good = |(at, c): (usize, char)| {
            c == '_' || c.is_ascii_alphabetic() || at > 0 && c.is_ascii_digit()
        };
        if name.is_empty() || name.starts_with("__") || !name.chars().enumerate().all(good) {
            let rule = "use letters, digits and _, neither a digit nor __ first";
            wrong.push(format!("labels: {name:?} names no label: {rule}"));
        }
    }
}

fn more_headers(
    more: &BTreeMap<String, String>,
    headers: &mut Vec<(HeaderName, Secret)>,
    wrong: &mut Vec<String>,
) {
    if more.len() > HEADERS_MAX {
        wrong.push(format!("headers has {} headers, more than {HEADERS_MAX}", more.len()));
    }
    for (name, value) in more {
        match (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            (Ok(header::AUTHORIZATION), _) => {
                wrong.push("headers: authorization is a secret: use bearer_token_file".into());
            }
            (Ok(name), Ok(_)) if headers.iter().any(|(own, _)| *own == name) => {
                wrong.push(format!("headers: {name} is set by the protocol, or twice"));
            }
            (Ok(name), Ok(_)) => headers.push((name, Secret::new(value))),
            _ => wrong.push(format!("headers: {name:?} = {value:?} is no header")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::testing::checked;

    fn check(flags: &[(&str, &str)]) -> (Option<Config>, String) {
        let named: Vec<_> = flags.iter().map(|(a, b)| (format!("remote_write.{a}"), *b)).collect();
        let flags: Vec<_> = named.iter().map(|(a, b)| (a.as_str(), *b)).collect();
        checked(&flags, Config::check)
    }

    #[test]
    fn it_is_off_until_it_has_an_address() {
        assert_eq!(check(&[]), (None, String::new()));
        let (config, text) = check(&[("url", "http://127.0.0.1:9090/api/v1/write")]);
        let config = config.unwrap();
        assert_eq!(text, "");
        assert_eq!((config.interval, config.native), (Duration::from_secs(15), false));
        assert_eq!((config.queue_bytes, config.samples), (16 << 20, 2_000));
        assert_eq!(config.headers.len(), 3);
    }

    #[test]
    fn a_token_a_tenant_and_labels_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let (config, text) = check(&[
            ("url", "https://mimir.example/api/v1/push"),
            ("bearer_token_file", file.to_str().unwrap()),
            ("headers", "X-Scope-OrgID=search"),
            ("labels", "cluster=eu-1,zone=a"),
            ("send_native_histograms", "true"),
        ]);
        assert_eq!(text, "");
        let config = config.unwrap();
        let header = |name: &str| {
            config.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.expose())
        };
        assert_eq!(header("authorization"), Some("Bearer s3cret"));
        assert_eq!(header("x-scope-orgid"), Some("search"));
        assert_eq!(config.labels["cluster"], "eu-1");
        assert!(config.native && !format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn everything_wrong_is_said_at_once_and_no_secret_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        std::fs::write(&open, "s3cret").unwrap();
        std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
        let (_, text) = check(&[
            ("url", "http://mimir.example/push"),
            ("bearer_token_file", open.to_str().unwrap()),
            ("headers", "authorization=x,content-type=y,a b=c"),
            ("labels", "__name__=x,9a=b"),
        ]);
        for part in [
            "remote_write.url would send a secret in clear",
            "mode 644 lets others read it",
            "authorization is a secret",
            "content-type is set by the protocol",
            "\"a b\" = \"c\" is no header",
            "\"__name__\" names no label",
            "\"9a\" names no label",
        ] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
        assert!(!text.contains("s3cret"), "{text}");
        assert!(check(&[("bearer_token_file", "/none")]).1.contains("url is not"));
    }

    #[test]
    fn labels_and_headers_are_taken_up_to_their_bounds() {
        let many =
            |count: usize| (0..count).map(|at| format!("l{at}=x")).collect::<Vec<_>>().join(",");
        for (key, max) in [("labels", LABELS_MAX), ("headers", HEADERS_MAX)] {
            let url = ("url", "http://127.0.0.1:1/");
            assert_eq!(check(&[url, (key, &many(max))]).1, "");
            let text = check(&[url, (key, &many(max + 1))]).1;
            assert!(text.contains("more than 32"), "{text}");
        }
    }
}
