//! The live page in a real browser, over real processes and what they recorded.
//!
//! `peers/page.mjs` drives Chromium and holds what it sees against the API; here are the worlds it
//! looks at. `deploy/test-peers.sh` installs both.
#![allow(clippy::unwrap_used)]

mod world;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lens_model::{Arm, SeriesKey, Stage};
use lens_segment::Recorder;
use serde_json::{Value, json};
use world::peers;
use world::receiver::Receiver;
use world::{
    Agent, LOOK_AGAIN, Tally, World, holds, http, process, recorder, slice, until, until_within,
};

/// Longest a look may take; the script ends itself before.
const LOOK_MAX: Duration = Duration::from_secs(150);

/// What drives the browser: its modules and Chromium are there.
fn driver() -> Option<PathBuf> {
    peers::present(Path::new("/usr/bin/chromium"))?;
    peers::present(Path::new("/usr/bin/node"))?;
    let dir = peers::directory();
    peers::present(&dir.join("node_modules/playwright-core"))?;
    peers::present(&dir.join("node_modules/axe-core")).map(|_| dir)
}

/// One look at a page; ended by its number when dropped.
struct Look(Child);

impl Drop for Look {
    fn drop(&mut self) {
        // The script closes its browser when it is asked to end.
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            process::signal(self.0.id(), rustix::process::Signal::TERM);
            let _ended = self.0.wait();
        }
    }
}

impl Look {
    fn begin(dir: &Path, http: &str, step: &str, facts: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/page.mjs");
        let mut command = Command::new("/usr/bin/node");
        command.arg(script).arg(dir).arg(format!("http://{http}")).arg(step).arg(facts.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    fn end(mut self) {
        let deadline = Instant::now() + LOOK_MAX;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the look did not end");
            std::thread::sleep(LOOK_AGAIN);
        }
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut said).unwrap();
        assert!(self.0.wait().unwrap().success(), "{said}");
    }
}

fn look(dir: &Path, world: &World, step: &str, facts: &Value) {
    Look::begin(dir, world.http(), step, facts).end();
}

/// A world with one agent and both arms of two stages, one of them with a tail too long.
struct Fed {
    world: World,
    _agent: Agent,
    _node: Recorder,
    recorded: Tally,
}

const STAGES: [(Stage, u64); 2] = [(Stage::A, 400_000), (Stage::E2e, 4_000_000)];

fn fed(settings: &[(&str, &str)]) -> Fed {
    let mut world = World::bare();
    world.start_aggregator(settings);
    feed(world)
}

fn feed(world: World) -> Fed {
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let mut recorded = Tally::new();
    for (stage, typical) in STAGES {
        for (arm, slower) in [(Arm::Baseline, 10), (Arm::Canary, 13)] {
            let series = node.series_in_arm(slice("rust"), stage, arm).unwrap();
            // Sixty samples of a hundred spread by a tenth; two of a hundred are five times as long.
            let tail = if stage == Stage::E2e { 50 } else { 13 };
            for i in 0..6_000_u64 {
                let spread = 10 + i % 10 / 2;
                let long = if i % 50 == 0 { tail } else { 10 };
                series.record(typical * slower / 10 * spread / 10 * long / 10);
            }
            let key = SeriesKey { slice: slice("rust"), stage, arm };
            recorded.insert(key, 6_000);
        }
    }
    world.until_merged(&recorded);
    Fed { world, _agent: agent, _node: node, recorded }
}

/// The page's name of a series.
fn key(stage: Stage, arm: Arm) -> String {
    format!("{}|{stage}|{arm}", slice("rust"))
}

fn at(stage: Stage) -> String {
    format!("/#slice={}&stage={stage}&arm=baseline&r=5m", slice("rust"))
}

#[test]
fn every_count_on_the_page_is_what_was_recorded_and_what_the_api_says() {
    let Some(dir) = driver() else { return };
    let fed = fed(&[]);
    let recorded: serde_json::Map<String, Value> =
        fed.recorded.iter().map(|(of, n)| (key(of.stage, of.arm), (*n).into())).collect();
    look(&dir, &fed.world, "counts", &json!({ "recorded": recorded }));
}

