//! The screen of `lens top`, from 80 × 24 up; a smaller one shows less, and a tiny one says so.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{
    Axis, Block, Chart, Clear, Dataset, GraphType, Paragraph, Row, Table, TableState, Wrap,
};
use serde_json::Value;

use super::view::{Sort, Tab, View};
use crate::terminal;

/// The smallest screen that anything is drawn on.
const COLUMNS_MIN: u16 = 40;
const ROWS_MIN: u16 = 8;

/// Columns from which also rate and p99.9 are shown.
const COLUMNS_WIDE: u16 = 110;

const HELP: &[&str] = &[
    "1 2 3 4, tab   series, alerts, agents, canary",
    "↑ ↓ j k        choose; page and home keys as well",
    "enter, esc     open and close a series",
    "s, r           sort by the next column, reverse",
    "/              filter by name or verdict; esc clears it",
    "?, q           this help, quit",
];

/// Draws the whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let area = frame.area();
    if area.width < COLUMNS_MIN || area.height < ROWS_MIN {
        let text = format!("lens top needs {COLUMNS_MIN} × {ROWS_MIN}; q quits");
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
        return;
    }
    let parts =
        Layout::vertical([Constraint::Length(2), Constraint::Min(1), Constraint::Length(1)]);
    let [head, body, foot] = parts.areas(area);
    draw_head(frame, view, head);
    match view.tab {
        _ if view.snapshot.is_null() => nothing_yet(frame, view, body),
        Tab::Series if view.detail => draw_detail(frame, view, body),
        Tab::Series => draw_series(frame, view, body),
        Tab::Alerts => draw_alerts(frame, view, body),
        Tab::Agents => draw_agents(frame, view, body),
        Tab::Canary => draw_canary(frame, view, body),
    }
    draw_foot(frame, view, foot);
    if view.help {
        draw_help(frame, area);
    }
}

fn paint(colour: Color) -> Style {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if plain { Style::default() } else { Style::default().fg(colour) }
}

fn strong() -> Style {
    Style::default().add_modifier(Modifier::BOLD)
}

/// The colour of a state, never its only sign: the word stands beside it.
fn of_state(state: &str) -> Style {
    match state {
        "ok" | "healthy" | "connected" => paint(Color::Green),
        "violation" | "critical" | "firing" | "gone" | "rolled_back" | "killed" => {
            paint(Color::Red).add_modifier(Modifier::BOLD)
        }
        _ => paint(Color::Yellow),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("–")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or(0)
}

fn draw_head(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let health = &view.snapshot["health"];
    let open = view.list(&["alerts", "open"]).len();
    let agents = view.list(&["agents"]);
    let connected = agents.iter().filter(|agent| agent["connected"] == true).count();
    let status = health["status"].as_str().unwrap_or("unknown");
    let mut top = vec![
        Span::styled("lens top  ", strong()),
        Span::styled(status.to_owned(), of_state(status)),
        Span::raw(format!(
            "  {} samples  {connected}/{} agents  {open} alerts",
            terminal::count(number(&view.snapshot["totals"], "samples")),
            agents.len(),
        )),
    ];
    if let Some(lost) = &view.lost {
        top.push(Span::styled(format!("  not live: {lost}"), of_state("gone")));
    }
    let summary = health["summary"].as_str().unwrap_or_default().to_owned();
    frame.render_widget(Paragraph::new(vec![Line::from(top), Line::from(summary)]), area);
}

fn nothing_yet(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let text = match &view.lost {
        Some(why) => {
            format!("{}: {why}\n\nIs an aggregator running there? Tried again …", view.url)
        }
        None => format!("{}: waiting for the first snapshot …", view.url),
    };
    frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: true }), area);
}

