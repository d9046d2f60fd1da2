//! The four kinds of dictionary entry: their bounds, their bytes, and runs of them.

use lens_hist::block::{put_varint, varint_len};
use lens_model::limits::{CONNECTION_INSTANCES_MAX, CONNECTION_SERIES_MAX};
use lens_model::{Arm, InstanceName, SeriesKey, Slice, Stage};

use crate::dict::{Gauge, Instance, InstanceId, Requests, Run, Series};
use crate::error::FrameError;
use crate::limits::{CONNECTION_GAUGES_MAX, CONNECTION_REQUESTS_MAX};
use crate::read::{Reader, put_str};
use crate::text::Label;

/// One kind of entry.
pub(crate) trait Entry: Sized {
    /// What entries of this kind are called.
    const WHAT: &'static str;
    /// Ids of this kind one connection may define.
    const MAX: usize;
    /// Appends the entry.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes an entry.
    fn read(r: &mut Reader<'_>) -> Result<Self, FrameError>;
    /// Bytes [`Entry::put`] takes.
    fn encoded_len(&self) -> usize;
    /// The instance it belongs to, if it is not one itself.
    fn instance(&self) -> Option<InstanceId>;
}

/// Appends a run. (WIRE-041)
pub(crate) fn put_run<T: Entry>(run: &Run<T>, out: &mut Vec<u8>) {
    put_varint(out, run.entries.len() as u64);
    if !run.entries.is_empty() {
        put_varint(out, u64::from(run.first));
        run.entries.iter().for_each(|entry| entry.put(out));
    }
}

/// Bytes [`put_run`] takes.
pub(crate) fn run_len<T: Entry>(run: &Run<T>) -> usize {
    let count = varint_len(run.entries.len() as u64);
    let first = if run.entries.is_empty() { 0 } else { varint_len(u64::from(run.first)) };
    count + first + run.entries.iter().map(Entry::encoded_len).sum::<usize>()
}

/// Takes a run.
pub(crate) fn read_run<T: Entry>(r: &mut Reader<'_>) -> Result<Run<T>, FrameError> {
    // WIRE-043
    let count = r.count(T::WHAT, T::MAX)?;
    if count == 0 {
        return Ok(Run::default());
    }
    let first = r.varint("first id")?;
    let first = u32::try_from(first)
        .ok()
        .filter(|first| usize::try_from(*first).is_ok_and(|first| first + count <= T::MAX))
        .ok_or_else(|| r.bad("first id"))?;
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(T::read(r)?);
    }
    Ok(Run { first, entries })
}

/// The id `count` after `first`.
pub(crate) fn id_at(first: u32, count: usize) -> u32 {
    first.saturating_add(u32::try_from(count).unwrap_or(u32::MAX))
}

impl Entry for Instance {
    const WHAT: &'static str = "instances";
    const MAX: usize = CONNECTION_INSTANCES_MAX;

    fn put(&self, out: &mut Vec<u8>) {
        put_str(out, self.name.as_str());
        put_str(out, self.service.as_str());
        put_str(out, self.version.as_str());
        put_str(out, self.zone.as_str());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, FrameError> {
        Ok(Self {
            name: InstanceName::new(r.str("instance")?).map_err(|_| r.bad("instance"))?,
            service: r.text("service")?,
            version: r.text("version")?,
            zone: r.text("zone")?,
        })
    }

    fn encoded_len(&self) -> usize {
        let texts = [&self.service, &self.version, &self.zone];
        4 + self.name.as_str().len() + texts.iter().map(|text| text.as_str().len()).sum::<usize>()
    }

    fn instance(&self) -> Option<InstanceId> {
        None
    }
}

impl Entry for Series {
    const WHAT: &'static str = "series";
    const MAX: usize = CONNECTION_SERIES_MAX;

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.instance.0));
        out.extend_from_slice(&[self.key.stage.code(), self.key.arm.code()]);
        put_str(out, &self.key.slice.to_string());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, FrameError> {
        let instance = read_instance(r)?;
        let stage = Stage::from_code(r.u8("stage")?).ok_or_else(|| r.bad("stage"))?;
        let arm = read_arm(r)?;
        Ok(Self { instance, key: SeriesKey { slice: read_slice(r)?, stage, arm } })
    }

    fn encoded_len(&self) -> usize {
        varint_len(u64::from(self.instance.0)) + 3 + slice_len(&self.key.slice)
    }

    fn instance(&self) -> Option<InstanceId> {
        Some(self.instance)
    }
}

impl Entry for Requests {
    const WHAT: &'static str = "requests";
    const MAX: usize = CONNECTION_REQUESTS_MAX;

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.instance.0));
        out.push(self.arm.code());
        put_str(out, &self.slice.to_string());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, FrameError> {
        let instance = read_instance(r)?;
        let arm = read_arm(r)?;
        Ok(Self { instance, slice: read_slice(r)?, arm })
    }

    fn encoded_len(&self) -> usize {
        varint_len(u64::from(self.instance.0)) + 2 + slice_len(&self.slice)
    }

    fn instance(&self) -> Option<InstanceId> {
        Some(self.instance)
    }
}

impl Entry for Gauge {
    const WHAT: &'static str = "gauges";
    const MAX: usize = CONNECTION_GAUGES_MAX;

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.instance.0));
        put_str(out, self.name.as_str());
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, FrameError> {
        let instance = read_instance(r)?;
        let name: Label = r.text("gauge")?;
        if name.is_empty() {
            return Err(r.bad("gauge"));
        }
        Ok(Self { instance, name })
    }

    fn encoded_len(&self) -> usize {
        varint_len(u64::from(self.instance.0)) + 1 + self.name.as_str().len()
    }

    fn instance(&self) -> Option<InstanceId> {
        Some(self.instance)
    }
}

fn read_instance(r: &mut Reader<'_>) -> Result<InstanceId, FrameError> {
    let id = r.varint("instance id")?;
    u32::try_from(id).map(InstanceId).map_err(|_| r.bad("instance id"))
}

fn read_arm(r: &mut Reader<'_>) -> Result<Arm, FrameError> {
    Arm::from_code(r.u8("arm")?).ok_or_else(|| r.bad("arm"))
}

/// A slice in its one spelling: capitals, which the type would fold, are refused. (WIRE-045)
fn read_slice(r: &mut Reader<'_>) -> Result<Slice, FrameError> {
    let text = r.str("slice")?;
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(r.bad("slice"));
    }
    text.parse().map_err(|_| r.bad("slice"))
}

fn slice_len(slice: &Slice) -> usize {
    slice.repo_type().len() + slice.language().len() + slice.size().len() + 2
}
