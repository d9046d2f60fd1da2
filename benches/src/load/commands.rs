//! The flags of `lens-load record` and `lens-load search`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use lens_model::{Arm, InstanceName, Slice, Stage};

use super::record::RecordLoad;
use super::search::{IN_FLIGHT_DEFAULT, QUERIES_DEFAULT, SearchLoad};
use super::{Arrival, Distribution, fresh_seed};
use crate::{Regression, arguments};

/// Flags of `record`.
#[derive(Clone, Debug, Args)]
pub struct RecordArgs {
    /// Directory of the segment [default: $LENS_SEGMENT_DIR or /dev/shm/lens]
    #[arg(long, value_name = "SEGDIR")]
    pub dir: Option<PathBuf>,

    /// Name of the instance to record for
    #[arg(long, default_value = "load-1")]
    pub instance: InstanceName,

    /// Version the instance says it runs
    #[arg(long = "node-version", value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    pub version: String,

    /// Slices, each request in one of them
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "backend/rust/small,backend/rust/medium,backend/rust/large"
    )]
    pub slices: Vec<Slice>,

    /// Stages recorded for each request; e2e is the sum of the others
    #[arg(long, value_delimiter = ',', default_value = "stage_a,stage_b,stage_c,e2e")]
    pub stages: Vec<Stage>,

    /// Arms that get requests
    #[arg(long, value_delimiter = ',', default_value = "baseline")]
    pub arms: Vec<Arm>,

    /// Share of the canary when both arms get requests
    #[arg(long, default_value = "0.05", value_parser = arguments::share)]
    pub canary_share: f64,

    /// Requests a second
    #[arg(long, value_name = "N", default_value = "100", value_parser = arguments::rate)]
    pub rate: f64,

    /// How requests arrive: constant or poisson
    #[arg(long, default_value = "poisson")]
    pub arrival: Arrival,

    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = arguments::duration)]
    pub duration: Duration,

    /// Latencies: lognormal:median=5ms,sigma=0.7 | pareto:scale=2ms,alpha=2.5 |
    /// bimodal:median=2ms,sigma=0.3,slow=40x,share=0.1 | constant:5ms | replay:FILE
    #[arg(long, default_value = "lognormal:median=5ms,sigma=0.7")]
    pub dist: Distribution,

    /// Make a stage slower: STAGE=FACTOR[@ARM][:after=DURATION]
    #[arg(long, value_name = "REGRESSION")]
    pub regress: Vec<Regression>,

    /// Share of requests that fail
    #[arg(long, default_value = "0", value_parser = arguments::share)]
    pub errors: f64,

    /// Seed of all choices [default: a new one, printed]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Write every value as CSV: t_ms,slice,stage,arm,host,latency_ms,ok
    #[arg(long, value_name = "FILE")]
    pub raw_out: Option<PathBuf>,

    /// Record without waiting for the intended times
    #[arg(long)]
    pub as_fast_as_possible: bool,

    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl RecordArgs {
    /// The load these flags mean, defaults filled in.
    pub fn into_load(self) -> RecordLoad {
        RecordLoad {
            dir: self.dir.unwrap_or_else(lens_segment::Recorder::default_dir),
            instance: self.instance,
            version: self.version,
            slices: self.slices,
            stages: self.stages,
            arms: self.arms,
            canary_share: self.canary_share,
            rate: self.rate,
            arrival: self.arrival,
            duration: self.duration,
            distribution: self.dist,
            regress: self.regress,
            errors: self.errors,
            seed: self.seed.unwrap_or_else(fresh_seed),
            raw_out: self.raw_out,
            paced: !self.as_fast_as_possible,
        }
    }
}

/// Flags of `search`.
#[derive(Clone, Debug, Args)]
pub struct SearchArgs {
    /// Base addresses of search nodes
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    pub target: Vec<String>,

    /// Requests a second over all targets
    #[arg(long, value_name = "N", default_value = "20", value_parser = arguments::rate)]
    pub rate: f64,

    /// How requests arrive: constant or poisson
    #[arg(long, default_value = "poisson")]
    pub arrival: Arrival,

    /// How long
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = arguments::duration)]
    pub duration: Duration,

    /// Queries to fetch from the node and choose from
    #[arg(long, value_name = "N", default_value_t = QUERIES_DEFAULT)]
    pub queries: usize,

    /// Requests unanswered at once; one more is not sent, and counted
    #[arg(long, value_name = "N", default_value_t = IN_FLIGHT_DEFAULT)]
    pub in_flight_max: usize,

    /// Seed of all choices [default: a new one, printed]
    #[arg(long)]
    pub seed: Option<u64>,

    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
}

impl SearchArgs {
    /// The load these flags mean, defaults filled in.
    pub fn into_load(self) -> SearchLoad {
        let seed = self.seed.unwrap_or_else(fresh_seed);
        SearchLoad {
            arrival: self.arrival,
            queries: self.queries,
            in_flight_max: self.in_flight_max,
            ..SearchLoad::new(&self.target, self.rate, self.duration, seed)
        }
    }
}
