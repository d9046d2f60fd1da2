//! What a stranger sees who gets something wrong: what it was, where, and what would be right.
#![allow(clippy::unwrap_used)]

mod world;

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use world::process::run;
use world::{World, http};

/// Exit code and both outputs together.
fn said(output: &Output) -> (i32, String) {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    assert!(!text.contains("panicked at"), "{text}");
    (output.status.code().unwrap(), text)
}

/// Runs, and expects this exit code and every part in what is said.
fn expect(args: &[&str], code: i32, parts: &[&str]) -> String {
    let (got, text) = said(&run(args));
    assert_eq!(got, code, "{args:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{args:?}: {part:?} missing in:\n{text}");
    }
    text
}

/// `role ROLE` and these settings as arguments.
fn role<'a>(role: &'a str, settings: &'a [String]) -> Vec<&'a str> {
    let mut args = vec!["role", role];
    args.extend(settings.iter().flat_map(|setting| ["--set", setting.as_str()]));
    args
}

fn settings(pairs: Vec<(String, String)>) -> Vec<String> {
    pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect()
}

#[test]
fn a_misspelt_key_is_answered_with_the_nearest_and_all_mistakes_at_once() {
    let args = [
        "role",
        "agent",
        "--set",
        "harvest.intervall_ms=5",
        "--set",
        "harvest.interval_ms=99",
        "--set",
        "admin.listen=here",
        "--set",
        "node.lables=a=b",
    ];
    expect(
        &args,
        2,
        &[
            "4 problems",
            "unknown key harvest.intervall_ms; did you mean harvest.interval_ms?",
            "harvest.interval_ms is 99, expected a whole number from 100 to 60000",
            "admin.listen is \"here\"",
            "did you mean node.labels?",
        ],
    );
    expect(&["role", "agent", "--set", "harvest.interval_ms"], 2, &["KEY=VALUE"]);
    let text = expect(&["role", "aggregator", "--set", "windows.stales=5"], 2, &[]);
    assert!(text.contains("did you mean windows.stale_s?"), "{text}");
}

#[test]
fn a_service_without_certificates_says_how_to_get_them() {
    let keys = ["identity.cert", "identity.key", "identity.ca", "lens certs issue"];
    expect(&["role", "agent"], 2, &keys);
    expect(&["role", "aggregator"], 2, &keys);
    expect(&["role", "agent", "--check-config"], 2, &keys);

    let world = World::bare();
    let missing = world.dir().join("nowhere.pem").display().to_string();
    world.issue("host-1");
    let mut pairs = world.agent_settings("host-1");
    pairs.push(("identity.ca".into(), missing.clone()));
    let pairs = settings(pairs);
    expect(&role("agent", &pairs), 2, &["identity", &missing]);
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    let world = World::bare();
    let files = world.issue("host-1");
    fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
    let key = files.key.display().to_string();
    let pairs = settings(world.agent_settings("host-1"));
    expect(&role("agent", &pairs), 2, &[&key, "644", "chmod 600"]);
    fs::set_permissions(world.dir().join("server.key"), Permissions::from_mode(0o640)).unwrap();
    let pairs = settings(world.identity_settings("server"));
    expect(&role("aggregator", &pairs), 2, &["server.key", "640", "chmod 600"]);
}

#[test]
fn a_port_that_is_taken_is_named_with_its_key() {
    let world = World::bare();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = tcp.local_addr().unwrap().to_string();
    let quic = ("quic.listen".to_owned(), "127.0.0.1:0".to_owned());

    let mut pairs = world.identity_settings("server");
    pairs.extend([quic, ("http.listen".into(), taken.clone())]);
    let pairs = settings(pairs);
    expect(&role("aggregator", &pairs), 2, &["http.listen", &taken, "another port"]);

    let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_taken = udp.local_addr().unwrap().to_string();
    let mut pairs = world.identity_settings("server");
    pairs.push(("quic.listen".into(), udp_taken.clone()));
    pairs.push(("http.listen".into(), "127.0.0.1:0".into()));
    pairs.push(("store.dir".into(), world.dir().join("store").display().to_string()));
    let pairs = settings(pairs);
    expect(&role("aggregator", &pairs), 2, &["quic.listen", &udp_taken, "another port"]);

    world.issue("host-1");
    let mut pairs = world.agent_settings("host-1");
    pairs.push(("admin.listen".into(), taken.clone()));
    let pairs = settings(pairs);
    expect(&role("agent", &pairs), 2, &["admin.listen", &taken, "another port"]);

    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let demo = ["demo", "--for", "1s", "--json", "--no-browser", "--corpus", corpus, "--http"];
    let demo = [&demo[..], &[taken.as_str()]].concat();
    expect(&demo, 2, &["--http", &taken, "another port"]);
}

