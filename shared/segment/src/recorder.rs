//! The recorder: a node process's own segment, and the handles that record into it.
//!
//! Why handles: registration (names, locks, allocation, errors) happens once; what is left for
//! the hot path is a thread-local load, a compare, an index and one store.
//! Promise: recording never blocks, fails or makes a system call. What cannot be registered is
//! refused by type here, never dropped there.
//! Bounds: SEGMENT_SERIES_MAX series, SEGMENT_REQUESTS_MAX request counters, SEGMENT_GAUGES_MAX
//! gauges; memory of a series: shards × 15,424 B, taken when it is registered.

use std::borrow::Borrow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lens_model::limits::{SEGMENT_GAUGES_MAX, SEGMENT_REQUESTS_MAX};
use lens_model::{Arm, SeriesKey, Slice, Stage};
use parking_lot::Mutex;

use crate::clock::{self, StageClock};
use crate::counters::{Gauge, Requests};
use crate::create::{self, CreateError};
use crate::entry::{encode_gauge, encode_requests, encode_series, gauge_name_is_good};
use crate::flags::{Canary, Flags, default_bits};
use crate::header::STATE_READY;
use crate::identity::{Node, Origin, RecorderOptions, header};
use crate::inner::{Inner, RegisterError, Registered, failed, lock, publish};
use crate::layout::{FLAGS_OFFSET, Geometry, at, flag_at};
use crate::protocol::{Bar, publish_length};
use crate::region::{Chunk, Region};
use crate::series::Series;
use crate::{fork, threads};

/// A node process's segment. Cheap to clone; clones share the segment.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
    requests: Requests,
}

impl Recorder {
    /// Creates a segment in `dir` with default sizes, and the directory where it is missing.
    ///
    /// `dir` should be a tmpfs (see [`Recorder::default_dir`] and [`Recorder::is_in_memory`]).
    /// Takes about 10 ms the first time, to calibrate the clock.
    ///
    /// # Errors
    /// [`CreateError`] says which name, size, file or system call it was.
    pub fn create(dir: impl AsRef<Path>, node: Node<'_>) -> Result<Self, CreateError> {
        Self::create_with(dir, node, RecorderOptions::default())
    }

    /// Creates a segment with the given sizes.
    ///
    /// # Errors
    /// [`CreateError`] says which name, size, file or system call it was.
    pub fn create_with(
        dir: impl AsRef<Path>,
        node: Node<'_>,
        options: RecorderOptions,
    ) -> Result<Self, CreateError> {
        let dir = dir.as_ref();
        let origin = Origin::system().map_err(|source| CreateError::Io {
            path: dir.to_owned(),
            doing: "take random bytes",
            source,
        })?;
        Self::create_from(dir, node, options, origin)
    }

    /// Creates a segment as the process that `origin` says: what a simulation of many needs.
    ///
    /// # Errors
    /// [`CreateError`] says which name, size, file or system call it was.
    pub fn create_from(
        dir: impl AsRef<Path>,
        node: Node<'_>,
        options: RecorderOptions,
        origin: Origin,
    ) -> Result<Self, CreateError> {
        let dir = dir.as_ref();
        let io = |doing| {
            let path = dir.to_owned();
            move |source| CreateError::Io { path, doing, source }
        };
        let header = header(node, options, origin)?;
        fork::watch().map_err(io("watch for forks"))?;
        clock::prepare();
        let building = create::build(dir, &header)?;
        let region = Region::map(&building.file, header.geometry.total_bytes())
            .map_err(io("map the segment"))?;
        // Relaxed: nobody else sees the file yet; the rename publishes it.
        region.u64(FLAGS_OFFSET + flag_at::BITS).store(default_bits(), Ordering::Relaxed);
        publish_length(region.u32(at::STATE), STATE_READY);
        let (file, path) = building.publish()?;
        let inner = Arc::new(Inner {
            region: Arc::new(region),
            geometry: header.geometry,
            registered: Mutex::new(Registered::default()),
            bars: (0..header.geometry.series_max()).map(|_| Bar::new()).collect(),
            refused: AtomicU64::new(0),
            path,
            incarnation: header.incarnation,
            arm: options.arm,
            in_memory: create::is_in_memory(&file),
            generation: threads::generation(),
            killed: AtomicBool::new(false),
            file,
        });
        threads::enrol(&inner);
        let everything = Slice::new("all", "all", "all").expect("three good names");
        let requests = register_requests(&inner, everything, options.arm).map_err(|error| {
            CreateError::Io {
                path: inner.path.clone(),
                doing: "register the request counters",
                source: std::io::Error::other(error),
            }
        })?;
        Ok(Self { inner, requests })
    }

