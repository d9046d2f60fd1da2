//! A segment, a spool on a faulty disk, crashes at every operation: what was counted is shipped once.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lens_hist::block::BlockRef;
use lens_journal::testing::{Crash, FaultyDisk};
use lens_model::{Incarnation, Sequence, Slice, Stage, UnixNanos};
use lens_segment::{Node, Recorder};
use lens_service::env::{Clock, Env, Random};
use lens_service::planted::{Planted, PlantedSet};
use lens_wire::ClockOffset;

use super::*;
use crate::harvest::Harvester;
use crate::status::Status;

const DIR: &str = "/spool";
const BYTES_MAX: u64 = 1 << 20;

/// Randomness that a failed test can repeat.
#[derive(Debug)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, buffer: &mut [u8]) -> std::io::Result<()> {
        let next = self.0.fetch_add(1, Ordering::Relaxed);
        buffer.fill(0);
        buffer[..8].copy_from_slice(&next.to_le_bytes());
        Ok(())
    }
}

/// A wall clock that a test moves.
#[derive(Debug)]
struct Wall(AtomicU64);

impl Clock for Wall {
    fn now(&self) -> UnixNanos {
        UnixNanos(self.0.load(Ordering::Relaxed))
    }
}

/// A search node, a disk, and an aggregator that merges every delta once and in order.
struct Host {
    disk: FaultyDisk,
    env: Env,
    wall: Arc<Wall>,
    segments: tempfile::TempDir,
    node: Recorder,
    recorded: u64,
    life: Incarnation,
    merged_to: Sequence,
    merged: u64,
}

/// An agent on it, from start to crash.
struct Running {
    spool: Arc<DurableSpool>,
    harvester: Harvester,
    status: Arc<Status>,
}

impl Host {
    fn new(seed: u64, planted: &[Planted]) -> Self {
        let disk = FaultyDisk::new(seed);
        let wall = Arc::new(Wall(AtomicU64::new(1_795_000_000_000_000_000)));
        let env = Env {
            disk: Arc::new(disk.clone()),
            random: Arc::new(Counting(AtomicU64::new(seed << 20 | 1))),
            clock: Arc::clone(&wall) as Arc<dyn Clock>,
            planted: PlantedSet::of(planted),
            ..Env::system()
        };
        let segments = tempfile::tempdir().unwrap();
        let node = Node { service: "lens", version: "1", instance: "node-1" };
        let node = Recorder::create(segments.path(), node).unwrap();
        let (life, merged_to) = (Incarnation(0), Sequence(0));
        Self { disk, env, wall, segments, node, recorded: 0, life, merged_to, merged: 0 }
    }

    fn record(&mut self, count: u64) {
        let slice = Slice::new("backend", "rust", "large").unwrap();
        let series = self.node.series(slice, Stage::A).unwrap();
        (0..count).for_each(|n| series.record(1_000_000 + n * 10_000));
        self.recorded += count;
    }

    fn start(&self) -> Result<Running, SpoolError> {
        let agent = "a1".parse().unwrap();
        let (spool, found) = DurableSpool::open(&self.env, Path::new(DIR), BYTES_MAX, &agent)?;
        let (spool, status) =
            (Arc::new(spool), Arc::new(Status::new(self.env.now(), "a1".into(), found)));
        let dir = self.segments.path().to_owned();
        let (held, shown) = (Arc::clone(&spool), Arc::clone(&status));
        let harvester = Harvester::new(self.env.clone(), dir, "", shown, held, Arc::default());
        let agent = Running { spool, harvester, status };
        self.answer(&agent)?;
        Ok(agent)
    }

    /// The aggregator says how far it merged the life it is asked about, if it is asked.
    fn answer(&self, agent: &Running) -> Result<(), SpoolError> {
        let Some(life) = agent.spool.former() else { return Ok(()) };
        let merged = if life == self.life { self.merged_to } else { Sequence(0) };
        agent.spool.settle(merged, self.env.incarnation().unwrap())
    }

