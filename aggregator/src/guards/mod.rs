//! Guards: detectors, probes and switches that watch search itself, beside its latency.
//!
//! [`cusum`], [`probe`] and [`switch`] are pure; [`Guards`] holds what they know under one lock that is
//! never held across an await or another lock; [`run`] gives them time, and [`edge`] is the one socket.
//! [`show`] says how they stand: to the API, to alerting, to the rollout.
//! Promise: nothing guards unless it is configured, and what has no data neither passes nor alarms.
//! Kept in `guards.dir`: sums and engaged switches, one small file replaced whole, after every
//! reading. What cannot be read begins anew, with a warning: a kill that was made is kept elsewhere.

pub mod config;
pub mod cusum;
mod edge;
pub mod probe;
mod run;
mod show;
pub mod switch;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;

use lens_model::{Nanos, UnixNanos};
use lens_service::env::Env;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::warn;

use crate::audit::log::{read_whole, replace_whole};
use crate::window::Windows;
pub use config::Config;
use cusum::{Cusum, Rule};
use probe::{Outcome, Probe, Track};
pub use run::run;
pub use show::{GuardState, Standing, conditions};
use switch::{Act, Engaged, Kind, Lasting, Reading};

/// Age from which a node's gauge says nothing of now.
const STALE: Nanos = Nanos::from_secs(60);

/// Largest file read back, bytes: more than every detector there may be.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The file's form.
const FORM: u32 = 1;

/// One detector.
#[derive(Clone, Debug, Default)]
struct Detector {
    cusum: Cusum,
    /// Since when its alarm is on.
    since: Option<UnixNanos>,
    /// The last reading, and when it was taken.
    last: Option<(f64, Nanos)>,
}

/// One switch.
#[derive(Clone, Debug, Default)]
struct Switch {
    engaged: Option<Engaged>,
    /// From when on runs count towards its recovery.
    from: Nanos,
    last: Option<Reading>,
}

#[derive(Debug, Default)]
struct Inner {
    detectors: BTreeMap<String, Detector>,
    tracks: Vec<Track>,
    switches: BTreeMap<Kind, Switch>,
    failing: Lasting,
    slow: Lasting,
    well: Lasting,
    /// When readings were last taken: by elapsed time, and by the clock nodes report in.
    sampled: Option<(Nanos, UnixNanos)>,
    /// Why what is known is not kept, while that is so.
    trouble: Option<String>,
}

/// What is kept of a detector.
#[derive(Serialize, Deserialize)]
struct KeptDetector {
    rule: Rule,
    cusum: Cusum,
    since: Option<UnixNanos>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    form: u32,
    detectors: BTreeMap<String, KeptDetector>,
    switches: BTreeMap<Kind, Engaged>,
}

/// What a switch just did.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Engaged(Kind, String),
    LetGo(Kind),
}

/// Everything that guards.
#[derive(Debug)]
pub struct Guards {
    /// As configured.
    pub config: Config,
    env: Env,
    began: Instant,
    inner: Mutex<Inner>,
}

impl Guards {
    /// Nothing guards.
    pub fn off(env: Env) -> Self {
        Self::open(env, Config::default())
    }

    /// What is configured, with what was kept of it. Blocks.
    pub fn open(env: Env, config: Config) -> Self {
        let mut inner =
            Inner { tracks: vec![Track::default(); config.probes.len()], ..Inner::default() };
        let names = config.detectors.keys().cloned();
        inner.detectors = names.map(|name| (name, Detector::default())).collect();
        inner.switches = Kind::ALL.into_iter().map(|kind| (kind, Switch::default())).collect();
        let guards = Self { config, env, began: Instant::now(), inner: Mutex::new(inner) };
        if guards.config.is_on()
            && let Some(path) = guards.path()
        {
            guards.read_back(&path);
        }
        guards
    }

    fn path(&self) -> Option<PathBuf> {
        self.config.dir.as_ref().map(|dir| dir.join("guards.json"))
    }

