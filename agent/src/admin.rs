//! `/livez /readyz /metrics /status`: how the agent is doing, on loopback by default.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use lens_model::UnixNanos;
use lens_service::time::{rfc3339, unix_now};
use serde_json::{Value, json};

use crate::flags::{Flags, FlagsStatus};
use crate::spool::{DurableSpool, Outbox, Recovered};
use crate::status::Status;

/// What the endpoints show.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The agent's status.
    pub status: Arc<Status>,
    /// Its spool.
    pub spool: Arc<DurableSpool>,
    /// What the control plane decided.
    pub flags: Arc<Flags>,
}

/// The endpoints.
pub fn router(admin: Admin) -> Router {
    Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .fallback(async || (StatusCode::NOT_FOUND, "try /livez /readyz /metrics /status\n"))
        .with_state(admin)
}

/// Serves until `stop` resolves.
///
/// # Errors
/// The operating system's, when the server fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    admin: Admin,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router(admin)).with_graceful_shutdown(stop).await
}

/// Opens the admin listener, naming the key and the remedy when it cannot.
///
/// # Errors
/// A sentence for the operator.
pub async fn listen(address: SocketAddr) -> Result<tokio::net::TcpListener, String> {
    tokio::net::TcpListener::bind(address).await.map_err(|error| {
        format!("admin.listen {address}: {error}: stop what listens there, or choose another port")
    })
}

/// Why the agent is not ready, if it is not.
fn unready(admin: &Admin) -> Vec<String> {
    let mut reasons = Vec::new();
    let status = &admin.status;
    if !status.scanned.load(Ordering::Relaxed) {
        reasons.push("segments not looked for yet".to_owned());
    }
    let link = status.link.lock();
    if !link.connected {
        let why = link.last_error.clone().unwrap_or_else(|| "not connected yet".into());
        reasons.push(format!("aggregator {}: {why}", link.endpoint));
    }
    if status.draining.load(Ordering::Relaxed) {
        reasons.push("draining".to_owned());
    }
    reasons
}

async fn readyz(State(admin): State<Admin>) -> Response {
    let reasons = unready(&admin);
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response()
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let status = &admin.status;
    let (level, now) = (admin.spool.level(), unix_now());
    let disk = *status.disk.lock();
    let segments = status.segments.lock().clone();
    let clock = *status.clock.lock();
    let link = status.link.lock().clone();
    let certificate = status.certificate.lock().clone();
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &status.counters;
    Json(json!({
        "identity": status.identity,
        "version": env!("CARGO_PKG_VERSION"),
        "incarnation": admin.spool.incarnation().to_string(),
        "started": rfc3339(status.started),
        "ready": unready(&admin).is_empty(),
        "segments": segments,
        "series": segments.iter().map(|segment| segment.series).sum::<usize>(),
        "harvest": {
            "harvests_total": count(&counters.harvests_total),
            "paused_total": count(&counters.harvests_paused_total),
            "samples_total": count(&counters.samples_harvested_total),
            "last_ms": count(&counters.harvest_nanos_last) as f64 / 1e6,
            "gap_ms_max": count(&counters.harvest_gap_nanos_max) as f64 / 1e6,
        },
        "spool": {
            "frames": level.frames,
            "bytes": level.bytes,
            "age_ms": level.oldest.map(|oldest| now.since(oldest).as_millis_f64()),
            "last": level.last,
            "acked": level.acked,
            "durable": true,
            "paused": *status.paused.lock(),
            "disk": {
                "bytes": disk.bytes,
                "bytes_max": disk.bytes_max,
                "files": disk.files,
                "files_abandoned_total": disk.abandoned_total,
                "reserve": disk.reserve,
            },
            "recovered": recovered(&status.recovered),
        },
        "connection": {
            "connected": link.connected,
            "endpoint": link.endpoint,
            "last_error": link.last_error,
            "last_ack": link.last_ack.map(rfc3339),
        },
        "certificate": {
            "expires": certificate.expires.map(rfc3339),
            "seconds_left": certificate.expires.map(|end| seconds_left(end, now)),
            "problem": certificate.problem,
        },
        "clock_offset_ms": clock.is_measured().then_some(clock.offset_nanos as f64 / 1e6),
        "clock_error_ms": clock.is_measured().then_some(clock.error_nanos as f64 / 1e6),
        "hindsight": status.hindsight.get().map(|held| {
            let level = held.level();
            json!({
                "since": level.since.map(rfc3339),
                "bytes": level.bytes,
                "steps_left_out_total": level.left_out,
            })
        }),
        "dropped": *status.dropped.lock(),
        "ingest": status.ingested.get().map(|ingested| ingested.json()),
        "proxy": status.proxy.get().map(|counters| counters.show()),
        "flag_generation": admin.flags.status().applied.generation,
        "flags": flags(&admin.flags.status()),
    }))
}

