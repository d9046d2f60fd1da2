//! Whole rollouts through the live controller, on windows of a simulated fleet: what it decides,
//! moves and keeps, across restarts. Run k has seed k.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(missing_docs, unreachable_pub, dead_code)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_possible_wrap)]

#[path = "../examples/canary_tables/world.rs"]
mod world;

use std::path::Path;
use std::sync::{Arc, Mutex};

use lens_aggregator::canary::config::Config;
use lens_aggregator::canary::controller::Phase;
use lens_aggregator::canary::levers::Levers;
use lens_aggregator::canary::{CanaryJudge, Live, settle};
use lens_aggregator::flags::Flags;
use lens_aggregator::judge::canary::Plan;
use lens_aggregator::judge::decision::{Decision, SlotJudge};
use lens_aggregator::judge::slot::{Slot, SlotWindows};
use lens_aggregator::state::{Rules, State};
use lens_aggregator::window::Windows;
use lens_model::{Arm, Nanos, Stage};
use lens_service::env::Env;
use serde_json::{Map, Value};
use world::{SCENARIOS, Spread, World, base_latencies};

/// An aggregator's state with a controller over a directory.
struct House {
    dir: tempfile::TempDir,
    flags: Flags,
    plan: Plan,
    state: Option<Arc<State>>,
    runtime: tokio::runtime::Runtime,
    began: i64,
    /// Shares that were routed, as they changed.
    shares: Vec<f64>,
    /// Restart after every slot that leaves this many decided steps.
    restarts: u32,
    restart_at_steps: bool,
    phase: Phase,
}

impl House {
    fn new(plan: Plan, restart_at_steps: bool) -> Self {
        let env = Env::system();
        let mut house = Self {
            dir: tempfile::tempdir().unwrap(),
            flags: Flags::in_memory(&env),
            plan,
            state: None,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            began: 0,
            shares: Vec::new(),
            restarts: 0,
            restart_at_steps,
            phase: Phase::Idle,
        };
        house.open();
        let state = house.state();
        state.canary.start(&state, "1.5.0", Some("s".into()), "test").unwrap();
        house.began = state.canary.look(|book, _| book.rollout.as_ref().unwrap().began);
        house.settle();
        house.phase = house.phase_now();
        house
    }

    fn open(&mut self) {
        let env = Env::system();
        let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
        let mut state = State::new(env.clone(), Rules::default(), windows, env.now());
        state.flags = self.flags.clone();
        let config = Config {
            dir: Some(self.dir.path().join("canary")),
            plan: self.plan.clone(),
            ..Config::default()
        };
        let levers: Arc<dyn Levers> = Arc::new(self.flags.clone());
        state.canary = Arc::new(Live::open(env, config, levers).unwrap());
        self.state = Some(Arc::new(state));
    }

    /// Ends without a word and begins again from what is on the disk.
    fn restart(&mut self) {
        self.state = None;
        self.restarts += 1;
        self.open();
    }

    fn state(&self) -> Arc<State> {
        Arc::clone(self.state.as_ref().unwrap())
    }

    fn phase_now(&self) -> Phase {
        self.state().canary.look(|book, _| book.state.phase)
    }

    fn settle(&mut self) {
        let state = self.state();
        self.runtime.block_on(settle(&state));
        let share = state.canary.stand().routed.unwrap().share;
        if self.shares.last() != Some(&share) {
            self.shares.push(share);
        }
    }

    fn take(&mut self, windows: &SlotWindows) {
        let mut windows = windows.clone();
        windows.slot = Slot(windows.slot.0 + self.began);
        let state = self.state();
        state.canary.slot(&state, &windows);
        drop(state);
        self.settle();
        let phase = self.phase_now();
        if phase != self.phase && self.restart_at_steps {
            self.restart();
            assert_eq!(self.phase_now(), phase, "the same step after a restart");
            self.settle();
            // A slot that was taken before changes nothing.
            let state = self.state();
            let before = state.canary.look(|book, evidence| (book.clone(), evidence.cloned()));
            state.canary.slot(&state, &windows);
            let after = state.canary.look(|book, evidence| (book.clone(), evidence.cloned()));
            assert_eq!(before.0.decisions, after.0.decisions);
        }
        self.phase = phase;
    }

