//! One series under watch: its windows, its rules, where its ratio is going.

use lens_hist::{Quantile, Sparse};
use lens_model::{SeriesKey, Stage};

use super::future::Future;
use super::held::{Held, Thresholds, Watched};
use super::test::Test;
use crate::judge::Verdict;
use crate::judge::pyramid::Pyramid;
use crate::judge::slot::Slot;
use crate::judge::survivors::Survivors;
use crate::state::Rules;

/// Slots of silence after which nothing of a stream is left to be judged: the widest window.
const FORGOTTEN: i64 = 512;

/// One absolute limit under watch.
#[derive(Clone, Debug)]
pub struct LimitWatched {
    /// Which quantile, as it is named: `p95`, `p99`.
    pub name: &'static str,
    /// The rule.
    pub test: Test,
    /// What is held of it.
    pub watched: Watched,
}

/// One series under watch.
#[derive(Clone, Debug)]
pub struct Stream {
    tail_test: Test,
    tail: Watched,
    limits: Vec<LimitWatched>,
    future: Future,
    pyramid: Pyramid,
    /// The newest slot with samples.
    heard: Option<Slot>,
    now: Slot,
}

impl Stream {
    /// A series of which nothing was heard.
    pub fn new(key: &SeriesKey, rules: &Rules) -> Self {
        let limit = |(name, quantile, limit)| LimitWatched {
            name,
            test: Test::Limit { quantile, limit },
            watched: Watched::default(),
        };
        let limits = rules.limits(&key.slice, key.stage).into_iter().map(limit).collect();
        let limit = rules.tail_ratio(&key.slice);
        Self {
            tail_test: Test::Tail { limit, floor: rules.tail_floor },
            tail: Watched::default(),
            limits,
            future: Future::new(limit),
            pyramid: Pyramid::default(),
            heard: None,
            now: Slot(i64::MIN),
        }
    }

    /// The same as one of many, of which each looks ahead at slots of its own.
    #[must_use]
    pub fn among(mut self, others: usize) -> Self {
        self.future.look_as(others);
        self
    }

    /// What is held of the tail rule.
    pub const fn tail(&self) -> &Watched {
        &self.tail
    }

    /// The tail rule.
    pub const fn tail_test(&self) -> &Test {
        &self.tail_test
    }

    /// The absolute limits.
    pub fn limits(&self) -> &[LimitWatched] {
        &self.limits
    }

    /// Where the ratio is going.
    pub const fn future(&self) -> &Future {
        &self.future
    }

    /// The newest slot with samples.
    pub const fn heard(&self) -> Option<Slot> {
        self.heard
    }

    /// What is to be said of a rule of this series: `stale` after `stale_slots` without samples.
    pub const fn verdict(&self, watched: &Watched, stale_slots: i64) -> Verdict {
        match self.heard {
            None => Verdict::InsufficientData,
            Some(heard) if self.now.0 - heard.0 > stale_slots => Verdict::Stale,
            Some(_) => match watched.held() {
                Held::Unjudged => Verdict::InsufficientData,
                Held::Kept(_) => Verdict::Ok,
                Held::Broken(_) => Verdict::Violation,
            },
        }
    }

    /// Takes in the next slot, over all hosts; `work` is room to work in.
    pub fn slot(
        &mut self,
        slot: Slot,
        counts: Sparse,
        thresholds: &Thresholds,
        work: &mut Survivors,
    ) {
        self.now = slot;
        if !counts.is_empty() {
            self.heard = Some(slot);
        } else if self.heard.is_none_or(|heard| slot.0 - heard.0 > FORGOTTEN) {
            return;
        }
        work.set(counts.entries());
        self.tail.slot(slot, &self.tail_test, work);
        for limit in &mut self.limits {
            limit.watched.slot(slot, &limit.test, work);
        }
        let Self { tail_test, tail, limits, future, pyramid, .. } = self;
        pyramid.push(slot, counts, |window| {
            work.set(window.counts.entries());
            tail.window(window, tail_test, work, thresholds);
            for limit in &mut *limits {
                limit.watched.window(window, &limit.test, work, thresholds);
            }
            future.window(window, work, tail.phi());
        });
        self.future.slot(slot);
    }
}

impl Rules {
    /// The absolute limits of a stage of a slice.
    pub fn limits(
        &self,
        slice: &lens_model::Slice,
        stage: Stage,
    ) -> Vec<(&'static str, Quantile, lens_model::Nanos)> {
        let own = self.of_slice(slice);
        match stage {
            Stage::A => {
                vec![("p95", Quantile::P95, own.a_p95), ("p99", Quantile::P99, own.a_p99)]
            }
            Stage::B => vec![("p95", Quantile::P95, own.b_p95)],
            Stage::C => vec![("p95", Quantile::P95, own.c_p95)],
            Stage::E2e => {
                own.e2e_p95.into_iter().map(|limit| ("p95", Quantile::P95, limit)).collect()
            }
        }
    }
}
