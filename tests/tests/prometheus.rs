//! A real Prometheus, scraping and written to: the same counts and quantiles as the API gives, and
//! what is shipped for it holds: rules, scrape configurations, dashboards.
#![allow(clippy::unwrap_used)]

mod world;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::{Duration, Instant};

use lens_benches::load::Distribution;
use lens_model::{Arm, Stage};
use lens_segment::Recorder;
use serde_json::Value;
use world::peers::{present, python};
use world::prometheus::{NATIVE, Prometheus, feed, port, promtool, shipped};
use world::{Tally, World, choices, holds, http, recorder, slice, until, until_within};

/// Width of a bucket of schema 5: how far a quantile may be from our own.
const BUCKET: f64 = 0.021_898;

/// How far it may be from the exact one: half a counter of the layout more.
const ERROR_MAX: f64 = BUCKET + 0.004;

const DISTRIBUTIONS: [(&str, &str, usize); 4] = [
    ("lognormal", "lognormal:median=5ms,sigma=0.7", 20_000),
    ("pareto", "pareto:scale=2ms,alpha=2.5", 20_000),
    ("bimodal", "bimodal:median=2ms,sigma=0.3,slow=40x,share=0.1", 20_000),
    ("constant", "constant:3ms", 5_000),
];

const ASKED: [&str; 4] = ["0.5", "0.95", "0.99", "0.999"];

/// One distribution as it was recorded, in order.
struct Raw {
    name: &'static str,
    sorted: Vec<u64>,
}

impl Raw {
    /// The value of rank ⌈q·n⌉, seconds.
    fn exact(&self, q: &str) -> f64 {
        let millionths = (q.parse::<f64>().unwrap() * 1e6).round();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = (self.sorted.len() * millionths as usize).div_ceil(1_000_000).max(1);
        self.sorted[rank - 1] as f64 / 1e9
    }
}