    /// A second passes and is harvested.
    fn harvest(&self, agent: &mut Running) {
        self.wall.0.fetch_add(1_000_000_000, Ordering::Relaxed);
        agent.harvester.scan();
        agent.harvester.harvest(self.env.now(), ClockOffset::UNMEASURED);
    }

    /// Ships everything that is due, as a session would; whether everything was read.
    fn ship(&mut self, agent: &Running) -> Result<(), SpoolError> {
        let outbox: &dyn Outbox = &*agent.spool;
        if outbox.incarnation() != self.life {
            (self.life, self.merged_to) = (outbox.incarnation(), Sequence(0));
        }
        loop {
            let due = self.merged_to.next();
            if due > outbox.level().last {
                break;
            }
            if outbox.get(due).is_none() {
                outbox.load(due)?;
            }
            let Some(record) = outbox.get(due) else { break };
            for delta in &record.histograms {
                self.merged += BlockRef::parse(&delta.block).unwrap().0.total();
            }
            self.merged_to = due;
        }
        Ok(())
    }

    fn acknowledge(&self, agent: &Running) {
        agent.spool.acknowledge(self.merged_to);
    }
}

/// Rounds of recording and harvesting, shipping every other time and acknowledging a little less.
fn flow(host: &mut Host, agent: &mut Running, rounds: u64) {
    for round in 0..rounds {
        host.record(50 + round);
        host.harvest(agent);
        if round % 2 == 1 && host.ship(agent).is_ok() && round % 4 == 3 {
            host.acknowledge(agent);
        }
    }
}

/// Crashes before an operation, starts again, and says whether what was recorded was merged.
fn reconciles(at: u64, crash: Crash, planted: &[Planted]) -> Result<(), String> {
    let mut host = Host::new(at, planted);
    host.disk.power_off_before(at);
    if let Ok(mut agent) = host.start() {
        flow(&mut host, &mut agent, 6);
    }
    host.disk.crash(crash);
    let mut agent = host.start().map_err(|error| error.to_string())?;
    if agent.status.recovered.renewed.is_some() && host.merged > 0 {
        return Err(format!("renewed: {:?}", agent.status.recovered));
    }
    flow(&mut host, &mut agent, 4);
    host.ship(&agent).map_err(|error| error.to_string())?;
    let same = host.merged == host.recorded;
    let told = || format!("{} recorded, {} merged", host.recorded, host.merged);
    if same { Ok(()) } else { Err(told()) }
}

#[test]
fn what_was_recorded_is_shipped_once_wherever_the_agent_crashes() {
    for at in 1..80 {
        for crash in [Crash::Nothing, Crash::Everything, Crash::AnyPart] {
            if let Err(what) = reconciles(at, crash, &[]) {
                panic!("{crash:?} before operation {at}: {what}");
            }
        }
    }
}

/// Loses power before an operation of beginning another file, starts again, has everything
/// acknowledged, is killed before an operation of the next file, and starts a third time.
fn reconciles_twice(seed: u64, power: u64, kill: u64) -> Result<(), String> {
    let mut host = Host::new(seed, &[]);
    let mut agent = host.start().unwrap();
    flow(&mut host, &mut agent, 4);
    agent.spool.snapshot_next();
    host.disk.power_off_before(power);
    flow(&mut host, &mut agent, 1);
    host.disk.crash(Crash::AnyPart);
    drop(agent);
    let mut agent = host.start().map_err(|error| error.to_string())?;
    host.ship(&agent).map_err(|error| error.to_string())?;
    host.acknowledge(&agent);
    host.disk.power_off_before(kill);
    flow(&mut host, &mut agent, 2);
    host.disk.kill();
    drop(agent);
    let mut agent = host.start().map_err(|error| error.to_string())?;
    flow(&mut host, &mut agent, 2);
    host.ship(&agent).map_err(|error| error.to_string())?;
    let same = host.merged == host.recorded && agent.status.recovered.renewed.is_none();
    let told = || format!("{} of {}: {:?}", host.merged, host.recorded, agent.status.recovered);
    if same { Ok(()) } else { Err(told()) }
}

