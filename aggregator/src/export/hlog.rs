//! HdrHistogram interval logs: compressed intervals with tags, as every implementation reads them.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use lens_hist::{Counts, Sparse};
use lens_model::{Nanos, UnixNanos};

const NANOS_PER_MILLI: f64 = 1e6;

/// A log of intervals: beginning, width, tag and counts. A tag holds neither comma, space nor line end.
///
/// # Errors
/// `Other` where the library refuses what it is given.
pub fn write(
    start: UnixNanos,
    intervals: &[(UnixNanos, Nanos, String, Sparse)],
) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[lens latencies in nanoseconds; maxima in milliseconds]")
        .with_start_time(UNIX_EPOCH + Duration::from_nanos(start.0))
        .with_base_time(UNIX_EPOCH)
        .with_max_value_divisor(NANOS_PER_MILLI)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let mut counts = Counts::new();
    for (t, width, tag, sparse) in intervals {
        counts.clear();
        counts.merge_sparse(sparse);
        let histogram = counts.to_hdr().map_err(|error| io::Error::other(error.to_string()))?;
        let (begin, width) = (Duration::from_nanos(t.0), Duration::from(*width));
        writer
            .write_histogram(&histogram, begin, width, Tag::new(tag))
            .map_err(|error| io::Error::other(format!("{error:?}")))?;
    }
    String::from_utf8(bytes).map_err(io::Error::other)
}
