//! The agent's configuration: its keys, and what they mean once checked.

use std::path::PathBuf;
use std::time::Duration;

use lens_flags::VerifyingKey;
use lens_model::limits::{
    PROXY_BODY_BYTES_MAX, PROXY_CONNECTIONS_MAX, PROXY_SLICES_MAX, PROXY_TIMEOUT_MILLIS_MAX,
};
use lens_model::{Nanos, SpiffeId};
use lens_segment::Recorder;
use lens_service::config::{Key, Kind, Problem, Problems, Settings};
use lens_service::tls::{self, IdentityFiles};

use crate::flags::control_key;
use crate::hindsight::Bounds;
use crate::ingest::settings::{self, IngestConfig};
use crate::proxy::ProxyConfig;

/// The prefix of the agent's environment variables.
pub const PREFIX: &str = "LENS_AGENT";

/// Every key of the agent.
pub const KEYS: &[Key] =
    &settings::join::<{ OWN.len() + settings::KEYS.len() }>(&[OWN, &settings::KEYS]);

const OWN: &[Key] = &[
    Key {
        path: "segments.dir",
        kind: Kind::Path,
        default: None,
        doc: "where search nodes keep their segments; $LENS_SEGMENT_DIR or /dev/shm/lens when unset",
    },
    Key {
        path: "segments.scan_interval_ms",
        kind: Kind::Integer { min: 50, max: 60_000 },
        default: Some("1000"),
        doc: "time between looks for new and dead segments, milliseconds",
    },
    Key {
        path: "harvest.interval_ms",
        kind: Kind::Integer { min: 100, max: 60_000 },
        default: Some("1000"),
        doc: "time between harvests, milliseconds; five fall into one 5 s slot",
    },
    Key {
        path: "hindsight.span_s",
        kind: Kind::Integer { min: 0, max: 3_600 },
        default: Some("600"),
        doc: "how much of the past is kept in fine steps for captures, seconds; 0 keeps none",
    },
    Key {
        path: "hindsight.interval_ms",
        kind: Kind::Integer { min: 20, max: 10_000 },
        default: Some("100"),
        doc: "how fine those steps are, milliseconds",
    },
    Key {
        path: "hindsight.max_bytes",
        kind: Kind::Integer { min: 1_048_576, max: 4_294_967_296 },
        default: Some("67108864"),
        doc: "memory those steps take up at most; past it the oldest go before their time",
    },
    Key {
        path: "aggregator.endpoints",
        kind: Kind::List,
        default: Some("127.0.0.1:7443"),
        doc: "aggregators as host:port, tried in turn",
    },
    Key {
        path: "aggregator.server_name",
        kind: Kind::Text,
        default: None,
        doc: "name the aggregator's certificate must carry; the endpoint's host when unset",
    },
    Key {
        path: "identity.cert",
        kind: Kind::Path,
        default: None,
        doc: "this agent's certificate chain, PEM; one spiffe://<trust-domain>/agent/<name> URI",
    },
    Key {
        path: "identity.key",
        kind: Kind::Path,
        default: None,
        doc: "its private key, PEM, readable by its owner alone",
    },
    Key {
        path: "identity.ca",
        kind: Kind::Path,
        default: None,
        doc: "the authority the aggregator's certificate is held against, PEM",
    },
    Key {
        path: "spool.dir",
        kind: Kind::Path,
        default: None,
        doc: "where deltas are kept until acknowledged, on a disk, this agent's alone; $STATE_DIRECTORY/spool or /var/lib/lens-agent/spool when unset",
    },
    Key {
        path: "spool.max_bytes",
        kind: Kind::Integer { min: 1_048_576, max: 17_179_869_184 },
        default: Some("268435456"),
        doc: "bytes the spool's files take up at most; past it counts stay in the segments",
    },
    Key {
        path: "control.dir",
        kind: Kind::Path,
        default: None,
        doc: "where the control key and the last flags are kept; in spool.dir, named control, when unset",
    },
    Key {
        path: "control.key",
        kind: Kind::Text,
        default: None,
        doc: "the one control key whose flags are believed, 64 hex digits; the first one an aggregator shows when unset",
    },
    Key {
        path: "node.name",
        kind: Kind::Text,
        default: None,
        doc: "this host's name as shown to people; the agent's name when unset",
    },
    Key {
        path: "node.zone",
        kind: Kind::Text,
        default: Some(""),
        doc: "where this host stands, such as eu-1",
    },
    Key {
        path: "node.labels",
        kind: Kind::Labels,
        default: None,
        doc: "labels of this host, at most 15, such as { rack = \"r7\" }",
    },
    lens_service::telemetry::KEY,
    Key {
        path: "proxy.listen",
        kind: Kind::Address,
        default: None,
        doc: "where clients of an engine that records nothing connect instead; off unless set",
    },
    Key {
        path: "proxy.stable",
        kind: Kind::Text,
        default: None,
        doc: "the engine as everyone has it, host:port, plain HTTP/1.1",
    },
    Key {
        path: "proxy.canary",
        kind: Kind::Text,
        default: None,
        doc: "the engine being rolled out, host:port; without one everyone is in the baseline",
    },
    Key {
        path: "proxy.slice",
        kind: Kind::Text,
        default: None,
        doc: "repo_type/language/size of requests; a part may be {header:NAME} or {query:NAME|FALLBACK}",
    },
    Key {
        path: "proxy.slices",
        kind: Kind::List,
        default: None,
        doc: "the only slices told apart; the rest is other/other/other",
    },
    Key {
        path: "proxy.slices_max",
        kind: Kind::Integer { min: 1, max: PROXY_SLICES_MAX as i64 },
        default: Some("32"),
        doc: "where proxy.slices is unset, the first so many slices are told apart",
    },
    Key {
        path: "proxy.user_header",
        kind: Kind::Text,
        default: None,
        doc: "header that names the user, who keeps one arm; the client's address where it is absent",
    },
    Key {
        path: "proxy.stage",
        kind: Kind::Text,
        default: Some("e2e"),
        doc: "the stage an answer's time is counted as",
    },
    Key {
        path: "proxy.bad_query",
        kind: Kind::List,
        default: None,
        doc: "texts in the first 4 KiB of a 5xx that make it the client's fault; lens 1: Syntax Error",
    },
    Key {
        path: "proxy.timeout_ms",
        kind: Kind::Integer { min: 10, max: PROXY_TIMEOUT_MILLIS_MAX as i64 },
        default: Some("10000"),
        doc: "longest an engine may keep a request waiting, to the last byte, milliseconds",
    },
    Key {
        path: "proxy.connect_timeout_ms",
        kind: Kind::Integer { min: 10, max: PROXY_TIMEOUT_MILLIS_MAX as i64 },
        default: Some("1000"),
        doc: "longest a connection to an engine may take to open, milliseconds",
    },
    Key {
        path: "proxy.client_timeout_ms",
        kind: Kind::Integer { min: 10, max: 600_000 },
        default: Some("30000"),
        doc: "longest a client may send or read nothing, milliseconds",
    },
    Key {
        path: "proxy.idle_timeout_ms",
        kind: Kind::Integer { min: 10, max: 600_000 },
        default: Some("4000"),
        doc: "longest an unused connection to an engine is kept; less than the engine itself keeps one",
    },
    Key {
        path: "proxy.body_bytes_max",
        kind: Kind::Integer { min: 0, max: PROXY_BODY_BYTES_MAX as i64 },
        default: Some("1048576"),
        doc: "largest request body that is forwarded, bytes",
    },
    Key {
        path: "proxy.connections_max",
        kind: Kind::Integer { min: 1, max: PROXY_CONNECTIONS_MAX as i64 },
        default: Some("1024"),
        doc: "client connections at once; one more waits",
    },
    Key {
        path: "admin.listen",
        kind: Kind::Address,
        default: Some("127.0.0.1:9470"),
        doc: "where /livez /readyz /metrics /status listen; port 0 takes a free one",
    },
];