#[test]
fn the_last_whole_snapshot_stays_until_there_is_another_however_files_are_begun() {
    for seed in 0..16 {
        for (power, kill) in (1..10).flat_map(|power| (1..12).map(move |kill| (power, kill))) {
            if let Err(what) = reconciles_twice(seed, power, kill) {
                panic!("seed {seed}, power lost before {power}, killed before {kill}: {what}");
            }
        }
    }
}

#[test]
fn a_delta_sent_before_it_is_durable_does_not_reconcile() {
    let planted = [Planted::SendBeforeSpooled];
    assert!((1..80).any(|at| reconciles(at, Crash::Nothing, &planted).is_err()));
}

#[test]
fn what_was_sent_and_not_acknowledged_is_sent_again_after_many_files() {
    for planted in [&[][..], &[Planted::TrimBeforeAck]] {
        let mut host = Host::new(8, planted);
        let mut agent = host.start().unwrap();
        for _ in 0..900 {
            host.record(40);
            host.harvest(&mut agent);
            drop(host.ship(&agent));
        }
        assert!(planted.is_empty() == (agent.spool.disk().files > 1), "{:?}", agent.spool.disk());
        // An aggregator that has nothing of it durable.
        host.disk.crash(Crash::AnyPart);
        drop(agent);
        let agent = host.start().unwrap();
        (host.merged, host.merged_to) = (0, Sequence(0));
        let read = host.ship(&agent).is_ok();
        assert_eq!(read && host.merged == host.recorded, planted.is_empty(), "{planted:?}");
    }
}

#[test]
fn a_successor_goes_on_exactly_and_its_first_delta_covers_the_gap() {
    let mut host = Host::new(1, &[]);
    let mut agent = host.start().unwrap();
    assert!(agent.status.recovered.created);
    flow(&mut host, &mut agent, 3);
    let (life, end) = (agent.spool.incarnation(), agent.spool.harvested().unwrap());
    host.disk.kill();
    drop(agent);
    host.record(1_000);
    host.wall.0.fetch_add(60_000_000_000, Ordering::Relaxed);
    let mut agent = host.start().unwrap();
    assert_eq!((agent.spool.incarnation(), agent.spool.harvested()), (life, Some(end)));
    assert_eq!(agent.status.recovered.segments, 1);
    host.harvest(&mut agent);
    let last = agent.spool.level().last;
    let record = agent.spool.get(last).unwrap();
    assert_eq!((record.start, record.samples), (end, 1_000));
    assert_eq!(record.duration.0, 61_000_000_000);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
}

#[test]
fn a_full_spool_pauses_and_what_it_did_not_take_comes_once_it_takes_again() {
    for planted in [&[][..], &[Planted::DropWhenFull], &[Planted::BaselineBeforeSpool]] {
        let mut host = Host::new(2, planted);
        let mut agent = host.start().unwrap();
        host.record(10);
        host.harvest(&mut agent);
        host.disk.set_capacity(host.disk.used());
        let mut rounds = 0;
        while agent.status.paused.lock().is_none() {
            host.record(3_000);
            host.harvest(&mut agent);
            rounds += 1;
            assert!(rounds < 5_000, "never full");
        }
        host.record(7);
        host.harvest(&mut agent);
        host.ship(&agent).unwrap();
        host.acknowledge(&agent);
        host.harvest(&mut agent);
        assert!(agent.status.paused.lock().is_none(), "{:?}", agent.status.paused.lock());
        host.ship(&agent).unwrap();
        assert_eq!(host.merged == host.recorded, planted.is_empty(), "{planted:?}");
    }
}