fn draw_foot(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let mut spans = Vec::new();
    if view.typing || !view.filter.is_empty() {
        let cursor = if view.typing { "▏" } else { "" };
        spans.push(Span::styled(format!("/{}{cursor}  ", view.filter), strong()));
    }
    for (number, tab) in Tab::ALL.into_iter().enumerate() {
        let style = if tab == view.tab { strong() } else { Style::default() };
        let name = match tab {
            Tab::Series => "series",
            Tab::Alerts => "alerts",
            Tab::Agents => "agents",
            Tab::Canary => "canary",
        };
        spans.push(Span::styled(format!("{} {name}  ", number + 1), style));
    }
    spans.push(Span::raw("s sort  / filter  ⏎ open  ? help  q quit"));
    frame.render_widget(Paragraph::new(Line::from(spans)), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let height = u16::try_from(HELP.len()).unwrap_or(0) + 2;
    let width = 62.min(area.width);
    let [_, row, _] = Layout::vertical([
        Constraint::Fill(1),
        Constraint::Length(height.min(area.height)),
        Constraint::Fill(1),
    ])
    .areas(area);
    let [_, place, _] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Length(width), Constraint::Fill(1)])
            .areas(row);
    let lines: Vec<Line<'_>> = HELP.iter().map(|line| Line::from(*line)).collect();
    frame.render_widget(Clear, place);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title("keys")), place);
}

fn draw_series(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let rows = view.rows();
    if rows.is_empty() {
        let why = if view.filter.is_empty() {
            "No series has been measured yet: is an agent connected (3), does a node record?"
        } else {
            "No series passes the filter; / then esc clears it."
        };
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
        return;
    }
    let wide = area.width >= COLUMNS_WIDE;
    let marked = |sort: Sort| {
        let arrow = if view.reverse { "↑" } else { "↓" };
        let mark = if view.sort == sort { arrow } else { "" };
        format!("{}{mark}", sort.title())
    };
    let right = |text: String| Line::from(text).right_aligned();
    let (stage, arm) = if wide { ("stage", "arm") } else { ("st", "arm") };
    let mut titles = vec![Line::from(marked(Sort::Series)), stage.into(), arm.into()];
    titles.push(right(marked(Sort::Count)));
    if wide {
        titles.push(right(marked(Sort::Rate)));
    }
    titles.extend([Sort::P50, Sort::P95, Sort::P99].map(|sort| right(marked(sort))));
    if wide {
        titles.push(right("p99.9".into()));
    }
    titles.extend([right(marked(Sort::Ratio)), Line::from("verdict")]);
    // At 80 columns the slice keeps 20 of them.
    let (stage, arm, count) = if wide { (7, 8, 10) } else { (3, 4, 9) };
    let mut widths = vec![Constraint::Fill(1)];
    widths.extend([stage, arm, count].map(Constraint::Length));
    if wide {
        widths.push(Constraint::Length(8));
    }
    widths.extend([Constraint::Length(7); 3]);
    if wide {
        widths.push(Constraint::Length(8));
    }
    widths.extend([Constraint::Length(6), Constraint::Length(if wide { 17 } else { 9 })]);
    let lines = rows.iter().map(|row| {
        let quantile = |key: &str| right(terminal::latency(row[key]["value_ms"].as_f64()));
        let verdict = text(row, "verdict");
        let mut cells = vec![
            Line::from(text(row, "slice")),
            if wide { text(row, "stage") } else { stage_of(text(row, "stage")) }.into(),
            if wide { text(row, "arm") } else { arm_of(text(row, "arm")) }.into(),
            right(terminal::count(number(row, "count"))),
        ];
        if wide {
            let rate = row["rate_per_s"].as_f64().map_or("–".into(), |rate| format!("{rate:.1}"));
            cells.push(right(rate));
        }
        cells.extend(["p50", "p95", "p99"].map(quantile));
        if wide {
            cells.push(quantile("p99_9"));
        }
        let ratio = row["ratio"].as_f64().map_or("–".into(), |ratio| format!("{ratio:.2}"));
        let short = if wide { verdict } else { short_of(verdict) };
        cells.extend([right(ratio), Line::styled(short, of_state(verdict))]);
        Row::new(cells)
    });
    let table = Table::new(lines, widths)
        .header(Row::new(titles).style(strong()))
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(Some(view.at));
    frame.render_stateful_widget(table, area, &mut state);
}

