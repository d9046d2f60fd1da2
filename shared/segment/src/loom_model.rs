//! Exhaustive models of the protocol: every interleaving and every allowed stale read.
//!
//! Run: `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p lens-segment --release --lib loom`

use loom::sync::Arc;
use loom::thread;

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::protocol::{Bar, SlotMap, bump_owned, bump_shared, length_was_read, publish_length};

/// A segment of one series: an entry, its published length, two owned shards and the shared one.
struct Model {
    entry: AtomicU32,
    length: AtomicU32,
    counters: [AtomicU32; 3],
}

impl Model {
    fn new() -> Self {
        Self {
            entry: AtomicU32::new(0),
            length: AtomicU32::new(0),
            counters: [AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0)],
        }
    }

    /// What the reader does: length, fence, entry, counters, each read once.
    fn harvest(&self, baseline: &mut u32) -> u32 {
        if self.length.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        length_was_read();
        assert_eq!(self.entry.load(Ordering::Relaxed), 77, "a published entry is complete");
        let sum = self
            .counters
            .iter()
            .fold(0_u32, |sum, counter| sum.wrapping_add(counter.load(Ordering::Relaxed)));
        let delta = sum.wrapping_sub(*baseline);
        *baseline = sum;
        delta
    }
}

#[test]
fn loom_a_published_series_is_complete_and_every_record_lands_in_exactly_one_harvest() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let writer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                model.entry.store(77, Ordering::Relaxed);
                publish_length(&model.length, 1);
                bump_owned(&model.counters[0]);
                bump_owned(&model.counters[0]);
            }
        });
        let mut baseline = 0;
        let first = model.harvest(&mut baseline);
        let second = model.harvest(&mut baseline);
        assert!(first <= 2 && second <= 2, "a delta is never negative: {first} {second}");
        writer.join().unwrap();
        let last = model.harvest(&mut baseline);
        assert_eq!(first + second + last, 2);
    });
}

#[test]
fn loom_a_thread_that_takes_over_a_slot_continues_its_counter() {
    loom::model(|| {
        let model = Arc::new((SlotMap::new(), Model::new()));
        let work = |(slots, model): &(SlotMap, Model)| {
            let slot = slots.claim().unwrap();
            bump_owned(&model.counters[slot as usize]);
            slots.release(slot);
        };
        let other = thread::spawn({
            let model = Arc::clone(&model);
            move || work(&model)
        });
        work(&model);
        other.join().unwrap();
        let sum: u32 = model.1.counters.iter().map(|c| c.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, 2, "no record was lost in the hand-over");
    });
}

#[test]
fn loom_threads_beyond_the_shards_share_one_without_losing_a_count() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let other = thread::spawn({
            let model = Arc::clone(&model);
            move || bump_shared(&model.counters[2])
        });
        bump_shared(&model.counters[2]);
        other.join().unwrap();
        assert_eq!(model.counters[2].load(Ordering::Relaxed), 2);
    });
}

#[test]
fn loom_of_two_latencies_at_once_the_slower_passes_the_bar_and_stays_on_it() {
    loom::model(|| {
        let bar = Arc::new(Bar::new());
        let other = thread::spawn({
            let bar = Arc::clone(&bar);
            move || bar.raise(1, 9)
        });
        let fast = bar.raise(1, 5);
        assert!(other.join().unwrap().is_some(), "nothing was slower");
        assert_eq!(
            bar.raise(1, 9),
            None,
            "it is the bar now, whatever came of the faster: {fast:?}"
        );
    });
}

/// The hand-over with the ordering taken out must fail, or the model above proves nothing.
#[test]
#[should_panic(expected = "no record was lost")]
fn loom_a_hand_over_without_release_is_caught() {
    loom::model(|| {
        let model = Arc::new((AtomicU64::new(0), AtomicU32::new(0)));
        let work = |(taken, counter): &(AtomicU64, AtomicU32)| {
            if taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
                return 0;
            }
            bump_owned(counter);
            taken.store(0, Ordering::Relaxed);
            1
        };
        let other = thread::spawn({
            let model = Arc::clone(&model);
            move || work(&model)
        });
        let mine = work(&model);
        let expected = mine + other.join().unwrap();
        assert_eq!(model.1.load(Ordering::Relaxed), expected, "no record was lost");
    });
}

/// Publishing without Release must fail, or the first model proves nothing.
#[test]
#[should_panic(expected = "a published entry is complete")]
fn loom_a_relaxed_publish_is_caught() {
    loom::model(|| {
        let model = Arc::new(Model::new());
        let writer = thread::spawn({
            let model = Arc::clone(&model);
            move || {
                model.entry.store(77, Ordering::Relaxed);
                model.length.store(1, Ordering::Relaxed);
            }
        });
        model.harvest(&mut 0);
        writer.join().unwrap();
    });
}
