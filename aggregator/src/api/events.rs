//! `/api/v1/events`: what happens, as it happens.

use std::convert::Infallible;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::stream::{Stream, StreamExt, select};
use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::wrappers::errors::BroadcastStreamRecvError;

use super::live::Beat;
use super::params::Params;
use super::{Api, Problem};
use crate::state;

/// What happens, as it happens
///
/// Server-sent events. `snapshot` comes every second with the whole state, a `Snapshot`;
/// `verdict`, `agent`, `slice` and `alert` come when they happen, with `{t, kind, subject, message}`;
/// `lagged` says how many a slow reader missed. A comment every 15 s keeps intermediaries from
/// closing the stream. It ends when the aggregator shuts down.
#[utoipa::path(get, path = "/api/v1/events", tag = "data",
    responses(
        (status = 200, description = "The stream", body = String,
            content_type = "text/event-stream",
            example = json!("event: verdict\nid: 1763754020123456789\ndata: {\"t\":\"2026-11-21T19:40:20Z\",\"kind\":\"verdict\",\"subject\":\"backend/rust/large/stage_b/canary\",\"message\":\"ok → violation: p99 is 2.61 times p95, more than 2\"}\n\n")),
        (status = 400, description = "A parameter was given", body = Problem,
            content_type = "application/problem+json"),
        (status = 503, description = "As many subscribers as are served", body = Problem,
            content_type = "application/problem+json"),
    ))]
pub(super) async fn events(
    State(api): State<Api>,
    params: Params,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    params.only(&[])?;
    let (seat, beats) = api.live.subscribe().ok_or_else(|| {
        let most = lens_model::limits::EVENT_SUBSCRIBERS_MAX;
        Problem::unavailable(format!("{most} subscribers are served already"))
    })?;
    let told = BroadcastStream::new(api.state.events.subscribe()).map(|told| Some(of_event(told)));
    let beats = BroadcastStream::new(beats).map(of_beat);
    // Whoever lost the right to listen meanwhile is not let in when they ask again.
    let stream = select(told, beats)
        .take_until(api.state.security.epoch.over())
        .take_while(|event| std::future::ready(event.is_some()))
        .filter_map(std::future::ready)
        .map(move |event| {
            // The seat is held for as long as the stream is.
            let _held = &seat;
            Ok(event)
        });
    Ok(Sse::new(stream))
}

fn of_event(told: Result<state::Event, BroadcastStreamRecvError>) -> Event {
    match told {
        Ok(event) => {
            let data = serde_json::to_string(&event).unwrap_or_default();
            Event::default().id(event.t.0.to_string()).event(event.kind).data(data)
        }
        Err(BroadcastStreamRecvError::Lagged(missed)) => lagged(missed),
    }
}

/// `None` ends the stream.
fn of_beat(beat: Result<Beat, BroadcastStreamRecvError>) -> Option<Event> {
    match beat {
        Ok(Beat::Snapshot(json)) => Some(Event::default().event("snapshot").data(&*json)),
        Ok(Beat::Heartbeat) => Some(Event::default().comment("heartbeat")),
        Ok(Beat::End) => None,
        Err(BroadcastStreamRecvError::Lagged(missed)) => Some(lagged(missed)),
    }
}

fn lagged(missed: u64) -> Event {
    Event::default().event("lagged").data(format!("{{\"missed\":{missed}}}"))
}
