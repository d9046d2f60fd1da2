//! A capture as Parquet: a row for each bucket that holds samples, of each step, series and node.

use std::sync::Arc;

use lens_hist::layout::{COUNTERS, low};
use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::grid::counted;
use super::{Name, Step};

/// Rows written at once: what is held of them is 100 bytes each.
const ROWS_MAX: usize = 65_536;

const SCHEMA: &str = "
    message lens_capture {
        REQUIRED INT64 t (TIMESTAMP(NANOS, true));
        REQUIRED INT64 duration_ns;
        REQUIRED BYTE_ARRAY repo_type (STRING);
        REQUIRED BYTE_ARRAY language (STRING);
        REQUIRED BYTE_ARRAY size (STRING);
        REQUIRED BYTE_ARRAY stage (STRING);
        REQUIRED BYTE_ARRAY arm (STRING);
        REQUIRED BYTE_ARRAY agent (STRING);
        REQUIRED BYTE_ARRAY instance (STRING);
        REQUIRED INT64 from_ns;
        OPTIONAL INT64 to_ns;
        REQUIRED INT64 count;
    }";

/// Rows not yet written, by column.
#[derive(Default)]
struct Rows {
    t: Vec<i64>,
    duration: Vec<i64>,
    texts: [Vec<ByteArray>; 7],
    from: Vec<i64>,
    /// Absent for what is above the largest latency of the layout.
    to: Vec<i64>,
    has_to: Vec<i16>,
    count: Vec<i64>,
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The file.
pub(super) fn parquet(names: &[Name], steps: &[Step]) -> Result<Vec<u8>, ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties))?;
    let texts: Vec<[ByteArray; 7]> = names.iter().map(texts).collect();
    let mut rows = Rows::default();
    for (_, step, block) in counted(names, steps) {
        let texts = &texts[step.name as usize];
        block.for_each(|slot, count| rows.push(step, texts, slot, count));
        if rows.t.len() >= ROWS_MAX {
            std::mem::take(&mut rows).write(writer.next_row_group()?)?;
        }
    }
    if !rows.t.is_empty() {
        rows.write(writer.next_row_group()?)?;
    }
    writer.into_inner()
}

fn texts(name: &Name) -> [ByteArray; 7] {
    let slice = &name.key.slice;
    [
        slice.repo_type(),
        slice.language(),
        slice.size(),
        name.key.stage.as_str(),
        name.key.arm.as_str(),
        name.agent.as_str(),
        name.instance.as_str(),
    ]
    .map(|text| ByteArray::from(text.as_bytes().to_vec()))
}

impl Rows {
    fn push(&mut self, step: &Step, texts: &[ByteArray; 7], slot: usize, count: u64) {
        self.t.push(whole(step.start.0));
        self.duration.push(whole(step.duration.0));
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text.clone());
        }
        self.from.push(whole(low(slot)));
        let bounded = slot < COUNTERS;
        self.has_to.push(i16::from(bounded));
        if bounded {
            self.to.push(whole(low(slot + 1)));
        }
        self.count.push(whole(count));
    }

    fn write<W: std::io::Write + Send>(
        self,
        mut group: SerializedRowGroupWriter<'_, W>,
    ) -> Result<(), ParquetError> {
        let mut at = 0;
        while let Some(mut column) = group.next_column()? {
            match at {
                2..=8 => {
                    column.typed::<ByteArrayType>().write_batch(&self.texts[at - 2], None, None)?;
                }
                10 => {
                    let to = column.typed::<Int64Type>();
                    to.write_batch(&self.to, Some(&self.has_to), None)?;
                }
                _ => {
                    let values = match at {
                        0 => &self.t,
                        1 => &self.duration,
                        9 => &self.from,
                        _ => &self.count,
                    };
                    column.typed::<Int64Type>().write_batch(values, None, None)?;
                }
            }
            column.close()?;
            at += 1;
        }
        group.close()?;
        Ok(())
    }
}
