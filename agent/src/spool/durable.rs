//! The spool on disk: one journal, written by the harvester, read back for the link.
//!
//! Every file of the journal begins with a snapshot of all baselines, so that files whose deltas are
//! all acknowledged can go. Deltas are published to the link once their batch is durable.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use lens_journal::{
    AppendError, Entry, FILE_HEADER_BYTES, Journal, JournalReader, Options, RECORD_HEADER_BYTES,
    Recovery,
};
use lens_model::{AgentName, Incarnation, Sequence, UnixNanos};
use lens_segment::Baseline;
use lens_service::env::Env;
use lens_service::planted::{Planted, PlantedSet};
use parking_lot::Mutex;

use super::baselines::Baselines;
use super::codec::{
    DELTA, DeltaHeadline, Names, RENEWAL, Renewal, SNAPSHOT, SnapshotHead, decode_delta,
    encode_delta, encode_renewal, encode_snapshot,
};
use super::ledger::Ledger;
use super::record::Harvested;
use super::replay::Replay;
use super::{Level, Outbox, Record, SpoolError};

/// Bytes read ahead for the link at a time.
const LOAD_BYTES: usize = 1 << 20;

/// Records and bytes kept free in the file being written, so that another life can begin even when
/// there is no room for another file.
const RENEWALS: usize = 16;
const RENEWAL_BYTES: usize = 16 * 512;

/// What was found when the spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// It was made just now; an earlier one, if there was one, is lost.
    pub created: bool,
    /// Deltas found that the aggregator has not acknowledged, as far as was noted.
    pub deltas: u64,
    /// Deltas lost to damage; their counts are taken from the segments again.
    pub deltas_lost: u64,
    /// Records of which one bit was wrong, and is right again.
    pub repaired: u64,
    /// Bytes that were being written when the last process ended.
    pub torn_bytes: u64,
    /// Segments of which it is known how far they were read.
    pub segments: usize,
    /// Files that could not be read, renamed to `.unreadable`.
    pub files_unreadable: u64,
    /// Why numbering began anew, if it did for another reason than a first start.
    pub renewed: Option<String>,
}

#[derive(Debug)]
struct Writer {
    journal: Journal,
    /// What segments that were read from are marked with.
    origin: u128,
    harvested: UnixNanos,
    /// Baselines of segments that nobody holds a reader of.
    kept: BTreeMap<u128, Baseline>,
    /// Segments of which the next delta says that nothing need be known of them.
    gone: Vec<u128>,
    /// A life to begin as soon as there is room for saying so.
    renewal_due: Option<Incarnation>,
    /// The next batch begins with a snapshot.
    snapshot_due: bool,
    /// Where the last whole snapshot begins: what follows means nothing without it, so its file
    /// stays until another one has its place, acknowledged or not.
    snapshot_at: u64,
    damages: Vec<(u64, u64)>,
    /// Whether numbers cannot go on, whatever the aggregator has.
    renew: bool,
}

#[derive(Debug)]
struct Reading {
    reader: JournalReader,
    names: Names,
}

/// A spool that outlives the process.
#[derive(Debug)]
pub struct DurableSpool {
    ledger: Mutex<Ledger>,
    writer: Mutex<Writer>,
    reading: Mutex<Reading>,
    planted: PlantedSet,
}

fn options(bytes_max: u64, planted: PlantedSet) -> Options {
    #[cfg_attr(not(any(test, feature = "planted")), expect(unused_mut))]
    let mut options = Options::new(bytes_max);
    #[cfg(any(test, feature = "planted"))]
    {
        options.mistakes.crc_over_payload_only = planted.contains(Planted::CrcOverPayloadOnly);
        options.mistakes.sync_retried = planted.contains(Planted::FsyncRetried);
    }
    #[cfg(not(any(test, feature = "planted")))]
    let _: PlantedSet = planted;
    options
}

