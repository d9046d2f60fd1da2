//! One task a sink: takes what is next, sends it, writes down what became of it.
//!
//! A sink that hangs or fails holds up nobody but itself. An attempt under way when the aggregator
//! stops is finished; one cut off by a crash is made again under the same id.

use std::sync::Arc;
use std::time::Duration;

use lens_model::{Nanos, UnixNanos};
use lens_service::shutdown::Shutdown;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::alert::{Phase, Told};
use super::desk::{Desk, Next};
use super::notice::Notice;
use super::sink::{Context, Kind, Outcome, Sink, cut};

/// Longest a task sleeps before it looks again.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// Most of a reason that is kept, bytes.
const WHY_BYTES_MAX: usize = 300;

/// Sends to one sink until told to stop.
pub(super) async fn run(desk: Arc<Desk>, sink: Sink, shutdown: Shutdown) {
    let mut resend = match &sink.kind {
        Kind::Alertmanager { resend, .. } => Some(tokio::time::interval((*resend).into())),
        _ => None,
    };
    let Some(bell) = desk.bells.get(&sink.name) else { return };
    loop {
        let name = sink.name.clone();
        let wait = match on_desk(&desk, move |desk| desk.next(&name, desk.env.now())).await {
            Some(Next::Send(delivery)) => {
                let outcome = send(&desk, &sink, &delivery.notice).await;
                let (seq, luck) = (delivery.seq, luck(&desk));
                let settled =
                    on_desk(&desk, move |desk| desk.settle(seq, &outcome, luck, desk.env.now()));
                if settled.await.is_none() {
                    return;
                }
                sink.kind.gap()
            }
            Some(Next::At(due)) => due.since(desk.env.now()).max(Nanos::from_millis(1)),
            Some(Next::Idle) => Nanos::from(SLEEP_MAX),
            None => return,
        };
        if wait.0 == 0 {
            if shutdown.is_draining() {
                return;
            }
            continue;
        }
        let until = Instant::now() + Duration::from(wait).min(SLEEP_MAX);
        // After a message the receiver's pace is kept whatever rings; waiting for a retry is not
        // cut short either, because the one that waits goes first.
        let idle = wait >= Nanos::from(SLEEP_MAX);
        tokio::select! {
            biased;
            () = shutdown.wait() => return,
            () = tick(&mut resend) => again(&desk, &sink).await,
            () = bell.notified(), if idle => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => std::future::pending().await,
    }
}

/// The desk is blocked on off the threads that serve the network.
async fn on_desk<T: Send + 'static>(
    desk: &Arc<Desk>,
    work: impl FnOnce(&Desk) -> T + Send + 'static,
) -> Option<T> {
    let held = Arc::clone(desk);
    match desk.env.blocking(move || work(&held)).await {
        Ok(done) => Some(done),
        Err(error) => {
            error!(%error, "a sink is no longer served");
            None
        }
    }
}

fn luck(desk: &Desk) -> u64 {
    let mut bytes = [0; 8];
    // Without randomness the wait is the shortest, which is only unkind.
    drop(desk.env.random.fill(&mut bytes));
    u64::from_le_bytes(bytes)
}

/// Sends one notice once.
pub(super) async fn send(desk: &Arc<Desk>, sink: &Sink, notice: &Notice) -> Outcome {
    let thread = match sink.kind {
        Kind::SlackBot { .. } => {
            let (name, notice) = (sink.name.clone(), notice.clone());
            on_desk(desk, move |desk| desk.thread(&name, &notice)).await.flatten()
        }
        _ => None,
    };
    let dashboard = desk.config.dashboard.as_deref();
    let context = Context { dashboard, thread: thread.as_ref(), now: desk.env.now() };
    match sink.kind.request(notice, &context) {
        Some(request) => outcome(sink, desk.transport.send(request).await),
        None => {
            log(notice);
            Outcome::Delivered { said: "logged".into(), thread: None }
        }
    }
}

fn outcome(sink: &Sink, answer: Result<super::sink::Answer, String>) -> Outcome {
    match answer {
        Ok(answer) => sink.kind.outcome(&answer),
        Err(why) => Outcome::Retry { after: None, said: cut(&why, WHY_BYTES_MAX) },
    }
}

/// Tells Alertmanager again of everything it was told fires.
async fn again(desk: &Arc<Desk>, sink: &Sink) {
    let open = on_desk(desk, Desk::open_alerts).await.unwrap_or_default();
    let told = |alert: &&super::alert::Alert| {
        alert.phase == Phase::Firing
            && matches!(alert.told, Told::Firing(_))
            && alert.severity >= sink.severity_min
    };
    let now: UnixNanos = desk.env.now();
    let dashboard = desk.config.dashboard.as_deref();
    let context = Context { dashboard, thread: None, now };
    let Some(request) = sink.kind.again(open.iter().filter(told), &context) else { return };
    let outcome = outcome(sink, desk.transport.send(request).await);
    let name = sink.name.clone();
    on_desk(desk, move |desk| desk.noted(&name, &outcome, now)).await;
}

fn log(notice: &Notice) {
    let kind = notice.kind.as_str();
    for alert in &notice.alerts {
        let (key, severity) = (alert.key.to_string(), alert.severity.as_str());
        match notice.kind {
            super::lifecycle::Kind::Resolved | super::lifecycle::Kind::Acknowledged => {
                info!(kind, key, severity, "alert: {}", alert.summary);
            }
            _ => warn!(kind, key, severity, "alert: {}", alert.summary),
        }
    }
}
