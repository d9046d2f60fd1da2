use super::*;
use crate::state::{AgentState, Rules};
use crate::window::Windows;
use lens_hist::{Sparse, block};
use lens_journal::testing::FaultyDisk;
use lens_model::limits::CAPTURES_MAX;
use lens_model::{Arm, Incarnation, Stage};
use lens_wire::{CapturedSlot, SeriesId};

const NOW: UnixNanos = UnixNanos(1_000_000_000_000);
const LAST: Span = Span { from: UnixNanos(400_000_000_000), to: NOW };

fn agent(name: &str) -> AgentName {
    name.parse().unwrap()
}

/// A state that knows one connected agent, with captures on this disk.
fn state(disk: &FaultyDisk) -> State {
    let env = Env { disk: Arc::new(disk.clone()), ..Env::system() };
    let windows = Windows::new(Nanos::from_secs(5), Nanos::from_secs(60));
    let mut state = State::new(env.clone(), Rules::default(), windows, NOW);
    state.captures = Arc::new(Captures::open(env, PathBuf::from("/captures"), true));
    let mut connected = AgentState::new("spiffe://lens.test/agent/a1".into(), Incarnation(1), NOW);
    connected.connected = true;
    state.agents.write().insert(agent("a1"), connected);
    state
}

fn name(_: SeriesId) -> Option<(SeriesKey, InstanceName)> {
    let slice = Slice::new("backend", "rust", "large").unwrap();
    let key = SeriesKey { slice, stage: Stage::A, arm: Arm::Baseline };
    Some((key, InstanceName::new("n1").unwrap()))
}

fn frame(id: u64, samples: &[u64], last: bool) -> Captured {
    let mut bytes = Vec::new();
    block::encode(&samples.iter().copied().collect::<Sparse>(), &mut bytes);
    let entries = vec![CapturedSlot {
        series: SeriesId(0),
        start: NOW.minus(Nanos::from_secs(1)),
        duration: Nanos::from_millis(100),
        block: bytes.into(),
    }];
    Captured { id, offset_nanos: 5, held_from: UnixNanos(9), left_out: 2, last, entries }
}

fn take_one(state: &State) -> Summary {
    let begun = state.captures.begin(state, LAST, Selection::default(), "ann", "a test").unwrap();
    assert!(state.captures.asks(begun.id, &agent("a1")));
    state.captures.take(&agent("a1"), &frame(begun.id, &[5, 5, 700], true), name);
    state.captures.finish(state);
    state.captures.one(begun.id).unwrap()
}

#[test]
fn what_agents_gave_is_counted_and_kept_and_read_again_by_the_next_process() {
    let disk = FaultyDisk::new(7);
    let state_one = state(&disk);
    let done = take_one(&state_one);
    assert_eq!((done.stand, done.samples, done.steps, done.series), (Stand::Done, 3, 1, 1));
    let part = &done.agents[0];
    assert_eq!((part.state, part.held_from), (Part::Answered, Some(UnixNanos(14))));
    assert_eq!((part.steps, part.steps_left_out), (1, 2));
    for format in Format::ALL {
        let bytes = state_one.captures.file(done.id, format).unwrap();
        let listed = done.files.iter().find(|(name, _)| name == format.as_str()).unwrap();
        assert_eq!(bytes.len() as u64, listed.1);
    }
    let parquet = state_one.captures.file(done.id, Format::Parquet).unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
    assert_eq!(state(&disk).captures.all(), [done]);
}

#[test]
fn one_is_collected_at_a_time_and_what_is_of_another_is_passed_over() {
    let state = state(&FaultyDisk::new(7));
    let begin = || state.captures.begin(&state, LAST, Selection::default(), "ann", "a test");
    let first = begin().unwrap();
    assert_eq!(begin().unwrap_err(), BeginError::Busy(first.id));
    // WIRE-165
    state.captures.take(&agent("a1"), &frame(first.id + 1, &[5], true), name);
    assert_eq!(state.captures.one(first.id).unwrap().steps, 0);
    state.captures.finish(&state);
    let over = state.captures.one(first.id).unwrap();
    assert_eq!(over.agents[0].state, Part::CannotAnswer, "connected, and never asked");
    state.captures.take(&agent("a1"), &frame(first.id, &[5], true), name);
    assert_eq!(state.captures.one(first.id).unwrap().steps, 0, "it is over");
    assert!(begin().is_ok());
}

#[test]
fn one_that_waits_is_due_when_all_have_answered_or_its_time_is_up() {
    let state = state(&FaultyDisk::new(7));
    let begun = state.captures.begin(&state, LAST, Selection::default(), "ann", "a test").unwrap();
    let due = |millis: u64| state.captures.due(UnixNanos(begun.begun.0 + millis * 1_000_000));
    assert!(!due(600), "nobody was asked yet");
    assert!(state.captures.asks(begun.id, &agent("a1")));
    assert!(state.captures.asks(begun.id, &agent("a2")));
    assert!(!state.captures.asks(begun.id, &agent("a2")), "once");
    state.captures.take(&agent("a1"), &frame(begun.id, &[5], false), name);
    state.captures.take(&agent("a1"), &frame(begun.id, &[5], true), name);
    assert!(!due(600), "a2 has not answered");
    assert!(due(20_000), "and is waited for no longer");
    state.captures.left(&agent("a2"));
    assert!(due(600) && !due(400));
    state.captures.finish(&state);
    let over = state.captures.one(begun.id).unwrap();
    let states: Vec<Part> = over.agents.iter().map(|part| part.state).collect();
    assert_eq!(states, [Part::Answered, Part::Lost]);
}

#[test]
fn of_more_than_are_kept_the_oldest_and_its_files_go() {
    let disk = FaultyDisk::new(7);
    let state = state(&disk);
    let ids: Vec<u64> = (0..CAPTURES_MAX + 2).map(|_| take_one(&state).id).collect();
    let kept: Vec<u64> = state.captures.all().iter().rev().map(|one| one.id).collect();
    assert_eq!(kept, ids[2..]);
    assert!(state.captures.file(ids[1], Format::Hlog).is_err());
    assert!(state.captures.file(ids[2], Format::Hlog).is_ok());
}

#[test]
fn a_violation_captures_a_slice_once_in_ten_minutes() {
    let state = state(&FaultyDisk::new(7));
    let slice = |language| Slice::new("backend", language, "large").unwrap();
    for language in ["rust", "rust", "go"] {
        state.captures.violated(&state, &slice(language), "tail");
        state.captures.finish(&state);
    }
    let all = state.captures.all();
    let slices: Vec<_> = all.iter().map(|one| one.slice.clone().unwrap()).collect();
    assert_eq!(slices, [slice("go"), slice("rust")]);
    assert!(all.iter().all(|one| one.by == "alert" && one.reason == "tail"));
}

#[test]
fn a_capture_without_agents_is_refused_and_one_without_a_place_says_so() {
    let mut state = state(&FaultyDisk::new(7));
    state.captures = Arc::new(Captures::in_memory(Env::system()));
    let done = take_one(&state);
    assert_eq!(done.stand, Stand::Failed);
    assert!(done.failure.unwrap().contains("captures.dir"));
    state.agents.write().clear();
    let begun = state.captures.begin(&state, LAST, Selection::default(), "ann", "a test");
    assert_eq!(begun.unwrap_err(), BeginError::NoAgents);
}
