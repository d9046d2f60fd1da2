//! Where the ratio of one series is going: trend, forecast, drift.
//!
//! One point every 320 s, ln(p99/p95) of that window where it has samples enough; the daily season
//! is taken out once there are three days of them. Every third point the slopes over the last 18,
//! 36 and 72 points are taken and the most significant stands. A forecast is published only when
//! three such looks in a row agree: Z > 4, the slope's lower bound above 0, and the latest crossing
//! within 24 h.
//! Drift: exceedances of twice p95, as the first hour with samples had it, every 10 s.
//! Bounds: seven days of points, 7.5 KB.

use std::collections::VecDeque;

use lens_hist::{Quantile, Sparse};
use serde::Serialize;
use utoipa::ToSchema;

use super::test::point;
use crate::judge::drift::{CAP, Drift};
use crate::judge::math::{exp, ln};
use crate::judge::pyramid::Window;
use crate::judge::slot::{SLOT, Slot};
use crate::judge::survivors::Survivors;
use crate::judge::trend::{Slope, crossing, middle};

/// Slots of one point: 320 s.
const POINT: i64 = 64;

/// Points of a day.
const DAY: i64 = 270;

/// Days of points kept.
const DAYS: i64 = 7;

/// Days of points from which a season is taken.
const SEASON_DAYS_MIN: usize = 3;

/// Points on both sides over which the season is smoothed.
const SEASON_SMOOTH: i64 = 5;

/// Points of the slopes that are tried.
const SPANS: [usize; 3] = [18, 36, 72];

/// Points between two looks: 16 min.
const LOOK: i64 = 3;

/// Significance of a trend that is named, and of one that is extrapolated.
const Z_TREND: f64 = 3.0;
const Z_FORECAST: f64 = 4.0;

/// Looks in a row that must agree before a forecast is published.
const LOOKS: u32 = 3;

/// Fewest samples of a point.
const POINT_SAMPLES_MIN: u64 = 1_000;

/// Windows of 10 s until a false alarm of drift, on average, at least: 30 days.
const DRIFT_ALARM: f64 = 259_200.0;

/// Samples the drift's reference needs, and the rate above it that is no drift.
const REFERENCE_SLOTS: i64 = 720;
const REFERENCE_SAMPLES_MIN: u64 = 20_000;
const REFERENCE_MARGIN: f64 = 1.1;

/// Which way a ratio goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The ratio falls.
    Improving,
    /// No slope beyond chance.
    Stable,
    /// The ratio rises.
    Degrading,
}

/// The trend of a ratio.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Trend {
    /// Which way, where chance does not explain it.
    pub trend: Direction,
    /// How much the ratio changed over the span, as fitted; never negative.
    #[schema(example = 0.21)]
    pub trend_strength: f64,
    /// Change of the ratio an hour.
    #[schema(example = 0.035)]
    pub slope_per_h: f64,
    /// Lower end of its 99 % interval.
    pub slope_low_per_h: f64,
    /// Upper end of its 99 % interval.
    pub slope_high_per_h: f64,
    /// Mann-Kendall's statistic, corrected for autocorrelation: standard normal without a trend.
    #[schema(example = 4.4)]
    pub z: f64,
    /// Hours it is taken over.
    #[schema(example = 6.4)]
    pub span_h: f64,
    /// Points of 320 s it is taken from.
    #[schema(example = 72)]
    pub points: usize,
    /// What to do about it.
    pub recommendation: &'static str,
}

/// When a ratio will pass its limit, if it goes on as it does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Forecast {
    /// Hours until then.
    #[schema(example = 3.2)]
    pub time_to_violation_h: f64,
    /// The earliest the slope's and the level's intervals allow.
    pub earliest_h: f64,
    /// The latest.
    pub latest_h: f64,
}

/// The future of one series.
#[derive(Clone, Debug)]
pub struct Future {
    target: f64,
    /// (point number, ln ratio), ascending.
    points: VecDeque<(i64, f32)>,
    trend: Option<Trend>,
    candidate: Option<Forecast>,
    agreed: u32,
    /// Slots after the end of a round of points at which it looks.
    look_after: i64,
    reference: Reference,
}

