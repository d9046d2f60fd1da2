//! The demo's processes: started as this very program in a role, watched, and stopped.
//!
//! Each has its own process group, so that a Ctrl-C in the terminal reaches only the demo, which
//! then stops them in order; each ends by itself when the demo's end of its standard input closes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Lines of a child's log shown when it fails.
const TAIL_LINES: usize = 6;

/// What a child said or did.
#[derive(Debug)]
pub(crate) enum Said {
    /// A line of JSON on its standard output.
    Line(Value),
    /// It ended.
    Ended,
}

/// One child process.
#[derive(Debug)]
pub(crate) struct Running {
    /// What people call it.
    pub name: String,
    /// Where its log goes.
    pub log: PathBuf,
    child: Child,
    pid: Option<Pid>,
}

/// A message from a child, by its name.
pub(crate) type Message = (String, Said);

/// Where the log of a process goes.
pub(crate) fn log(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

/// Starts this program in a role.
///
/// # Errors
/// A sentence for people.
pub(crate) fn start(
    name: &str,
    dir: &Path,
    args: &[String],
    to: &mpsc::UnboundedSender<Message>,
) -> Result<Running, String> {
    let fail = |what: &str, error: std::io::Error| format!("{name}: {what}: {error}");
    let program = std::env::current_exe().map_err(|error| fail("own program", error))?;
    let log = log(dir, name);
    let file = std::fs::File::options().create(true).append(true).open(&log);
    let file = file.map_err(|error| fail("log file", error))?;
    let mut child = Command::new(program)
        .arg("role")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(file)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| fail("cannot be started", error))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(stdout) = child.stdout.take() {
        let (to, name) = (to.clone(), name.to_owned());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(value) = serde_json::from_str(&line)
                    && to.send((name.clone(), Said::Line(value))).is_err()
                {
                    return;
                }
            }
            // Standard output closes when the process ends, however it ends.
            drop(to.send((name, Said::Ended)));
        });
    }
    Ok(Running { name: name.to_owned(), log, child, pid })
}

impl Running {
    /// Its process number, for whoever wants to look or to kill it.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.map_or(0, |pid| pid.as_raw_nonzero().get())
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = self.pid {
            // One that is gone already cannot be asked.
            kill_process(pid, Signal::TERM).ok();
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid {
            // One that is gone already cannot be killed.
            kill_process(pid, Signal::KILL).ok();
        }
    }

    /// Waits for its end at most `patience`, then ends it by force.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        if let Ok(status) = timeout(patience, self.child.wait()).await {
            return status.ok();
        }
        drop(self.child.start_kill());
        self.child.wait().await.ok()
    }

    /// How it ended and the end of its log, for people.
    pub(crate) async fn obituary(&mut self) -> String {
        let status = self.ended(Duration::from_secs(2)).await;
        let status = status.map_or("ended".into(), |status| format!("ended with {status}"));
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut tail: VecDeque<&str> = log.lines().rev().take(TAIL_LINES).collect();
        tail.make_contiguous().reverse();
        let mut text = format!("{} {status}", self.name);
        for line in tail {
            text.push_str("\n    ");
            text.push_str(line);
        }
        text
    }
}
