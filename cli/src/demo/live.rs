//! What the demo shows while it runs: progress, then a table that is redrawn in place.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lens_benches::load::search::SearchProgress;
use serde_json::Value;

use super::Node;
use super::summary::Summary;
use crate::terminal;

/// Pause between two drawings on a terminal, and between two tables elsewhere.
const REDRAW: Duration = Duration::from_secs(1);
const REPRINT: Duration = Duration::from_secs(15);

/// The demo's face.
#[derive(Debug)]
pub(crate) struct Live {
    quiet: bool,
    terminal: bool,
    began: Instant,
    drawn_lines: usize,
    indexing: BTreeMap<String, (u64, u64)>,
    said_percent: u64,
    restarts: usize,
}

impl Live {
    /// A face that, with `json`, keeps standard output for the summary alone.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            quiet: json,
            terminal: !json && std::io::stdout().is_terminal(),
            began: Instant::now(),
            drawn_lines: 0,
            indexing: BTreeMap::new(),
            said_percent: 0,
            restarts: 0,
        }
    }

    /// How often [`Live::show`] is worth calling.
    pub(crate) fn interval(&self) -> Duration {
        if self.terminal { REDRAW } else { REPRINT }
    }

    /// A sentence on standard error.
    #[allow(clippy::print_stderr)]
    pub(crate) fn say(&mut self, text: &str) {
        self.drawn_lines = 0;
        eprintln!("[{:5.1} s] {text}", self.began.elapsed().as_secs_f64());
    }

    /// A process was killed and started again.
    pub(crate) fn restarted(&mut self, text: &str) {
        self.restarts += 1;
        self.say(text);
    }

    /// Progress of one node's indexing.
    #[allow(clippy::print_stderr)]
    pub(crate) fn indexing(&mut self, who: &str, line: &Value) {
        let number = |key: &str| line[key].as_u64().unwrap_or(0);
        self.indexing.insert(who.to_owned(), (number("files"), number("of")));
        let (files, of) = self.indexing.values().fold((0, 0), |sum, n| (sum.0 + n.0, sum.1 + n.1));
        let percent = (files * 100).checked_div(of).unwrap_or(0);
        if self.terminal || std::io::stderr().is_terminal() {
            let filled = usize::try_from(percent / 4).unwrap_or(0).min(25);
            let bar = format!("{}{}", "█".repeat(filled), "░".repeat(25 - filled));
            eprint!(
                "\r[{:5.1} s] indexing {bar} {files} of {of} files ",
                self.began.elapsed().as_secs_f64()
            );
        } else if percent >= self.said_percent + 25 {
            self.said_percent = percent / 25 * 25;
            self.say(&format!("indexing {percent} %: {files} of {of} files"));
        }
    }

    /// All nodes are done indexing.
    #[allow(clippy::print_stderr)]
    pub(crate) fn indexed(&mut self, nodes: &[Node]) {
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        for node in nodes {
            self.say(&format!(
                "{}: {} files of {} repositories in {} slices, indexed in {:.1} s",
                node.name,
                node.files,
                node.repos,
                node.slices,
                node.indexing_ms as f64 / 1e3,
            ));
        }
    }

    /// The table as of now.
    #[allow(clippy::print_stdout)]
    pub(crate) fn show(
        &mut self,
        snapshot: &Value,
        canary: &str,
        progress: &SearchProgress,
        elapsed: Duration,
        whole: Duration,
    ) {
        if self.quiet || snapshot.is_null() {
            return;
        }
        let colour = terminal::wants_colour();
        let count = |counter: &std::sync::atomic::AtomicU64| {
            terminal::count(counter.load(Ordering::Relaxed))
        };
        let mut lines = vec![format!(
            "{:.0} of {:.0} s   queries {} sent, {} answered, {} failed   samples merged {}   {}",
            elapsed.as_secs_f64(),
            whole.as_secs_f64(),
            count(&progress.sent),
            count(&progress.ok),
            count(&progress.errors),
            terminal::count(snapshot["totals"]["samples"].as_u64().unwrap_or(0)),
            snapshot["health"]["status"].as_str().unwrap_or("–"),
        )];
        if self.restarts > 0 {
            lines[0].push_str(&format!("   restarts {}", self.restarts));
        }
        lines.push(canary.to_owned());
        lines.extend(terminal::table(snapshot, colour));
        if self.terminal {
            lines = terminal::fit(lines, terminal::size());
        }
        let mut out = std::io::stdout().lock();
        let mut text = String::new();
        if self.terminal && self.drawn_lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn_lines));
        }
        for line in &lines {
            text.push_str(line);
            text.push_str(if self.terminal { "\x1b[K\n" } else { "\n" });
        }
        if self.terminal {
            text.push_str("\x1b[J");
        }
        // A closed pipe is no reason to stop: the summary's exit code still counts.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
        self.drawn_lines = lines.len();
    }

    /// The end.
    #[allow(clippy::print_stdout)]
    pub(crate) fn summary(&mut self, summary: &Summary, json: bool) {
        if json {
            println!("{}", summary.json());
        } else {
            println!("\n{}", summary.text());
        }
    }
}

/// Opens the page where there is a desktop to open it on.
pub(crate) fn open_browser(url: &str) {
    let desktop = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|v| std::env::var_os(v).is_some());
    if desktop {
        let mut command = Command::new("xdg-open");
        command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Without a browser the printed address serves as well.
        command.spawn().ok();
    }
}
