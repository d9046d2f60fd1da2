//! Files in, bytes out.

use super::*;

fn played(text: &str) -> Result<String, InputError> {
    let (rules, lateness) = judge_rules(None).unwrap();
    let judges: Vec<Box<dyn SlotJudge>> = vec![Box::new(Standing::new(&rules))];
    let untagged = hlog::Untagged { series: None, unit_nanos: 1 };
    let mut out = Vec::new();
    play(text.as_bytes(), None, &untagged, Replay::new(lateness, judges), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn refused(text: &str) -> String {
    played(text).unwrap_err().to_string()
}

const HEADER: &str = "t_ms,slice,stage,arm,host,latency_ms,ok\n";

fn row(t_ms: i64, latency_ms: f64) -> String {
    format!("{t_ms},backend/rust/large,stage_b,baseline,h1,{latency_ms},true\n")
}

/// Rows of 100 requests a second, 97 % of them at 10 ms and the others at `slow_ms`.
fn rows(secs: i64, slow_ms: f64) -> String {
    let at = |n: i64| row(n * 10, if n % 100 < 97 { 10.0 } else { slow_ms });
    (0..secs * 100).map(at).collect()
}

fn decisions(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_long_tail_is_found_and_summed_up() {
    let out = played(&(HEADER.to_owned() + &rows(60, 30.0))).unwrap();
    let decisions = decisions(&out);
    let found = decisions.iter().find(|d| d["decision"] == "violation").unwrap();
    assert_eq!((&found["kind"], &found["stage"]), (&"tail".into(), &"stage_b".into()));
    assert!(found["t_ms"].as_i64().unwrap() <= 40_000, "{found}");
    assert!((found["evidence"]["ratio"].as_f64().unwrap() - 3.0).abs() < 0.05, "{found}");
    let summary = decisions.last().unwrap();
    assert_eq!(summary["kind"], "summary");
    let violation = &summary["tail"]["violations"][0];
    assert_eq!(violation["first_t_ms"], found["t_ms"]);
    assert_eq!(violation["last_t_ms"], 60_000);
}

#[test]
fn a_tail_within_its_limit_is_ok_and_too_few_samples_are_no_answer() {
    let words = |out: &str| {
        let of_tail =
            |d: &Value| (d["kind"] == "tail").then(|| d["decision"].as_str().unwrap().to_owned());
        decisions(out).iter().filter_map(of_tail).collect::<Vec<_>>()
    };
    let good = played(&(HEADER.to_owned() + &rows(60, 15.0))).unwrap();
    assert_eq!(words(&good), ["insufficient_data", "ok"]);
    let few = played(&(HEADER.to_owned() + &rows(5, 30.0))).unwrap();
    assert_eq!(words(&few), ["insufficient_data"]);
}

#[test]
fn the_same_windows_as_csv_and_as_json_lines_give_the_same_bytes() {
    let mut lines = String::new();
    for slot in 0..12 {
        let values = "[[10.0,485],[30.0,15]]";
        lines += &format!(
            "{{\"t_ms\":{},\"slice\":\"backend/rust/large\",\"stage\":\"stage_b\",\"arm\":\"baseline\",\"host\":\"h1\",\"n\":500,\"errors\":0,\"values\":{values}}}\n",
            slot * 5_000
        );
    }
    assert_eq!(played(&lines).unwrap(), played(&(HEADER.to_owned() + &rows(60, 30.0))).unwrap());
}

#[test]
fn rows_in_any_order_within_the_lateness_give_the_same_bytes() {
    let text = rows(120, 30.0);
    let mut shuffled: Vec<&str> = text.lines().collect();
    // Runs of five minutes reversed: at most 50 s out of order.
    shuffled.chunks_mut(5_000).for_each(<[_]>::reverse);
    let shuffled = shuffled.join("\n");
    let play = |rows: &str| played(&(HEADER.to_owned() + rows)).unwrap();
    assert_eq!(play(&text), play(&shuffled));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_what_would_be_right() {
    let with = |row: &str| refused(&format!("{HEADER}{}{row}\n", self::row(0, 1.0)));
    for (row, parts) in [
        (
            "x,backend/rust/large,stage_b,baseline,h1,1,true",
            ["line 3", "t_ms", "whole milliseconds"],
        ),
        ("0,backend/rust,stage_b,baseline,h1,1,true", ["line 3", "slice", "three parts"]),
        ("0,backend/rust/large,stage_x,baseline,h1,1,true", ["line 3", "stage", "use stage_a"]),
        ("0,backend/rust/large,stage_b,blue,h1,1,true", ["line 3", "arm", "use baseline"]),
        ("0,backend/rust/large,stage_b,canary,,1,true", ["line 3", "host", "use 1 to 64"]),
        ("0,backend/rust/large,stage_b,canary,h1,-1,true", ["line 3", "latency_ms", "0 or more"]),
        ("0,backend/rust/large,stage_b,canary,h1,1,maybe", ["line 3", "ok", "true or false"]),
        ("0,backend/rust/large,stage_b", ["line 3", "3 fields", "7 are expected"]),
    ] {
        let error = with(row);
        assert!(parts.iter().all(|part| error.contains(part)), "{row}: {error}");
    }
    let header = refused("t_ms,slice,stage,arm,host,latncy_ms,ok\n");
    assert!(header.contains("line 1") && header.contains("did you mean latency_ms?"), "{header}");
    let missing = refused("t_ms,slice,stage,arm,host,latency_ms\n");
    assert!(missing.contains("ok is missing"), "{missing}");
    let late = refused(&(HEADER.to_owned() + &row(200_000, 1.0) + &row(0, 1.0)));
    assert!(late.contains("line 3") && late.contains("sort the file"), "{late}");
}

#[test]
fn an_interval_log_says_the_same_as_the_windows_it_was_written_from() {
    use hdrhistogram::Histogram;
    use hdrhistogram::serialization::V2DeflateSerializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
    use std::time::{Duration, UNIX_EPOCH};
    let mut histogram = Histogram::<u64>::new_with_bounds(1, (1 << 36) - 1, 2).unwrap();
    histogram.record_n(10_000_000, 485).unwrap();
    histogram.record_n(30_000_000, 15).unwrap();
    let (mut log, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut writer = IntervalLogWriterBuilder::new()
        .with_base_time(UNIX_EPOCH)
        .begin_log_with(&mut log, &mut serializer)
        .unwrap();
    for slot in 0..12 {
        let tag = Tag::new("backend/rust/large/stage_b/baseline/h1");
        let (at, width) = (Duration::from_secs(slot * 5), Duration::from_secs(5));
        writer.write_histogram(&histogram, at, width, tag).unwrap();
    }
    let log = String::from_utf8(log).unwrap();
    assert_eq!(played(&log).unwrap(), played(&(HEADER.to_owned() + &rows(60, 30.0))).unwrap());
    let untagged = log.replace("Tag=backend/rust/large/stage_b/baseline/h1,", "");
    assert!(refused(&untagged).contains("name it with --series"));
}

/// Two hosts, 200 requests a second, a fifth of them the canary's, which is `slower` times slower.
fn rollout(secs: i64, slower: f64) -> String {
    let row = |n: i64| {
        let arm = if n % 5 == 0 { "canary" } else { "baseline" };
        let own = if n % 5 == 0 { slower } else { 1.0 };
        let latency = own * (5.0 + (n * 7_919 % 1_000) as f64 / 50.0);
        let (t_ms, host) = (n * 5, n % 2);
        format!("{t_ms},backend/rust/large,e2e,{arm},h{host},{latency},true\n")
    };
    HEADER.to_owned() + &(0..secs * 200).map(row).collect::<String>()
}

fn played_canary(text: &str, plan: Plan) -> String {
    let judges: Vec<Box<dyn SlotJudge>> = vec![Box::new(CanaryJudge::new(plan).unwrap())];
    let untagged = hlog::Untagged { series: None, unit_nanos: 1 };
    let mut out = Vec::new();
    let replay = Replay::new(Nanos::from_secs(60), judges);
    play(text.as_bytes(), None, &untagged, replay, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_slower_canary_is_rolled_back_and_the_same_file_gives_the_same_bytes() {
    let out = played_canary(&rollout(120, 2.0), Plan::default());
    assert_eq!(out, played_canary(&rollout(120, 2.0), Plan::default()));
    let decisions = decisions(&out);
    let back = decisions.iter().find(|d| d["decision"] == "rollback").unwrap();
    assert_eq!((&back["kind"], &back["stage"]), (&"canary".into(), &"e2e".into()));
    assert!(back["t_ms"].as_i64().unwrap() <= 60_000, "{back}");
    let summary = &decisions.last().unwrap()["canary"];
    assert_eq!((&summary["outcome"], &summary["t_ms"]), (&"rollback".into(), &back["t_ms"]));
}

#[test]
fn a_good_canary_walks_its_plan_to_the_end_and_one_without_traffic_does_not() {
    let plan = Plan::parse("dwell_s = [60]\nmargins = [1.5]").unwrap();
    let out = decisions(&played_canary(&rollout(600, 1.0), plan.clone()));
    let words: Vec<_> = out.iter().filter_map(|d| d["decision"].as_str()).collect();
    assert_eq!(words.iter().filter(|word| **word == "promote").count(), 2, "{words:?}");
    assert_eq!(out.last().unwrap()["canary"]["outcome"], "complete");
    let alone: String = rollout(600, 1.0)
        .lines()
        .filter(|row| !row.contains("canary"))
        .map(|row| format!("{row}\n"))
        .collect();
    let out = decisions(&played_canary(&alone, plan));
    assert_eq!(out.last().unwrap()["canary"]["outcome"], "insufficient_data");
}