#[test]
fn a_capture_is_begun_from_the_page_that_shows_it_and_gives_its_files() {
    let Some(dir) = driver() else { return };
    let mut world = World::bare();
    world.start_aggregator(&[]);
    let agent = world.agent("host-1", &[("segments.scan_interval_ms", "100")]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    series.record(1);
    until("fine steps", || {
        let status = http::json(&agent.admin, "/status")?;
        holds(status["segments"].as_array().is_some_and(|all| !all.is_empty()), &status)
    });
    // Two of its scans later the segment is looked at in fine steps for sure.
    std::thread::sleep(Duration::from_secs(1));
    let trace = lens_model::Trace::new([0x4b; 16], [0; 8]).unwrap();
    (0..500).for_each(|_| series.record(2_000_000));
    series.record_traced(90_000_000, &trace);
    world.until_merged(&Tally::from([(series.key().clone(), 502)]));
    let facts = json!({ "at": at(Stage::A), "slice": slice("rust"), "samples": 501,
        "trace": trace.id_hex() });
    look(&dir, &world, "captures", &facts);
}

#[test]
fn the_address_holds_the_whole_view_over_reloads_back_forward_and_in_anothers_hands() {
    let Some(dir) = driver() else { return };
    let fed = fed(&[]);
    let choose = json!({ "slice": slice("rust"), "stage": "stage_a", "arm": "canary" });
    look(&dir, &fed.world, "address", &json!({ "choose": choose }));
}

#[test]
fn a_verdict_opens_the_numbers_it_rests_on_and_the_command_that_asks_for_them() {
    let Some(dir) = driver() else { return };
    let fed = fed(&[]);
    let path = format!("/api/v1/tail?slice={}&stage=e2e&arm=baseline", slice("rust"));
    // The judge waits for a window to settle.
    until_within(2 * world::PATIENCE, "the verdict", || {
        let answer = http::json(fed.world.http(), &path)?;
        holds(answer["series"][0]["verdict"] == "violation", &answer["series"][0]["reason"])
    });
    let facts = json!({ "key": key(Stage::E2e, Arm::Baseline), "verdict": "violation" });
    look(&dir, &fed.world, "evidence", &facts);
}

#[test]
fn plots_and_tables_are_taken_away_whole() {
    let Some(dir) = driver() else { return };
    let fed = fed(&[]);
    let facts = json!({ "at": at(Stage::E2e), "count": 6_000, "series": fed.recorded.len() });
    look(&dir, &fed.world, "downloads", &facts);
}

#[test]
fn an_accessibility_check_finds_nothing_in_light_and_dark_wide_and_narrow() {
    let Some(dir) = driver() else { return };
    let fed = fed(&[]);
    look(&dir, &fed.world, "accessible", &json!({ "at": at(Stage::E2e) }));
}

#[test]
fn guards_stand_in_a_table_of_their_own_with_what_they_saw() {
    let Some(dir) = driver() else { return };
    // Nothing listens there.
    let probe = [("name", "gone"), ("query", "def"), ("url", "http://127.0.0.1:9/search")];
    let probe = [&probe[..], &[("every_s", "1"), ("retries", "0")]].concat();
    let probe = probe.iter().map(|(key, value)| (format!("guards.probe.0.{key}"), *value));
    let settings: Vec<(String, &str)> = probe.chain([("guards.again_s".into(), "1")]).collect();
    let settings: Vec<(&str, &str)> =
        settings.iter().map(|(key, value)| (&**key, *value)).collect();
    look(&dir, &World::new(&settings), "guarded", &json!({}));
}

#[test]
fn a_page_without_data_says_what_to_do() {
    let Some(dir) = driver() else { return };
    look(&dir, &World::new(&[]), "empty", &json!({}));
}

#[test]
fn a_page_whose_aggregator_died_says_so_and_lives_again_with_it() {
    let Some(dir) = driver() else { return };
    let mut fed = fed(&[]);
    let (http, pid) = (fed.world.http().to_owned(), fed.world.aggregator().pid());
    let facts = json!({ "at": at(Stage::E2e), "pid": pid });
    let mut look = Look::begin(&dir, &http, "lost", &facts);
    let mut line = [0; 5];
    std::io::Read::read_exact(&mut look.0.stdout.take().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"lost\n");
    fed.world.start_aggregator(&[("http.listen", &http)]);
    look.end();
}

/// A key of the signing scheme.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Alerting that waits for nothing, to one receiver.
fn alerting(world: &World, receiver: &Receiver) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> =
        vec![("alerts.dir".into(), world.dir().join("alerts").display().to_string())];
    for name in ["interval_s", "pending_s", "clear_s", "hold_s"] {
        all.push((format!("alerts.{name}"), u8::from(name == "interval_s").to_string()));
    }
    let url = format!("http://{}/hook", receiver.address);
    let key = world.dir().join("hook.key");
    std::fs::write(&key, SECRET).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let key = key.display().to_string();
    let of_sink = [("name", "hook"), ("kind", "webhook"), ("url", &*url), ("secret_file", &*key)];
    for (name, value) in of_sink {
        all.push((format!("alerts.sink.0.{name}"), value.into()));
    }
    all
}

/// A world in which an alert fires, with these settings besides.
fn alarmed(mut world: World, more: &[(&str, &str)]) -> (World, Receiver, Agent, Recorder) {
    let receiver = Receiver::new([]);
    let settings = alerting(&world, &receiver);
    let mut all: Vec<(&str, &str)> = settings.iter().map(|(a, b)| (&**a, &**b)).collect();
    all.extend(more);
    world.start_aggregator(&all);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..1_000).for_each(|_| series.record(20_000_000));
    let told = || holds(!receiver.requests().is_empty(), &"nobody was told");
    until_within(2 * world::PATIENCE, "the alert", told);
    (world, receiver, agent, node)
}

const ALERT: &str = "slo_p95/backend/rust/small/stage_a/baseline";

#[test]
fn an_alert_is_taken_on_and_silenced_from_the_page_that_shows_who_was_told() {
    let Some(dir) = driver() else { return };
    let (world, ..) = &alarmed(World::bare(), &[]);
    look(&dir, world, "alerts", &json!({ "key": ALERT }));
}

#[test]
fn a_viewer_is_not_offered_what_would_be_refused_and_is_refused_it() {
    let Some(dir) = driver() else { return };
    let world = World::bare();
    let file = |name: &str| world.dir().join(name).display().to_string();
    let (tokens, audit) = (file("tokens"), file("audit"));
    let made =
        process::run(&["token", "create", "--role", "viewer", "--name", "wall", "--file", &tokens]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let token = String::from_utf8(made.stdout).unwrap();
    let door =
        [("auth.mode", "tokens"), ("auth.tokens", tokens.as_str()), ("audit.dir", audit.as_str())];
    let (world, ..) = &alarmed(world, &door);
    look(&dir, world, "viewer", &json!({ "key": ALERT, "token": token.trim() }));
}

#[test]
fn the_canary_is_killed_from_the_page_only_after_it_asked_once_more() {
    let Some(dir) = driver() else { return };
    look(&dir, &World::new(&[]), "kill", &json!({}));
}
