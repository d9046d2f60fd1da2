//! The rollout as a state machine: state, evidence and now in, state and actions out.
//!
//! Rollback at the first sound evidence of harm; promotion only when everything that must be shown
//! is, nothing stands in the way and the step has lasted; otherwise it holds and says why. A step
//! that lasts too long raises an alert and is from then on moved by people only. Missing or stale
//! data never moves a rollout forward.
//! Promise: pure; every decision carries the whole evidence; the state can be stored and read back,
//! and the same evidence gives the same decision. Refusal: no clock, no I/O; actions are carried out
//! by the caller, and doing one twice is harmless.
//! Times: milliseconds from the origin of the judge's slots.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::decision::{Decision, Word};
use crate::judge::canary::{Blocker, BlockerCode, Evidence, Plan};

/// Evidence of harm at which promotion stops, though it does not suffice for a rollback: ln 2.
const SUSPICION: f64 = std::f64::consts::LN_2;

/// Shortest time between two reports of holding that differ only in what stands in the way.
const REPORT_MILLIS_MIN: i64 = 60_000;

/// Why nothing can be moved or ended.
pub const NO_ROLLOUT: &str = "no rollout is under way";

/// Longest reason that is kept, bytes.
pub const REASON_BYTES_MAX: usize = 1_024;

/// Where a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", content = "step", rename_all = "snake_case")]
pub enum Phase {
    /// None has begun.
    #[default]
    Idle,
    /// At a step of the plan, from 0.
    Step(usize),
    /// All steps were passed.
    Complete,
    /// A person ended it.
    Aborted,
    /// Evidence of harm ended it.
    RolledBack,
    /// The kill switch is on: nothing begins before it is released.
    Killed,
}

impl Phase {
    /// Its name, as it is shown and exported.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Step(_) => "step",
            Self::Complete => "complete",
            Self::Aborted => "aborted",
            Self::RolledBack => "rolled_back",
            Self::Killed => "killed",
        }
    }
}

/// The state of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Where it stands.
    pub phase: Phase,
    /// The plan it follows, fixed when it began.
    pub plan: Plan,
    /// When it came to where it stands, milliseconds.
    pub since_ms: i64,
    /// Whether the step lasted too long: people decide.
    pub timed_out: bool,
    /// Why it stands where it does, in a sentence.
    pub reason: String,
    /// What was last reported of the step, and when.
    reported: Option<(Word, BlockerCode, i64)>,
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Give the canary this share of requests, percent.
    SetShare(f64),
    /// Let the comparison begin this step.
    BeginStep(usize),
    /// Keep and tell this decision.
    Decided(Box<Decision>),
    /// Tell a person.
    Alert(String),
}

/// What a person wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Begin a rollout.
    Start(Box<Plan>),
    /// Go to the next step now.
    Progress,
    /// End the rollout.
    Abort(String),
    /// End it because the version is not to be had.
    TakeBack(String),
    /// End it and let none begin.
    Kill(String),
    /// Let rollouts begin again.
    Release,
}

/// Why a command was not obeyed; the state is as it was.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// It does not fit where the rollout stands.
    #[error("{0}")]
    Phase(&'static str),
    /// Evidence is missing.
    #[error("{} of {} things stand in the way: {}", .0.len(), .0.len(), sentences(.0))]
    Blocked(Vec<Blocker>),
}

fn sentences(blockers: &[Blocker]) -> String {
    blockers.iter().map(|blocker| blocker.message.as_str()).collect::<Vec<_>>().join("; ")
}

impl State {
    /// The share of requests the canary is to have, percent.
    pub fn share(&self) -> f64 {
        match self.phase {
            Phase::Step(step) => self.plan.share(step),
            Phase::Complete => 100.0,
            Phase::Idle | Phase::Aborted | Phase::RolledBack | Phase::Killed => 0.0,
        }
    }

    fn step(&self) -> Option<usize> {
        match self.phase {
            Phase::Step(step) => Some(step),
            _ => None,
        }
    }

    fn enter(&mut self, phase: Phase, now_ms: i64, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        self.phase = phase;
        self.since_ms = now_ms;
        self.timed_out = false;
        self.reported = None;
        self.reason = reason[..end].to_owned();
    }