    fn decisions(&self) -> Vec<Value> {
        let all = self.state().canary.decisions(u64::MAX, 1_000).unwrap();
        let mut all: Vec<Value> =
            all.iter().map(|json| serde_json::from_slice(json).unwrap()).collect();
        all.reverse();
        all
    }

    fn words(&self) -> Vec<String> {
        let word = |kept: &Value| kept["word"].as_str().unwrap().to_owned();
        self.decisions().iter().map(word).filter(|word| word != "hold").collect()
    }
}

/// Gives the windows of a simulated fleet to a house.
struct Feed(Arc<Mutex<House>>);

impl SlotJudge for Feed {
    fn slot(&mut self, windows: &SlotWindows, _: &mut Vec<Decision>) {
        self.0.lock().unwrap().take(windows);
    }
    fn summarise(&self, _: &mut Map<String, Value>) {}
}

fn short() -> Plan {
    Plan { dwell_s: vec![20, 20, 20], ..Plan::default() }.checked().unwrap()
}

/// A fleet of five hosts with both arms on each.
fn fleet(rps: f64, windows: i64) -> World {
    let mut world = World::new(SCENARIOS[0], Spread::InHost(0.2), rps);
    (world.hosts, world.windows, world.history_windows) = (5, windows, 0);
    world
}

fn driven(world: &World, plan: Plan, seed: u64, restarts: bool) -> House {
    let house = Arc::new(Mutex::new(House::new(plan, restarts)));
    let feed: Vec<Box<dyn SlotJudge>> = vec![Box::new(Feed(Arc::clone(&house)))];
    world::run_with(world, &base_latencies(), seed, feed);
    Arc::into_inner(house).unwrap().into_inner().unwrap()
}

#[test]
fn a_healthy_canary_walks_every_step_and_completes_though_it_is_restarted_at_each() {
    let house = driven(&fleet(2_000.0, 120), short(), 1, true);
    assert_eq!(house.phase, Phase::Complete, "{:?}", house.words());
    assert_eq!(house.shares, [5.0, 25.0, 95.0, 100.0]);
    assert_eq!(house.restarts, 3);
    let words = house.words();
    let moved: Vec<&String> = words.iter().filter(|word| *word != "insufficient_data").collect();
    assert_eq!(moved, ["promote", "promote", "complete"], "nothing is decided twice");
}

#[test]
fn a_canary_whose_errors_triple_or_whose_latency_is_half_again_is_rolled_back() {
    for (factor, errors) in [(1.5, (0.001, 0.001)), (1.0, (0.01, 0.03))] {
        let mut world = fleet(2_000.0, 90);
        (world.factor, world.errors) = (factor, errors);
        let house = driven(&world, Plan::default(), 2, false);
        assert_eq!(house.phase, Phase::RolledBack, "x{factor} {errors:?}: {:?}", house.words());
        assert_eq!(house.shares, [5.0, 0.0]);
        let state = house.state();
        let retreat = state.canary.look(|book, _| book.retreats[0].clone());
        assert_eq!((retreat.flag.as_str(), retreat.share_before), ("canary_rollback", 5.0));
        let last = house.decisions().pop().unwrap();
        assert_eq!(last["id"], retreat.decision.unwrap());
        assert!(last["decision"]["evidence"]["harm"]["ln_e"].as_f64().unwrap() >= 3.9);
    }
}

#[test]
fn a_canary_without_traffic_never_advances_and_says_so() {
    let mut world = fleet(1_000.0, 60);
    world.spread = Spread::InHost(0.0);
    let house = driven(&world, short(), 3, false);
    assert_eq!(house.phase, Phase::Step(0));
    assert_eq!(house.shares, [5.0]);
    let state = house.state();
    let blockers = state.canary.blockers(&state);
    let text = format!("{blockers:?}");
    assert!(text.contains("NoCanary"), "{text}");
    assert!(house.words().iter().all(|word| word == "insufficient_data"), "{:?}", house.words());
}

