//! `lens certs`: a small authority for a laboratory, a demo, or a fleet without one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use lens_model::{AgentName, SpiffeId, TrustDomain};
use lens_service::certs::{self, CertFiles, CertsError, Subject};
use lens_service::exit::Exit;
use serde_json::json;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make the authority: ca.pem and ca.key.
    Init(Init),
    /// Issue a certificate for an agent or an aggregator.
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
    #[arg(long, value_name = "NAME", required_unless_present = "server")]
    agent: Option<AgentName>,
    /// Trust domain of the agent's identity, spiffe://DOMAIN/agent/NAME.
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
    let (name, subject) = match &issue.agent {
        Some(agent) => {
            let id = SpiffeId { trust_domain: issue.trust_domain.clone(), agent: agent.clone() };
            (agent.as_str(), Subject::Agent(id))
        }
        None => ("server", Subject::Server(issue.server.clone())),
    };
    certs::issue(&issue.dir, name, &subject, issue.days, replace)
}