    fn read_back(&self, path: &std::path::Path) {
        let kept = match read_whole(&*self.env.disk, path, FILE_BYTES_MAX) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
            Err(error) => Err(error.to_string()),
        };
        match kept {
            Ok(kept) if kept.form == FORM => self.take_back(kept),
            Ok(kept) => warn!("{}: form {}, guards begin anew", path.display(), kept.form),
            Err(error) => warn!("{}: {error}: guards begin anew", path.display()),
        }
    }

    /// Sums are in deviations of their rule: those of another rule say nothing.
    fn take_back(&self, kept: Kept) {
        let mut inner = self.inner.lock();
        for (name, detector) in kept.detectors {
            if let Some(held) = inner.detectors.get_mut(&name)
                && self.config.detectors.get(&name) == Some(&detector.rule)
            {
                *held = Detector { cusum: detector.cusum, since: detector.since, last: None };
            }
        }
        for (kind, engaged) in kept.switches {
            if self.config.act(kind) != Act::Off
                && let Some(switch) = inner.switches.get_mut(&kind)
            {
                switch.engaged = Some(engaged);
            }
        }
    }

    /// Makes what is known durable. Blocks.
    fn keep(&self) {
        let Some(path) = self.path() else { return };
        let kept = {
            let inner = self.inner.lock();
            let rule = |name: &String| self.config.detectors.get(name).copied();
            let of = |(name, held): (&String, &Detector)| {
                let kept = KeptDetector { rule: rule(name)?, cusum: held.cusum, since: held.since };
                Some((name.clone(), kept))
            };
            let on = |(kind, switch): (&Kind, &Switch)| Some((*kind, switch.engaged.clone()?));
            Kept {
                form: FORM,
                detectors: inner.detectors.iter().filter_map(of).collect(),
                switches: inner.switches.iter().filter_map(on).collect(),
            }
        };
        let written = serde_json::to_vec(&kept).map_err(std::io::Error::other).and_then(|bytes| {
            self.env.disk.create_dir_all(path.parent().unwrap_or(&path))?;
            replace_whole(&*self.env.disk, &path, &bytes)
        });
        let trouble = written.err().map(|error| format!("{}: {error}", path.display()));
        let mut inner = self.inner.lock();
        if let (Some(trouble), None) = (&trouble, &inner.trouble) {
            warn!("guards are in memory alone: {trouble}");
        }
        inner.trouble = trouble;
    }

    /// Time elapsed since this aggregator began.
    fn elapsed(&self) -> Nanos {
        self.began.elapsed().into()
    }

    /// Begins the runs that are due.
    fn begin(&self, now: Nanos) -> Vec<(usize, Probe)> {
        let mut inner = self.inner.lock();
        let due = |(place, track): (usize, &mut Track)| track.begin(now).then_some(place);
        let due: Vec<usize> = inner.tracks.iter_mut().enumerate().filter_map(due).collect();
        due.into_iter().map(|place| (place, self.config.probes[place].clone())).collect()
    }

    /// Notes what became of a run.
    fn ended(&self, place: usize, outcome: Outcome, now: Nanos, wall: UnixNanos) {
        let mut inner = self.inner.lock();
        let hurry = inner.probes_matter();
        if let (Some(track), Some(probe)) =
            (inner.tracks.get_mut(place), self.config.probes.get(place))
        {
            track.ended(probe, outcome, (now, wall), self.config.again, hurry);
        }
    }

    /// Takes a reading of every detector, if one is due; whether it was. A detector's reading is the
    /// mean of what nodes reported since the last one.
    #[allow(clippy::cast_precision_loss)]
    fn sample(&self, windows: &Windows, now: Nanos, wall: UnixNanos) -> bool {
        let mut inner = self.inner.lock();
        let sampled = inner.sampled;
        let pause = |(at, _): (Nanos, UnixNanos)| now.0.saturating_sub(at.0);
        if self.config.detectors.is_empty()
            || sampled.is_some_and(|last| pause(last) < self.config.sample.0)
        {
            return false;
        }
        inner.sampled = Some((now, wall));
        let since = sampled.map_or(UnixNanos(0), |(_, wall)| wall);
        let mut sums: BTreeMap<&str, (f64, u64)> = BTreeMap::new();
        for (_, name, value, at) in windows.gauges() {
            if at > since && wall.since(at) < STALE && self.config.detectors.contains_key(name) {
                let (sum, count) = sums.entry(name).or_default();
                (*sum, *count) = (*sum + value, *count + 1);
            }
        }
        for (name, (sum, count)) in sums {
            if let (Some(held), Some(rule)) =
                (inner.detectors.get_mut(name), self.config.detectors.get(name))
            {
                held.take(rule, sum / count as f64, now, wall);
            }
        }
        true
    }

    /// Steps every switch; gives what changed. `load` is how the service stands, where that is read;
    /// `killed` whether the rollout's kill switch is on.
    fn step(
        &self,
        load: Option<&run::Load>,
        killed: bool,
        now: Nanos,
        wall: UnixNanos,
    ) -> Vec<Change> {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let overload = load.map(|load| inner.overload(load, &self.config, now));
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            let act = self.config.act(kind);
            if act == Act::Off {
                continue;
            }
            let Some(mut switch) = inner.switches.remove(&kind) else { continue };
            let probes = || self.config.probes.iter().zip(&inner.tracks);
            let long = now.0.saturating_sub(switch.from.0) >= self.config.recover.0;
            let from = Nanos(now.0.saturating_sub(self.config.recover.0));
            let (reading, over) = match kind {
                Kind::ZeroResultsEmergency => {
                    (switch::zero_results(probes()), act != Act::Kill || !killed)
                }
                Kind::SearchSystemFailure => (
                    switch::search_failure(probes()),
                    long && switch::recovered(probes(), from, self.config.recover_success),
                ),
                Kind::ServiceOverload => match overload.clone() {
                    Some((reading, well)) => (reading, well),
                    None => (switch.last.clone().unwrap_or(Reading::Unknown), false),
                },
            };
            changes.extend(switch.step(kind, reading, over, now, wall));
            inner.switches.insert(kind, switch);
        }
        if inner.probes_matter() {
            let again = self.config.again;
            inner.tracks.iter_mut().for_each(|track| track.hurry(now, again));
        }
        changes
    }
}

