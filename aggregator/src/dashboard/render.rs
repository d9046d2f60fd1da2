//! The document: the page's frame, and its tiles and table as they stand at one instant.
//!
//! Rows are written here once and as `<template>`s of the same shape, which the script clones for
//! series that appear later; so there is one markup of a row, and the script only fills fields.
//! Promise: pure; every text that is not a literal passes through [`Text`], which escapes it.
//! Numbers are formatted as page.js formats them: three significant digits.

use std::fmt::{self, Display, Write};

use lens_model::{Arm, Stage};

use crate::judge::{HealthStatus, Verdict};
use crate::snapshot::{Row, Snapshot, Value};

/// Stages in the order the page shows them: the whole first, then its parts.
const STAGES: [Stage; 4] = [Stage::E2e, Stage::A, Stage::B, Stage::C];

/// Columns of the table of all series: field, heading, whether numeric.
const COLUMNS: [(&str, &str, bool); 14] = [
    ("slice", "slice", false),
    ("stage", "stage", false),
    ("arm", "arm", false),
    ("count", "count", true),
    ("rate", "rate", true),
    ("p50", "p50", true),
    ("p95", "p95", true),
    ("p99", "p99", true),
    ("p99_9", "p99.9", true),
    ("ratio", "p99/p95", true),
    ("delta", "Δp99 canary", true),
    ("verdict", "verdict", false),
    ("age", "age", true),
    ("hosts", "hosts", true),
];

/// Whom the page is rendered for.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    /// Their name; empty when nobody is known to ask.
    pub name: String,
    /// Verbs that change something and that they may, by name.
    pub may: Vec<&'static str>,
    /// Whether anyone may everything here.
    pub open: bool,
}

/// The page as of `snapshot` for `reader`, a complete HTML document.
pub fn render(snapshot: &Snapshot, reader: &Reader) -> String {
    Page(snapshot, reader).to_string()
}

struct Page<'a>(&'a Snapshot, &'a Reader);

impl Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(snapshot, reader) = self;
        let (status, word) = health(snapshot.health.status);
        let fed = if snapshot.slices.is_empty() { " hidden" } else { "" };
        let unfed = if snapshot.rows.is_empty() { "" } else { " hidden" };
        let freshest = snapshot.rows.iter().map(|row| row.age_s).min_by(f64::total_cmp);
        write!(
            f,
            include_str!("assets/page.html"),
            status = status,
            word = word,
            may = reader.may.join(" "),
            open = reader.open,
            who = Who(reader),
            summary = Text(&snapshot.health.summary),
            agents = snapshot.totals.agents_connected,
            agents_all = snapshot.totals.agents,
            samples = Count(snapshot.totals.samples),
            rate = Rate(snapshot.totals.rate_per_s),
            fresh = freshest.map_or("never".to_owned(), |age| format!("{} ago", Age(age))),
            at = Text(&lens_service::time::rfc3339(snapshot.t)),
            window = Age(snapshot.window_s),
            fed = fed,
            unfed = unfed,
            tiles = Tiles(snapshot),
            head = Head,
            rows = Rows(snapshot),
            tile = Tile { slice: "", rows: &[] },
            mini = Mini { row: None, under: false },
            row = Series { row: None, baseline: None },
        )
    }
}

fn health(status: HealthStatus) -> (&'static str, &'static str) {
    match status {
        HealthStatus::Healthy => ("healthy", "Healthy"),
        HealthStatus::Degraded => ("degraded", "Degraded"),
        HealthStatus::Critical => ("critical", "Critical"),
    }
}

fn place(stage: Stage) -> usize {
    STAGES.iter().position(|shown| *shown == stage).unwrap_or(STAGES.len())
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::E2e => "e2e",
        Stage::A => "A lexical",
        Stage::B => "B symbols",
        Stage::C => "C rerank",
    }
}

/// What a row says in one word, and the shape that goes with it: the tail verdict, unless a limit
/// of the stage is broken, which is worse.
fn verdict(row: &Row) -> (Verdict, &'static str) {
    match row.verdict {
        Verdict::Stale => (Verdict::Stale, "stale"),
        Verdict::Violation => (Verdict::Violation, "violation"),
        _ if row.slo_ok == Some(false) => (Verdict::Violation, "over limit"),
        Verdict::InsufficientData => (Verdict::InsufficientData, "few samples"),
        Verdict::Ok => (Verdict::Ok, "ok"),
    }
}