/// A life for a spool that begins.
fn fresh(env: &Env, agent: &AgentName) -> Result<Incarnation, SpoolError> {
    if env.planted(Planted::WallClockIdentity) {
        return Ok(Incarnation((env.now().0 / 1_000_000_000).into()));
    }
    if env.planted(Planted::SpoolNumberReused) {
        let name = agent.as_str().bytes().fold(1, |all, byte| all << 7 ^ u128::from(byte));
        return Ok(Incarnation(name));
    }
    env.incarnation().map_err(SpoolError::Random)
}

impl DurableSpool {
    /// Opens the spool in a directory, or makes one there. Blocks.
    ///
    /// # Errors
    /// [`SpoolError::Open`]: the directory cannot be used; the others: a damaged spool cannot go on
    /// in another life.
    pub fn open(
        env: &Env,
        dir: &Path,
        bytes_max: u64,
        agent: &AgentName,
    ) -> Result<(Self, Recovered), SpoolError> {
        let identity = env.incarnation().map_err(SpoolError::Random)?;
        let disk = Arc::clone(&env.disk);
        let (journal, found) =
            Journal::open(disk, dir, options(bytes_max, env.planted), identity.0)?;
        let mut reader = journal.reader();
        let mut replay = Replay::new();
        let mut from = journal.wanted_from();
        loop {
            let records = reader.read(from, LOAD_BYTES)?;
            let Some(last) = records.last() else { break };
            from = last.position.saturating_add(1);
            records.iter().for_each(|record| replay.take(record));
        }
        let damages: Vec<_> = found.damages.iter().map(|d| (d.from, d.to)).collect();
        let why = reason(&found, &replay, &damages);
        let lost = damages.iter().map(|(from, to)| to - from).sum::<u64>();
        let begin = found.created || !replay.complete;
        if begin {
            // Of what was read nothing is known: segments that bear the old mark are not new.
            replay.origin = env.incarnation().map_err(SpoolError::Random)?.0;
            replay.ledger.incarnation = fresh(env, agent)?;
            replay.baselines = Baselines::default();
        }
        let segments = replay.baselines.clone().into_exports();
        let recovered = Recovered {
            created: found.created,
            deltas: replay.ledger.level().frames,
            deltas_lost: if why.is_some() { lost } else { 0 },
            repaired: found.repaired,
            torn_bytes: found.torn_bytes,
            segments: segments.len(),
            files_unreadable: found.files_unreadable,
            renewed: why.clone(),
        };
        let writer = Writer {
            origin: replay.origin,
            harvested: replay.harvested,
            kept: segments,
            gone: Vec::new(),
            renewal_due: None,
            // What a file begins with may have been torn off it.
            snapshot_due: begin || journal.begins_file() || replay.ends_within_snapshot(),
            snapshot_at: replay.snapshot_at,
            damages,
            renew: why.is_some(),
            journal,
        };
        // Of a journal that lost something the aggregator may have what is lost, or what is left.
        let sent = replay.former.life != Incarnation(0);
        if (why.is_some() || found.torn_bytes > 0) && sent {
            replay.ledger.unsettled = Some(replay.former);
        }
        let asks = replay.ledger.unsettled.is_some();
        let spool = Self {
            ledger: Mutex::new(replay.ledger),
            writer: Mutex::new(writer),
            reading: Mutex::new(Reading { reader, names: Names::default() }),
            planted: env.planted,
        };
        if why.is_some() && !asks {
            let life = fresh(env, agent)?;
            spool.renew_with(&mut spool.writer.lock(), life, true, &Vec::new)?;
        }
        Ok((spool, recovered))
    }

    /// What segments that were read from are to be marked with.
    pub fn origin(&self) -> u128 {
        self.writer.lock().origin
    }

    /// The end of the last harvest that is durable, if there was one.
    pub fn harvested(&self) -> Option<UnixNanos> {
        Some(self.writer.lock().harvested).filter(|end| end.0 > 0)
    }

    /// How far a segment was read, if that is known and nobody holds a reader of it.
    pub fn kept(&self, segment: u128) -> Option<Baseline> {
        self.writer.lock().kept.get(&segment).cloned()
    }

    /// Hands the baseline of a segment to a reader, which from then on is asked for it.
    pub fn hand_over(&self, segment: u128) {
        self.writer.lock().kept.remove(&segment);
    }