#[test]
fn a_store_that_cannot_be_used_or_is_in_use_is_named_with_its_key() {
    let world = World::new(&[]);
    let with_store = |dir: String| {
        let mut pairs = world.identity_settings("server");
        pairs.push(("quic.listen".into(), "127.0.0.1:0".into()));
        pairs.push(("http.listen".into(), "127.0.0.1:0".into()));
        pairs.push(("store.dir".into(), dir));
        settings(pairs)
    };
    let taken = with_store(world.dir().join("store").display().to_string());
    expect(&role("aggregator", &taken), 2, &["store.dir", "another aggregator's"]);
    // A file is where the directory ought to be.
    let file = with_store(world.dir().join("ca.pem").join("store").display().to_string());
    expect(&role("aggregator", &file), 2, &["store.dir", "ca.pem", "may write"]);
}

#[test]
fn an_aggregator_without_authentication_serves_loopback_only() {
    let world = World::bare();
    let mut pairs = world.identity_settings("server");
    pairs.push(("http.listen".into(), "0.0.0.0:0".into()));
    pairs.push(("slices.known".into(), "backend/rust".into()));
    let pairs = settings(pairs);
    expect(
        &role("aggregator", &pairs),
        2,
        &["http.listen", "loopback", "slices.known", "three parts"],
    );
}

#[test]
fn a_demo_that_cannot_be_is_refused_before_anything_starts() {
    let nowhere = ["demo", "--corpus", "/nonexistent", "--http", "127.0.0.1:0", "--no-browser"];
    let text = expect(&nowhere, 2, &["--corpus", "/nonexistent", "name a directory"]);
    assert!(!text.contains("starting"), "{text}");
    expect(&["demo", "--regress", "stage_x=3"], 2, &["--regress", "stage_x", "stage_b"]);
    expect(&["demo", "--regress", "stage_b"], 2, &["--regress", "stage_b=3"]);
    expect(&["demo", "--for", "90"], 2, &["--for", "unit is missing", "30s"]);
    expect(&["demo", "--http", "3000"], 2, &["--http"]);
    expect(&["demo", "--rate", "0"], 2, &["--rate"]);
    expect(&["demmo"], 2, &["demo"]);

    // No source in the corpus is found out by a node; the demo passes its sentence on.
    let empty = tempfile::tempdir().unwrap();
    let dir = empty.path().display().to_string();
    let args = ["demo", "--for", "1s", "--http", "127.0.0.1:0", "--no-browser", "--corpus", &dir];
    let (code, text) = said(&run(&args));
    assert!(matches!(code, 1 | 2), "{code}: {text}");
    assert!(text.contains("no source files under"), "{text}");
}

#[test]
fn a_good_configuration_checks_and_prints_and_reads_back() {
    let world = World::bare();
    world.issue("host-1");
    for (name, pairs) in [
        ("agent", world.agent_settings("host-1")),
        ("aggregator", world.identity_settings("server")),
    ] {
        let pairs = settings(pairs);
        let mut args = role(name, &pairs);
        args.push("--check-config");
        expect(&args, 0, &["configuration is good"]);
        args.pop();
        args.push("--print-config");
        let printed = run(&args);
        assert_eq!(printed.status.code(), Some(0));

        let file = world.dir().join(format!("{name}.toml"));
        fs::write(&file, &printed.stdout).unwrap();
        let file = file.display().to_string();
        expect(&["role", name, "--config", &file, "--check-config"], 0, &["good"]);
        let again = run(&["role", name, "--config", &file, "--print-config"]);
        let values = |output: &Output| {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&again), values(&printed));
        assert!(values(&printed).iter().any(|line| line.starts_with("cert = ")));
    }
    let nowhere = ["role", "agent", "--config", "/nonexistent/lens.toml", "--print-config"];
    expect(&nowhere, 2, &["/nonexistent/lens.toml"]);
}

