//! The canary controller over recorded windows: the same comparison and state machine as live, on
//! the windows' own time.
//!
//! Arms and shares are those of the data: promotions are told and not carried out. The rollout
//! begins with the first slot from 0 on; what lies before 0 is history. Hosts that differ are told
//! as hosts.

use lens_model::Arm;
use serde_json::{Map, Value, json};

use super::controller::{Action, Command, Phase, State, command, decide};
use super::decision::Word;
use crate::judge::canary::{Comparison, Evidence, Plan, PlanError};
use crate::judge::decision::{Decision, Kind, SlotJudge};
use crate::judge::slot::{Slot, SlotWindows};

/// A rollout replayed.
#[derive(Clone, Debug)]
pub struct CanaryJudge {
    comparison: Comparison,
    state: State,
    outcome: Option<(Word, i64)>,
    alerts: u64,
    /// Slow hosts told so far.
    slow_told: usize,
    /// Hosts told to carry the canary's harm alone.
    carrier_told: Vec<Box<str>>,
}

impl CanaryJudge {
    /// A rollout by `plan`.
    ///
    /// # Errors
    /// [`PlanError`] for a plan out of range.
    pub fn new(plan: Plan) -> Result<Self, PlanError> {
        let (comparison, state) = (Comparison::new(plan)?, State::default());
        let (slow_told, carrier_told) = (0, Vec::new());
        Ok(Self { comparison, state, outcome: None, alerts: 0, slow_told, carrier_told })
    }

    fn begin(&mut self, slot: Slot) {
        self.comparison.begin(slot);
        let start = Command::Start(Box::new(self.comparison.plan().clone()));
        if let Ok((state, _)) = command(&self.state, start, None, slot.start_millis()) {
            self.state = state;
        }
    }

    /// Where the rollout stands.
    pub const fn phase(&self) -> Phase {
        self.state.phase
    }

    /// What was last decided and when.
    pub const fn outcome(&self) -> Option<(Word, i64)> {
        self.outcome
    }

    /// What is known now.
    pub fn evidence(&self) -> Evidence {
        self.comparison.evidence()
    }

    fn tell_hosts(&mut self, evidence: &Evidence, decisions: &mut Vec<Decision>) {
        for slow in &evidence.slow_hosts[self.slow_told.min(evidence.slow_hosts.len())..] {
            decisions.push(Decision {
                t_ms: evidence.t_ms,
                kind: Kind::Host,
                slice: None,
                stage: Some(slow.stage),
                arm: Some(slow.arm),
                decision: "slow",
                evidence: json!(slow),
            });
        }
        self.slow_told = evidence.slow_hosts.len();
        let Some(left) = &evidence.harm.without_host else { return };
        if !evidence.harm_rests_on_one_host() || self.carrier_told == left.hosts {
            return;
        }
        self.carrier_told.clone_from(&left.hosts);
        decisions.push(Decision {
            t_ms: evidence.t_ms,
            kind: Kind::Host,
            slice: None,
            stage: evidence.harm.leading.as_ref().map(|leading| leading.stage),
            arm: Some(Arm::Canary),
            decision: "carries_harm",
            evidence: json!({
                "host": left.hosts.join(", "),
                "hosts": left.hosts,
                "ln_e": evidence.harm.ln_e,
                "ln_e_without": left.ln_e,
                "bound_without": left.bound,
                "leading": evidence.harm.leading,
            }),
        });
    }

    fn tell(&mut self, action: Action, decisions: &mut Vec<Decision>) {
        match action {
            Action::BeginStep(step) => self.comparison.begin_step(step),
            Action::Alert(_) => self.alerts += 1,
            Action::SetShare(_) => {}
            Action::Decided(decided) => {
                self.outcome = Some((decided.word, decided.t_ms));
                let about = match decided.word {
                    Word::Rollback => decided.evidence.harm.leading.as_ref(),
                    _ => None,
                };
                decisions.push(Decision {
                    t_ms: decided.t_ms,
                    kind: Kind::Canary,
                    slice: about.and_then(|leading| leading.slice.clone()),
                    stage: about.map(|leading| leading.stage),
                    arm: Some(Arm::Canary),
                    decision: decided.word.as_str(),
                    evidence: json!({
                        "reason": decided.reason,
                        "rule": decided.rule,
                        "share": decided.share,
                        "share_next": decided.share_next,
                        "blockers": decided.blockers,
                        "evidence": decided.evidence,
                    }),
                });
            }
        }
    }
}

impl SlotJudge for CanaryJudge {
    fn slot(&mut self, windows: &SlotWindows, decisions: &mut Vec<Decision>) {
        if self.state.phase == Phase::Idle && windows.slot >= Slot(0) {
            self.begin(windows.slot);
        }
        // The driver gives each slot once and in order; one it repeats is not judged again.
        if self.comparison.observe(windows, &[]).is_err() {
            return;
        }
        if !matches!(self.state.phase, Phase::Step(_)) {
            return;
        }
        let evidence = self.comparison.evidence();
        self.tell_hosts(&evidence, decisions);
        let (state, actions) = decide(self.state.clone(), &evidence, evidence.t_ms);
        self.state = state;
        actions.into_iter().for_each(|action| self.tell(action, decisions));
    }

    fn summarise(&self, summary: &mut Map<String, Value>) {
        let (word, t_ms) = match self.outcome {
            Some((word, t_ms)) => (word.as_str(), Some(t_ms)),
            None => (Word::InsufficientData.as_str(), None),
        };
        summary.insert("canary".to_owned(), json!({ "outcome": word, "t_ms": t_ms }));
    }
}
