//! What a comparison knows, put together for a decision.

use super::comparison::{Comparison, Stream};
use super::evidence::{
    Blocker, BlockerCode, Evidence, HarmEvidence, PromotionEvidence, PromotionPart, SliceTraffic,
    WithoutHost,
};
use super::host_effect;
use super::hosts::{Host, Spread};
use super::promotion::PARTS;
use super::stage::StageState;
use super::unit::{Both, Leading, Unit};
use crate::judge::math::{exp, ln, ln_sum_exp};
use crate::judge::slot::Slot;
use crate::judge::survivors::Survivors;
use crate::judge::tail::rule;

/// Seconds of a slot.
const SLOT_SECS: u64 = lens_model::limits::WINDOW_BASE_SECS;

/// Share of a step's windows in which both arms must have data.
const WINDOWS_WITH_DATA: f64 = 0.8;

/// Windows, the last minute, within which both arms must have had data.
const SILENT_MAX: u64 = 12;

/// Canary samples a slice is expected to have in a minute from which their absence means something.
const EXPECTED_MIN: f64 = 5.0;

/// p99 below which no tail ratio is judged: a microsecond tail harms nobody, nanoseconds.
const TAIL_FLOOR_NANOS: f64 = 1e6;

/// The ratio of p99 to p95 that the canary may not be shown to exceed.
const TAIL_LIMIT: f64 = 2.0;

/// Evidence of a broken tail rule at which promotion stops: ln 20.
const TAIL_BOUND: f64 = 2.995_732_273_553_991;

impl Comparison {
    /// ln E that the canary is worse, of all hosts or without one fold.
    pub(super) fn ln_harm(&self, without: Option<usize>) -> f64 {
        let signals = self.quality.len().max(1) as f64;
        let of_units = self.units.iter().map(|unit| ln(unit.weight) + unit.ln_e(without));
        let share = self.quality_weight / signals;
        let of_signals = (self.quality.iter())
            .filter(|_| share > 0.0)
            .map(|signal| ln(share) + signal.ln_harm());
        let sum = ln_sum_exp(of_units.chain(of_signals));
        if sum == f64::NEG_INFINITY { 0.0 } else { sum }
    }

    /// Everything known now.
    pub fn evidence(&self) -> Evidence {
        let next = self.next.unwrap_or(0);
        let since = |began: i64| u64::try_from(next.saturating_sub(began)).unwrap_or(0);
        let undecidable = self.undecidable();
        let promotion = self.promotion();
        let blockers = self.blockers(since(self.step_began), &promotion);
        Evidence {
            t_ms: Slot(next).start_millis(),
            windows: self.began.map_or(0, since),
            step: self.step,
            windows_in_step: if self.began.is_some() { since(self.step_began) } else { 0 },
            spread: self.spread,
            hosts: self.carriers,
            arms: self.stages.iter().flat_map(StageState::summaries).collect(),
            harm: self.harm(),
            promotion,
            slow_hosts: self.slow_hosts.clone(),
            undecidable,
            blockers,
        }
    }

    fn harm(&self) -> HarmEvidence {
        let ln_e = self.ln_harm(None);
        HarmEvidence {
            ln_e,
            bound: -ln(self.plan.alpha),
            p_value: exp(-self.ln_e_max.max(ln_e).max(0.0)),
            leading: self.leading(),
            without_host: self.without_host(),
            breaker: self.stages.iter().find_map(|stage| stage.breaker.clone()),
        }
    }

    fn leading(&self) -> Option<Leading> {
        let of_unit = |unit: &Unit| {
            let stage = self.stages.iter().find(|stage| stage.stage == unit.stage)?;
            Some(unit.leading(&stage.phi))
        };
        let share = self.quality_weight / self.quality.len().max(1) as f64;
        let of_signals = self.quality.iter().filter(|_| share > 0.0).map(|signal| Leading {
            stage: lens_model::Stage::E2e,
            slice: None,
            metric: signal.signal.to_string(),
            ln_e: signal.ln_harm(),
            weight: share,
            phi: self.plan.phi_in_host,
            counts: Both::default(),
        });
        let loudness = |part: &Leading| ln(part.weight) + part.ln_e;
        let parts = self.units.iter().filter_map(of_unit).chain(of_signals);
        parts.max_by(|a, b| loudness(a).total_cmp(&loudness(b)))
    }

