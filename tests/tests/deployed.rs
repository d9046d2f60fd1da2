//! What is shipped for deployment: units, manifests, chart and the configurations inside them, held
//! against systemd, the Kubernetes schemas, Go's templates and the programs themselves.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use rustix::process::Signal;
use world::peers::{present, python};
use world::process::{Process, finish, program, run};
use world::{PATIENCE, World, until};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

fn deploy(path: &str) -> PathBuf {
    Path::new(DEPLOY).join(path)
}

#[test]
fn the_units_are_good_in_the_eyes_of_systemd() {
    let Some(analyze) = present(Path::new("/usr/bin/systemd-analyze")) else { return };
    let dir = tempfile::tempdir().unwrap();
    for name in ["lens-agent", "lens-aggregator"] {
        let unit = fs::read_to_string(deploy(&format!("systemd/{name}.service"))).unwrap();
        // The program is where it is installed; here it is a file that could be run.
        let there = dir.path().join(name);
        fs::write(&there, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&there, fs::Permissions::from_mode(0o755)).unwrap();
        let unit = unit.replace(&format!("/usr/bin/{name}"), there.to_str().unwrap());
        let file = dir.path().join(format!("{name}.service"));
        fs::write(&file, unit).unwrap();
        let verify =
            || Command::new(&analyze).args(["verify", "--man=no"]).arg(&file).output().unwrap();
        let output = verify();
        let said: Vec<String> =
            text(&output).lines().filter(|line| line.contains(name)).map(Into::into).collect();
        assert!(said.is_empty(), "{said:#?}");
        assert!(output.status.success(), "{}", text(&output));

        // The same command finds what is wrong, so its silence means something.
        let broken = fs::read_to_string(&file).unwrap().replace("Type=notify", "Type=notfy");
        fs::write(&file, broken).unwrap();
        assert!(text(&verify()).contains("notfy"));
    }
}

#[test]
fn a_service_manager_is_told_ready_alive_and_draining() {
    let world = World::bare();
    let mut running = Vec::new();
    for role in ["aggregator", "agent"] {
        let path = world.dir().join(format!("{role}.notify"));
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let settings = if role == "agent" {
            world.issue("host-1");
            world.agent_settings("host-1")
        } else {
            let mut settings = world.identity_settings("server");
            settings.push(("quic.listen".into(), "127.0.0.1:0".into()));
            settings.push(("http.listen".into(), "127.0.0.1:0".into()));
            let store = world.dir().join("store").display().to_string();
            settings.push(("store.dir".into(), store));
            settings
        };
        let mut command = Process::command(role, &settings);
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "600000");
        let mut process = Process::start(role, world.dir(), command);
        process.ready();
        running.push((process, socket));
    }
    for (process, socket) in &mut running {
        let hear = |wanted: &str| {
            until(wanted, || {
                let mut bytes = [0; 512];
                let length = socket.recv(&mut bytes).map_err(|error| error.to_string())?;
                let heard = String::from_utf8_lossy(&bytes[..length]).into_owned();
                if heard.contains(wanted) { Ok(heard) } else { Err(heard) }
            })
        };
        assert!(hear("READY=1").contains("STATUS="));
        hear("WATCHDOG=1");
        hear("WATCHDOG=1");
        process.signal(Signal::TERM);
        hear("STOPPING=1");
        assert!(process.wait(Duration::from_secs(15)).unwrap().success());
    }
}

/// The chart with these values, rendered by Go's templates.
fn rendered(dir: &Path, name: &str, values: &str) -> PathBuf {
    let values_file = dir.join(format!("{name}.values.yaml"));
    fs::write(&values_file, values).unwrap();
    let output = Command::new("go")
        .args(["run", concat!(env!("CARGO_MANIFEST_DIR"), "/peers/helm/main.go")])
        .arg(deploy("helm/lens-telemetry"))
        .args(["shop", "lens"])
        .arg(&values_file)
        .env("GO111MODULE", "off")
        .env("GOPATH", "/usr/share/gocode")
        .env("GOCACHE", dir.join("go-cache"))
        .env("GOFLAGS", "-mod=")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let file = dir.join(format!("{name}.yaml"));
    fs::write(&file, output.stdout).unwrap();
    file
}

