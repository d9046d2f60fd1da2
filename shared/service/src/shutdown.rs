//! Signals: the first SIGTERM or SIGINT drains, a second ends the process at once; SIGHUP asks for
//! renewed certificates.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

/// Tells tasks when to drain, in the order in which they began to wait.
#[derive(Clone, Debug)]
pub struct Shutdown(Arc<Drain>);

/// What begins a drain; dropping it does, too: who is gone can never ask again.
#[derive(Debug)]
pub struct Trigger(Arc<Drain>);

#[derive(Debug, Default)]
struct Drain {
    begun: AtomicBool,
    bell: Notify,
}

impl Trigger {
    /// Begins the drain. Harmless to repeat.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.bell.notify_waiters();
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.begin();
    }
}

impl Shutdown {
    /// Listens for signals from now on.
    ///
    /// `impatient` is called on the second signal and is expected not to return.
    ///
    /// # Errors
    /// The operating system's, when a handler cannot be installed.
    pub fn on_signals(impatient: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (trigger, shutdown) = Self::manual();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            trigger.begin();
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            impatient();
        });
        Ok(shutdown)
    }

    /// A shutdown that a test or a parent task triggers.
    pub fn manual() -> (Trigger, Self) {
        let drain = Arc::new(Drain::default());
        (Trigger(Arc::clone(&drain)), Self(drain))
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Resolves when draining begins. Cancel safe.
    pub async fn wait(&self) {
        let mut rung = std::pin::pin!(self.0.bell.notified());
        // Waiting before the look, so that a drain that begins between the two is heard.
        rung.as_mut().enable();
        if !self.is_draining() {
            rung.await;
        }
    }
}

/// Each SIGHUP from now on.
///
/// # Errors
/// The operating system's, when the handler cannot be installed.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_is_seen_by_who_waits_and_by_who_comes_later() {
        let (trigger, shutdown) = Shutdown::manual();
        let waiting = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { shutdown.wait().await }
        });
        tokio::task::yield_now().await;
        assert!(!shutdown.is_draining());
        trigger.begin();
        waiting.await.unwrap();
        shutdown.wait().await;
        assert!(shutdown.is_draining());
    }

    #[tokio::test]
    async fn a_trigger_that_is_gone_has_asked() {
        let (trigger, shutdown) = Shutdown::manual();
        drop(trigger);
        shutdown.wait().await;
    }
}
