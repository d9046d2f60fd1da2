//! Slices against each other: which tails differ from their peers', and by how much.
//!
//! Each slice's ln(p99/p95) is held against the median of the others'. A slice is named only when
//! its difference exceeds ten percent beyond chance: with samples enough, every two slices differ
//! in something, and that helps nobody. As many slices are looked at together, p-values are
//! adjusted by Holm's method: it holds whatever the dependence, which the shared median makes, and
//! bounds the chance of naming even one slice wrongly. A bound on the share of wrong names
//! (Benjamini-Hochberg) suits a search; these names are acted upon one by one.

use lens_model::Slice;
use serde::Serialize;
use utoipa::ToSchema;

use super::math::{exp, ln, normal_cdf};

/// Difference below which nobody is named, as a ratio.
const MARGIN: f64 = 1.1;

/// Chance of naming even one slice wrongly.
const ALPHA: f64 = 0.05;

/// Width of a 95 % interval, standard deviations.
const WIDTH: f64 = 2.0 * 1.959_963_984_540_054;

/// Standard error of a median relative to a mean's, for normal samples.
const MEDIAN_ERROR: f64 = 1.253_3;

/// Fewest slices that have peers.
const SLICES_MIN: usize = 3;

/// One slice's ratio with its 95 % interval.
#[derive(Clone, Debug, PartialEq)]
pub struct Tail {
    /// The slice.
    pub slice: Slice,
    /// p99/p95.
    pub ratio: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end of its interval.
    pub high: f64,
}

/// A slice whose tail differs from its peers'.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Differs {
    /// The slice.
    #[schema(value_type = String, example = "backend/rust/large")]
    pub slice: Slice,
    /// Its ratio over the median of its peers'.
    #[schema(example = 1.31)]
    pub times_peers: f64,
    /// Lower end of that factor's 95 % interval.
    pub low: f64,
    /// Upper end of that factor's 95 % interval.
    pub high: f64,
    /// Chance of such a difference between equals, adjusted for the number of slices.
    #[schema(example = 0.003)]
    pub p_adjusted: f64,
}

/// The slices that differ from their peers, in the order given; none with fewer than three.
pub fn differing(tails: &[Tail]) -> Vec<Differs> {
    if tails.len() < SLICES_MIN {
        return Vec::new();
    }
    let mut found: Vec<(usize, f64, Differs)> = tails
        .iter()
        .enumerate()
        .map(|(at, tail)| (at, p(tail, at, tails), differs(tail, at, tails)))
        .collect();
    found.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (mut largest, count) = (0.0_f64, found.len());
    for (rank, (_, p, differs)) in found.iter_mut().enumerate() {
        largest = largest.max(*p * (count - rank) as f64).min(1.0);
        differs.p_adjusted = largest;
    }
    found.retain(|(_, _, differs)| differs.p_adjusted < ALPHA);
    found.sort_by_key(|(at, _, _)| *at);
    found.into_iter().map(|(_, _, differs)| differs).collect()
}

/// Difference of logarithms from the peers' median, and its standard error.
fn difference(tail: &Tail, at: usize, tails: &[Tail]) -> (f64, f64) {
    let others =
        || tails.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, tail)| tail);
    let mut logs: Vec<f64> = others().map(|tail| ln(tail.ratio)).collect();
    logs.sort_unstable_by(f64::total_cmp);
    let error = |tail: &Tail| (ln(tail.high) - ln(tail.low)) / WIDTH;
    let squares: f64 = others().map(|tail| error(tail) * error(tail)).sum();
    let peers = MEDIAN_ERROR * squares.sqrt() / logs.len() as f64;
    let own = error(tail);
    (ln(tail.ratio) - super::trend::middle(&logs), (own * own + peers * peers).sqrt())
}

/// Two-sided chance of a difference at least that far beyond the margin.
fn p(tail: &Tail, at: usize, tails: &[Tail]) -> f64 {
    let (difference, error) = difference(tail, at, tails);
    let beyond = difference.abs() - ln(MARGIN);
    if beyond <= 0.0 { 1.0 } else { (2.0 * normal_cdf(-beyond / error)).min(1.0) }
}

fn differs(tail: &Tail, at: usize, tails: &[Tail]) -> Differs {
    let (difference, error) = difference(tail, at, tails);
    Differs {
        slice: tail.slice.clone(),
        times_peers: exp(difference),
        low: exp(difference - error * WIDTH / 2.0),
        high: exp(difference + error * WIDTH / 2.0),
        p_adjusted: 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::math::normal_quantile;
    use rand::{RngExt, SeedableRng, rngs::SmallRng};

    fn tail(at: usize, ratio: f64, error: f64) -> Tail {
        let slice = Slice::new("backend", &format!("l{at}"), "large").unwrap();
        let reach = (error * WIDTH / 2.0).exp();
        Tail { slice, ratio, low: ratio / reach, high: ratio * reach }
    }

    #[test]
    fn the_one_slice_that_differs_is_named_with_its_factor() {
        let mut tails: Vec<Tail> =
            (0..12).map(|at| tail(at, 1.6 + 0.01 * at as f64, 0.02)).collect();
        assert_eq!(differing(&tails), []);
        tails[3] = tail(3, 2.2, 0.03);
        let found = differing(&tails);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].slice, tails[3].slice);
        assert!((found[0].times_peers - 2.2 / 1.66).abs() < 0.01, "{found:?}");
        assert!(found[0].low < found[0].times_peers && found[0].times_peers < found[0].high);
        assert_eq!(differing(&tails[2..4]), [], "two slices have no peers");
    }

    #[test]
    fn among_equals_hardly_anyone_is_named() {
        let seed = 0x5eed_0006;
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut named = 0;
        for _ in 0..400 {
            let mut noise = || normal_quantile(rng.random::<f64>().clamp(1e-9, 1.0 - 1e-9));
            let tails: Vec<Tail> =
                (0..12).map(|at| tail(at, 1.6 * (0.1 * noise()).exp(), 0.1)).collect();
            named += usize::from(!differing(&tails).is_empty());
        }
        assert!(named * 100 <= 400 * 5, "{named} of 400, seed {seed:#x}");
    }
}
