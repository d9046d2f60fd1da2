//! One process of the program under test.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::PATIENCE;

/// The program under test: the one built with a test, or, in a command that carries it, itself.
fn program_path() -> PathBuf {
    let built = option_env!("CARGO_BIN_EXE_lens-under-test").map(PathBuf::from);
    built.unwrap_or_else(|| std::env::current_exe().unwrap())
}

/// The program with an environment that says nothing about lens.
pub fn program() -> Command {
    let mut command = Command::new(program_path());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LENS_") {
            command.env_remove(name);
        }
    }
    command.env_remove("RUST_LOG").env_remove("DISPLAY").env_remove("WAYLAND_DISPLAY");
    command
}

/// Runs the program to its end, which must come by itself.
pub fn run(args: &[&str]) -> Output {
    let mut command = program();
    command.args(args);
    finish(command)
}

/// Runs a command of the program to its end, which must come by itself.
pub fn finish(mut command: Command) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A role runs for as long as its standard input is open.
    let stdin = child.stdin.take();
    if ended(&mut child, PATIENCE).is_none() {
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        panic!("{command:?} did not end: {}", String::from_utf8_lossy(&output.stderr));
    }
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn ended(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process of this number runs (one that ended and was not waited for does not).
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Sends a signal to a process of this number.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
}

/// A running process; ended by force when dropped, its log printed when the test failed.
pub struct Process {
    name: String,
    child: Child,
    /// Kept open: a role ends when it is closed.
    stdin: ChildStdin,
    lines: Receiver<Value>,
    log: PathBuf,
}

impl Process {
    /// Starts a role with these settings.
    pub fn role(name: &str, role: &str, dir: &Path, settings: &[(String, String)]) -> Self {
        Self::start(name, dir, Self::command(role, settings))
    }

    /// The command that starts a role with these settings.
    pub fn command(role: &str, settings: &[(String, String)]) -> Command {
        let mut command = program();
        command.args(["role", role]);
        for (key, value) in settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        command
    }

    /// Starts a command, its log beside those of an earlier process of that name.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (to, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line)
                    && to.send(value).is_err()
                {
                    return;
                }
            }
        });
        Self { name: name.into(), child, stdin, lines, log }
    }

    /// Says a line on its standard input.
    pub fn tell(&mut self, line: &str) {
        // One that was killed meanwhile hears nothing.
        writeln!(self.stdin, "{line}").ok();
    }

    /// The next line of JSON on its standard output.
    pub fn line(&mut self, patience: Duration) -> Value {
        match self.lines.recv_timeout(patience) {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => panic!("{} said nothing", self.name),
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.wait(PATIENCE);
                panic!("{} ended early: {status:?}", self.name)
            }
        }
    }

    /// Its ready line.
    pub fn ready(&mut self) -> Value {
        let line = self.line(PATIENCE);
        assert_eq!(line["event"], "ready", "{line}");
        line
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, sent: Signal) {
        signal(self.pid(), sent);
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        ended(&mut self.child, patience)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end; the promise is exit code 0 within ten seconds.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.wait(Duration::from_secs(10));
        let status = status.unwrap_or_else(|| panic!("{} did not end within 10 s", self.name));
        assert_eq!(status.code(), Some(0), "{} ended with {status}", self.name);
    }

    /// What it said on standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.child.kill().ok();
            self.child.wait().ok();
        }
        let log = self.log();
        if std::thread::panicking() {
            eprintln!("---- log of {} ----\n{log}", self.name);
        } else {
            assert!(!log.contains("panicked at"), "{} panicked:\n{log}", self.name);
        }
    }
}
