//! The `[ingest.*]` sections: their keys, and what they mean once checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use lens_service::config::{Key, Kind, Settings, nearest};

use super::rules::{Explicit, Rules, Spans};
use super::tallies::Listener;

/// Names of the `labels` tables.
const LABELS: [&str; 5] = ["repo_type", "language", "size", "stage", "arm"];

macro_rules! listener_keys {
    ($section:literal $(, $more:expr)* $(,)?) => {
        &[
            Key {
                path: concat!("ingest.", $section, ".labels"),
                kind: Kind::Labels,
                default: None,
                doc: "repo_type, language, size, stage and arm of what does not say, such as { language = \"rust\" }",
            },
            Key {
                path: concat!("ingest.", $section, ".stages"),
                kind: Kind::Labels,
                default: None,
                doc: "stages by name of metric, such as { \"search.duration\" = \"e2e\" }",
            },
            Key {
                path: concat!("ingest.", $section, ".units"),
                kind: Kind::Labels,
                default: None,
                doc: "units by name of metric: s, ms, us or ns; they win over the unit a metric says",
            },
            $($more,)*
        ]
    };
}

macro_rules! otlp_keys {
    ($section:literal, $port:literal) => {
        listener_keys!(
            $section,
            Key {
                path: concat!("ingest.", $section, ".listen"),
                kind: Kind::Address,
                default: None,
                doc: concat!("where OTLP is taken, such as 127.0.0.1:", $port, "; off when unset"),
            },
            Key {
                path: concat!("ingest.", $section, ".explicit_histograms"),
                kind: Kind::Text,
                default: Some("convert"),
                doc: "histograms with explicit bounds: convert (the series is marked as of low resolution) or refuse",
            },
            Key {
                path: concat!("ingest.", $section, ".spans"),
                kind: Kind::Text,
                default: Some("all"),
                doc: "spans: all, weighted (only those with a sampling threshold) or refuse",
            },
        )
    };
}

const GRPC: &[Key] = otlp_keys!("otlp_grpc", "4317");
const HTTP: &[Key] = otlp_keys!("otlp_http", "4318");
const DOGSTATSD: &[Key] = listener_keys!(
    "dogstatsd",
    Key {
        path: "ingest.dogstatsd.unix",
        kind: Kind::Path,
        default: None,
        doc: "datagram socket where DogStatsD is taken; off when unset",
    },
    Key {
        path: "ingest.dogstatsd.udp",
        kind: Kind::Address,
        default: None,
        doc: "where DogStatsD is taken, such as 127.0.0.1:8125; off when unset",
    },
    Key {
        path: "ingest.dogstatsd.readers",
        kind: Kind::Integer { min: 1, max: 16 },
        default: Some("2"),
        doc: "threads that read each socket",
    },
    Key {
        path: "ingest.dogstatsd.receive_buffer_bytes",
        kind: Kind::Integer { min: 65_536, max: 67_108_864 },
        default: Some("4194304"),
        doc: "room for datagrams not read yet, bytes; the kernel gives at most net.core.rmem_max",
    },
);

const KEYS_COUNT: usize = GRPC.len() + HTTP.len() + DOGSTATSD.len();

/// Every key of the `[ingest.*]` sections.
pub const KEYS: [Key; KEYS_COUNT] = join(&[GRPC, HTTP, DOGSTATSD]);

/// One table of keys out of several.
pub const fn join<const N: usize>(parts: &[&[Key]]) -> [Key; N] {
    let mut out = [parts[0][0]; N];
    let (mut part, mut place) = (0, 0);
    while part < parts.len() {
        let mut at = 0;
        while at < parts[part].len() {
            out[place] = parts[part][at];
            at += 1;
            place += 1;
        }
        part += 1;
    }
    assert!(place == N, "every key has its place");
    out
}

/// What one listener takes.
#[derive(Clone, Debug)]
pub struct Listening {
    /// Which it is.
    pub listener: Listener,
    /// What it takes.
    pub rules: Arc<Rules>,
}

/// DogStatsD's sockets.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// A datagram socket's path.
    pub unix: Option<PathBuf>,
    /// A UDP address.
    pub udp: Option<SocketAddr>,
    /// Threads that read each.
    pub readers: usize,
    /// Room for datagrams not read yet, bytes.
    pub receive_buffer_bytes: usize,
}

/// The `[ingest.*]` sections, checked.
#[derive(Clone, Debug, Default)]
pub struct IngestConfig {
    /// OTLP over gRPC.
    pub otlp_grpc: Option<(SocketAddr, Listening)>,
    /// OTLP over HTTP.
    pub otlp_http: Option<(SocketAddr, Listening)>,
    /// DogStatsD.
    pub dogstatsd: Option<(Sockets, Listening)>,
}

impl IngestConfig {
    /// Reads the sections; each fault goes to `problem` as key and what is wrong with it.
    pub fn check(settings: &Settings, problem: &mut dyn FnMut(&str, String)) -> Self {
        let mut listening =
            |listener| Listening { listener, rules: Arc::new(rules(settings, listener, problem)) };
        let grpc = listening(Listener::OtlpGrpc);
        let http = listening(Listener::OtlpHttp);
        let dogstatsd = listening(Listener::Dogstatsd);
        let size = |key| usize::try_from(settings.integer(key)).unwrap_or(1);
        let sockets = Sockets {
            unix: settings.path("ingest.dogstatsd.unix"),
            udp: settings.address("ingest.dogstatsd.udp"),
            readers: size("ingest.dogstatsd.readers"),
            receive_buffer_bytes: size("ingest.dogstatsd.receive_buffer_bytes"),
        };
        let wanted = sockets.unix.is_some() || sockets.udp.is_some();
        Self {
            otlp_grpc: settings.address("ingest.otlp_grpc.listen").map(|at| (at, grpc)),
            otlp_http: settings.address("ingest.otlp_http.listen").map(|at| (at, http)),
            dogstatsd: wanted.then_some((sockets, dogstatsd)),
        }
    }

