//! Questions about more than memory holds, and gaps, answered from a store.

use std::sync::Arc;

use lens_hist::{Sparse, block};
use lens_model::limits::WINDOW_SLOTS_MAX;
use lens_model::{Arm, Incarnation, InstanceName, Nanos, Sequence, Stage, UnixNanos};
use lens_service::planted::PlantedSet;
use lens_service::time::rfc3339;
use lens_wire::{ClockOffset, Instance, Label};
use serde_json::{Value, json};

use super::{get, served, slice, state};
use crate::log::Record;
use crate::log::record::{Body, Histogram};
use crate::state::State;
use crate::store::{Place, Store, StoreConfig};

const HOUR: u64 = 3_600;

/// One sample, `ago` seconds before now, as the first delta of a life of its own.
fn record(now: UnixNanos, ago: u64, life: u128) -> Record {
    let label = |text| Label::new(text).unwrap();
    let mut bytes = Vec::new();
    block::encode(&[5_000_000_u64].into_iter().collect::<Sparse>(), &mut bytes);
    let instance = Instance {
        name: InstanceName::new("n1").unwrap(),
        service: label("lens"),
        version: label("1"),
        zone: label(""),
    };
    let (stage, arm) = (Stage::A, Arm::Baseline);
    let histogram = Histogram { instance: 0, slice: 0, stage, arm, block: bytes.into() };
    Record {
        identity: "spiffe://lens.test/agent/a1".parse().unwrap(),
        incarnation: Incarnation(life),
        sequence: Sequence(1),
        // Sent at once, so that nothing was heard since.
        received: now.minus(Nanos::from_secs(ago - 1)),
        body: Some(Body {
            start: now.minus(Nanos::from_secs(ago)),
            duration: Nanos::from_secs(1),
            clock: ClockOffset { offset_nanos: 0, error_nanos: 1 },
            instances: vec![instance],
            slices: vec![slice("rust")],
            histograms: vec![histogram],
            requests: Vec::new(),
            gauges: Vec::new(),
        }),
    }
}

/// A state whose store has one sample 40 hours, 2 hours and a minute ago.
fn stored(dir: &std::path::Path) -> (State, Store) {
    let state = state();
    let now = state.now();
    let records = [(40 * HOUR, 1), (2 * HOUR, 2), (60, 3)];
    let records = records.map(|(ago, life)| record(now, ago, life));
    let store = fill(&state, dir, WINDOW_SLOTS_MAX, records.to_vec(), now);
    (state, store)
}

/// Gives a state a store of these records, of which memory holds so many slots.
fn fill(
    state: &State,
    dir: &std::path::Path,
    held_slots: usize,
    records: Vec<Record>,
    now: UnixNanos,
) -> Store {
    let config = StoreConfig { dir: dir.join("store"), held_slots, ..StoreConfig::default() };
    let place = Place::take(Arc::clone(&state.env.disk), config, PlantedSet::NONE).unwrap();
    // Begun three days ago, so that there is something to roll up.
    let mut store = Store::open(&place, now.minus(Nanos::from_secs(72 * HOUR))).unwrap();
    store.commit(records, 4, now).unwrap();
    while store.maintain(now).unwrap() {}
    state.restore(store.load(now).unwrap(), store.history());
    store
}

/// A record every 7 s of the last 14 minutes, every tenth of another life, so that there are gaps.
fn quarter_hour(now: UnixNanos) -> Vec<Record> {
    let of = |n: u64| {
        let life = u128::from(n / 10);
        Record { sequence: Sequence(1 + n % 10), ..record(now, 14 * 60 - 7 * n, life + 1) }
    };
    (0..120).map(of).collect()
}

