//! Exact merge: every histogram delta into its 5 s slot, per series and host, and out again summed.
//!
//! A slot is named by its start in corrected event time. Recent slots are open (pages of counters);
//! a slot older than the allowed lateness is sealed into its sparse block, a twentieth of the size,
//! and is opened again if a late delta comes. What falls out of the ring is added to its series'
//! retired counts, so that slots and retired counts together are always everything ever merged.
//! Promise: the counts of any query are the exact sum of the deltas applied, in whatever order they
//! came. Refusal: no clock and no I/O here; `now` is an argument.
//! Bounds: `AGGREGATOR_SERIES_MAX` series × hosts of `WINDOW_SLOTS_MAX` slots each or fewer, and as
//! many hosts, request counters and gauges as their limits say; what is past them is refused.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use lens_hist::block::{self, BlockRef};
use lens_hist::{Counts, PagedCounts, Sparse};
use lens_model::limits::{
    AGGREGATOR_GAUGES_MAX, AGGREGATOR_HOSTS_MAX, AGGREGATOR_REQUESTS_MAX, AGGREGATOR_SERIES_MAX,
    EVENT_FUTURE_SECS_MAX, WINDOW_SLOTS_MAX,
};
use lens_model::{AgentName, Arm, InstanceName, Nanos, SeriesKey, Slice, Stage, UnixNanos};
use thiserror::Error;

use crate::judge::slot::{self as judge, HostWindow, SlotWindows};

use crate::store::Merge;

/// Age at which most deltas of a slot have come: two harvests of the slowest usual interval and a
/// commit.
const SETTLED_AFTER: Nanos = Nanos::from_secs(15);

/// Where samples were recorded: an instance as one agent reports it. Hosts are never mixed in
/// storage, so that evidence can be weighed per host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    /// The agent that shipped the samples.
    pub agent: AgentName,
    /// The search node that recorded them.
    pub instance: InstanceName,
}

/// How a delta was taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// Into a slot still open.
    InTime,
    /// Into a slot that had been sealed: what was shown for it is corrected.
    Late,
    /// Older than the ring: into the lifetime counts only.
    BeyondRing,
}

/// Why a delta was not taken in. Nothing of it was merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum MergeError {
    /// Its corrected time is ahead of the aggregator's clock.
    #[error(
        "event time is {ahead} ahead of the aggregator's clock, more than {EVENT_FUTURE_SECS_MAX} s"
    )]
    Future {
        /// By how much.
        ahead: Nanos,
    },
    /// The aggregator holds as many series as it may.
    #[error("{AGGREGATOR_SERIES_MAX} series are held already")]
    SeriesFull,
    /// The aggregator holds as many of something else as it may.
    #[error("{max} {what} are held already")]
    Full {
        /// `hosts`, `request counters` or `gauges`.
        what: &'static str,
        /// How many it may hold.
        max: usize,
    },
}

/// Which series a question is about; `None` means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only this slice.
    pub slice: Option<Slice>,
    /// Only this stage.
    pub stage: Option<Stage>,
    /// Only this arm.
    pub arm: Option<Arm>,
    /// Only this host.
    pub host: Option<Host>,
}

impl Selection {
    /// Exactly one series over all its hosts.
    pub fn series(key: &SeriesKey) -> Self {
        Self {
            slice: Some(key.slice.clone()),
            stage: Some(key.stage),
            arm: Some(key.arm),
            host: None,
        }
    }

    pub(crate) fn admits(&self, key: &SeriesKey) -> bool {
        self.slice.as_ref().is_none_or(|slice| *slice == key.slice)
            && self.stage.is_none_or(|stage| stage == key.stage)
            && self.arm.is_none_or(|arm| arm == key.arm)
    }

    pub(crate) fn admits_host(&self, host: &Host) -> bool {
        self.host.as_ref().is_none_or(|wanted| wanted == host)
    }
}

/// A half-open span of event time, `[from, to)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First instant inside.
    pub from: UnixNanos,
    /// First instant past it.
    pub to: UnixNanos,
}

impl Span {
    /// The whole of time.
    pub const ALL: Self = Self { from: UnixNanos(0), to: UnixNanos(u64::MAX) };

    /// The `width` before `now`.
    pub const fn last(width: Nanos, now: UnixNanos) -> Self {
        Self { from: now.minus(width), to: UnixNanos(now.0.saturating_add(1)) }
    }
}

