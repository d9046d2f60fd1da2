//! What the demo runs and with which settings: directories, certificates, command lines.

use std::path::{Path, PathBuf};

use lens_benches::Regression;
use lens_benches::node::Corpus;
use lens_model::SpiffeId;
use lens_service::certs::{self, Subject};

use super::{Args, Failure, canary};

/// The two hosts, each with an agent of its own.
pub(crate) const HOSTS: [&str; 2] = ["1", "2"];

/// One search node of the demo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodePlan {
    /// Its name.
    pub name: &'static str,
    /// The host it runs on.
    pub host: &'static str,
    /// The version it says it runs.
    pub version: &'static str,
}

/// Three nodes on two hosts. Each serves both arms, so that a slow one is no slow version.
pub(crate) const NODES: [NodePlan; 3] = [
    NodePlan { name: "node-1", host: "1", version: "1.4.2" },
    NodePlan { name: "node-2", host: "2", version: "1.4.2" },
    NodePlan { name: "node-3", host: "2", version: "1.4.2" },
];

/// Days the demo's certificates are good for.
const CERT_DAYS: u32 = 2;

/// Directories and settings of one demo.
#[derive(Debug)]
pub(crate) struct Plan {
    dir: PathBuf,
    segments: PathBuf,
    keep: bool,
    corpus: Vec<PathBuf>,
    /// Where the aggregator's API and page are to listen.
    pub(crate) http: String,
}

/// The name of the agent of a host.
pub(crate) fn agent_name(host: &str) -> String {
    format!("agent-{host}")
}

/// What every process of the demo is called.
fn process_names() -> Vec<String> {
    let agents = HOSTS.into_iter().map(agent_name);
    let nodes = NODES.into_iter().map(|node| node.name.to_owned());
    std::iter::once("aggregator".to_owned()).chain(agents).chain(nodes).collect()
}

fn usage(what: impl std::fmt::Display) -> Failure {
    Failure::Usage(what.to_string())
}

