//! The export against a carrier that answers as told, on paused time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lens_hist::{Sparse, block};
use lens_model::{AgentName, Arm, InstanceName, Nanos, SeriesKey, Slice, Stage, UnixNanos};
use lens_service::env::Env;
use lens_service::shutdown::{Shutdown, Trigger};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::ExponentialHistogramDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use parking_lot::Mutex;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::answer::Outcome;
use super::buckets::Buckets;
use super::carry::Carry;
use super::config::{Config, Protocol};
use super::ledger::{Ledger, Temporality};
use super::points::{Origin, REQUEST_BYTES_MAX};
use crate::state::{Rules, State};
use crate::window::{Host, Windows};

#[derive(Debug, Default)]
struct Told {
    answers: VecDeque<Outcome>,
    sent: Vec<(Instant, ExportMetricsServiceRequest)>,
}

#[derive(Clone, Debug, Default)]
struct Fake(Arc<Mutex<Told>>);

impl Carry for Fake {
    fn send<'a>(&'a self, request: &'a ExportMetricsServiceRequest) -> BoxFuture<'a, Outcome> {
        let mut told = self.0.lock();
        told.sent.push((Instant::now(), request.clone()));
        let answer = told.answers.pop_front().unwrap_or_else(taken);
        Box::pin(std::future::ready(answer))
    }
}

const fn taken() -> Outcome {
    Outcome::Taken { rejected: 0, said: String::new() }
}

fn later(secs: u64) -> Outcome {
    Outcome::Later { after: Some(Nanos::from_secs(secs)), said: "busy".into() }
}

fn key(language: &str) -> SeriesKey {
    let slice = Slice::new("backend", language, "large").unwrap();
    SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline }
}

fn feed(state: &State, key: &SeriesKey, values: &[u64]) {
    let mut bytes = Vec::new();
    block::encode(&values.iter().copied().collect::<Sparse>(), &mut bytes);
    let (block, _) = block::BlockRef::parse(&bytes).unwrap();
    let host =
        Host { agent: AgentName::new("a1").unwrap(), instance: InstanceName::new("n1").unwrap() };
    let now = state.now();
    let mut windows = state.windows.write();
    let host = windows.host(&host).unwrap();
    let handle = windows.handle(key, &host).unwrap();
    windows.merge(handle, now, &block, now).unwrap();
}

fn state() -> Arc<State> {
    let env = Env::system();
    let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
    let state = State::new(env.clone(), Rules::default(), windows, env.now());
    state.counted_since.set(UnixNanos(5)).unwrap();
    Arc::new(state)
}

struct World {
    state: Arc<State>,
    fake: Fake,
    stop: Trigger,
    task: JoinHandle<()>,
}

impl World {
    /// An export every 10 s, of what is fed after a moment.
    async fn new(temporality: Temporality, answers: impl IntoIterator<Item = Outcome>) -> Self {
        Self::over(state(), temporality, answers).await
    }

    async fn over(
        state: Arc<State>,
        temporality: Temporality,
        answers: impl IntoIterator<Item = Outcome>,
    ) -> Self {
        let fake = Fake::default();
        fake.0.lock().answers.extend(answers);
        let config = Config {
            endpoint: String::new(),
            protocol: Protocol::Grpc,
            interval: Nanos::from_secs(10),
            timeout: Nanos::from_secs(1),
            temporality,
            scale: 5,
            gzip: false,
            headers: Vec::new(),
            ca: None,
            resource: vec![("team".into(), "search".into())],
        };
        let (stop, stopped) = Shutdown::manual();
        let (held, carry) = (Arc::clone(&state), Box::new(fake.clone()));
        let task = tokio::spawn(super::run(held, config, carry, stopped));
        tokio::time::sleep(Duration::from_millis(10)).await;
        Self { state, fake, stop, task }
    }

    async fn end(self) -> Fake {
        self.stop.begin();
        self.task.await.unwrap();
        self.fake
    }
}

