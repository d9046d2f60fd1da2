//! The latencies everything is measured with: lognormal, from a fixed seed.

use lens_hist::Sparse;
use lens_model::{Arm, SeriesKey, Slice, Stage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal};

use super::Outcome;

/// Series of one batch.
pub(crate) const SERIES: usize = 64;

/// 8,192 latencies, nanoseconds: median 2.95 ms, p99 45 ms, within 0.1 and 200 ms.
pub(crate) fn latencies() -> Outcome<Vec<u64>> {
    const P99_OF_A_NORMAL: f64 = 2.326_347_9;
    let (median, p99) = (2.95e6_f64, 45e6_f64);
    let sigma = (p99 / median).ln() / P99_OF_A_NORMAL;
    let shape = LogNormal::new(median.ln(), sigma)?;
    let mut rng = StdRng::seed_from_u64(1);
    Ok((0..8_192).map(|_| nanos(shape.sample(&mut rng))).collect())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn nanos(value: f64) -> u64 {
    value.clamp(1e5, 2e8) as u64
}

/// `batches` batches of 64 series with `samples` latencies each: medians log-uniform between 0.1
/// and 100 ms, sigma between 0.4 and 1.0, the same 64 distributions in every batch.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn batches(batches: usize, samples: usize) -> Outcome<Vec<Vec<Vec<u64>>>> {
    let mut rng = StdRng::seed_from_u64(2);
    let mut shapes = Vec::new();
    for _ in 0..SERIES {
        let median = 1e5_f64 * 1_000_f64.powf(rng.random::<f64>());
        shapes.push(LogNormal::new(median.ln(), 0.4 + 0.6 * rng.random::<f64>())?);
    }
    let series = |shape: &LogNormal<f64>, rng: &mut StdRng| -> Vec<u64> {
        (0..samples).map(|_| shape.sample(rng).clamp(1e3, 6e10) as u64).collect()
    };
    let batch =
        |rng: &mut StdRng| -> Vec<Vec<u64>> { shapes.iter().map(|s| series(s, rng)).collect() };
    Ok((0..batches).map(|_| batch(&mut rng)).collect())
}

/// A batch as a harvest yields it.
pub(crate) fn sparse(batch: &[Vec<u64>]) -> Vec<Sparse> {
    batch.iter().map(|latencies| latencies.iter().copied().collect()).collect()
}

/// The keys of the 64 series of a batch.
pub(crate) fn keys() -> Outcome<Vec<SeriesKey>> {
    const LANGUAGES: [&str; 8] = ["rust", "go", "c", "java", "python", "ruby", "swift", "zig"];
    let mut keys = Vec::new();
    for language in LANGUAGES {
        for size in ["small", "large"] {
            for stage in [Stage::A, Stage::B] {
                for arm in Arm::ALL {
                    let slice = Slice::new("backend", language, size)?;
                    keys.push(SeriesKey { slice, stage, arm });
                }
            }
        }
    }
    Ok(keys)
}
