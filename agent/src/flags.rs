//! What the control plane decided, as this agent holds it.

use lens_flags::Assignment;
use tokio::sync::watch;

/// The word in force, for whoever acts on it.
#[derive(Debug)]
pub struct Flags {
    assignment: watch::Sender<Assignment>,
}

impl Default for Flags {
    fn default() -> Self {
        Self { assignment: watch::Sender::new(Assignment::default()) }
    }
}

impl Flags {
    /// Who is in the canary now, and each change of it. Nobody is before the control plane spoke.
    pub fn assignment(&self) -> watch::Receiver<Assignment> {
        self.assignment.subscribe()
    }
}
