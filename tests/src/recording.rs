//! A process that records until it is killed, from several threads into several series, and keeps
//! an [`oracle`](crate::oracle) of it.
//!
//! It prints its ready line and waits for a line on its standard input before the first record, so
//! that whoever started it can open its segment first; it ends when its standard input does.

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lens_model::{Arm, SeriesKey, Slice, Stage};
use lens_segment::{Node, Recorder};

use crate::oracle::{Oracle, Pen};

/// Threads that record.
pub const THREADS: usize = 3;

/// Series each of them records into.
pub const SERIES: usize = 6;

/// Counters of the oracle: the series, then requests answered and requests failed.
pub const COUNTERS: usize = SERIES + 2;

/// Records of a thread between two pauses.
const BURST: u64 = 40;

/// The pause, so that two cores carry everything else beside it. It falls into a record, by turns
/// before and after it is made, so that most kills find records in flight.
const PAUSE: Duration = Duration::from_millis(1);

/// The series it records into, in the oracle's order.
///
/// # Panics
/// Never: the names are of the allowed form.
#[expect(clippy::unwrap_used, reason = "the names are constants")]
pub fn keys() -> [SeriesKey; SERIES] {
    let places = [("rust", Stage::A), ("rust", Stage::B), ("rust", Stage::E2e)];
    let places = places.into_iter().chain([("go", Stage::A), ("go", Stage::C), ("go", Stage::E2e)]);
    let keys: Vec<SeriesKey> = places
        .map(|(language, stage)| {
            let slice = Slice::new("backend", language, "small").unwrap();
            SeriesKey { slice, stage, arm: Arm::Baseline }
        })
        .collect();
    keys.try_into().unwrap()
}

/// Runs it: `SEGMENT_DIR ORACLE_FILE INSTANCE`.
///
/// # Errors
/// In a sentence.
pub fn run(args: impl IntoIterator<Item = String>) -> Result<(), String> {
    let mut args = args.into_iter();
    let mut next = || args.next().ok_or("usage: SEGMENT_DIR ORACLE_FILE INSTANCE");
    let (dir, oracle, instance) = (PathBuf::from(next()?), PathBuf::from(next()?), next()?);
    let said = |error: &dyn std::fmt::Display| error.to_string();
    let node = Node { service: "lens", version: "1.4.2", instance: &instance };
    let recorder = Recorder::create(&dir, node).map_err(|error| said(&error))?;
    let oracle = Oracle::create(&oracle, THREADS, COUNTERS).map_err(|error| said(&error))?;
    ready(recorder.path()).map_err(|error| said(&error))?;
    io::stdin().lock().read_line(&mut String::new()).map_err(|error| said(&error))?;
    std::thread::spawn(|| {
        drop(io::copy(&mut io::stdin().lock(), &mut io::sink()));
        std::process::abort();
    });
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (recorder, pen) = (&recorder, oracle.pen(thread));
                scope.spawn(move || record(recorder, pen, thread as u64))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().map_err(|_| "a thread that records panicked".to_owned())?
        })
    })
}

fn ready(segment: &Path) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({"event": "ready", "segment": segment}))?;
    out.flush()
}

/// Records for ever: mostly samples of 1 µs to 1 s, now and then a request.
fn record(recorder: &Recorder, mut pen: Pen<'_>, thread: u64) -> Result<(), String> {
    let keys = keys();
    let series = keys.each_ref().map(|key| recorder.series(&key.slice, key.stage));
    let requests = recorder.requests_for(&keys[0].slice, Arm::Baseline);
    let requests = requests.map_err(|error| error.to_string())?;
    let mut drawn = thread;
    for count in 1_u64.. {
        // A Weyl sequence: cheap, and different in every thread.
        drawn = drawn.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let at = usize::try_from(drawn >> 40).unwrap_or(0) % SERIES;
        let series = series[at].as_ref().map_err(ToString::to_string)?;
        let nanos = (1_000 + (drawn >> 16) % 1_000) << (drawn >> 59).min(19);
        let pause = |when: u64| {
            if count % (2 * BURST) == when * BURST {
                std::thread::sleep(PAUSE);
            }
        };
        let record = || {
            pause(0);
            series.record(nanos);
            pause(1);
        };
        pen.record(at, record).map_err(|error| error.to_string())?;
        match count % 16 {
            0 => pen.record(SERIES + 1, || requests.error()),
            8 => pen.record(SERIES, || requests.ok()),
            _ => Ok(()),
        }
        .map_err(|error| error.to_string())?;
    }
    Ok(())
}
