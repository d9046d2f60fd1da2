//! `lens-load agents` against an aggregator: what it says it sent is what was merged.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use lens_benches::load::agents::{AgentsLoad, Identities, run};
use lens_benches::load::{Arrival, Distribution};
use world::{Tally, World};

fn load(world: &World, duration: Duration) -> AgentsLoad {
    AgentsLoad {
        agents: 5,
        endpoint: world.quic().into(),
        server_name: None,
        identities: Identities::Issue { dir: world.dir().into(), prefix: "load".into() },
        rate_batches: 8.0,
        arrival: Arrival::Poisson,
        series: 20,
        samples: 50,
        duration,
        distribution: "lognormal:median=5ms,sigma=0.7".parse::<Distribution>().unwrap(),
        seed: 42,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_simulated_agents_sent_is_merged_series_by_series() {
    let world = World::new(&[]);
    let report = run(load(&world, Duration::from_secs(3)), std::future::pending()).await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.connected, report.series.len()), (5, 20));
    assert!(report.batches_sent > 60, "{report:?}");
    assert_eq!(report.samples_sent, report.batches_sent * 20 * 50);
    assert_eq!(report.samples_sent, report.samples_acknowledged);
    assert_eq!(report.from_intended.count, report.batches_acknowledged);
    assert!(report.from_intended.p99_ms >= report.from_send.p99_ms);
    let sent: Tally = report.series.into_iter().map(|series| (series.key, series.sent)).collect();
    world.until_merged(&sent);
    for number in 0..5 {
        let name = format!("load-{number:04}");
        let seen = world.seen(&name).unwrap();
        assert_eq!(seen["identity"], format!("spiffe://lens.load/agent/{name}"));
        assert_eq!((&seen["duplicates"], &seen["rejected"]), (&0.into(), &serde_json::json!({})));
    }
    // A second run under the same names is another life of each agent: all of it is new.
    let again = run(load(&world, Duration::from_secs(1)), std::future::pending()).await.unwrap();
    assert!(again.is_complete(), "{again:?}");
    let mut both = sent;
    for series in again.series {
        *both.get_mut(&series.key).unwrap() += series.sent;
    }
    world.until_merged(&both);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aggregator_that_dies_leaves_a_report_that_says_so() {
    let mut world = World::new(&[]);
    let load = load(&world, Duration::from_secs(600));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(run(load, async move { drop(stopped.await) }));
    world::until("samples", || {
        let merged: u64 = world.merged()?.values().sum();
        world::holds(merged > 0, &merged)
    });
    world.aggregator().terminate();
    // Every agent's connection has ended; the schedule goes on until it is told to stop.
    stop.send(()).unwrap();
    let report = running.await.unwrap().unwrap();
    assert!(!report.is_complete() && report.stopped_early, "{report:?}");
    assert!(report.failures.keys().any(|why| why.contains("shutting down")), "{report:?}");
    assert!(report.batches_acknowledged > 0, "{report:?}");
    assert!(report.batches_acknowledged <= report.batches_sent, "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_agent_is_let_in_the_first_reason_is_given() {
    let (world, other) = (World::new(&[]), World::bare());
    let mut foreign = load(&world, Duration::from_secs(1));
    foreign.identities = Identities::Issue { dir: other.dir().into(), prefix: "load".into() };
    let error = run(foreign, std::future::pending()).await.unwrap_err().to_string();
    assert!(error.contains(world.quic()) && error.contains("certificate"), "{error}");
}
