//! Log-linear latency histograms: where a value is counted, how counts are added, what they say.
//!
//! The layout is HdrHistogram's own for 2 significant digits, 1 ns to 2^36−1 ns, so counts move to
//! and from `hdrhistogram` without re-bucketing, and merging is addition, which is exact.
//! Promise: no I/O, no clock, no randomness. Refusal: no operation rescales, decays or drops.
//! Units: nanoseconds. Error: a bucket is at most 0.79 % of its value wide, so a reported midpoint
//! is within 0.40 % of every sample in its bucket.
#![forbid(unsafe_code)]

pub mod block;
mod counts;
mod hdr;
pub mod layout;
mod paged;
mod quantile;
mod sparse;

pub use counts::Counts;
pub use hdr::HdrError;
pub use paged::PagedCounts;
pub use quantile::{Estimate, Quantile, rank_interval, samples_min, samples_sure};
pub use sparse::Sparse;