    /// Takes the baseline of a segment back from a reader that goes.
    pub fn keep(&self, baseline: Baseline) {
        self.writer.lock().kept.insert(baseline.incarnation, baseline);
    }

    /// Notes that a segment is no more.
    pub fn forget(&self, segment: u128) {
        let mut writer = self.writer.lock();
        writer.kept.remove(&segment);
        writer.gone.push(segment);
    }

    /// Forgets kept baselines of segments that are not among these.
    pub fn forget_others(&self, present: impl Fn(u128) -> bool) {
        let mut writer = self.writer.lock();
        let gone: Vec<u128> =
            writer.kept.keys().copied().filter(|segment| !present(*segment)).collect();
        for segment in gone {
            writer.kept.remove(&segment);
            writer.gone.push(segment);
        }
    }

    /// Makes what this spool marks segments with durable, if it is not yet: to be done before any
    /// segment is marked or read. Blocks.
    ///
    /// # Errors
    /// As [`DurableSpool::append`].
    pub fn begin(&self, committed: &dyn Fn() -> Vec<Baseline>) -> Result<(), SpoolError> {
        if self.former().is_some() {
            return Err(SpoolError::Unsettled);
        }
        if !self.writer.lock().snapshot_due {
            return Ok(());
        }
        self.append(Vec::new(), UnixNanos(0), committed)
    }

    /// Makes the next append write all baselines, because one was set and did not grow.
    pub fn snapshot_next(&self) {
        self.writer.lock().snapshot_due = true;
    }

    /// The journal's files: how many bytes they take up and may, and how they do.
    pub fn disk(&self) -> lens_journal::Level {
        self.writer.lock().journal.level()
    }

    /// Makes a harvest durable, all of it or none, and then shows it to the link. Blocks.
    ///
    /// `end` is the harvest's end, `committed` gives the baselines that readers hold, from before
    /// this harvest.
    ///
    /// # Errors
    /// [`SpoolError::Append`], [`SpoolError::Unsettled`]: nothing was taken, and the readers'
    /// baselines must stay.
    pub fn append(
        &self,
        deltas: Vec<Harvested>,
        end: UnixNanos,
        committed: &dyn Fn() -> Vec<Baseline>,
    ) -> Result<(), SpoolError> {
        let mut writer = self.writer.lock();
        if self.former().is_some() {
            return Err(SpoolError::Unsettled);
        }
        self.trim(&mut writer);
        if let Some(life) = writer.renewal_due {
            self.renew_with(&mut writer, life, false, committed)?;
        }
        if deltas.is_empty() && !writer.snapshot_due {
            return Ok(());
        }
        let payloads = self.encode(&deltas, &writer.gone);
        let room: usize = payloads.iter().map(Vec::len).sum();
        let snapshot = self.snapshot_unless_fits(&writer, payloads.len(), room, committed);
        let batch: Vec<Entry<'_>> = entries(SNAPSHOT, &snapshot, DELTA, &payloads);
        let at = writer.journal.level().next + snapshot.len() as u64;
        let sizes: Vec<u64> = payloads.iter().map(|payload| payload.len() as u64).collect();
        let wrote = |error| too_small(error, &batch, !snapshot.is_empty());
        if self.planted.contains(Planted::SendBeforeSpooled) {
            self.publish(at, deltas, &sizes);
            write(&mut writer, &batch, !snapshot.is_empty()).map_err(wrote)?;
        } else {
            write(&mut writer, &batch, !snapshot.is_empty()).map_err(wrote)?;
            self.publish(at, deltas, &sizes);
        }
        if !payloads.is_empty() {
            writer.gone.clear();
            writer.harvested = end;
        }
        Ok(())
    }

    fn encode(&self, deltas: &[Harvested], gone: &[u128]) -> Vec<Vec<u8>> {
        let (incarnation, acked, last) = {
            let ledger = self.ledger.lock();
            (ledger.incarnation, ledger.acked, ledger.last)
        };
        let mut payloads = Vec::with_capacity(deltas.len());
        for (delta, sequence) in deltas.iter().zip(last.0 + 1..) {
            let gone = if payloads.is_empty() { gone.to_vec() } else { Vec::new() };
            let sequence = Sequence(sequence);
            let head = DeltaHeadline { incarnation, sequence, acked, gone };
            payloads.push(encode_delta(&head, delta));
        }
        payloads
    }