#[test]
fn one_slow_host_is_told_apart_and_its_version_is_not_rolled_back() {
    const CANARY: &[Arm] = &[Arm::Canary];
    let mut world = fleet(2_000.0, 60);
    world.slow = Some((2, CANARY, 3.0));
    let house = driven(&world, short(), 4, false);
    assert_eq!(house.phase, Phase::Step(0), "{:?}", house.words());
    let state = house.state();
    let evidence = state.canary.look(|_, evidence| evidence.cloned()).unwrap();
    let hosts = &evidence.harm.without_host.as_ref().unwrap().hosts;
    let named: Vec<&str> = evidence.slow_hosts.iter().map(|slow| &*slow.host).collect();
    assert!(evidence.harm_rests_on_one_host() || named == ["host-2"], "{hosts:?} {named:?}");
    assert!(named.iter().all(|name| *name == "host-2"), "{named:?}");
}

#[test]
fn a_decision_is_made_again_from_the_windows_it_was_kept_with() {
    let mut world = fleet(2_000.0, 90);
    world.factor = 1.5;
    world.stages = &[Stage::B, Stage::E2e];
    let house = driven(&world, Plan::default(), 5, false);
    let kept = house.decisions().pop().unwrap();
    assert_eq!((&kept["word"], &kept["replay"]), (&"rollback".into(), &Value::Null));
    let state = house.state();
    let plan: Plan = serde_json::from_value(kept["plan"].clone()).unwrap();
    let mut judge = CanaryJudge::new(plan).unwrap();
    let (mut again, mut from) = (Vec::new(), Slot(i64::MIN));
    loop {
        let slots = state.canary.taped(kept["rollout"].as_u64().unwrap(), from).unwrap();
        let Some(last) = slots.last() else { break };
        from = last.slot.next();
        for mut windows in slots {
            windows.slot = Slot(windows.slot.0 - house.began);
            judge.slot(&windows, &mut again);
        }
    }
    let last = again.iter().rev().find(|decision| decision.decision == "rollback").unwrap();
    let t_ms = kept["decision"]["t_ms"].as_i64().unwrap() - kept["began_ms"].as_i64().unwrap();
    assert_eq!(last.t_ms, t_ms);
    for part in ["harm", "promotion", "arms", "windows", "spread", "slow_hosts"] {
        assert_eq!(last.evidence["evidence"][part], kept["decision"]["evidence"][part], "{part}");
    }
    assert_eq!(last.evidence["reason"], kept["decision"]["reason"]);
}

#[test]
fn a_person_is_refused_what_the_evidence_does_not_show_and_may_end_it_any_time() {
    let mut world = fleet(1_000.0, 4);
    world.factor = 1.0;
    let house = driven(&world, Plan::default(), 6, false);
    let state = house.state();
    let error = state.canary.progress(&state, "ann").unwrap_err().to_string();
    assert!(error.contains("this step has lasted"), "{error}");
    assert_eq!(house.phase_now(), Phase::Step(0));
    state.canary.abort(&state, "enough", "ann").unwrap();
    assert_eq!(house.phase_now(), Phase::Aborted);
    house.runtime.block_on(settle(&state));
    assert_eq!(state.canary.stand().routed.unwrap().share, 0.0);
}

#[test]
fn a_disk_that_was_given_to_another_is_refused() {
    let house = House::new(short(), false);
    let dir: &Path = house.dir.path();
    let config = Config { dir: Some(dir.join("canary")), ..Config::default() };
    let env = Env::system();
    let levers = Arc::new(Flags::in_memory(&env));
    let error = Live::open(env, config, levers).unwrap_err().to_string();
    assert!(error.contains("another process uses it"), "{error}");
}
