//! What is held to be true of one rule, from the windows of one stream.
//!
//! Entering: a window of any width shows the rule broken beyond the deviations its width asks for.
//! All widths together are allowed one false alarm in `false_alarm_days`, each the same share, and
//! a wide window more than a narrow one as there are fewer of them.
//! In the first ten minutes of a stream nobody knows how it scatters, and a burst of a minute looks
//! like a violation: there the excess must be nearly half of what is allowed, in the window and in
//! all since the stream began, or so large that no burst explains it.
//! Leaving: never before five minutes, and only by evidence of the opposite from samples recorded
//! after entering: three disjoint windows of 80 s in a row, each at or under nine tenths of the
//! limit with its 95 % interval under it, or one window of any width that shows it under the limit
//! by three deviations. A good sample resolves nothing.
//! `ok` holds for as long as a window that was judged lasts; then there is no answer.

use super::test::{Measure, Test};
use crate::judge::dispersion::Dispersion;
use crate::judge::math::normal_quantile;
use crate::judge::pyramid::{SCALES, Scale, Window};
use crate::judge::slot::Slot;
use crate::judge::survivors::Survivors;
use crate::judge::tail::rule::Z_95;

/// Slots a violation is held at least: 5 min.
const HOLD: i64 = 60;

/// Narrowest window that counts as calm: 80 s.
const CALM_SLOTS: i64 = 16;

/// Calm windows in a row that end a violation.
const CALM_WINDOWS: u32 = 3;

/// Largest share of the limit that counts as calm.
const CALM_SHARE: f64 = 0.9;

/// Deviations under the limit that end a violation at once.
const Z_OPPOSITE: f64 = 3.0;

/// Deviations, one-sided 95 %, at which a further window counts as one more in a row.
const Z_REPEATED: f64 = 1.644_853_626_951_472_2;

/// Hits of what is allowed that break the rule of a new stream, where they were there all along.
const EXCESS_NEW: f64 = 1.45;

/// Hits of what is allowed that no burst explains.
const EXCESS_OUTAGE: f64 = 3.0;

/// Slots of a window whose p95 is good enough to tally slots against: 80 s.
const EDGE_SLOTS: i64 = 16;

/// Windows judged of each width in one width's time.
const OVERLAP: f64 = 2.0;

/// The deviations each width of window asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Thresholds([f64; SCALES]);

impl Thresholds {
    /// One false alarm in `days` at most, for a stream just at its limit, over all widths.
    ///
    /// Windows narrower than `narrowest_secs` are not judged: a policy, for whom bursts are noise.
    pub fn new(days: f64, narrowest_secs: f64) -> Self {
        let looks = |scale: Scale| scale.secs() / (days * 86_400.0 * OVERLAP * SCALES as f64);
        let mut z = [f64::INFINITY; SCALES];
        for scale in Scale::all().filter(|scale| scale.secs() >= narrowest_secs) {
            z[scale.index()] = -normal_quantile(looks(scale).min(0.5));
        }
        Self(z)
    }

    /// What this width asks for.
    pub const fn of(&self, scale: Scale) -> f64 {
        self.0[scale.index()]
    }
}

/// One judged window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Its width.
    pub scale: Scale,
    /// Its last slot.
    pub last: Slot,
    /// Its samples.
    pub samples: u64,
    /// Deviations by which it speaks against the rule.
    pub z: f64,
    /// Deviations asked for.
    pub z_needed: f64,
    /// Samples that count as one.
    pub phi: f64,
}

impl Finding {
    /// Its first slot.
    pub const fn first(&self) -> Slot {
        Slot(self.last.0 + 1 - self.scale.slots())
    }
}

/// What is held.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Held {
    /// No window had samples enough, or none lately.
    #[default]
    Unjudged,
    /// The newest judged window did not speak against the rule.
    Kept(Finding),
    /// The rule is broken.
    Broken(Episode),
}

