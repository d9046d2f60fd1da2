//! `lens certs`: a small authority for a laboratory, a demo, or a fleet without one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lens_model::{AgentName, OperatorId, OperatorName, SpiffeId, TrustDomain};
use lens_service::certs::{self, CertFiles, CertsError, Subject};
use lens_service::exit::Exit;
use serde_json::json;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make the authority: ca.pem and ca.key.
    Init(Init),
    /// Issue a certificate for an agent, an operator or an aggregator.
    Issue(Issue),
    /// Issue it anew, in place of the one that is there.
    Renew(Issue),
}

/// Where and for how long.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// Directory of the authority.
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// Lifetime, days.
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// For whom.
#[derive(Args, Debug)]
pub(crate) struct Issue {
    /// Directory of the authority; the files are written beside it.
    #[arg(long, default_value = "certs")]
    dir: PathBuf,
    /// Name of the agent the certificate is for; its files are NAME.pem and NAME.key.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["server", "operator"])]
    agent: Option<AgentName>,
    /// Name of the person or program to operate with this certificate, where auth.mode is mtls.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["agent", "server"])]
    operator: Option<OperatorName>,
    /// Trust domain of the identity, spiffe://DOMAIN/agent/NAME or spiffe://DOMAIN/operator/NAME.
    #[arg(long, default_value = "lens.local", conflicts_with = "server")]
    trust_domain: TrustDomain,
    /// A name or address the aggregator is reached at; may be repeated. Files are server.pem and
    /// server.key.
    #[arg(long, value_name = "HOST", conflicts_with = "agent")]
    server: Vec<String>,
    /// Lifetime, days.
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let (made, json, what) = match command {
        Command::Init(init) => (certs::init(&init.dir, init.days), init.json, "authority made"),
        Command::Issue(issue) => (issued(issue, false), issue.json, "certificate issued"),
        Command::Renew(issue) => (issued(issue, true), issue.json, "certificate renewed"),
    };
    match made {
        Ok(files) if json => {
            println!("{}", json!({"cert": files.cert, "key": files.key, "ca": files.ca}));
            Exit::Done
        }
        Ok(files) => {
            println!("{what}: {}, key {}", files.cert.display(), files.key.display());
            Exit::Done
        }
        Err(error) => {
            eprintln!("lens certs: {error}");
            Exit::Usage
        }
    }
}

fn issued(issue: &Issue, replace: bool) -> Result<CertFiles, CertsError> {
    let trust_domain = issue.trust_domain.clone();
    let (name, subject) = match (&issue.agent, &issue.operator) {
        (Some(agent), _) => {
            (agent.as_str(), Subject::Agent(SpiffeId { trust_domain, agent: agent.clone() }))
        }
        (None, Some(name)) => {
            (name.as_str(), Subject::Operator(OperatorId { trust_domain, name: name.clone() }))
        }
        (None, None) => ("server", Subject::Server(issue.server.clone())),
    };
    certs::issue(&issue.dir, name, &subject, issue.days, replace)
}