/// A stage in three letters.
fn stage_of(stage: &str) -> &str {
    match stage {
        "stage_a" => "A",
        "stage_b" => "B",
        "stage_c" => "C",
        other => other,
    }
}

/// An arm in four letters.
fn arm_of(arm: &str) -> &str {
    match arm {
        "baseline" => "base",
        "canary" => "can",
        other => other,
    }
}

/// A verdict in nine letters.
fn short_of(verdict: &str) -> &str {
    match verdict {
        "insufficient_data" => "too few",
        other => other,
    }
}

fn draw_detail(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let Some(row) = view.chosen() else { return };
    let interval = |key: &str| {
        let ms = |end: &str| terminal::latency(row[key][end].as_f64());
        match row[key]["reason"].as_str() {
            Some(reason) => format!("{:>9}  {reason}", "–"),
            None => format!("{:>9}  {} to {}", ms("value_ms"), ms("low_ms"), ms("high_ms")),
        }
    };
    let verdict = text(row, "verdict");
    let ratio = |key: &str| row[key].as_f64().map_or("–".into(), |ratio| format!("{ratio:.2}"));
    let mut lines = vec![
        Line::styled(
            format!("{} {} {}", text(row, "slice"), text(row, "stage"), text(row, "arm")),
            strong(),
        ),
        Line::from(vec![
            Span::styled(verdict.to_owned(), of_state(verdict)),
            Span::raw(format!(": {}", text(row, "reason"))),
        ]),
        Line::from(format!(
            "p99/p95 {} ({} to {}), limit {}",
            ratio("ratio"),
            ratio("ratio_low"),
            ratio("ratio_high"),
            ratio("ratio_max"),
        )),
    ];
    lines.extend(
        ["p50", "p95", "p99", "p99_9"]
            .map(|key| Line::from(format!("{:5} {}", key.replace('_', "."), interval(key)))),
    );
    let heading = u16::try_from(lines.len()).unwrap_or(0) + 1;
    let [above, below] =
        Layout::vertical([Constraint::Length(heading), Constraint::Min(0)]).areas(area);
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: false }), above);
    draw_spectrum(frame, &view.spectrum, below);
}

/// Latency over the quantile, each ninth of the distance to 1 as wide as the one before.
fn draw_spectrum(frame: &mut Frame<'_>, spectrum: &Value, area: Rect) {
    let points: Vec<(f64, f64)> = spectrum["quantiles"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|point| Some((point["q"].as_f64()?, point["value_ms"].as_f64()?)))
        .filter(|(q, ms)| *q < 1.0 && *ms > 0.0)
        .map(|(q, ms)| (-(1.0 - q).log10(), ms.log10()))
        .collect();
    if points.len() < 2 || area.height < 5 {
        let why = spectrum["quantiles_reason"].as_str().unwrap_or("waiting for the spectrum …");
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
        return;
    }
    let ends = |of: fn(&(f64, f64)) -> f64| {
        points
            .iter()
            .map(of)
            .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
    };
    let (right, (low, high)) = (ends(|point| point.0).1, ends(|point| point.1));
    let (low, high) = (low.floor(), high.ceil().max(low.floor() + 1.0));
    let ticks = ["0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"];
    let shown = ticks.iter().zip(0_u32..).take_while(|(_, at)| f64::from(*at) <= right.ceil());
    let labels: Vec<Line<'_>> = shown.map(|(label, _)| Line::from(*label)).collect();
    let across = f64::from(u32::try_from(labels.len().saturating_sub(1)).unwrap_or(1).max(1));
    let exponents = (0_i32..).map(f64::from).map(|step| low + step);
    let decades: Vec<Line<'_>> = exponents
        .take_while(|exponent| *exponent <= high)
        .map(|exponent| Line::from(terminal::latency(Some(10_f64.powf(exponent)))))
        .collect();
    let curve = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(paint(Color::Cyan))
        .data(&points);
    let count = terminal::count(number(spectrum, "count"));
    let chart = Chart::new(vec![curve])
        .block(Block::new().title(format!("latency by quantile, {count} samples")))
        .x_axis(Axis::default().bounds([0.0, across]).labels(labels))
        .y_axis(Axis::default().bounds([low, high]).labels(decades));
    frame.render_widget(chart, area);
}