#[test]
fn a_spool_too_small_for_all_baselines_says_how_large_it_must_be() {
    let host = Host::new(9, &[]);
    let (spool, _) =
        DurableSpool::open(&host.env, Path::new(DIR), BYTES_MAX, &"a1".parse().unwrap()).unwrap();
    let baselines = |blocks: u16| {
        let counters: Vec<(u16, u32)> = (0..3_000).map(|slot| (slot, 1_000_000)).collect();
        let block =
            |series| lens_segment::BlockBaseline { series, shard: 0, counters: counters.clone() };
        let blocks = (0..blocks).map(block).collect();
        vec![lens_segment::Baseline { incarnation: 1, blocks, requests: Vec::new() }]
    };
    // 15 kB a block: 30 of them fit twice, 40 do not.
    spool.begin(&|| baselines(30)).unwrap();
    spool.snapshot_next();
    spool.begin(&|| baselines(30)).unwrap();
    spool.snapshot_next();
    let Err(SpoolError::TooSmall { bytes, bytes_max, needed }) = spool.begin(&|| baselines(40))
    else {
        panic!("taken")
    };
    assert_eq!((bytes_max, needed), (BYTES_MAX, 2 * bytes));
    assert!((500_000..700_000).contains(&bytes), "{bytes}");
}

#[test]
fn a_lost_spool_is_another_life_and_what_was_read_is_not_counted_again() {
    let mut host = Host::new(3, &[]);
    let mut agent = host.start().unwrap();
    flow(&mut host, &mut agent, 4);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
    let life = agent.spool.incarnation();
    host.disk.wipe();
    let mut agent = host.start().unwrap();
    assert_ne!(agent.spool.incarnation(), life);
    for mistake in [Planted::SpoolNumberReused, Planted::WallClockIdentity] {
        let host = Host::new(3, &[mistake]);
        let before = host.start().unwrap().spool.incarnation();
        host.disk.wipe();
        assert_eq!(host.start().unwrap().spool.incarnation(), before, "{mistake:?}");
    }
    host.harvest(&mut agent);
    host.record(9);
    host.harvest(&mut agent);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
    // Killed right after, it knows that it took the segment over.
    host.disk.kill();
    drop(agent);
    host.record(5);
    let mut agent = host.start().unwrap();
    host.harvest(&mut agent);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
}

#[test]
fn a_life_renewed_keeps_what_is_held_and_survives_a_crash() {
    let mut host = Host::new(4, &[]);
    let mut agent = host.start().unwrap();
    flow(&mut host, &mut agent, 4);
    let held = agent.spool.level().frames;
    assert!(agent.spool.level().acked > Sequence(0));
    agent.spool.renew(Incarnation(9)).unwrap();
    let level = agent.spool.level();
    assert_eq!((level.acked, level.last), (Sequence(0), Sequence(held)));
    host.record(4);
    host.harvest(&mut agent);
    let after = agent.spool.level();
    host.disk.crash(Crash::Nothing);
    drop(agent);
    let agent = host.start().unwrap();
    assert_eq!(agent.status.recovered.renewed, None);
    assert_eq!((agent.spool.incarnation(), agent.spool.level()), (Incarnation(9), after));
}

/// Turns two bits of one of the deltas, which follow the snapshot, with others behind it.
fn damage(host: &Host, delta: usize) {
    let at = delta_at(host, delta);
    let name = Path::new(DIR).join("0000000000000001.journal");
    assert!(host.disk.flip(&name, at + 64 + 20, 1) && host.disk.flip(&name, at + 64 + 30, 1));
}

/// Where the header of a delta stands, counted from 1.
fn delta_at(host: &Host, delta: usize) -> u64 {
    let bytes = host.disk.contents(&Path::new(DIR).join("0000000000000001.journal")).unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut at = 4_096;
    for _ in 0..delta {
        at += 64 + usize::try_from(word(at + 4)).unwrap();
    }
    assert_eq!(word(at + 8), codec::DELTA);
    at as u64
}

