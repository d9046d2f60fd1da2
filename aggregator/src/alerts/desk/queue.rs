//! The queue of each sink: what is next, what became of it, and when it is tried again.

use std::collections::BTreeSet;

use lens_model::{Nanos, UnixNanos};

use super::{Batch, Desk, FAILURES_MIN, Inner, KeptThread, QUEUE_MAX, SETTLED_MAX, Shelf};
use crate::alerts::lifecycle::Transition;
use crate::alerts::notice::{Delivery, Notice, Progress, Route, notices};
use crate::alerts::sink::{Outcome, Thread};

/// First wait after a failure; it doubles.
const BACKOFF_FIRST: Nanos = Nanos::from_secs(1);

/// Longest wait of its own accord.
const BACKOFF_MAX: Nanos = Nanos::from_secs(60);

/// Shortest wait, so that a lucky draw is no busy loop.
const BACKOFF_MIN: Nanos = Nanos::from_millis(100);

/// What a sink is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Nothing waits.
    Idle,
    /// Something waits until this instant.
    At(UnixNanos),
    /// Send this.
    Send(Box<Delivery>),
}

impl Desk {
    /// What the sink is to do now. Deliveries go in order: nothing is over before it began.
    pub fn next(&self, sink: &str, now: UnixNanos) -> Next {
        let inner = self.inner.lock();
        let mut waiting = inner.deliveries.values().filter(|d| d.progress == Progress::Queued);
        match waiting.find(|delivery| delivery.sink == sink) {
            None => Next::Idle,
            Some(delivery) if delivery.due > now => Next::At(delivery.due),
            Some(delivery) => Next::Send(Box::new(delivery.clone())),
        }
    }

    /// The bot's message about the one alert of a notice.
    pub fn thread(&self, sink: &str, notice: &Notice) -> Option<Thread> {
        let [alert] = &notice.alerts[..] else { return None };
        self.inner.lock().threads.get(&(sink.into(), alert.key.to_string())).cloned()
    }

    /// Writes down what became of an attempt. `luck` draws the wait. Blocks on the disk.
    pub fn settle(&self, seq: u64, outcome: &Outcome, luck: u64, now: UnixNanos) {
        let mut inner = self.inner.lock();
        let retry_for = self.config.retry_for;
        let Some(mut delivery) = inner.deliveries.get(&seq).cloned() else { return };
        delivery.attempts += 1;
        let mut batch = Batch::default();
        match outcome {
            Outcome::Delivered { said, thread } => {
                delivery.settle(Progress::Delivered, said, now);
                if let (Some(thread), [alert]) = (thread, &delivery.notice.alerts[..]) {
                    let key = alert.key.to_string();
                    inner.keep_thread(&delivery.sink, key, thread.clone(), &mut batch);
                }
            }
            Outcome::Retry { said, .. } if now.since(delivery.queued) >= retry_for => {
                let tries = delivery.attempts;
                let said = format!("given up after {tries} attempts: {said}");
                delivery.settle(Progress::Dead, &said, now);
            }
            Outcome::Retry { after, said } => {
                delivery.due = now.plus(wait(delivery.attempts, *after, luck));
                delivery.said = Some(said.clone());
            }
            Outcome::Refused { said } => delivery.settle(Progress::Dead, said, now),
        }
        inner.fared(&delivery.sink, outcome, now);
        let health = inner.sinks.entry(delivery.sink.clone()).or_default();
        match delivery.progress {
            Progress::Delivered => health.delivered += 1,
            Progress::Queued => health.retried += 1,
            Progress::Dead => health.dead += 1,
        }
        batch.put(Shelf::Deliveries, seq.to_be_bytes(), &delivery);
        inner.deliveries.insert(seq, delivery);
        inner.prune(&mut batch);
        self.commit(&mut inner, &batch, now);
    }

    /// Notes how an attempt outside the queue went: a test, a resending.
    pub fn noted(&self, sink: &str, outcome: &Outcome, now: UnixNanos) {
        self.inner.lock().fared(sink, outcome, now);
    }
}

impl Delivery {
    pub(super) fn settle(&mut self, progress: Progress, said: &str, now: UnixNanos) {
        self.progress = progress;
        self.settled = Some(now);
        self.said = Some(said.to_owned());
    }
}

