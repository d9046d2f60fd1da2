//! Text for people: milliseconds at three digits, columns that line up, colour only where asked.

use std::io::IsTerminal;

use serde_json::Value;

/// Whether standard output is a terminal that wants colour.
pub(crate) fn wants_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// Columns and rows of the terminal on standard output; 80 × 24 where it does not say.
pub(crate) fn size() -> (usize, usize) {
    let said = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    match said.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row))) {
        Some((columns, rows)) if columns > 0 && rows > 0 => (columns, rows),
        _ => (80, 24),
    }
}

/// The lines that fit a screen, so that drawing over them stays on it: further ones become one line
/// that counts them, longer ones are cut. Colour codes take no room.
pub(crate) fn fit(mut lines: Vec<String>, (columns, rows): (usize, usize)) -> Vec<String> {
    // The cursor waits on the row below the last line.
    let room = rows.saturating_sub(1).max(2);
    if lines.len() > room {
        let more = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(format!("… {more} more series; the page shows them all"));
    }
    lines.iter().map(|line| cut(line, columns)).collect()
}

fn cut(line: &str, columns: usize) -> String {
    let (mut shown, mut code, mut out) = (0, false, String::new());
    for char in line.chars() {
        code |= char == '\x1b';
        if code {
            code = char != 'm';
            out.push(char);
        } else if shown < columns {
            shown += 1;
            out.push(char);
        }
    }
    out
}

/// A latency in milliseconds as people read it: three significant digits and the fitting unit.
pub(crate) fn latency(ms: Option<f64>) -> String {
    let Some(ms) = ms else { return "–".into() };
    let (value, unit) = match ms {
        ms if ms < 1.0 => (ms * 1e3, "µs"),
        ms if ms < 1e3 => (ms, "ms"),
        ms => (ms / 1e3, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

/// A count with thin groups: 12 345.
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(" ")
}

/// The table of series in a snapshot, one line each, header first.
pub(crate) fn table(snapshot: &Value, colour: bool) -> Vec<String> {
    let rows = snapshot["rows"].as_array().map_or(&[][..], Vec::as_slice);
    let width = rows.iter().filter_map(|row| row["slice"].as_str()).map(str::len).max();
    let width = width.unwrap_or(5).max(5);
    let mut lines = vec![format!(
        "{:width$}  {:7}  {:8}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>5}  verdict",
        "slice", "stage", "arm", "count", "p50", "p95", "p99", "p99.9", "ratio"
    )];
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or("–").to_owned();
    for row in rows {
        let quantile = |key: &str| latency(row[key]["value_ms"].as_f64());
        let ratio = row["ratio"].as_f64().map_or("–".into(), |ratio| format!("{ratio:.2}"));
        let verdict = text(row, "verdict");
        let painted = match verdict.as_str() {
            "ok" if colour => format!("\x1b[32m{verdict}\x1b[0m"),
            "violation" if colour => format!("\x1b[1;31m{verdict}\x1b[0m"),
            _ if colour => format!("\x1b[33m{verdict}\x1b[0m"),
            _ => verdict,
        };
        lines.push(format!(
            "{:width$}  {:7}  {:8}  {:>9}  {:>8}  {:>8}  {:>8}  {:>8}  {:>5}  {painted}",
            text(row, "slice"),
            text(row, "stage"),
            text(row, "arm"),
            count(row["count"].as_u64().unwrap_or(0)),
            quantile("p50"),
            quantile("p95"),
            quantile("p99"),
            quantile("p99_9"),
            ratio,
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn latencies_read_with_three_digits_and_the_fitting_unit() {
        for (ms, text) in [
            (0.000_9, "0.90 µs"),
            (0.0123, "12.3 µs"),
            (1.234, "1.23 ms"),
            (123.4, "123 ms"),
            (12_345.0, "12.3 s"),
        ] {
            assert_eq!(latency(Some(ms)), text);
        }
        assert_eq!(latency(None), "–");
        assert_eq!(count(1_234_567), "1 234 567");
        assert_eq!(count(12), "12");
    }

    #[test]
    fn the_table_shows_what_was_not_measured_as_a_dash() {
        let row = json!({"slice": "backend/rust/large", "stage": "stage_a", "arm": "baseline",
            "count": 12, "p50": {"value_ms": 1.5}, "p95": {"value_ms": null, "reason": "few"},
            "ratio": null, "verdict": "insufficient_data"});
        let lines = table(&json!({"rows": [row]}), false);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains("1.50 ms") && lines[1].contains('–'), "{}", lines[1]);
        assert!(lines[1].ends_with("insufficient_data"));
    }

    #[test]
    fn what_is_drawn_over_fits_the_screen() {
        let lines: Vec<String> =
            (0..30).map(|n| format!("{n:03} \x1b[31mviolation\x1b[0m")).collect();
        let fitted = fit(lines.clone(), (8, 24));
        assert_eq!(fitted.len(), 23);
        assert_eq!(fitted[0], "000 \x1b[31mviol\x1b[0m");
        assert_eq!(fitted[22], "… 8 more");
        assert_eq!(fit(lines.clone(), (80, 31)), lines);
        assert_eq!(fit(lines, (80, 1)).len(), 2);
    }
}