/// The interval of a row's ratio, or why it has no ratio.
fn bounds(row: &Row) -> String {
    match (row.ratio, row.ratio_low, row.ratio_high) {
        (None, ..) => row.reason.clone(),
        (Some(_), Some(low), Some(high)) => {
            format!("95 % interval {} to {}, limit {}", Ratio(low), Ratio(high), row.ratio_max)
        }
        (Some(_), ..) => format!("limit {}", row.ratio_max),
    }
}

/// The sentence behind [`verdict`], with each broken limit.
fn why(row: &Row) -> String {
    let mut why = row.reason.clone();
    for slo in row.slo.iter().filter(|slo| slo.state == Verdict::Violation) {
        let value = slo.value_ms.map_or("above range".to_owned(), |ms| Millis(ms).to_string());
        why += &format!("; {} is {value}, more than {}", slo.quantile, Millis(slo.limit_ms));
    }
    why
}

fn worst<'a>(rows: impl IntoIterator<Item = &'a Row>) -> (Verdict, &'static str) {
    let rank = |verdict: Verdict| match verdict {
        Verdict::Violation => 0,
        Verdict::Stale => 1,
        Verdict::InsufficientData => 2,
        Verdict::Ok => 3,
    };
    let nothing = (Verdict::InsufficientData, "few samples");
    rows.into_iter().map(verdict).min_by_key(|(verdict, _)| rank(*verdict)).unwrap_or(nothing)
}

struct Tiles<'a>(&'a Snapshot);

impl Display for Tiles<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for slice in &self.0.slices {
            let mut rows: Vec<&Row> =
                self.0.rows.iter().filter(|row| row.slice == *slice).collect();
            rows.sort_by_key(|row| (place(row.stage), row.arm));
            Tile { slice: &slice.to_string(), rows: &rows }.fmt(f)?;
        }
        Ok(())
    }
}

struct Tile<'a> {
    slice: &'a str,
    rows: &'a [&'a Row],
}

impl Display for Tile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (worst, word) = worst(self.rows.iter().copied());
        let freshest = self.rows.iter().map(|row| row.age_s).min_by(f64::total_cmp);
        let seen = freshest.map_or("never seen".to_owned(), |age| format!("seen {} ago", Age(age)));
        write!(
            f,
            "<article class=\"card tile\" data-key=\"{slice}\" data-v=\"{worst}\">\
             <header><h3>{slice}</h3><small>{seen}</small>{badge}</header>\
             <table><thead><tr><th scope=\"col\">stage</th><th scope=\"col\" class=\"num\">p95</th>\
             <th scope=\"col\" class=\"num\">p99</th><th scope=\"col\" class=\"num\">p99/p95</th>\
             <th scope=\"col\" class=\"num\">count</th><th scope=\"col\">verdict</th></tr></thead>\
             <tbody>",
            slice = Text(self.slice),
            badge = Badge { verdict: worst, word, class: "v chip", title: "" },
        )?;
        let mut before = None;
        for row in self.rows {
            let under = row.arm == Arm::Canary && before == Some(row.stage);
            before = Some(row.stage);
            Mini { row: Some(row), under }.fmt(f)?;
        }
        f.write_str("</tbody></table></article>")
    }
}

struct Mini<'a> {
    row: Option<&'a Row>,
    under: bool,
}

impl Display for Mini<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.row {
            None => String::new(),
            Some(row) if self.under => format!("↳ {}", row.arm),
            Some(row) if row.arm == Arm::Canary => format!("{} canary", stage(row.stage)),
            Some(row) => stage(row.stage).to_owned(),
        };
        begin(f, self.row, if self.under { "sub" } else { "" })?;
        write!(f, "<th scope=\"row\"><button type=\"button\">{name}</button></th>")?;
        for field in ["p95", "p99", "ratio", "count", "verdict"] {
            cell(f, field, self.row)?;
        }
        f.write_str("</tr>")
    }
}

struct Head;

impl Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, heading, numeric) in COLUMNS {
            let class = if numeric { " class=\"num\"" } else { "" };
            write!(
                f,
                "<th scope=\"col\" data-c=\"{field}\"{class}><button type=\"button\">{heading}</button></th>"
            )?;
        }
        Ok(())
    }
}

struct Rows<'a>(&'a Snapshot);

