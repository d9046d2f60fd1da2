//! The aggregator's configuration: its keys, and what they mean once checked.

mod auth;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lens_model::limits::{
    AUTOMATIC_SLICES_MAX, SUMMARY_SECS_MAX, WINDOW_BASE_SECS, WINDOW_SLOTS_BEYOND_SUMMARY,
    WINDOW_SLOTS_MAX,
};
use lens_model::{Nanos, Slice, TrustDomain};
use lens_service::config::{Key, Kind, Problem, Problems, Settings, nearest};
use lens_service::tls::{self, IdentityFiles};

use crate::audit::Places;
use crate::export::remote_write;
use crate::listen::Limits;
use crate::state::{Mode, Rules, SliceRules};
use crate::store::{LIVES_MAX, StoreConfig};

pub use auth::AuthConfig;

/// The prefix of the aggregator's environment variables.
pub const PREFIX: &str = "LENS_AGGREGATOR";

/// Every key of the aggregator.
pub const KEYS: &[Key] = &[
    Key {
        path: "quic.listen",
        kind: Kind::Address,
        default: Some("0.0.0.0:7443"),
        doc: "where agents connect, UDP; port 0 takes a free one",
    },
    Key {
        path: "quic.connections_max",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: Some("4096"),
        doc: "connections and handshakes at once; one more is refused",
    },
    Key {
        path: "quic.connections_per_address_max",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: Some("16"),
        doc: "of these, from one address; raise it where a fleet stands behind one address",
    },
    Key {
        path: "quic.handshakes_unvalidated_max",
        kind: Kind::Integer { min: 0, max: 4_096 },
        default: Some("64"),
        doc: "handshakes under way above which a new address must first prove itself; 0: always",
    },
    Key {
        path: "quic.handshake_max_ms",
        kind: Kind::Integer { min: 100, max: 60_000 },
        default: Some("3000"),
        doc: "longest a handshake may take, milliseconds",
    },
    Key {
        path: "quic.hello_max_ms",
        kind: Kind::Integer { min: 50, max: 60_000 },
        default: Some("1000"),
        doc: "longest from the handshake to a valid HELLO, milliseconds",
    },
    Key {
        path: "quic.connection_age_max_s",
        kind: Kind::Integer { min: 1, max: 86_400 },
        default: Some("3600"),
        doc: "age at which an agent has to connect anew, and its certificate is looked at again, seconds",
    },
    Key {
        path: "http.listen",
        kind: Kind::Address,
        default: Some("127.0.0.1:3000"),
        doc: "where API and page listen; loopback only while auth.mode is none",
    },
    Key {
        path: "identity.cert",
        kind: Kind::Path,
        default: None,
        doc: "this aggregator's certificate chain, PEM",
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
        doc: "the authority agents' certificates are held against, PEM",
    },
    Key {
        path: "identity.trust_domain",
        kind: Kind::Text,
        default: None,
        doc: "take agents of this trust domain only; of any the authority vouches for when unset",
    },
    Key {
        path: "store.dir",
        kind: Kind::Path,
        default: None,
        doc: "where merged windows are kept; $STATE_DIRECTORY/store, or else /var/lib/lens-aggregator/store, when unset",
    },
    Key {
        path: "store.commit_interval_ms",
        kind: Kind::Integer { min: 0, max: 10_000 },
        default: Some("100"),
        doc: "under load deltas become durable together this often; after a quiet time at once, milliseconds",
    },
    Key {
        path: "store.cache_mib",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: Some("64"),
        doc: "pages of the store kept in memory, MiB",
    },
    Key {
        path: "windows.keep_5s_h",
        kind: Kind::Integer { min: 1, max: 87_600 },
        default: Some("24"),
        doc: "how long 5 s windows are kept, hours",
    },
    Key {
        path: "windows.keep_1m_d",
        kind: Kind::Integer { min: 1, max: 3_650 },
        default: Some("14"),
        doc: "how long 1 min windows are kept, days",
    },
    Key {
        path: "windows.keep_1h_d",
        kind: Kind::Integer { min: 1, max: 36_500 },
        default: Some("400"),
        doc: "how long 1 h windows are kept, days; what is older is in the lifetime counts alone",
    },
    Key {
        path: "identity.revoked",
        kind: Kind::Path,
        default: None,
        doc: "file of those kept out: `agent NAME`, `operator NAME` or `serial HEX` a line; the API edits it",
    },
    Key {
        path: "auth.mode",
        kind: Kind::Text,
        default: Some("none"),
        doc: "who may use the API: tokens, mtls, or none, which is for loopback only",
    },
    Key {
        path: "auth.tokens",
        kind: Kind::Path,
        default: None,
        doc: "file of tokens, made by `lens token create`; reread when it changes",
    },
    Key {
        path: "auth.operator_ca",
        kind: Kind::Path,
        default: None,
        doc: "authority of operators' certificates, PEM, with mode mtls; identity.ca when unset",
    },
    Key {
        path: "auth.operators",
        kind: Kind::Labels,
        default: None,
        doc: "roles of operators by name, with mode mtls, such as { alice = \"admin auditor\" }",
    },
    Key {
        path: "audit.dir",
        kind: Kind::Path,
        default: None,
        doc: "where the audit record is kept; what needs a record is refused while it is unset",
    },
    Key {
        path: "audit.head",
        kind: Kind::Path,
        default: None,
        doc: "where its signed head is written, best on another disk; head.json beside it when unset",
    },
    Key {
        path: "audit.key",
        kind: Kind::Path,
        default: None,
        doc: "key the head is signed with, made on the first start; audit.key in audit.dir when unset",
    },
    Key {
        path: "audit.rotate_bytes",
        kind: Kind::Integer { min: 65_536, max: 67_108_864 },
        default: Some("16777216"),
        doc: "size at which a file of the record is followed by another, bytes",
    },
    Key {
        path: "windows.base_s",
        kind: Kind::Integer { min: 5, max: 5 },
        default: Some("5"),
        doc: "width of a slot, seconds; fixed in this version",
    },
    Key {
        path: "windows.allowed_lateness_s",
        kind: Kind::Integer { min: 10, max: 3_000 },
        default: Some("60"),
        doc: "age at which a slot is sealed; later deltas still correct it, counted as late, seconds",
    },
    Key {
        path: "windows.summary_s",
        kind: Kind::Integer { min: 5, max: SUMMARY_SECS_MAX as i64 },
        default: Some("300"),
        doc: "the window tiles, tables and verdicts speak of, held in memory and a minute more, seconds",
    },
    Key {
        path: "windows.stale_s",
        kind: Kind::Integer { min: 5, max: 3_600 },
        default: Some("30"),
        doc: "silence after which a series is stale, seconds",
    },
    Key {
        path: "slices.known",
        kind: Kind::List,
        default: None,
        doc: "slices shown even before they are fed, as repo_type/language/size",
    },
    Key {
        path: "slices.automatic_max",
        kind: Kind::Integer { min: 0, max: 100_000 },
        default: Some("1000"),
        doc: "slices taken on without being listed; further ones are left out and counted",
    },
    Key {
        path: "slo.tail_ratio",
        kind: Kind::Float { min: 1.0, max: 100.0 },
        default: Some("2.0"),
        doc: "largest p99/p95 that is no violation",
    },
    Key {
        path: "slo.tail_floor_ms",
        kind: Kind::Float { min: 0.0, max: 60_000.0 },
        default: Some("1.0"),
        doc: "p99 below which no ratio is judged, milliseconds",
    },
    Key {
        path: "slo.stage_a_p95_ms",
        kind: Kind::Float { min: 0.001, max: 60_000.0 },
        default: Some("5.0"),
        doc: "stage A's p95 limit, milliseconds",
    },
    Key {
        path: "slo.stage_a_p99_ms",
        kind: Kind::Float { min: 0.001, max: 60_000.0 },
        default: Some("10.0"),
        doc: "stage A's p99 limit, milliseconds",
    },
    Key {
        path: "slo.stage_b_p95_ms",
        kind: Kind::Float { min: 0.001, max: 60_000.0 },
        default: Some("300.0"),
        doc: "stage B's p95 limit, milliseconds",
    },
    Key {
        path: "slo.stage_c_p95_ms",
        kind: Kind::Float { min: 0.001, max: 60_000.0 },
        default: Some("300.0"),
        doc: "stage C's p95 limit, milliseconds",
    },
    Key {
        path: "control.dir",
        kind: Kind::Path,
        default: None,
        doc: "where flags, kill switch and the control key are kept; beside store.dir, named control, when unset",
    },
    Key {
        path: "captures.dir",
        kind: Kind::Path,
        default: None,
        doc: "where captures are kept; beside store.dir, named captures, when unset",
    },
    Key {
        path: "captures.automatic",
        kind: Kind::Switch,
        default: Some("true"),
        doc: "whether a violation captures the last ten minutes of its slice, once in ten minutes",
    },
    Key {
        path: "alerts.dir",
        kind: Kind::Path,
        default: None,
        doc: "where alerts and deliveries are kept; beside store.dir, named alerts, when unset",
    },
    Key {
        path: "alerts.dashboard_url",
        kind: Kind::Text,
        default: None,
        doc: "where people see more, linked from notifications",
    },
    Key {
        path: "alerts.interval_s",
        kind: Kind::Integer { min: 1, max: 60 },
        default: Some("5"),
        doc: "time between two evaluations, seconds",
    },
    Key {
        path: "alerts.pending_s",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("60"),
        doc: "how long a rule is broken before anyone is told, seconds",
    },
    Key {
        path: "alerts.pending_silent_s",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("300"),
        doc: "the same for a silent slice, whose traffic may just be thin, seconds",
    },
    Key {
        path: "alerts.clear_s",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("180"),
        doc: "how long a rule holds without a break before its alert resolves, seconds",
    },
    Key {
        path: "alerts.hold_s",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("300"),
        doc: "least time an alert fires, seconds",
    },
    Key {
        path: "alerts.reopen_s",
        kind: Kind::Integer { min: 0, max: 86_400 },
        default: Some("900"),
        doc: "time after resolving within which the same alert comes back, seconds",
    },
    Key {
        path: "alerts.retry_for_s",
        kind: Kind::Integer { min: 1, max: 604_800 },
        default: Some("3600"),
        doc: "how long a delivery is tried before it is given up, seconds",
    },
    Key {
        path: "alerts.error_rate_percent",
        kind: Kind::Float { min: 0.0, max: 100.0 },
        default: Some("5.0"),
        doc: "share of requests that may fail, percent",
    },
    Key {
        path: "alerts.lag_s",
        kind: Kind::Integer { min: 1, max: 86_400 },
        default: Some("60"),
        doc: "how late an agent's deltas may arrive, seconds",
    },
    Key {
        path: "alerts.spool_age_s",
        kind: Kind::Integer { min: 1, max: 604_800 },
        default: Some("300"),
        doc: "age the oldest frame of an agent's spool may have, seconds",
    },
    Key {
        path: "alerts.sink",
        kind: Kind::Tables(crate::alerts::config::SINK_KEYS),
        default: None,
        doc: "where notifications go, one table a sink",
    },
    Key {
        path: "alerts.escalation",
        kind: Kind::Tables(crate::alerts::config::ESCALATION_KEYS),
        default: None,
        doc: "who hears of what nobody takes on, one table a step",
    },
    Key {
        path: "alerts.maintenance",
        kind: Kind::Tables(crate::alerts::config::MAINTENANCE_KEYS),
        default: None,
        doc: "times during which what they cover is not told of",
    },
    crate::canary::config::KEYS[0],
    crate::canary::config::KEYS[1],
    crate::canary::config::KEYS[2],
    crate::canary::config::KEYS[3],
    crate::canary::config::KEYS[4],
    crate::canary::config::KEYS[5],
    crate::canary::config::KEYS[6],
    crate::canary::config::KEYS[7],
    crate::canary::config::KEYS[8],
    crate::canary::config::KEYS[9],
    crate::canary::config::KEYS[10],
    crate::canary::config::KEYS[11],
    crate::canary::config::KEYS[12],
    crate::canary::config::KEYS[13],
    crate::guards::config::KEYS[0],
    crate::guards::config::KEYS[1],
    crate::guards::config::KEYS[2],
    crate::guards::config::KEYS[3],
    crate::guards::config::KEYS[4],
    crate::guards::config::KEYS[5],
    crate::guards::config::KEYS[6],
    crate::guards::config::KEYS[7],
    crate::guards::config::KEYS[8],
    crate::guards::config::KEYS[9],
    crate::guards::config::KEYS[10],
    crate::guards::config::KEYS[11],
    crate::guards::config::KEYS[12],
    crate::guards::config::KEYS[13],
    crate::guards::config::KEYS[14],
    crate::guards::config::KEYS[15],
    Key {
        path: "otlp.endpoint",
        kind: Kind::Text,
        default: None,
        doc: "OTLP receiver that merged series are sent to, such as http://collector:4317; off when unset",
    },
    Key {
        path: "otlp.protocol",
        kind: Kind::Text,
        default: Some("grpc"),
        doc: "grpc, or http/protobuf, which posts to /v1/metrics below the endpoint",
    },
    Key {
        path: "otlp.interval_s",
        kind: Kind::Integer { min: 1, max: 3_600 },
        default: Some("10"),
        doc: "time between two exports, seconds",
    },
    Key {
        path: "otlp.timeout_s",
        kind: Kind::Integer { min: 1, max: 60 },
        default: Some("10"),
        doc: "longest one request may take, seconds",
    },
    Key {
        path: "otlp.temporality",
        kind: Kind::Text,
        default: Some("cumulative"),
        doc: "what histograms count since: cumulative, the store's beginning; delta, the point before",
    },
    Key {
        path: "otlp.scale",
        kind: Kind::Integer { min: 0, max: 8 },
        default: Some("5"),
        doc: "scale of exponential histograms; 5 has buckets 2.2 % wide",
    },
    Key { path: "otlp.compression", kind: Kind::Text, default: Some("gzip"), doc: "gzip or none" },
    Key {
        path: "otlp.headers_file",
        kind: Kind::Path,
        default: None,
        doc: "headers sent along, one `name: value` a line. Mode 600",
    },
    Key {
        path: "otlp.bearer_file",
        kind: Kind::Path,
        default: None,
        doc: "token sent as `authorization: Bearer …`. Mode 600",
    },
    Key {
        path: "otlp.ca",
        kind: Kind::Path,
        default: None,
        doc: "authority the receiver's certificate is held against, PEM; the system's when unset",
    },
    Key {
        path: "otlp.resource",
        kind: Kind::Labels,
        default: None,
        doc: "further attributes of the resource, such as { \"deployment.environment.name\" = \"prod\" }",
    },
    lens_service::telemetry::KEY,
    Key {
        path: "slo.e2e_p95_ms",
        kind: Kind::Float { min: 0.001, max: 60_000.0 },
        default: None,
        doc: "the whole query's p95 limit, milliseconds; none when unset",
    },
    Key {
        path: "slo.e2e_regression_percent",
        kind: Kind::Float { min: 0.0, max: 1_000.0 },
        default: Some("10.0"),
        doc: "how much slower than the baseline's a canary's whole query may be at p95, percent",
    },
    Key {
        path: "slo.slices",
        kind: Kind::Labels,
        default: None,
        doc: "limits of single slices: repo_type/language/size = \"stage_a_p95_ms=4 tail_ratio=1.8\"",
    },
    Key {
        path: "judge.mode",
        kind: Kind::Text,
        default: None,
        doc: "the tail ratio by name, in place of slo.tail_ratio: pr 2.5, nightly 2.0, release 1.8",
    },
    Key {
        path: "judge.false_alarm_days",
        kind: Kind::Float { min: 0.01, max: 36_500.0 },
        default: Some("30.0"),
        doc: "days in which one series just at its limit may raise one false alarm",
    },
    Key {
        path: "judge.window_min_s",
        kind: Kind::Float { min: 10.0, max: 2_560.0 },
        default: Some("10.0"),
        doc: "narrowest window a rule is judged on, seconds; from 300 on bursts are noise",
    },
    Key {
        path: "remote_write.url",
        kind: Kind::Text,
        default: None,
        doc: "where metrics are pushed to, such as https://mimir.example/api/v1/push; off when unset",
    },
    Key {
        path: "remote_write.interval_s",
        kind: Kind::Integer { min: 1, max: 3_600 },
        default: Some("15"),
        doc: "time between two collections, seconds",
    },
    Key {
        path: "remote_write.bearer_token_file",
        kind: Kind::Path,
        default: None,
        doc: "file that holds a bearer token. Mode 600",
    },
    Key {
        path: "remote_write.headers",
        kind: Kind::Labels,
        default: None,
        doc: "headers of every request, such as { X-Scope-OrgID = \"search\" }; not for secrets",
    },
    Key {
        path: "remote_write.labels",
        kind: Kind::Labels,
        default: None,
        doc: "labels added to every series that lacks them, such as { cluster = \"eu-1\" }",
    },
    Key {
        path: "remote_write.send_native_histograms",
        kind: Kind::Switch,
        default: Some("false"),
        doc: "send histograms in exponential buckets; a receiver that knows none drops them silently",
    },
    Key {
        path: "remote_write.queue_mib",
        kind: Kind::Integer { min: 1, max: 1_024 },
        default: Some("16"),
        doc: "most that waits to be sent, MiB; collecting pauses when it is full",
    },
    Key {
        path: "remote_write.samples_per_request",
        kind: Kind::Integer { min: 10, max: 100_000 },
        default: Some("2000"),
        doc: "most samples of one request",
    },
];

