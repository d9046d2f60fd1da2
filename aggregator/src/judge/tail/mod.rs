//! The tail rule: p99 must not exceed a multiple of p95.

pub mod rule;
