//! What stands in the way of a promotion beside the comparison: quality, open violations, levers that
//! do not stand as they should, a disk that refuses.

use lens_model::Arm;

use super::{Inner, Live};
use crate::canary::gates;
use crate::judge::Verdict;
use crate::judge::canary::{Blocker, BlockerCode};
use crate::state;

/// Violations named one by one.
const NAMED_MAX: usize = 8;

/// Everything found now.
pub(super) fn blockers(shared: &state::State, live: &Live, inner: &Inner) -> Vec<Blocker> {
    let now = shared.now();
    let mut found = gates::blockers(&shared.windows.read(), &live.config.gates, now);
    found.extend(violations(shared));
    found.extend(shared.guards.blockers());
    let stand = live.stand();
    let wanted = inner.book.wanted();
    if stand.routed != wanted || stand.killed {
        let why = inner.stuck.as_deref().unwrap_or("it is about to be");
        let message = format!("the share of this step is not in force: {why}");
        found.push(Blocker::new(BlockerCode::ShareNotInForce, message));
    }
    if let Some(trouble) = &inner.trouble {
        let message = format!("what is decided cannot be written down: {trouble}");
        found.push(Blocker::new(BlockerCode::NotDurable, message));
    }
    found
}

/// Rules the canary is held to break.
fn violations(shared: &state::State) -> Vec<Blocker> {
    let standing = shared.judge.read();
    let mut found = Vec::new();
    let mut say = |message: String| {
        if found.len() < NAMED_MAX {
            found.push(Blocker::new(BlockerCode::OpenViolation, message));
        }
    };
    for (key, stream) in standing.streams().filter(|(key, _)| key.arm == Arm::Canary) {
        let broken = |watched| standing.verdict(stream, watched) == Verdict::Violation;
        if broken(stream.tail()) {
            say(format!("{key} breaks the rule on its tail"));
        }
        for limit in stream.limits().iter().filter(|limit| broken(&limit.watched)) {
            say(format!("{key} breaks its limit on {}", limit.name));
        }
    }
    found
}