/// The keys that say how samples are judged: those a file of rules may hold.
pub fn judge_keys() -> Vec<Key> {
    let sections = ["windows.", "slo.", "judge."];
    let of_judge = |key: &&Key| sections.iter().any(|section| key.path.starts_with(section));
    KEYS.iter().filter(of_judge).copied().collect()
}

/// The aggregator's configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where agents connect.
    pub quic_listen: SocketAddr,
    /// Where API and page listen.
    pub http_listen: SocketAddr,
    /// Files of its identity.
    pub identity: IdentityFiles,
    /// The one trust domain taken, if only one is.
    pub trust_domain: Option<TrustDomain>,
    /// Width of a slot.
    pub base: Nanos,
    /// Age at which a slot is sealed.
    pub lateness: Nanos,
    /// How it judges and shows.
    pub rules: Rules,
    /// Whom it tells, when and how.
    pub alerts: crate::alerts::Config,
    /// What rollouts are held to.
    pub canary: crate::canary::config::Config,
    /// What watches search itself.
    pub guards: crate::guards::Config,
    /// Where flags, kill switch and the control key are kept.
    pub control_dir: PathBuf,
    /// Where captures are kept.
    pub captures_dir: PathBuf,
    /// Whether violations begin one.
    pub captures_automatic: bool,
    /// Where merged series are sent to, if they are.
    pub otlp: Option<crate::export::otlp::Config>,
    /// Where metrics are pushed to, if they are.
    pub remote_write: Option<remote_write::Config>,
    /// Bounds of the data plane's door.
    pub limits: Limits,
    /// Who may use the API.
    pub auth: AuthConfig,
    /// Where the audit record is kept, if it is.
    pub audit: Option<Places>,
    /// File of those kept out.
    pub revoked: Option<PathBuf>,
    /// Where and how it keeps what it merged.
    pub store: StoreConfig,
    /// Pause between two commits under load.
    pub commit_interval: Duration,
}

