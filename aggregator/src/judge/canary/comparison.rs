//! The comparison of canary and baseline over a whole rollout, window by window.
//!
//! Before the rollout begins, the baseline's windows give thresholds, dispersion and host effects.
//! From then on each window is judged once against what was known before it, and only then taken
//! into what the next is judged by.
//! Promise: pure and deterministic; the state is small, can be stored and read back, and does not
//! depend on the order in which a window's parts are given. A window without data changes no
//! evidence. Refusal: arms on hosts of their own, without history, are not judged at all.
//! Bounds: `STREAMS_MAX` streams, `UNITS_MAX` slices with evidence of their own, `HOSTS_MAX` hosts.

use std::collections::BTreeMap;

use lens_hist::{PagedCounts, Sparse};
use lens_model::limits::WINDOW_BASE_SECS;
use lens_model::{Arm, Slice, Stage};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::evalue::Hits;
use super::harm::HarmBets;
use super::histogram::Histogram;
use super::host_effect::{self, Hosts};
use super::hosts::{HostList, Spread};
use super::plan::Plan;
use super::process::start_mass;
use super::promotion::{PromotionBets, PromotionWindow};
use super::quality::{Quality, QualityWindow, SIGNALS_MAX};
use super::reference::{LEVELS, N_LEVELS, Reference};
use super::slow_host::{SlowBets, SlowHost, SlowWindow};
use super::stage::StageState;
use super::stratum;
use super::tally::{ArmTally, Edges, HostTally};
use super::unit::{Unit, UnitWindow};
use super::weights;
use crate::judge::slot::{HostWindow, Slot, SlotWindows};

/// Streams (slice × stage) one comparison takes in; more are left out and counted.
pub const STREAMS_MAX: usize = 512;

/// Slots without any data that are passed one by one; after them nothing changes any more.
const GAP_MAX: i64 = 1_440;

/// Windows in which all hosts carried both arms, after which history is let go.
const SETTLED: u64 = 12;

/// Windows of the last minute.
const MINUTE: usize = 12;

/// A slot that was given before or is older than one that was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("slot {given} was passed already: the next is {next}; each slot is judged once, in order")]
pub struct OutOfOrder {
    given: i64,
    next: i64,
}

/// One slice at one stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Stream {
    pub(super) stage: Stage,
    pub(super) slice: Slice,
    reference: Reference,
    /// The baseline before the rollout by host.
    history: BTreeMap<usize, Histogram>,
    /// Baseline and canary samples of the last minute's windows.
    pub(super) recent: Vec<[u64; 2]>,
    /// Baseline samples before the rollout and in its first window: what it weighs.
    pub(super) traffic: u64,
    /// Baseline and canary samples since the rollout began.
    rollout: [u64; 2],
}

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    pub(super) plan: Plan,
    pub(super) hosts: HostList,
    pub(super) streams: Vec<Stream>,
    pub(super) stages: Vec<StageState>,
    pub(super) units: Vec<Unit>,
    pub(super) quality: Vec<Quality>,
    pub(super) quality_weight: f64,
    pub(super) next: Option<i64>,
    pub(super) began: Option<i64>,
    pub(super) step: usize,
    pub(super) step_began: i64,
    step_due: bool,
    started: f64,
    pub(super) spread: Spread,
    pub(super) carriers: (usize, usize),
    /// Windows of history when arms have hosts of their own and it does not suffice.
    pub(super) history_short: Option<usize>,
    /// Largest ln E so far.
    pub(super) ln_e_max: f64,
    pub(super) slow_hosts: Vec<SlowHost>,
    /// Windows of streams past the limit that were left out.
    pub streams_refused: u64,
}

impl Comparison {
    /// A comparison that has seen nothing. Until [`Comparison::begin`] it takes in history.
    ///
    /// # Errors
    /// [`super::PlanError`] for a plan that is out of range.
    pub fn new(plan: Plan) -> Result<Self, super::PlanError> {
        Ok(Self {
            plan: plan.checked()?,
            hosts: HostList::default(),
            streams: Vec::new(),
            stages: Vec::new(),
            units: Vec::new(),
            quality: Vec::new(),
            quality_weight: 0.0,
            next: None,
            began: None,
            step: 0,
            step_began: 0,
            step_due: false,
            started: 0.0,
            spread: Spread::Unknown,
            carriers: (0, 0),
            history_short: None,
            ln_e_max: 0.0,
            slow_hosts: Vec::new(),
            streams_refused: 0,
        })
    }

