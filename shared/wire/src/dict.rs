//! DICT: names for the ids that deltas use, valid on one connection.
//!
//! Ids are dense and ascend from 0, so a frame says only the first id of each run. An agent sends
//! a name before its first use; the stream keeps the order.

use std::ops::Range;

use lens_model::limits::FRAME_BYTES_MAX;
use lens_model::{Arm, Incarnation, InstanceName, SeriesKey, Slice};

use crate::entry::{id_at, put_run, read_run, run_len};
use crate::error::{EncodeError, FrameError};
use crate::frame::put_frame;
use crate::kind::Kind;
use crate::read::Reader;
use crate::text::Label;

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl From<u32> for $name {
            fn from(id: u32) -> Self {
                Self(id)
            }
        }

        impl From<$name> for usize {
            /// The id as an index: ids are dense.
            fn from(id: $name) -> Self {
                Self::try_from(id.0).unwrap_or(Self::MAX)
            }
        }
    };
}

id_type!(
    /// An instance on one connection.
    InstanceId
);
id_type!(
    /// A latency series of an instance on one connection.
    SeriesId
);
id_type!(
    /// A request counter of an instance on one connection.
    RequestsId
);
id_type!(
    /// A gauge of an instance on one connection.
    GaugeId
);

/// One search node, as its recorder describes itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Its name.
    pub name: InstanceName,
    /// What it runs; may be empty.
    pub service: Label,
    /// In which version; may be empty.
    pub version: Label,
    /// Where, when that is not where the agent is; may be empty.
    pub zone: Label,
}

/// A latency series of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// The instance that recorded it.
    pub instance: InstanceId,
    /// What it counts.
    pub key: SeriesKey,
}

/// A request counter of one instance: how many succeeded, how many failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// The instance that counted.
    pub instance: InstanceId,
    /// The slice of the corpus.
    pub slice: Slice,
    /// The arm of the rollout.
    pub arm: Arm,
}

/// A gauge of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gauge {
    /// The instance that set it.
    pub instance: InstanceId,
    /// Its name; not empty.
    pub name: Label,
}

/// Entries with consecutive ids. (WIRE-041)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run<T> {
    /// The id of the first entry; 0 in an empty run.
    pub first: u32,
    /// The entries, each with the id after the one before.
    pub entries: Vec<T>,
}

impl<T> Default for Run<T> {
    fn default() -> Self {
        Self { first: 0, entries: Vec::new() }
    }
}

impl<T> Run<T> {
    /// The ids of the entries.
    pub fn ids(&self) -> Range<u32> {
        self.first..id_at(self.first, self.entries.len())
    }
}

/// Names for ids used from now on. (WIRE-040)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dict {
    /// New instances.
    pub instances: Run<Instance>,
    /// New latency series, of instances up to those above.
    pub series: Run<Series>,
    /// New request counters.
    pub requests: Run<Requests>,
    /// New gauges.
    pub gauges: Run<Gauge>,
}

impl Dict {
    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.instances.entries.is_empty()
            && self.series.entries.is_empty()
            && self.requests.entries.is_empty()
            && self.gauges.entries.is_empty()
    }

    /// Appends the frame.
    ///
    /// # Errors
    /// [`EncodeError::Full`] above `FRAME_BYTES_MAX` bytes; [`crate::AgentDictionary`] splits by
    /// itself. Nothing was appended.
    pub fn encode(&self, incarnation: Incarnation, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let needed = self.body_len();
        if needed > FRAME_BYTES_MAX {
            return Err(EncodeError::Full { needed, max: FRAME_BYTES_MAX });
        }
        put_frame(Kind::Dict, Some(incarnation), out, |out| {
            put_run(&self.instances, out);
            put_run(&self.series, out);
            put_run(&self.requests, out);
            put_run(&self.gauges, out);
        });
        Ok(())
    }

    /// Bytes of the body [`Dict::encode`] would write.
    pub fn body_len(&self) -> usize {
        run_len(&self.instances)
            + run_len(&self.series)
            + run_len(&self.requests)
            + run_len(&self.gauges)
    }

    pub(crate) fn read(mut r: Reader<'_>) -> Result<Self, FrameError> {
        let dict = Self {
            instances: read_run(&mut r)?,
            series: read_run(&mut r)?,
            requests: read_run(&mut r)?,
            gauges: read_run(&mut r)?,
        };
        r.finish()?;
        Ok(dict)
    }
}