/// Slots that the summary window needs in memory.
fn held_slots(settings: &Settings) -> usize {
    let summary = settings.integer("windows.summary_s").div_ceil(WINDOW_BASE_SECS);
    let summary = usize::try_from(summary).unwrap_or(WINDOW_SLOTS_MAX);
    summary.saturating_add(WINDOW_SLOTS_BEYOND_SUMMARY).min(WINDOW_SLOTS_MAX)
}

/// The store's directory when none is named: the one the service manager gives, or the usual one.
fn store_dir(settings: &Settings, state_directory: Option<OsString>) -> PathBuf {
    settings.path("store.dir").unwrap_or_else(|| {
        let given = state_directory.filter(|dir| !dir.is_empty());
        given.map_or_else(|| PathBuf::from("/var/lib/lens-aggregator"), PathBuf::from).join("store")
    })
}

impl Config {
    /// Checks what the table alone cannot.
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
                let remedy = "is not set: `lens certs issue --server NAME` makes the files";
                problem(key, remedy.into());
                PathBuf::new()
            })
        };
        let identity = IdentityFiles {
            cert: file("identity.cert"),
            key: file("identity.key"),
            ca: file("identity.ca"),
        };
        let trust_domain = settings.text("identity.trust_domain").and_then(|name| {
            TrustDomain::new(name)
                .map_err(|error| problem("identity.trust_domain", error.to_string()))
                .ok()
        });
        let mut slices_known: Vec<Slice> = Vec::new();
        for text in settings.list("slices.known") {
            match text.parse() {
                Ok(slice) => slices_known.push(slice),
                Err(error) => problem("slices.known", error.to_string()),
            }
        }
        slices_known.sort();
        slices_known.dedup();
        let http_listen = settings.address("http.listen").unwrap_or(([127, 0, 0, 1], 3000).into());
        let auth = auth::check(settings, http_listen, &mut problem);
        let auth = auth.unwrap_or(AuthConfig::None);
        let rules = rules(settings).unwrap_or_else(|found| {
            problems.extend(found);
            Rules::default()
        });
        let mut alerts = crate::alerts::Config::check(settings, &mut problems);
        let mut canary = crate::canary::config::Config::check(settings, &mut problems);
        let mut guards = crate::guards::Config::check(settings, &mut problems);
        let otlp = crate::export::otlp::Config::check(settings, &mut problems);
        let remote_write = remote_write::Config::check(settings, &mut problems);
        if problems.is_empty()
            && let Err(error) = tls::server(&identity, lens_wire::ALPN, tls::Crypto::default())
        {
            problems.push(Problem { origin: "identity".into(), what: error.to_string() });
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        let secs = |key| Nanos::from_secs(settings.integer(key));
        let count = |key| usize::try_from(settings.integer(key)).unwrap_or(usize::MAX);
        let ms = |key| Duration::from_millis(settings.integer(key));
        let automatic = settings.integer("slices.automatic_max");
        let slices_automatic_max = usize::try_from(automatic).unwrap_or(AUTOMATIC_SLICES_MAX);
        let cache = usize::try_from(settings.integer("store.cache_mib")).unwrap_or(64);
        let keep = |key, unit_secs| Nanos::from_secs(settings.integer(key) * unit_secs);
        let store = StoreConfig {
            dir: store_dir(settings, std::env::var_os("STATE_DIRECTORY")),
            cache_bytes: cache << 20,
            retention: [
                keep("windows.keep_5s_h", 3_600),
                keep("windows.keep_1m_d", 86_400),
                keep("windows.keep_1h_d", 86_400),
            ],
            lateness: secs("windows.allowed_lateness_s"),
            held_slots: held_slots(settings),
            slices_known: slices_known.clone(),
            slices_automatic_max,
            lives_max: LIVES_MAX,
        };
        alerts.dir.get_or_insert_with(|| store.dir.with_file_name("alerts"));
        canary.dir.get_or_insert_with(|| store.dir.with_file_name("canary"));
        guards.dir.get_or_insert_with(|| store.dir.with_file_name("guards"));
        let control_dir = settings.path("control.dir");
        let control_dir = control_dir.unwrap_or_else(|| store.dir.with_file_name("control"));
        let captures_dir = settings.path("captures.dir");
        Ok(Self {
            captures_dir: captures_dir.unwrap_or_else(|| store.dir.with_file_name("captures")),
            captures_automatic: settings.switch("captures.automatic"),
            control_dir,
            quic_listen: settings.address("quic.listen").unwrap_or(([0, 0, 0, 0], 7443).into()),
            http_listen,
            identity,
            trust_domain,
            base: Nanos::from_secs(WINDOW_BASE_SECS),
            lateness: secs("windows.allowed_lateness_s"),
            limits: Limits {
                connections_max: count("quic.connections_max"),
                per_address_max: count("quic.connections_per_address_max"),
                unvalidated_max: count("quic.handshakes_unvalidated_max"),
                handshake_max: ms("quic.handshake_max_ms"),
                hello_max: ms("quic.hello_max_ms"),
                age_max: Duration::from_secs(settings.integer("quic.connection_age_max_s")),
                ..Limits::default()
            },
            auth,
            audit: auth::places(settings),
            revoked: settings.path("identity.revoked"),
            rules: Rules { slices_known, slices_automatic_max, ..rules },
            alerts,
            canary,
            guards,
            otlp,
            remote_write,
            store,
            commit_interval: Duration::from_millis(settings.integer("store.commit_interval_ms")),
        })
    }
}