/// The control plane's word as it holds here.
fn flags(status: &FlagsStatus) -> Value {
    let document = status.document.as_ref();
    let assignment = document.map(|document| document.assignment);
    json!({
        "generation": document.map(|document| document.generation),
        "reason": document.is_none().then_some("no aggregator has sent flags yet"),
        "issued_at": document.map(|document| rfc3339(document.issued_at)),
        "expires_at": document.map(|document| rfc3339(document.expires_at)),
        "expired": status.expired,
        "version": document.map(|document| document.version.clone()),
        "canary_percent": assignment.map(|assignment| {
            if status.expired { 0.0 } else { assignment.effective().as_percent() }
        }),
        "killed": assignment.map(|assignment| assignment.killed),
        "emergency": document.map(|document| document.emergency),
        "pages": status.applied.pages,
        "pages_failed": status.applied.failed,
        "problem": status.problem,
        "control_key": status.key,
        "control_key_configured": status.configured,
    })
}

/// Seconds until an instant; negative once it is past.
fn seconds_left(end: UnixNanos, now: UnixNanos) -> f64 {
    (end.0 as f64 - now.0 as f64) / 1e9
}

fn recovered(found: &Recovered) -> Value {
    json!({
        "created": found.created,
        "deltas": found.deltas,
        "deltas_lost": found.deltas_lost,
        "repaired": found.repaired,
        "torn_bytes": found.torn_bytes,
        "segments": found.segments,
        "files_unreadable": found.files_unreadable,
        "renewed": found.renewed,
    })
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = exposition(&admin);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

fn exposition(admin: &Admin) -> String {
    let (status, mut out) = (&admin.status, String::new());
    let mut put = |kind: &str, name: &str, help: &str, value: f64| {
        let name = format!("lens_agent_{name}");
        out.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"));
    };
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed) as f64;
    let c = &status.counters;
    for (name, help, counter) in [
        ("harvests_total", "Harvests done.", &c.harvests_total),
        (
            "harvests_paused_total",
            "Harvests left out, the spool being full.",
            &c.harvests_paused_total,
        ),
        ("samples_harvested_total", "Samples read from segments.", &c.samples_harvested_total),
        ("deltas_sent_total", "Delta frames sent, repeats included.", &c.deltas_sent_total),
        ("bytes_sent_total", "Bytes written to the connection.", &c.bytes_sent_total),
        ("connects_total", "Sessions opened.", &c.connects_total),
        ("connect_failures_total", "Attempts to connect that failed.", &c.connect_failures_total),
        ("exemplars_sent_total", "Slow requests sent with their traces.", &c.exemplars_sent_total),
        (
            "exemplars_dropped_total",
            "Slow requests that gave way to newer ones before they were sent.",
            &c.exemplars_dropped_total,
        ),
        (
            "segments_removed_total",
            "Segments of dead nodes drained and removed.",
            &c.segments_removed_total,
        ),
        (
            "segments_taken_over_total",
            "Segments begun at their present counts, a lost spool having read them before.",
            &c.segments_taken_over_total,
        ),
    ] {
        put("counter", name, help, count(counter));
    }
    let level = admin.spool.level();
    let disk = *status.disk.lock();
    let age = level.oldest.map_or(0.0, |oldest| unix_now().since(oldest).as_secs_f64());
    let clock = *status.clock.lock();
    let segments = status.segments.lock().len();
    for (name, help, value) in [
        ("segments", "Segments known.", segments as f64),
        ("spool_frames", "Deltas not acknowledged.", level.frames as f64),
        ("spool_bytes", "Bytes of deltas not acknowledged.", level.bytes as f64),
        ("spool_disk_bytes", "Bytes the spool's files take up.", disk.bytes as f64),
        ("spool_disk_bytes_max", "Bytes they may take up.", disk.bytes_max as f64),
        (
            "spool_paused",
            "1 while harvesting is paused because the spool takes nothing.",
            f64::from(u8::from(status.paused.lock().is_some())),
        ),
        ("spool_age_seconds", "Age of the oldest delta not acknowledged.", age),
        (
            "connected",
            "1 while a session stands.",
            f64::from(u8::from(status.link.lock().connected)),
        ),
        ("harvest_seconds_last", "Time the last harvest took.", count(&c.harvest_nanos_last) / 1e9),
        (
            "harvest_gap_seconds_max",
            "Longest time between two harvests.",
            count(&c.harvest_gap_nanos_max) / 1e9,
        ),
    ] {
        put("gauge", name, help, value);
    }
    let applied = admin.flags.status().applied;
    for (name, help, value) in [
        ("flag_generation", "Generation of the flags in force.", applied.generation as f64),
        ("flag_pages", "Flag pages of nodes that carry it.", f64::from(applied.pages)),
        ("flag_pages_failed", "Flag pages not written.", f64::from(applied.failed)),
        (
            "flag_trouble",
            "Code of what is wrong with the last flags.",
            f64::from(applied.trouble.code()),
        ),
    ] {
        put("gauge", name, help, value);
    }
    if let Some(held) = status.hindsight.get() {
        let level = held.level();
        let span = level.since.map_or(0.0, |since| unix_now().since(since).as_secs_f64());
        for (name, help, value) in [
            ("hindsight_seconds", "How far back fine steps are held.", span),
            ("hindsight_bytes", "Bytes they take up.", level.bytes as f64),
        ] {
            put("gauge", name, help, value);
        }
        let help = "Fine steps that gave way before their time.";
        put("counter", "hindsight_left_out_total", help, level.left_out as f64);
    }
    if clock.is_measured() {
        let help = "Aggregator's clock minus ours.";
        put("gauge", "clock_offset_seconds", help, clock.offset_nanos as f64 / 1e9);
    }
    let certificate = status.certificate.lock().clone();
    if let Some(end) = certificate.expires {
        let help = "Time until the certificate in force ends.";
        put("gauge", "certificate_seconds_left", help, seconds_left(end, unix_now()));
    }
    let problem = f64::from(u8::from(certificate.problem.is_some()));
    put("gauge", "certificate_problem", "1 while its files are not taken up.", problem);
    if let Some(counters) = status.proxy.get() {
        counters.expose(&mut out);
    }
    let dropped = status.dropped.lock();
    out.push_str("# HELP lens_agent_dropped_total Things refused, by reason.\n");
    out.push_str("# TYPE lens_agent_dropped_total counter\n");
    for (reason, count) in dropped.iter() {
        let reason = reason.replace(['\\', '"', '\n'], "_");
        out.push_str(&format!("lens_agent_dropped_total{{reason=\"{reason}\"}} {count}\n"));
    }
    drop(dropped);
    out.extend(status.ingested.get().map(|ingested| ingested.exposition()));
    out
}