/// One series as a whole: how much was merged and when it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesState {
    /// Samples ever merged, over all hosts.
    pub merged_total: u64,
    /// End of the newest interval any host reported samples for.
    pub last_event: UnixNanos,
    /// Hosts that reported it.
    pub hosts: Vec<Arc<Host>>,
}

/// Requests by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestCounts {
    /// Answered.
    pub ok: u64,
    /// Failed through the node's fault.
    pub error: u64,
}

impl RequestCounts {
    pub(crate) const fn add(&mut self, other: Self) {
        self.ok = self.ok.saturating_add(other.ok);
        self.error = self.error.saturating_add(other.error);
    }
}

#[derive(Debug)]
enum Slot {
    /// Boxed: the many sealed slots must not each be as large as an open one.
    Open(Box<PagedCounts>),
    Sealed(Box<[u8]>),
}

impl Slot {
    fn merge_into(&self, counts: &mut Counts) {
        match self {
            Self::Open(pages) => pages.merge_into(counts),
            Self::Sealed(bytes) => {
                // Our own encoding of our own counts.
                if let Ok((block, _)) = BlockRef::parse(bytes) {
                    block.merge_into_dense(counts);
                }
            }
        }
    }

    fn merge_into_pages(&self, pages: &mut PagedCounts) {
        match self {
            Self::Open(own) => pages.merge_sparse(&own.to_sparse()),
            Self::Sealed(bytes) => {
                if let Ok((block, _)) = BlockRef::parse(bytes) {
                    block.merge_into(pages);
                }
            }
        }
    }

    fn to_sparse(&self) -> Sparse {
        match self {
            Self::Open(pages) => pages.to_sparse(),
            Self::Sealed(bytes) => {
                let mut counts = Counts::new();
                if let Ok((block, _)) = BlockRef::parse(bytes) {
                    block.merge_into_dense(&mut counts);
                }
                counts.to_sparse()
            }
        }
    }

    fn seal(&mut self) {
        if let Self::Open(pages) = self {
            let mut bytes = Vec::new();
            block::encode(&pages.to_sparse(), &mut bytes);
            *self = Self::Sealed(bytes.into_boxed_slice());
        }
    }

    fn open(&mut self) -> &mut PagedCounts {
        if let Self::Sealed(bytes) = self {
            let mut pages = PagedCounts::new();
            if let Ok((block, _)) = BlockRef::parse(bytes) {
                block.merge_into(&mut pages);
            }
            *self = Self::Open(Box::new(pages));
        }
        match self {
            Self::Open(pages) => pages,
            Self::Sealed(_) => unreachable!("opened above"),
        }
    }
}

#[derive(Debug)]
struct HostSeries {
    slots: BTreeMap<u64, Slot>,
    /// Counts of slots that left the ring, or came too late for it.
    retired: PagedCounts,
    total: u64,
    last_event: UnixNanos,
}

impl HostSeries {
    /// Moves the slots before `oldest` to the retired counts.
    fn retire(&mut self, oldest: u64) {
        if self.slots.first_key_value().is_none_or(|(first, _)| *first >= oldest) {
            return;
        }
        let kept = self.slots.split_off(&oldest);
        for slot in std::mem::replace(&mut self.slots, kept).into_values() {
            slot.merge_into_pages(&mut self.retired);
        }
    }
}

/// One series of one host, found once and merged into often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeriesHandle(usize);

impl SeriesHandle {
    /// The handle of the series that came as the `number`th, from 0.
    fn of(number: u32) -> Option<Self> {
        usize::try_from(number).ok().map(Self)
    }
}

#[derive(Debug, Default)]
struct HostRequests {
    slots: BTreeMap<u64, RequestCounts>,
    total: RequestCounts,
}

type ByHost<T> = BTreeMap<Arc<Host>, T>;

/// All windows of one aggregator.
#[derive(Debug)]
pub struct Windows {
    base: Nanos,
    lateness: Nanos,
    /// Slots a series holds.
    slots_max: u64,
    /// Slots before it are not held even when they are within the ring.
    floor: u64,
    /// Slots before it may lack what was retired, also when the clock went back since.
    whole_from: u64,
    /// Where each series of each host stands in `held`, from which nothing is ever removed.
    series: HashMap<SeriesKey, ByHost<SeriesHandle>>,
    held: Vec<HostSeries>,
    requests: HashMap<(Slice, Arm), ByHost<HostRequests>>,
    requests_count: usize,
    gauges: BTreeMap<(Arc<Host>, Box<str>), (f64, UnixNanos)>,
    hosts: HashMap<Host, Arc<Host>>,
}