/// The rules of `[windows]`, `[slo]` and `[judge]`; the slices are left to the caller.
///
/// # Errors
/// Every value that no single key's bounds could refuse.
pub fn rules(settings: &Settings) -> Result<Rules, Vec<Problem>> {
    let secs = |key| Nanos::from_secs(settings.integer(key));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let nanos = |millis: f64| Nanos((millis * 1e6) as u64);
    let millis = |key| nanos(settings.float(key));
    let mut problems = Vec::new();
    let mut problem = |what: String| {
        problems.push(Problem { origin: "configuration".into(), what });
    };
    let tail_ratio_max = match settings.text("judge.mode") {
        None => settings.float("slo.tail_ratio"),
        Some(mode) => Mode::of(mode).map_or_else(
            || {
                problem(format!("judge.mode {mode:?} is unknown: use pr, nightly or release"));
                settings.float("slo.tail_ratio")
            },
            Mode::tail_ratio,
        ),
    };
    // A limit that is set is above 0; 0 is what a key without value reads as.
    let e2e = Some(millis("slo.e2e_p95_ms")).filter(|limit| *limit > Nanos(0));
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let window_min = Nanos((settings.float("judge.window_min_s") * 1e9) as u64);
    let mut rules = Rules {
        summary_window: secs("windows.summary_s"),
        stale_after: secs("windows.stale_s"),
        tail_ratio_max,
        tail_floor: millis("slo.tail_floor_ms"),
        slo_a_p95: millis("slo.stage_a_p95_ms"),
        slo_a_p99: millis("slo.stage_a_p99_ms"),
        slo_b_p95: millis("slo.stage_b_p95_ms"),
        slo_c_p95: millis("slo.stage_c_p95_ms"),
        slo_e2e_p95: e2e,
        e2e_regression_max: settings.float("slo.e2e_regression_percent") / 100.0,
        false_alarm_days: settings.float("judge.false_alarm_days"),
        window_min,
        ..Rules::default()
    };
    let of_all = rules.of_all();
    for (name, text) in settings.labels("slo.slices") {
        let slice = name.parse::<Slice>().map_err(|error| error.to_string());
        match slice.and_then(|slice| Ok((slice, slice_rules(of_all, &text)?))) {
            Ok((slice, own)) => {
                rules.slices.insert(slice, own);
            }
            Err(what) => problem(format!("slo.slices {name:?}: {what}")),
        }
    }
    if problems.is_empty() { Ok(rules) } else { Err(problems) }
}

