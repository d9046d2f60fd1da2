//! What time does to flags: overrides end, documents are told anew before they expire, and what could
//! not be made durable is tried again.

use std::sync::Arc;
use std::time::Duration;

use lens_model::Nanos;
use lens_service::shutdown::Shutdown;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{error, warn};

use super::{DOCUMENT_LIFE, Flags};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Age at which a document is told anew: a third of its life, so that two may be missed.
const RENEWAL: Nanos = Nanos(DOCUMENT_LIFE.0 / 3);

/// Keeps what is told true and fresh until shutdown.
pub async fn run(flags: Flags, shutdown: Shutdown) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // By the clock that passes: one that jumped must not keep documents from being renewed.
    let mut told_at = Instant::now();
    let mut generation = flags.status().generation;
    loop {
        tokio::select! { biased; () = shutdown.wait() => return, _ = looks.tick() => {} }
        let now = flags.status().generation;
        if now != generation {
            (generation, told_at) = (now, Instant::now());
        }
        let old = Nanos::from(told_at.elapsed()) >= RENEWAL;
        let inner = Arc::clone(&flags.0);
        let turn = flags.0.env.blocking(move || {
            inner.keep_up();
            let stale = inner.is_stale();
            if old || stale { inner.renew().map(|_| ()) } else { Ok(()) }
        });
        match turn.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!(%error, "flags are not told anew"),
            Err(error) => {
                error!(%error, "flags are no longer told anew");
                return;
            }
        }
    }
}
