//! The agent's end of a connection's dictionary: names to ids, and which are still to be sent.
//!
//! Bounded by `CONNECTION_*_MAX`, empty with each connection. Promise: an id keeps its meaning, and
//! looking up a name that has one does not allocate.

use std::collections::{BTreeMap, VecDeque};

use lens_model::limits::FRAME_BYTES_MAX;
use lens_model::{Arm, SeriesKey, Slice};

use crate::dict::{
    Dict, Gauge, GaugeId, Instance, InstanceId, Requests, RequestsId, Run, Series, SeriesId,
};
use crate::entry::{Entry, id_at};
use crate::error::DictionaryError;
use crate::limits::FRAME_BYTES_MIN;
use crate::text::Label;

/// The agent's side: gives each name its id, and remembers which are still to be sent.
#[derive(Debug, Default)]
pub struct AgentDictionary {
    instances: BTreeMap<Instance, InstanceId>,
    by_instance: Vec<Names>,
    new_instances: Pending<Instance>,
    new_series: Pending<Series>,
    new_requests: Pending<Requests>,
    new_gauges: Pending<Gauge>,
}

/// What one instance has.
#[derive(Debug, Default)]
struct Names {
    series: BTreeMap<SeriesKey, SeriesId>,
    requests: [BTreeMap<Slice, RequestsId>; Arm::ALL.len()],
    gauges: BTreeMap<Label, GaugeId>,
}

/// Entries of one kind that were given an id but not sent.
#[derive(Debug)]
struct Pending<T> {
    first: u32,
    entries: VecDeque<T>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { first: 0, entries: VecDeque::new() }
    }
}

impl<T: Entry> Pending<T> {
    /// Gives an entry the next id.
    fn add(&mut self, entry: T) -> Result<u32, DictionaryError> {
        let id = id_at(self.first, self.entries.len());
        if usize::try_from(id).is_ok_and(|id| id < T::MAX) {
            self.entries.push_back(entry);
            return Ok(id);
        }
        Err(DictionaryError::Full { what: T::WHAT, max: T::MAX }) // WIRE-044
    }

    /// Takes from the front what fits into `room` bytes.
    fn take(&mut self, room: &mut usize) -> Run<T> {
        let mut run = Run { first: self.first, entries: Vec::new() };
        while let Some(entry) = self.entries.front()
            && entry.encoded_len() <= *room
        {
            *room -= entry.encoded_len();
            run.entries.extend(self.entries.pop_front());
        }
        self.first = run.ids().end;
        if run.entries.is_empty() { Run::default() } else { run }
    }
}

impl AgentDictionary {
    /// The dictionary of a new connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of an instance.
    ///
    /// # Errors
    /// [`DictionaryError::Full`]: the connection has defined `CONNECTION_INSTANCES_MAX` already.
    pub fn instance(&mut self, instance: &Instance) -> Result<InstanceId, DictionaryError> {
        if let Some(&id) = self.instances.get(instance) {
            return Ok(id);
        }
        let id = InstanceId(self.new_instances.add(instance.clone())?);
        self.instances.insert(instance.clone(), id);
        self.by_instance.push(Names::default());
        Ok(id)
    }

    /// The id of a latency series.
    ///
    /// # Errors
    /// [`DictionaryError::Full`] as for instances; [`DictionaryError::Unknown`] for an instance
    /// of another connection.
    pub fn series(
        &mut self,
        instance: InstanceId,
        key: &SeriesKey,
    ) -> Result<SeriesId, DictionaryError> {
        let names = names_of(&mut self.by_instance, instance)?;
        if let Some(&id) = names.series.get(key) {
            return Ok(id);
        }
        let id = SeriesId(self.new_series.add(Series { instance, key: key.clone() })?);
        names.series.insert(key.clone(), id);
        Ok(id)
    }

    /// The id of a request counter.
    ///
    /// # Errors
    /// As for [`AgentDictionary::series`].
    pub fn requests(
        &mut self,
        instance: InstanceId,
        slice: &Slice,
        arm: Arm,
    ) -> Result<RequestsId, DictionaryError> {
        let names = names_of(&mut self.by_instance, instance)?;
        let ids = &mut names.requests[usize::from(arm.code())];
        if let Some(&id) = ids.get(slice) {
            return Ok(id);
        }
        let entry = Requests { instance, slice: slice.clone(), arm };
        let id = RequestsId(self.new_requests.add(entry)?);
        ids.insert(slice.clone(), id);
        Ok(id)
    }

    /// The id of a gauge.
    ///
    /// # Errors
    /// As for [`AgentDictionary::series`]; a gauge without a name is `Unknown` too.
    pub fn gauge(
        &mut self,
        instance: InstanceId,
        name: &Label,
    ) -> Result<GaugeId, DictionaryError> {
        let names = names_of(&mut self.by_instance, instance)?;
        if name.is_empty() {
            return Err(DictionaryError::Unknown { what: Gauge::WHAT, id: u32::MAX });
        }
        if let Some(&id) = names.gauges.get(name) {
            return Ok(id);
        }
        let id = GaugeId(self.new_gauges.add(Gauge { instance, name: name.clone() })?);
        names.gauges.insert(name.clone(), id);
        Ok(id)
    }

    /// Takes what is still to be sent, at most `body_max` bytes of it (at least
    /// [`FRAME_BYTES_MIN`] are used); `None` when nothing is. Send it before the delta that needs
    /// it, and call again until `None`. (WIRE-042)
    pub fn next_dict(&mut self, body_max: usize) -> Option<Dict> {
        // Counts and first ids of the four runs take at most 4 × 2 × 5 bytes.
        let mut room = body_max.clamp(FRAME_BYTES_MIN, FRAME_BYTES_MAX) - 40;
        let instances = self.new_instances.take(&mut room);
        // What belongs to an instance never goes before it.
        if !self.new_instances.entries.is_empty() {
            room = 0;
        }
        let dict = Dict {
            instances,
            series: self.new_series.take(&mut room),
            requests: self.new_requests.take(&mut room),
            gauges: self.new_gauges.take(&mut room),
        };
        if dict.is_empty() { None } else { Some(dict) }
    }
}

fn names_of(all: &mut [Names], instance: InstanceId) -> Result<&mut Names, DictionaryError> {
    let unknown = DictionaryError::Unknown { what: Instance::WHAT, id: instance.0 };
    all.get_mut(usize::from(instance)).ok_or(unknown)
}