impl Windows {
    /// Empty windows with slots of `base`, sealed once older than `lateness`.
    pub fn new(base: Nanos, lateness: Nanos) -> Self {
        Self {
            base,
            lateness,
            slots_max: WINDOW_SLOTS_MAX as u64,
            floor: 0,
            whole_from: 0,
            series: HashMap::new(),
            held: Vec::new(),
            requests: HashMap::new(),
            requests_count: 0,
            gauges: BTreeMap::new(),
            hosts: HashMap::new(),
        }
    }

    /// The same with fewer slots than `WINDOW_SLOTS_MAX`: at least one, and no more than that.
    #[must_use]
    pub fn holding(mut self, slots: usize) -> Self {
        self.slots_max = slots.clamp(1, WINDOW_SLOTS_MAX) as u64;
        self
    }

    /// The width of a slot.
    pub const fn base(&self) -> Nanos {
        self.base
    }

    /// The one shared copy of a host's name.
    ///
    /// # Errors
    /// [`MergeError::Full`] for a new one past `AGGREGATOR_HOSTS_MAX`.
    pub fn host(&mut self, host: &Host) -> Result<Arc<Host>, MergeError> {
        if let Some(known) = self.hosts.get(host) {
            return Ok(Arc::clone(known));
        }
        room("hosts", self.hosts.len(), AGGREGATOR_HOSTS_MAX)?;
        let shared = Arc::new(host.clone());
        self.hosts.insert(host.clone(), Arc::clone(&shared));
        Ok(shared)
    }

    /// Whether deltas of this event time can be taken now.
    ///
    /// # Errors
    /// [`MergeError::Future`] when it is further ahead of `now` than clocks may differ.
    pub fn check_time(&self, event: UnixNanos, now: UnixNanos) -> Result<(), MergeError> {
        let ahead = event.since(now);
        if ahead > Nanos::from_secs(EVENT_FUTURE_SECS_MAX) {
            return Err(MergeError::Future { ahead });
        }
        Ok(())
    }

    /// Where a series of a host is held, from now on if it was not before.
    ///
    /// # Errors
    /// [`MergeError::SeriesFull`] for a new one past `AGGREGATOR_SERIES_MAX`.
    pub fn handle(
        &mut self,
        key: &SeriesKey,
        host: &Arc<Host>,
    ) -> Result<SeriesHandle, MergeError> {
        if let Some(handle) = self.series.get(key).and_then(|hosts| hosts.get(host)) {
            return Ok(*handle);
        }
        if self.held.len() >= AGGREGATOR_SERIES_MAX {
            return Err(MergeError::SeriesFull);
        }
        let handle = SeriesHandle(self.held.len());
        self.held.push(HostSeries {
            slots: BTreeMap::new(),
            retired: PagedCounts::new(),
            total: 0,
            last_event: UnixNanos(0),
        });
        self.series.entry(key.clone()).or_default().insert(Arc::clone(host), handle);
        Ok(handle)
    }

    /// Adds one histogram delta to the slot `event` falls in.
    ///
    /// # Errors
    /// [`MergeError::Future`]; then nothing was merged.
    ///
    /// # Panics
    /// When the handle is of other windows, which is a fault of ours.
    pub fn merge(
        &mut self,
        handle: SeriesHandle,
        event: UnixNanos,
        block: &BlockRef<'_>,
        now: UnixNanos,
    ) -> Result<Merged, MergeError> {
        self.check_time(event, now)?;
        Ok(self.add(handle, event, block, now))
    }

    /// Adds one histogram delta that was admitted before, whatever the clock says now.
    ///
    /// # Panics
    /// As [`Windows::merge`].
    pub(crate) fn add(
        &mut self,
        handle: SeriesHandle,
        event: UnixNanos,
        block: &BlockRef<'_>,
        now: UnixNanos,
    ) -> Merged {
        let slot = self.slot_of(event);
        let (oldest, sealed_before) = (self.oldest_slot(now), self.sealed_before(now));
        let series = &mut self.held[handle.0];
        series.total = series.total.saturating_add(block.total());
        series.last_event = series.last_event.max(event);
        if slot < oldest {
            self.whole_from = self.whole_from.max(oldest);
            block.merge_into(&mut series.retired);
            return Merged::BeyondRing;
        }
        let entry = series.slots.entry(slot).or_insert_with(|| Slot::Open(Box::default()));
        block.merge_into(entry.open());
        if slot < sealed_before { Merged::Late } else { Merged::InTime }
    }

