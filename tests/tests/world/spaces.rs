//! Mounts and networks of a test's own, in namespaces that end with it.
//!
//! A process of `unshare` holds the namespace; programs are brought into it by `nsenter`, and its
//! files are reached under `/proc/<its number>/root`. Nothing outside changes, and everything is
//! gone when the holder is. Where the system does not allow it, the test says so loudly and ends:
//! root is enough, and without it a kernel that lets anybody have a user namespace.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that holds namespaces.
pub struct Space {
    holder: Child,
    kinds: &'static [&'static str],
}

/// The two ends of a wire between the test's network and one of a space's own.
pub struct Wire {
    /// The network at the far end.
    pub space: Space,
    /// The address at the near end.
    pub near: Ipv4Addr,
}

/// Says why a test is not run.
#[allow(clippy::print_stderr)]
pub fn skipped(why: &str) {
    eprintln!("SKIPPED, nothing was tested: {why}");
}

impl Space {
    /// A space whose mounts are its own.
    ///
    /// # Errors
    /// Why the system does not allow one.
    pub fn of_mounts() -> Result<Self, String> {
        let root = rustix::process::geteuid().is_root();
        let (flags, kinds): (&[&str], &[&str]) = match root {
            true => (&["--mount"], &["--mount"]),
            false => (&["--user", "--map-root-user", "--mount"], &["--user", "--mount"]),
        };
        Self::hold(flags, kinds)
    }

    /// A space whose network is its own; only root can connect it to another.
    ///
    /// # Errors
    /// Why the system does not allow one.
    pub fn of_network() -> Result<Self, String> {
        Self::hold(&["--net"], &["--net"])
    }

    fn hold(flags: &[&str], kinds: &'static [&'static str]) -> Result<Self, String> {
        let mut command = Command::new("unshare");
        command.args(flags).args(["sh", "-c", "echo held; exec cat"]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = command.spawn().map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let said = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line);
        if said.is_err() || line != "held\n" {
            holder.kill().ok();
            holder.wait().unwrap();
            return Err(format!("unshare {} is not allowed here", flags.join(" ")));
        }
        Ok(Self { holder, kinds })
    }

    /// A command brought into the space, its environment as it was.
    pub fn bring(&self, command: &Command) -> Command {
        let mut brought = Command::new("nsenter");
        brought.arg(format!("--target={}", self.holder.id())).args(self.kinds).arg("--");
        brought.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => brought.env(name, value),
                None => brought.env_remove(name),
            };
        }
        brought
    }

    /// Runs a command in the space.
    ///
    /// # Errors
    /// What it said when it failed.
    pub fn run(&self, line: &str) -> Result<String, String> {
        let mut words = line.split(' ');
        let mut command = Command::new(words.next().unwrap_or_default());
        let output = self.bring(command.args(words)).output();
        let output = output.map_err(|error| format!("{line}: {error}"))?;
        if !output.status.success() {
            return Err(format!("{line}: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Mounts a tmpfs of this size on a directory.
    ///
    /// # Errors
    /// What `mount` said.
    pub fn tmpfs(&self, dir: &Path, bytes: u64) -> Result<(), String> {
        std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        self.run(&format!("mount -t tmpfs -o size={bytes},mode=700 tmpfs {}", dir.display()))
            .map(|_| ())
    }

    /// Where a path of the space is for everybody else.
    pub fn outside(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

impl Wire {
    /// A wire to a network of its own, by which the far end reaches the near one.
    ///
    /// # Errors
    /// Why the system does not allow one, or which program lacks.
    pub fn new() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root connects networks".into());
        }
        let space = Space::of_network()?;
        space.run("iptables --version").map_err(|error| format!("{error}; install iptables"))?;
        // A name and a net of its own for each test that runs at once.
        let number = space.holder.id();
        let [_, _, high, low] = number.to_be_bytes();
        let (high, low) = (high.max(1), low & !3);
        let (near, far) =
            (Ipv4Addr::new(10, 201, high, low | 1), Ipv4Addr::new(10, 201, high, low | 2));
        let name = format!("lens{number}");
        let outside = |line: &str| {
            let mut words = line.split(' ');
            let output = Command::new(words.next().unwrap_or_default()).args(words).output();
            let output = output.map_err(|error| format!("{line}: {error}"))?;
            let said = String::from_utf8_lossy(&output.stderr);
            if output.status.success() { Ok(()) } else { Err(format!("{line}: {}", said.trim())) }
        };
        outside(&format!("ip link add {name} type veth peer name far netns {number}"))?;
        outside(&format!("ip addr add {near}/30 dev {name}"))?;
        outside(&format!("ip link set {name} up"))?;
        space.run(&format!("ip addr add {far}/30 dev far"))?;
        space.run("ip link set far up")?;
        space.run("ip link set lo up")?;
        Ok(Self { space, near })
    }

    /// Sets one rule of the far end's packet filter.
    pub fn rule(&self, rule: &str) {
        self.space.run(&format!("iptables -w {rule}")).unwrap();
    }

    /// Packets that its rules have dropped so far.
    pub fn dropped(&self) -> u64 {
        let table = self.space.run("iptables -w -nvxL").unwrap();
        let rules = table.lines().filter(|line| line.contains(" DROP "));
        rules.filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok()).sum()
    }
}
