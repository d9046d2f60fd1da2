//! What is known of rollouts beside their evidence: which one is under way, where it stands, what
//! was taken back, who agreed to what. Kept whole with every change.

use std::collections::VecDeque;

use lens_model::UnixNanos;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::controller::{Phase, State};
use super::levers::Routed;
use crate::judge::slot::Slot;

/// Retreats kept, the newest first.
pub const RETREATS_MAX: usize = 50;

/// People whose agreement to a release is kept.
const APPROVALS_MAX: usize = 16;

/// How long an agreement to a release holds, nanoseconds: 15 minutes.
const APPROVAL_NANOS: u64 = 900_000_000_000;

/// People who must agree to a release.
pub const APPROVALS_MIN: usize = 2;

/// One rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its number, from 1.
    pub number: u64,
    /// The version under test.
    pub version: String,
    /// What chooses its users.
    pub salt: String,
    /// Who began it.
    pub by: String,
    /// The first slot that is judged.
    pub began: i64,
    /// Why a replay of its windows may decide otherwise from here on; `None` while it may not.
    pub aside: Option<String>,
    /// Bytes of its windows.
    pub taped: u64,
    /// Whether its first windows were let go.
    pub cut: bool,
}

impl Rollout {
    /// The first slot that is judged.
    pub const fn first(&self) -> Slot {
        Slot(self.began)
    }
}

/// Something that was taken back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retreat {
    /// `canary_kill_switch`, `canary_rollback` or `canary_abort`.
    pub flag: String,
    /// Why, in a sentence.
    pub reason: String,
    /// When.
    pub at: UnixNanos,
    /// The version; `None` when there was none.
    pub version: Option<String>,
    /// The step's share before, percent.
    pub share_before: f64,
    /// The decision it rests on; `None` when a person's word was enough.
    pub decision: Option<u64>,
}

/// One person's agreement to a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    /// Who.
    #[schema(example = "ann")]
    pub by: String,
    /// When, Unix nanoseconds.
    #[schema(value_type = u64)]
    pub at: UnixNanos,
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Book {
    /// Where the rollout stands.
    pub state: State,
    /// The rollout under way, or the last.
    pub rollout: Option<Rollout>,
    /// What was taken back, the newest first.
    pub retreats: VecDeque<Retreat>,
    /// Rollbacks by evidence, ever.
    pub rollbacks: u64,
    /// Kills, ever.
    pub kills: u64,
    /// Agreements to release the kill switch.
    pub approvals: Vec<Approval>,
    /// Rollouts begun, ever.
    pub rollouts: u64,
    /// Decisions made, ever: the number of the last.
    pub decisions: u64,
    /// Windows kept of rollouts before: their numbers and bytes, the oldest first.
    pub tapes: VecDeque<(u64, u64)>,
}

impl Book {
    /// What is to be routed; `None` before the first rollout.
    pub fn wanted(&self) -> Option<Routed> {
        let rollout = self.rollout.as_ref()?;
        Some(Routed::new(&rollout.version, &rollout.salt, self.state.share()))
    }

    /// The share of the step as the plan names it, what is held back included, percent.
    pub fn nominal(&self) -> f64 {
        nominal(&self.state)
    }

    /// The step by name.
    pub fn stage(&self) -> &'static str {
        match self.state.phase {
            Phase::Step(step) if step + 1 >= self.state.plan.steps() => "full",
            Phase::Step(0) => "small",
            Phase::Step(_) => "medium",
            Phase::Complete => "full",
            Phase::Idle | Phase::Aborted | Phase::RolledBack | Phase::Killed => "unknown",
        }
    }

    /// Notes that something was taken back.
    pub fn retreat(&mut self, flag: &str, decision: Option<u64>, before: f64, at: UnixNanos) {
        let version = self.rollout.as_ref().map(|rollout| rollout.version.clone());
        self.retreats.push_front(Retreat {
            flag: flag.into(),
            reason: self.state.reason.clone(),
            at,
            version,
            share_before: before,
            decision,
        });
        self.retreats.truncate(RETREATS_MAX);
    }

    /// Adds people's agreement to a release and gives who agrees now.
    pub fn approve(&mut self, people: &[String], now: UnixNanos) -> Vec<String> {
        let holds = |approval: &Approval| now.since(approval.at).0 < APPROVAL_NANOS;
        self.approvals.retain(holds);
        for by in people {
            self.approvals.retain(|approval| approval.by != *by);
            if self.approvals.len() < APPROVALS_MAX {
                self.approvals.push(Approval { by: by.clone(), at: now });
            }
        }
        self.approvals.iter().map(|approval| approval.by.clone()).collect()
    }
}

/// The share of the step as the plan names it, percent.
pub fn nominal(state: &State) -> f64 {
    match state.phase {
        Phase::Step(step) => state.plan.shares.get(step).copied().unwrap_or(0.0),
        Phase::Complete => 100.0,
        Phase::Idle | Phase::Aborted | Phase::RolledBack | Phase::Killed => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agreement_is_one_persons_once_and_ends_after_a_quarter_of_an_hour() {
        let mut book = Book::default();
        let at = |secs: u64| UnixNanos(secs * 1_000_000_000);
        let ann = ["ann".to_owned()];
        assert_eq!(book.approve(&ann, at(0)), ["ann"]);
        assert_eq!(book.approve(&ann, at(600)), ["ann"], "again is not another");
        assert_eq!(book.approve(&["bob".to_owned()], at(1_499)), ["ann", "bob"]);
        assert_eq!(book.approve(&["bob".to_owned()], at(1_500)), ["bob"], "ann's ended");
    }

    #[test]
    fn retreats_are_kept_newest_first_and_no_more_than_there_may_be() {
        let mut book = Book::default();
        for at in 0..=RETREATS_MAX as u64 {
            book.retreat("canary_abort", None, 5.0, UnixNanos(at));
        }
        assert_eq!(book.retreats.len(), RETREATS_MAX);
        assert_eq!(book.retreats[0].at, UnixNanos(RETREATS_MAX as u64));
    }
}
