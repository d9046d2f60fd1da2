//! The aggregator's snapshots, read from its event stream as any client would.

use serde_json::Value;
use tokio::sync::watch;

/// Largest event taken, bytes: a snapshot of a thousand series is under 2 MB.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// Follows an aggregator's snapshots until it is gone; each replaces the last.
///
/// # Errors
/// A sentence saying why the stream ended.
pub(crate) async fn follow(
    url: &str,
    token: Option<&str>,
    to: &watch::Sender<Value>,
) -> Result<(), String> {
    let address = format!("{}/api/v1/events", url.trim_end_matches('/'));
    let mut request = reqwest::Client::new().get(address);
    if let Some(token) = token {
        request = request.bearer_auth(token.trim());
    }
    let mut answer = request.send().await.map_err(|error| error.to_string())?;
    if answer.status() == reqwest::StatusCode::UNAUTHORIZED {
        return Err("asks for a token: give one of the role viewer with --token-file".into());
    }
    if !answer.status().is_success() {
        return Err(format!("answered {}", answer.status()));
    }
    let mut buffer = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| error.to_string())? {
        buffer.extend_from_slice(&chunk);
        while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = buffer.drain(..end + 2).collect();
            if let Some(snapshot) = snapshot(&event) {
                to.send_replace(snapshot);
            }
        }
        if buffer.len() > EVENT_BYTES_MAX {
            return Err(format!("sent an event of more than {EVENT_BYTES_MAX} bytes"));
        }
    }
    Err("ended the event stream".into())
}

/// The next snapshot of an aggregator.
///
/// # Errors
/// A sentence saying why there is none.
pub(crate) async fn first(url: &str, token: Option<&str>) -> Result<Value, String> {
    let (to, mut from) = watch::channel(Value::Null);
    tokio::select! {
        ended = follow(url, token, &to) => ended.map(|()| Value::Null),
        _ = from.changed() => Ok(from.borrow().clone()),
    }
}

/// The snapshot an event carries, if it carries one.
fn snapshot(event: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(event).ok()?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    if field("event:") != Some("snapshot") {
        return None;
    }
    serde_json::from_str(field("data:")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_snapshot_events_are_taken() {
        let event = b"id: 4\nevent: snapshot\ndata: {\"rows\":[]}\n\n";
        assert_eq!(snapshot(event), Some(serde_json::json!({"rows": []})));
        assert_eq!(snapshot(b": heartbeat\n\n"), None);
        assert_eq!(snapshot(b"event: verdict\ndata: {}\n\n"), None);
        assert_eq!(snapshot(b"event: snapshot\ndata: {\n\n"), None);
    }
}