    /// The plan it holds the canary to.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The slot it takes in next; `None` before the first.
    pub fn next_slot(&self) -> Option<Slot> {
        self.next.map(Slot)
    }

    /// Begins the rollout: `slot` is the first that is judged. Later calls change nothing.
    pub fn begin(&mut self, slot: Slot) {
        if self.began.is_none() {
            (self.began, self.step_began) = (Some(slot.0), slot.0);
        }
    }

    /// Begins a step with the next window; evidence of "not worse" starts anew.
    pub fn begin_step(&mut self, step: usize) {
        if step < self.plan.steps() {
            self.step = step;
            self.step_due = true;
            self.step_began = self.next.unwrap_or(self.step_began);
            self.stages.iter_mut().for_each(StageState::begin_step);
            self.quality.iter_mut().for_each(Quality::begin_step);
        }
    }

    /// Takes in a slot; slots that were skipped had no data.
    ///
    /// # Errors
    /// [`OutOfOrder`] for a slot that is not after all before: nothing changes.
    pub fn observe(
        &mut self,
        windows: &SlotWindows,
        quality: &[QualityWindow],
    ) -> Result<(), OutOfOrder> {
        let slot = windows.slot.0;
        let next = self.next.unwrap_or(slot);
        if slot < next {
            return Err(OutOfOrder { given: slot, next });
        }
        for empty in next.max(slot.saturating_sub(GAP_MAX))..slot {
            self.window(empty, &[], &[]);
        }
        self.window(slot, &windows.windows, quality);
        self.next = Some(slot.saturating_add(1));
        Ok(())
    }

    fn window(&mut self, slot: i64, windows: &[HostWindow], quality: &[QualityWindow]) {
        let t = self.began.and_then(|began| u64::try_from(slot.saturating_sub(began)).ok());
        let mut sorted: Vec<&HostWindow> = windows.iter().collect();
        sorted.sort_by(|a, b| key(a).cmp(&key(b)));
        let places: Vec<usize> = sorted.iter().map(|w| self.hosts.place(&w.host)).collect();
        if t.is_some() {
            self.count_hosts(&sorted, &places);
        }
        let groups = self.group(&sorted, &places);
        if t.is_some() {
            self.fix_weights(&groups, quality);
        }
        let mass =
            t.map_or(0.0, |t| start_mass(t, std::mem::take(&mut self.step_due) && self.step <= 2));
        self.started += mass;
        self.units.iter_mut().for_each(|unit| unit.start(mass));
        self.quality.iter_mut().for_each(|signal| signal.start(mass));
        self.judge(slot, t, &groups, mass);
        self.judge_quality(t.is_some(), quality);
        if t == Some(SETTLED) && self.spread == Spread::InHost {
            self.let_history_go();
        }
    }

    /// Counts who carries what, and settles what follows from it.
    fn count_hosts(&mut self, sorted: &[&HostWindow], places: &[usize]) {
        for (window, &place) in sorted.iter().zip(places) {
            match window.arm {
                Arm::Canary => self.hosts.count(place, window.n(), 0),
                Arm::Baseline => self.hosts.count(place, 0, window.n()),
            }
        }
        let (spread, carriers) = (self.hosts.spread(), self.hosts.carriers());
        self.hosts.assign_folds(spread);
        let changed =
            spread != self.spread || (spread == Spread::HostSplit && carriers != self.carriers);
        (self.spread, self.carriers) = (spread, carriers);
        if changed {
            self.settle();
        }
    }

    fn settle(&mut self) {
        self.history_short = None;
        match self.spread {
            Spread::Unknown => {}
            Spread::InHost => {
                self.stages.iter_mut().for_each(|stage| stage.settle_in_host(&self.plan));
            }
            Spread::HostSplit => self.settle_split(),
        }
    }

    fn settle_split(&mut self) {
        let needed = self.plan.history_s / WINDOW_BASE_SECS;
        let held = self.stages.iter().map(|stage| stage.placebo.windows()).min().unwrap_or(0);
        if (held as u64) < needed.min(720) {
            self.history_short = Some(held);
            return;
        }
        let hosts = Hosts { canary: self.carriers.0, baseline: self.carriers.1 };
        for at in 0..self.stages.len() {
            let ln_quantiles = self.host_quantiles(self.stages[at].stage);
            self.stages[at].settle_split(&self.plan, hosts, &ln_quantiles);
        }
    }

