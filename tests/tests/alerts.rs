//! Alerts through real processes: told once whatever breaks, and in words that receivers accept
//! which we did not write.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use lens_model::Stage;
use lens_segment::Recorder;
use serde_json::{Value, json};
use world::peers::{present, python};
use world::receiver::{Receiver, Reply, Request};
use world::{PATIENCE, Process, World, holds, http, process, recorder, slice, until, until_within};

/// A key of the signing scheme.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

type Settings = Vec<(String, String)>;

fn secret(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Settings of a sink at this place.
fn sink(place: usize, name: &str, kind: &str, more: &[(&str, String)]) -> Settings {
    let at = |key: &str| format!("alerts.sink.{place}.{key}");
    let mut all = vec![(at("name"), name.into()), (at("kind"), kind.into())];
    all.extend(more.iter().map(|(key, value)| (at(key), value.clone())));
    all
}

fn hook(world: &World, place: usize, receiver: &Receiver) -> Settings {
    let file = secret(world.dir(), "hook.key", SECRET);
    let url = format!("http://{}/hook", receiver.address);
    sink(place, "hook", "webhook", &[("url", url), ("secret_file", file)])
}

/// Alerting that waits for nothing, kept in the world's directory.
fn at_once(world: &World, sinks: Vec<Settings>) -> Settings {
    let dir = world.dir().join("alerts").display().to_string();
    let mut all: Settings = vec![("alerts.dir".into(), dir)];
    for (key, value) in [("interval_s", "1"), ("pending_s", "0"), ("clear_s", "0"), ("hold_s", "0")]
    {
        all.push((format!("alerts.{key}"), value.into()));
    }
    all.push(("alerts.dashboard_url".into(), "http://127.0.0.1:3000/".into()));
    all.extend(sinks.into_iter().flatten());
    all
}

fn start(world: &mut World, settings: &Settings) {
    let borrowed: Vec<(&str, &str)> = settings.iter().map(|(a, b)| (&**a, &**b)).collect();
    world.start_aggregator(&borrowed);
}

/// A node whose stage A is slow: both of its limits are broken.
fn slow(world: &World) -> (world::Agent, Recorder) {
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..1_000).for_each(|_| series.record(20_000_000));
    (agent, node)
}

fn key(rule: &str) -> String {
    format!("{rule}/backend/rust/small/stage_a/baseline")
}

/// The ids each transition was told under, and how often in all.
fn ids(requests: &[Request]) -> BTreeMap<(String, String), Vec<String>> {
    let mut ids: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for request in requests {
        let told = ids.entry(request.told()).or_default();
        let id = request.headers["webhook-id"].clone();
        if !told.contains(&id) {
            told.push(id);
        }
    }
    ids
}

/// The alert of an agent that is gone.
const AGENT: &str = "agent_lost/host-1";

fn until_told(receiver: &Receiver, kind: &str, rule: &str) {
    until_told_of(receiver, kind, &key(rule));
}

fn until_told_of(receiver: &Receiver, kind: &str, key: &str) {
    let wanted = (format!("alert.{kind}"), key.to_owned());
    // Receivers that hang hold a delivery for its whole timeout, and pauses double.
    until_within(4 * PATIENCE, "the notice", || {
        let told: Vec<_> = receiver.requests().iter().map(Request::told).collect();
        holds(told.contains(&wanted), &told)
    });
}

fn until_settled(world: &World) {
    until_within(4 * PATIENCE, "every delivery", || {
        let answer = http::json(world.http(), "/api/v1/alerts")?;
        let waits = answer["deliveries"].as_array().unwrap().iter();
        holds(waits.clone().all(|d| d["progress"] == "delivered"), &answer["deliveries"])
    });
}

