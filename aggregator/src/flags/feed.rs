//! What is measured of flags while they are on, slot by slot, and what that leads to.
//!
//! The flags under test act on stage C, so each that is on is held against stage C as it was measured
//! in the last settled slot, over all slices and arms: mean latency (a mean of all its samples, no
//! percentile), the share of requests that failed, and the mean of the nodes' gauge `quality_score`.
//! What nobody measured moves nothing. A flag that is taken back acts first and is recorded in the
//! same breath.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lens_flags::{GUARDED, Rollback, Sample};
use lens_hist::Counts;
use lens_model::{Flag, Nanos, Slice, Stage, UnixNanos};
use lens_service::shutdown::Shutdown;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::audit::{AuditError, Decision, Entry};
use crate::state::State;
use crate::window::{Selection, Span, Windows};

/// The gauge by which nodes report quality, 0 to 1.
const QUALITY_GAUGE: &str = "quality_score";

/// Age past which a gauge says nothing of now.
const GAUGE_AGE_MAX: Nanos = Nanos::from_secs(60);

/// Slots after its end at which a slot is taken as whole, as for verdicts.
const SETTLED_SLOTS: u64 = 2;

/// Feeds flags what was measured, a slot at a time, until shutdown.
pub async fn feed(state: Arc<State>, shutdown: Shutdown) {
    let base = state.windows.read().base();
    let mut turns = interval(Duration::from(base));
    turns.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut last = 0;
    loop {
        tokio::select! { biased; () = shutdown.wait() => return, _ = turns.tick() => {} }
        let now = state.now();
        let slot = (now.0 / base.0).saturating_sub(SETTLED_SLOTS + 1);
        // A clock that went back gives no slot twice.
        if slot <= last {
            continue;
        }
        last = slot;
        let control = state.flags.status().control;
        let on: Vec<Flag> =
            GUARDED.into_iter().filter(|flag| control.is_enabled(*flag, None, now)).collect();
        if on.is_empty() {
            continue;
        }
        let (from, own) = (UnixNanos(slot * base.0), Arc::clone(&state));
        let span = Span { from, to: UnixNanos(from.0 + base.0) };
        // Sums walk every series of the stage: off the threads that serve the network.
        let measured = state.env.blocking(move || sample(&own.windows.read(), span, now)).await;
        let Ok(Some(sample)) = measured else { continue };
        for flag in on {
            match state.flags.record(flag, sample).await {
                Ok(None) => {}
                Ok(Some(rollback)) => told(&state, &rollback).await,
                Err(error) => warn!(flag = flag.path(), %error, "flag not taken back"),
            }
        }
    }
}

/// Stage C as it was measured in a slot; `None` when nothing was.
fn sample(windows: &Windows, span: Span, now: UnixNanos) -> Option<Sample> {
    let mut counts = Counts::new();
    windows.sum(&Selection { stage: Some(Stage::C), ..Selection::default() }, span, &mut counts);
    let total = counts.total();
    if total == 0 {
        return None;
    }
    let latency_ms = Some(counts.sum_nanos() as f64 / total as f64 / 1e6);
    Some(Sample { latency_ms, error_rate: errors(windows, span), quality: quality(windows, now) })
}

fn errors(windows: &Windows, span: Span) -> Option<f64> {
    let (mut ok, mut failed) = (0, 0);
    let kinds: BTreeSet<(Slice, _)> = windows.requests_total().into_keys().collect();
    for (slice, arm) in kinds {
        let found = windows.requests(&slice, arm, span);
        (ok, failed) = (ok + found.ok, failed + found.error);
    }
    (ok + failed > 0).then(|| failed as f64 / (ok + failed) as f64)
}

fn quality(windows: &Windows, now: UnixNanos) -> Option<f64> {
    let fresh = windows
        .gauges()
        .filter(|(_, name, _, at)| *name == QUALITY_GAUGE && now.since(*at) <= GAUGE_AGE_MAX);
    let (sum, n) = fresh.fold((0.0, 0_u32), |(sum, n), (_, _, value, _)| (sum + value, n + 1));
    (n > 0).then(|| sum / f64::from(n))
}

