//! Sentinel probes: a query at its interval that must be answered, and what became of it.
//!
//! Promise: pure; `now` is time elapsed since the aggregator began. A probe is due at once at the
//! start, then every `every`; once it failed, every `again` until it passes, so that a failure is
//! confirmed within minutes and a recovery is measured by more than one run an hour.
//! Bounds: [`RUNS_MAX`] runs remembered, [`WHY_BYTES_MAX`] of why one failed.

use std::collections::VecDeque;

use lens_model::{Nanos, UnixNanos};

/// Runs remembered of one probe; past them the oldest goes.
pub const RUNS_MAX: usize = 2_048;

/// Longest reason kept, bytes.
pub const WHY_BYTES_MAX: usize = 300;

/// Failed runs in a row that make a probe a failing one.
pub const FAILING_FROM: u32 = 2;

/// One probe, configured.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What it is shown as.
    pub name: String,
    /// Where it asks.
    pub url: String,
    /// What it asks for, in the query string.
    pub query: String,
    /// What it sends instead, as JSON.
    pub body: Option<String>,
    /// Where the results are in the answer, as a JSON pointer; `None`: `/results` or `/hits`.
    pub results: Option<String>,
    /// Fewest results of an answer; 0 when it only must not fail.
    pub results_min: u64,
    /// Time between two runs.
    pub every: Nanos,
    /// Longest an answer is waited for.
    pub timeout: Nanos,
    /// Further attempts before a run has failed.
    pub retries: u32,
}

/// What became of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered as it must be.
    Passed {
        /// Results of the answer, where it had any list of them.
        results: Option<u64>,
    },
    /// It was answered with fewer results than there must be.
    TooFew {
        /// How many.
        results: u64,
    },
    /// It was not answered, or by an error.
    Failed {
        /// Why, in a sentence.
        why: String,
    },
}

/// How a probe stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It never ran.
    Unknown,
    /// Its last run passed.
    Passing,
    /// Its last run failed, the one before did not.
    Shaken,
    /// Its last runs failed, [`FAILING_FROM`] or more.
    Failing,
}

/// What is remembered of a probe.
#[derive(Clone, Debug, Default)]
pub struct Track {
    due: Nanos,
    running: bool,
    /// Failed runs in a row.
    pub failures: u32,
    /// Of those, the last ones that were answered with too few results.
    pub too_few: u32,
    /// Since when it fails.
    pub failing_since: Option<UnixNanos>,
    /// When the last run ended, and what became of it.
    pub last: Option<(UnixNanos, Outcome)>,
    runs: VecDeque<(Nanos, bool)>,
}

impl Track {
    /// Begins a run if one is due; whether it did.
    pub fn begin(&mut self, now: Nanos) -> bool {
        let begins = !self.running && now >= self.due;
        self.running |= begins;
        begins
    }

    /// Notes what became of a run. While the probe fails, or `hurry` is, the next is after `again`.
    pub fn ended(
        &mut self,
        probe: &Probe,
        outcome: Outcome,
        (now, wall): (Nanos, UnixNanos),
        again: Nanos,
        hurry: bool,
    ) {
        let passed = matches!(outcome, Outcome::Passed { .. });
        self.running = false;
        self.failures = if passed { 0 } else { self.failures.saturating_add(1) };
        let few = matches!(outcome, Outcome::TooFew { .. });
        self.too_few = if few { self.too_few.saturating_add(1) } else { 0 };
        self.failing_since = if passed { None } else { self.failing_since.or(Some(wall)) };
        if self.runs.len() == RUNS_MAX {
            self.runs.pop_front();
        }
        self.runs.push_back((now, passed));
        self.last = Some((wall, outcome));
        let pause = if passed && !hurry { probe.every } else { probe.every.min(again) };
        self.due = Nanos(now.0.saturating_add(pause.0));
    }

    /// Makes the next run come no later than `again` from now.
    pub fn hurry(&mut self, now: Nanos, again: Nanos) {
        self.due = self.due.min(Nanos(now.0.saturating_add(again.0)));
    }

    /// How it stands.
    pub fn stand(&self) -> Stand {
        match (self.last.is_some(), self.failures) {
            (false, _) => Stand::Unknown,
            (true, 0) => Stand::Passing,
            (true, failures) if failures < FAILING_FROM => Stand::Shaken,
            (true, _) => Stand::Failing,
        }
    }

    /// Runs that ended since, and how many of them passed.
    pub fn runs_since(&self, since: Nanos) -> (u64, u64) {
        let lately = self.runs.iter().rev().take_while(|(at, _)| *at >= since);
        lately.fold((0, 0), |(all, good), (_, passed)| (all + 1, good + u64::from(*passed)))
    }
}