    /// Everything that stands in the way of the next step.
    pub fn blockers(&self, evidence: &Evidence, now_ms: i64) -> Vec<Blocker> {
        let Some(step) = self.step() else { return Vec::new() };
        let mut found = evidence.undecidable.clone();
        found.extend(evidence.blockers.iter().cloned());
        let stayed = now_ms.saturating_sub(self.since_ms) / 1_000;
        let dwell = i64::try_from(self.plan.dwell_s[step]).unwrap_or(i64::MAX);
        if stayed < dwell || evidence.step != step {
            let message = format!("this step has lasted {stayed} s of {dwell} s");
            found.push(Blocker::new(BlockerCode::Dwell, message));
        }
        let harm = &evidence.harm;
        if let (true, Some(left)) = (evidence.harm_rests_on_one_host(), &harm.without_host) {
            let message = format!(
                "the canary's harm (ln E {:.2}) rests on {}: without it ln E is {:.2}, under {:.2}",
                harm.ln_e,
                left.hosts.join(", "),
                left.ln_e,
                left.bound
            );
            found.push(Blocker::new(BlockerCode::OneHost, message));
        } else if harm.ln_e >= SUSPICION {
            let message = format!(
                "the canary is suspected of harm: ln E {:.2} of {:.2}",
                harm.ln_e, harm.bound
            );
            found.push(Blocker::new(BlockerCode::HarmSuspected, message));
        }
        found.extend(not_shown(evidence));
        if self.timed_out {
            let message = format!("this step has lasted longer than {} s", self.plan.timeout_s);
            found.push(Blocker::new(BlockerCode::TimedOut, message));
        }
        found
    }

    fn rule(&self, evidence: &Evidence) -> String {
        let bound = evidence.harm.bound;
        let without = -self.plan.alpha_host.ln();
        format!(
            "rollback when ln E of harm reaches {bound:.3} and {without:.3} without any one host; \
             promotion when ln E of each part reaches {:.3} after {:?} s",
            evidence.promotion.bound, self.plan.dwell_s
        )
    }

    fn decision(
        &self,
        word: Word,
        reason: String,
        next: f64,
        blockers: Vec<Blocker>,
        evidence: &Evidence,
        now_ms: i64,
    ) -> Action {
        Action::Decided(Box::new(Decision {
            t_ms: now_ms,
            word,
            reason,
            rule: self.rule(evidence),
            share: self.share(),
            share_next: next,
            blockers,
            evidence: evidence.clone(),
        }))
    }
}

fn not_shown(evidence: &Evidence) -> Option<Blocker> {
    if evidence.shows_not_worse() {
        return None;
    }
    let promotion = &evidence.promotion;
    let least = promotion.parts.iter().min_by(|a, b| a.ln_e.total_cmp(&b.ln_e));
    let message = match least {
        None => "nothing has been compared yet".to_owned(),
        Some(part) => {
            let of = part.stage.map_or_else(String::new, |stage| format!(" at {stage}"));
            format!(
                "{}{of} is not yet shown to stay under {}: ln E {:.2} of {:.2}",
                part.metric, part.margin, part.ln_e, promotion.bound
            )
        }
    };
    Some(Blocker::new(BlockerCode::NotShown, message))
}

fn harm_reason(evidence: &Evidence) -> String {
    if let Some(breaker) = &evidence.harm.breaker {
        let (failed, requests) = breaker.canary;
        return format!(
            "{failed} of {requests} canary requests at {} failed in 5 s, and as many before",
            breaker.stage
        );
    }
    let leading = evidence.harm.leading.as_ref().map_or_else(String::new, |leading| {
        let slice = leading.slice.as_ref().map_or_else(String::new, |s| format!(" of {s}"));
        format!(", most by {} at {}{slice}", leading.metric, leading.stage)
    });
    format!(
        "the canary is worse than the baseline: ln E {:.2} of {:.2}{leading}",
        evidence.harm.ln_e, evidence.harm.bound
    )
}

/// What evidence makes of a rollout.
pub fn decide(mut state: State, evidence: &Evidence, now_ms: i64) -> (State, Vec<Action>) {
    let Some(step) = state.step() else { return (state, Vec::new()) };
    if evidence.shows_harm() {
        let reason = harm_reason(evidence);
        let decided =
            state.decision(Word::Rollback, reason.clone(), 0.0, Vec::new(), evidence, now_ms);
        state.enter(Phase::RolledBack, now_ms, &reason);
        let alert = Action::Alert(format!("canary rolled back: {reason}"));
        return (state, vec![Action::SetShare(0.0), decided, alert]);
    }
    let blockers = state.blockers(evidence, now_ms);
    if blockers.is_empty() {
        return advance(state, step, evidence, now_ms);
    }
    hold(state, blockers, evidence, now_ms)
}