    /// Logarithms of the hosts' quantiles before the rollout, each slice's mean taken off, weighted
    /// by traffic over slices.
    fn host_quantiles(&self, stage: Stage) -> [Vec<f64>; N_LEVELS] {
        std::array::from_fn(|level| {
            let mut by_host: BTreeMap<usize, Vec<(f64, f64)>> = BTreeMap::new();
            for stream in self.streams.iter().filter(|stream| stream.stage == stage) {
                let quantile = |(&host, histogram): (&usize, &Histogram)| {
                    Some((host, histogram.quantile(LEVELS[level], 20.0)?, histogram.n() as f64))
                };
                let known: Vec<_> = stream.history.iter().filter_map(quantile).collect();
                let of_all: Vec<_> = known.iter().map(|(_, q, n)| (*q, *n)).collect();
                let Some(mean) = host_effect::ln_mean(&of_all) else { continue };
                for (host, quantile, n) in known {
                    by_host.entry(host).or_default().push((quantile / libm::exp(mean), n));
                }
            }
            by_host.values().filter_map(|slices| host_effect::ln_mean(slices)).collect()
        })
    }

    /// The windows by stream, each with its hosts' places.
    fn group<'a>(&mut self, sorted: &[&'a HostWindow], places: &[usize]) -> Groups<'a> {
        let mut groups: Groups<'a> = BTreeMap::new();
        for (window, &place) in sorted.iter().zip(places) {
            let wanted = (window.stage, &*window.slice);
            let found = self.streams.binary_search_by(|s| (s.stage, &s.slice).cmp(&wanted));
            if found.is_err() && self.streams.len() >= STREAMS_MAX {
                self.streams_refused = self.streams_refused.saturating_add(1);
                continue;
            }
            if let Err(at) = found {
                self.add_stream(at, window);
            }
            groups
                .entry((window.stage, window.slice.as_ref().clone()))
                .or_default()
                .push((place, window));
        }
        groups
    }

    fn add_stream(&mut self, at: usize, window: &HostWindow) {
        let stage = window.stage;
        self.streams.insert(
            at,
            Stream {
                stage,
                slice: window.slice.as_ref().clone(),
                reference: Reference::default(),
                history: BTreeMap::new(),
                recent: Vec::new(),
                traffic: 0,
                rollout: [0; 2],
            },
        );
        if let Err(at) = self.stages.binary_search_by_key(&stage, |state| state.stage) {
            self.stages.insert(at, StageState::new(stage));
            self.settle();
        }
    }

    /// Fixes what everything weighs, with the first window that has a canary.
    fn fix_weights(&mut self, groups: &Groups<'_>, quality: &[QualityWindow]) {
        let canary = groups.values().flatten().any(|(_, window)| window.arm == Arm::Canary);
        if !self.units.is_empty() || !canary {
            return;
        }
        self.add_signals(quality);
        let mut traffic: Vec<(Stage, Slice, u64)> = Vec::new();
        for stream in &self.streams {
            let own = groups.get(&(stream.stage, stream.slice.clone()));
            let now: u64 = own.into_iter().flatten().map(|(_, window)| window.n()).sum();
            traffic.push((stream.stage, stream.slice.clone(), stream.traffic.saturating_add(now)));
        }
        let weights = weights::fix(&traffic, !self.quality.is_empty());
        self.quality_weight = weights.quality;
        self.units = (weights.units.into_iter())
            .map(|(stage, slice, weight)| Unit::new(stage, slice, weight))
            .collect();
        let started = self.started;
        self.units.iter_mut().for_each(|unit| unit.start(started));
    }

    fn add_signals(&mut self, quality: &[QualityWindow]) {
        for window in quality {
            let known = self.quality.iter().any(|signal| signal.signal == window.signal);
            if !known && self.units.is_empty() && self.quality.len() < SIGNALS_MAX {
                let mut signal = Quality::new(window.signal.clone());
                signal.start(self.started);
                self.quality.push(signal);
                self.quality.sort_by(|a, b| a.signal.cmp(&b.signal));
            }
        }
    }

    fn judge(&mut self, slot: i64, t: Option<u64>, groups: &Groups<'_>, mass: f64) {
        let cold = self.plan.cold_start_s / 5;
        let since = u64::try_from(slot.saturating_sub(self.step_began)).unwrap_or(0);
        let judged = t.is_some() && since >= cold;
        let not_worse = self.margins_not_worse();
        for at in 0..self.stages.len() {
            let stage = self.stages[at].stage;
            let margins = self.stages[at].margins(&self.plan, not_worse);
            let mut window = StageWindow::default();
            for stream in self.streams.iter_mut().filter(|stream| stream.stage == stage) {
                let own = groups.get(&(stage, stream.slice.clone())).map_or(&[][..], Vec::as_slice);
                let thresholds = stream.reference.thresholds();
                let edges = Edges::new(thresholds, &margins);
                let tallies = tallies(own, &edges);
                let baseline = merged(own, Arm::Baseline);
                if t.is_none() {
                    window.history(stream, own, &tallies, &edges);
                } else {
                    stream.note(&tallies);
                    let harm_bets = HarmBets::new(&thresholds, &self.plan);
                    let harm = stratum::harm(&harm_bets, &tallies, &self.hosts, self.spread);
                    let bets = PromotionBets::new(&thresholds);
                    let shown = stratum::not_worse(&bets, &tallies, &harm, self.spread);
                    window.add(&stream.slice, harm, &shown);
                    window.slow.add(&tallies, &SlowBets::new(&thresholds));
                    window.take_latencies(own);
                    window.tallies.extend(tallies);
                }
                stream.reference.push(&baseline);
            }
            self.take_stage(at, t.is_some(), judged, window, mass);
        }
        if judged && self.history_short.is_none() {
            self.ln_e_max = self.ln_e_max.max(self.ln_harm(None));
        }
    }

    fn take_stage(
        &mut self,
        at: usize,
        rollout: bool,
        judged: bool,
        window: StageWindow,
        mass: f64,
    ) {
        let state = &mut self.stages[at];
        let baseline =
            window.tallies.iter().fold(Hits::default(), |s, t| s.plus(t.baseline.errors));
        if !rollout {
            state.placebo.push(&window.placebo, window.levels);
            state.count_baseline(
                window.placebo.iter().fold(Hits::default(), |s, h| s.plus(h.1.errors)),
            );
            return;
        }
        state.pass(&window.all.canary, &window.all.baseline);
        state.arms[0].latencies.add(&window.latencies[0].to_sparse());
        let canary = window.latencies[1].to_sparse();
        state.arms[1].latencies.add(&canary);
        state.step_latencies.add(&canary);
        state.watch_breaker(&merge_hosts(window.tallies));
        state.slow.take(&window.slow, self.started - mass, mass, self.plan.phi_in_host);
        let hosts = &self.hosts;
        let name = |place: usize| hosts.get(place).map_or_else(|| "".into(), |h| h.name.clone());
        self.slow_hosts.extend(state.slow.found(state.stage, self.plan.alpha_host, name));
        if judged && self.history_short.is_none() {
            let error_rate = state.error_rate(&self.plan, self.step);
            state.promotion.take(&window.shown, window.all.canary.errors, error_rate, &state.phi);
            let (phi, folds) = (state.phi, self.hosts.folds());
            for unit in self.units.iter_mut().filter(|unit| unit.stage == state.stage) {
                let own = match &unit.slice {
                    None => Some(&window.all),
                    Some(slice) => window.slices.get(slice),
                };
                if let Some(own) = own {
                    unit.take(own, folds, &phi);
                }
            }
        }
        state.count_baseline(baseline);
    }

    fn judge_quality(&mut self, rollout: bool, quality: &[QualityWindow]) {
        self.add_signals(quality);
        for signal in &mut self.quality {
            let of = |arm: Arm| {
                let mut marks = super::evalue::Marks::default();
                let own = quality.iter().filter(|w| w.signal == signal.signal && w.arm == arm);
                own.for_each(|window| marks.merge(&window.marks));
                marks
            };
            let (canary, baseline) = (of(Arm::Canary), of(Arm::Baseline));
            let judged = rollout && self.history_short.is_none();
            signal.take(&canary, &baseline, self.plan.quality_drop, self.plan.phi_in_host, judged);
        }
    }

    /// The margins of p95 and p99 in force.
    pub(super) fn margins_not_worse(&self) -> [f64; 2] {
        let margins = match self.spread {
            Spread::HostSplit => &self.plan.margins_host_split,
            Spread::InHost | Spread::Unknown => &self.plan.margins,
        };
        let p95 = margins[self.step];
        [p95, p95 + self.plan.margin_p99_extra]
    }

    fn let_history_go(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.history.clear());
        self.stages.iter_mut().for_each(|stage| stage.placebo = super::placebo::Placebo::default());
    }
}