/// What drift is held against.
#[derive(Clone, Debug)]
enum Reference {
    /// Its samples are still being collected, since this slot.
    Gathering(Option<Slot>, Sparse),
    /// Exceedances of the bucket edge `edge` are bet against.
    Set { edge: usize, drift: Drift },
}

impl Future {
    /// Nothing known, for a ratio that must not pass `limit`.
    pub fn new(limit: f64) -> Self {
        Self {
            target: ln(limit),
            points: VecDeque::new(),
            trend: None,
            candidate: None,
            agreed: 0,
            look_after: 0,
            reference: Reference::Gathering(None, Sparse::new()),
        }
    }

    /// Looks at other slots than its neighbours: a look compares every point with every other, and all
    /// looks at once would hold up a tick.
    pub(super) fn look_as(&mut self, neighbour: usize) {
        self.look_after = i64::try_from(neighbour).unwrap_or(0).rem_euclid(POINT * LOOK);
    }

    /// The trend; `None` while there are fewer than 18 points.
    pub const fn trend(&self) -> Option<&Trend> {
        self.trend.as_ref()
    }

    /// The forecast, when there is one to publish.
    pub fn forecast(&self) -> Option<&Forecast> {
        self.candidate.as_ref().filter(|_| self.agreed >= LOOKS)
    }

    /// Points held; a trend needs 18.
    pub fn points(&self) -> usize {
        self.points.len()
    }

    /// Whether exceedances of the reference rose beyond what chance does in 30 days; `None` while
    /// there is no reference.
    pub fn drifts(&self) -> Option<bool> {
        self.drift().map(|mean| mean >= DRIFT_ALARM)
    }

    /// The evidence of drift; an alarm from 259,200 on.
    pub fn drift(&self) -> Option<f64> {
        match &self.reference {
            Reference::Gathering(..) => None,
            Reference::Set { drift, .. } => Some(drift.mean()),
        }
    }

    /// Takes in a window that ends with the newest slot.
    pub(super) fn window(&mut self, window: &Window<'_>, samples: &Survivors, phi: f64) {
        let whole = (window.last.0 + 1) % window.scale.slots() == 0;
        if window.scale.index() == 0 && whole {
            self.drift_window(window, samples, phi);
        }
        if window.scale.slots() == POINT && whole {
            self.point(window.last.0 / POINT, samples);
        }
    }

    fn drift_window(&mut self, window: &Window<'_>, samples: &Survivors, phi: f64) {
        match &mut self.reference {
            Reference::Set { edge, drift } => {
                drift.push(samples.total(), samples.at_least(*edge), phi, CAP);
            }
            Reference::Gathering(since, gathered) => {
                let since = *since.get_or_insert(window.first());
                *gathered = Sparse::sum(gathered, window.counts);
                let enough = gathered.total() >= REFERENCE_SAMPLES_MIN;
                if enough && window.last.0 - since.0 >= REFERENCE_SLOTS {
                    let all = Survivors::of_sparse(gathered);
                    let edge = all.first_at_most(0.01 * all.total() as f64);
                    let rate = all.at_least(edge) as f64 / all.total() as f64;
                    let p0 = (rate * REFERENCE_MARGIN).clamp(1e-4, 0.05);
                    self.reference = Reference::Set { edge, drift: Drift::new(p0) };
                }
            }
        }
    }

    #[allow(clippy::cast_possible_truncation)]
    fn point(&mut self, at: i64, samples: &Survivors) {
        if samples.total() < POINT_SAMPLES_MIN {
            return;
        }
        let value = |quantile| point(samples, quantile).map(|value| value.0 as f64);
        if let (Some(p95), Some(p99)) = (value(Quantile::P95), value(Quantile::P99))
            && p95 > 0.0
        {
            self.points.push_back((at, ln(p99 / p95) as f32));
        }
        while self.points.front().is_some_and(|(first, _)| *first <= at - DAYS * DAY) {
            self.points.pop_front();
        }
    }

    /// Looks anew when it is time to.
    pub(super) fn slot(&mut self, slot: Slot) {
        if (slot.0 + 1).rem_euclid(POINT * LOOK) == self.look_after {
            self.look((slot.0 + 1) / POINT - 1);
        }
    }

