//! The flags of `lens-load agents`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lens_service::tls::IdentityFiles;

use super::agents::{AgentsError, AgentsLoad, Identities};
use super::{Arrival, Distribution, fresh_seed};
use crate::arguments;

/// Flags of `agents`.
#[derive(Clone, Debug, Args)]
pub struct AgentsArgs {
    /// How many agents
    #[arg(long = "n", value_name = "N", default_value_t = 100)]
    pub agents: usize,

    /// The aggregator
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7443")]
    pub endpoint: String,

    /// Name the aggregator's certificate must carry [default: the endpoint's host]
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,

    /// Directory of the authority; certificates are issued beside it, one an agent
    #[arg(long, value_name = "DIR", conflicts_with = "identity")]
    pub certs: Option<PathBuf>,

    /// What issued names begin with; a number follows
    #[arg(long, value_name = "NAME", default_value = "load")]
    pub prefix: String,

    /// Certificate NAME.pem of the one agent, NAME.key and ca.pem beside it
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,

    /// Batches a second of each agent
    #[arg(long, value_name = "N", default_value = "1", value_parser = arguments::rate)]
    pub rate_batches: f64,

    /// How batches arrive: constant (all agents at once) or poisson
    #[arg(long, default_value = "constant")]
    pub arrival: Arrival,

    /// Series in each batch
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub series: usize,

    /// Samples of each series in each batch
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub samples: usize,

    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "10s", value_parser = arguments::duration)]
    pub duration: Duration,

    /// Latencies, as for record
    #[arg(long, default_value = "lognormal:median=5ms,sigma=0.7")]
    pub dist: Distribution,

    /// Seed of all choices [default: a new one, printed]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl AgentsArgs {
    /// The load these flags mean, defaults filled in.
    ///
    /// # Errors
    /// [`AgentsError::NoIdentity`] when neither an authority nor a certificate is named.
    pub fn into_load(self) -> Result<AgentsLoad, AgentsError> {
        let identities = match (self.certs, self.identity) {
            (Some(dir), _) => Identities::Issue { dir, prefix: self.prefix },
            (None, Some(cert)) => Identities::Given(IdentityFiles {
                key: cert.with_extension("key"),
                ca: cert.with_file_name("ca.pem"),
                cert,
            }),
            (None, None) => return Err(AgentsError::NoIdentity),
        };
        Ok(AgentsLoad {
            agents: self.agents,
            endpoint: self.endpoint,
            server_name: self.server_name,
            identities,
            rate_batches: self.rate_batches,
            arrival: self.arrival,
            series: self.series,
            samples: self.samples,
            duration: self.duration,
            distribution: self.dist,
            seed: self.seed.unwrap_or_else(fresh_seed),
        })
    }
}
