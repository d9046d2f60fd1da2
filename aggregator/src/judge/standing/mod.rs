//! The standing judge: every series against its rules, slot by slot, for as long as it runs.
//!
//! A rule is judged on windows of nine widths at once, so that a short outage and a slight excess
//! are both found, each as soon as its samples allow; the widths share one budget of false alarms.
//! Windows overlap by half, so nothing counts overlapping windows as evidence twice: what is said
//! to have happened in a row are disjoint ones.
//! Promise: pure. The same slots in the same order give the same decisions, to the bit.
//! Bounds: the series of the windows it is fed, about 30 KB each when busy.

mod future;
mod held;
mod regression;
mod stream;
mod test;

use std::collections::BTreeMap;

use lens_hist::Sparse;
use lens_model::{Arm, SeriesKey, Slice, Stage};
use serde_json::{Map, Value, json};

use super::Verdict;
use super::decision::{Decision, Kind, SlotJudge};
use super::slot::{SLOT, Slot, SlotWindows};
use super::survivors::Survivors;
use crate::state::Rules;

pub use future::{Direction, Forecast, Future, Trend};
pub use held::{Episode, Finding, Held, Thresholds, Watched};
pub use regression::Regression;
pub use stream::{LimitWatched, Stream};
pub use test::{Measure, Test, point};

/// What was last said of one series.
#[derive(Clone, Debug, Default)]
struct Said {
    tail: Option<Verdict>,
    limits: Vec<Option<Verdict>>,
    trend: Option<Direction>,
    forecast: bool,
    drift: bool,
    /// First and last slot of each violation of the tail.
    broken: Option<(Slot, Slot)>,
}

/// Every series under watch.
#[derive(Clone, Debug)]
pub struct Standing {
    rules: Rules,
    thresholds: Thresholds,
    stale_slots: i64,
    streams: BTreeMap<SeriesKey, Stream>,
    /// Slices whose whole query was seen in both arms.
    regressions: BTreeMap<Slice, Regression>,
    said: BTreeMap<SeriesKey, Said>,
    said_of_regressions: BTreeMap<Slice, Verdict>,
    now: Option<Slot>,
    work: Survivors,
}

impl Standing {
    /// Nothing heard yet, under these rules.
    pub fn new(rules: &Rules) -> Self {
        let stale_slots = i64::try_from(rules.stale_after.0 / SLOT.0).unwrap_or(i64::MAX);
        Self {
            thresholds: Thresholds::new(rules.false_alarm_days, rules.window_min.as_secs_f64()),
            rules: rules.clone(),
            stale_slots,
            streams: BTreeMap::new(),
            regressions: BTreeMap::new(),
            said: BTreeMap::new(),
            said_of_regressions: BTreeMap::new(),
            now: None,
            work: Survivors::new(),
        }
    }

    /// One series.
    pub fn stream(&self, key: &SeriesKey) -> Option<&Stream> {
        self.streams.get(key)
    }

    /// Every series, in order.
    pub fn streams(&self) -> impl Iterator<Item = (&SeriesKey, &Stream)> {
        self.streams.iter()
    }

    /// The newest slot taken in.
    pub const fn now(&self) -> Option<Slot> {
        self.now
    }

    /// The whole query of a slice's canary against its baseline; `None` before both were seen.
    pub fn regression(&self, slice: &Slice) -> Option<&Regression> {
        self.regressions.get(slice)
    }

    /// Every slice's whole query of which both arms were seen, in order.
    pub fn regressions(&self) -> impl Iterator<Item = (&Slice, &Regression)> {
        self.regressions.iter()
    }

    /// What is to be said of a rule of a series by its samples alone.
    pub fn verdict(&self, stream: &Stream, watched: &Watched) -> Verdict {
        stream.verdict(watched, self.stale_slots)
    }

    /// Takes in one slot, which must be later than the last.
    pub fn take(&mut self, windows: &SlotWindows) {
        let mut counts = merged(windows);
        for key in counts.keys().filter(|key| !self.streams.contains_key(key)).collect::<Vec<_>>() {
            let stream = Stream::new(key, &self.rules).among(self.streams.len());
            self.streams.insert(key.clone(), stream);
        }
        self.compare(windows.slot, &counts);
        for (key, stream) in &mut self.streams {
            let counts = counts.remove(key).unwrap_or_default();
            stream.slot(windows.slot, counts, &self.thresholds, &mut self.work);
        }
        self.now = Some(windows.slot);
    }