/// An agent that harvested six times a hundred samples, of which so many deltas were merged, and
/// was killed; then records of its spool are damaged, and it starts again.
fn damaged(merged: u64, deltas: &[usize]) -> (Host, Running) {
    let mut host = Host::new(5, &[]);
    let mut agent = host.start().unwrap();
    for round in 1..=6 {
        host.record(100);
        host.harvest(&mut agent);
        if round == merged {
            host.ship(&agent).unwrap();
        }
    }
    host.disk.kill();
    drop(agent);
    deltas.iter().for_each(|delta| damage(&host, *delta));
    host.record(11);
    let mut agent = host.start().unwrap();
    host.harvest(&mut agent);
    host.ship(&agent).unwrap();
    (host, agent)
}

#[test]
fn of_a_damaged_spool_nothing_that_was_merged_is_sent_again() {
    for (merged, deltas) in [(0, &[2][..]), (2, &[3]), (2, &[4]), (3, &[4, 5])] {
        let (host, agent) = damaged(merged, deltas);
        assert!(agent.status.recovered.renewed.is_some());
        assert_eq!(host.merged, host.recorded, "{merged} merged, {deltas:?} damaged");
    }
}

#[test]
fn where_something_merged_is_missing_less_is_counted_and_never_more() {
    for (merged, deltas, less) in [(3, &[2][..], 11), (5, &[2, 4], 11), (4, &[3, 5], 111)] {
        let (mut host, mut agent) = damaged(merged, deltas);
        assert_eq!(host.recorded - host.merged, less, "{merged} merged, {deltas:?} damaged");
        // From there on everything counts, also after another start.
        for _ in 0..2 {
            host.record(30);
            host.harvest(&mut agent);
            host.ship(&agent).unwrap();
            assert_eq!(host.recorded - host.merged, less);
            host.disk.kill();
            drop(agent);
            agent = host.start().unwrap();
            assert_eq!(agent.status.recovered.renewed, None);
        }
    }
}

#[test]
fn one_wrong_bit_of_a_record_is_mended_and_the_life_goes_on() {
    let mut host = Host::new(5, &[]);
    let mut agent = host.start().unwrap();
    flow(&mut host, &mut agent, 6);
    let life = agent.spool.incarnation();
    host.disk.kill();
    drop(agent);
    let name = Path::new(DIR).join("0000000000000001.journal");
    assert!(host.disk.flip(&name, delta_at(&host, 2) + 64 + 20, 8));
    let mut agent = host.start().unwrap();
    let found = &agent.status.recovered;
    assert_eq!((found.repaired, &found.renewed), (1, &None));
    assert_eq!(agent.spool.incarnation(), life);
    flow(&mut host, &mut agent, 4);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
}

#[test]
fn a_merged_delta_that_was_torn_off_the_end_is_not_counted_again() {
    for unanswered in 0..3 {
        let mut host = Host::new(5, &[]);
        let mut agent = host.start().unwrap();
        for _ in 0..3 {
            host.record(100);
            host.harvest(&mut agent);
        }
        host.ship(&agent).unwrap();
        host.disk.kill();
        drop(agent);
        // A bit of the last batch: nobody can tell it from a write that was torn.
        let name = Path::new(DIR).join("0000000000000001.journal");
        assert!(host.disk.flip(&name, delta_at(&host, 3) + 64 + 20, 8));
        // Whoever finds it may be gone before the aggregator answers, and its successor asks again.
        for _ in 0..unanswered {
            let agent = "a1".parse().unwrap();
            let (spool, found) =
                DurableSpool::open(&host.env, Path::new(DIR), BYTES_MAX, &agent).unwrap();
            assert!(found.torn_bytes > 0 && spool.former().is_some(), "{found:?}");
            host.disk.crash(Crash::AnyPart);
        }
        let mut agent = host.start().unwrap();
        host.record(7);
        host.harvest(&mut agent);
        host.record(5);
        host.harvest(&mut agent);
        host.ship(&agent).unwrap();
        assert_eq!(host.recorded - host.merged, 7, "what was counted before it was taken over");
    }
}

