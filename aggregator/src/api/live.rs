//! One snapshot for many readers, and the stream of them.
//!
//! Taking a snapshot costs time in proportion to the series held. A held one is given again while
//! it is younger than a few times what it cost, which bounds all snapshots together to a fifth of
//! one core. The stream takes one a second for all subscribers, and none without subscribers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lens_model::limits::EVENT_SUBSCRIBERS_MAX;
use parking_lot::Mutex;
use tokio::sync::broadcast;

use crate::snapshot::Snapshot;
use crate::state::State;

/// How many times its own cost a snapshot stays good.
const REUSE: u32 = 4;

/// Time between two snapshots of the stream.
const STREAM_PERIOD: Duration = Duration::from_secs(1);

/// Snapshots between two heartbeats of the stream: 15 s.
const HEARTBEAT_TICKS: u32 = 15;

/// Stream frames a slow subscriber may fall behind before it skips some.
const STREAM_BACKLOG: usize = 8;

/// What the stream's own clock sends to every subscriber.
#[derive(Clone, Debug)]
pub(super) enum Beat {
    /// A snapshot as JSON.
    Snapshot(Arc<str>),
    /// A sign of life.
    Heartbeat,
    /// The aggregator is shutting down.
    End,
}

#[derive(Debug)]
struct Held {
    snapshot: Arc<Snapshot>,
    taken: Instant,
    cost: Duration,
}

/// The shared snapshot and its stream.
#[derive(Debug)]
pub(super) struct Live {
    state: Arc<State>,
    held: Mutex<Option<Held>>,
    beats: broadcast::Sender<Beat>,
    ticking: Mutex<bool>,
    subscribers: AtomicUsize,
}

/// A place among the subscribers, given back on drop.
#[derive(Debug)]
pub(super) struct Seat(Arc<Live>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.subscribers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Live {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self {
            state,
            held: Mutex::new(None),
            beats: broadcast::Sender::new(STREAM_BACKLOG),
            ticking: Mutex::new(false),
            subscribers: AtomicUsize::new(0),
        }
    }

    /// The state now, or as of a moment ago when it is costly to take. Blocks; not for async code.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let mut held = self.held.lock();
        if let Some(held) = held.as_ref()
            && held.taken.elapsed() < held.cost.saturating_mul(REUSE)
        {
            return Arc::clone(&held.snapshot);
        }
        let begun = Instant::now();
        let snapshot = Arc::new(Snapshot::take(&self.state, self.state.now()));
        let (taken, cost) = (Instant::now(), begun.elapsed());
        *held = Some(Held { snapshot: Arc::clone(&snapshot), taken, cost });
        snapshot
    }

    /// A place among the subscribers and its stream; `None` when all are taken.
    pub(super) fn subscribe(self: &Arc<Self>) -> Option<(Seat, broadcast::Receiver<Beat>)> {
        let taken = self.subscribers.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(self));
        if taken >= EVENT_SUBSCRIBERS_MAX {
            return None;
        }
        let beats = self.beats.subscribe();
        let mut ticking = self.ticking.lock();
        if !*ticking {
            *ticking = true;
            tokio::spawn(Arc::clone(self).tick());
        }
        Some((seat, beats))
    }

    /// How many subscribers there are.
    pub(super) fn subscribers(&self) -> usize {
        self.subscribers.load(Ordering::Relaxed)
    }

    async fn tick(self: Arc<Self>) {
        let mut period = tokio::time::interval(STREAM_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for tick in 1_u32.. {
            period.tick().await;
            let beat = if self.state.draining.load(Ordering::Relaxed) {
                Beat::End
            } else {
                let live = Arc::clone(&self);
                let json = move || serde_json::to_string(&*live.snapshot());
                match tokio::task::spawn_blocking(json).await {
                    Ok(Ok(json)) => Beat::Snapshot(json.into()),
                    _ => Beat::Heartbeat,
                }
            };
            if tick.is_multiple_of(HEARTBEAT_TICKS) {
                drop(self.beats.send(Beat::Heartbeat));
            }
            let sent = self.beats.send(beat);
            // A subscriber that comes now either is counted or finds `ticking` unset.
            let mut ticking = self.ticking.lock();
            if sent.is_err() && self.beats.receiver_count() == 0 {
                *ticking = false;
                return;
            }
        }
    }
}
