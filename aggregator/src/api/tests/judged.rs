//! What the judge makes of samples, as the API shows it: sureness, dependence, end-to-end regression.

use super::*;

/// Slots of five seconds that are fed, the newest 20 s ago.
const SLOTS: u64 = 70;

/// Feeds one slot after another, oldest first; `slot` gives its latencies in nanoseconds.
fn feed_slots(state: &State, key: &SeriesKey, slot: impl Fn(u64) -> Vec<u64>) {
    for number in 0..SLOTS {
        feed(state, key, 20 + 5 * (SLOTS - 1 - number), slot(number));
    }
}

#[tokio::test]
async fn a_value_of_few_samples_is_shown_as_such_until_ten_lie_beyond_it() {
    for (count, p95, p99) in [
        (71, None, None),
        (199, Some(true), None),
        (200, Some(false), None),
        (999, Some(false), Some(true)),
        (1_000, Some(false), Some(false)),
    ] {
        let state = state();
        feed(&state, &key("rust", Stage::A, Arm::Baseline), 10, uniform(count, 1.0, 9.0));
        let (router, _) = served(state);
        let json = get(&router, "/api/v1/quantiles?q=0.95,0.99").await.json();
        let shown = &json["series"][0]["points"][0]["quantiles"];
        for (quantile, unsure) in [("0.95", p95), ("0.99", p99)] {
            let value = &shown[quantile];
            assert_eq!(
                value["value_ms"].is_null(),
                unsure.is_none(),
                "{count}, {quantile}: {value}"
            );
            assert_eq!(
                value["low_confidence"],
                unsure.unwrap_or(false),
                "{count}, {quantile}: {value}"
            );
            assert_eq!(value["reason"].is_null(), unsure.is_some(), "{count}, {quantile}: {value}");
        }
    }
}

#[tokio::test]
async fn samples_that_come_in_bursts_count_as_fewer_and_widen_the_interval() {
    let state = state();
    // The same thousands of samples: in one slice those beyond twice p95 are spread evenly, in the
    // other those of ten slots come together.
    let most = [uniform(188, 1.0, 3.0), uniform(11, 3.0, 5.0)].concat();
    let (even, burst) =
        ([&most[..], &[7_000_000]].concat(), [&most[..], &[7_000_000; 10]].concat());
    feed_slots(&state, &key("go", Stage::A, Arm::Baseline), |_| even.clone());
    feed_slots(&state, &key("rust", Stage::A, Arm::Baseline), |slot| match slot % 10 {
        9 => burst.clone(),
        _ => most.clone(),
    });
    let (router, _) = served(state);
    let of = async |language: &str| {
        let uri = format!("/api/v1/quantiles?slice=backend/{language}/large&q=0.95");
        let series = get(&router, &uri).await.json()["series"][0].clone();
        let value = &series["points"][0]["quantiles"]["0.95"];
        let width = value["high_ms"].as_f64().unwrap() - value["low_ms"].as_f64().unwrap();
        (series["phi"].as_f64().unwrap(), series["points"][0]["count"].clone(), width)
    };
    let ((even, even_count, even_width), (bursts, count, width)) =
        (of("go").await, of("rust").await);
    assert_eq!(even_count, count);
    assert!((1.0..1.5).contains(&even), "{even}");
    assert!(bursts > 4.0, "{bursts}");
    assert!(width > 1.5 * even_width, "{width} and {even_width} ms");
}

#[tokio::test]
async fn a_canary_whose_whole_query_is_slower_than_allowed_is_a_regression_of_its_slice_alone() {
    let state = state();
    let at = |slower: f64| uniform(400, 10.0 * slower, 90.0 * slower);
    for (language, slower) in [("rust", 1.5), ("go", 1.02)] {
        feed_slots(&state, &key(language, Stage::E2e, Arm::Baseline), |_| at(1.0));
        feed_slots(&state, &key(language, Stage::E2e, Arm::Canary), |_| at(slower));
    }
    let few = |_| uniform(2, 10.0, 90.0);
    let python = SeriesKey { slice: slice("python"), ..key("go", Stage::E2e, Arm::Baseline) };
    feed_slots(&state, &python, few);
    feed_slots(&state, &SeriesKey { arm: Arm::Canary, ..python }, few);
    let (router, _) = served(state);
    let tail = get(&router, "/api/v1/tail").await.json();
    let found = |slice: &str| {
        let all = tail["e2e_regression"].as_array().unwrap();
        all.iter().find(|one| one["slice"] == slice).cloned().unwrap_or_else(|| panic!("{tail}"))
    };
    let slower = found("backend/rust/large");
    assert_eq!((&slower["verdict"], &slower["limit"]), (&"violation".into(), &1.1.into()));
    assert!(slower["z"].as_f64() > slower["z_needed"].as_f64(), "{slower}");
    assert!(slower["samples"].as_u64() >= Some(200), "{slower}");
    assert_eq!(found("backend/go/large")["verdict"], "ok");
    let unknown = found("backend/python/large");
    assert_eq!(unknown["verdict"], "insufficient_data");
    assert!(unknown["z"].is_null() && unknown["samples"].is_null(), "{unknown}");
    let health = get(&router, "/health").await.json();
    let violations = health["violations"].as_array().unwrap().iter();
    let regressions: Vec<&Value> = violations.filter(|v| v["kind"] == "e2e_regression").collect();
    assert_eq!(regressions.len(), 1, "{health}");
    assert_eq!(regressions[0]["slice"], "backend/rust/large");
    let one = get(&router, "/api/v1/tail?slice=backend/go/large").await.json();
    assert_eq!(one["e2e_regression"].as_array().unwrap().len(), 1, "{one}");
}