    /// The snapshot that begins another file, when a batch needs one.
    fn snapshot_unless_fits(
        &self,
        writer: &Writer,
        records: usize,
        bytes: usize,
        committed: &dyn Fn() -> Vec<Baseline>,
    ) -> Vec<Vec<u8>> {
        let fits = writer.journal.fits(records + RENEWALS, bytes + RENEWAL_BYTES);
        if fits && !writer.snapshot_due {
            return Vec::new();
        }
        let head = {
            let ledger = self.ledger.lock();
            SnapshotHead {
                first: true,
                last: true,
                origin: writer.origin,
                incarnation: ledger.incarnation,
                sequence: ledger.last,
                acked: ledger.acked,
                harvested: writer.harvested,
            }
        };
        let held = committed();
        encode_snapshot(&head, writer.kept.values().chain(&held))
    }

    fn publish(&self, from: u64, deltas: Vec<Harvested>, sizes: &[u64]) {
        let mut ledger = self.ledger.lock();
        for ((delta, position), bytes) in deltas.into_iter().zip(from..).zip(sizes) {
            let sequence = ledger.push(position, delta.record.start, *bytes);
            ledger.keep(sequence, Arc::new(delta.record));
        }
    }

    /// Gives back the files of what the aggregator has.
    fn trim(&self, writer: &mut Writer) {
        let wanted = {
            let ledger = self.ledger.lock();
            let before = ledger.acked.max(if self.planted.contains(Planted::TrimBeforeAck) {
                ledger.asked
            } else {
                Sequence(0)
            });
            ledger.position(before.next())
        };
        let wanted = wanted.unwrap_or_else(|| writer.journal.level().next).min(writer.snapshot_at);
        // What could not be removed is tried again with the next append, and harms nobody.
        drop(writer.journal.trim(wanted));
    }

    fn renew_with(
        &self,
        writer: &mut Writer,
        incarnation: Incarnation,
        new_file: bool,
        committed: &dyn Fn() -> Vec<Baseline>,
    ) -> Result<(), SpoolError> {
        let held = self.ledger.lock().level().frames;
        let damages = writer.damages.clone();
        let payload = [encode_renewal(&Renewal { incarnation, held, damages })];
        let fits = writer.journal.fits(1, payload[0].len());
        let snapshot = if fits && !new_file {
            Vec::new()
        } else {
            writer.snapshot_due = true;
            self.snapshot_unless_fits(writer, 1, payload[0].len(), committed)
        };
        let batch = entries(SNAPSHOT, &snapshot, RENEWAL, &payload);
        write(writer, &batch, !snapshot.is_empty())?;
        writer.renewal_due = None;
        self.ledger.lock().renew(incarnation);
        Ok(())
    }
}

fn entries<'a>(
    first: u32,
    these: &'a [Vec<u8>],
    second: u32,
    those: &'a [Vec<u8>],
) -> Vec<Entry<'a>> {
    let these = these.iter().map(|payload| Entry { kind: first, payload });
    these.chain(those.iter().map(|payload| Entry { kind: second, payload })).collect()
}