/// One violation, from the window that showed it on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode {
    /// The window that showed it.
    pub found: Finding,
    /// Disjoint windows of that width in a row, up to the newest, that each speak against the rule
    /// at 95 %; the one that showed it is the first.
    pub windows: u32,
    counted: Slot,
    calm_scale: Option<Scale>,
    calm_windows: u32,
    calm_last: Slot,
}

/// One rule over one stream.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    held: Held,
    /// The value in the window that last changed what is held.
    measure: Measure,
    dispersion: Dispersion,
    /// Slots and p95, as a bucket edge, of the window slots are tallied against.
    edge: Option<(i64, usize)>,
}

impl Watched {
    /// What is held now.
    pub const fn held(&self) -> Held {
        self.held
    }

    /// The value in the window that last changed what is held.
    pub const fn measure(&self) -> Measure {
        self.measure
    }

    /// How many samples count as one, as known now.
    pub fn phi(&self) -> f64 {
        self.dispersion.now()
    }

    /// Takes in one slot, before the windows that end with it.
    pub fn slot(&mut self, slot: Slot, test: &Test, samples: &Survivors) {
        // A violation is no measure of how the stream scatters.
        let broken = matches!(self.held, Held::Broken(_));
        let edge = self.edge.map(|(_, edge)| edge);
        let (trials, hits) = if broken { (0, 0) } else { test.tally(samples, edge) };
        self.dispersion.push(slot, trials, hits);
        if let Held::Kept(finding) = self.held
            && slot.0 > finding.last.0 + finding.scale.slots()
        {
            self.held = Held::Unjudged;
        }
    }

    /// Takes in one window that ends with the newest slot.
    pub fn window(
        &mut self,
        window: &Window<'_>,
        test: &Test,
        samples: &Survivors,
        thresholds: &Thresholds,
    ) {
        let z_needed = thresholds.of(window.scale);
        if samples.total() < test.samples_min() || z_needed == f64::INFINITY {
            return;
        }
        let phi = self.dispersion.before(window.first());
        let z = test.z_above(samples, phi);
        let (scale, last, n) = (window.scale, window.last, samples.total());
        let finding = Finding { scale, last, samples: n, z, z_needed, phi };
        let before = self.held;
        if self.edge.is_none_or(|(slots, _)| scale.slots() >= slots.min(EDGE_SLOTS)) {
            self.edge = Some((scale.slots(), Test::p95_edge(samples)));
        }
        let breaks = z > z_needed && self.credible(window.first(), test, samples);
        match &mut self.held {
            Held::Broken(episode) => {
                episode.count(&finding);
                if episode.ends(&finding, test, samples) {
                    self.held = Held::Kept(finding);
                }
            }
            _ if breaks => {
                self.held = Held::Broken(Episode::new(finding));
                self.dispersion.forget_from(window.first());
            }
            // Of the windows that end together the widest stands, as it knows most.
            _ => self.held = Held::Kept(finding),
        }
        if std::mem::discriminant(&before) != std::mem::discriminant(&self.held) {
            self.measure = test.measure(samples, phi);
        }
    }

    /// Whether a window that begins with `first` may break the rule: the stream is known, or the
    /// excess is one that a burst does not explain.
    fn credible(&self, first: Slot, test: &Test, samples: &Survivors) -> bool {
        if !self.dispersion.is_new(first) {
            return true;
        }
        let excess = test.excess(samples);
        let all = self.dispersion.share().map_or(excess, |share| test.of_allowed(share));
        excess >= EXCESS_OUTAGE || excess.min(all) >= EXCESS_NEW
    }
}

impl Episode {
    const fn new(found: Finding) -> Self {
        Self {
            found,
            windows: 1,
            counted: found.last,
            calm_scale: None,
            calm_windows: 0,
            calm_last: found.last,
        }
    }