    /// The evidence without the hosts it rests on most; `None` when leaving them out would leave no
    /// canary to speak of.
    fn without_host(&self) -> Option<WithoutHost> {
        let canary: u64 = self.hosts.all().iter().map(|host| host.canary).sum();
        let enough = |fold: &usize| self.hosts.canary_without(*fold) as f64 >= 0.1 * canary as f64;
        let folds = (0..self.hosts.folds()).filter(enough);
        let left = folds.map(|fold| (fold, self.ln_harm(Some(fold))));
        let (fold, ln_e) = left.min_by(|a, b| a.1.total_cmp(&b.1))?;
        let in_fold = |host: &&Host| host.fold == Some(fold) || host.baseline_fold == Some(fold);
        let hosts = self.hosts.all().iter().filter(in_fold).map(|host| host.name.clone());
        Some(WithoutHost { hosts: hosts.collect(), ln_e, bound: -ln(self.plan.alpha_host) })
    }

    fn promotion(&self) -> PromotionEvidence {
        let margins = self.margins_not_worse();
        let mut parts = Vec::new();
        let counted = |stage: &StageState| stage.arms.iter().any(|arm| arm.requests > 0);
        let somewhere = self.stages.iter().any(counted);
        for stage in &self.stages {
            let error_rate = stage.error_rate(&self.plan, self.step);
            let margins = [margins[0], margins[1], error_rate];
            for ((metric, margin), ln_e) in PARTS.iter().zip(margins).zip(stage.promotion.ln_e()) {
                // Outcomes may be counted at the whole query alone; then they are shown there.
                if *metric == "errors" && somewhere && !counted(stage) {
                    continue;
                }
                let (stage, metric) = (Some(stage.stage), (*metric).to_owned());
                parts.push(PromotionPart { stage, metric, margin, ln_e });
            }
        }
        for signal in &self.quality {
            let (metric, margin) = (signal.signal.to_string(), self.plan.quality_drop);
            parts.push(PromotionPart { stage: None, metric, margin, ln_e: signal.ln_not_worse() });
        }
        let least = parts.iter().map(|part| part.ln_e).fold(f64::INFINITY, f64::min);
        let ln_e = if parts.is_empty() { 0.0 } else { least };
        PromotionEvidence { ln_e, bound: -ln(self.plan.alpha_promotion), parts }
    }

    /// Why nothing can be said.
    fn undecidable(&self) -> Vec<Blocker> {
        let mut found = Vec::new();
        let seen = |arm: usize| self.stages.iter().any(|s| s.arms[arm].latencies.n() > 0);
        if !seen(1) {
            let message = "no request of the canary has been seen since the rollout began";
            found.push(Blocker::new(BlockerCode::NoCanary, message));
        }
        if !seen(0) {
            let message = "no request of the baseline has been seen since the rollout began";
            found.push(Blocker::new(BlockerCode::NoBaseline, message));
        }
        if let Some(held) = self.history_short {
            let message = format!(
                "the canary has hosts of its own, and {} s of baseline history are too little to \
                 know how hosts differ: {} s are needed, or both arms on every host",
                held * 5,
                self.plan.history_s
            );
            found.push(Blocker::new(BlockerCode::HostSplitWithoutHistory, message));
        }
        found
    }

    fn blockers(&self, windows: u64, promotion: &PromotionEvidence) -> Vec<Blocker> {
        let mut found = Vec::new();
        for stage in &self.stages {
            self.stage_blockers(stage, windows, promotion, &mut found);
        }
        found.extend(self.streams.iter().filter_map(silent_slice));
        if self.spread == Spread::HostSplit
            && let Some(slow) = self.slow_hosts.last()
        {
            let message = format!(
                "host {} is slower than the other hosts of the {} at {}, and arms have hosts of \
                 their own: what it is compared with is not the version alone",
                slow.host, slow.arm, slow.stage
            );
            found.push(Blocker::new(BlockerCode::OneHost, message));
        }
        found
    }

