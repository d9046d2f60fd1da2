//! The rollout as metrics: where it stands, what is routed, how often it was taken back.
//!
//! Present from the start, so that a rate over a rollback finds the count before it. Counts are those
//! of the kept record: a restart does not set them back.

use super::family::Families;
use crate::canary::controller::Phase;
use crate::state::State;

/// Every phase by name, as `GET /canary/status` has it.
const PHASES: [&str; 6] = ["idle", "step", "complete", "aborted", "rolled_back", "killed"];

/// Writes the rollout down.
pub(super) fn canary(text: &mut Families, state: &State) {
    let stand = state.canary.stand();
    let (phase, rollbacks, kills, decisions) =
        state.canary.look(|book, _| (book.state.phase, book.rollbacks, book.kills, book.decisions));
    let routed = stand.routed.as_ref().filter(|_| stand.progressive && !stand.killed);
    let help = "Share of users that nodes are told to give the canary, percent.";
    text.family("lens_canary_share_percent", "gauge", help);
    text.sample("lens_canary_share_percent", &[], routed.map_or(0.0, |routed| routed.share));
    let help = "1 for the phase in which the rollout is, 0 for the others.";
    text.family("lens_canary_phase", "gauge", help);
    let phase = if stand.killed { Phase::Killed } else { phase };
    for one in PHASES {
        text.sample("lens_canary_phase", &[("phase", one)], one == phase.as_str());
    }
    let help = "Generation of the flags that nodes are told.";
    text.family("lens_canary_generation", "gauge", help);
    text.sample("lens_canary_generation", &[], stand.generation);
    text.family("lens_canary_rollbacks", "counter", "Rollouts taken back, by reason.");
    for (reason, count) in [("evidence", rollbacks), ("kill_switch", kills)] {
        text.sample("lens_canary_rollbacks_total", &[("reason", reason)], count);
    }
    text.family("lens_canary_decisions", "counter", "Decisions made and kept.");
    text.sample("lens_canary_decisions_total", &[], decisions);
}
