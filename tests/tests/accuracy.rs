//! Quantiles as the API gives them, against those of the raw values that were recorded.
#![allow(clippy::unwrap_used)]

mod world;

use lens_benches::load::Distribution;
use lens_model::{Arm, SeriesKey, Stage};
use serde_json::Value;
use world::{Tally, World, choices, recorder, slice};

/// The promise: percentiles are within 1 % of the exact ones.
const ERROR_MAX: f64 = 0.01;

/// The distributions, and how many values of each.
const DISTRIBUTIONS: [(&str, &str, usize); 6] = [
    ("lognormal", "lognormal:median=5ms,sigma=0.7", 20_000),
    ("pareto", "pareto:scale=2ms,alpha=2.5", 20_000),
    ("bimodal", "bimodal:median=2ms,sigma=0.3,slow=40x,share=0.1", 20_000),
    ("constant", "constant:5ms", 5_000),
    ("fast", "lognormal:median=3us,sigma=1.2", 5_000),
    ("few", "lognormal:median=5ms,sigma=0.7", 100),
];

const ASKED: [&str; 7] = ["0.25", "0.5", "0.75", "0.9", "0.95", "0.99", "0.999"];

/// Samples below which a quantile has no 95 % interval, as documented for the shown ones.
fn samples_min(q: &str) -> u64 {
    let ratio: f64 = q.parse().unwrap();
    lens_hist::samples_min(lens_hist::Quantile::new(ratio).unwrap())
}

/// The value of rank ⌈q·n⌉, milliseconds.
fn nearest_rank(sorted: &[u64], q: &str) -> f64 {
    let millionths = (q.parse::<f64>().unwrap() * 1e6).round();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rank = (sorted.len() * millionths as usize).div_ceil(1_000_000).max(1);
    sorted[rank - 1] as f64 / 1e6
}

/// The one point of a series over the whole time.
fn point(world: &World, language: &str, extra: &str) -> Value {
    let path = format!("/api/v1/quantiles?slice=backend/{language}/small&stage=stage_b{extra}");
    let answer = world.api(&path);
    let series = answer["series"].as_array().unwrap();
    assert_eq!(series.len(), 1, "{answer}");
    let points = series[0]["points"].as_array().unwrap();
    assert_eq!(points.len(), 1, "{answer}");
    points[0].clone()
}

fn check(world: &World, language: &str, sorted: &[u64]) {
    let count = sorted.len() as u64;
    let point = point(world, language, &format!("&q={}", ASKED.join(",")));
    assert_eq!(point["count"], count);
    for q in ASKED {
        let got = &point["quantiles"][q];
        let (value, low, high) =
            (got["value_ms"].as_f64(), got["low_ms"].as_f64(), got["high_ms"].as_f64());
        if count < samples_min(q) {
            assert_eq!(value, None, "{language} {q}: {got}");
            let reason = got["reason"].as_str().unwrap();
            assert!(reason.contains(&count.to_string()), "{reason}");
            assert!(reason.contains(&samples_min(q).to_string()), "{reason}");
            continue;
        }
        assert_eq!(got["reason"], Value::Null, "{language} {q}: {got}");
        let (value, low, high) = (value.unwrap(), low.unwrap(), high.unwrap());
        let exact = nearest_rank(sorted, q);
        let error = (value - exact).abs() / exact;
        assert!(error <= ERROR_MAX, "{language} {q}: {value} ms, exactly {exact} ms: {error}");
        assert!(low <= value && value <= high, "{language} {q}: {got}");
        assert!(low <= exact && exact <= high, "{language} {q}: {exact} ms outside {got}");
    }
}

#[test]
fn quantiles_are_within_a_percent_of_those_of_the_raw_values() {
    let world = World::new(&[]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let mut tally = Tally::new();
    let mut raw: Vec<(&str, Vec<u64>)> = Vec::new();
    for (seed, (name, text, count)) in (1_u64..).zip(DISTRIBUTIONS) {
        let mut sampler = text.parse::<Distribution>().unwrap().sampler().unwrap();
        let mut rng = choices(seed);
        let mut values: Vec<u64> = (0..count).map(|_| sampler.sample(&mut rng)).collect();
        let series = node.series(slice(name), Stage::B).unwrap();
        values.iter().for_each(|nanos| series.record(*nanos));
        values.sort_unstable();
        tally.insert(series.key().clone(), count as u64);
        raw.push((name, values));
    }
    world.until_merged(&tally);
    for (name, sorted) in &raw {
        check(&world, name, sorted);
        let path = format!(
            "/api/v1/histogram?slice=backend/{name}/small&stage=stage_b&arm=baseline&format=json"
        );
        let histogram = world.api(&path);
        let buckets = histogram["buckets"].as_array().unwrap();
        let within = |low: f64, high: f64| {
            sorted.iter().filter(|v| (low..high).contains(&(**v as f64 / 1e6))).count() as u64
        };
        assert_eq!(histogram["count"], sorted.len());
        assert_eq!(histogram["overflow"], 0);
        let mut sum = 0;
        for bucket in buckets {
            let (low, high) = (bucket[0].as_f64().unwrap(), bucket[1].as_f64().unwrap());
            assert_eq!(bucket[2].as_u64().unwrap(), within(low, high), "{name}: {bucket}");
            sum += bucket[2].as_u64().unwrap();
        }
        assert_eq!(sum, sorted.len() as u64, "{name}: every value is in a bucket");
    }
    // Across series the same counts add up.
    let whole = world.api("/api/v1/histogram?stage=stage_b&format=json");
    assert_eq!(whole["count"], tally.values().sum::<u64>());
}

#[test]
fn what_lies_above_range_or_was_never_recorded_has_no_value_but_a_reason() {
    let world = World::new(&[("slices.known", "backend/silent/small")]);
    let agent = world.agent("host-1", &[]);
    let node = recorder(&agent.segments, "node-1");
    let series = node.series(slice("slow"), Stage::B).unwrap();
    (0..900).for_each(|_| series.record(1_000_000));
    // Above the largest latency of the layout, 68.7 s: counted apart, never lost.
    (0..100).for_each(|_| series.record(70_000_000_000));
    let key = SeriesKey { slice: slice("slow"), stage: Stage::B, arm: Arm::Baseline };
    world.until_merged(&Tally::from([(key, 1_000)]));

    let point = point(&world, "slow", "&q=0.5,0.99");
    assert_eq!(point["count"], 1_000);
    assert!((point["quantiles"]["0.5"]["value_ms"].as_f64().unwrap() - 1.0).abs() < ERROR_MAX);
    let above = &point["quantiles"]["0.99"];
    assert_eq!(above["value_ms"], Value::Null);
    assert!(above["reason"].as_str().unwrap().contains("68.7 s"), "{above}");
    let path = "/api/v1/histogram?slice=backend/slow/small&stage=stage_b&format=json";
    let histogram = world.api(path);
    assert_eq!((&histogram["count"], &histogram["overflow"]), (&1_000.into(), &100.into()));

    // Known but never fed: there, without numbers, and why.
    let slices = world.api("/api/v1/slices");
    let silent = slices["slices"].as_array().unwrap().iter();
    let silent = silent.filter(|s| s["slice"] == "backend/silent/small").collect::<Vec<_>>();
    assert_eq!(silent.len(), 1, "{slices}");
    assert_eq!(silent[0]["merged_total"], 0);
    assert!(silent[0]["reason"].is_string(), "{slices}");
    let none = world.api("/api/v1/quantiles?slice=backend/silent/small");
    assert_eq!(none["series"], serde_json::json!([]));
}
