//! A real Prometheus beside a test, at a port of its own, and what it answers.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use super::peers::present;
use super::{Process, http, until};

/// Flags with which Debian's Prometheus keeps exemplars and takes native histograms both ways.
pub const NATIVE: [&str; 2] =
    ["--enable-feature=native-histograms,exemplar-storage", "--web.enable-remote-write-receiver"];

/// A free port, taken by nobody for the moment.
pub fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A file of this checkout.
pub fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Runs promtool to its end, with this on its standard input.
pub fn promtool(args: &[&str], input: &str) -> Option<Output> {
    let program = present(Path::new("/usr/bin/promtool"))?;
    let mut command = Command::new(program);
    command.args(args);
    Some(feed(command, input))
}

/// Runs a command to its end, with this on its standard input.
pub fn feed(mut command: Command, input: &str) -> Output {
    use std::io::Write;
    use std::process::Stdio;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// A running Prometheus; ended when dropped.
pub struct Prometheus {
    /// Where it listens.
    pub address: String,
    _process: Process,
}

impl Prometheus {
    /// Starts one with these further flags, scraping these addresses once a second; `None` where
    /// there is none.
    pub fn start(
        dir: &Path,
        name: &str,
        address: &str,
        scraped: &[&str],
        flags: &[&str],
    ) -> Option<Self> {
        let program = present(Path::new("/usr/bin/prometheus"))?;
        let rules = shipped("deploy/prometheus/rules").canonicalize().unwrap();
        let targets = serde_json::to_string(scraped).unwrap();
        let file = dir.join(format!("{name}.yml"));
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['{}/*.yml']\n\
             scrape_configs: [{{job_name: lens, static_configs: [{{targets: {targets}}}]}}]\n",
            rules.display()
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join(name).display()))
            .arg(format!("--web.listen-address={address}"))
            .args(flags);
        let process = Process::start(name, dir, command);
        let own = Self { address: address.to_owned(), _process: process };
        until("prometheus", || match http::get(&own.address, "/-/ready")? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status} {body}")),
        });
        Some(own)
    }

    /// The instant vector of a query: labels and value.
    pub fn query(&self, query: &str) -> Result<Vec<(Value, f64)>, String> {
        let path = format!("/api/v1/query?query={}", encoded(query));
        let answer = http::json(&self.address, &path)?;
        let found = answer["data"]["result"].as_array().ok_or("no result")?;
        let value = |one: &Value| {
            let text = one["value"][1].as_str().unwrap_or("NaN");
            (one["metric"].clone(), text.parse().unwrap_or(f64::NAN))
        };
        Ok(found.iter().map(value).collect())
    }

    /// The exemplars of series that a selector matches, of the last hour.
    pub fn exemplars(&self, selector: &str) -> Result<Vec<Value>, String> {
        let end = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let (query, end) = (encoded(selector), end.as_secs() + 60);
        let path = format!("/api/v1/query_exemplars?query={query}&start={}&end={end}", end - 3_600);
        let answer = http::json(&self.address, &path)?;
        let found = answer["data"].as_array().ok_or_else(|| answer.to_string())?;
        let of_series = |one: &Value| one["exemplars"].as_array().cloned().unwrap_or_default();
        Ok(found.iter().flat_map(of_series).collect())
    }

    /// The one value of a query.
    pub fn value(&self, query: &str) -> Result<f64, String> {
        match &self.query(query)?[..] {
            [(_, value)] => Ok(*value),
            found => Err(format!("{query}: {} series: {found:?}", found.len())),
        }
    }
}

fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}