    fn stage_blockers(
        &self,
        stage: &StageState,
        windows: u64,
        promotion: &PromotionEvidence,
        found: &mut Vec<Blocker>,
    ) {
        let name = stage.stage;
        let codes = [BlockerCode::StaleBaseline, BlockerCode::StaleCanary];
        for (arm, code) in codes.into_iter().enumerate() {
            let (word, silent) = (["baseline", "canary"][arm], stage.silent[arm]);
            let known = stage.arms[arm].requests > 0 || stage.arms[arm].latencies.n() > 0;
            if known && silent >= SILENT_MAX {
                let message = format!("nothing of the {word} at {name} for {} s", silent * 5);
                found.push(Blocker::new(code, message));
            } else if (stage.step_windows[arm] as f64) < WINDOWS_WITH_DATA * windows as f64 {
                let message = format!(
                    "the {word} at {name} has data in {} of {windows} windows of this step, less \
                     than 80 %",
                    stage.step_windows[arm]
                );
                found.push(Blocker::new(BlockerCode::TooFewWindows, message));
            }
        }
        self.feasible(stage, found);
        // The dearest of all checks, a millisecond a stage: only when it could matter.
        let dwelt = windows.saturating_mul(SLOT_SECS) >= self.plan.dwell_s[self.step];
        if dwelt && promotion.ln_e >= promotion.bound {
            tail_rule(stage, found);
        }
    }

    /// Whether the step's margins are wide enough to be shown over the differences of hosts.
    fn feasible(&self, stage: &StageState, found: &mut Vec<Blocker>) {
        let margins = self.margins_not_worse();
        for (which, metric) in ["p95", "p99"].into_iter().enumerate() {
            let (margin, factor) = (margins[which], stage.factors_promotion[which]);
            if factor < margin {
                continue;
            }
            let (canary, baseline) = self.carriers;
            let message = format!(
                "a {metric} margin of {margin:.2} at {} cannot be shown with {canary} canary and \
                 {baseline} baseline hosts, which alone differ by a factor of {factor:.2}: use more \
                 canary hosts, a margin above {factor:.2}, or both arms on every host",
                stage.stage
            );
            found.push(Blocker::new(BlockerCode::MarginNotShowable, message));
        }
    }
}

fn silent_slice(stream: &Stream) -> Option<Blocker> {
    let sum = |arm: usize| stream.recent.iter().map(|window| window[arm]).sum::<u64>();
    let traffic = SliceTraffic { slice: stream.slice.clone(), baseline: sum(0), canary: sum(1) };
    let whole = stream.recent.len() as u64 >= SILENT_MAX;
    let expected = traffic.baseline as f64 * stream.canary_share();
    (whole && traffic.canary == 0 && expected >= EXPECTED_MIN).then(|| {
        let message = format!(
            "slice {} at {} had {} baseline requests in the last minute and none of the canary",
            traffic.slice, stream.stage, traffic.baseline
        );
        Blocker::new(BlockerCode::SilentSlice, message)
    })
}

fn tail_rule(stage: &StageState, found: &mut Vec<Blocker>) {
    let counts = stage.step_latencies.to_sparse();
    let p99 = stage.step_latencies.quantile(0.99, 10.0);
    if p99.is_none_or(|p99| p99 < TAIL_FLOOR_NANOS) {
        return;
    }
    let phi = stage.phi[super::tally::NOT_WORSE_LEVELS[1]];
    let ln_e = rule::ln_e(&Survivors::of_sparse(&counts), TAIL_LIMIT, phi);
    if ln_e >= TAIL_BOUND {
        let message = format!(
            "the canary's p99 at {} is shown to exceed twice its p95 (ln E {ln_e:.2})",
            stage.stage
        );
        found.push(Blocker::new(BlockerCode::TailRule, message));
    }
}

/// Canary hosts from which a margin can be shown, for the check before a rollout.
pub fn canary_hosts_needed(tau: f64, hosts: usize, margin: f64, confidence: f64) -> Option<usize> {
    host_effect::hosts_needed(tau, hosts, hosts, margin, confidence)
}