async fn secs(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

fn histograms(request: &ExportMetricsServiceRequest) -> Vec<ExponentialHistogramDataPoint> {
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let points = metrics.iter().filter_map(|metric| match &metric.data {
        Some(Data::ExponentialHistogram(histogram)) => Some(histogram.data_points.clone()),
        _ => None,
    });
    points.flatten().collect()
}

fn counts(fake: &Fake) -> Vec<u64> {
    let told = fake.0.lock();
    told.sent.iter().map(|(_, sent)| histograms(sent).iter().map(|p| p.count).sum()).collect()
}

fn shown(state: &State, name: &str) -> u64 {
    state.otlp.shown().iter().find(|(known, ..)| *known == name).unwrap().1
}

#[tokio::test(start_paused = true)]
async fn a_request_is_sent_again_word_for_word_and_not_before_the_receiver_asked() {
    let world = World::new(Temporality::Delta, [later(4)]).await;
    feed(&world.state, &key("rust"), &[1_000, 2_000]);
    secs(16).await;
    let state = Arc::clone(&world.state);
    let fake = world.end().await;
    let told = fake.0.lock();
    assert_eq!(told.sent[0].1, told.sent[1].1);
    assert!(told.sent[1].0 - told.sent[0].0 >= Duration::from_secs(4));
    assert_eq!((shown(&state, "requests_retried"), shown(&state, "points_superseded")), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_for_long_gets_the_newest_state_and_no_other() {
    let world = World::new(Temporality::Cumulative, [later(25)]).await;
    feed(&world.state, &key("rust"), &[1_000, 2_000]);
    secs(15).await;
    feed(&world.state, &key("rust"), &[3_000]);
    secs(15).await;
    assert_eq!(counts(&world.fake), [2], "it was asked to wait");
    secs(8).await;
    assert_eq!(counts(&world.fake), [2, 3]);
    let told = world.fake.0.lock();
    let point = &histograms(&told.sent[1].1)[0];
    assert_eq!((point.start_time_unix_nano, point.scale), (5, 5));
    assert!(point.time_unix_nano > histograms(&told.sent[0].1)[0].time_unix_nano);
    drop(told);
    assert!(shown(&world.state, "points_superseded") > 0);
    assert_eq!(shown(&world.state, "exports_put_off"), 1);
}

#[tokio::test(start_paused = true)]
async fn deltas_that_could_not_be_sent_are_in_the_next_one() {
    let world = World::new(Temporality::Delta, [taken(), later(25)]).await;
    feed(&world.state, &key("rust"), &[1_000, 2_000]);
    secs(11).await;
    feed(&world.state, &key("rust"), &[3_000]);
    secs(10).await;
    feed(&world.state, &key("rust"), &[4_000, 5_000]);
    feed(&world.state, &key("go"), &[6_000]);
    secs(40).await;
    let fake = world.end().await;
    assert_eq!(counts(&fake)[..3], [2, 1, 4]);
    assert_eq!(counts(&fake)[3..].iter().sum::<u64>(), 0, "nothing is told twice");
    let told = fake.0.lock();
    let ends: Vec<_> = told.sent[..3].iter().map(|(_, sent)| histograms(sent)[0].clone()).collect();
    // The third begins where the first ended: that is what the receiver has.
    let rust = histograms(&told.sent[2].1).into_iter().find(|point| point.count == 3).unwrap();
    assert_eq!(rust.start_time_unix_nano, ends[0].time_unix_nano);
}

#[tokio::test(start_paused = true)]
async fn a_delta_begins_with_what_comes_after_the_start() {
    let state = state();
    feed(&state, &key("rust"), &[1_000; 50]);
    let world = World::over(state, Temporality::Delta, []).await;
    feed(&world.state, &key("rust"), &[3_000]);
    secs(11).await;
    assert_eq!(counts(&world.fake), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_for_good_is_counted_and_never_sent_again() {
    let refused = Outcome::Refused { said: "InvalidArgument".into() };
    let world = World::new(Temporality::Delta, [refused]).await;
    feed(&world.state, &key("rust"), &[1_000, 2_000]);
    secs(25).await;
    assert_eq!(counts(&world.fake), [2, 0]);
    assert_eq!(shown(&world.state, "requests_refused"), 1);
    assert!(shown(&world.state, "points_refused") > 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_partial_success_rejected_is_counted_and_never_sent_again() {
    let partial = Outcome::Taken { rejected: 1, said: "too old".into() };
    let world = World::new(Temporality::Delta, [partial]).await;
    feed(&world.state, &key("rust"), &[1_000, 2_000]);
    secs(25).await;
    assert_eq!(counts(&world.fake), [2, 0]);
    assert_eq!(shown(&world.state, "points_rejected"), 1);
    assert_eq!(shown(&world.state, "requests_retried"), 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_merged_last_is_exported_at_shutdown() {
    let world = World::new(Temporality::Cumulative, []).await;
    feed(&world.state, &key("rust"), &[1_000]);
    secs(11).await;
    feed(&world.state, &key("rust"), &[2_000]);
    let fake = world.end().await;
    assert_eq!(counts(&fake), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_for_no_receiver_that_asked_for_longer() {
    let world = World::new(Temporality::Cumulative, [later(5), later(5)]).await;
    feed(&world.state, &key("rust"), &[1_000]);
    secs(11).await;
    let begun = Instant::now();
    let fake = world.end().await;
    assert!(begun.elapsed() <= Duration::from_secs(2));
    assert_eq!(counts(&fake), [1]);
}

#[tokio::test(start_paused = true)]
async fn without_a_store_nothing_is_exported() {
    let env = Env::system();
    let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
    let state = Arc::new(State::new(env.clone(), Rules::default(), windows, env.now()));
    let world = World::over(state, Temporality::Cumulative, []).await;
    feed(&world.state, &key("rust"), &[1_000]);
    secs(25).await;
    assert_eq!(counts(&world.end().await), [0; 0]);
}

#[test]
fn many_series_become_several_requests_and_none_is_larger_than_receivers_take() {
    let state = state();
    let series = 1_200;
    for at in 0..series {
        feed(&state, &key(&format!("l{at}")), &[1_000, 50_000, 2_000_000]);
    }
    let origin = Origin { resource: Vec::new(), temporality: Temporality::Cumulative };
    let mut ledger = Ledger::new(Temporality::Cumulative, UnixNanos(5));
    let chunks = super::gather::gather(&state, &mut ledger, &Buckets::new(5), &origin, state.now());
    assert!(chunks.len() > 1, "{}", chunks.len());
    let held: usize = chunks.iter().map(|chunk| histograms(&chunk.request).len()).sum();
    assert_eq!(held, series);
    for chunk in &chunks {
        let bytes = chunk.request.encoded_len();
        assert!(bytes <= REQUEST_BYTES_MAX + 4_096, "{bytes}");
        let metrics = &chunk.request.resource_metrics[0].scope_metrics[0].metrics;
        let points: usize = metrics
            .iter()
            .map(|metric| match metric.data.as_ref().unwrap() {
                Data::Gauge(gauge) => gauge.data_points.len(),
                Data::Sum(sum) => sum.data_points.len(),
                Data::ExponentialHistogram(histogram) => histogram.data_points.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(points as u64, chunk.points);
    }
}