    /// The listeners that are on.
    pub fn listeners(&self) -> Vec<Listener> {
        let all = [
            self.otlp_grpc.is_some().then_some(Listener::OtlpGrpc),
            self.otlp_http.is_some().then_some(Listener::OtlpHttp),
            self.dogstatsd.is_some().then_some(Listener::Dogstatsd),
        ];
        all.into_iter().flatten().collect()
    }
}

fn rules(settings: &Settings, listener: Listener, problem: &mut dyn FnMut(&str, String)) -> Rules {
    let key = |name: &str| format!("ingest.{}.{name}", listener.label());
    let mut rules = Rules::default();
    for (name, value) in settings.labels(&key("labels")) {
        let said = match name.as_str() {
            "repo_type" => part(&mut rules.repo_type, &value),
            "language" => part(&mut rules.language, &value),
            "size" => part(&mut rules.size, &value),
            "stage" => value.parse().map(|stage| rules.stage = Some(stage)).map_err(sentence),
            "arm" => value.parse().map(|arm| rules.arm = arm).map_err(sentence),
            other => Err(unknown(other)),
        };
        said.unwrap_or_else(|what| problem(&key("labels"), what));
    }
    rules.stages = table(settings.labels(&key("stages")), &key("stages"), problem);
    rules.units = table(settings.labels(&key("units")), &key("units"), problem);
    if listener != Listener::Dogstatsd {
        match settings.text(&key("explicit_histograms")) {
            Some("convert") | None => rules.explicit = Explicit::Convert,
            Some("refuse") => rules.explicit = Explicit::Refuse,
            Some(other) => {
                problem(
                    &key("explicit_histograms"),
                    format!("is {other:?}: use convert or refuse"),
                );
            }
        }
        match settings.text(&key("spans")) {
            Some("all") | None => rules.spans = Spans::All,
            Some("weighted") => rules.spans = Spans::Weighted,
            Some("refuse") => rules.spans = Spans::Refuse,
            Some(other) => {
                problem(&key("spans"), format!("is {other:?}: use all, weighted or refuse"));
            }
        }
    }
    rules
}

fn sentence(error: impl std::fmt::Display) -> String {
    format!("is wrong: {error}")
}

fn unknown(name: &str) -> String {
    let near = nearest(name, LABELS.into_iter()).map(|near| format!("did you mean {near}? "));
    format!(
        "holds {name:?}, which is none: {}it may hold {}",
        near.unwrap_or_default(),
        LABELS.join(", ")
    )
}

/// A part of a slice, if it may be one.
fn part(place: &mut Option<String>, value: &str) -> Result<(), String> {
    lens_model::Slice::new(value, value, value).map_err(sentence)?;
    *place = Some(value.to_owned());
    Ok(())
}

fn table<T: FromStr<Err: std::fmt::Display>>(
    given: BTreeMap<String, String>,
    key: &str,
    problem: &mut dyn FnMut(&str, String),
) -> BTreeMap<String, T> {
    let mut out = BTreeMap::new();
    for (name, value) in given {
        match value.parse() {
            Ok(value) => drop(out.insert(name, value)),
            Err(error) => problem(key, format!("says {name} = {value:?}: {error}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use lens_model::{Arm, Stage};
    use lens_service::config::Sources;

    use super::*;
    use crate::config::{KEYS, PREFIX};
    use crate::ingest::unit::Unit;

    fn check(flags: &[(&str, &str)]) -> (IngestConfig, Vec<String>) {
        let flags = flags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let settings = Settings::load(KEYS, PREFIX, &Sources { flags, ..Sources::default() });
        let mut problems = Vec::new();
        let config = IngestConfig::check(&settings.unwrap(), &mut |key, what| {
            problems.push(format!("{key} {what}"));
        });
        (config, problems)
    }

    #[test]
    fn every_listener_is_off_unless_set() {
        let (config, problems) = check(&[]);
        assert!(config.listeners().is_empty() && problems.is_empty());
    }

    #[test]
    fn a_listeners_tables_become_its_rules() {
        let (config, problems) = check(&[
            ("ingest.otlp_grpc.listen", "127.0.0.1:4317"),
            ("ingest.otlp_grpc.labels", "repo_type=backend,language=rust,size=small,arm=canary"),
            ("ingest.otlp_grpc.stages", "search.duration=e2e"),
            ("ingest.otlp_grpc.units", "search.duration=s"),
            ("ingest.otlp_grpc.explicit_histograms", "refuse"),
        ]);
        assert_eq!(problems, Vec::<String>::new());
        let rules = config.otlp_grpc.unwrap().1.rules;
        assert_eq!((rules.arm, rules.explicit), (Arm::Canary, Explicit::Refuse));
        assert_eq!(rules.stages["search.duration"], Stage::E2e);
        assert_eq!(rules.units["search.duration"], Unit::Seconds);
    }

    #[test]
    fn every_fault_is_told_with_what_would_be_right() {
        let (_, problems) = check(&[
            ("ingest.dogstatsd.labels", "langauge=rust,stage=d,size=a/b"),
            ("ingest.dogstatsd.units", "t=min"),
            ("ingest.otlp_http.spans", "some"),
        ]);
        let all = problems.join("\n");
        assert_eq!(problems.len(), 5, "{all}");
        for part in
            ["did you mean language?", "stage_a", "a-z 0-9", "use s, ms, us or ns", "weighted"]
        {
            assert!(all.contains(part), "{part} in {all}");
        }
    }
}
