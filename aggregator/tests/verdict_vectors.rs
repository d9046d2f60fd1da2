//! Reference values of the judge's methods, computed outside this code: `verdicts.json`.
//!
//! Integers, ranks and bucket edges must agree exactly, logarithms to 1e-6 + 1e-9·|x|.
#![allow(clippy::unwrap_used)]

use lens_aggregator::judge::drift::Drift;
use lens_aggregator::judge::math::{ln_beta_binomial, normal_cdf, rank_interval};
use lens_aggregator::judge::survivors::Survivors;
use lens_aggregator::judge::tail::rule;
use lens_aggregator::judge::trend::{Slope, crossing};
use lens_hist::{Counts, layout};
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("verdicts.json")).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no count"))
}

#[track_caller]
fn close(found: f64, expected: &Value, what: &str) {
    let expected = number(expected);
    let allowed = 1e-6 + 1e-9 * expected.abs();
    assert!((found - expected).abs() <= allowed, "{what}: {found}, expected {expected}");
}

#[test]
fn buckets_lie_where_the_reference_puts_them() {
    for bucket in vectors()["bucket"].as_array().unwrap() {
        let index = layout::index_of(count(&bucket["v"]));
        assert_eq!(index as u64, count(&bucket["index"]), "{bucket}");
        assert_eq!(layout::low(index), count(&bucket["lo"]), "{bucket}");
        assert_eq!(layout::high(index) + 1, count(&bucket["hi"]), "{bucket}");
    }
}

#[test]
fn ranks_are_the_exact_binomial_ones() {
    for row in vectors()["ranks_alpha05"].as_array().unwrap() {
        let found = rank_interval(count(&row["n"]), number(&row["p"]), 1.0);
        let low = row["l"].as_u64();
        // Five samples have no interval of the median; the reference then names neither end.
        assert_eq!(found, (low, row["u"].as_u64()), "{row}");
    }
}

#[test]
fn the_beta_binomial_mixture_agrees() {
    for row in vectors()["log_bb"].as_array().unwrap() {
        let [k, n, p, c] = ["k", "n", "p0", "conc"].map(|name| number(&row[name]));
        close(ln_beta_binomial(k, n, p, c), &row["log"], &row.to_string());
    }
}

/// Expected counts of a lognormal with p95 at 100,000 and the given p99/p95.
fn lognormal(ratio: f64, n: f64) -> Survivors {
    let (z95, z99) = (1.644_853_626_951_472_2, 2.326_347_874_040_840_8);
    let sigma = ratio.ln() / (z99 - z95);
    let survivors = |index: usize| {
        let edge = layout::low(index) as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let above = (n * (1.0 - normal_cdf(z95 + (edge / 1e5).ln() / sigma))).round() as u64;
        above
    };
    let mut counts = Counts::new();
    for index in 1..layout::COUNTERS {
        counts.add(index, survivors(index) - survivors(index + 1));
    }
    let held = counts.total();
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    counts.add(0, n as u64 - held);
    Survivors::of(&counts)
}

#[test]
fn the_ratio_rule_agrees_with_the_reference() {
    let vectors = &vectors()["ratio_rule"];
    let first = usize::try_from(count(&vectors["i0"])).unwrap();
    // The reference looks for p95 in these buckets only.
    let buckets = || first..first + 150;
    for row in vectors["rows"].as_array().unwrap() {
        let samples = lognormal(number(&row["R"]), number(&row["n"]));
        let z = |phi| rule::z_above_within(&samples, 2.0, phi, buckets());
        close(z(1.0), &row["z"], &row.to_string());
        close(z(4.0), &row["z_phi4"], &row.to_string());
        let ln_e = rule::ln_e_within(&samples, 2.0, 1.0, buckets());
        close(ln_e, &row["logE"], &row.to_string());
        assert!(rule::z_above(&samples, 2.0, 1.0) <= z(1.0), "{row}");
    }
}

#[test]
fn slope_interval_and_crossing_agree() {
    let vectors = &vectors()["theil_sen"];
    let values = vectors["y"].as_array().unwrap();
    let points: Vec<(f64, f64)> =
        values.iter().enumerate().map(|(t, y)| (t as f64, number(y))).collect();
    let slope = Slope::of(&points, number(&vectors["alpha"]), false).unwrap();
    let out = &vectors["out"];
    close(slope.slope, &out["slope"], "slope");
    close(slope.level, &out["level"], "level");
    close(slope.low, &out["lo"], "low");
    close(slope.high, &out["hi"], "high");
    close(slope.z, &out["z"], "z");
    close(slope.inflation, &out["infl"], "inflation");
    let at = |step| crossing(slope.level, step, 2_f64.ln(), 288, |_| 0.0);
    let found = [slope.slope, slope.high, slope.low].map(|step| at(step).map(u64::from));
    let expected: Vec<Option<u64>> =
        vectors["ttv_ln2"].as_array().unwrap().iter().map(Value::as_u64).collect();
    assert_eq!(found.as_slice(), expected);
}

#[test]
fn the_sum_of_bets_on_drift_agrees() {
    let vectors = &vectors()["esr"];
    let mut drift = Drift::new(number(&vectors["p0"]));
    let trials = count(&vectors["n"]);
    let steps = vectors["K"].as_array().unwrap().iter().zip(vectors["M"].as_array().unwrap());
    for (hits, expected) in steps {
        drift.push(trials, count(hits), 1.0, f64::INFINITY);
        close(drift.ln_mean(), &Value::from(number(expected).ln()), &hits.to_string());
    }
}
