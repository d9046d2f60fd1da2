//! One life of one host's program: from its start until it stops, crashes or is killed.
//!
//! Each life has a tokio runtime of its own, of one thread and with paused time. The world gives the
//! lives turns of one tick, one after the other; within a turn, a life's clock jumps from timer to
//! timer. Nothing sent within a tick arrives before the next one, so the order of turns within it
//! changes nothing. A crash drops the runtime with every task where it stands, after the life was
//! cut off: no destructor sends, writes or is heard of.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lens_service::env::Env;
use lens_service::shutdown::{Shutdown, Trigger};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::crypto::with_randomness;
use super::network::Arrival;
use super::random::SharedChance;

/// Tasks polled between two looks at the world, so that a crash can fall between any two.
const TASKS_BETWEEN_LOOKS: u32 = 1;

/// What a life and everything made for it share.
#[derive(Debug)]
pub struct Life {
    /// Virtual time at which it began, nanoseconds.
    began: u64,
    /// The runtime's clock at that moment.
    clock: Mutex<Option<Instant>>,
    over: AtomicBool,
    ended: Notify,
}

impl Life {
    pub(super) fn new(began: u64) -> Arc<Self> {
        Arc::new(Self {
            began,
            clock: Mutex::new(None),
            over: AtomicBool::new(false),
            ended: Notify::new(),
        })
    }

    /// Virtual time, nanoseconds. Meaningful within a turn.
    pub fn now(&self) -> u64 {
        let since = self.clock.lock().map_or(Duration::ZERO, |began| began.elapsed());
        self.began + u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }

    fn instant(&self, at: u64) -> Option<Instant> {
        let began = (*self.clock.lock())?;
        Some(began + Duration::from_nanos(at.saturating_sub(self.began)))
    }

    /// Whether it is over: then nothing it does is heard of.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Ends it where it stands.
    pub fn cut(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.ended.notify_one();
    }
}

/// A program running in a life.
#[derive(Debug)]
pub struct Running {
    /// The life.
    pub life: Arc<Life>,
    runtime: Option<Runtime>,
    chance: SharedChance,
    stop: Trigger,
    program: JoinHandle<()>,
}

/// A program: given the machine, runs until told to stop.
pub type Program = Box<dyn FnOnce(Env, Shutdown) -> BoxFuture<'static, ()> + Send>;

impl Running {
    /// Starts a program; nothing of it runs before the first turn.
    pub(super) fn start(
        life: Arc<Life>,
        chance: SharedChance,
        env: Env,
        program: Program,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .event_interval(TASKS_BETWEEN_LOOKS)
            .build()?;
        let (stop, shutdown) = Shutdown::manual();
        let program = {
            let _context = runtime.enter();
            *life.clock.lock() = Some(Instant::now());
            with_randomness(&chance, || tokio::spawn(program(env, shutdown)))
        };
        Ok(Self { life, runtime: Some(runtime), chance, stop, program })
    }

    /// Asks the program to stop.
    pub fn stop(&self) {
        self.stop.begin();
    }

    /// Whether the program has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.program.is_finished()
    }

    /// Lets it run until `until`, taking what arrives.
    pub(super) fn turn(&mut self, arrivals: Vec<Arrival>, until: u64) {
        let (life, chance) = (Arc::clone(&self.life), self.chance.clone());
        let Some(runtime) = &self.runtime else { return };
        with_randomness(&chance, || {
            runtime.block_on(async {
                let turn = pin!(async {
                    for arrival in arrivals {
                        if let Some(at) = life.instant(arrival.at) {
                            sleep_until(at).await;
                        }
                        arrival.deliver();
                    }
                    if let Some(at) = life.instant(until) {
                        sleep_until(at).await;
                    }
                });
                tokio::select! { biased; () = life.ended.notified() => {} () = turn => {} }
            });
        });
    }

    /// Lets `polls` more tasks run and then ends it where it stands.
    pub(super) fn crash(mut self, polls: u64) {
        let mut left = polls;
        if let Some(runtime) = &self.runtime
            && !self.life.is_over()
        {
            with_randomness(&self.chance.clone(), || {
                runtime.block_on(poll_fn(|context| {
                    if left == 0 || self.life.is_over() {
                        return Poll::Ready(());
                    }
                    left -= 1;
                    context.waker().wake_by_ref();
                    Poll::Pending
                }));
            });
        }
        self.end();
    }

    /// Ends it where it stands.
    fn end(&mut self) {
        self.life.cut();
        let runtime = self.runtime.take();
        with_randomness(&self.chance.clone(), || drop(runtime));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}