type Groups<'a> = BTreeMap<(Stage, Slice), Vec<(usize, &'a HostWindow)>>;

fn key(window: &HostWindow) -> (Stage, &Slice, Arm, &str) {
    (window.stage, &window.slice, window.arm, &window.host)
}

/// The tallies of a stream's hosts, by place.
fn tallies(own: &[(usize, &HostWindow)], edges: &Edges) -> Vec<HostTally> {
    let mut by_host: BTreeMap<usize, HostTally> = BTreeMap::new();
    for (place, window) in own {
        let errors = Hits { hits: window.errors, n: window.requests() };
        let tally =
            by_host.entry(*place).or_insert(HostTally { host: *place, ..HostTally::default() });
        match window.arm {
            Arm::Baseline => {
                let more = ArmTally::baseline(&window.counts, edges, errors);
                tally.baseline = tally.baseline.plus(&more);
            }
            Arm::Canary => {
                let more = ArmTally::canary(&window.counts, edges, errors);
                tally.canary = tally.canary.plus(&more);
            }
        }
    }
    by_host.into_values().collect()
}

/// The tallies of several streams by host.
fn merge_hosts(tallies: Vec<HostTally>) -> Vec<HostTally> {
    let mut by_host: BTreeMap<usize, HostTally> = BTreeMap::new();
    for tally in tallies {
        let sum = by_host
            .entry(tally.host)
            .or_insert(HostTally { host: tally.host, ..HostTally::default() });
        sum.canary = sum.canary.plus(&tally.canary);
        sum.baseline = sum.baseline.plus(&tally.baseline);
    }
    by_host.into_values().collect()
}

