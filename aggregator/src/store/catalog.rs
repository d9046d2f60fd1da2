//! The names the store knows, by number and back, in memory.
//!
//! Numbers are dense and never reused. Bounds: those of the windows, `AGGREGATOR_*_MAX`, and the
//! configured cap on slices nobody listed; what is past them gets no number and is left out.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use lens_model::limits::{
    AGGREGATOR_GAUGES_MAX, AGGREGATOR_HOSTS_MAX, AGGREGATOR_REQUESTS_MAX, AGGREGATOR_SERIES_MAX,
};
use lens_model::{Arm, SeriesKey, Slice};
use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::StoreError;
use super::tables::{self, GAUGES, HOSTS, REQUESTS, SERIES};
use crate::window::{Host, Selection};

/// Things of one kind, numbered in the order in which they were first seen.
#[derive(Debug)]
pub struct Names<T> {
    by_number: Vec<T>,
    numbers: HashMap<T, u32>,
    max: usize,
    /// How many of them are in the store already.
    stored: usize,
}

impl<T: Clone + Eq + Hash> Names<T> {
    fn new(max: usize) -> Self {
        Self { by_number: Vec::new(), numbers: HashMap::new(), max, stored: 0 }
    }

    /// The number of a name, given now if it had none; `None` past the bound.
    pub fn number(&mut self, name: &T) -> Option<u32> {
        if let Some(number) = self.numbers.get(name) {
            return Some(*number);
        }
        if self.by_number.len() >= self.max {
            return None;
        }
        let number = u32::try_from(self.by_number.len()).ok()?;
        self.by_number.push(name.clone());
        self.numbers.insert(name.clone(), number);
        Some(number)
    }

    /// The name with this number.
    pub fn get(&self, number: u32) -> Option<&T> {
        self.by_number.get(usize::try_from(number).ok()?)
    }

    /// All, with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.by_number)
    }

    fn loaded(&mut self, what: &'static str, number: u32, name: T) -> Result<(), StoreError> {
        // A hole would give one number two meanings.
        if self.number(&name) != Some(number) {
            return Err(StoreError::Row(what));
        }
        self.stored = self.by_number.len();
        Ok(())
    }

    fn fresh(&self) -> impl Iterator<Item = (u32, &T)> {
        self.iter().skip(self.stored)
    }
}

/// All names.
#[derive(Debug)]
pub struct Catalog {
    /// Hosts.
    pub hosts: Names<Host>,
    /// Series of hosts.
    pub series: Names<(u32, SeriesKey)>,
    /// Request counters of hosts.
    pub requests: Names<(u32, (Slice, Arm))>,
    /// Gauges of hosts.
    pub gauges: Names<(u32, Box<str>)>,
    slices: HashSet<Slice>,
    slices_max: usize,
}

impl Catalog {
    /// A catalogue without names but the slices everyone knows; `automatic_max` more are taken on.
    pub fn new(slices_known: &[Slice], automatic_max: usize) -> Self {
        let slices: HashSet<Slice> = slices_known.iter().cloned().collect();
        Self {
            hosts: Names::new(AGGREGATOR_HOSTS_MAX),
            series: Names::new(AGGREGATOR_SERIES_MAX),
            requests: Names::new(AGGREGATOR_REQUESTS_MAX),
            gauges: Names::new(AGGREGATOR_GAUGES_MAX),
            slices_max: slices.len() + automatic_max,
            slices,
        }
    }

    /// Takes on a slice: `Some(true)` when it is new, `None` when it is one too many.
    pub fn admit(&mut self, slice: &Slice) -> Option<bool> {
        if self.slices.contains(slice) {
            return Some(false);
        }
        if self.slices.len() >= self.slices_max {
            return None;
        }
        self.slices.insert(slice.clone());
        Some(true)
    }

    /// Numbers of the series a question is about.
    pub fn selected(&self, selection: &Selection) -> Vec<u32> {
        let admits = |(host, key): &(u32, SeriesKey)| {
            selection.admits(key)
                && self.hosts.get(*host).is_some_and(|host| selection.admits_host(host))
        };
        self.series.iter().filter(|(_, series)| admits(series)).map(|(number, _)| number).collect()
    }

    /// Reads the names the store has.
    ///
    /// # Errors
    /// [`StoreError`]; a row out of place among them.
    pub(super) fn load(&mut self, db: &redb::Database) -> Result<(), StoreError> {
        let read = db.begin_read()?;
        for row in read.open_table(HOSTS)?.iter()? {
            let (number, row) = row?;
            self.hosts.loaded("hosts", number.value(), tables::read_host(row.value())?)?;
        }
        for row in read.open_table(SERIES)?.iter()? {
            let (number, row) = row?;
            let series = tables::read_series(row.value())?;
            self.slices.insert(series.1.slice.clone());
            self.series.loaded("series", number.value(), series)?;
        }
        for row in read.open_table(REQUESTS)?.iter()? {
            let (number, row) = row?;
            let requests = tables::read_requests(row.value())?;
            self.requests.loaded("requests", number.value(), requests)?;
        }
        for row in read.open_table(GAUGES)?.iter()? {
            let (number, row) = row?;
            self.gauges.loaded("gauges", number.value(), tables::read_gauge(row.value())?)?;
        }
        Ok(())
    }

    /// Writes the names the store does not have yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(super) fn write(&self, write: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = write.open_table(HOSTS)?;
        for (number, host) in self.hosts.fresh() {
            table.insert(number, tables::host_row(host).as_slice())?;
        }
        let mut table = write.open_table(SERIES)?;
        for (number, (host, key)) in self.series.fresh() {
            table.insert(number, tables::series_row(*host, key).as_slice())?;
        }
        let mut table = write.open_table(REQUESTS)?;
        for (number, (host, (slice, arm))) in self.requests.fresh() {
            table.insert(number, tables::requests_row(*host, slice, *arm).as_slice())?;
        }
        let mut table = write.open_table(GAUGES)?;
        for (number, (host, name)) in self.gauges.fresh() {
            table.insert(number, tables::gauge_row(*host, name).as_slice())?;
        }
        Ok(())
    }

    /// Notes that the transaction [`Catalog::write`] wrote into is durable.
    pub(super) const fn written(&mut self) {
        self.hosts.stored = self.hosts.by_number.len();
        self.series.stored = self.series.by_number.len();
        self.requests.stored = self.requests.by_number.len();
        self.gauges.stored = self.gauges.by_number.len();
    }
}