#[test]
fn nothing_is_harvested_before_it_is_known_what_of_a_damaged_spool_was_merged() {
    let mut host = Host::new(5, &[]);
    let mut agent = host.start().unwrap();
    for _ in 0..4 {
        host.record(100);
        host.harvest(&mut agent);
    }
    host.disk.kill();
    drop(agent);
    damage(&host, 2);
    let (spool, found) =
        DurableSpool::open(&host.env, Path::new(DIR), BYTES_MAX, &"a1".parse().unwrap()).unwrap();
    let refused = spool.append(Vec::new(), UnixNanos(1), &Vec::new);
    assert!(matches!(refused, Err(SpoolError::Unsettled)), "{refused:?}");
    assert!(matches!(spool.begin(&Vec::new), Err(SpoolError::Unsettled)));
    assert!(found.renewed.is_some() && spool.former().is_some());
    // A start that is never answered leaves it as it was.
    host.disk.kill();
    drop(spool);
    let mut agent = host.start().unwrap();
    host.harvest(&mut agent);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
}

#[test]
fn a_damaged_record_is_taken_from_the_segment_again() {
    let mut host = Host::new(5, &[]);
    let mut agent = host.start().unwrap();
    for _ in 0..4 {
        host.record(100);
        host.harvest(&mut agent);
    }
    let life = agent.spool.incarnation();
    host.disk.kill();
    drop(agent);
    damage(&host, 1);
    let mut agent = host.start().unwrap();
    let found = agent.status.recovered.clone();
    assert!(found.renewed.is_some() && found.deltas_lost > 0, "{found:?}");
    assert_ne!(agent.spool.incarnation(), life);
    host.record(11);
    host.harvest(&mut agent);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
    // Once dealt with, it is not damage again.
    host.disk.kill();
    drop(agent);
    let again = host.start().unwrap().status.recovered.clone();
    assert_eq!(again.renewed, None, "{again:?}");
}

#[test]
fn a_backlog_is_read_back_from_the_disk_in_bounded_memory() {
    let mut host = Host::new(6, &[]);
    let mut agent = host.start().unwrap();
    for _ in 0..400 {
        host.record(3);
        host.harvest(&mut agent);
    }
    assert_eq!(agent.spool.level().frames, 400);
    host.ship(&agent).unwrap();
    assert_eq!(host.merged, host.recorded);
    host.acknowledge(&agent);
    assert_eq!(agent.spool.level().frames, 0);
}

#[test]
fn any_bytes_are_read_as_a_record_or_refused() {
    let mut host = Host::new(7, &[]);
    let mut agent = host.start().unwrap();
    host.record(200);
    host.node.requests().ok();
    host.node.gauge("depth").set(3.5);
    host.harvest(&mut agent);
    let mut reader = {
        let disk = Arc::new(host.disk.clone());
        host.disk.kill();
        let options = lens_journal::Options::new(BYTES_MAX);
        lens_journal::Journal::open(disk, Path::new(DIR), options, 1).unwrap().0.reader()
    };
    for record in reader.read(0, 1 << 20).unwrap() {
        for at in 0..record.payload.len() {
            for value in [0, 0x7f, 0x80, 0xff] {
                let mut bytes = record.payload.clone();
                bytes[at] = value;
                let mut names = codec::Names::default();
                // Refused or not: nothing panics, and nothing more is held than was there.
                drop(codec::decode_delta(&bytes, &mut names));
                drop(codec::decode_snapshot(&bytes));
                drop(codec::decode_renewal(&bytes[..at]));
            }
        }
    }
}