    /// `$LENS_SEGMENT_DIR`, or `/dev/shm/lens`.
    pub fn default_dir() -> PathBuf {
        std::env::var_os("LENS_SEGMENT_DIR")
            .filter(|dir| !dir.is_empty())
            .map_or_else(|| PathBuf::from("/dev/shm/lens"), PathBuf::from)
    }

    /// The series of `slice` and `stage` in the node's own arm, registered where it is new.
    ///
    /// # Errors
    /// [`RegisterError`]: the table or the filesystem is full, or this is a forked child.
    pub fn series(&self, slice: impl Borrow<Slice>, stage: Stage) -> Result<Series, RegisterError> {
        self.series_in_arm(slice, stage, self.inner.arm)
    }

    /// The series of `slice`, `stage` and `arm`, registered where it is new.
    ///
    /// # Errors
    /// [`RegisterError`]: the table or the filesystem is full, or this is a forked child.
    pub fn series_in_arm(
        &self,
        slice: impl Borrow<Slice>,
        stage: Stage,
        arm: Arm,
    ) -> Result<Series, RegisterError> {
        let inner = &self.inner;
        let key = SeriesKey { slice: slice.borrow().clone(), stage, arm };
        let mut registered = lock(inner)?;
        let (key, place) = match registered.series.get_key_value(&key) {
            Some((key, place)) => (Arc::clone(key), *place),
            None => {
                let place = registered.catalogue.len();
                if place >= inner.geometry.series_max() {
                    let limit = inner.geometry.series_max();
                    return Err(RegisterError::Full { what: "series", limit });
                }
                create::allocate_series(&inner.file, inner.geometry, place)
                    .map_err(failed("allocate its blocks", inner.geometry.chunk_bytes()))?;
                let entry = encode_series(&key);
                publish(inner, &entry, Geometry::series_entry(place), at::SERIES_LEN, place)?;
                let key = Arc::new(key);
                registered.series.insert(Arc::clone(&key), place);
                registered.catalogue.push(Arc::clone(&key));
                (key, place)
            }
        };
        let chunk = Chunk::new(Arc::clone(&inner.region), inner.geometry, place);
        Ok(Series::new(chunk, place, key, Arc::clone(inner)))
    }

    /// The request counters of slice `all/all/all` in the node's own arm.
    pub fn requests(&self) -> &Requests {
        &self.requests
    }

    /// The request counters of `slice` in `arm`, registered where they are new.
    ///
    /// # Errors
    /// [`RegisterError`]: the table is full, or this is a forked child.
    pub fn requests_for(
        &self,
        slice: impl Borrow<Slice>,
        arm: Arm,
    ) -> Result<Requests, RegisterError> {
        register_requests(&self.inner, slice.borrow().clone(), arm)
    }

    /// The gauge called `name`, registered where it is new.
    ///
    /// One that cannot be registered is returned all the same: what is set on it counts as
    /// [`Recorder::refused`]. Keep the gauge where it is set often; each call looks the name up.
    pub fn gauge(&self, name: &str) -> Gauge {
        self.try_gauge(name).unwrap_or_else(|_| Gauge::refusing(Arc::clone(&self.inner)))
    }

