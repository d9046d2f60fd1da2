//! The windows a rollout was judged by, kept as they were given: for replays, and for taking up a
//! comparison after a restart.
//!
//! A slot is one value: its windows as JSON, their counts as the blocks that are shipped. A window
//! that comes late corrects what is shown elsewhere and never what is here.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use lens_hist::block::{self, BlockRef};
use lens_hist::{Sparse, layout};
use lens_model::{Arm, Slice, Stage};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::judge::slot::{HostWindow, Slot, SlotWindows};

/// One window as it is kept; short names, for there are many.
#[derive(Serialize, Deserialize)]
struct Kept {
    s: Slice,
    g: Stage,
    a: Arm,
    h: Box<str>,
    o: u64,
    e: u64,
    /// The counts' block, base64.
    b: String,
}

/// The kept form of a slot.
pub fn encode(windows: &SlotWindows) -> Vec<u8> {
    let kept = |window: &HostWindow| {
        let mut bytes = Vec::new();
        block::encode(&window.counts, &mut bytes);
        Kept {
            s: window.slice.as_ref().clone(),
            g: window.stage,
            a: window.arm,
            h: window.host.as_ref().into(),
            o: window.ok,
            e: window.errors,
            b: STANDARD_NO_PAD.encode(bytes),
        }
    };
    let all: Vec<Kept> = windows.windows.iter().map(kept).collect();
    serde_json::to_vec(&all).unwrap_or_default()
}

/// The slot of its kept form; `None` when that cannot be read.
pub fn decode(slot: Slot, bytes: &[u8]) -> Option<SlotWindows> {
    let all: Vec<Kept> = serde_json::from_slice(bytes).ok()?;
    let window = |kept: Kept| {
        let block = STANDARD_NO_PAD.decode(kept.b).ok()?;
        let counts = if block.is_empty() {
            Sparse::new()
        } else {
            BlockRef::parse(&block).ok()?.0.to_sparse()
        };
        Some(HostWindow {
            slice: Arc::new(kept.s),
            stage: kept.g,
            arm: kept.a,
            host: Arc::from(kept.h),
            counts,
            ok: kept.o,
            errors: kept.e,
        })
    };
    let windows = all.into_iter().map(window).collect::<Option<Vec<_>>>()?;
    Some(SlotWindows { slot, windows })
}

/// The lines of `lens replay` for a slot, with `began` at 0.
pub fn lines(windows: &SlotWindows, began: Slot, out: &mut Vec<u8>) {
    let t_ms = Slot(windows.slot.0.saturating_sub(began.0)).start_millis();
    for window in &windows.windows {
        let values: Vec<(f64, u64)> = (window.counts.entries().iter())
            .map(|(index, count)| (millis(usize::from(*index)), *count))
            .collect();
        let line = json!({
            "t_ms": t_ms,
            "slice": *window.slice,
            "stage": window.stage,
            "arm": window.arm,
            "host": &*window.host,
            "n": window.n(),
            "errors": window.errors,
            "requests": window.requests(),
            "values": values,
        });
        out.extend_from_slice(line.to_string().as_bytes());
        out.push(b'\n');
    }
}

/// A latency of this bucket, milliseconds.
#[allow(clippy::cast_precision_loss)]
fn millis(index: usize) -> f64 {
    layout::mid(index) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot() -> SlotWindows {
        let counts = [1, 900, 20_000_000, 68_000_000_000, u64::MAX].into_iter().collect();
        let window = |host: &str, counts| HostWindow {
            slice: Arc::new(Slice::new("backend", "rust", "large").unwrap()),
            stage: Stage::B,
            arm: Arm::Canary,
            host: host.into(),
            counts,
            ok: 7,
            errors: 2,
        };
        let windows = vec![window("a/1", counts), window("a/2", Sparse::new())];
        SlotWindows { slot: Slot(40), windows }
    }

    #[test]
    fn a_slot_comes_back_as_it_was_kept_and_damage_is_noticed() {
        let kept = encode(&slot());
        assert_eq!(decode(Slot(40), &kept), Some(slot()));
        assert_eq!(decode(Slot(40), &kept[1..]), None);
        assert_eq!(decode(Slot(0), b"[]").map(|slot| slot.windows.len()), Some(0));
    }

    #[test]
    fn every_bucket_comes_back_from_the_milliseconds_it_is_written_as() {
        for index in 0..layout::SLOTS {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let nanos = (millis(index) * 1e6).round() as u64;
            assert_eq!(layout::index_of(nanos), index);
        }
    }

    #[test]
    fn times_count_from_the_slot_in_which_the_rollout_began() {
        let mut out = Vec::new();
        lines(&slot(), Slot(42), &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.lines().all(|line| line.contains("\"t_ms\":-10000")), "{text}");
        assert!(text.contains("\"requests\":9"), "{text}");
    }
}