impl Display for Rows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<&Row> = self.0.rows.iter().collect();
        rows.sort_by_key(|row| (&row.slice, place(row.stage), row.arm));
        let mut before: Option<&Row> = None;
        for row in rows {
            let same = |other: &&Row| other.slice == row.slice && other.stage == row.stage;
            let baseline = before.filter(|_| row.arm == Arm::Canary).filter(same);
            Series { row: Some(row), baseline }.fmt(f)?;
            before = Some(row);
        }
        Ok(())
    }
}

/// A row of the table; a canary's beside its baseline, if there is one.
struct Series<'a> {
    row: Option<&'a Row>,
    baseline: Option<&'a Row>,
}

impl Display for Series<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, baseline } = *self;
        begin(f, row, "")?;
        let slice = row.map(|row| row.slice.to_string()).unwrap_or_default();
        write!(f, "<th scope=\"row\"><button type=\"button\">{}</button></th>", Text(&slice))?;
        for (field, ..) in &COLUMNS[1..] {
            match *field {
                "delta" => delta(f, row, baseline)?,
                field => cell(f, field, row)?,
            }
        }
        f.write_str("</tr>")
    }
}

fn begin(f: &mut fmt::Formatter<'_>, row: Option<&Row>, class: &str) -> fmt::Result {
    let Some(row) = row else { return f.write_str("<tr>") };
    let (stage, arm) = (row.stage, row.arm);
    let more = if class.is_empty() { "" } else { "+" };
    write!(
        f,
        "<tr class=\"{class}\" data-key=\"{}|{stage}|{arm}{more}\" data-stage=\"{stage}\" data-arm=\"{arm}\">",
        Text(&row.slice.to_string()),
    )
}

/// One cell: `<td data-f=field>` with a `<span>` for the value, text for screen readers where
/// nothing was measured, and for p99 its interval in small. Without a row, the same shape, empty.
fn cell(f: &mut fmt::Formatter<'_>, field: &str, row: Option<&Row>) -> fmt::Result {
    let broken = |quantile: &str| {
        row.is_some_and(|row| {
            row.slo.iter().any(|slo| slo.quantile == quantile && slo.state == Verdict::Violation)
        })
    };
    let quantile = |f: &mut fmt::Formatter<'_>, value: Option<&Value>| {
        let shown = value.and_then(|value| value.value_ms);
        let title = match value {
            Some(Value { reason: Some(reason), .. }) => reason.clone(),
            Some(value) => {
                interval(value).map(|i| format!("95 % interval {i}")).unwrap_or_default()
            }
            None => String::new(),
        };
        let hot = if broken(field) { " hot" } else { "" };
        number(f, field, hot, shown.map(Millis), &title)
    };
    match field {
        "p50" => quantile(f, row.map(|row| &row.p50)),
        "p95" => quantile(f, row.map(|row| &row.p95)),
        "p99" => quantile(f, row.map(|row| &row.p99)),
        "p99_9" => quantile(f, row.map(|row| &row.p99_9)),
        "ratio" => {
            let hot = row.is_some_and(|row| row.verdict == Verdict::Violation);
            let ratio = row.and_then(|row| row.ratio).map(Ratio);
            number(
                f,
                field,
                if hot { " hot" } else { "" },
                ratio,
                &row.map_or_else(String::new, bounds),
            )
        }
        "count" => number(f, field, "", row.map(|row| Count(row.count)), ""),
        "rate" => number(f, field, "", row.map(|row| Rate(row.rate_per_s)), ""),
        "age" => number(f, field, "", row.map(|row| Age(row.age_s)), ""),
        "hosts" => number(f, field, "", row.map(|row| row.hosts), ""),
        "stage" => {
            write!(f, "<td data-f=\"stage\">{}</td>", row.map_or("", |row| stage(row.stage)))
        }
        "arm" => write!(f, "<td data-f=\"arm\">{}</td>", row.map_or("", |row| row.arm.as_str())),
        _ => {
            let (verdict, word) = row.map_or((Verdict::InsufficientData, ""), verdict);
            let title = row.map(why).unwrap_or_default();
            write!(f, "<td>{}</td>", Badge { verdict, word, class: "v", title: &title })
        }
    }
}

/// How much slower the canary's p99 is than its baseline's, percent.
fn delta(f: &mut fmt::Formatter<'_>, row: Option<&Row>, baseline: Option<&Row>) -> fmt::Result {
    let p99 = |row: Option<&Row>| row.and_then(|row| row.p99.value_ms);
    let change = match (p99(row), p99(baseline)) {
        (Some(canary), Some(baseline)) if baseline > 0.0 => Some(Change(canary / baseline)),
        _ => None,
    };
    let title = match row.map(|row| row.arm) {
        None => "",
        Some(Arm::Canary) if baseline.is_none() => "no baseline of this stage",
        Some(Arm::Canary) if change.is_none() => "too few samples for p99 in one of the arms",
        Some(Arm::Canary) => "",
        Some(Arm::Baseline) => "the canary’s rows hold the difference",
    };
    number(f, "delta", "", change, title)
}