/// The limits of one slice: those of all, changed by `name=value` pairs.
fn slice_rules(mut rules: SliceRules, text: &str) -> Result<SliceRules, String> {
    const NAMES: [&str; 6] = [
        "stage_a_p95_ms",
        "stage_a_p99_ms",
        "stage_b_p95_ms",
        "stage_c_p95_ms",
        "e2e_p95_ms",
        "tail_ratio",
    ];
    for pair in text.split_whitespace() {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("{pair:?} is not of the form name=value"))?;
        let (min, max) = if name == "tail_ratio" { (1.0, 100.0) } else { (0.001, 60_000.0) };
        let value = value.parse().ok().filter(|value| (min..=max).contains(value));
        let value: f64 =
            value.ok_or_else(|| format!("{name} must be a number from {min} to {max}"))?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let limit = Nanos((value * 1e6) as u64);
        match name {
            "stage_a_p95_ms" => rules.a_p95 = limit,
            "stage_a_p99_ms" => rules.a_p99 = limit,
            "stage_b_p95_ms" => rules.b_p95 = limit,
            "stage_c_p95_ms" => rules.c_p95 = limit,
            "e2e_p95_ms" => rules.e2e_p95 = Some(limit),
            "tail_ratio" => rules.tail_ratio = value,
            _ => {
                let near = nearest(name, NAMES.into_iter());
                let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
                return Err(format!("{name} is no limit{hint}"));
            }
        }
    }
    Ok(rules)
}