    /// Holds the whole query of each slice's canary against its baseline's.
    fn compare(&mut self, slot: Slot, counts: &BTreeMap<SeriesKey, Sparse>) {
        let seen: Vec<Slice> = self
            .streams
            .keys()
            .filter(|key| key.stage == Stage::E2e && key.arm == Arm::Canary)
            .filter(|key| self.streams.contains_key(&whole_query(&key.slice, Arm::Baseline)))
            .map(|key| key.slice.clone())
            .collect();
        for slice in seen {
            let of = |arm| counts.get(&whole_query(&slice, arm)).cloned().unwrap_or_default();
            let (baseline, canary) = (of(Arm::Baseline), of(Arm::Canary));
            let margin = self.rules.e2e_regression_max;
            let regression =
                self.regressions.entry(slice).or_insert_with(|| Regression::new(margin));
            regression.slot(slot, baseline, canary, &self.thresholds);
        }
    }

    /// Adds what is new about whole queries.
    fn say_of_regressions(&mut self, slot: Slot, decisions: &mut Vec<Decision>) {
        for (slice, regression) in &self.regressions {
            let verdict = regression.verdict();
            if self.said_of_regressions.insert(slice.clone(), verdict) == Some(verdict) {
                continue;
            }
            let mut evidence = json!({
                "rule": "e2e_regression", "limit": regression.margin(), "quantile": "p95",
            });
            if let Some(finding) = regression.finding() {
                found(&mut evidence, &finding);
            }
            let key = whole_query(slice, Arm::Canary);
            Voice { key: &key, slot, decisions }.say(Kind::Slo, verdict, evidence);
        }
    }

    /// Adds what differs from what was last said.
    fn say(&mut self, slot: Slot, decisions: &mut Vec<Decision>) {
        for (key, stream) in &self.streams {
            let said = self.said.entry(key.clone()).or_default();
            let mut voice = Voice { key, slot, decisions };
            let verdict = stream.verdict(stream.tail(), self.stale_slots);
            if said.tail != Some(verdict) {
                said.tail = Some(verdict);
                let evidence = evidence(stream.tail_test(), stream.tail(), verdict, "ratio");
                voice.say(Kind::Tail, verdict, evidence);
            }
            if let Held::Broken(episode) = stream.tail().held() {
                let first = said.broken.map_or(episode.found.last, |(first, _)| first);
                said.broken = Some((first, slot));
            }
            said.limits.resize(stream.limits().len(), None);
            for (said, limit) in said.limits.iter_mut().zip(stream.limits()) {
                let verdict = stream.verdict(&limit.watched, self.stale_slots);
                if *said != Some(verdict) {
                    *said = Some(verdict);
                    let mut evidence = evidence(&limit.test, &limit.watched, verdict, "value_ms");
                    evidence["quantile"] = limit.name.into();
                    voice.say(Kind::Slo, verdict, evidence);
                }
            }
            voice.future(said, stream.future());
        }
    }
}

impl SlotJudge for Standing {
    fn slot(&mut self, windows: &SlotWindows, decisions: &mut Vec<Decision>) {
        self.take(windows);
        self.say(windows.slot, decisions);
        self.say_of_regressions(windows.slot, decisions);
    }

    fn summarise(&self, summary: &mut Map<String, Value>) {
        let violation = |(key, said): (&SeriesKey, &Said)| {
            let (first, last) = said.broken?;
            Some(json!({
                "slice": key.slice, "stage": key.stage, "arm": key.arm,
                "first_t_ms": first.end_millis(), "last_t_ms": last.end_millis(),
            }))
        };
        let violations: Vec<Value> = self.said.iter().filter_map(violation).collect();
        let series = self.streams.len();
        summary.insert("tail".into(), json!({"series": series, "violations": violations}));
    }
}

/// Speaks for one series at the end of one slot.
struct Voice<'a> {
    key: &'a SeriesKey,
    slot: Slot,
    decisions: &'a mut Vec<Decision>,
}