impl Detector {
    fn take(&mut self, rule: &Rule, x: f64, now: Nanos, wall: UnixNanos) {
        if !self.cusum.take(rule, x) {
            return;
        }
        self.last = Some((x, now));
        let on = self.cusum.alarm.is_some();
        self.since = on.then(|| self.since.unwrap_or(wall));
    }
}

impl Switch {
    fn step(
        &mut self,
        kind: Kind,
        reading: Reading,
        over: bool,
        now: Nanos,
        wall: UnixNanos,
    ) -> Option<Change> {
        self.last = Some(reading.clone());
        match (&self.engaged, reading) {
            (None, Reading::Broken(reason)) => {
                (self.engaged, self.from) =
                    (Some(Engaged { since: wall, reason: reason.clone() }), now);
                Some(Change::Engaged(kind, reason))
            }
            (Some(_), Reading::Well) if over => {
                self.engaged = None;
                Some(Change::LetGo(kind))
            }
            _ => None,
        }
    }
}

impl Inner {
    /// Whether a switch that probes may release is on.
    fn probes_matter(&self) -> bool {
        let on = |(kind, switch): (&Kind, &Switch)| {
            *kind != Kind::ServiceOverload && switch.engaged.is_some()
        };
        self.switches.iter().any(on)
    }

    /// How the service stands, and whether it was well for long enough to let go.
    fn overload(&mut self, load: &run::Load, config: &Config, now: Nanos) -> (Reading, bool) {
        let limits = &config.overload;
        let failing = self.failing.take(load.failing.is_some(), now, limits.error_for);
        let slow = self.slow.take(load.slow.is_some(), now, limits.p99_for);
        let well = self.well.take(load.well, now, config.recover);
        let broken = load.failing.as_ref().filter(|_| failing);
        let reading = match broken.or_else(|| load.slow.as_ref().filter(|_| slow)) {
            Some(why) => Reading::Broken(why.clone()),
            None if load.well => Reading::Well,
            None => Reading::Unknown,
        };
        (reading, well)
    }
}