    /// Series held, each host's counted.
    pub(crate) const fn series_len(&self) -> usize {
        self.held.len()
    }

    /// Instances of an agent, in order.
    pub(crate) fn instances(&self, agent: &AgentName) -> Vec<String> {
        let own = self.hosts.keys().filter(|host| host.agent == *agent);
        let mut names: Vec<String> = own.map(|host| host.instance.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// Takes over a record that the store has. Its series are known here by their numbers.
    pub(crate) fn take(&mut self, merge: &Merge, now: UnixNanos) {
        let (event, Some(body)) = (merge.event, &merge.record.body) else { return };
        for (histogram, number) in body.histograms.iter().zip(&merge.series) {
            let handle = number.and_then(SeriesHandle::of).filter(|h| h.0 < self.held.len());
            if let (Some(handle), Some((block, _))) = (handle, BlockRef::known(&histogram.block)) {
                self.add(handle, event, &block, now);
            }
        }
        let agent = &merge.record.identity.agent;
        for (requests, _) in body.requests.iter().zip(&merge.requests).filter(|(_, n)| n.is_some())
        {
            let instance = body.instances[requests.instance].name.clone();
            let counts = RequestCounts { ok: requests.ok, error: requests.error };
            let (slice, arm) = (&body.slices[requests.slice], requests.arm);
            let host = self.host(&Host { agent: agent.clone(), instance }).ok();
            host.and_then(|host| self.merge_requests(slice, arm, &host, event, counts, now).ok());
        }
        for (gauge, _) in body.gauges.iter().zip(&merge.gauges).filter(|(_, n)| n.is_some()) {
            let instance = body.instances[gauge.instance].name.clone();
            let host = self.host(&Host { agent: agent.clone(), instance }).ok();
            host.and_then(|host| {
                self.set_gauge(&host, gauge.name.as_str(), gauge.value, event).ok()
            });
        }
    }

    /// Says that slots before an instant are in the lifetime counts and not held by themselves.
    pub(crate) const fn set_floor(&mut self, floor: UnixNanos) {
        self.floor = floor.0.div_ceil(self.base.0);
    }

    /// From when on slots hold everything that was merged for them.
    pub fn held_from(&self, now: UnixNanos) -> UnixNanos {
        let first = self.oldest_slot(now).max(self.whole_from);
        UnixNanos(first.saturating_mul(self.base.0))
    }

    /// Gives a series the totals it had, and the counts of slots that are no longer held.
    pub(crate) fn restore(
        &mut self,
        series: u32,
        total: u64,
        last_event: UnixNanos,
        retired: Option<BlockRef<'_>>,
    ) {
        let handle = SeriesHandle::of(series);
        let Some(held) = handle.and_then(|handle| self.held.get_mut(handle.0)) else { return };
        (held.total, held.last_event) = (total, last_event);
        if let Some(block) = retired {
            block.merge_into(&mut held.retired);
        }
    }

    /// Gives a series one slot as it was. Its total has these samples already.
    pub(crate) fn restore_slot(
        &mut self,
        series: u32,
        start: UnixNanos,
        sealed: &[u8],
        now: UnixNanos,
    ) {
        let (slot, oldest) = (self.slot_of(start), self.oldest_slot(now));
        let handle = SeriesHandle::of(series);
        let Some(held) = handle.and_then(|handle| self.held.get_mut(handle.0)) else { return };
        let row = Slot::Sealed(sealed.into());
        if slot < oldest {
            row.merge_into_pages(&mut held.retired);
            self.whole_from = self.whole_from.max(oldest);
        } else {
            held.slots.insert(slot, row);
        }
    }

    /// Gives a request counter the total it had.
    pub(crate) fn restore_requests(
        &mut self,
        slice: &Slice,
        arm: Arm,
        host: &Host,
        total: RequestCounts,
    ) {
        let Ok(host) = self.host(host) else { return };
        self.requests_count += 1;
        let hosts = self.requests.entry((slice.clone(), arm)).or_default();
        hosts.insert(host, HostRequests { slots: BTreeMap::new(), total });
    }

    /// Gives a request counter one slot as it was.
    pub(crate) fn restore_outcomes(
        &mut self,
        slice: &Slice,
        arm: Arm,
        host: &Host,
        start: UnixNanos,
        counts: RequestCounts,
    ) {
        let held = self.requests.get_mut(&(slice.clone(), arm));
        if let Some(requests) = held.and_then(|hosts| hosts.get_mut(host)) {
            requests.slots.insert(start.0 / self.base.0, counts);
        }
    }

    /// Adds request outcomes to the slot `event` falls in.
    ///
    /// # Errors
    /// [`MergeError::Full`] for a new counter past `AGGREGATOR_REQUESTS_MAX`.
    pub fn merge_requests(
        &mut self,
        slice: &Slice,
        arm: Arm,
        host: &Arc<Host>,
        event: UnixNanos,
        counts: RequestCounts,
        now: UnixNanos,
    ) -> Result<(), MergeError> {
        let (slot, oldest) = (self.slot_of(event), self.oldest_slot(now));
        let key = (slice.clone(), arm);
        if self.requests.get(&key).is_none_or(|hosts| !hosts.contains_key(host)) {
            room("request counters", self.requests_count, AGGREGATOR_REQUESTS_MAX)?;
            self.requests_count += 1;
        }
        let requests = self.requests.entry(key).or_default().entry(Arc::clone(host)).or_default();
        requests.total.add(counts);
        if slot >= oldest {
            requests.slots.entry(slot).or_default().add(counts);
        }
        Ok(())
    }

    /// Takes a gauge reading; an older one than is held changes nothing.
    ///
    /// # Errors
    /// [`MergeError::Full`] for a new gauge past `AGGREGATOR_GAUGES_MAX`.
    pub fn set_gauge(
        &mut self,
        host: &Arc<Host>,
        name: &str,
        value: f64,
        event: UnixNanos,
    ) -> Result<(), MergeError> {
        let key = (Arc::clone(host), Box::from(name));
        if !self.gauges.contains_key(&key) {
            room("gauges", self.gauges.len(), AGGREGATOR_GAUGES_MAX)?;
        }
        let held = self.gauges.entry(key).or_insert((value, event));
        if event >= held.1 {
            *held = (value, event);
        }
        Ok(())
    }

    /// Seals what hardly changes any more and drops what is past the ring.
    pub fn advance(&mut self, now: UnixNanos) {
        let (oldest, settled_before) = (self.oldest_slot(now), self.settled_before(now));
        self.whole_from = self.whole_from.max(oldest);
        for series in &mut self.held {
            series.retire(oldest);
            series.slots.range_mut(..settled_before).for_each(|(_, slot)| slot.seal());
        }
        for requests in self.requests.values_mut().flat_map(BTreeMap::values_mut) {
            requests.slots = requests.slots.split_off(&oldest);
        }
    }

    /// Adds the counts of every selected series, host and slot whose start lies in `span`.
    pub fn sum(&self, selection: &Selection, span: Span, counts: &mut Counts) {
        let slots = self.slots_of(span);
        for (_, host_series) in self.selected(selection) {
            for (_, slot) in host_series.slots.range(slots.clone()) {
                slot.merge_into(counts);
            }
        }
    }

    /// Like [`Windows::sum`], kept apart by steps of `step` from `span.from` on: calls `each` with
    /// a step's start and counts, in order, for the steps that hold samples.
    pub fn steps(
        &self,
        selection: &Selection,
        span: Span,
        step: Nanos,
        mut each: impl FnMut(UnixNanos, &Counts),
    ) {
        let step = step.0.max(self.base.0);
        let slots = self.slots_of(span);
        let selected: Vec<&HostSeries> = self.selected(selection).map(|(_, s)| s).collect();
        let present = || selected.iter().flat_map(|s| s.slots.range(slots.clone())).map(|e| *e.0);
        let (Some(first), Some(last)) = (present().min(), present().max()) else { return };
        let bucket = |slot: u64| (slot * self.base.0).saturating_sub(span.from.0) / step;
        let mut counts = Counts::new();
        for at in bucket(first)..=bucket(last) {
            let from = UnixNanos(span.from.0.saturating_add(at * step));
            let to = from.plus(Nanos(step)).min(span.to);
            let inside = self.slots_of(Span { from, to });
            counts.clear();
            for series in &selected {
                series
                    .slots
                    .range(inside.clone())
                    .for_each(|(_, slot)| slot.merge_into(&mut counts));
            }
            if counts.total() > 0 {
                each(from, &counts);
            }
        }
    }

    /// Adds everything ever merged into the selected series.
    pub fn lifetime(&self, selection: &Selection, counts: &mut Counts) {
        for (_, series) in self.selected(selection) {
            series.retired.merge_into(counts);
            series.slots.values().for_each(|slot| slot.merge_into(counts));
        }
    }

    /// Every known series, in key order, with its totals.
    pub fn series(&self) -> BTreeMap<SeriesKey, SeriesState> {
        let state = |hosts: &ByHost<SeriesHandle>| {
            let held = || hosts.values().map(|handle| &self.held[handle.0]);
            SeriesState {
                merged_total: held().map(|series| series.total).sum(),
                last_event: held().map(|s| s.last_event).max().unwrap_or(UnixNanos(0)),
                hosts: hosts.keys().map(Arc::clone).collect(),
            }
        };
        self.series.iter().map(|(key, hosts)| (key.clone(), state(hosts))).collect()
    }

    /// Everything recorded in slot `number`, as the judge takes it under the name `slot`. Requests
    /// stand with the whole query of their slice, arm and host.
    pub fn slot(&self, number: u64, slot: judge::Slot) -> SlotWindows {
        let mut found: BTreeMap<(&Slice, Stage, Arm, &Arc<Host>), HostWindow> = BTreeMap::new();
        for (key, hosts) in &self.series {
            for (host, handle) in hosts {
                if let Some(slot) = self.held[handle.0].slots.get(&number) {
                    let name = (&key.slice, key.stage, key.arm, host);
                    let mut own = HostWindow::empty(&key.slice, key.stage, key.arm, host);
                    own.counts = slot.to_sparse();
                    found.insert(name, own);
                }
            }
        }
        for ((slice, arm), hosts) in &self.requests {
            for (host, requests) in hosts {
                if let Some(counts) = requests.slots.get(&number) {
                    let own = found
                        .entry((slice, Stage::E2e, *arm, host))
                        .or_insert_with(|| HostWindow::empty(slice, Stage::E2e, *arm, host));
                    (own.ok, own.errors) = (counts.ok, counts.error);
                }
            }
        }
        SlotWindows { slot, windows: found.into_values().collect() }
    }

    /// Request outcomes of a slice and arm within `span`, over all hosts.
    pub fn requests(&self, slice: &Slice, arm: Arm, span: Span) -> RequestCounts {
        let mut sum = RequestCounts::default();
        let slots = self.slots_of(span);
        for requests in
            self.requests.get(&(slice.clone(), arm)).into_iter().flat_map(|h| h.values())
        {
            requests.slots.range(slots.clone()).for_each(|(_, counts)| sum.add(*counts));
        }
        sum
    }

    /// Request outcomes ever merged, by slice and arm, in order.
    pub fn requests_total(&self) -> BTreeMap<(Slice, Arm), RequestCounts> {
        let total = |hosts: &ByHost<HostRequests>| {
            let mut sum = RequestCounts::default();
            hosts.values().for_each(|requests| sum.add(requests.total));
            sum
        };
        self.requests.iter().map(|(key, hosts)| (key.clone(), total(hosts))).collect()
    }

    /// The newest reading of every gauge.
    pub fn gauges(&self) -> impl Iterator<Item = (&Host, &str, f64, UnixNanos)> {
        self.gauges.iter().map(|((host, name), (value, at))| (&**host, &**name, *value, *at))
    }

    fn selected<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> impl Iterator<Item = (&'a Arc<Host>, &'a HostSeries)> {
        // A question about one series must not walk them all.
        let one = match (&selection.slice, selection.stage, selection.arm) {
            (Some(slice), Some(stage), Some(arm)) => {
                let key = SeriesKey { slice: slice.clone(), stage, arm };
                Some(self.series.get_key_value(&key))
            }
            _ => None,
        };
        let all = if one.is_some() { None } else { Some(self.series.iter()) };
        one.flatten()
            .into_iter()
            .chain(all.into_iter().flatten())
            .filter(|(key, _)| selection.admits(key))
            .flat_map(|(_, hosts)| hosts.iter())
            .filter(|(host, _)| selection.admits_host(host))
            .map(|(host, handle)| (host, &self.held[handle.0]))
    }

    const fn slot_of(&self, event: UnixNanos) -> u64 {
        event.0 / self.base.0
    }

    fn slots_of(&self, span: Span) -> std::ops::Range<u64> {
        let first = span.from.0.div_ceil(self.base.0);
        first..span.to.0.div_ceil(self.base.0).max(first)
    }

    fn oldest_slot(&self, now: UnixNanos) -> u64 {
        self.slot_of(now).saturating_sub(self.slots_max - 1).max(self.floor)
    }

    /// Slots before this one take deltas as late ones.
    const fn sealed_before(&self, now: UnixNanos) -> u64 {
        self.slot_of(now.minus(self.lateness))
    }

    /// Slots before this one are kept as blocks: opening one again for a delta within the allowed
    /// lateness costs a microsecond, keeping it open until then twenty times its memory.
    fn settled_before(&self, now: UnixNanos) -> u64 {
        self.slot_of(now.minus(self.lateness.min(SETTLED_AFTER)))
    }
}

/// Whether one more fits.
const fn room(what: &'static str, held: usize, max: usize) -> Result<(), MergeError> {
    if held < max { Ok(()) } else { Err(MergeError::Full { what, max }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lens_hist::Quantile;
    use proptest::prelude::*;

    const BASE: Nanos = Nanos::from_secs(5);
    const LATENESS: Nanos = Nanos::from_secs(60);

    fn key(stage: Stage) -> SeriesKey {
        SeriesKey {
            slice: Slice::new("backend", "rust", "large").unwrap(),
            stage,
            arm: Arm::Baseline,
        }
    }

    fn host(name: &str) -> Host {
        Host { agent: AgentName::new("a1").unwrap(), instance: InstanceName::new(name).unwrap() }
    }

    fn at(secs: u64) -> UnixNanos {
        UnixNanos(secs * 1_000_000_000)
    }

    fn put(windows: &mut Windows, name: &str, event: u64, now: u64, values: &[u64]) -> Merged {
        let mut bytes = Vec::new();
        block::encode(&values.iter().copied().collect::<Sparse>(), &mut bytes);
        let (block, _) = BlockRef::parse(&bytes).unwrap();
        let host = windows.host(&host(name)).unwrap();
        let handle = windows.handle(&key(Stage::A), &host).unwrap();
        windows.merge(handle, at(event), &block, at(now)).unwrap()
    }

    fn total(windows: &Windows, span: Span) -> u64 {
        let mut counts = Counts::new();
        windows.sum(&Selection::default(), span, &mut counts);
        counts.total()
    }

    proptest! {
        #[test]
        fn any_order_of_arrival_gives_the_same_counts(
            mut deltas in prop::collection::vec((0_u64..300, 1_u64..1 << 30), 1..60),
            seed in any::<u64>(),
        ) {
            let fill = |deltas: &[(u64, u64)]| {
                let mut windows = Windows::new(BASE, LATENESS);
                for (event, value) in deltas {
                    put(&mut windows, if value % 2 == 0 { "x" } else { "y" }, *event, 300, &[*value]);
                    if value % 7 == 0 {
                        windows.advance(at(300));
                    }
                }
                let mut counts = Counts::new();
                windows.sum(&Selection::default(), Span::ALL, &mut counts);
                let mut steps = Vec::new();
                windows.steps(&Selection::default(), Span { from: at(0), to: at(300) }, BASE, |t, c| {
                    steps.push((t, c.total(), c.quantile(Quantile::P50).bucket_low));
                });
                (counts, steps)
            };
            let forward = fill(&deltas);
            let length = deltas.len();
            deltas.rotate_left(usize::try_from(seed % length as u64).unwrap());
            deltas.reverse();
            prop_assert_eq!(forward.0.total(), length as u64);
            prop_assert_eq!(forward, fill(&deltas));
        }
    }

    #[test]
    fn a_late_delta_corrects_its_own_slot() {
        let mut windows = Windows::new(BASE, LATENESS);
        assert_eq!(put(&mut windows, "x", 100, 101, &[5, 6]), Merged::InTime);
        windows.advance(at(200));
        assert_eq!(put(&mut windows, "x", 102, 200, &[7]), Merged::Late);
        windows.advance(at(200));
        assert_eq!(total(&windows, Span { from: at(100), to: at(105) }), 3);
        assert_eq!(total(&windows, Span { from: at(105), to: at(205) }), 0);
    }

    #[test]
    fn what_is_older_than_the_ring_stays_in_the_totals() {
        let mut windows = Windows::new(BASE, LATENESS);
        put(&mut windows, "x", 100, 100, &[5]);
        windows.advance(at(100 + 3_600));
        assert_eq!(total(&windows, Span::ALL), 0);
        assert_eq!(put(&mut windows, "x", 100, 3_700, &[5]), Merged::BeyondRing);
        assert_eq!(windows.series()[&key(Stage::A)].merged_total, 2);
        let mut lifetime = Counts::new();
        windows.lifetime(&Selection::default(), &mut lifetime);
        assert_eq!(lifetime.total(), 2);
    }

    #[test]
    fn what_was_retired_is_not_asked_of_memory_after_the_clock_went_back() {
        let mut windows = Windows::new(BASE, LATENESS).holding(10);
        put(&mut windows, "x", 100, 100, &[5]);
        assert_eq!(windows.held_from(at(100)), at(55));
        windows.advance(at(200));
        assert_eq!(windows.held_from(at(200)), at(155));
        assert_eq!(windows.held_from(at(100)), at(155), "the slot of 100 s is gone");
        put(&mut windows, "x", 190, 300, &[5]);
        assert_eq!(windows.held_from(at(100)), at(255), "what came too late is in no slot");
        assert_eq!(put(&mut windows, "x", 100, 100, &[5]), Merged::InTime);
    }

    #[test]
    fn memory_holds_as_many_slots_as_it_is_told_and_no_more_than_may_be() {
        let held = |slots| {
            let windows = Windows::new(BASE, LATENESS).holding(slots);
            at(100_000).since(windows.held_from(at(100_000))).0 / BASE.0 + 1
        };
        assert_eq!(held(0), 1);
        assert_eq!(held(72), 72);
        assert_eq!(held(WINDOW_SLOTS_MAX), WINDOW_SLOTS_MAX as u64);
        assert_eq!(held(WINDOW_SLOTS_MAX + 1), WINDOW_SLOTS_MAX as u64);
    }

    #[test]
    fn a_delta_from_the_future_is_refused_whole() {
        let mut windows = Windows::new(BASE, LATENESS);
        let mut bytes = Vec::new();
        block::encode(&[5_u64].into_iter().collect::<Sparse>(), &mut bytes);
        let (block, _) = BlockRef::parse(&bytes).unwrap();
        let host = windows.host(&host("x")).unwrap();
        let handle = windows.handle(&key(Stage::A), &host).unwrap();
        let error = windows.merge(handle, at(111), &block, at(100)).unwrap_err();
        assert_eq!(error, MergeError::Future { ahead: Nanos::from_secs(11) });
        assert_eq!(total(&windows, Span::ALL), 0);
        assert_eq!(windows.series()[&key(Stage::A)].merged_total, 0);
        assert!(windows.merge(handle, at(110), &block, at(100)).is_ok());
    }

    #[test]
    fn hosts_stay_apart_and_add_up() {
        let mut windows = Windows::new(BASE, LATENESS);
        put(&mut windows, "x", 10, 10, &[1, 2, 3]);
        put(&mut windows, "y", 10, 10, &[4]);
        let mut counts = Counts::new();
        let selection = Selection { host: Some(host("y")), ..Selection::series(&key(Stage::A)) };
        windows.sum(&selection, Span::ALL, &mut counts);
        assert_eq!(counts.total(), 1);
        assert_eq!(windows.series()[&key(Stage::A)].merged_total, 4);
        assert_eq!(windows.series()[&key(Stage::A)].hosts.len(), 2);
    }

    #[test]
    fn hosts_gauges_and_request_counters_are_refused_past_their_bounds() {
        let mut windows = Windows::new(BASE, LATENESS);
        let name = |n: usize| host(&format!("h{n}"));
        let first = windows.host(&name(0)).unwrap();
        for n in 1..AGGREGATOR_HOSTS_MAX {
            windows.host(&name(n)).unwrap();
        }
        let full = |what, max| Err(MergeError::Full { what, max });
        assert_eq!(windows.host(&name(AGGREGATOR_HOSTS_MAX)).map(|_| ()), full("hosts", 16_384));
        assert!(windows.host(&name(0)).is_ok(), "a known host is not one more");
        for n in 0..AGGREGATOR_GAUGES_MAX {
            windows.set_gauge(&first, &n.to_string(), 1.0, at(1)).unwrap();
        }
        assert_eq!(windows.set_gauge(&first, "more", 1.0, at(1)), full("gauges", 65_536));
        windows.set_gauge(&first, "0", 2.0, at(2)).unwrap();
        let slice = |n: usize| Slice::new("backend", &format!("l{n}"), "large").unwrap();
        let one = RequestCounts { ok: 1, error: 0 };
        for n in 0..AGGREGATOR_REQUESTS_MAX {
            let merged = windows.merge_requests(&slice(n), Arm::Canary, &first, at(1), one, at(1));
            merged.unwrap();
        }
        let more = slice(AGGREGATOR_REQUESTS_MAX);
        let refused = windows.merge_requests(&more, Arm::Canary, &first, at(1), one, at(1));
        assert_eq!(refused, full("request counters", 65_536));
    }
}