#[test]
fn each_transition_is_told_under_one_id_though_the_aggregator_is_killed_in_the_middle() {
    let mut world = World::bare();
    // The first notice is taken, but its answer never comes; nor does that of the second attempt.
    let receiver = Receiver::new([Reply::Hang, Reply::Hang]);
    let settings = at_once(&world, vec![hook(&world, 0, &receiver)]);
    start(&mut world, &settings);
    let (mut agent, _node) = slow(&world);
    until("the first attempt", || holds(!receiver.requests().is_empty(), &0));
    world.aggregator().kill();
    start(&mut world, &settings);
    until("the second attempt", || holds(receiver.requests().len() >= 2, &0));
    world.aggregator().kill();
    start(&mut world, &settings);
    until_told(&receiver, "fired", "slo_p95");
    until_settled(&world);
    // After all was told once, another kill repeats nothing; only what is new is told.
    let before = receiver.requests().len();
    world.aggregator().kill();
    start(&mut world, &settings);
    agent.until_connected(true);
    agent.process.kill();
    until_told_of(&receiver, "fired", AGENT);
    let _agent = world.start_agent("host-1", &[]);
    until_told_of(&receiver, "resolved", AGENT);
    until_settled(&world);
    let requests = receiver.requests();
    let told = ids(&requests);
    // Two limits of one series are broken; one of them is told, once.
    let told_of = |rule| told.get(&("alert.fired".into(), key(rule))).map_or(0, |ids| ids.len());
    assert_eq!(told_of("slo_p95") + told_of("slo_p99"), 1, "{told:?}");
    let new: Vec<_> = requests[before..].iter().map(|request| request.told().1).collect();
    assert!(new.iter().all(|key| key == AGENT), "{new:?}");
}

#[test]
fn a_receiver_that_is_busy_breaks_off_fails_or_hangs_has_every_notice_in_the_end() {
    let mut world = World::bare();
    let receiver = Receiver::new([
        Reply::Status(429, "retry-after: 1\r\n", "slow down"),
        Reply::Close,
        Reply::Status(500, "", "oops"),
        Reply::Hang,
    ]);
    let settings = at_once(&world, vec![hook(&world, 0, &receiver)]);
    start(&mut world, &settings);
    let (_agent, _node) = slow(&world);
    until_told(&receiver, "fired", "slo_p95");
    until_settled(&world);
    let first = receiver.requests()[0].headers["webhook-id"].clone();
    let requests = receiver.requests();
    assert!(requests[..5].iter().all(|request| request.headers["webhook-id"] == first));
    let sinks = world.api("/api/v1/alerts")["sinks"].clone();
    assert_eq!((&sinks[0]["retried"], &sinks[0]["dead"]), (&4.into(), &0.into()), "{sinks}");
}

#[test]
fn a_sink_that_refuses_is_an_alert_on_the_others_and_its_letters_are_counted() {
    let mut world = World::bare();
    let (broken, other) =
        (Receiver::new(vec![Reply::Status(403, "", "no"); 50]), Receiver::new([]));
    let mut second = hook(&world, 1, &other);
    second[0].1 = "other".into();
    let settings = at_once(&world, vec![hook(&world, 0, &broken), second]);
    start(&mut world, &settings);
    let (_agent, _node) = slow(&world);
    until("word of the broken sink", || {
        let told: Vec<_> = other.requests().iter().map(Request::told).collect();
        holds(told.contains(&("alert.fired".into(), "sink/hook".into())), &told)
    });
    let metrics = http::get(world.http(), "/metrics").unwrap().1;
    assert!(metrics.contains("lens_alert_sink_failing{sink=\"hook\"} 1"), "{metrics}");
    assert!(metrics.contains("lens_alert_deliveries_total{sink=\"hook\",outcome=\"dead\"}"));
    let out =
        process::run(&["alerts", "test", "hook", "--url", &format!("http://{}", world.http())]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains("not delivered: 403 no"));
}

