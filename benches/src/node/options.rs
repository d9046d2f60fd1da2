//! What a node is told at its start: as a struct for callers, as flags for people.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use lens_model::{Arm, InstanceName};

use super::corpus::{BYTES_DEFAULT, Corpus, FILES_DEFAULT};
use super::recording::default_segment_dir;
use crate::Regression;

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct NodeOptions {
    /// Directories whose source files are served.
    pub corpus: Vec<PathBuf>,
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its segment is created.
    pub segment_dir: PathBuf,
    /// Where its ledger is kept as well, to be read should it be killed.
    pub ledger: Option<PathBuf>,
    /// Its name among the nodes.
    pub instance: InstanceName,
    /// The version it says it runs.
    pub version: String,
    /// The arm of the rollout it serves.
    pub arm: Arm,
    /// Whether each query's user is in an arm by the flags in the segment instead.
    pub by_assignment: bool,
    /// Stages that are made slower.
    pub regress: Vec<Regression>,
    /// Files indexed at most.
    pub files_max: usize,
    /// Bytes indexed at most.
    pub bytes_max: u64,
}

/// The node's flags, to be flattened into a command.
#[derive(Clone, Debug, Args)]
pub struct NodeArgs {
    /// Directory of source files to serve; may be given several times
    /// [default: the current directory and the sources of downloaded packages]
    #[arg(long, value_name = "DIR")]
    pub corpus: Vec<PathBuf>,

    /// Address to listen on; port 0 takes a free one, printed once ready
    #[arg(long, default_value = "127.0.0.1:7700")]
    pub listen: SocketAddr,

    /// Directory of the recorder's segment [default: $LENS_SEGMENT_DIR or /dev/shm/lens]
    #[arg(long, value_name = "DIR")]
    pub segment_dir: Option<PathBuf>,

    /// File to keep the node's own count in, in memory as /dev/shm: it outlives a killed node
    #[arg(long, value_name = "FILE")]
    pub ledger: Option<PathBuf>,

    /// Name of this node among the others
    #[arg(long, default_value = "node-1")]
    pub instance: InstanceName,

    /// Version this node says it runs
    #[arg(long = "node-version", value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    pub version: String,

    /// Arm of the rollout: baseline or canary
    #[arg(long, default_value = "baseline")]
    pub arm: Arm,

    /// Serve both arms: each query's user is in the one that the flags in the segment assign
    #[arg(long, conflicts_with = "arm")]
    pub by_assignment: bool,

    /// Make a stage slower by repeating its work: STAGE=FACTOR[@ARM][:after=DURATION]
    #[arg(long, value_name = "REGRESSION")]
    pub regress: Vec<Regression>,

    /// Files to index at most
    #[arg(long, default_value_t = FILES_DEFAULT)]
    pub files_max: usize,

    /// Bytes to index at most
    #[arg(long, default_value_t = BYTES_DEFAULT)]
    pub bytes_max: u64,
}

impl NodeArgs {
    /// The options these flags mean, defaults filled in.
    pub fn into_options(self) -> NodeOptions {
        let corpus = if self.corpus.is_empty() {
            let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
            Corpus::default_dirs(&here)
        } else {
            self.corpus
        };
        NodeOptions {
            corpus,
            listen: self.listen,
            segment_dir: self.segment_dir.unwrap_or_else(default_segment_dir),
            ledger: self.ledger,
            instance: self.instance,
            version: self.version,
            arm: self.arm,
            by_assignment: self.by_assignment,
            regress: self.regress,
            files_max: self.files_max,
            bytes_max: self.bytes_max,
        }
    }
}
