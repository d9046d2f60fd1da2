//! What is taken up anew while the aggregator runs: certificates, tokens, the list of the revoked.
//!
//! On SIGHUP, when a file changes, and by the API's verbs. What cannot be taken up leaves what was
//! in force, and is a trouble until it can: `/readyz` and `/metrics` show it.

use std::sync::Arc;
use std::time::Duration;

use lens_service::tls::Stamp;
use tracing::{error, info};

use crate::state::State;

/// Time between two looks at the files.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// What takes up renewed certificates.
pub type Renew = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Takes up the token file.
///
/// # Errors
/// A sentence; the tokens that were stay in force.
pub async fn tokens(state: &State) -> Result<(), String> {
    let gate = state.security.gate.clone();
    let read = state.env.blocking(move || gate.reload()).await;
    let read = read.map_err(|error| error.to_string()).and_then(|r| r.map_err(|e| e.to_string()));
    state.security.epoch.next();
    told("tokens", state, read).map(drop)
}

/// Takes up the list of the revoked.
///
/// # Errors
/// A sentence; the list that was stays in force.
pub async fn revoked(state: &Arc<State>) -> Result<(), String> {
    let shared = Arc::clone(state);
    let read = state.env.blocking(move || shared.security.revocations.load(&shared.env)).await;
    let read = read.map_err(|error| error.to_string()).and_then(|r| r.map_err(|e| e.to_string()));
    told("revoked", state, read)
}

/// Takes up renewed certificates.
///
/// # Errors
/// A sentence; those that were stay in force.
pub async fn certificates(state: &Arc<State>) -> Result<(), String> {
    let Some(renew) = state.renew.get().map(Arc::clone) else {
        return Err("nothing here has certificates".into());
    };
    let read = state.env.blocking(move || renew()).await;
    let read = read.map_err(|error| error.to_string()).and_then(|done| done);
    told("certificates", state, read)
}

fn told<T>(what: &'static str, state: &State, done: Result<T, String>) -> Result<T, String> {
    match &done {
        Ok(_) => info!(what, "taken up anew"),
        Err(error) => error!(what, error, "not taken up, what was stays in force"),
    }
    state.security.troubles.note(what, done)
}

/// Everything, as SIGHUP asks for it.
pub async fn everything(state: &Arc<State>) {
    // Each failure is told and noted where it happens.
    drop(certificates(state).await);
    drop(tokens(state).await);
    drop(revoked(state).await);
}

/// The files that are watched, as they are at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stamps {
    /// Certificates, keys and authorities.
    pub certificates: Stamp,
    /// The token file.
    pub tokens: Stamp,
    /// The list of the revoked.
    pub revoked: Stamp,
}

/// Takes up whatever changes, until it is dropped. `held` was looked at before any of the files was
/// read, so that what changed since then is not missed.
pub async fn watch(
    state: Arc<State>,
    mut held: Stamps,
    look: impl Fn() -> Stamps + Clone + Send + 'static,
) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Ok(now) = state.env.blocking(look.clone()).await else { continue };
        // Told and noted where they happen.
        if now.certificates != held.certificates {
            drop(certificates(&state).await);
        }
        if now.tokens != held.tokens {
            drop(tokens(&state).await);
        }
        if now.revoked != held.revoked {
            drop(revoked(&state).await);
        }
        held = now;
    }
}
