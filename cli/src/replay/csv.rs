//! CSV, one line a request: `t_ms,slice,stage,arm,host,latency_ms,ok`.

use std::collections::HashMap;
use std::io::Read;

use csv::{ByteRecord, ReaderBuilder};
use lens_aggregator::judge::replay::ReplaySeries;

use super::Player;
use super::input::{InputError, nanos, unknown};

/// The fields, in the order they are written.
const FIELDS: [&str; 7] = ["t_ms", "slice", "stage", "arm", "host", "latency_ms", "ok"];

/// Longest text shown of a field that is wrong.
const SHOWN_CHARS: usize = 80;

/// Where each field stands in a record.
struct Columns([usize; FIELDS.len()]);

/// Plays every row of `input`.
pub(super) fn play(input: impl Read, player: &mut Player<'_>) -> Result<(), InputError> {
    let mut reader = ReaderBuilder::new().has_headers(false).flexible(true).from_reader(input);
    let mut record = ByteRecord::new();
    let read = |reader: &mut csv::Reader<_>, record: &mut ByteRecord| {
        reader.read_byte_record(record).map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            InputError::Read { line, error: std::io::Error::other(error) }
        })
    };
    if !read(&mut reader, &mut record)? {
        return Err(InputError::line(
            1,
            format!("is missing: the header {} is expected", FIELDS.join(",")),
        ));
    }
    let columns = Columns::of(&record)?;
    let mut series = Series::default();
    while read(&mut reader, &mut record)? {
        let line = record.position().map_or(0, csv::Position::line);
        let row = Row { record: &record, columns: &columns, line };
        row.play(&mut series, player)?;
        player.tell()?;
    }
    Ok(())
}

impl Columns {
    fn of(header: &ByteRecord) -> Result<Self, InputError> {
        let names: Vec<String> =
            header.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        if let Some(name) = names.iter().find(|name| !FIELDS.contains(&name.as_str())) {
            return Err(InputError::field(1, "field", unknown(name, &FIELDS)));
        }
        let mut columns = [0; FIELDS.len()];
        for (at, field) in FIELDS.iter().enumerate() {
            let mut places = names.iter().enumerate().filter(|(_, name)| name == field);
            columns[at] = match (places.next(), places.next()) {
                (Some((place, _)), None) => place,
                (None, _) => {
                    let header = FIELDS.join(",");
                    return Err(InputError::field(
                        1,
                        field,
                        format!("is missing: the header is {header}"),
                    ));
                }
                _ => return Err(InputError::field(1, field, "stands twice: name each field once")),
            };
        }
        Ok(Self(columns))
    }
}

/// Series by the bytes that name them, so that a row costs one look-up.
#[derive(Default)]
struct Series {
    known: HashMap<Vec<u8>, ReplaySeries>,
    name: Vec<u8>,
}

struct Row<'a> {
    record: &'a ByteRecord,
    columns: &'a Columns,
    line: u64,
}

impl Row<'_> {
    fn play(&self, series: &mut Series, player: &mut Player<'_>) -> Result<(), InputError> {
        if self.record.len() != FIELDS.len() {
            let (found, wanted) = (self.record.len(), FIELDS.len());
            return Err(InputError::line(
                self.line,
                format!("has {found} fields, {wanted} are expected"),
            ));
        }
        let t_ms = self.t_ms()?;
        let latency = self.latency()?;
        let ok = self.ok()?;
        let series = self.series(series, player)?;
        let recorded = player.replay.record(t_ms, series, latency, ok);
        recorded.map_err(|error| InputError::replay(self.line, &error))
    }

    fn bytes(&self, field: usize) -> &[u8] {
        self.record.get(self.columns.0[field]).unwrap_or_default().trim_ascii()
    }

    fn text(&self, field: usize) -> Result<&str, InputError> {
        std::str::from_utf8(self.bytes(field))
            .map_err(|_| InputError::field(self.line, FIELDS[field], "is not UTF-8 text"))
    }

    fn wrong(&self, field: usize, right: &str) -> InputError {
        let text = String::from_utf8_lossy(self.bytes(field));
        let text: String = text.chars().take(SHOWN_CHARS).collect();
        InputError::field(self.line, FIELDS[field], format!("{text:?} is wrong: {right}"))
    }

    fn t_ms(&self) -> Result<i64, InputError> {
        whole(self.bytes(0))
            .ok_or_else(|| self.wrong(0, "use whole milliseconds such as 12500 or -3600000"))
    }

    fn latency(&self) -> Result<u64, InputError> {
        let parsed = self.text(5)?.parse().ok().and_then(nanos);
        parsed.ok_or_else(|| self.wrong(5, "use milliseconds, 0 or more, such as 12.5"))
    }

    fn ok(&self) -> Result<bool, InputError> {
        match self.bytes(6) {
            b"true" | b"1" | b"True" | b"TRUE" => Ok(true),
            b"false" | b"0" | b"False" | b"FALSE" => Ok(false),
            _ => Err(self.wrong(6, "use true or false")),
        }
    }

    fn series(
        &self,
        series: &mut Series,
        player: &mut Player<'_>,
    ) -> Result<ReplaySeries, InputError> {
        series.name.clear();
        for field in 1..5 {
            series.name.extend_from_slice(self.bytes(field));
            series.name.push(b',');
        }
        if let Some(known) = series.known.get(&series.name) {
            return Ok(*known);
        }
        let line = self.line;
        let slice = self.text(1)?.parse().map_err(|e| InputError::series(line, "slice", &e))?;
        let stage = self.text(2)?.parse().map_err(|e| InputError::series(line, "stage", &e))?;
        let arm = self.text(3)?.parse().map_err(|e| InputError::series(line, "arm", &e))?;
        let found = player.replay.series(&slice, stage, arm, self.text(4)?);
        let found = found.map_err(|error| InputError::replay(line, &error))?;
        series.known.insert(series.name.clone(), found);
        Ok(found)
    }
}

/// A whole number, with a sign or without.
fn whole(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value = digits.iter().fold(0_i64, |value, digit| value * 10 + i64::from(digit - b'0'));
    Some(if negative { -value } else { value })
}
