//! JSON lines, one a host, arm and window:
//! `{"t_ms", "slice", "stage", "arm", "host", "n", "errors", "values": [[latency_ms, count], ..]}`;
//! `"requests"` beside them where requests are counted apart from samples, as search nodes do.

use std::io::BufRead;

use lens_hist::layout;
use lens_model::{Arm, Slice, Stage};
use serde::Deserialize;

use super::Player;
use super::input::{InputError, lines, nanos, unknown};

const FIELDS: [&str; 8] = ["t_ms", "slice", "stage", "arm", "host", "n", "errors", "values"];

/// The fields there may be beside them.
const KNOWN: [&str; 9] =
    ["t_ms", "slice", "stage", "arm", "host", "n", "errors", "values", "requests"];

/// Longest line, bytes: 3,841 counters of 40 bytes and room for any spacing.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// One window.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    t_ms: i64,
    slice: Slice,
    stage: Stage,
    arm: Arm,
    host: String,
    n: u64,
    errors: u64,
    /// Requests, where they are counted apart from the samples; `n` when absent.
    requests: Option<u64>,
    values: Vec<(f64, u64)>,
}

/// Plays every line of `input`.
pub(super) fn play(input: impl BufRead, player: &mut Player<'_>) -> Result<(), InputError> {
    lines(input, LINE_BYTES_MAX, |line, text| {
        let parsed = serde_json::from_slice(text).map_err(|error| wrong(line, text, &error))?;
        window(line, &parsed, player)?;
        player.tell()
    })
}

/// What is wrong with a line, with the nearest name for a field that is unknown.
fn wrong(line: u64, text: &[u8], error: &serde_json::Error) -> InputError {
    let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(text);
    if let Ok(object) = object {
        if let Some(name) = object.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return InputError::field(line, "field", unknown(name, &KNOWN));
        }
        if let Some(field) = FIELDS.iter().find(|field| !object.contains_key(**field)) {
            return InputError::field(line, field, "is missing: every line holds all eight fields");
        }
        let right = [
            ("t_ms", "a whole number of milliseconds"),
            ("slice", "a text such as backend/rust/large"),
            ("stage", "stage_a, stage_b, stage_c or e2e"),
            ("arm", "baseline or canary"),
            ("host", "a text"),
            ("n", "a count"),
            ("errors", "a count"),
            ("values", "pairs of milliseconds and count, [[12.5, 3], ..]"),
        ];
        for (field, right) in right {
            if !fits(field, &object[field]) {
                let shown: String = object[field].to_string().chars().take(80).collect();
                return InputError::field(line, field, format!("{shown} is wrong: use {right}"));
            }
        }
    }
    InputError::line(line, format!("is no window: {error}"))
}

/// Whether a value alone can be read as this field.
fn fits(field: &str, value: &serde_json::Value) -> bool {
    let value = value.clone();
    match field {
        "t_ms" => value.is_i64(),
        "slice" => serde_json::from_value::<Slice>(value).is_ok(),
        "stage" => serde_json::from_value::<Stage>(value).is_ok(),
        "arm" => serde_json::from_value::<Arm>(value).is_ok(),
        "host" => value.is_string(),
        "n" | "errors" => value.is_u64(),
        _ => serde_json::from_value::<Vec<(f64, u64)>>(value).is_ok(),
    }
}

fn window(line: u64, window: &Line, player: &mut Player<'_>) -> Result<(), InputError> {
    let mut values = Vec::with_capacity(window.values.len());
    for (latency_ms, count) in &window.values {
        let Some(nanos) = nanos(*latency_ms) else {
            let problem = format!("{latency_ms} is wrong: use milliseconds, 0 or more");
            return Err(InputError::field(line, "values", problem));
        };
        values.push((layout::index_of(nanos), *count));
    }
    let samples = values.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let (requests, of) = window.requests.map_or((window.n, "n"), |requests| (requests, "requests"));
    let Some(ok) = requests.checked_sub(window.errors) else {
        let problem = format!("{} is more than {of}, {requests}", window.errors);
        return Err(InputError::field(line, "errors", problem));
    };
    // Failed requests may have a latency or none.
    let least = if window.requests.is_some() { window.n } else { ok };
    if samples < least || samples > window.n {
        let problem = format!(
            "hold {samples} samples; between {least}, without the failed, and {}, with them, are expected",
            window.n
        );
        return Err(InputError::field(line, "values", problem));
    }
    let series = player.replay.series(&window.slice, window.stage, window.arm, &window.host);
    let added =
        series.and_then(|series| player.replay.add(window.t_ms, series, values, ok, window.errors));
    added.map_err(|error| InputError::replay(line, &error))
}