fn number(
    f: &mut fmt::Formatter<'_>,
    field: &str,
    class: &str,
    value: Option<impl Display>,
    title: &str,
) -> fmt::Result {
    let title = Text(title);
    write!(f, "<td class=\"num{class}\" data-f=\"{field}\" title=\"{title}\"><span>")?;
    match value {
        Some(value) => write!(f, "{value}</span><span class=\"vh\"></span></td>"),
        None => write!(f, "–</span><span class=\"vh\"> not measured: {title}</span></td>"),
    }
}

fn interval(value: &Value) -> Option<String> {
    Some(format!("{} – {}", Millis(value.low_ms?), Millis(value.high_ms?)))
}

struct Badge<'a> {
    verdict: Verdict,
    word: &'a str,
    class: &'a str,
    title: &'a str,
}

impl Display for Badge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verdict, word, class, title } = self;
        // One that opens its evidence is a button.
        let (tag, kind) = if *class == "v" { ("button", " type=\"button\"") } else { ("span", "") };
        write!(
            f,
            "<{tag}{kind} class=\"{class}\" data-v=\"{verdict}\" title=\"{}\">\
             <svg aria-hidden=\"true\"><use href=\"#i-{verdict}\"/></svg><b>{word}</b></{tag}>",
            Text(title),
        )
    }
}

/// Who is signed in, for the foot of the page.
struct Who<'a>(&'a Reader);

impl Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Reader { open: true, .. } => f.write_str("Anyone may do anything here."),
            reader => write!(
                f,
                "Signed in as {}; <a href=\"/auth/sign-in\">sign in or out</a>.",
                Text(&reader.name)
            ),
        }
    }
}

/// Text made safe for content and for quoted attributes.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// `x` with three significant digits, none of them an exponent.
fn three(f: &mut fmt::Formatter<'_>, x: f64) -> fmt::Result {
    match rounded(x) {
        y if y >= 100.0 => write!(f, "{y:.0}"),
        y if y >= 10.0 => write!(f, "{y:.1}"),
        y => write!(f, "{y:.2}"),
    }
}

fn rounded(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap_or(x)
}

/// Milliseconds, shown in µs, ms or s.
struct Millis(f64);

impl Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (factor, unit) = match rounded(self.0) {
            y if y >= 1_000.0 => (1e-3, "s"),
            y if y >= 1.0 || y == 0.0 => (1.0, "ms"),
            _ => (1e3, "µs"),
        };
        three(f, rounded(self.0) * factor)?;
        write!(f, " {unit}")
    }
}

struct Ratio(f64);

impl Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        three(f, self.0)?;
        f.write_str("×")
    }
}

/// A ratio as a change in percent with its sign.
struct Change(f64);

impl Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 >= 1.0 { "+" } else { "−" })?;
        three(f, (self.0 - 1.0).abs() * 100.0)?;
        f.write_str(" %")
    }
}

struct Count(u64);

impl Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let x = self.0 as f64;
        let (factor, unit) = match self.0 {
            0..10_000 => return write!(f, "{}", self.0),
            999_500_000.. => (1e-9, "G"),
            999_500.. => (1e-6, "M"),
            _ => (1e-3, "k"),
        };
        three(f, x * factor)?;
        write!(f, " {unit}")
    }
}

struct Rate(Option<f64>);

impl Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("–"),
            Some(0.0) => f.write_str("0/s"),
            Some(x) => {
                let (factor, unit) = if x >= 10_000.0 { (1e-3, " k") } else { (1.0, "") };
                three(f, x * factor)?;
                write!(f, "{unit}/s")
            }
        }
    }
}

/// Seconds, in the unit a person would use.
struct Age(f64);

impl Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s < 9.95 => write!(f, "{s:.1} s"),
            s if s < 120.0 => write!(f, "{s:.0} s"),
            s if s < 7_200.0 => write!(f, "{:.0} min", s / 60.0),
            s if s < 172_800.0 => write!(f, "{:.0} h", s / 3_600.0),
            s => write!(f, "{:.0} d", s / 86_400.0),
        }
    }
}