impl Plan {
    /// Makes directories and certificates, and checks what can be checked before anything runs.
    pub(crate) fn new(args: &Args) -> Result<Self, Failure> {
        let corpus = match &args.corpus {
            Some(dir) => {
                std::fs::read_dir(dir).map_err(|error| {
                    let dir = dir.display();
                    usage(format!("--corpus {dir}: {error}: name a directory of source files"))
                })?;
                vec![dir.clone()]
            }
            None => Corpus::default_dirs(&std::env::current_dir().map_err(usage)?),
        };
        let names = process_names();
        for kill in &args.kill {
            if !names.contains(&kill.name) {
                let names = names.join(", ");
                return Err(usage(format!("--kill {kill}: no such process; name one of {names}")));
            }
            if kill.after >= args.duration {
                let duration = args.duration;
                return Err(usage(format!(
                    "--kill {kill}: queries end after {duration:?} already"
                )));
            }
        }
        // Told now, in one sentence, rather than by a child's log.
        std::net::TcpListener::bind(args.http).map_err(|error| {
            let http = args.http;
            usage(format!(
                "--http {http}: {error}: stop what listens there, or choose another port"
            ))
        })?;
        let unique = format!("lens-demo-{}", std::process::id());
        let dir = args.keep.clone().unwrap_or_else(|| std::env::temp_dir().join(&unique));
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_path_buf() } else { std::env::temp_dir() };
        let plan = Self {
            segments: base.join(format!("{unique}-segments")),
            keep: args.keep.is_some(),
            corpus,
            http: args.http.to_string(),
            dir,
        };
        for dir in [&plan.dir, &plan.ledgers()] {
            std::fs::create_dir_all(dir).map_err(|error| {
                usage(format!("{}: {error}: choose another with --keep", dir.display()))
            })?;
        }
        for host in HOSTS {
            // What an earlier demo left there is no part of this one's sums.
            std::fs::remove_dir_all(plan.spool(host)).ok();
        }
        // Nor is a rollout that it left under way.
        std::fs::remove_dir_all(plan.dir.join("canary")).ok();
        if let Err(error) = plan.make_certificates() {
            plan.clean();
            return Err(error);
        }
        Ok(plan)
    }

    fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    fn make_certificates(&self) -> Result<(), Failure> {
        let dir = self.certs();
        certs::init(&dir, CERT_DAYS).map_err(usage)?;
        let server = Subject::Server(vec!["localhost".into(), "127.0.0.1".into()]);
        certs::issue(&dir, "server", &server, CERT_DAYS, false).map_err(usage)?;
        for host in HOSTS {
            let id: SpiffeId =
                format!("spiffe://lens.demo/agent/agent-{host}").parse().map_err(usage)?;
            let name = agent_name(host);
            certs::issue(&dir, &name, &Subject::Agent(id), CERT_DAYS, false).map_err(usage)?;
        }
        Ok(())
    }

    /// Where logs go.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the nodes of a host keep their segments.
    pub(crate) fn segments(&self, host: &str) -> PathBuf {
        self.segments.join(format!("host-{host}"))
    }

    fn ledgers(&self) -> PathBuf {
        self.segments.join("ledgers")
    }

    /// Where a node keeps its ledger in one of its lives: in memory, as its segment.
    pub(crate) fn ledger(&self, node: NodePlan, life: usize) -> PathBuf {
        self.ledgers().join(format!("{}-{life}", node.name))
    }

    fn spool(&self, host: &str) -> PathBuf {
        self.dir.join(format!("spool-{host}"))
    }

    fn identity(&self, name: &str) -> Vec<(&'static str, String)> {
        let file = |name: String| self.certs().join(name).display().to_string();
        vec![
            ("identity.cert", file(format!("{name}.pem"))),
            ("identity.key", file(format!("{name}.key"))),
            ("identity.ca", file("ca.pem".into())),
        ]
    }

    /// The aggregator's command line.
    pub(crate) fn aggregator(&self, quic: &str, http: &str) -> Vec<String> {
        let mut settings = self.identity("server");
        settings.push(("quic.listen", quic.to_owned()));
        settings.push(("http.listen", http.to_owned()));
        // Alerts of the demo go to its log, and sooner than people would want to be woken.
        settings.push(("alerts.pending_s", "10".into()));
        settings.push(("alerts.sink.0.name", "log".into()));
        settings.push(("alerts.sink.0.kind", "log".into()));
        settings.push(("store.dir", self.dir.join("store").display().to_string()));
        settings.extend(canary::SETTINGS.map(|(key, value)| (key, value.to_owned())));
        command("aggregator", &settings)
    }

    /// An agent's command line.
    pub(crate) fn agent(&self, host: &str, quic: &str) -> Vec<String> {
        let mut settings = self.identity(&agent_name(host));
        settings.push(("segments.dir", self.segments(host).display().to_string()));
        settings.push(("spool.dir", self.spool(host).display().to_string()));
        settings.push(("aggregator.endpoints", quic.to_owned()));
        settings.push(("admin.listen", "127.0.0.1:0".into()));
        settings.push(("node.name", format!("host-{host}")));
        command("agent", &settings)
    }

    /// A search node's command line.
    pub(crate) fn node(
        &self,
        node: NodePlan,
        listen: &str,
        ledger: &Path,
        regress: &[Regression],
    ) -> Vec<String> {
        let mut line = vec!["node".to_owned()];
        let mut flag = |name: &str, value: String| line.extend([name.to_owned(), value]);
        for dir in &self.corpus {
            flag("--corpus", dir.display().to_string());
        }
        flag("--listen", listen.to_owned());
        flag("--segment-dir", self.segments(node.host).display().to_string());
        flag("--ledger", ledger.display().to_string());
        flag("--instance", node.name.into());
        flag("--node-version", node.version.into());
        for regression in regress {
            flag("--regress", regression.to_string());
        }
        line.push("--by-assignment".into());
        line
    }

    /// Removes what the demo made, except what was asked to be kept.
    pub(crate) fn clean(&self) {
        // What cannot be removed is in a temporary directory and harms nobody.
        std::fs::remove_dir_all(&self.segments).ok();
        if !self.keep {
            std::fs::remove_dir_all(&self.dir).ok();
        }
    }
}

fn command(role: &str, settings: &[(&str, String)]) -> Vec<String> {
    let sets = settings.iter().flat_map(|(key, value)| ["--set".into(), format!("{key}={value}")]);
    std::iter::once(role.to_owned()).chain(sets).collect()
}