fn advance(
    mut state: State,
    step: usize,
    evidence: &Evidence,
    now_ms: i64,
) -> (State, Vec<Action>) {
    let next = step + 1;
    let last = next >= state.plan.steps();
    let share = if last { 100.0 } else { state.plan.share(next) };
    let reason = format!(
        "shown not to be worse than the margins of {} %: ln E {:.2} of {:.2}",
        state.share(),
        evidence.promotion.ln_e,
        evidence.promotion.bound
    );
    let word = if last { Word::Complete } else { Word::Promote };
    let decided = state.decision(word, reason.clone(), share, Vec::new(), evidence, now_ms);
    let phase = if last { Phase::Complete } else { Phase::Step(next) };
    state.enter(phase, now_ms, &reason);
    let mut actions = vec![Action::SetShare(share), decided];
    if !last {
        actions.push(Action::BeginStep(next));
    }
    (state, actions)
}

fn hold(
    mut state: State,
    mut blockers: Vec<Blocker>,
    evidence: &Evidence,
    now_ms: i64,
) -> (State, Vec<Action>) {
    let mut actions = Vec::new();
    let stayed = u64::try_from(now_ms.saturating_sub(state.since_ms) / 1_000).unwrap_or(0);
    if stayed >= state.plan.timeout_s && !state.timed_out {
        state.timed_out = true;
        state.reported = None;
        let sentences = sentences(&blockers);
        actions.push(Action::Alert(format!("canary held for {stayed} s: {sentences}")));
        blockers = state.blockers(evidence, now_ms);
    }
    let word = if evidence.undecidable.is_empty() { Word::Hold } else { Word::InsufficientData };
    let code = blockers[0].code;
    let due = match state.reported {
        None => true,
        Some((last, why, at)) => {
            last != word || (why != code && now_ms.saturating_sub(at) >= REPORT_MILLIS_MIN)
        }
    };
    if due {
        state.reported = Some((word, code, now_ms));
        let share = state.share();
        let reason = sentences(&blockers);
        actions.push(state.decision(word, reason, share, blockers, evidence, now_ms));
    }
    (state, actions)
}

/// What a person's command makes of a rollout. Kill is obeyed wherever it stands.
///
/// # Errors
/// [`Refused`]: the state is as it was.
pub fn command(
    state: &State,
    command: Command,
    evidence: Option<&Evidence>,
    now_ms: i64,
) -> Result<(State, Vec<Action>), Refused> {
    let mut next = state.clone();
    match command {
        Command::Kill(reason) => {
            next.enter(Phase::Killed, now_ms, &reason);
            let alert = Action::Alert(format!("canary killed: {reason}"));
            Ok((next, vec![Action::SetShare(0.0), alert]))
        }
        Command::Release if state.phase == Phase::Killed => {
            next.enter(Phase::Idle, now_ms, "released");
            Ok((next, Vec::new()))
        }
        Command::Release => Err(Refused::Phase("the kill switch is not on")),
        Command::Abort(reason) => match state.phase {
            Phase::Step(_) => {
                next.enter(Phase::Aborted, now_ms, &reason);
                Ok((next, vec![Action::SetShare(0.0)]))
            }
            _ => Err(Refused::Phase(NO_ROLLOUT)),
        },
        Command::TakeBack(reason) => match state.phase {
            Phase::Step(_) => {
                next.enter(Phase::RolledBack, now_ms, &reason);
                let alert = Action::Alert(format!("canary rolled back: {reason}"));
                Ok((next, vec![Action::SetShare(0.0), alert]))
            }
            _ => Err(Refused::Phase(NO_ROLLOUT)),
        },
        Command::Start(plan) => match state.phase {
            Phase::Killed => Err(Refused::Phase("the kill switch is on: release it first")),
            Phase::Step(_) => Err(Refused::Phase("a rollout is under way: abort it first")),
            Phase::Idle | Phase::Complete | Phase::Aborted | Phase::RolledBack => {
                next.plan = *plan;
                next.enter(Phase::Step(0), now_ms, "started");
                let share = next.share();
                Ok((next, vec![Action::SetShare(share), Action::BeginStep(0)]))
            }
        },
        Command::Progress => progress(next, evidence, now_ms),
    }
}

fn progress(
    state: State,
    evidence: Option<&Evidence>,
    now_ms: i64,
) -> Result<(State, Vec<Action>), Refused> {
    let Some(step) = state.step() else {
        return Err(Refused::Phase(NO_ROLLOUT));
    };
    let Some(evidence) = evidence else {
        let message = "nothing has been compared since the aggregator started";
        return Err(Refused::Blocked(vec![Blocker::new(BlockerCode::NoCanary, message)]));
    };
    let mut blockers = state.blockers(evidence, now_ms);
    // A person may end the wait that only a person can end.
    blockers.retain(|blocker| blocker.code != BlockerCode::TimedOut);
    if blockers.is_empty() {
        Ok(advance(state, step, evidence, now_ms))
    } else {
        Err(Refused::Blocked(blockers))
    }
}