/// The agent's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where segments are looked for.
    pub segments_dir: PathBuf,
    /// Time between looks for segments.
    pub scan_interval: Duration,
    /// Time between harvests.
    pub harvest_interval: Nanos,
    /// How the last minutes are kept, where they are.
    pub hindsight: Option<Bounds>,
    /// Aggregators as `host:port`.
    pub endpoints: Vec<String>,
    /// The name their certificates must carry, when not the endpoint's host.
    pub server_name: Option<String>,
    /// Files of this agent's identity.
    pub identity_files: IdentityFiles,
    /// Who its certificate says it is.
    pub identity: SpiffeId,
    /// Where deltas are kept until they are acknowledged.
    pub spool_dir: PathBuf,
    /// Bytes they may take up.
    pub spool_bytes_max: u64,
    /// Where the control key and the last document are kept.
    pub control_dir: PathBuf,
    /// The one control key believed, if it is named.
    pub control_key: Option<VerifyingKey>,
    /// Where this host stands; may be empty.
    pub zone: String,
    /// Labels shown to the aggregator, name and zone among them.
    pub labels: Vec<(String, String)>,
    /// What foreign telemetry is taken.
    pub ingest: IngestConfig,
    /// Proxy mode, where it is on.
    pub proxy: Option<ProxyConfig>,
    /// Where the admin endpoints listen.
    pub admin_listen: std::net::SocketAddr,
}

