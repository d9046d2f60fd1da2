//! A failing world with as few faults as still make it fail.

use super::plan::Plan;
use super::run::{Options, Outcome, run};

/// Takes faults away one at a time while the world still fails. Gives the smaller plan, how it
/// fails, and how many worlds that took.
///
/// # Errors
/// As [`run`].
pub fn shrink(plan: &Plan, options: &Options, failed: Outcome) -> Result<Shrunk, String> {
    let mut shrunk = Shrunk { plan: plan.clone(), outcome: failed, worlds: 0 };
    let mut at = 0;
    // From the last: what comes after the fault that matters goes first.
    while at < shrunk.plan.faults.len() {
        let mut smaller = shrunk.plan.clone();
        smaller.faults.remove(smaller.faults.len() - 1 - at);
        if !shrunk.try_instead(smaller, options)? {
            at += 1;
        }
    }
    for simpler in [
        Plan { replaced: None, ..shrunk.plan.clone() },
        Plan { stalls_per_mille: 0, replaced: None, ..shrunk.plan.clone() },
    ] {
        shrunk.try_instead(simpler, options)?;
    }
    Ok(shrunk)
}

/// The outcome of shrinking.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// What is left of the plan.
    pub plan: Plan,
    /// How it fails.
    pub outcome: Outcome,
    /// Worlds lived to find out.
    pub worlds: u64,
}

impl Shrunk {
    fn try_instead(&mut self, plan: Plan, options: &Options) -> Result<bool, String> {
        self.worlds += 1;
        let outcome = run(&plan, &options.afresh())?;
        let fails = !outcome.wrong.is_empty();
        if fails {
            (self.plan, self.outcome) = (plan, outcome);
        }
        Ok(fails)
    }

    /// The faults left, by their place in the whole plan of the seed.
    pub fn kept(&self, whole: &Plan) -> Vec<usize> {
        let mut left = self.plan.faults.iter().peekable();
        let mut kept = Vec::new();
        for (at, fault) in whole.faults.iter().enumerate() {
            if left.peek() == Some(&fault) {
                kept.push(at);
                left.next();
            }
        }
        kept
    }
}