fn draw_alerts(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let open = view.list(&["alerts", "open"]);
    if open.is_empty() {
        frame.render_widget(Paragraph::new("No alert is open."), area);
        return;
    }
    let lines = open.iter().map(|alert| {
        let state = text(alert, "state");
        Row::new(vec![
            Line::styled(state, of_state(state)),
            text(alert, "severity").into(),
            text(alert, "key").into(),
            text(alert, "summary").into(),
        ])
    });
    let widths =
        [Constraint::Length(12), Constraint::Length(8), Constraint::Fill(1), Constraint::Fill(2)];
    let titles = Row::new(["state", "severity", "alert", "what"]).style(strong());
    let table = Table::new(lines, widths)
        .header(titles)
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(Some(view.at));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_agents(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let agents = view.list(&["agents"]);
    if agents.is_empty() {
        let why = "No agent has come yet: lens certs issue --agent NAME, then lens-agent.";
        frame.render_widget(Paragraph::new(why).wrap(Wrap { trim: true }), area);
        return;
    }
    let lines = agents.iter().map(|agent| {
        let state = if agent["connected"] == true { "connected" } else { "gone" };
        let ms = |key: &str| Line::from(terminal::latency(agent[key].as_f64())).right_aligned();
        Row::new(vec![
            Line::from(text(agent, "name")),
            Line::styled(state, of_state(state)),
            Line::from(terminal::count(number(agent, "samples"))).right_aligned(),
            ms("lag_ms"),
            ms("clock_offset_ms"),
            text(agent, "version").into(),
        ])
    });
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(14),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(10),
    ];
    let right = |text: &'static str| Line::from(text).right_aligned();
    let titles = Row::new([
        Line::from("agent"),
        "state".into(),
        right("samples"),
        right("lag"),
        right("clock"),
        "version".into(),
    ]);
    let table = Table::new(lines, widths)
        .header(titles.style(strong()))
        .row_highlight_style(Style::default().add_modifier(Modifier::REVERSED));
    let mut state = TableState::default().with_selected(Some(view.at));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_canary(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let canary = &view.snapshot["canary"];
    if canary.is_null() {
        let why = "No rollout is under way: lens canary start.";
        frame.render_widget(Paragraph::new(why), area);
        return;
    }
    let share = canary["share_percent"].as_f64();
    let phase = text(canary, "phase");
    let mut lines = vec![
        Line::from(vec![
            Span::styled(phase.to_owned(), of_state(phase)),
            Span::raw(share.map_or(String::new(), |share| format!("  {share} % of requests"))),
            Span::raw(format!("  {}", canary["version"].as_str().unwrap_or_default())),
        ]),
        Line::from(canary["reason"].as_str().unwrap_or_default().to_owned()),
    ];
    for blocker in canary["blockers"].as_array().into_iter().flatten() {
        lines.push(Line::from(format!("· {}", text(blocker, "message"))));
    }
    frame.render_widget(Paragraph::new(lines).wrap(Wrap { trim: true }), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::json;

    fn screen(view: &View, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let cells: Vec<&str> = buffer.content.iter().map(|cell| cell.symbol()).collect();
        let lines = cells.chunks(usize::from(columns)).map(|line| line.concat());
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    fn view() -> View {
        let value = |ms: f64| json!({"value_ms": ms, "low_ms": ms * 0.9, "high_ms": ms * 1.1});
        let row = json!({"slice": "backend/rust/large", "stage": "stage_b", "arm": "baseline",
            "count": 48_120, "rate_per_s": 160.5, "p50": value(1.5), "p95": value(12.0),
            "p99": value(30.0), "p99_9": {"value_ms": null, "reason": "12 samples; 2995 needed"},
            "ratio": 2.5, "ratio_low": 2.3, "ratio_high": 2.7, "ratio_max": 2.0,
            "verdict": "violation", "reason": "p99 is 2.50 times p95"});
        let few = json!({"slice": "web/go/small", "stage": "stage_a", "arm": "canary",
            "count": 3, "verdict": "insufficient_data"});
        let mut view = View::new("http://here", Sort::Series, "");
        let agent = json!({"name": "host-1", "connected": true, "samples": 9, "lag_ms": 1.25});
        let alert = json!({"state": "firing", "severity": "critical",
            "key": "tail/backend/rust/large/stage_b/baseline", "summary": "p99 is too far from p95"});
        view.take(
            &json!({"rows": [row, few], "agents": [agent], "alerts": {"open": [alert]},
                "health": {"status": "critical", "summary": "1 of 2 slices in violation"},
                "totals": {"samples": 48_123}}),
            None,
        );
        view
    }

    #[test]
    fn the_table_fits_80_by_24_and_says_every_verdict_in_words() {
        let shown = screen(&view(), 80, 24);
        for part in [
            "critical",
            "48 123 samples",
            "1/1 agents",
            "1 of 2 slices in violation",
            "backend/rust/large",
            "48 120",
            "1.50 ms",
            "30.0 ms",
            "2.50",
            "violation",
            "too few",
        ] {
            assert!(shown.contains(part), "{part:?} missing in\n{shown}");
        }
        assert!(!shown.contains("rate/s"), "{shown}");
        assert!(screen(&view(), 140, 24).contains("160.5"));
    }

    #[test]
    fn a_series_opened_shows_intervals_reasons_and_its_spectrum() {
        let mut view = view();
        view.detail = true;
        let point = |q: f64| json!({"q": q, "value_ms": 1.0 / (1.0 - q)});
        let points = [0.1, 0.5, 0.9, 0.99, 0.999].map(point);
        view.spectrum = json!({"count": 9_000, "quantiles": points});
        let shown = screen(&view, 80, 24);
        for part in [
            "27.0 ms to 33.0 ms",
            "12 samples; 2995 needed",
            "2.50 (2.30 to 2.70), limit 2.00",
            "9 000 samples",
            "99 %",
            "100 ms",
        ] {
            assert!(shown.contains(part), "{part:?} missing in\n{shown}");
        }
        assert!(shown.contains('⠉') || shown.chars().any(|c| ('⠁'..='⣿').contains(&c)), "{shown}");
    }

    #[test]
    fn other_tabs_show_what_there_is_and_say_what_there_is_not() {
        let mut view = view();
        for (tab, part) in
            [(Tab::Alerts, "tail/backend"), (Tab::Agents, "host-1"), (Tab::Canary, "No rollout")]
        {
            view.tab = tab;
            let shown = screen(&view, 80, 24);
            assert!(shown.contains(part), "{part:?} missing in\n{shown}");
        }
        view.take(&json!({"rows": []}), None);
        for (tab, part) in [
            (Tab::Series, "No series has been measured yet"),
            (Tab::Alerts, "No alert is open"),
            (Tab::Agents, "No agent has come yet"),
        ] {
            view.tab = tab;
            assert!(screen(&view, 80, 24).contains(part), "{part}");
        }
    }

    #[test]
    fn an_aggregator_that_is_gone_is_said_and_any_size_is_drawn() {
        let mut fresh = View::new("http://here", Sort::Series, "");
        fresh.take(&Value::Null, Some("connection refused"));
        assert!(screen(&fresh, 80, 24).contains("connection refused"));
        let mut view = view();
        view.take(&Value::Null, Some("connection refused"));
        assert!(screen(&view, 100, 24).contains("not live"));
        for detail in [false, true] {
            view.detail = detail;
            view.help = detail;
            for (columns, rows) in [(1, 1), (39, 24), (40, 8), (80, 9), (300, 100)] {
                screen(&view, columns, rows);
            }
        }
        assert!(screen(&view, 39, 24).contains("lens top needs"));
    }
}
