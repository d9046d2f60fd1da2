//! What each part of a comparison weighs, fixed before it has seen a canary.
//!
//! The whole query weighs most because it is what users feel; stages and slices have their share so
//! that a harm confined to one of them is found, at the cost of the logarithm of its weight. What is
//! not there gives its weight to what is.

use lens_model::{Slice, Stage};

/// The whole query over all slices.
const WHOLE: f64 = 0.4;
/// The stages over all slices, together.
const STAGES: f64 = 0.2;
/// Slices by themselves, together, by their traffic.
const SLICES: f64 = 0.3;
/// Quality signals, together.
const QUALITY: f64 = 0.1;

/// Slices of stages with evidence of their own: those with most traffic.
pub const UNITS_MAX: usize = 256;

/// The weights: 1 in all.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// Stages over all slices, then slices of stages.
    pub units: Vec<(Stage, Option<Slice>, f64)>,
    /// Quality signals, together.
    pub quality: f64,
}

/// Fixes the weights of streams by the traffic they had.
#[allow(clippy::cast_precision_loss)]
pub fn fix(traffic: &[(Stage, Slice, u64)], quality: bool) -> Weights {
    let mut units: Vec<(Stage, Option<Slice>, f64)> = Vec::new();
    let slices_of = |stage: Stage| traffic.iter().filter(move |stream| stream.0 == stage).count();
    let present = |stage: &Stage| slices_of(*stage) > 0;
    let parts = Stage::ALL.into_iter().filter(|s| *s != Stage::E2e && present(s)).count();
    for stage in Stage::ALL.into_iter().filter(present) {
        let weight = if stage == Stage::E2e { WHOLE } else { STAGES / parts as f64 };
        units.push((stage, None, weight));
    }
    let mut slices: Vec<&(Stage, Slice, u64)> =
        traffic.iter().filter(|stream| slices_of(stream.0) > 1).collect();
    slices.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| (a.0, &a.1).cmp(&(b.0, &b.1))));
    slices.truncate(UNITS_MAX);
    let all: u64 = slices.iter().map(|stream| stream.2.max(1)).sum();
    for (stage, slice, n) in slices {
        units.push((*stage, Some(slice.clone()), SLICES * (*n).max(1) as f64 / all as f64));
    }
    let quality = if quality { QUALITY } else { 0.0 };
    let sum = quality + units.iter().map(|unit| unit.2).sum::<f64>();
    units.iter_mut().for_each(|unit| unit.2 /= sum);
    Weights { units, quality: quality / sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(n: usize) -> Slice {
        Slice::new("backend", &format!("l{n}"), "large").unwrap()
    }

    #[test]
    fn weights_add_up_to_one_whatever_is_there() {
        for slices in [1, 2, 12, UNITS_MAX] {
            for stages in [&Stage::ALL[..], &[Stage::E2e], &[Stage::A, Stage::B]] {
                for quality in [false, true] {
                    let traffic: Vec<_> = (stages.iter())
                        .flat_map(|s| (0..slices).map(|n| (*s, slice(n), n as u64)))
                        .collect();
                    let weights = fix(&traffic, quality);
                    let sum: f64 = weights.units.iter().map(|unit| unit.2).sum();
                    assert!((sum + weights.quality - 1.0).abs() < 1e-12);
                    assert!(weights.units.iter().all(|unit| unit.2 > 0.0));
                    let own = weights.units.iter().filter(|unit| unit.1.is_some()).count();
                    assert!(own <= UNITS_MAX);
                }
            }
        }
    }

    #[test]
    fn a_single_slice_has_no_evidence_beside_its_stages() {
        let weights = fix(&[(Stage::E2e, slice(0), 9)], false);
        assert_eq!(weights.units, vec![(Stage::E2e, None, 1.0)]);
    }
}