fn merged(own: &[(usize, &HostWindow)], arm: Arm) -> Sparse {
    let mut pages = PagedCounts::new();
    own.iter().filter(|(_, w)| w.arm == arm).for_each(|(_, w)| pages.merge_sparse(&w.counts));
    pages.to_sparse()
}

/// One window of one stage.
#[derive(Default)]
struct StageWindow {
    all: UnitWindow,
    slices: BTreeMap<Slice, UnitWindow>,
    shown: PromotionWindow,
    slow: SlowWindow,
    tallies: Vec<HostTally>,
    latencies: [PagedCounts; 2],
    placebo: Vec<(usize, ArmTally)>,
    levels: [bool; N_LEVELS],
}

impl StageWindow {
    fn add(&mut self, slice: &Slice, harm: UnitWindow, shown: &PromotionWindow) {
        self.shown.add(shown);
        self.all.add(&harm);
        self.slices.insert(slice.clone(), harm);
    }

    fn take_latencies(&mut self, own: &[(usize, &HostWindow)]) {
        for (_, window) in own {
            let arm = usize::from(window.arm == Arm::Canary);
            self.latencies[arm].merge_sparse(&window.counts);
        }
    }

    fn history(
        &mut self,
        stream: &mut Stream,
        own: &[(usize, &HostWindow)],
        tallies: &[HostTally],
        edges: &Edges,
    ) {
        for (place, window) in own.iter().filter(|(_, window)| window.arm == Arm::Baseline) {
            stream.history.entry(*place).or_default().add(&window.counts);
            stream.traffic = stream.traffic.saturating_add(window.n());
        }
        for (level, threshold) in edges.thresholds.iter().enumerate() {
            self.levels[level] |= threshold.is_some();
        }
        for tally in tallies {
            match self.placebo.iter_mut().find(|(host, _)| *host == tally.host) {
                Some((_, sum)) => *sum = sum.plus(&tally.baseline),
                None => self.placebo.push((tally.host, tally.baseline)),
            }
        }
    }
}

impl Stream {
    /// Canary samples for each of the baseline, since the rollout began.
    pub(super) fn canary_share(&self) -> f64 {
        let [baseline, canary] = self.rollout;
        if baseline == 0 { 0.0 } else { canary as f64 / baseline as f64 }
    }

    fn note(&mut self, tallies: &[HostTally]) {
        let sum = |arm: fn(&HostTally) -> u64| tallies.iter().map(arm).sum();
        let window = [sum(|t| t.baseline.n), sum(|t| t.canary.n)];
        self.recent.push(window);
        self.rollout = std::array::from_fn(|arm| self.rollout[arm].saturating_add(window[arm]));
        if self.recent.len() > MINUTE {
            self.recent.remove(0);
        }
    }
}
