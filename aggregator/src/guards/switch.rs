//! Kill switches that engage by themselves: what they read, and when they let go.
//!
//! Promise: pure. A switch engages on evidence and never on silence; it lets go only on evidence of
//! the opposite, over its whole recovery time. What it does to the world is done once an engagement.

use lens_model::{Nanos, UnixNanos};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::probe::{FAILING_FROM, Probe, Stand, Track};

/// Probes that must be failing for the whole of search to be.
const PROBES_FAILING: usize = 2;

/// Runs below which no recovery is believed.
pub const RECOVERY_RUNS_MIN: u64 = 3;

/// Which switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A probe was answered with too few results, twice in a row.
    ZeroResultsEmergency,
    /// Two probes fail, each twice in a row.
    SearchSystemFailure,
    /// Too many requests fail, or take too long, for long.
    ServiceOverload,
}

impl Kind {
    /// Every switch.
    pub const ALL: [Self; 3] =
        [Self::ZeroResultsEmergency, Self::SearchSystemFailure, Self::ServiceOverload];

    /// The name used in keys, JSON and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZeroResultsEmergency => "zero_results_emergency",
            Self::SearchSystemFailure => "search_system_failure",
            Self::ServiceOverload => "service_overload",
        }
    }
}

/// What a switch does when it engages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// It is not there.
    #[default]
    Off,
    /// People are told.
    Alert,
    /// And the rollout's kill switch is engaged.
    Kill,
}

impl std::str::FromStr for Act {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "off" => Ok(Self::Off),
            "alert" => Ok(Self::Alert),
            "kill" => Ok(Self::Kill),
            _ => Err(()),
        }
    }
}

/// What a switch reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It must be on.
    Broken(String),
    /// All is well, by evidence.
    Well,
    /// Neither can be told.
    Unknown,
}

/// A switch that is on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engaged {
    /// Since when.
    pub since: UnixNanos,
    /// Why, in a sentence.
    pub reason: String,
}

/// A probe and what is remembered of it.
pub type Tracked<'a> = (&'a Probe, &'a Track);

/// Whether a probe finds too little, or none can tell.
pub fn zero_results<'a>(probes: impl Iterator<Item = Tracked<'a>>) -> Reading {
    let mut well = true;
    let mut any = false;
    for (probe, track) in probes.filter(|(probe, _)| probe.results_min > 0) {
        if track.too_few >= FAILING_FROM {
            return Reading::Broken(format!(
                "probe {} was answered with fewer than {} results {} times in a row",
                probe.name, probe.results_min, track.too_few
            ));
        }
        any = true;
        well &= track.stand() == Stand::Passing;
    }
    if any && well { Reading::Well } else { Reading::Unknown }
}

/// Whether search as a whole fails.
pub fn search_failure<'a>(probes: impl Iterator<Item = Tracked<'a>>) -> Reading {
    let probes: Vec<Tracked<'_>> = probes.collect();
    let failing = |stand: Stand| stand == Stand::Failing;
    let named: Vec<&str> = probes
        .iter()
        .filter(|(_, track)| failing(track.stand()))
        .map(|(probe, _)| probe.name.as_str())
        .collect();
    if named.len() >= PROBES_FAILING {
        return Reading::Broken(format!(
            "probes {} fail, twice or more in a row",
            named.join(", ")
        ));
    }
    // That a single run of one failed is what the recovery's share allows for.
    let known = probes.iter().all(|(_, track)| track.stand() != Stand::Unknown);
    if known && named.is_empty() && !probes.is_empty() { Reading::Well } else { Reading::Unknown }
}

/// Whether enough runs passed since `since`, all probes together.
#[allow(clippy::cast_precision_loss)]
pub fn recovered<'a>(
    probes: impl Iterator<Item = Tracked<'a>>,
    since: Nanos,
    success_min: f64,
) -> bool {
    let sum = |(all, good), (_, track): Tracked<'_>| {
        let (more, passed) = track.runs_since(since);
        (all + more, good + passed)
    };
    let (all, good) = probes.fold((0, 0), sum);
    all >= RECOVERY_RUNS_MIN && good as f64 >= success_min * all as f64
}

/// A reading that must hold for a while without a break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lasting(Option<Nanos>);

impl Lasting {
    /// Takes whether it holds now; whether it held for `long`. What is not known breaks it.
    pub fn take(&mut self, holds: bool, now: Nanos, long: Nanos) -> bool {
        if !holds {
            self.0 = None;
            return false;
        }
        let since = *self.0.get_or_insert(now);
        now.0.saturating_sub(since.0) >= long.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::probe::Outcome;
    use super::super::probe::tests::{PASSED, few, probe};
    use super::*;

    const AGAIN: Nanos = Nanos::from_secs(1);

    /// A probe whose runs came to this, one a second.
    fn track(outcomes: &[Outcome]) -> Track {
        let mut track = Track::default();
        for (secs, outcome) in (1..).zip(outcomes) {
            let at = (Nanos::from_secs(secs), UnixNanos(secs * 1_000_000_000));
            track.ended(&probe("class"), outcome.clone(), at, AGAIN, false);
        }
        track
    }

    fn failed() -> Outcome {
        Outcome::Failed { why: "refused".into() }
    }

    #[test]
    fn zero_results_engage_at_the_second_in_a_row_and_an_unreachable_engine_never_does() {
        let class = probe("class");
        let read = |outcomes: &[Outcome]| zero_results([(&class, &track(outcomes))].into_iter());
        assert_eq!(read(&[]), Reading::Unknown, "no run is no evidence");
        assert_eq!(read(&[few()]), Reading::Unknown);
        assert!(matches!(read(&[few(), few()]), Reading::Broken(_)));
        assert_eq!(read(&[few(), PASSED]), Reading::Well);
        assert_eq!(read(&[failed(), failed(), failed()]), Reading::Unknown);
        assert_eq!(zero_results(std::iter::empty()), Reading::Unknown);
    }

    #[test]
    fn search_has_failed_only_when_two_probes_have_twice_in_a_row() {
        let (class, def) = (probe("class"), probe("def"));
        let read = |a: &[Outcome], b: &[Outcome]| {
            search_failure([(&class, &track(a)), (&def, &track(b))].into_iter())
        };
        assert!(matches!(read(&[failed(), few()], &[few(), failed()]), Reading::Broken(_)));
        assert_eq!(read(&[failed(), failed()], &[PASSED, failed()]), Reading::Unknown);
        assert_eq!(read(&[PASSED], &[PASSED]), Reading::Well);
        assert_eq!(read(&[PASSED], &[]), Reading::Unknown, "one never ran");
    }

    #[test]
    fn a_recovery_needs_its_share_of_runs_and_more_than_two_of_them() {
        let class = probe("class");
        let all = |good: usize, bad: usize| {
            let outcomes = [vec![failed(); bad], vec![PASSED; good]].concat();
            let track = track(&outcomes);
            recovered([(&class, &track)].into_iter(), Nanos(0), 0.9)
        };
        assert!(all(9, 1) && !all(8, 1) && all(3, 0) && !all(2, 0) && !all(0, 0));
    }

    #[test]
    fn what_must_last_begins_anew_at_every_break() {
        let (secs, mut lasting) = (Nanos::from_secs, Lasting::default());
        assert!(!lasting.take(true, secs(0), secs(10)));
        assert!(!lasting.take(true, secs(9), secs(10)));
        assert!(!lasting.take(false, secs(10), secs(10)));
        assert!(!lasting.take(true, secs(11), secs(10)));
        assert!(lasting.take(true, secs(21), secs(10)));
    }
}