impl Voice<'_> {
    /// `stale` is said as `insufficient_data`, with the state beside it.
    fn say(&mut self, kind: Kind, verdict: Verdict, mut evidence: Value) {
        evidence["state"] = verdict.as_str().into();
        let verdict = if verdict == Verdict::Stale { Verdict::InsufficientData } else { verdict };
        self.word(kind, verdict.as_str(), evidence);
    }

    fn word(&mut self, kind: Kind, decision: &'static str, evidence: Value) {
        self.decisions.push(Decision {
            t_ms: self.slot.end_millis(),
            kind,
            slice: Some(self.key.slice.clone()),
            stage: Some(self.key.stage),
            arm: Some(self.key.arm),
            decision,
            evidence,
        });
    }

    fn future(&mut self, said: &mut Said, future: &Future) {
        let direction = future.trend().map(|trend| trend.trend);
        let news = direction.is_some() && direction != said.trend;
        if news || future.forecast().is_some() != said.forecast {
            said.trend = direction.or(said.trend);
            said.forecast = future.forecast().is_some();
            let decision = match said.trend {
                Some(Direction::Improving) => "improving",
                Some(Direction::Degrading) => "degrading",
                Some(Direction::Stable) => "stable",
                None => "insufficient_data",
            };
            let evidence = json!({"trend": future.trend(), "forecast": future.forecast()});
            self.word(Kind::Trend, decision, evidence);
        }
        if future.drifts().unwrap_or(false) != said.drift {
            said.drift = !said.drift;
            let decision = if said.drift { "drift" } else { "stable" };
            self.word(Kind::Trend, decision, json!({"drift": future.drift()}));
        }
    }
}

/// What a verdict rests on.
fn evidence(test: &Test, watched: &Watched, verdict: Verdict, value: &str) -> Value {
    let finding = match watched.held() {
        Held::Unjudged => None,
        Held::Kept(finding) => Some(finding),
        Held::Broken(episode) => Some(episode.found),
    };
    let limit = match test {
        Test::Tail { limit, .. } => *limit,
        Test::Limit { limit, .. } => limit.as_millis_f64(),
    };
    let mut evidence = json!({
        "rule": "likelihood_ratio", "limit": limit, "samples_min": test.samples_min(),
    });
    if verdict == Verdict::InsufficientData || verdict == Verdict::Stale {
        let needed = test.samples_min();
        evidence["reason"] = match verdict {
            Verdict::Stale => "no samples".into(),
            _ => format!("no window of up to 2,560 s holds {needed} samples").into(),
        };
        return evidence;
    }
    let measure = watched.measure();
    evidence[value] = json!(measure.value);
    evidence["low"] = json!(measure.low);
    evidence["high"] = json!(measure.high);
    if let Some(finding) = finding {
        found(&mut evidence, &finding);
    }
    evidence
}

/// Adds the window a verdict rests on.
fn found(evidence: &mut Value, finding: &Finding) {
    evidence["samples"] = finding.samples.into();
    evidence["window_s"] = finding.scale.secs().into();
    evidence["from_t_ms"] = finding.first().start_millis().into();
    evidence["z"] = json!(finding.z);
    evidence["z_needed"] = json!(finding.z_needed);
    evidence["phi"] = json!(finding.phi);
}

/// The series of a slice's whole query.
fn whole_query(slice: &Slice, arm: Arm) -> SeriesKey {
    SeriesKey { slice: slice.clone(), stage: Stage::E2e, arm }
}

/// The counts of each series over its hosts.
fn merged(windows: &SlotWindows) -> BTreeMap<SeriesKey, Sparse> {
    let mut counts: BTreeMap<SeriesKey, Sparse> = BTreeMap::new();
    for window in windows.windows.iter().filter(|window| !window.counts.is_empty()) {
        let slice = (*window.slice).clone();
        let key = SeriesKey { slice, stage: window.stage, arm: window.arm };
        counts
            .entry(key)
            .and_modify(|held| *held = Sparse::sum(held, &window.counts))
            .or_insert_with(|| window.counts.clone());
    }
    counts
}