#[tokio::test]
async fn memory_and_store_give_the_same_answers_on_both_sides_of_where_memory_ends() {
    let now = state().now();
    let span = |from: u64, to: u64| {
        let at = |ago| rfc3339(now.minus(Nanos::from_secs(ago)));
        format!("from={}&to={}", at(from), at(to))
    };
    let mut uris = Vec::new();
    for (from, to) in [(14 * 60, 0), (400, 300), (370, 350), (14 * 60, 600), (120, 10)] {
        for more in ["", "&step=5s", "&step=35s", "&step=1m"] {
            uris.push(format!("/api/v1/quantiles?{}{more}", span(from, to)));
        }
        uris.push(format!("/api/v1/histogram?{}", span(from, to)));
    }
    let mut answers: Vec<Vec<Value>> = Vec::new();
    // All of it in memory; memory that ends six minutes back; nearly none.
    for held_slots in [WINDOW_SLOTS_MAX, 72, 1] {
        let dir = tempfile::tempdir().unwrap();
        let state = state();
        let _store = fill(&state, dir.path(), held_slots, quarter_hour(now), now);
        let (router, _) = served(state);
        let mut told = Vec::new();
        for uri in &uris {
            let mut answer = get(&router, uri).await.json();
            for of_the_place in ["held_from", "resolution_s"] {
                answer.as_object_mut().unwrap().remove(of_the_place);
            }
            told.push(answer);
        }
        answers.push(told);
    }
    for (at, uri) in uris.iter().enumerate() {
        assert_eq!(answers[0][at], answers[1][at], "{uri}");
        assert_eq!(answers[0][at], answers[2][at], "{uri}");
    }
    let whole = &answers[2][0];
    assert_eq!(whole["series"][0]["points"][0]["count"], 120);
    assert_eq!(whole["incomplete"].as_array().unwrap().len(), 12, "{whole}");
}

#[test]
fn the_judge_goes_back_over_more_than_memory_holds() {
    let dir = tempfile::tempdir().unwrap();
    let state = state();
    let now = state.now();
    let records = vec![record(now, 50 * 60, 1)];
    let event = now.minus(Nanos::from_secs(50 * 60)).0 + 500_000_000;
    let _store = fill(&state, dir.path(), 72, records, now);
    state.judge_until(now);
    let judge = state.judge.read();
    let heard: Vec<_> = judge.streams().map(|(_, stream)| stream.heard().unwrap().0).collect();
    assert_eq!(heard, [i64::try_from(event / 5_000_000_000).unwrap()]);
}

#[test]
fn nothing_is_judged_while_what_was_before_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let state = state();
    let now = state.now();
    let store = fill(&state, dir.path(), 72, vec![record(now, 50 * 60, 1)], now);
    state.fault(Some("the disk is gone".into()));
    state.judge_until(now);
    assert_eq!(state.judge.read().now(), None);
    state.restore(store.load(now).unwrap(), store.history());
    state.fault(None);
    state.judge_until(now);
    assert!(state.judge.read().now().is_some());
}

#[test]
fn a_budget_burnt_over_hours_and_days_is_read_from_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let state = state();
    let now = state.now();
    // Five hours of nothing but slow requests, one each ten minutes, and none before.
    let slow = |n: u64| {
        let mut record = record(now, 1 + n * 600, u128::from(n) + 1);
        let mut bytes = Vec::new();
        block::encode(&[50_000_000_u64; 100].into_iter().collect::<Sparse>(), &mut bytes);
        record.body.as_mut().unwrap().histograms[0].block = bytes.into();
        record
    };
    let _store = fill(&state, dir.path(), 72, (0..30).rev().map(slow).collect(), now);
    let snapshot = crate::snapshot::Snapshot::take(&state, now);
    let read = crate::alerts::sense::Sense::default().read(&state, &state.alerts, &snapshot);
    let burn = read.iter().find(|found| found.key.to_string().starts_with("burn/")).unwrap();
    let tiers = burn.evidence["tiers"].as_array().unwrap();
    let told = |tier: &Value| (tier["long_s"].as_f64().unwrap(), tier["total"].as_u64().unwrap());
    // The hour has six, and what the sixth began with; six hours and three days have all.
    assert!((600..=700).contains(&told(&tiers[0]).1), "{burn:?}");
    assert_eq!([told(&tiers[1]), told(&tiers[3])], [(21_600.0, 3_000), (259_200.0, 3_000)]);
    assert!(tiers.iter().all(|tier| tier["reading"] == "violated"), "{tiers:?}");
    // Without a store nothing is known of more than memory holds, and that is no burn.
    state.fault(Some("the disk is gone".into()));
    let read = crate::alerts::sense::Sense::default().read(&state, &state.alerts, &snapshot);
    let burn = read.iter().find(|found| found.key.to_string().starts_with("burn/")).unwrap();
    assert!(burn.evidence["tiers"][1]["reason"].as_str().unwrap().contains("no store is open"));
}