/// Appends a batch; one that begins with a snapshot begins a file.
fn write(writer: &mut Writer, batch: &[Entry<'_>], snapshot: bool) -> Result<(), SpoolError> {
    if snapshot {
        writer.snapshot_at = writer.journal.append_to_new(batch)?.start;
        writer.snapshot_due = false;
    } else {
        writer.journal.append(batch)?;
    }
    Ok(())
}

/// What a full spool is, when no acknowledgement could make room in it: the file being written stays
/// until the next one, which begins with all baselines, is there.
fn too_small(error: SpoolError, batch: &[Entry<'_>], new_file: bool) -> SpoolError {
    let SpoolError::Append(AppendError::Full { bytes_max, .. }) = error else { return error };
    let records = batch.iter().map(|entry| (RECORD_HEADER_BYTES + entry.payload.len()) as u64);
    let bytes = FILE_HEADER_BYTES as u64 + records.sum::<u64>();
    let needed = bytes.saturating_mul(2);
    if new_file && needed > bytes_max {
        return SpoolError::TooSmall { bytes, bytes_max, needed };
    }
    error
}

/// Why the numbering of a spool that was found cannot go on, if it cannot.
fn reason(found: &Recovery, replay: &Replay, damages: &[(u64, u64)]) -> Option<String> {
    if found.created {
        return None;
    }
    if !replay.complete {
        return Some("it holds no whole snapshot".into());
    }
    let fresh: Vec<_> = damages.iter().filter(|d| !replay.damages.contains(d)).collect();
    if let Some((from, to)) = fresh.first() {
        return Some(format!("records {from} to {} were damaged", to - 1));
    }
    if found.damages_total > damages.len() as u64 {
        return Some(format!("records were damaged in {} places", found.damages_total));
    }
    replay.disordered.then(|| "its records do not follow one another".into())
}

impl Outbox for DurableSpool {
    fn incarnation(&self) -> Incarnation {
        self.ledger.lock().incarnation
    }

    fn get(&self, sequence: Sequence) -> Option<Arc<Record>> {
        let mut ledger = self.ledger.lock();
        let record = ledger.get(sequence)?;
        ledger.asked = ledger.asked.max(sequence);
        Some(record)
    }

    fn load(&self, sequence: Sequence) -> Result<(), SpoolError> {
        let mut reading = self.reading.lock();
        let Reading { reader, names } = &mut *reading;
        let Some(position) = self.ledger.lock().position(sequence) else { return Ok(()) };
        let mut records = Vec::new();
        for record in reader.read(position, LOAD_BYTES)? {
            let at = record.position;
            if records.is_empty() && at != position {
                return Err(lens_journal::ReadError::Damaged { position }.into());
            }
            if record.kind == DELTA {
                let decoded = decode_delta(&record.payload, names);
                let (_, harvested) = decoded.ok_or(SpoolError::Senseless { position: at })?;
                records.push(Arc::new(harvested.record));
            }
        }
        let mut ledger = self.ledger.lock();
        // Another life may have begun in the meantime, in which this is another number.
        if ledger.position(sequence) == Some(position) {
            ledger.loaded(sequence, records);
        }
        Ok(())
    }

    fn acknowledge(&self, acked: Sequence) {
        self.ledger.lock().acknowledge(acked);
    }

    fn renew(&self, incarnation: Incarnation) -> Result<(), SpoolError> {
        let mut writer = self.writer.lock();
        let damages = writer.damages.len() * 20;
        if !writer.snapshot_due && writer.journal.fits(1, 64 + damages) {
            return self.renew_with(&mut writer, incarnation, false, &Vec::new);
        }
        // Another file begins with all baselines, which the harvester has.
        writer.renewal_due = Some(incarnation);
        Ok(())
    }

    fn former(&self) -> Option<Incarnation> {
        self.ledger.lock().unsettled.as_ref().map(|former| former.life)
    }

    fn settle(&self, merged: Sequence, incarnation: Incarnation) -> Result<(), SpoolError> {
        let mut writer = self.writer.lock();
        let Some(former) = self.ledger.lock().unsettled.clone() else { return Ok(()) };
        let lost = former.lost_merged(merged);
        if lost || writer.renew {
            self.ledger.lock().acknowledge(former.up_to(merged));
            self.trim(&mut writer);
            if lost {
                // What is missing was merged, so baselines are behind by it. Segments that bear
                // another mark are begun at their present counts: less is merged, never more.
                writer.origin = incarnation.0;
                writer.kept.clear();
            }
            self.renew_with(&mut writer, incarnation, true, &Vec::new)?;
            writer.renew = false;
        }
        self.ledger.lock().unsettled = None;
        Ok(())
    }

    fn level(&self) -> Level {
        self.ledger.lock().level()
    }
}
