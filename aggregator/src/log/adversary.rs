//! A log in memory that may break every promise a log can break, for tests and the simulator.
//!
//! With [`Faults::NONE`] it is a plain log in memory. Otherwise it forgets records it acknowledged,
//! gives records twice, gives them out of order, and begins anew with everything gone. What it does
//! follows from its seed alone.

use parking_lot::Mutex;

use super::{Entries, LogError, Partition, PartitionLog, Position};

/// How often each promise is broken, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    /// Of appended records: acknowledged and never stored.
    pub lost: u64,
    /// Of appended records: stored twice.
    pub doubled: u64,
    /// Of reads: two neighbours change places.
    pub reordered: u64,
    /// Of appends: everything stored before is gone and positions begin at 1 again.
    pub reset: u64,
}

impl Faults {
    /// None.
    pub const NONE: Self = Self { lost: 0, doubled: 0, reordered: 0, reset: 0 };
    /// Every kind, often.
    pub const ALL: Self = Self { lost: 14, doubled: 20, reordered: 20, reset: 3 };
}

/// The log.
#[derive(Debug)]
pub struct AdversaryLog {
    faults: Faults,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: u64,
    first: u64,
    records: Vec<Vec<u8>>,
}

impl Inner {
    /// SplitMix64: whether something that happens in so many percent of cases happens now.
    fn happens(&mut self, percent: u64) -> bool {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % 100 < percent
    }
}

impl AdversaryLog {
    /// An empty log.
    pub fn new(seed: u64, faults: Faults) -> Self {
        let inner = Inner { random: seed, first: 1, records: Vec::new() };
        Self { faults, inner: Mutex::new(inner) }
    }

    /// Records held.
    pub fn held(&self) -> usize {
        self.inner.lock().records.len()
    }
}

impl PartitionLog for AdversaryLog {
    fn append(&self, _: Partition, batch: &[Vec<u8>]) -> Result<Position, LogError> {
        let mut inner = self.inner.lock();
        if inner.happens(self.faults.reset) {
            (inner.first, inner.records) = (1, Vec::new());
        }
        for record in batch {
            if inner.happens(self.faults.lost) {
                continue;
            }
            inner.records.push(record.clone());
            if inner.happens(self.faults.doubled) {
                inner.records.push(record.clone());
            }
        }
        Ok(Position(inner.first + inner.records.len() as u64).max(Position(1)))
    }

    fn read(&self, _: Partition, from: Position, max: usize) -> Result<Entries, LogError> {
        let mut inner = self.inner.lock();
        let end = inner.first + inner.records.len() as u64;
        let from = if (inner.first..=end).contains(&from.0) { from.0 } else { inner.first };
        let skip = usize::try_from(from - inner.first).unwrap_or(usize::MAX);
        let mut entries: Entries = (from..)
            .map(Position)
            .zip(inner.records.iter().skip(skip).take(max).cloned())
            .collect();
        if inner.happens(self.faults.reordered) && entries.len() > 1 {
            let last = entries.len() - 1;
            let (before, after) = entries.split_at_mut(last);
            std::mem::swap(&mut before[last - 1].1, &mut after[0].1);
        }
        Ok(entries)
    }

    fn trim(&self, _: Partition, to: Position) -> Result<(), LogError> {
        let mut inner = self.inner.lock();
        let gone = to.0.saturating_add(1).saturating_sub(inner.first);
        let gone = usize::try_from(gone).unwrap_or(usize::MAX).min(inner.records.len());
        inner.records.drain(..gone);
        inner.first += gone as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Partition = Partition(0);

    #[test]
    fn without_faults_it_gives_what_was_appended_and_not_trimmed() {
        let log = AdversaryLog::new(1, Faults::NONE);
        log.append(ONE, &[vec![1], vec![2], vec![3]]).unwrap();
        log.trim(ONE, Position(1)).unwrap();
        let read = log.read(ONE, Position(2), 10).unwrap();
        assert_eq!(read, [(Position(2), vec![2]), (Position(3), vec![3])]);
        assert_eq!(log.read(ONE, Position(4), 10).unwrap(), []);
        assert_eq!(log.read(ONE, Position(99), 1).unwrap(), [(Position(2), vec![2])]);
    }

    #[test]
    fn with_faults_it_loses_doubles_reorders_and_begins_anew() {
        let log = AdversaryLog::new(7, Faults::ALL);
        let (mut lost, mut doubled, mut moved, mut reset) = (0, 0, 0, 0);
        for n in 0..400_u16 {
            let before = log.held();
            log.append(ONE, &[n.to_le_bytes().to_vec()]).unwrap();
            match log.held() {
                after if after < before => reset += 1,
                after if after == before => lost += 1,
                after if after == before + 2 => doubled += 1,
                _ => {}
            }
            let read = log.read(ONE, Position(1), 1_000).unwrap();
            let numbers = read.iter().map(|(_, bytes)| bytes.clone());
            moved += u32::from(!numbers.is_sorted_by_key(|b| u16::from_le_bytes([b[0], b[1]])));
        }
        assert!(
            lost > 10 && doubled > 10 && moved > 10 && reset > 2,
            "{lost} {doubled} {moved} {reset}"
        );
    }
}