#[tokio::test]
async fn the_past_is_answered_at_the_resolution_that_is_kept_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _store) = stored(dir.path());
    let (router, _) = served(state);
    let ask = async |query: &str| -> Value {
        get(&router, &format!("/api/v1/histogram?{query}")).await.json()
    };
    let told = |answer: &Value| (answer["count"].clone(), answer["resolution_s"].clone());
    assert_eq!(told(&ask("from=-10m").await), (json!(1), json!(5.0)));
    assert_eq!(told(&ask("from=-3h&to=-1h").await), (json!(1), json!(60.0)), "1,440 slots of 5 s");
    assert_eq!(told(&ask("from=-121m&to=-118m").await), (json!(1), json!(5.0)));
    // The 5 s windows of it are no longer kept.
    assert_eq!(told(&ask("from=-2430m&to=-2370m").await), (json!(1), json!(60.0)));
    assert_eq!(told(&ask("from=-3d").await), (json!(3), json!(3_600.0)));
    let steps = get(&router, "/api/v1/quantiles?from=-3d&step=6h").await.json();
    let points = steps["series"][0]["points"].as_array().unwrap();
    let counts: u64 = points.iter().map(|point| point["count"].as_u64().unwrap()).sum();
    assert_eq!((counts, points.len() > 1), (3, true), "{steps}");
}

#[tokio::test]
async fn what_an_agent_did_not_account_for_is_named_in_every_answer_over_it() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _store) = stored(dir.path());
    let now = state.now();
    let (router, _) = served(state);
    let ask = async |uri: &str| get(&router, uri).await.json();
    let whole = ask("/api/v1/quantiles?from=-3d").await;
    let gaps = whole["incomplete"].as_array().unwrap();
    assert_eq!(gaps.len(), 3, "two between lives, and silence since: {whole}");
    assert!(gaps.iter().all(|gap| gap["agent"] == "a1"));
    assert_eq!(gaps[2]["to"], Value::Null);
    assert!(gaps[2]["from"].as_str().unwrap() < rfc3339(now).as_str());
    for uri in ["/health", "/api/v1/tail", "/api/v1/slices", "/monitoring/dashboard"] {
        let answer = ask(uri).await;
        let gaps = answer["incomplete"].as_array().unwrap();
        assert_eq!(gaps.len(), 2, "{uri}: the last five minutes touch two: {answer}");
    }
    let agents = ask("/api/v1/agents").await;
    assert_eq!(agents["agents"][0]["gaps"].as_array().unwrap().len(), 3);
    assert_eq!(agents["agents"][0]["left"], false);
    let accounted = ask("/api/v1/histogram?from=-2400m&to=-2400m").await;
    assert_eq!(accounted["status"], 400, "an empty span");
}

#[tokio::test]
async fn a_store_that_is_closed_answers_from_memory_and_says_why_not_for_more() {
    let dir = tempfile::tempdir().unwrap();
    let (state, _store) = stored(dir.path());
    state.fault(Some("the disk is full".into()));
    let (router, _) = served(state);
    let recent = get(&router, "/api/v1/histogram?from=-10m").await.json();
    assert_eq!(recent["count"], 1);
    let older = get(&router, "/api/v1/histogram?from=-3h").await;
    assert_eq!(older.status, 503);
    assert!(older.text.contains("the disk is full"), "{}", older.text);
    let ready = get(&router, "/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.text.contains("the disk is full"), "{}", ready.text);
}