/// Records and tells that a flag was taken back.
async fn told(state: &State, rollback: &Rollback) {
    let message = format!("{} was taken back: {}", rollback.flag, rollback.reason);
    warn!(message);
    state.tell("flag", rollback.flag.as_str(), message);
    let entry = Entry {
        principal: "lens-aggregator".into(),
        credential: String::new(),
        role: "automatic".into(),
        verb: "flag.rollback".into(),
        target: rollback.flag.clone(),
        arguments: serde_json::to_vec(rollback).unwrap_or_default(),
        decision: Decision::Allowed,
    };
    match state.security.audit.record(entry).await {
        Ok(_) | Err(AuditError::Off) => {}
        Err(error) => warn!(%error, "a flag that was taken back is not recorded"),
    }
}

#[cfg(test)]
mod tests {
    use lens_hist::{Sparse, block};
    use lens_model::{AgentName, Arm, InstanceName, SeriesKey};
    use lens_service::env::Env;

    use super::*;
    use crate::window::Host;

    const NOW: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

    fn windows() -> Windows {
        Windows::new(Nanos::from_secs(5), Nanos::from_secs(60))
    }

    #[test]
    fn what_nobody_measured_is_no_sample() {
        assert_eq!(sample(&windows(), Span::ALL, NOW), None);
    }

    #[tokio::test]
    async fn a_measured_flag_is_told_about_only_when_that_changes_what_holds() {
        let flags = crate::flags::Flags::in_memory(&Env::system());
        let path = lens_flags::Path::Flag(Flag::OptimizedHnsw);
        let on = lens_flags::Value::Bool(true);
        let told = flags.set_override(path, on, "r", None, "ops").await.unwrap();
        let quiet = Sample { latency_ms: Some(5.0), ..Sample::default() };
        assert_eq!(flags.record(Flag::OptimizedHnsw, quiet).await.unwrap(), None);
        assert_eq!(flags.status().generation, told.generation);
        assert_eq!(flags.status().control.measured()[&path].samples, 1);
        let slow = Sample { latency_ms: Some(500.0), ..Sample::default() };
        let rollback = flags.record(Flag::OptimizedHnsw, slow).await.unwrap().unwrap();
        assert!(rollback.reason.contains("latency"), "{}", rollback.reason);
        assert_eq!(flags.status().generation, told.generation + 1);
        assert!(!flags.status().document.flag(Flag::OptimizedHnsw));
        assert_eq!(flags.status().control.measured()[&path].samples, 2);
    }

    #[test]
    fn a_sample_is_the_stages_mean_and_nothing_of_other_stages() {
        let mut windows = windows();
        let host = Host {
            agent: AgentName::new("a1").unwrap(),
            instance: InstanceName::new("n1").unwrap(),
        };
        let host = windows.host(&host).unwrap();
        for (stage, nanos) in [(Stage::A, 1_000_000), (Stage::C, 20_000_000)] {
            let slice = Slice::new("backend", "rust", "large").unwrap();
            let key = SeriesKey { slice, stage, arm: Arm::Baseline };
            let handle = windows.handle(&key, &host).unwrap();
            let mut bytes = Vec::new();
            block::encode(&[nanos; 10].into_iter().collect::<Sparse>(), &mut bytes);
            let (block, _) = block::BlockRef::parse(&bytes).unwrap();
            let merged = windows.merge(handle, NOW, &block, NOW).unwrap();
            assert_eq!(merged, crate::window::Merged::InTime);
        }
        let found = sample(&windows, Span::ALL, NOW).unwrap();
        let mean = found.latency_ms.unwrap();
        assert!((mean - 20.0).abs() < 0.2, "{mean}");
        assert_eq!((found.error_rate, found.quality), (None, None));
    }
}
