//! A two-sided CUSUM on one standardised gauge: finds small lasting shifts, either way.
//!
//! `z = (x - mean) / sd`, `up = max(0, up + z - k)`, `down = max(0, down - z - k)`; the alarm is on once
//! either sum stood above `h` for `sustained` readings in a row, and off, with both sums at 0, once
//! neither does. Two bounds are ours: `|z|` counts as [`Z_MAX`] at most, so that one reading, however
//! wild, never alarms; and no sum grows past `2 h`, so that an alarm ends `h / k` ordinary readings
//! after its cause and not hours later.
//! Promise: pure; a reading that is no number changes nothing.

use serde::{Deserialize, Serialize};

/// Allowance: half the shift that is found fastest, in standard deviations.
pub const K: f64 = 0.5;

/// Most one reading counts, in standard deviations.
pub const Z_MAX: f64 = 3.0;

/// What a detector compares with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// Mean while all is well.
    pub mean: f64,
    /// Standard deviation of one reading while all is well; above 0.
    pub sd: f64,
    /// Bound of the sums, in standard deviations; above 0.
    pub h: f64,
    /// Readings in a row beyond the bound that make an alarm; at least 1.
    pub sustained: u32,
}

/// Which way the gauge went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// It rose.
    High,
    /// It fell.
    Low,
}

/// The sums of one detector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cusum {
    /// Evidence that the gauge rose.
    pub up: f64,
    /// Evidence that it fell.
    pub down: f64,
    /// Readings in a row with a sum beyond the bound.
    pub beyond: u32,
    /// Which way, while the alarm is on.
    pub alarm: Option<Side>,
    /// Readings taken.
    pub readings: u64,
}

impl Cusum {
    /// Takes a reading; whether it was one.
    pub fn take(&mut self, rule: &Rule, x: f64) -> bool {
        let z = (x - rule.mean) / rule.sd;
        if !z.is_finite() {
            return false;
        }
        let (z, most) = (z.clamp(-Z_MAX, Z_MAX), 2.0 * rule.h);
        self.up = (self.up + z - K).clamp(0.0, most);
        self.down = (self.down - z - K).clamp(0.0, most);
        self.readings = self.readings.saturating_add(1);
        if self.up.max(self.down) <= rule.h {
            if self.alarm.take().is_some() {
                (self.up, self.down) = (0.0, 0.0);
            }
            self.beyond = 0;
            return true;
        }
        self.beyond = self.beyond.saturating_add(1);
        if self.alarm.is_none() && self.beyond >= rule.sustained {
            self.alarm = Some(if self.up > self.down { Side::High } else { Side::Low });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    const RULE: Rule = Rule { mean: 0.0, sd: 1.0, h: 3.0, sustained: 3 };

    /// `up`, `down` and the alarm after each reading.
    fn run(rule: &Rule, readings: &[f64]) -> Vec<(f64, f64, Option<Side>)> {
        let mut cusum = Cusum::default();
        let step = |x: &f64| {
            cusum.take(rule, *x);
            (cusum.up, cusum.down, cusum.alarm)
        };
        readings.iter().map(step).collect()
    }

    #[test]
    fn sums_alarm_and_reset_are_those_computed_by_hand() {
        let low = Some(Side::Low);
        let wanted = [
            (0.5, 0.0, None), // z = 1
            (0.0, 1.5, None), // z = -2
            (0.0, 3.0, None), // z = -2: at the bound, not beyond
            (0.0, 4.5, None), // z = -2: beyond, once
            (0.0, 6.0, None), // twice, and at the most it may be
            (0.0, 6.0, low),  // three times
            (0.5, 4.5, low),  // z = 1
        ];
        let mut got = run(&RULE, &[1.0, -2.0, -2.0, -2.0, -2.0, -2.0, 1.0, 2.0]);
        // z = 2: both come to 2, within the bound, so the alarm ends and both begin again.
        assert_eq!(got.pop(), Some((0.0, 0.0, None)));
        assert_eq!(got, wanted);
    }

    #[test]
    fn a_gauge_is_standardised_by_its_mean_and_deviation() {
        let rule = Rule { mean: 0.85, sd: 0.043, ..RULE };
        let got = run(&rule, &[0.807, 0.893]);
        assert!((got[0].1 - 0.5).abs() < 1e-9 && (got[1].0 - 0.5).abs() < 1e-9, "{got:?}");
    }

    #[test]
    fn one_reading_however_wild_does_not_alarm_and_what_is_no_number_changes_nothing() {
        let rule = Rule { sustained: 1, ..RULE };
        assert_eq!(run(&rule, &[1e300, 0.0, 0.0]).last().unwrap().2, None);
        let mut cusum = Cusum { up: 1.0, ..Cusum::default() };
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!cusum.take(&rule, x));
        }
        assert_eq!(cusum, Cusum { up: 1.0, ..Cusum::default() });
    }

    #[test]
    fn an_alarm_ends_a_bounded_number_of_ordinary_readings_after_its_cause() {
        let mut readings = vec![-3.0; 1_000];
        readings.extend([0.0; 6]);
        let got = run(&RULE, &readings);
        assert_eq!(got[1_004].2, Some(Side::Low));
        assert_eq!(got[1_005].2, None, "h / k = 6 readings");
    }

    /// Standard normal, by Box and Muller.
    fn normal(rng: &mut StdRng) -> f64 {
        let (u, v): (f64, f64) = (rng.random(), rng.random());
        (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }

    /// Mean number of readings to an alarm while the mean is off by `shift` deviations.
    #[allow(clippy::cast_precision_loss)]
    fn run_length(rule: &Rule, shift: f64, runs: u32, rng: &mut StdRng) -> f64 {
        let mut total = 0_u64;
        for _ in 0..runs {
            let mut cusum = Cusum::default();
            while cusum.alarm.is_none() && cusum.readings < 200_000 {
                cusum.take(rule, normal(rng) + shift);
            }
            total += cusum.readings;
        }
        total as f64 / f64::from(runs)
    }

    #[test]
    fn false_alarms_are_as_rare_as_documented_and_shifts_are_found_as_fast() {
        let seed = 20_261_126;
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        for (h, sustained, quiet, found) in DOCUMENTED {
            let rule = Rule { h, sustained, ..RULE };
            let got = run_length(&rule, 0.0, 400, &mut rng);
            let fast = run_length(&rule, -1.0, 400, &mut rng);
            println!("h {h} sustained {sustained}: {got:.0} quiet, {fast:.1} at one deviation");
            assert!((got / quiet - 1.0).abs() < 0.2, "{h}, {sustained}: {got} and not {quiet}");
            assert!((fast / found - 1.0).abs() < 0.1, "{h}, {sustained}: {fast} and not {found}");
        }
    }

    /// Bound, readings in a row, readings to a false alarm, readings to find one deviation: as in
    /// docs/guards.md, from 20,000 runs of another program, 2,000 for h 8.
    const DOCUMENTED: [(f64, u32, f64, f64); 5] = [
        (3.0, 1, 61.0, 6.5),
        (3.0, 3, 175.0, 9.4),
        (3.0, 5, 355.0, 11.9),
        (5.0, 3, 1_357.0, 13.5),
        (8.0, 3, 28_121.0, 19.7),
    ];
}
