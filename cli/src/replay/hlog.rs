//! HdrHistogram interval logs, a tag naming each interval's series:
//! `repo_type/language/size/stage/arm` or the same with `/host`.
//!
//! An interval's samples fall in the slot it begins in. Requests that failed are not in such a log.

use std::io::BufRead;
use std::time::Duration;

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, LogEntry,
};
use lens_aggregator::judge::replay::ReplaySeries;
use lens_hist::layout;
use lens_model::{Arm, Slice, Stage};

use super::Player;
use super::input::{InputError, lines};

/// Longest line, bytes.
const LINE_BYTES_MAX: u64 = 1 << 22;

/// A log without a base time whose intervals begin this long before its start counts from it.
const RELATIVE_SECS: f64 = 365.0 * 86_400.0;

/// What tags leave open.
#[derive(Clone, Debug)]
pub(super) struct Untagged {
    /// The series of intervals without a tag.
    pub(super) series: Option<(Slice, Stage, Arm)>,
    /// Nanoseconds of one unit of recorded values.
    pub(super) unit_nanos: u64,
}

#[derive(Default)]
struct Times {
    start: Option<Duration>,
    base: Option<Duration>,
}

/// Plays every interval of `input`.
pub(super) fn play(
    input: impl BufRead,
    untagged: &Untagged,
    player: &mut Player<'_>,
) -> Result<(), InputError> {
    let mut log = Log { untagged, times: Times::default(), deserializer: Deserializer::new() };
    lines(input, LINE_BYTES_MAX, |line, text| {
        let mut text = text.to_vec();
        if text.last() != Some(&b'\n') {
            text.push(b'\n');
        }
        log.line(line, &text, player)
    })
}

/// A log under way.
struct Log<'a> {
    untagged: &'a Untagged,
    times: Times,
    deserializer: Deserializer,
}

impl Log<'_> {
    fn line(&mut self, line: u64, text: &[u8], player: &mut Player<'_>) -> Result<(), InputError> {
        match IntervalLogIterator::new(text).next() {
            None => Ok(()),
            Some(Err(_)) => {
                let right = "Tag=..,start seconds,length seconds,maximum,histogram";
                Err(InputError::line(line, format!("is no interval: use {right}")))
            }
            Some(Ok(LogEntry::StartTime(at))) => {
                self.times.start = Some(at);
                Ok(())
            }
            Some(Ok(LogEntry::BaseTime(at))) => {
                self.times.base = Some(at);
                Ok(())
            }
            Some(Ok(LogEntry::Interval(interval))) => self.interval(line, &interval, player),
        }
    }

    fn interval(
        &mut self,
        line: u64,
        interval: &IntervalLogHistogram<'_>,
        player: &mut Player<'_>,
    ) -> Result<(), InputError> {
        let tag = interval.tag().map(|tag| tag.as_str().to_owned());
        let series = series(line, tag.as_deref(), self.untagged, player)?;
        let histogram = decode(line, interval.encoded_histogram(), &mut self.deserializer)?;
        let t_ms = self.times.millis(interval.start_timestamp());
        let unit_nanos = self.untagged.unit_nanos;
        let counts = histogram.iter_recorded().map(|step| {
            let low = histogram.lowest_equivalent(step.value_iterated_to());
            let middle = low.midpoint(histogram.highest_equivalent(low));
            let index = layout::index_of(middle.saturating_mul(unit_nanos));
            (index, step.count_since_last_iteration())
        });
        let added = player.replay.add(t_ms, series, counts, histogram.len(), 0);
        added.map_err(|error| InputError::replay(line, &error))?;
        player.tell()
    }
}

impl Times {
    /// An interval's beginning, milliseconds since the epoch, or since the log's zero when it
    /// names no time.
    #[allow(clippy::cast_possible_truncation)]
    fn millis(&self, at: Duration) -> i64 {
        let relative = |start: &Duration| at.as_secs_f64() + RELATIVE_SECS < start.as_secs_f64();
        let base = match (self.base, self.start) {
            (Some(base), _) => base,
            (None, Some(start)) if relative(&start) => start,
            _ => Duration::ZERO,
        };
        (base + at).as_millis().min(i64::MAX as u128) as i64
    }
}

fn decode(
    line: u64,
    encoded: &str,
    deserializer: &mut Deserializer,
) -> Result<Histogram<u64>, InputError> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
    let bytes = bytes
        .map_err(|error| InputError::field(line, "histogram", format!("is no base64: {error}")))?;
    deserializer.deserialize(&mut bytes.as_slice()).map_err(|error| {
        InputError::field(line, "histogram", format!("is no HdrHistogram V2 encoding: {error}"))
    })
}

fn series(
    line: u64,
    tag: Option<&str>,
    untagged: &Untagged,
    player: &mut Player<'_>,
) -> Result<ReplaySeries, InputError> {
    let (slice, stage, arm, host) = match (tag, &untagged.series) {
        (Some(tag), _) => parse(line, tag)?,
        (None, Some((slice, stage, arm))) => (slice.clone(), *stage, *arm, "log".to_owned()),
        (None, None) => {
            let right = "tag it repo_type/language/size/stage/arm, or name it with --series";
            return Err(InputError::field(line, "tag", format!("is missing: {right}")));
        }
    };
    let series = player.replay.series(&slice, stage, arm, &host);
    series.map_err(|error| InputError::replay(line, &error))
}

fn parse(line: u64, tag: &str) -> Result<(Slice, Stage, Arm, String), InputError> {
    let parts: Vec<&str> = tag.splitn(6, '/').collect();
    let [repo_type, language, size, stage, arm, host @ ..] = parts.as_slice() else {
        let right =
            "use repo_type/language/size/stage/arm, such as backend/rust/large/stage_a/baseline";
        return Err(InputError::field(line, "tag", format!("{tag:?} is wrong: {right}")));
    };
    let wrong = |error| InputError::series(line, "tag", &error);
    Ok((
        Slice::new(repo_type, language, size).map_err(wrong)?,
        stage.parse().map_err(wrong)?,
        arm.parse().map_err(wrong)?,
        host.first().map_or("log", |host| host).to_owned(),
    ))
}

/// A series as `--series` names it: `repo_type/language/size/stage/arm`.
pub(super) fn named(text: &str) -> Result<(Slice, Stage, Arm), String> {
    parse(0, text).map(|(slice, stage, arm, _)| (slice, stage, arm)).map_err(|error| {
        let error = error.to_string();
        error.strip_prefix("line 0: tag ").unwrap_or(&error).to_owned()
    })
}
