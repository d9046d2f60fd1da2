//! What `lens top` shows: the last snapshot, and which part of it in which order.

use clap::ValueEnum;
use serde_json::Value;

/// Longest filter, bytes.
pub(super) const FILTER_BYTES_MAX: usize = 64;

/// What series are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Sort {
    Series,
    Count,
    Rate,
    P50,
    P95,
    P99,
    Ratio,
}

impl Sort {
    pub(super) const ALL: [Self; 7] =
        [Self::Series, Self::Count, Self::Rate, Self::P50, Self::P95, Self::P99, Self::Ratio];

    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Series => "slice",
            Self::Count => "count",
            Self::Rate => "rate/s",
            Self::P50 => "p50",
            Self::P95 => "p95",
            Self::P99 => "p99",
            Self::Ratio => "ratio",
        }
    }

    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|sort| *sort == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }

    /// What a row is worth in this order; what was not measured comes last.
    fn key(self, row: &Value) -> f64 {
        let value = match self {
            Self::Series => None,
            Self::Count => row["count"].as_f64(),
            Self::Rate => row["rate_per_s"].as_f64(),
            Self::P50 => row["p50"]["value_ms"].as_f64(),
            Self::P95 => row["p95"]["value_ms"].as_f64(),
            Self::P99 => row["p99"]["value_ms"].as_f64(),
            Self::Ratio => row["ratio"].as_f64(),
        };
        value.unwrap_or(f64::NEG_INFINITY)
    }
}

/// The parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Series,
    Alerts,
    Agents,
    Canary,
}

impl Tab {
    pub(super) const ALL: [Self; 4] = [Self::Series, Self::Alerts, Self::Agents, Self::Canary];

    pub(super) fn next(self) -> Self {
        let at = Self::ALL.iter().position(|tab| *tab == self).unwrap_or(0);
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) url: String,
    pub(super) snapshot: Value,
    /// Why nothing is heard now.
    pub(super) lost: Option<String>,
    /// The histogram last heard of.
    pub(super) spectrum: Value,
    pub(super) tab: Tab,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// Whether keys are text of the filter.
    pub(super) typing: bool,
    /// Whether the chosen series is shown whole.
    pub(super) detail: bool,
    pub(super) help: bool,
    /// The chosen line of the tab.
    pub(super) at: usize,
}

impl View {
    pub(super) fn new(url: &str, sort: Sort, filter: &str) -> Self {
        Self {
            url: url.into(),
            snapshot: Value::Null,
            lost: None,
            spectrum: Value::Null,
            tab: Tab::Series,
            sort,
            reverse: false,
            filter: filter.chars().take(FILTER_BYTES_MAX / 4).collect(),
            typing: false,
            detail: false,
            help: false,
            at: 0,
        }
    }

    /// Takes the newest snapshot; the last one stays where there is none.
    pub(super) fn take(&mut self, snapshot: &Value, lost: Option<&str>) {
        if !snapshot.is_null() {
            self.snapshot = snapshot.clone();
        }
        self.lost = lost.map(Into::into);
        self.moved(0);
    }

    /// Moves the choice by so many lines, within what there is.
    pub(super) fn moved(&mut self, by: isize) {
        let last = self.lines().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
    }

    fn lines(&self) -> usize {
        match self.tab {
            Tab::Series => self.rows().len(),
            Tab::Alerts => self.list(&["alerts", "open"]).len(),
            Tab::Agents => self.list(&["agents"]).len(),
            Tab::Canary => 1,
        }
    }

    /// The objects of a list in the snapshot.
    pub(super) fn list(&self, path: &[&str]) -> &[Value] {
        let found = path.iter().fold(&self.snapshot, |value, key| &value[*key]);
        found.as_array().map_or(&[], Vec::as_slice)
    }

    /// The series that pass the filter, in order.
    pub(super) fn rows(&self) -> Vec<&Value> {
        let name = |row: &Value| name(row);
        let wanted = self.filter.to_ascii_lowercase();
        let mut rows: Vec<&Value> =
            self.list(&["rows"]).iter().filter(|row| name(row).contains(&wanted)).collect();
        // Largest first; equal ones, and series by name, in the order of the snapshot.
        rows.sort_by(|a, b| self.sort.key(b).total_cmp(&self.sort.key(a)));
        if self.reverse {
            rows.reverse();
        }
        rows
    }

    /// The chosen series.
    pub(super) fn chosen(&self) -> Option<&Value> {
        self.rows().get(self.at).copied()
    }

    /// The query for the chosen series' histogram, while it is shown.
    pub(super) fn wanted(&self) -> Option<String> {
        let row = self.chosen().filter(|_| self.detail && self.tab == Tab::Series)?;
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        let slice = text("slice").replace('+', "%2B").replace('#', "%23");
        Some(format!("slice={slice}&stage={}&arm={}&format=json", text("stage"), text("arm")))
    }
}

/// A series' name: slice, stage, arm, verdict.
fn name(row: &Value) -> String {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    format!("{} {} {} {}", text("slice"), text("stage"), text("arm"), text("verdict"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn view() -> View {
        let row = |slice: &str, count: u64, p99: Option<f64>| {
            json!({"slice": slice, "stage": "stage_a", "arm": "baseline", "count": count,
                "p99": {"value_ms": p99}, "verdict": "ok"})
        };
        let mut view = View::new("http://here", Sort::Series, "");
        let rows =
            [row("a/c++/x", 5, Some(2.0)), row("b/go/x", 9, None), row("c/go/x", 1, Some(7.0))];
        view.take(&json!({"rows": rows}), None);
        view
    }

    fn slices(view: &View) -> String {
        view.rows().iter().map(|row| &row["slice"].as_str().unwrap_or("?")[..1]).collect()
    }

    #[test]
    fn series_sort_by_any_column_and_what_was_not_measured_comes_last() {
        let mut view = view();
        assert_eq!(slices(&view), "abc");
        view.sort = Sort::Count;
        assert_eq!(slices(&view), "bac");
        view.sort = Sort::P99;
        assert_eq!(slices(&view), "cab");
        view.reverse = true;
        assert_eq!(slices(&view), "bac");
    }

    #[test]
    fn the_choice_stays_within_what_there_is() {
        let mut view = view();
        view.moved(isize::MAX);
        assert_eq!(view.at, 2);
        view.filter = "GO".into();
        view.moved(0);
        assert_eq!((slices(&view).as_str(), view.at), ("bc", 1));
        view.filter = "nothing".into();
        view.moved(5);
        assert!(view.chosen().is_none());
        assert_eq!(view.at, 0);
    }

    #[test]
    fn a_spectrum_is_wanted_of_what_is_open_alone_and_its_name_survives_an_address() {
        let mut view = view();
        assert_eq!(view.wanted(), None);
        view.detail = true;
        let query = view.wanted().unwrap();
        assert_eq!(query, "slice=a/c%2B%2B/x&stage=stage_a&arm=baseline&format=json");
    }

    #[test]
    fn the_last_snapshot_stays_when_the_aggregator_is_gone() {
        let mut view = view();
        view.take(&Value::Null, Some("connection refused"));
        assert_eq!(slices(&view), "abc");
        assert_eq!(view.lost.as_deref(), Some("connection refused"));
    }
}