impl Config {
    /// Checks what the table alone cannot: files, names and how keys go together.
    ///
    /// # Errors
    /// Every problem found, at once.
    pub fn check(settings: &Settings) -> Result<Self, Problems> {
        let mut problems = Vec::new();
        let mut problem = |key: &str, what: String| {
            problems
                .push(Problem { origin: "configuration".into(), what: format!("{key} {what}") });
        };
        let mut file = |key: &'static str| {
            settings.path(key).unwrap_or_else(|| {
                let remedy = "is not set: `lens certs issue --agent NAME` makes the files";
                problem(key, remedy.into());
                PathBuf::new()
            })
        };
        let identity_files = IdentityFiles {
            cert: file("identity.cert"),
            key: file("identity.key"),
            ca: file("identity.ca"),
        };
        let mut identity = None;
        if problems.is_empty() {
            match tls::identity_of_file(&identity_files.cert) {
                Ok(id) => identity = Some(id),
                Err(error) => problems
                    .push(Problem { origin: "identity.cert".into(), what: error.to_string() }),
            }
            if let Err(error) =
                tls::client(&identity_files, lens_wire::ALPN, tls::Crypto::default())
            {
                let what = error.to_string();
                if problems.iter().all(|problem| problem.what != what) {
                    problems.push(Problem { origin: "identity".into(), what });
                }
            }
        }
        let endpoints = settings.list("aggregator.endpoints");
        if endpoints.is_empty() {
            let what = "aggregator.endpoints is empty: name at least one host:port".into();
            problems.push(Problem { origin: "configuration".into(), what });
        }
        for endpoint in &endpoints {
            let port = endpoint.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
            if !matches!(port, Some(Ok(_))) {
                let what =
                    format!("aggregator.endpoints holds {endpoint:?}, which is not host:port");
                problems.push(Problem { origin: "configuration".into(), what });
            }
        }
        let ingest = IngestConfig::check(settings, &mut |key, what| {
            let what = format!("{key} {what}");
            problems.push(Problem { origin: "configuration".into(), what });
        });
        let proxy = ProxyConfig::check(settings).unwrap_or_else(|found| {
            problems.extend(found);
            None
        });
        let control_key = settings.text("control.key").map(|text| (text, control_key(text)));
        if let Some((text, None)) = control_key {
            let shown: String = text.chars().take(80).collect();
            let what = format!("control.key {shown:?} is no public key of 64 hex digits");
            problems.push(Problem { origin: "configuration".into(), what });
        }
        let (Some(identity), true) = (identity, problems.is_empty()) else {
            return Err(Problems(problems));
        };
        let name = settings.text("node.name").unwrap_or(identity.agent.as_str()).to_owned();
        let zone = settings.text("node.zone").unwrap_or_default().to_owned();
        let mut labels = vec![("name".to_owned(), name)];
        if !zone.is_empty() {
            labels.push(("zone".to_owned(), zone.clone()));
        }
        labels.extend(settings.labels("node.labels"));
        let spool_dir = settings.path("spool.dir").unwrap_or_else(default_spool_dir);
        Ok(Self {
            control_dir: settings.path("control.dir").unwrap_or_else(|| spool_dir.join("control")),
            control_key: control_key.and_then(|(_, key)| key),
            segments_dir: settings.path("segments.dir").unwrap_or_else(Recorder::default_dir),
            scan_interval: Duration::from_millis(settings.integer("segments.scan_interval_ms")),
            harvest_interval: Nanos::from_millis(settings.integer("harvest.interval_ms")),
            hindsight: hindsight(settings),
            endpoints,
            server_name: settings.text("aggregator.server_name").map(str::to_owned),
            identity_files,
            identity,
            spool_dir,
            spool_bytes_max: settings.integer("spool.max_bytes"),
            zone,
            labels,
            ingest,
            proxy,
            admin_listen: settings
                .address("admin.listen")
                .unwrap_or_else(|| ([127, 0, 0, 1], 9470).into()),
        })
    }
}

fn hindsight(settings: &Settings) -> Option<Bounds> {
    let span = Nanos::from_secs(settings.integer("hindsight.span_s"));
    let interval = Duration::from_millis(settings.integer("hindsight.interval_ms"));
    let bytes_max = usize::try_from(settings.integer("hindsight.max_bytes")).unwrap_or(usize::MAX);
    (span > Nanos(0)).then_some(Bounds { interval, span, bytes_max })
}

/// Where a service manager says that state belongs, or where it belongs without one.
fn default_spool_dir() -> PathBuf {
    let state = std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty());
    state.map_or_else(|| PathBuf::from("/var/lib/lens-agent"), PathBuf::from).join("spool")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_model::limits::SPOOL_BYTES_MAX;
    use lens_service::config::Sources;

    #[test]
    fn an_agent_without_identity_is_told_how_to_get_one() {
        let settings = Settings::load(KEYS, PREFIX, &Sources::default()).unwrap();
        let problems = Config::check(&settings).unwrap_err().to_string();
        for key in ["identity.cert", "identity.key", "identity.ca", "lens certs issue"] {
            assert!(problems.contains(key), "{problems}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_limits() {
        let settings = Settings::load(KEYS, PREFIX, &Sources::default()).unwrap();
        assert_eq!(settings.integer("spool.max_bytes"), SPOOL_BYTES_MAX);
    }

    #[test]
    fn the_shipped_example_names_only_keys_there_are() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/agent.toml");
        let sources = Sources { file: Some(file.into()), ..Sources::default() };
        Settings::load(KEYS, PREFIX, &sources).unwrap();
    }
}
