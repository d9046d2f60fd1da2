//! The aggregator's end of a connection's dictionary: ids to names.
//!
//! Bounded by `CONNECTION_*_MAX`, empty with each connection. Promise: a DICT frame is taken on as
//! a whole or not at all, and no id ever gets a second meaning.

use std::ops::Range;

use crate::delta::DeltaRef;
use crate::dict::{
    Dict, Gauge, GaugeId, Instance, InstanceId, Requests, RequestsId, Run, Series, SeriesId,
};
use crate::entry::{Entry, id_at};
use crate::error::DictionaryError;

/// The aggregator's side: what each id of a connection means.
#[derive(Debug, Default)]
pub struct PeerDictionary {
    instances: Vec<Instance>,
    series: Vec<Series>,
    requests: Vec<Requests>,
    gauges: Vec<Gauge>,
}

/// The ids a DICT frame defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewIds {
    /// Instances.
    pub instances: Range<u32>,
    /// Latency series.
    pub series: Range<u32>,
    /// Request counters.
    pub requests: Range<u32>,
    /// Gauges.
    pub gauges: Range<u32>,
}

impl PeerDictionary {
    /// The dictionary of a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes on the names of a DICT frame, all of them or none. (WIRE-047)
    ///
    /// # Errors
    /// [`DictionaryError`]: ids left out or defined twice, an instance unknown, a bound passed.
    pub fn apply(&mut self, dict: Dict) -> Result<NewIds, DictionaryError> {
        let known = check(&self.instances, &dict.instances, u32::MAX)?;
        check(&self.series, &dict.series, known)?;
        check(&self.requests, &dict.requests, known)?;
        check(&self.gauges, &dict.gauges, known)?;
        Ok(NewIds {
            instances: add(&mut self.instances, dict.instances),
            series: add(&mut self.series, dict.series),
            requests: add(&mut self.requests, dict.requests),
            gauges: add(&mut self.gauges, dict.gauges),
        })
    }

    /// Whether every id of a delta is defined: three comparisons, since its ids ascend.
    ///
    /// # Errors
    /// [`DictionaryError::Unknown`] with the highest id of the delta that is not. (WIRE-046)
    pub fn covers(&self, delta: &DeltaRef<'_>) -> Result<(), DictionaryError> {
        let check = |what, last: Option<u32>, known: usize| match last {
            Some(id) if usize::try_from(id).is_ok_and(|id| id >= known) => {
                Err(DictionaryError::Unknown { what, id })
            }
            _ => Ok(()),
        };
        check(Series::WHAT, delta.last_series(), self.series.len())?;
        check(Requests::WHAT, delta.last_requests(), self.requests.len())?;
        check(Gauge::WHAT, delta.last_gauge(), self.gauges.len())
    }

    /// The instance with this id.
    pub fn instance(&self, id: InstanceId) -> Option<&Instance> {
        self.instances.get(usize::from(id))
    }

    /// The latency series with this id.
    pub fn series(&self, id: SeriesId) -> Option<&Series> {
        self.series.get(usize::from(id))
    }

    /// The request counter with this id.
    pub fn requests(&self, id: RequestsId) -> Option<&Requests> {
        self.requests.get(usize::from(id))
    }

    /// The gauge with this id.
    pub fn gauge(&self, id: GaugeId) -> Option<&Gauge> {
        self.gauges.get(usize::from(id))
    }

    /// Series defined so far; ids are below this.
    pub fn series_len(&self) -> usize {
        self.series.len()
    }
}

/// The run continues what is known, fits, and speaks of known instances. (WIRE-041, WIRE-044)
fn check<T: Entry>(known: &[T], run: &Run<T>, instances: u32) -> Result<u32, DictionaryError> {
    let expected = id_at(0, known.len());
    if run.entries.is_empty() {
        return Ok(expected);
    }
    let (what, id) = (T::WHAT, run.first);
    if id > expected {
        return Err(DictionaryError::Gap { what, id, expected });
    }
    if id < expected {
        return Err(DictionaryError::Redefined { what, id, expected });
    }
    if known.len() + run.entries.len() > T::MAX {
        return Err(DictionaryError::Full { what, max: T::MAX });
    }
    let owners = run.entries.iter().filter_map(Entry::instance);
    if let Some(owner) = owners.into_iter().find(|owner| owner.0 >= instances) {
        return Err(DictionaryError::Unknown { what: Instance::WHAT, id: owner.0 }); // WIRE-042
    }
    Ok(run.ids().end)
}

/// Takes entries on and gives their ids.
fn add<T>(known: &mut Vec<T>, run: Run<T>) -> Range<u32> {
    let first = id_at(0, known.len());
    known.extend(run.entries);
    first..id_at(0, known.len())
}
