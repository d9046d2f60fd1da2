//! The hour in memory, as the store has it.

use std::collections::BTreeMap;

use lens_hist::block::BlockRef;
use lens_model::limits::WINDOW_BASE_SECS;
use lens_model::{AgentName, Nanos, UnixNanos};
use redb::{ReadableDatabase, ReadableTable};

use super::merge::KnownAgent;
use super::tables::{AGENTS, LIFETIME, META, OUTCOME_TOTALS, OUTCOMES, READINGS, TOTALS, WINDOWS};
use super::{Store, StoreError};
use crate::window::{RequestCounts, Windows};

/// What memory holds of a store.
#[derive(Debug)]
pub struct Loaded {
    /// The newest hour, and the totals of all time.
    pub windows: Windows,
    /// The agents, by name.
    pub agents: BTreeMap<AgentName, KnownAgent>,
    /// Samples ever merged.
    pub samples: u64,
    /// When the store was made; 0 for one of a version that did not write it down.
    pub made: UnixNanos,
}

impl Store {
    /// Reads what memory is to hold.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn load(&self, now: UnixNanos) -> Result<Loaded, StoreError> {
        let base = Nanos::from_secs(WINDOW_BASE_SECS);
        let mut windows = Windows::new(base, self.place.config.lateness);
        windows.set_floor(UnixNanos(self.rolled_to.saturating_mul(1_000_000_000)));
        self.name(&mut windows);
        let samples = self.load_totals(&mut windows)?;
        self.load_slots(&mut windows, now)?;
        Ok(Loaded { windows, agents: self.load_agents()?, samples, made: self.made()? })
    }

    /// Makes known to the windows every series they do not know yet, so that handles are numbers.
    pub(crate) fn name(&self, windows: &mut Windows) {
        let catalog = self.catalog.read();
        let known = windows.series_len();
        for (_, (host, key)) in catalog.series.iter().skip(known) {
            let Some(host) = catalog.hosts.get(*host) else { return };
            // The bounds of the catalogue are those of the windows.
            let Ok(host) = windows.host(host) else { return };
            if windows.handle(key, &host).is_err() {
                return;
            }
        }
    }

    fn made(&self) -> Result<UnixNanos, StoreError> {
        let read = self.db.begin_read()?;
        let made = read.open_table(META)?.get("made_nanos")?;
        Ok(UnixNanos(made.map_or(0, |made| made.value())))
    }

    fn load_totals(&self, windows: &mut Windows) -> Result<u64, StoreError> {
        let read = self.db.begin_read()?;
        let lifetime = read.open_table(LIFETIME)?;
        let mut samples = 0_u64;
        for row in read.open_table(TOTALS)?.iter()? {
            let (series, row) = row?;
            let (total, last) = row.value();
            samples = samples.saturating_add(total);
            let retired = lifetime.get(series.value())?;
            let retired = retired.as_ref().map(|row| BlockRef::parse(row.value()));
            let retired = retired.transpose().map_err(|_| StoreError::Row("lifetime"))?;
            windows.restore(series.value(), total, UnixNanos(last), retired.map(|(b, _)| b));
        }
        let catalog = self.catalog.read();
        let totals = read.open_table(OUTCOME_TOTALS)?;
        for (number, (host, (slice, arm))) in catalog.requests.iter() {
            let Some(host) = catalog.hosts.get(*host) else { continue };
            let (ok, error) = totals.get(number)?.map_or((0, 0), |row| row.value());
            let total = RequestCounts { ok, error };
            windows.restore_requests(slice, *arm, host, total);
        }
        for row in read.open_table(READINGS)?.iter()? {
            let (number, row) = row?;
            let (value, at) = row.value();
            let Some((host, name)) = catalog.gauges.get(number.value()) else { continue };
            let host = catalog.hosts.get(*host).and_then(|host| windows.host(host).ok());
            // Within the same bound as when it was stored.
            host.and_then(|host| windows.set_gauge(&host, name, value, UnixNanos(at)).ok());
        }
        Ok(samples)
    }

    fn load_slots(&self, windows: &mut Windows, now: UnixNanos) -> Result<(), StoreError> {
        let read = self.db.begin_read()?;
        for row in read.open_table(WINDOWS[0])?.range((self.rolled_to, 0)..)? {
            let (key, row) = row?;
            let (secs, series) = key.value();
            windows.restore_slot(series, at(secs), row.value(), now);
        }
        let catalog = self.catalog.read();
        for row in read.open_table(OUTCOMES[0])?.range((self.rolled_to, 0)..)? {
            let (key, row) = row?;
            let ((secs, number), (ok, error)) = (key.value(), row.value());
            let Some((host, (slice, arm))) = catalog.requests.get(number) else { continue };
            let Some(host) = catalog.hosts.get(*host) else { continue };
            windows.restore_outcomes(slice, *arm, host, at(secs), RequestCounts { ok, error });
        }
        Ok(())
    }

    fn load_agents(&self) -> Result<BTreeMap<AgentName, KnownAgent>, StoreError> {
        let read = self.db.begin_read()?;
        let mut agents = BTreeMap::new();
        for row in read.open_table(AGENTS)?.iter()? {
            let (name, row) = row?;
            let name = AgentName::new(name.value()).map_err(|_| StoreError::Row("agents"))?;
            let known = serde_json::from_slice(row.value());
            agents.insert(name, known.map_err(|_| StoreError::Row("agents"))?);
        }
        Ok(agents)
    }
}

const fn at(secs: u64) -> UnixNanos {
    UnixNanos(secs.saturating_mul(1_000_000_000))
}
