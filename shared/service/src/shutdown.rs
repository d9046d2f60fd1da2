//! Signals: the first SIGTERM or SIGINT drains, a second ends the process at once; SIGHUP asks for
//! renewed certificates.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// Tells tasks when to drain.
#[derive(Clone, Debug)]
pub struct Shutdown {
    draining: watch::Receiver<bool>,
}

impl Shutdown {
    /// Listens for signals from now on.
    ///
    /// `impatient` is called on the second signal and is expected not to return.
    ///
    /// # Errors
    /// The operating system's, when a handler cannot be installed.
    pub fn on_signals(impatient: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (tell, draining) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            tell.send_replace(true);
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            impatient();
        });
        Ok(Self { draining })
    }

    /// A shutdown that a test or a parent task triggers with the returned sender.
    pub fn manual() -> (watch::Sender<bool>, Self) {
        let (tell, draining) = watch::channel(false);
        (tell, Self { draining })
    }

    /// Whether draining has begun.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Resolves when draining begins. Cancel safe.
    pub async fn wait(&self) {
        let mut draining = self.draining.clone();
        // A sender that is gone can never ask again: treated as the request itself.
        drop(draining.wait_for(|draining| *draining).await);
    }
}

/// Each SIGHUP from now on.
///
/// # Errors
/// The operating system's, when the handler cannot be installed.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