/// What tests of a section's own check share.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use lens_service::config::Sources;

    /// What a section's check makes of these flags, and every problem it found, a line each.
    pub(crate) fn checked<C>(
        flags: &[(&str, &str)],
        check: impl FnOnce(&Settings, &mut Vec<Problem>) -> C,
    ) -> (C, String) {
        let flags = flags.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let settings = Settings::load(KEYS, PREFIX, &Sources { flags, ..Sources::default() });
        let mut problems = Vec::new();
        let config = check(&settings.unwrap(), &mut problems);
        let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        (config, text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_service::config::Sources;

    fn check(flags: &[(&str, &str)]) -> Problems {
        let flags = flags.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let sources = Sources { flags, ..Sources::default() };
        Config::check(&Settings::load(KEYS, PREFIX, &sources).unwrap()).unwrap_err()
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let text = check(&[
            ("slices.known", "backend/rust"),
            ("http.listen", "0.0.0.0:3000"),
            ("identity.trust_domain", "a b"),
        ])
        .to_string();
        for part in ["identity.cert", "slices.known", "only loopback", "identity.trust_domain"] {
            assert!(text.contains(part), "{part} missing in {text}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_rules() {
        let settings = Settings::load(KEYS, PREFIX, &Sources::default()).unwrap();
        let rules = Rules::default();
        assert_eq!(settings.integer("windows.summary_s"), rules.summary_window.0 / 1_000_000_000);
        assert_eq!(settings.integer("slices.automatic_max"), rules.slices_automatic_max as u64);
        assert!((settings.float("slo.tail_ratio") - rules.tail_ratio_max).abs() < 1e-9);
    }

    #[test]
    fn the_shipped_example_names_only_keys_there_are() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/aggregator.toml");
        let sources = Sources { file: Some(file.into()), ..Sources::default() };
        Settings::load(KEYS, PREFIX, &sources).unwrap();
    }
}