impl Inner {
    /// Queues what the transitions tell and gives the sinks that have something to send.
    pub(super) fn enqueue(
        &mut self,
        transitions: &[Transition],
        routes: &[Route],
        now: UnixNanos,
        batch: &mut Batch,
    ) -> BTreeSet<String> {
        let mut rung = BTreeSet::new();
        for (sink, notice) in notices(transitions, routes) {
            self.make_room(&sink, now, batch);
            self.totals.seq += 1;
            let seq = self.totals.seq;
            let (progress, attempts, settled, said) = (Progress::Queued, 0, None, None);
            let name = sink.clone();
            rung.insert(name.clone());
            let delivery = Delivery {
                seq,
                sink,
                notice,
                progress,
                attempts,
                queued: now,
                due: now,
                settled,
                said,
            };
            batch.put(Shelf::Deliveries, seq.to_be_bytes(), &delivery);
            self.deliveries.insert(seq, delivery);
        }
        self.prune(batch);
        rung
    }

    /// Pushes out the oldest of a full queue: what happened last says most.
    fn make_room(&mut self, sink: &str, now: UnixNanos, batch: &mut Batch) {
        let waiting = |d: &&mut Delivery| d.progress == Progress::Queued && d.sink == sink;
        let count = self.deliveries.values_mut().filter(waiting).count();
        if count < QUEUE_MAX {
            return;
        }
        if let Some(oldest) = self.deliveries.values_mut().find(waiting) {
            let said = format!("pushed out: {QUEUE_MAX} wait already");
            oldest.settle(Progress::Dead, &said, now);
            batch.put(Shelf::Deliveries, oldest.seq.to_be_bytes(), oldest);
            if let Some(health) = self.sinks.get_mut(sink) {
                health.dead += 1;
            }
        }
    }

    fn prune(&mut self, batch: &mut Batch) {
        let settled = |d: &&Delivery| d.progress != Progress::Queued;
        let count = self.deliveries.values().filter(settled).count();
        let old: Vec<u64> = self
            .deliveries
            .values()
            .filter(settled)
            .take(count.saturating_sub(SETTLED_MAX))
            .map(|delivery| delivery.seq)
            .collect();
        for seq in old {
            self.deliveries.remove(&seq);
            batch.forget(Shelf::Deliveries, seq.to_be_bytes());
        }
    }

    fn keep_thread(&mut self, sink: &str, key: String, thread: Thread, batch: &mut Batch) {
        let kept = (sink.to_owned(), key.clone());
        // Replies go to the first message, which is the one that is changed.
        if !self.book.alerts.values().any(|alert| alert.key.to_string() == key)
            || self.threads.contains_key(&kept)
        {
            return;
        }
        let value = KeptThread { sink: sink.into(), key: key.clone(), thread: thread.clone() };
        batch.put(Shelf::Threads, format!("{sink}\n{key}"), &value);
        self.threads.insert(kept, thread);
    }

    fn fared(&mut self, sink: &str, outcome: &Outcome, now: UnixNanos) {
        let health = self.sinks.entry(sink.into()).or_default();
        let said = match outcome {
            Outcome::Delivered { said, .. } => {
                (health.failures, health.failing_since, health.refused) = (0, None, false);
                said
            }
            Outcome::Retry { said, .. } => {
                health.failures = health.failures.saturating_add(1);
                said
            }
            Outcome::Refused { said } => {
                health.failures = health.failures.max(FAILURES_MIN);
                health.refused = true;
                said
            }
        };
        if health.failures > 0 {
            health.failing_since.get_or_insert(now);
        }
        health.said = Some(said.clone());
    }
}

/// How long to wait after so many attempts: what the receiver asked for, or a random part of a bound
/// that doubles, so that many senders do not come back at once.
pub(crate) fn wait(attempts: u32, after: Option<Nanos>, luck: u64) -> Nanos {
    let doublings = attempts.saturating_sub(1).min(6);
    let bound = (BACKOFF_FIRST.0 << doublings).min(BACKOFF_MAX.0);
    match after {
        // A little later than asked, each sender at its own time.
        Some(after) => Nanos(after.0.saturating_add(luck % BACKOFF_FIRST.0.min(after.0 / 4 + 1))),
        None => Nanos((luck % (bound + 1)).max(BACKOFF_MIN.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_random_bounded_and_never_shorter_than_asked() {
        for attempts in [1, 2, 5, 40, u32::MAX] {
            for luck in [0, 1, 12_345_678_901, u64::MAX] {
                let own = wait(attempts, None, luck);
                assert!((BACKOFF_MIN..=BACKOFF_MAX).contains(&own), "{attempts} {luck}: {own}");
                let asked = Nanos::from_secs(2);
                let obeyed = wait(attempts, Some(asked), luck);
                assert!(obeyed >= asked && obeyed < Nanos::from_secs(3), "{obeyed}");
            }
        }
        assert_eq!(wait(1, None, BACKOFF_FIRST.0), BACKOFF_FIRST);
        assert!(wait(4, None, 7_999_999_999) > Nanos::from_secs(7), "the bound doubles");
        assert_eq!(wait(1, Some(Nanos(0)), 5), Nanos(0));
    }
}
