//! Reference values of the canary comparison, computed outside this code.
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use lens_hist::Sparse;
use serde_json::Value;

use super::evalue::*;
use super::harm::*;
use super::plan::Plan;
use super::process::*;
use super::promotion::*;
use super::reference::*;
use super::tally::*;
use crate::judge::math::exp;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../tests/verdicts.json")).unwrap()
}

fn num(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

fn int(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn close(found: f64, expected: &Value, what: &str) {
    let expected = num(expected);
    let tolerance = 1e-6 + 1e-9 * expected.abs();
    assert!((found - expected).abs() <= tolerance, "{what}: {found}, not {expected}");
}

fn hits(row: &Value, arm: &str) -> Hits {
    Hits { hits: int(&row[format!("k{arm}")]), n: int(&row[format!("n{arm}")]) }
}

#[test]
fn single_windows_give_the_reference_values() {
    let all = vectors();
    for row in all["log_e_2x2"].as_array().unwrap() {
        let ln_e = ln_e_2x2(hits(row, "c"), hits(row, "b"), num(&row["pi"]), num(&row["psi"]));
        close(ln_e, &row["loge"], "2x2");
    }
    for row in all["log_e_ratio"].as_array().unwrap() {
        let ln_e = ln_e_ratio(hits(row, "c"), hits(row, "b"), num(&row["rho"]), num(&row["psi"]));
        close(ln_e, &row["loge"], "ratio");
    }
    for row in all["log_e_abs"].as_array().unwrap() {
        close(
            ln_e_absolute(hits(row, "c"), num(&row["a0"]), num(&row["psi"])),
            &row["loge"],
            "abs",
        );
    }
    let bet = &all["balanced_bet"];
    let marks = |values: &Value| {
        let mut marks = Marks::default();
        values.as_array().unwrap().iter().for_each(|value| marks.add(num(value), 1));
        marks
    };
    let (c, b) = (marks(&bet["yc"]), marks(&bet["yb"]));
    let ln_e = ln_e_mean(&c, &b, num(&bet["nu"]), num(&bet["lam"]), num(&bet["delta"]));
    close(ln_e, &bet["loge"], "mean");
}

fn bets(canary: Hits, baseline: Hits, pi: f64, phi: f64) -> [f64; 6] {
    LN_PSI_LATENCY.map(|ln_psi| tempered(ln_e_2x2(canary, baseline, pi, exp(ln_psi)), phi))
}

#[test]
fn mixtures_give_the_reference_values() {
    let all = vectors();
    let row = &all["mixture"];
    let (n_c, n_b, pi) = (int(&row["nc"]), int(&row["nb"]), num(&row["pi"]));
    let mut mixture = Mixture::<6>::default();
    for (t, window) in row["windows"].as_array().unwrap().iter().enumerate() {
        if let Some(mass) = row["inject"].get(t.to_string()) {
            mixture.start(num(mass));
        }
        let c = Hits { hits: int(&window[0]), n: n_c };
        let b = Hits { hits: int(&window[1]), n: n_b };
        // This trace is of products without the cap.
        mixture.multiply(&LN_PSI_LATENCY.map(|ln_psi| ln_e_2x2(c, b, pi, exp(ln_psi))));
        close(mixture.ln_e(), &row["logE"][t], "mixture");
    }
    let row = &all["tempered"];
    let mut mixture = Mixture::<6>::default();
    mixture.start(num(&row["w"]));
    let phi = num(&row["phi"]);
    let pi = num(&row["pi"]);
    mixture.multiply(
        &LN_PSI_LATENCY
            .map(|ln_psi| ln_e_2x2(hits(row, "c"), hits(row, "b"), pi, exp(ln_psi)) / phi),
    );
    let uncapped = mixture.ln_e();
    let mut capped = Mixture::<6>::default();
    capped.start(num(&row["w"]));
    capped.multiply(&bets(hits(row, "c"), hits(row, "b"), pi, phi));
    close(uncapped, &row["logE"], "tempered");
}

fn histogram(rows: &Value, factor: f64) -> Sparse {
    let rows = rows.as_array().unwrap();
    let value = |row: &Value| (num(&row[0]) * factor) as u64;
    rows.iter().flat_map(|row| std::iter::repeat_n(value(row), int(&row[1]) as usize)).collect()
}

#[test]
fn whole_traces_give_the_reference_values() {
    let all = vectors();
    let trace = &all["judge_trace"];
    let baseline = histogram(&trace["baseline_per_window"], 1.0);
    for run in trace["traces"].as_array().unwrap() {
        let canary = histogram(&trace["canary_per_window"], num(&run["canary_factor"]));
        let mut reference = Reference::default();
        (0..24).for_each(|_| reference.push(&baseline));
        for (level, threshold) in LEVELS.iter().zip(reference.thresholds()) {
            let (threshold, expected) =
                (threshold.unwrap(), &trace["thresholds"][level.to_string()]);
            assert_eq!(threshold.edge as u64, int(&expected[0]));
            close(threshold.pi, &expected[1], "pi");
        }
        let plan = Plan::default();
        let margins =
            EdgeMargins { harm: [plan.margin_harm; 6], not_worse: [1.25, 1.35], slow: 1.25 };
        let (mut harm, mut promotion) = (Harm::default(), Promotion::default());
        let rows = run["rows"].as_array().unwrap();
        let mut decided = None;
        for t in 0..60 {
            let thresholds = reference.thresholds();
            let edges = Edges::new(thresholds, &margins);
            let b = ArmTally::baseline(&baseline, &edges, Hits { hits: 5, n: 5_000 });
            let c = ArmTally::canary(&canary, &edges, Hits { hits: 1, n: 1_000 });
            harm.start(start_mass(t, false));
            harm.take(&HarmBets::new(&thresholds, &plan).window(&c, &b), &[1.0; 7]);
            let window = PromotionBets::new(&thresholds).window(&c, &b);
            promotion.take(&window, c.errors, plan.error_rates[0], &[1.0; 7]);
            reference.push(&baseline);
            if harm.ln_e() >= 50_f64.ln() && decided.is_none() {
                decided = Some(t + 1);
            }
            let Some(row) = rows.iter().find(|row| int(&row["window"]) == t + 1) else { continue };
            close(harm.ln_latency(), &row["logE_lat"], "latency");
            close(harm.ln_errors(), &row["logE_err"], "errors");
            close(harm.ln_e(), &row["logE"], "all");
            let not_worse = promotion.ln_e();
            close(not_worse[0], &row["logNI"]["0.95"], "p95");
            close(not_worse[1], &row["logNI"]["0.99"], "p99");
            close(not_worse[2], &row["logNI"]["err"], "not worse errors");
        }
        let expected = rows.iter().find(|row| row["decision"] == "rollback");
        assert_eq!(decided, expected.map(|row| int(&row["window"])), "{}", run["name"]);
    }
}