#[test]
fn certificates_are_made_once_and_renewed_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs").display().to_string();
    let at = |args: &[&'static str]| {
        [&["certs"][..], args, &["--dir"]]
            .concat()
            .iter()
            .map(|a| (*a).to_owned())
            .collect::<Vec<_>>()
    };
    let call = |args: &[&'static str], code: i32, parts: &[&str]| {
        let mut args = at(args);
        args.push(certs.clone());
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        expect(&args, code, parts)
    };
    call(&["issue", "--agent", "host-1"], 2, &["no authority", "lens certs init"]);
    call(&["init"], 0, &["ca.pem", "ca.key"]);
    call(&["init"], 2, &["ca.pem", "exists already"]);
    call(&["issue", "--agent", "host-1"], 0, &["host-1.pem", "host-1.key"]);
    let file = |name: &str| fs::read(dir.path().join("certs").join(name)).unwrap();
    let first = file("host-1.pem");
    call(&["issue", "--agent", "host-1"], 2, &["host-1.key exists already"]);
    assert_eq!(file("host-1.pem"), first);
    call(&["renew", "--agent", "host-1"], 0, &["host-1.pem"]);
    assert_ne!(file("host-1.pem"), first);
    call(&["issue", "--agent", "a b"], 2, &["a b", "is not a name"]);
    call(&["issue", "--agent", "host-2", "--days", "0"], 2, &["0 days", "use 1 to"]);
    call(&["issue"], 2, &["--agent"]);
    let json = call(&["issue", "--server", "localhost", "--json"], 0, &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["cert"].as_str().unwrap().ends_with("server.pem"), "{json}");
    for name in ["ca.key", "host-1.key", "server.key"] {
        let mode = fs::metadata(dir.path().join("certs").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn certificates_made_by_hand_let_an_agent_in_and_renewal_is_taken_up() {
    let world = World::new(&[]);
    let dir = world.dir().display().to_string();
    let issue =
        ["certs", "issue", "--agent", "host-1", "--trust-domain", "lens.test", "--dir", &dir];
    expect(&issue, 0, &[]);
    let agent = world.start_agent("host-1", &[]);
    agent.until_connected(true);
    let renew = [&["certs", "renew"], &issue[2..]].concat();
    expect(&renew, 0, &[]);
    agent.until_connected(true);
    assert_eq!(world.seen("host-1").unwrap()["identity"], "spiffe://lens.test/agent/host-1");
}

#[test]
fn a_service_that_is_not_there_is_unreachable_and_that_is_said() {
    expect(
        &["status", "--url", "http://127.0.0.1:1"],
        3,
        &["http://127.0.0.1:1", "running there?"],
    );
    expect(&["status", "--url", "http://127.0.0.1:1", "--json"], 3, &["http://127.0.0.1:1"]);
    // One that answers something else.
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    expect(&["status", "--url", &format!("http://{}", agent.admin)], 3, &["404"]);
}

#[test]
fn the_api_refuses_what_it_does_not_know_with_the_nearest_it_does() {
    let world = World::new(&[]);
    for (path, status, parts) in [
        ("/api/v1/quantiles?stge=stage_a", 400, &["stge", "stage"][..]),
        ("/api/v1/quantiles?stage=stage_x", 400, &["stage_x", "stage_a"]),
        ("/api/v1/quantiles?slice=backend/rust", 400, &["three parts"]),
        ("/api/v1/quantiles?q=99", 400, &["0.99"]),
        ("/api/v1/histogram?format=xml", 400, &["xml", "json"]),
        ("/api/v1/slice", 404, &["/api/v1/slice"]),
    ] {
        let (got, body) = http::get(world.http(), path).unwrap();
        assert_eq!(got, status, "{path}: {body}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        for part in parts {
            assert!(body.contains(part), "{path}: {part:?} missing in {body}");
        }
    }
}
