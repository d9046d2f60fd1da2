//! The examples for fleets that route at the edge are what their programs take.
//!
//! NGINX itself reads its example, Envoy's own messages parse Envoy's, and the published schemas of
//! the Gateway API and Argo Rollouts take the Kubernetes ones; each is also shown a mistake.
#![allow(clippy::unwrap_used)]

mod world;

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use world::peers::{directory, present, python};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

fn good(out: &Output) -> String {
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    said
}

/// Answers one question after the other with a status of this share, or with what is no status.
fn control(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut read = [0; 4_096];
            std::io::Read::read(&mut stream, &mut read).ok();
            let length = answer.len();
            write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{answer}").ok();
        }
    });
    format!("http://{at}")
}

fn weights(answer: &'static str, edge: &str, file: &Path) -> Output {
    let mut command = Command::new("/usr/bin/env");
    command.arg("python3").arg(root().join("deploy/edge/lens-weights"));
    command.args(["--once", "--url", &control(answer), edge]).arg(file);
    command.output().unwrap()
}

#[test]
fn nginx_takes_the_example_and_every_share_that_is_written_for_it() {
    let Some(nginx) = present(Path::new("/usr/sbin/nginx")) else { return };
    let dir = tempfile::tempdir().unwrap();
    let example = root().join("deploy/edge/nginx");
    std::fs::copy(example.join("nginx.conf"), dir.path().join("nginx.conf")).unwrap();
    let share = dir.path().join("share.conf");
    let takes = || {
        let config = dir.path().join("nginx.conf");
        let mut command = Command::new(&nginx);
        command.arg("-t").arg("-c").arg(config).output().unwrap()
    };
    std::fs::copy(example.join("share.conf"), &share).unwrap();
    good(&takes());
    for (answer, line) in [
        (r#"{"canary_deployment": {"trafficPercentage": 5.25}}"#, "5.25%  canary;"),
        (r#"{"canary_deployment": {"trafficPercentage": 100}}"#, "100.00%  canary;"),
        (r#"{"canary_deployment": {"trafficPercentage": 0}}"#, "*      stable;"),
    ] {
        good(&weights(answer, "--nginx", &share));
        let written = std::fs::read_to_string(&share).unwrap();
        assert!(written.contains(line), "{written}");
        assert_eq!(written.contains("canary;"), line.contains("canary"), "{written}");
        good(&takes());
    }
    std::fs::write(&share, "split_clients $lens_user $lens_pool { 101% canary; * stable; }")
        .unwrap();
    assert!(!takes().status.success(), "a mistake was not noticed");
}

#[test]
fn what_is_no_share_changes_nothing_at_the_edge() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("patch.json");
    for answer in [
        "",
        "{}",
        r#"{"canary_deployment": {"trafficPercentage": null}}"#,
        r#"{"canary_deployment": {"trafficPercentage": true}}"#,
        r#"{"canary_deployment": {"trafficPercentage": 100.1}}"#,
        r#"{"canary_deployment": {"trafficPercentage": -1}}"#,
        r#"{"canary_deployment": {"trafficPercentage": NaN}}"#,
    ] {
        let out = weights(answer, "--patch", &file);
        assert_eq!(out.status.code(), Some(3), "{answer}: {out:?}");
        assert!(!file.exists(), "{answer}");
    }
    good(&weights(r#"{"canary_deployment": {"trafficPercentage": 25}}"#, "--patch", &file));
    let patch: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!((&patch[0]["value"], &patch[1]["value"]), (&7_500.into(), &2_500.into()));
}

#[test]
fn envoys_own_messages_take_the_example() {
    let Some(python) = python() else { return };
    let mut command = Command::new(python);
    command.env("PYTHONPATH", directory().join("envoy"));
    command.arg(root().join("tests/peers/edge.py"));
    command.arg(root().join("deploy/edge/envoy/envoy.yaml"));
    assert!(good(&command.output().unwrap()).starts_with("envoy: "));
}

#[test]
fn the_schemas_of_the_gateway_api_and_of_argo_take_the_examples() {
    let Some(python) = python() else { return };
    let Some(modules) = present(&directory().join("node_modules")) else { return };
    let of = "import sys, json, yaml; print(json.dumps([o for f in sys.argv[1:] \
              for o in yaml.safe_load_all(open(f))]))";
    let examples = root().join("deploy/edge/kubernetes");
    let mut command = Command::new(python);
    command.env("PYTHONPATH", directory().join("envoy"));
    command
        .args(["-c", of])
        .arg(examples.join("httproute.yaml"))
        .arg(examples.join("rollout.yaml"));
    let objects = good(&command.output().unwrap());
    let mut child = Command::new("/usr/bin/env")
        .arg("node")
        .arg(root().join("tests/peers/edge.mjs"))
        .arg(modules)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(objects.as_bytes()).unwrap();
    let said = good(&child.wait_with_output().unwrap());
    assert_eq!(said, "HTTPRoute: good\nRollout: good\nAnalysisTemplate: good\n");
}
