//! Remote write at work: one task collects at the interval, one sends what waits, in order.

use std::sync::Arc;

use lens_model::Nanos;
use lens_service::env::Env;
use lens_service::shutdown::Shutdown;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use super::message::{Batch, batches};
use super::{Config, Queue, Tally};
use crate::alerts::desk::wait;
use crate::alerts::sink::{Answer, RETRY_AFTER_MAX, Request};
use crate::alerts::transport::Transport;
use crate::export::openmetrics::families;
use crate::snapshot::Snapshot;
use crate::state::State;

/// What an answer means for what was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It was taken.
    Taken,
    /// Not now; not before this has passed, if it said.
    Later(Option<Nanos>, String),
    /// The same would be refused again.
    Refused(String),
}

/// Collects and sends until told to stop.
pub async fn run(
    state: Arc<State>,
    config: Config,
    transport: Arc<dyn Transport>,
    shutdown: Shutdown,
) {
    let Some(tally) = state.remote_write.clone() else { return };
    let work = Work {
        env: state.env.clone(),
        queue: Mutex::new(Queue::new(config.queue_bytes)),
        bell: Notify::new(),
        config: Arc::new(config),
        transport,
        tally,
    };
    tokio::join!(work.collect(&state, &shutdown), work.send(&shutdown));
}

struct Work {
    env: Env,
    config: Arc<Config>,
    transport: Arc<dyn Transport>,
    tally: Arc<Tally>,
    queue: Mutex<Queue>,
    bell: Notify,
}

impl Work {
    async fn collect(&self, state: &Arc<State>, shutdown: &Shutdown) {
        let mut ticks = tokio::time::interval(self.config.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! { biased; () = shutdown.wait() => return, _ = ticks.tick() => {} }
            let (state, config) = (Arc::clone(state), Arc::clone(&self.config));
            // Every series is read and written down: off the threads that serve the network.
            let collected = self.env.blocking(move || {
                let now = state.now();
                batches(&families(&state, &Snapshot::take(&state, now), 0), &config, now)
            });
            match collected.await {
                Ok(collected) => self.offer(collected),
                Err(error) => {
                    error!(%error, "metrics are no longer written to remote");
                    return;
                }
            }
        }
    }

    fn offer(&self, collected: Vec<Batch>) {
        let mut queue = self.queue.lock();
        if let Err(full) = queue.offer(collected) {
            warn!("remote write: {full}; a collection is left out");
            Tally::add(&self.tally.collections_skipped_total, 1);
        }
        self.tally.holds(&queue);
        drop(queue);
        self.bell.notify_one();
    }

    async fn send(&self, shutdown: &Shutdown) {
        let mut attempts = 0;
        while !shutdown.is_draining() {
            let next = self.queue.lock().front().cloned();
            let Some(batch) = next else {
                tokio::select! { () = shutdown.wait() => return, () = self.bell.notified() => {} }
                continue;
            };
            match outcome(self.transport.send(self.request(&batch)).await) {
                Outcome::Later(after, said) => {
                    attempts += 1;
                    Tally::add(&self.tally.requests_retried_total, 1);
                    if attempts == 1 {
                        warn!("remote write waits: {said}");
                    }
                    let pause = wait(attempts, after, self.luck());
                    tokio::select! {
                        () = shutdown.wait() => return,
                        () = tokio::time::sleep(pause.into()) => {}
                    }
                }
                done => {
                    attempts = 0;
                    self.settle(&batch, &done);
                }
            }
        }
    }

    fn request(&self, batch: &Batch) -> Request {
        Request {
            url: self.config.url.clone(),
            headers: self.config.headers.clone(),
            body: batch.body.clone(),
        }
    }

    fn settle(&self, batch: &Batch, done: &Outcome) {
        let (requests, samples) = match done {
            Outcome::Refused(said) => {
                warn!(samples = batch.samples, "remote write refused: {said}");
                (&self.tally.requests_dropped_total, &self.tally.samples_dropped_total)
            }
            _ => (&self.tally.requests_sent_total, &self.tally.samples_sent_total),
        };
        Tally::add(requests, 1);
        Tally::add(samples, batch.samples);
        let mut queue = self.queue.lock();
        queue.pop();
        self.tally.holds(&queue);
    }

    fn luck(&self) -> u64 {
        let mut bytes = [0; 8];
        // Without randomness the wait is the shortest, which is only unkind.
        drop(self.env.random.fill(&mut bytes));
        u64::from_le_bytes(bytes)
    }
}

fn outcome(answer: Result<Answer, String>) -> Outcome {
    match answer {
        Err(why) => Outcome::Later(None, why),
        Ok(answer) => {
            let first = answer.body.lines().next().unwrap_or_default();
            let said: String = format!("{} {first}", answer.status).chars().take(300).collect();
            match answer.status {
                200..=299 => Outcome::Taken,
                429 | 500.. => {
                    Outcome::Later(answer.retry_after.map(|n| n.min(RETRY_AFTER_MAX)), said)
                }
                _ => Outcome::Refused(said),
            }
        }
    }
}

#[cfg(test)]
mod tests;
