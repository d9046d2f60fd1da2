//! What the aggregator tells other systems, in their formats.

pub mod openmetrics;
pub mod otlp;