    /// The gauge called `name`, registered where it is new.
    ///
    /// # Errors
    /// [`RegisterError`]: the name is not allowed, the table is full, or this is a forked child.
    pub fn try_gauge(&self, name: &str) -> Result<Gauge, RegisterError> {
        let inner = &self.inner;
        if !gauge_name_is_good(name) {
            return Err(RegisterError::Name { value: name.chars().take(80).collect() });
        }
        let mut registered = lock(inner)?;
        let place = match registered.gauges.get(name) {
            Some(place) => *place,
            None => {
                let place = registered.gauges.len();
                if place >= SEGMENT_GAUGES_MAX {
                    let limit = SEGMENT_GAUGES_MAX;
                    return Err(RegisterError::Full { what: "gauges", limit });
                }
                let offset = inner.geometry.gauge_entry(place);
                publish(inner, &encode_gauge(name), offset, at::GAUGES_LEN, place)?;
                registered.gauges.insert(name.into(), place);
                place
            }
        };
        Ok(Gauge::new(Arc::clone(inner), inner.geometry.gauge_entry(place)))
    }

    /// The flag page: what the control plane wants.
    #[inline]
    pub fn flags(&self) -> Flags<'_> {
        Flags::new(&self.inner.region)
    }

    /// Assigns requests to arms.
    #[inline]
    pub fn canary(&self) -> Canary<'_> {
        Canary::new(self.flags())
    }

    /// Ends as the kernel ends a killed process, once every handle is dropped: the lock goes, and
    /// the segment is never marked closed. For tests and simulations of such an end.
    pub fn kill(self) {
        // Relaxed: read by the last owner to drop, which synchronises with this one's drop.
        self.inner.killed.store(true, Ordering::Relaxed);
    }

    /// The segment's file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// This segment's random identity.
    pub fn incarnation(&self) -> u128 {
        self.inner.incarnation
    }

    /// Values that found no place: gauges that could not be registered, or were set to no number.
    pub fn refused(&self) -> u64 {
        self.inner.refused.load(Ordering::Relaxed)
    }

    /// Whether the segment lies on a tmpfs. On a disk, write-back may stall recording by tens of
    /// milliseconds: say so at start-up and use another directory.
    pub fn is_in_memory(&self) -> bool {
        self.inner.in_memory
    }

    /// The clock that times stages in this process.
    pub fn stage_clock(&self) -> StageClock {
        clock::chosen()
    }

    /// What each series has counted, summed over shards, modulo 2^32 per counter: for tests and
    /// self-checks. In order of registration.
    pub fn recorded_totals(&self) -> Vec<(SeriesKey, u64)> {
        let catalogue = self.inner.registered.lock().catalogue.clone();
        let totals = catalogue.iter().enumerate().map(|(place, key)| {
            let chunk = Chunk::new(Arc::clone(&self.inner.region), self.inner.geometry, place);
            let shards = 0..self.inner.geometry.shards();
            (SeriesKey::clone(key), shards.map(|shard| chunk.shard(shard).total()).sum())
        });
        totals.collect()
    }
}

fn register_requests(
    inner: &Arc<Inner>,
    slice: Slice,
    arm: Arm,
) -> Result<Requests, RegisterError> {
    let mut registered = lock(inner)?;
    let key = (slice, arm);
    let place = match registered.requests.get(&key) {
        Some(place) => *place,
        None => {
            let place = registered.requests.len();
            if place >= SEGMENT_REQUESTS_MAX {
                let limit = SEGMENT_REQUESTS_MAX;
                return Err(RegisterError::Full { what: "request counters", limit });
            }
            let entry = encode_requests(&key.0, key.1);
            let offset = inner.geometry.requests_entry(place);
            publish(inner, &entry, offset, at::REQUESTS_LEN, place)?;
            registered.requests.insert(key, place);
            place
        }
    };
    Ok(Requests::new(Arc::clone(inner), inner.geometry.requests_entry(place)))
}