/// A configuration as shipped, with the places of a machine that has them.
fn check_config(world: &World, file: &Path) {
    let name = file.file_name().unwrap().to_string_lossy().into_owned();
    let role = if name.contains("aggregator.toml") { "aggregator" } else { "agent" };
    let dir = world.dir().display().to_string();
    let identity = if role == "agent" { "host-1" } else { "server" };
    let here = fs::read_to_string(file)
        .unwrap()
        .replace("/run/lens/identity/agent", &format!("{dir}/host-1"))
        .replace("/run/lens/identity", &dir)
        .replace("/var/lib", &dir);
    let here_file = world.dir().join(&name);
    fs::write(&here_file, here).unwrap();
    let mut args = vec!["role".to_owned(), role.to_owned()];
    args.extend(["--config".to_owned(), here_file.display().to_string()]);
    args.push("--check-config".to_owned());
    // Where the chart names them by the node, they come from the environment.
    let mut command = program();
    if name.starts_with("chart") && role == "agent" {
        for (key, value) in world.identity_settings(identity) {
            command.env(format!("LENS_AGENT__{}", key.to_uppercase().replace('.', "__")), value);
        }
    }
    command.args(&args);
    let output = finish(command);
    assert!(output.status.success(), "{name}: {}", text(&output));
}

#[test]
fn manifests_and_chart_fit_the_schemas_and_their_configurations_are_taken() {
    let (Some(python), Some(_)) = (python(), present(Path::new("/usr/bin/go"))) else { return };
    let world = World::bare();
    world.issue("host-1");
    let tokens = world.dir().join("tokens").display().to_string();
    let made = run(&["token", "create", "--role", "viewer", "--name", "g", "--file", &tokens]);
    assert!(made.status.success(), "{}", text(&made));
    let configs = world.dir().join("configs");
    fs::create_dir(&configs).unwrap();

    let everything = "
agent: {enabled: true, extraConfig: \"[node]\\nzone = \\\"eu-1\\\"\\n\", nodeSelector: {a: b}}
aggregator:
  storage: {size: 1Ti, className: fast}
  podDisruptionBudget: {enabled: true}
  tolerations: [{key: a, operator: Exists}]
serviceMonitor: {enabled: true, labels: {release: prometheus}}
imagePullSecrets: [{name: registry}]
";
    let mut files = vec![
        rendered(world.dir(), "chart-defaults", "{}"),
        rendered(world.dir(), "chart-everything", everything),
    ];
    for entry in fs::read_dir(deploy("kubernetes")).unwrap() {
        files.push(entry.unwrap().path());
    }
    let output = Command::new(python)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/peers/manifests.py"))
        .arg(&configs)
        .arg(deploy("helm/lens-telemetry/values.yaml"))
        .arg(deploy("helm/lens-telemetry/values.schema.json"))
        .args(&files)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let found: Vec<PathBuf> =
        fs::read_dir(&configs).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(found.len(), 5, "{found:?}");
    found.iter().for_each(|file| check_config(&world, file));
}

/// A rule that asks for a job nobody scrapes under fires for ever.
#[test]
fn rules_and_dashboards_ask_for_the_job_that_is_scraped() {
    let monitor = fs::read_to_string(deploy("kubernetes/service-monitor.yaml")).unwrap();
    let named = monitor.split("targetLabel: job, replacement: ").nth(1).unwrap();
    let named = named.split('}').next().unwrap();
    let configured = fs::read_dir(deploy("prometheus")).unwrap().flatten();
    let configured =
        configured.filter(|entry| entry.file_name().to_string_lossy().starts_with("prometheus-"));
    let mut read = 0;
    for entry in configured {
        let text = fs::read_to_string(entry.path()).unwrap();
        assert!(text.contains(&format!("job_name: {named}\n")), "{}", entry.path().display());
        read += 1;
    }
    assert!(read >= 2, "a configuration for each Prometheus");
    let rules = fs::read_dir(deploy("prometheus/rules")).unwrap().flatten();
    let asked: Vec<String> = rules
        .flat_map(|entry| {
            let text = fs::read_to_string(entry.path()).unwrap();
            let jobs = text.split("job=\"").skip(1);
            jobs.map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    assert!(!asked.is_empty() && asked.iter().all(|job| job == named), "{asked:?} {named}");
}
