//! How many bytes a delta of a series takes, whole frames of 64 series with realistic latencies.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod common;

use common::{LIFE, Rng, head};
use lens_wire::{DeltaEncoder, SeriesId};

/// Whole frame bytes per series-delta, mean of 40 frames.
fn bytes_per_series(samples: usize) -> f64 {
    let mut rng = Rng(20_260_101);
    let mut encoder = DeltaEncoder::default();
    let (frames, series) = (40, 64);
    let mut out = Vec::new();
    for _ in 0..frames {
        for id in 0..series {
            encoder.histogram(SeriesId(id), &rng.latencies(samples)).unwrap();
        }
        let before = out.len();
        let promised = encoder.encoded_len(&head());
        encoder.finish(&head(), LIFE, &mut out);
        assert_eq!(out.len() - before, promised);
    }
    out.len() as f64 / f64::from(frames * series)
}

#[test]
fn a_series_delta_takes_no_more_bytes_than_aimed_at() {
    for (samples, aim) in [(1, 10.0), (10, 22.0), (100, 85.0), (1_000, 260.0)] {
        let bytes = bytes_per_series(samples);
        println!("N = {samples}: {bytes:.1} bytes per series-delta");
        assert!(bytes <= aim, "{samples} samples take {bytes:.1} bytes, more than {aim}");
    }
}