/// What an answer of this status and body comes to.
pub fn judge(probe: &Probe, status: u16, body: &[u8]) -> Outcome {
    let failed = |why: String| Outcome::Failed { why: cut(why) };
    if !(200..300).contains(&status) {
        return failed(format!("{status}: {}", String::from_utf8_lossy(body)));
    }
    let Ok(json) = serde_json::from_slice::<serde_json::Value>(body) else {
        return failed(format!("{status} with a body that is no JSON"));
    };
    let usual = ["/results", "/hits"];
    let places = probe.results.as_deref().map_or(&usual[..], |_| &[]);
    let found = probe.results.as_deref().into_iter().chain(places.iter().copied());
    let mut counts = found.filter_map(|place| count(json.pointer(place)?));
    match counts.next() {
        Some(results) if results < probe.results_min => Outcome::TooFew { results },
        None if probe.results_min > 0 => {
            failed("the answer has no list of results where one is looked for".into())
        }
        results => Outcome::Passed { results },
    }
}

/// How many a list has, or a number says.
fn count(value: &serde_json::Value) -> Option<u64> {
    value.as_array().map(|list| list.len() as u64).or_else(|| value.as_u64())
}

/// No more of a reason than is kept.
pub fn cut(mut why: String) -> String {
    let mut end = why.len().min(WHY_BYTES_MAX);
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    why
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const fn at(secs: u64) -> (Nanos, UnixNanos) {
        (Nanos::from_secs(secs), UnixNanos(secs * 1_000_000_000))
    }

    const AGAIN: Nanos = Nanos::from_secs(60);

    pub(in crate::guards) fn probe(name: &str) -> Probe {
        Probe {
            name: name.into(),
            url: "http://127.0.0.1:1/search".into(),
            query: "class".into(),
            body: None,
            results: None,
            results_min: 1,
            every: Nanos::from_secs(3_600),
            timeout: Nanos::from_secs(5),
            retries: 2,
        }
    }

    pub(in crate::guards) fn few() -> Outcome {
        Outcome::TooFew { results: 0 }
    }

    pub(in crate::guards) const PASSED: Outcome = Outcome::Passed { results: Some(3) };

    #[test]
    fn it_runs_at_once_then_at_its_interval_and_one_run_at_a_time() {
        let mut track = Track::default();
        assert_eq!(track.stand(), Stand::Unknown);
        assert!(track.begin(at(0).0));
        assert!(!track.begin(at(9).0), "one runs");
        track.ended(&probe("class"), PASSED, at(10), AGAIN, false);
        assert!(!track.begin(at(3_609).0));
        assert!(track.begin(at(3_610).0));
    }

    #[test]
    fn it_runs_sooner_while_it_fails_and_two_failures_in_a_row_make_it_a_failing_one() {
        let mut track = Track::default();
        let probe = probe("class");
        track.ended(&probe, few(), at(10), AGAIN, false);
        assert_eq!((track.stand(), track.begin(at(69).0)), (Stand::Shaken, false));
        assert!(track.begin(at(70).0));
        track.ended(&probe, Outcome::Failed { why: "x".into() }, at(71), AGAIN, false);
        assert_eq!((track.stand(), track.failures, track.too_few), (Stand::Failing, 2, 0));
        assert_eq!(track.failing_since, Some(at(10).1), "since the first of them");
        track.ended(&probe, PASSED, at(131), AGAIN, true);
        assert_eq!((track.stand(), track.failing_since), (Stand::Passing, None));
        assert!(track.begin(at(191).0), "in a hurry though it passed");
        assert_eq!(track.runs_since(at(71).0), (2, 1));
    }

    #[test]
    fn no_more_runs_are_remembered_than_there_may_be() {
        let mut track = Track::default();
        for secs in 0..=RUNS_MAX as u64 {
            track.ended(&probe("class"), PASSED, at(secs), AGAIN, false);
        }
        assert_eq!(track.runs_since(Nanos(0)).0, RUNS_MAX as u64);
    }

    #[test]
    fn an_answer_passes_only_by_the_results_it_must_have() {
        let probe = probe("class");
        assert_eq!(judge(&probe, 200, br#"{"results": [1, 2, 3]}"#), PASSED);
        assert_eq!(judge(&probe, 200, br#"{"hits": []}"#), few());
        for (status, body) in [(200, "[]"), (200, "<html>"), (302, "{}"), (500, r#"{"hits":[1]}"#)]
        {
            let outcome = judge(&probe, status, body.as_bytes());
            assert!(matches!(outcome, Outcome::Failed { .. }), "{status} {body}: {outcome:?}");
        }
        let total = Probe { results: Some("/page/total".into()), ..probe.clone() };
        assert_eq!(judge(&total, 200, br#"{"page": {"total": 3}, "hits": []}"#), PASSED);
        let any = Probe { results_min: 0, ..probe };
        assert_eq!(judge(&any, 200, b"{}"), Outcome::Passed { results: None });
        assert!(matches!(judge(&any, 400, b"{}"), Outcome::Failed { .. }));
    }

    #[test]
    fn a_reason_is_cut_to_its_bound_between_characters() {
        assert_eq!(cut("x".repeat(WHY_BYTES_MAX + 1)).len(), WHY_BYTES_MAX);
        assert_eq!(cut(format!("x{}", "ä".repeat(WHY_BYTES_MAX))).len(), WHY_BYTES_MAX - 1);
    }
}