#[test]
fn what_is_sent_is_accepted_by_libraries_of_the_receivers() {
    let Some(python) = python() else { return };
    let mut world = World::bare();
    let receiver = Receiver::new([]);
    let url = format!("http://{}", receiver.address);
    let key_file = secret(world.dir(), "pd", "e93facc04764012d7bfb002500d5d1a6");
    let slack_file = secret(world.dir(), "slack", &format!("{url}/services/T/B/x"));
    let sinks = vec![
        hook(&world, 0, &receiver),
        sink(1, "pager", "pagerduty", &[("url", url), ("secret_file", key_file)]),
        sink(2, "chat", "slack", &[("secret_file", slack_file)]),
    ];
    let settings = at_once(&world, sinks);
    start(&mut world, &settings);
    let (mut agent, _node) = slow(&world);
    until_told(&receiver, "fired", "slo_p95");
    // People act through the command.
    let at = format!("http://{}", world.http());
    let open = world.api("/api/v1/alerts?state=firing");
    let id = open["alerts"][0]["id"].as_str().unwrap();
    let acked = process::run(&["alerts", "ack", id, "--by", "ann", "--url", &at]);
    assert!(acked.status.success(), "{acked:?}");
    assert!(String::from_utf8_lossy(&acked.stdout).contains("acknowledged by ann"));
    let listed = process::run(&["alerts", "list", "--url", &at]);
    assert!(String::from_utf8_lossy(&listed.stdout).contains("sink pager (pagerduty)"));
    agent.process.kill();
    until_told_of(&receiver, "fired", AGENT);
    let _agent = world.start_agent("host-1", &[]);
    until_told_of(&receiver, "resolved", AGENT);
    until_settled(&world);
    let requests: Vec<Value> = receiver
        .requests()
        .iter()
        .map(|r| json!({"path": r.path, "headers": r.headers, "body": r.body}))
        .collect();
    let count = |path: &str| requests.iter().filter(|r| r["path"] == path).count();
    let counts = (count("/hook"), count("/v2/enqueue"), count("/services/T/B/x"));
    // A limit is broken and taken on, an agent is lost and comes back.
    assert!(counts.0 >= 4 && counts.1 >= 4 && counts.2 >= 3, "{counts:?}");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/check.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let given = json!({"secret": SECRET, "requests": requests}).to_string();
    child.stdin.take().unwrap().write_all(given.as_bytes()).unwrap();
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{said}{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(said.lines().count(), requests.len(), "{said}");
}

/// A free port, taken by nobody for the moment.
fn port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_real_alertmanager_keeps_what_fires_and_forgets_what_a_dead_aggregator_left() {
    let Some(program) = present(Path::new("/usr/bin/prometheus-alertmanager")) else { return };
    let mut world = World::bare();
    let file = world.dir().join("alertmanager.yml");
    std::fs::write(&file, "route: {receiver: none}\nreceivers: [{name: none}]\n").unwrap();
    let address = format!("127.0.0.1:{}", port());
    let mut command = Command::new(program);
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", world.dir().join("am").display()))
        .arg(format!("--web.listen-address={address}"))
        .arg("--cluster.listen-address=");
    let _alertmanager = Process::start("alertmanager", world.dir(), command);
    until("alertmanager", || http::get(&address, "/-/ready").map(drop));
    let url = format!("http://{address}/");
    let own = sink(0, "am", "alertmanager", &[("url", url), ("resend_s", "1".into())]);
    let settings = at_once(&world, vec![own]);
    start(&mut world, &settings);
    let (_agent, _node) = slow(&world);
    let held = || -> Result<Option<Value>, String> {
        let all = http::json(&address, "/api/v2/alerts")?;
        let own = |alert: &&Value| alert["labels"]["key"] == key("slo_p95").as_str();
        Ok(all.as_array().ok_or("no list")?.iter().find(own).cloned())
    };
    let first = until("the alert", || held()?.ok_or_else(|| "not there".into()));
    assert_eq!(first["labels"]["severity"], "critical");
    assert_eq!(first["status"]["state"], "active");
    assert_eq!(first["generatorURL"], "http://127.0.0.1:3000/");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    until("it is sent again while it fires", || {
        let now = held()?.ok_or("gone")?;
        holds(text(&now["endsAt"]) > text(&first["endsAt"]), &now)
    });
    assert_eq!(held().unwrap().unwrap()["startsAt"], first["startsAt"]);
    let tested =
        process::run(&["alerts", "test", "am", "--url", &format!("http://{}", world.http())]);
    assert!(tested.status.success(), "{tested:?}");
    world.aggregator().kill();
    until("it ends by itself", || holds(held()?.is_none(), &held()));
}