    fn look(&mut self, now: i64) {
        let season = self.season();
        let of = |at: i64| season.as_ref().map_or(0.0, |season| season[slot_of_day(at)]);
        let recent = self.points.iter().rev().take(SPANS[2]);
        let mut recent: Vec<(f64, f64)> =
            recent.map(|&(at, y)| (at as f64, f64::from(y) - of(at))).collect();
        recent.reverse();
        let spans = SPANS.iter().filter(|&&span| span <= recent.len());
        let slopes =
            spans.filter_map(|&span| Slope::of(&recent[recent.len() - span..], 0.01, true));
        let best = slopes.max_by(|a, b| a.z.abs().total_cmp(&b.z.abs()));
        let last = self.points.back().map_or(now, |(at, _)| *at);
        let stale = now - last > LOOK;
        self.trend = best.filter(|_| !stale).map(|slope| trend(&slope));
        self.candidate =
            best.filter(|_| !stale).and_then(|slope| self.extrapolate(&slope, last, of));
        self.agreed = if self.candidate.is_some() { self.agreed + 1 } else { 0 };
    }

    fn extrapolate(
        &self,
        slope: &Slope,
        last: i64,
        season: impl Fn(i64) -> f64,
    ) -> Option<Forecast> {
        if slope.z <= Z_FORECAST || slope.low <= 0.0 {
            return None;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = |level, slope| {
            crossing(level, slope, self.target, DAY as u32, |step| season(last + i64::from(step)))
        };
        let hours = |points: u32| f64::from(points) * point_hours();
        Some(Forecast {
            time_to_violation_h: hours(at(slope.level, slope.slope)?),
            earliest_h: hours(at(slope.level + slope.level_error, slope.high)?),
            latest_h: hours(at(slope.level - slope.level_error, slope.low)?),
        })
    }

    /// ln ratio by the time of day, about its mean; `None` with fewer than three days of points.
    fn season(&self) -> Option<Vec<f64>> {
        let mut by_time: Vec<Vec<f64>> = vec![Vec::new(); usize::try_from(DAY).ok()?];
        for &(at, y) in &self.points {
            by_time[slot_of_day(at)].push(f64::from(y));
        }
        if by_time.iter().any(|values| values.len() < SEASON_DAYS_MIN) {
            return None;
        }
        let medians: Vec<f64> = by_time
            .into_iter()
            .map(|mut values| {
                values.sort_unstable_by(f64::total_cmp);
                middle(&values)
            })
            .collect();
        let smooth = |at: i64| {
            let around =
                (at - SEASON_SMOOTH..=at + SEASON_SMOOTH).map(|at| medians[slot_of_day(at)]);
            around.sum::<f64>() / (2 * SEASON_SMOOTH + 1) as f64
        };
        let smoothed: Vec<f64> = (0..DAY).map(smooth).collect();
        let mean = smoothed.iter().sum::<f64>() / DAY as f64;
        Some(smoothed.into_iter().map(|value| value - mean).collect())
    }
}

fn point_hours() -> f64 {
    POINT as f64 * SLOT.as_secs_f64() / 3_600.0
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
const fn slot_of_day(point: i64) -> usize {
    point.rem_euclid(DAY) as usize
}

/// A slope of logarithms as the ratio's.
fn trend(slope: &Slope) -> Trend {
    let ratio = exp(slope.level);
    let per_h = |log_slope: f64| ratio * log_slope / point_hours();
    let direction = match slope.z {
        z if z >= Z_TREND && slope.low > 0.0 => Direction::Degrading,
        z if z <= -Z_TREND && slope.high < 0.0 => Direction::Improving,
        _ => Direction::Stable,
    };
    let recommendation = match direction {
        Direction::Degrading => "find what changed over the span: releases, load, data growth",
        Direction::Stable => "none: chance explains what moved",
        Direction::Improving => "none: the tail is getting shorter",
    };
    let points = slope.points;
    Trend {
        trend: direction,
        trend_strength: (ratio - exp(slope.level - slope.slope * points as f64)).abs(),
        slope_per_h: per_h(slope.slope),
        slope_low_per_h: per_h(slope.low),
        slope_high_per_h: per_h(slope.high),
        z: slope.z,
        span_h: points as f64 * point_hours(),
        points,
        recommendation,
    }
}