/// Records each distribution under its name, in this arm.
fn record(node: &Recorder, arm: Arm, tally: &mut Tally) -> Vec<Raw> {
    let one = |(seed, (name, text, count)): (u64, (&'static str, &str, usize))| {
        let mut sampler = text.parse::<Distribution>().unwrap().sampler().unwrap();
        let mut rng = choices(seed);
        let mut sorted: Vec<u64> = (0..count).map(|_| sampler.sample(&mut rng)).collect();
        let series = node.series_in_arm(slice(name), Stage::B, arm).unwrap();
        sorted.iter().for_each(|nanos| series.record(*nanos));
        *tally.entry(series.key().clone()).or_default() += count as u64;
        sorted.sort_unstable();
        Raw { name, sorted }
    };
    (1..).zip(DISTRIBUTIONS).map(one).collect()
}

/// What the API says of a quantile of a series over all time, seconds.
fn own(world: &World, name: &str, q: &str) -> Option<f64> {
    let path = format!("/api/v1/quantiles?slice=backend/{name}/small&stage=stage_b&q={q}");
    let answer = world.api(&path);
    let point = &answer["series"][0]["points"][0];
    point["quantiles"][q]["value_ms"].as_f64().map(|ms| ms / 1e3)
}

/// How far one is from the other.
fn off(got: f64, wanted: f64) -> f64 {
    (got - wanted).abs() / wanted
}

#[test]
#[allow(clippy::print_stdout, reason = "what was measured is for the documentation")]
fn counts_are_equal_and_quantiles_within_a_bucket_by_scrape_and_by_remote_write() {
    let mut world = World::bare();
    let (http, written) = (format!("127.0.0.1:{}", port()), format!("127.0.0.1:{}", port()));
    let url = format!("http://{written}/api/v1/write");
    let settings = [
        ("http.listen", &*http),
        ("remote_write.url", &*url),
        ("remote_write.interval_s", "1"),
        ("remote_write.labels", "job=written"),
        ("remote_write.send_native_histograms", "true"),
    ];
    let Some(native) = Prometheus::start(world.dir(), "native", &written, &[&http], &NATIVE) else {
        return;
    };
    let plain = format!("127.0.0.1:{}", port());
    let plain = Prometheus::start(world.dir(), "plain", &plain, &[&http], &[]).unwrap();
    world.start_aggregator(&settings);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let mut tally = Tally::new();
    let raw = record(&node, Arm::Baseline, &mut tally);
    world.until_merged(&tally);
    for one in &raw {
        let of = format!("{{slice=\"backend/{}/small\",stage=\"stage_b\"", one.name);
        for job in ["lens", "written"] {
            let series = format!("lens_duration_seconds{of},job=\"{job}\"}}");
            let count = format!("histogram_count({series})");
            until("every sample counted", || {
                let got = native.value(&count)?;
                holds(got == one.sorted.len() as f64, &(&count, got))
            });
            for q in ASKED {
                let got = native.value(&format!("histogram_quantile({q}, {series})")).unwrap();
                let exact = one.exact(q);
                let Some(own) = own(&world, one.name, q) else { continue };
                println!("{job} {} {q}: {:+.2} %", one.name, (got / exact - 1.0) * 100.0);
                assert!(off(got, own) <= BUCKET, "{job} {} {q}: {got} s, ours {own}", one.name);
                assert!(off(got, exact) <= ERROR_MAX, "{job} {} {q}: {got}, {exact}", one.name);
            }
            let sum = native.value(&format!("histogram_sum({series})")).unwrap();
            let exact = one.sorted.iter().map(|nanos| *nanos as f64 / 1e9).sum();
            assert!(off(sum, exact) <= 0.004, "{job} {}: {sum}", one.name);
        }
        // Text: the same count, the aggregator's own quantiles, and the coarse ladder.
        let series = |name: &str, more: &str| format!("{name}{of},job=\"lens\"{more}}}");
        until("the text scrape", || {
            let got = plain.value(&series("lens_duration_seconds_count", ""))?;
            holds(got == one.sorted.len() as f64, &got)
        });
        for q in ASKED {
            let Some(own) = own(&world, one.name, q) else { continue };
            let more = format!(",quantile=\"{q}\"");
            let got = plain.value(&series("lens_latency_seconds", &more)).unwrap();
            assert!(off(got, own) < 1e-9, "{} {q}: {got} for {own}", one.name);
            let ladder = series("lens_duration_seconds_bucket", "");
            let got = plain.value(&format!("histogram_quantile({q}, {ladder})")).unwrap();
            println!("classic {} {q}: {:+.0} %", one.name, (got / one.exact(q) - 1.0) * 100.0);
        }
    }
    twice(&native, &node, &raw);
    restarted(&mut world, &settings, &native, &raw);
}

/// What comes later is read by `rate` as it is, without what came before.
fn twice(native: &Prometheus, node: &Recorder, raw: &[Raw]) {
    let one = &raw[0];
    let series = node.series(slice(one.name), Stage::B).unwrap();
    // A second time, ten times slower.
    one.sorted.iter().for_each(|nanos| series.record(nanos * 10));
    let of = format!("{{slice=\"backend/{}/small\",job=\"lens\"}}", one.name);
    let wanted = 2.0 * one.sorted.len() as f64;
    let total = format!("lens_samples_total{of}");
    until("the second half", || {
        let got = native.value(&total)?;
        holds(got == wanted, &got)
    });
    let query = format!("histogram_quantile(0.99, rate(lens_duration_seconds{of}[5s]))");
    let exact = one.exact("0.99") * 10.0;
    until("a rate over the second half alone", || {
        let got = native.value(&query)?;
        holds(off(got, exact) <= ERROR_MAX, &(got, exact))
    });
}

/// A restart is no reset: counters and histograms go on from what the store holds.
fn restarted(world: &mut World, settings: &[(&str, &str)], native: &Prometheus, raw: &[Raw]) {
    world.aggregator().kill();
    world.start_aggregator(settings);
    let younger = "lens_aggregator_uptime_seconds{job=\"lens\"} < 20";
    let begun = Instant::now();
    until("a scrape after the restart", || {
        let uptime = native.value(younger)?;
        holds(uptime < begun.elapsed().as_secs_f64() + 1.0, &uptime)
    });
    for one in raw {
        let of = format!("{{slice=\"backend/{}/small\",job=\"lens\"}}", one.name);
        until("the series is there again", || {
            native.value(&format!("lens_samples_total{of}")).map(drop)
        });
        let resets = native.value(&format!("resets(lens_samples_total{of}[2m])")).unwrap();
        assert_eq!(resets, 0.0, "{}", one.name);
        let count = native.value(&format!("histogram_count(lens_duration_seconds{of})")).unwrap();
        let wanted = native.value(&format!("lens_samples_total{of}")).unwrap();
        assert_eq!(count, wanted, "{}", one.name);
    }
}

#[test]
fn a_receiver_that_is_away_has_everything_once_it_is_back() {
    let mut world = World::bare();
    let address = format!("127.0.0.1:{}", port());
    let url = format!("http://{address}/api/v1/write");
    world.start_aggregator(&[
        ("remote_write.url", &url),
        ("remote_write.interval_s", "1"),
        ("remote_write.labels", "job=written"),
    ]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("rust"), Stage::A).unwrap();
    (0..500).for_each(|_| series.record(2_000_000));
    world.until_merged(&Tally::from([(series.key().clone(), 500)]));
    let metric = |name: &str| -> Result<f64, String> {
        let text = http::get(world.http(), "/metrics")?.1;
        let line = text.lines().find(|line| line.starts_with(name)).ok_or(name)?;
        line.rsplit(' ').next().and_then(|value| value.parse().ok()).ok_or(line.to_owned())
    };
    until("attempts that fail", || {
        let retried = metric("lens_remote_write_requests_total{outcome=\"retried\"}")?;
        let waits = metric("lens_remote_write_queue_requests ")?;
        holds(retried >= 1.0 && waits >= 2.0, &(retried, waits))
    });
    let Some(back) = Prometheus::start(world.dir(), "back", &address, &[], &NATIVE) else { return };
    // The wait for the next attempt may have doubled meanwhile.
    until_within(2 * world::PATIENCE, "what waited and what is new", || {
        let count = back.value("lens_duration_seconds_count{job=\"written\",stage=\"stage_a\"}")?;
        let over = back.value("count_over_time(lens_aggregator_uptime_seconds[1m])")?;
        holds(count == 500.0 && over >= 3.0, &(count, over))
    });
    let bucket = "lens_duration_seconds_bucket{stage=\"stage_a\",le=\"0.0025\"}";
    assert_eq!(back.value(bucket), Ok(500.0), "classic buckets unless native ones are asked for");
    assert_eq!(metric("lens_remote_write_samples_total{outcome=\"dropped\"}"), Ok(0.0));
}

/// A world in which every kind of metric there is has a value.
fn everything(settings: &[(&str, &str)]) -> (World, world::Agent, Recorder) {
    let mut world = World::bare();
    let dir = world.dir().join("alerts").display().to_string();
    let mut all = vec![
        ("alerts.dir", &*dir),
        ("alerts.interval_s", "1"),
        ("alerts.pending_s", "0"),
        ("alerts.sink.0.name", "log"),
        ("alerts.sink.0.kind", "log"),
    ];
    all.extend(settings);
    world.start_aggregator(&all);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    (world, agent, node)
}

/// Records for a while in both arms: stage A slow, so that limits break and alerts fire, and stage B
/// with a tail of forty times its p95, so that a verdict is a violation.
fn busy(node: &Recorder, span: Duration) {
    let mut rng = choices(7);
    let slow = "lognormal:median=20ms,sigma=0.5".parse::<Distribution>().unwrap();
    let mut sampler = slow.sampler().unwrap();
    let end = Instant::now() + span;
    while Instant::now() < end {
        for arm in Arm::ALL {
            let requests = node.requests_for(slice("rust"), arm).unwrap();
            for stage in [Stage::A, Stage::B, Stage::E2e] {
                let series = node.series_in_arm(slice("rust"), stage, arm).unwrap();
                match stage {
                    Stage::B => (0..100).for_each(|at| {
                        series.record(if at % 33 == 0 { 80_000_000 } else { 2_000_000 });
                    }),
                    _ => (0..100).for_each(|_| series.record(sampler.sample(&mut rng))),
                }
            }
            (0..99).for_each(|_| requests.ok());
            requests.error();
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_text_forms_are_read_by_parsers_that_are_not_ours_and_the_linter_has_nothing_to_say() {
    let (world, _agent, node) = everything(&[]);
    node.gauge("span_coverage_percent").set(98.7);
    busy(&node, Duration::from_secs(1));
    until("a value of every kind", || {
        let text = http::get(world.http(), "/metrics")?.1;
        let kinds =
            ["lens_node_reading{", "lens_alert_transitions_total{kind=\"fired\"", "quantile="];
        holds(kinds.iter().all(|kind| text.contains(kind)), &text)
    });
    let plain = http::get(world.http(), "/metrics").unwrap().1;
    if let Some(out) = promtool(&["check", "metrics"], &plain) {
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && said.trim().is_empty(), "{said}");
    }
    let Some(python) = python() else { return };
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = http::get_as(world.http(), "/metrics", accept).unwrap().1;
    let mut command = Command::new(python);
    command.arg(shipped("tests/peers/openmetrics.py"));
    let out = feed(command, &open);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let families: Value = serde_json::from_slice(&out.stdout).unwrap();
    let samples: u64 = families.as_object().unwrap().values().filter_map(Value::as_u64).sum();
    let lines = open.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(samples, lines as u64, "every sample was understood");
    assert_eq!(families["lens_duration_seconds"], 6 * 17);
}

#[test]
fn the_shipped_rules_and_scrape_configurations_are_valid_and_the_rules_do_what_they_say() {
    let path = |name: &str| shipped(name).display().to_string();
    let (alerts, recording) = (
        path("deploy/prometheus/rules/lens-alerts.yml"),
        path("deploy/prometheus/rules/lens-recording.yml"),
    );
    for args in [
        vec!["check", "rules", &*alerts, &*recording],
        vec!["test", "rules", &*path("deploy/prometheus/tests/lens-rules.yml")],
        vec!["check", "config", &*path("deploy/prometheus/prometheus-2.yml")],
    ] {
        let Some(out) = promtool(&args, "") else { return };
        let said = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{args:?}: {said:?}");
    }
    // Debian's promtool is older than the key of 3.x; without it the two are the same.
    let read = |name: &str| -> Vec<String> {
        let text = std::fs::read_to_string(shipped(name)).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    let mut third = read("deploy/prometheus/prometheus-3.yml");
    third.retain(|line| line != "    scrape_native_histograms: true");
    assert_eq!(third.len() + 1, read("deploy/prometheus/prometheus-3.yml").len());
    assert_eq!(third, read("deploy/prometheus/prometheus-2.yml"));
}

/// Begins a rollout, once its share of 0 was scraped and until the first step's was.
fn step(world: &World, prometheus: &Prometheus) {
    let share = |wanted: f64| {
        until("the canary's share", || {
            let share = prometheus.value("lens_canary_share_percent{job=\"lens\"}")?;
            holds(share == wanted, &share)
        });
    };
    share(0.0);
    let address = format!("http://{}/canary/start", world.http());
    let mut command = Command::new("curl");
    command.args(["-sS", "-X", "POST", "-d", r#"{"version": "1.5.0"}"#, &address]);
    let out = feed(command, "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    share(5.0);
}

#[test]
#[allow(clippy::print_stdout, reason = "how much was checked")]
fn every_query_of_every_dashboard_has_series_and_every_rule_can_be_evaluated() {
    let written = format!("127.0.0.1:{}", port());
    let url = format!("http://{written}/api/v1/write");
    let Some(python) = python() else { return };
    if present(std::path::Path::new("/usr/bin/prometheus")).is_none() {
        return;
    }
    // Its own samples of remote write are counted and shown; they need not be looked at.
    let (world, agent, node) = everything(&[
        ("remote_write.url", &url),
        ("remote_write.interval_s", "1"),
        ("remote_write.labels", "job=written"),
        ("slo.e2e_p95_ms", "100"),
    ]);
    let scraped = [world.http()];
    let prometheus = Prometheus::start(world.dir(), "prom", &written, &scraped, &NATIVE).unwrap();
    step(&world, &prometheus);
    busy(&node, Duration::from_secs(12));
    until("a broken limit, a violation and an alert", || {
        let told = prometheus.value("sum(lens_alerts{job=\"lens\",state=\"firing\"})")?;
        let broken = prometheus.query("lens_slo_kept{job=\"lens\"} == 0")?.len();
        let violation = "lens_verdict{job=\"lens\",verdict=\"violation\"} == 1";
        let violated = prometheus.query(violation)?.len();
        holds(told > 0.0 && broken > 0 && violated > 0, &(told, broken, violated))
    });
    drop(agent);
    let mut command = Command::new(python);
    command.arg(shipped("tests/peers/dashboards.py"));
    command.arg(shipped("deploy/grafana/dashboards")).arg(&prometheus.address);
    let out = feed(command, "");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    println!("{}", String::from_utf8_lossy(&out.stdout));
    let counts: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(counts["dashboards"], 4);
    let rules = http::json(&prometheus.address, "/api/v1/rules").unwrap();
    let groups = rules["data"]["groups"].as_array().unwrap();
    let rules: Vec<&Value> = groups.iter().flat_map(|g| g["rules"].as_array().unwrap()).collect();
    assert_eq!(rules.len(), 22);
    let ill: Vec<_> = rules.iter().filter(|rule| rule["health"] == "err").collect();
    assert!(ill.is_empty(), "{ill:?}");
}

#[test]
fn the_compose_file_names_only_files_there_are_and_services_it_has() {
    let Some(python) = python() else { return };
    let mut command = Command::new(python);
    command.arg(shipped("tests/peers/compose.py"));
    command.arg(shipped("deploy/compose/compose.yml"));
    let out = feed(command, "");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let said: BTreeSet<&str> = std::str::from_utf8(&out.stdout).unwrap().lines().collect();
    let wanted = ["alertmanager", "grafana", "lens", "prometheus"];
    assert_eq!(said.into_iter().collect::<Vec<_>>(), wanted);
    // What the aggregator is given there are keys that it has.
    let config = shipped("deploy/compose/aggregator.toml").display().to_string();
    let out = world::process::run(&["role", "aggregator", "--config", &config, "--check-config"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(!said.contains("unknown key"), "{said}");
    let only_its_files =
        said.matches("problem in").count() == 1 && said.contains("/etc/lens/certs/");
    assert!(only_its_files, "{said}");
}