    fn count(&mut self, finding: &Finding) {
        if finding.scale == self.found.scale && finding.first() > self.counted {
            self.windows = if finding.z > Z_REPEATED { self.windows + 1 } else { 0 };
            self.counted = finding.last;
        }
    }

    /// Whether this window ends the violation.
    fn ends(&mut self, finding: &Finding, test: &Test, samples: &Survivors) -> bool {
        if finding.first() <= self.found.last {
            return false;
        }
        let below = test.z_below(samples, finding.phi);
        let held_long = finding.last.0 - self.found.last.0 >= HOLD;
        if below >= Z_OPPOSITE && held_long && finding.scale.slots() >= CALM_SLOTS {
            return true;
        }
        if finding.scale.slots() < CALM_SLOTS || finding.first() <= self.calm_last {
            return false;
        }
        if *self.calm_scale.get_or_insert(finding.scale) != finding.scale {
            return false;
        }
        let calm = below >= Z_95 && test.relative(samples) <= CALM_SHARE;
        self.calm_windows = if calm { self.calm_windows + 1 } else { 0 };
        self.calm_last = finding.last;
        if !calm {
            self.calm_scale = None;
        }
        self.calm_windows >= CALM_WINDOWS && held_long
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_widths_together_are_allowed_one_false_alarm_in_the_time_given() {
        let days = 30.0;
        let thresholds = Thresholds::new(days, 0.0);
        let expected: f64 = Scale::all()
            .map(|scale| {
                let windows = days * 86_400.0 / scale.secs() * OVERLAP;
                windows * crate::judge::math::normal_cdf(-thresholds.of(scale))
            })
            .sum();
        assert!((expected - 1.0).abs() < 1e-9, "{expected}");
        let z = Scale::all().map(|scale| thresholds.of(scale)).collect::<Vec<_>>();
        assert!((z[0] - 5.058).abs() < 0.01 && (z[8] - 3.867).abs() < 0.01, "{z:?}");
        assert_eq!(Thresholds::new(days, 300.0).of(Scale::all().next().unwrap()), f64::INFINITY);
    }

    /// Whether the tail rule is held broken after slots of 5,000 samples, of whose slowest 250 so
    /// many lie beyond twice p95.
    fn broken_after(beyond: &[u64]) -> bool {
        let test = Test::Tail { limit: 2.0, floor: lens_model::Nanos(0) };
        let thresholds = Thresholds::new(30.0, 0.0);
        let (mut watched, mut work) = (Watched::default(), Survivors::new());
        let mut pyramid = crate::judge::pyramid::Pyramid::default();
        for (slot, beyond) in (0_i64..).zip(beyond) {
            let mut counts = lens_hist::Sparse::new();
            for (micros, count) in [(10_000, 4_750), (12_000, 250 - beyond), (40_000, *beyond)] {
                counts.push(lens_hist::layout::index_of(micros * 1_000), count);
            }
            work.set(counts.entries());
            watched.slot(Slot(slot), &test, &work);
            pyramid.push(Slot(slot), counts, |window| {
                work.set(window.counts.entries());
                watched.window(window, &test, &work, &thresholds);
            });
        }
        matches!(watched.held(), Held::Broken(_))
    }

    #[test]
    fn in_a_new_stream_an_excess_breaks_the_rule_only_if_it_was_there_all_along() {
        let burst = [vec![30; 12], vec![90; 2]].concat();
        assert!(broken_after(&[90; 2]), "1.8 times what is allowed, all along");
        assert!(!broken_after(&burst), "a burst after a minute");
    }

    #[test]
    fn in_a_new_stream_three_times_what_is_allowed_is_an_outage_whatever_was_before() {
        // One in five of the slowest may lie beyond: 50 of 250.
        let outage = |beyond| broken_after(&[vec![30; 12], vec![beyond; 2]].concat());
        assert!(outage(152), "three times");
        assert!(!outage(140), "less is a burst's size too");
    }
}
