//! The recorder for C and whatever calls C.
//!
//! Why a crate of its own: it is the one other place that needs unsafe code, for pointers that C
//! hands in. Each function says what it asks of them.
//! Promise: creating and registering answer null and write why into the caller's buffer; recording
//! never fails, and with a null handle does nothing, so a program runs on where it could not register.
//! Nothing unwinds into C. The header is generated from this file and kept in
//! `agent/clients/c/lens_recorder.h`; a test holds the two together.
//! Units: nanoseconds.

use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::slice;

use lens_model::{Arm, Slice, Stage, Trace};
use lens_segment::{Flag, Gauge, Node, Recorder, RecorderOptions, Requests, Series};
use rustix::time::{ClockId, clock_gettime};

/// Which part of a query a latency belongs to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LensStage {
    /// Lexical.
    LensStageA = 0,
    /// Symbols.
    LensStageB = 1,
    /// Semantic rerank.
    LensStageC = 2,
    /// The whole query.
    LensStageE2e = 3,
}

/// Which version answers.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LensArm {
    /// The version that was there before.
    LensArmBaseline = 0,
    /// The version on trial.
    LensArmCanary = 1,
}

/// A segment that this process records into.
pub struct LensRecorder(Recorder);

/// One histogram: a slice, a stage and an arm.
pub struct LensSeries(Series);

/// Counts answered and failed requests of a slice and an arm.
pub struct LensRequests(Requests);

/// A quality signal.
pub struct LensGauge(Gauge);

/// Writes `text` and a final zero into the caller's buffer, cut to what fits.
///
/// # Safety
/// `error` is null or points to `error_bytes` writable bytes.
unsafe fn say(error: *mut c_char, error_bytes: usize, text: &str) {
    if error.is_null() || error_bytes == 0 {
        return;
    }
    let mut end = text.len().min(error_bytes - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // SAFETY: the caller vouches for `error_bytes` bytes, of which `end + 1` at most are written;
    // `text` is Rust's own and cannot overlap what C hands in.
    unsafe {
        error.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), end);
        *error.add(end) = 0;
    }
}

/// The text of a C string.
///
/// # Safety
/// `text` is null or points to a string that ends in a zero and lives through `'a`.
unsafe fn text<'a>(name: &str, text: *const c_char) -> Result<&'a str, String> {
    if text.is_null() {
        return Err(format!("{name} is null"));
    }
    // SAFETY: not null, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| format!("{name} is not UTF-8"))
}

/// A handle for C, or null with the reason in the buffer.
///
/// # Safety
/// As [`say`].
unsafe fn handle<T>(made: Result<T, String>, error: *mut c_char, error_bytes: usize) -> *mut T {
    match made {
        Ok(made) => {
            // SAFETY: the caller of this function vouches for the buffer.
            unsafe { say(error, error_bytes, "") };
            Box::into_raw(Box::new(made))
        }
        Err(why) => {
            // SAFETY: as above.
            unsafe { say(error, error_bytes, &why) };
            std::ptr::null_mut()
        }
    }
}

/// Makes a segment. `directory` may be NULL: $LENS_SEGMENT_DIR, else /dev/shm/lens.
///
/// `arm` is a `LensArm`. NULL when it could not be made; then `error` (if not NULL, of `error_bytes` bytes) says why. Names
/// are 1 to 64 visible ASCII characters.
///
/// # Safety
/// Each string is NULL or ends in a zero; `error` is NULL or has room for `error_bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_recorder_create(
    directory: *const c_char,
    service: *const c_char,
    version: *const c_char,
    instance: *const c_char,
    arm: u32,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut LensRecorder {
    let make = || {
        let directory = if directory.is_null() {
            let given = std::env::var_os("LENS_SEGMENT_DIR");
            given.map_or_else(|| PathBuf::from("/dev/shm/lens"), PathBuf::from)
        } else {
            // SAFETY: the caller vouches for the string.
            PathBuf::from(unsafe { text("directory", directory) }?)
        };
        // SAFETY: the caller vouches for the strings.
        let (service, version, instance) = unsafe {
            (text("service", service)?, text("version", version)?, text("instance", instance)?)
        };
        let options = RecorderOptions { arm: arm_of(arm)?, ..RecorderOptions::default() };
        let node = Node { service, version, instance };
        let made = Recorder::create_with(directory, node, options);
        made.map(LensRecorder).map_err(|error| error.to_string())
    };
    // SAFETY: the caller vouches for the buffer.
    unsafe { handle(make(), error, error_bytes) }
}

/// C may hand in any number where it means an enumeration.
fn arm_of(code: u32) -> Result<Arm, String> {
    let arm = u8::try_from(code).ok().and_then(Arm::from_code);
    arm.ok_or_else(|| format!("arm {code} is unknown: use LensArmBaseline or LensArmCanary"))
}

fn stage_of(code: u32) -> Result<Stage, String> {
    let stage = u8::try_from(code).ok().and_then(Stage::from_code);
    stage.ok_or_else(|| format!("stage {code} is unknown: use LensStageA, B, C or E2e"))
}

/// Lets a recorder go. The segment lives until the last series, counter and gauge of it is freed, too.
///
/// # Safety
/// `recorder` is NULL or came from [`lens_recorder_create`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_recorder_free(recorder: *mut LensRecorder) {
    if !recorder.is_null() {
        // SAFETY: it came from `Box::into_raw` and is freed once, says the caller.
        drop(unsafe { Box::from_raw(recorder) });
    }
}

/// The histogram of a slice, stage and arm, registered where it is new; NULL and the reason otherwise.
///
/// `stage` is a `LensStage`, `arm` a `LensArm`; parts of a slice are 1 to 48 of `a-z 0-9 . _ + # -`.
///
/// # Safety
/// `recorder` is NULL or a live recorder; strings and `error` as for [`lens_recorder_create`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_series_register(
    recorder: *const LensRecorder,
    repo_type: *const c_char,
    language: *const c_char,
    size: *const c_char,
    stage: u32,
    arm: u32,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut LensSeries {
    let make = || {
        // SAFETY: the caller vouches for recorder and strings.
        let (recorder, slice) = unsafe {
            (recorder.as_ref().ok_or("recorder is null")?, slice_of(repo_type, language, size)?)
        };
        let series = recorder.0.series_in_arm(slice, stage_of(stage)?, arm_of(arm)?);
        series.map(LensSeries).map_err(|error| error.to_string())
    };
    // SAFETY: the caller vouches for the buffer.
    unsafe { handle(make(), error, error_bytes) }
}

/// # Safety
/// Each string is null or ends in a zero.
unsafe fn slice_of(
    repo_type: *const c_char,
    language: *const c_char,
    size: *const c_char,
) -> Result<Slice, String> {
    // SAFETY: the caller vouches for the strings.
    let (repo_type, language, size) = unsafe {
        (text("repo_type", repo_type)?, text("language", language)?, text("size", size)?)
    };
    Slice::new(repo_type, language, size).map_err(|error| error.to_string())
}

/// Counts one latency, nanoseconds. From any thread; with NULL it does nothing.
///
/// # Safety
/// `series` is NULL or a live series.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_record(series: *const LensSeries, nanos: u64) {
    // SAFETY: null or live, says the caller.
    if let Some(series) = unsafe { series.as_ref() } {
        series.0.record(nanos);
    }
}

/// Counts one latency, nanoseconds, of a request that can be looked up by its trace. The slowest of
/// each second are kept for the agent.
///
/// `trace_id` is 16 bytes, `span_id` 8, as W3C trace context has them; `span_id` may be NULL. Without
/// a trace, NULL or all zeroes, it does what `lens_record` does.
///
/// # Safety
/// `series` is NULL or a live series; `trace_id` is NULL or 16 readable bytes, `span_id` NULL or 8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_record_traced(
    series: *const LensSeries,
    nanos: u64,
    trace_id: *const u8,
    span_id: *const u8,
) {
    // SAFETY: null or live, says the caller.
    let Some(series) = (unsafe { series.as_ref() }) else { return };
    // SAFETY: null or 16 readable bytes, says the caller; bytes need no alignment.
    let id = unsafe { trace_id.cast::<[u8; 16]>().as_ref() };
    // SAFETY: null or 8 readable bytes, says the caller; bytes need no alignment.
    let span = unsafe { span_id.cast::<[u8; 8]>().as_ref() };
    match id.and_then(|id| Trace::new(*id, span.copied().unwrap_or_default())) {
        Some(trace) => series.0.record_traced(nanos, &trace),
        None => series.0.record(nanos),
    }
}

/// The monotonic clock, nanoseconds; for the beginning and the end of a stage.
#[unsafe(no_mangle)]
pub extern "C" fn lens_monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock counts from the boot on: neither part is negative.
    let (seconds, nanos) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or(0))
}

/// Counts the time since `begin` (of [`lens_monotonic_nanos`]) and gives the time now, which begins
/// the next stage: one look at the clock a boundary.
///
/// # Safety
/// `series` is NULL or a live series.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_lap(series: *const LensSeries, begin: u64) -> u64 {
    let now = lens_monotonic_nanos();
    // SAFETY: as the caller vouches.
    unsafe { lens_record(series, now.saturating_sub(begin)) };
    now
}

/// Lets a series go.
///
/// # Safety
/// `series` is NULL or came from [`lens_series_register`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_series_free(series: *mut LensSeries) {
    if !series.is_null() {
        // SAFETY: it came from `Box::into_raw` and is freed once, says the caller.
        drop(unsafe { Box::from_raw(series) });
    }
}

/// The request counters of a slice and an arm, registered where they are new; NULL and the reason
/// otherwise.
///
/// # Safety
/// As [`lens_series_register`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_requests_register(
    recorder: *const LensRecorder,
    repo_type: *const c_char,
    language: *const c_char,
    size: *const c_char,
    arm: u32,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut LensRequests {
    let make = || {
        // SAFETY: the caller vouches for recorder and strings.
        let (recorder, slice) = unsafe {
            (recorder.as_ref().ok_or("recorder is null")?, slice_of(repo_type, language, size)?)
        };
        let requests = recorder.0.requests_for(slice, arm_of(arm)?);
        requests.map(LensRequests).map_err(|error| error.to_string())
    };
    // SAFETY: the caller vouches for the buffer.
    unsafe { handle(make(), error, error_bytes) }
}

/// Counts one answered request.
///
/// # Safety
/// `requests` is NULL or a live counter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_requests_ok(requests: *const LensRequests) {
    // SAFETY: null or live, says the caller.
    if let Some(requests) = unsafe { requests.as_ref() } {
        requests.0.ok();
    }
}

/// Counts one failed request: one the service is to blame for.
///
/// # Safety
/// `requests` is NULL or a live counter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_requests_error(requests: *const LensRequests) {
    // SAFETY: null or live, says the caller.
    if let Some(requests) = unsafe { requests.as_ref() } {
        requests.0.error();
    }
}

/// Lets request counters go.
///
/// # Safety
/// `requests` is NULL or came from [`lens_requests_register`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_requests_free(requests: *mut LensRequests) {
    if !requests.is_null() {
        // SAFETY: it came from `Box::into_raw` and is freed once, says the caller.
        drop(unsafe { Box::from_raw(requests) });
    }
}

/// The quality signal called `name` (`a-z 0-9 _`, a letter first), registered where it is new; NULL
/// and the reason otherwise.
///
/// # Safety
/// As [`lens_series_register`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_gauge_register(
    recorder: *const LensRecorder,
    name: *const c_char,
    error: *mut c_char,
    error_bytes: usize,
) -> *mut LensGauge {
    let make = || {
        // SAFETY: the caller vouches for recorder and string.
        let (recorder, name) =
            unsafe { (recorder.as_ref().ok_or("recorder is null")?, text("name", name)?) };
        recorder.0.try_gauge(name).map(LensGauge).map_err(|error| error.to_string())
    };
    // SAFETY: the caller vouches for the buffer.
    unsafe { handle(make(), error, error_bytes) }
}

/// Sets a quality signal; what is no finite number is ignored.
///
/// # Safety
/// `gauge` is NULL or a live gauge.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_gauge_set(gauge: *const LensGauge, value: f64) {
    // SAFETY: null or live, says the caller.
    if let Some(gauge) = unsafe { gauge.as_ref() } {
        gauge.0.set(value);
    }
}

/// Lets a gauge go.
///
/// # Safety
/// `gauge` is NULL or came from [`lens_gauge_register`] and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_gauge_free(gauge: *mut LensGauge) {
    if !gauge.is_null() {
        // SAFETY: it came from `Box::into_raw` and is freed once, says the caller.
        drop(unsafe { Box::from_raw(gauge) });
    }
}

/// Whether a flag, by its path such as `stageB.lruCaching`, is on. False for a path there is not, for
/// NULL, and while the kill switch is engaged.
///
/// # Safety
/// `recorder` is NULL or live; `path` is NULL or ends in a zero.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_flag_enabled(
    recorder: *const LensRecorder,
    path: *const c_char,
) -> bool {
    // SAFETY: the caller vouches for both.
    let (recorder, path) = unsafe { (recorder.as_ref(), text("path", path)) };
    let (Some(recorder), Ok(path)) = (recorder, path) else { return false };
    let flag = Flag::ALL.into_iter().find(|flag| flag.path() == path);
    flag.is_some_and(|flag| recorder.0.flags().enabled(flag))
}

/// Whether the kill switch is engaged; false for NULL.
///
/// # Safety
/// `recorder` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_killed(recorder: *const LensRecorder) -> bool {
    // SAFETY: null or live, says the caller.
    unsafe { recorder.as_ref() }.is_some_and(|recorder| recorder.0.flags().killed())
}

/// The generation of the control plane's last word; 0 before the first, and for NULL.
///
/// # Safety
/// `recorder` is NULL or live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_flags_generation(recorder: *const LensRecorder) -> u64 {
    // SAFETY: null or live, says the caller.
    unsafe { recorder.as_ref() }.map_or(0, |recorder| recorder.0.flags().generation())
}

/// The arm of the user or session whose id is `id_bytes` bytes at `id`; baseline for NULL.
///
/// # Safety
/// `recorder` is NULL or live; `id` is NULL or has `id_bytes` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn lens_canary_arm(
    recorder: *const LensRecorder,
    id: *const u8,
    id_bytes: usize,
) -> LensArm {
    // SAFETY: null or live, says the caller.
    let Some(recorder) = (unsafe { recorder.as_ref() }) else { return LensArm::LensArmBaseline };
    let id = if id.is_null() || id_bytes == 0 {
        &[]
    } else {
        // SAFETY: not null, and the caller vouches for the bytes.
        unsafe { slice::from_raw_parts(id, id_bytes) }
    };
    match recorder.0.canary().arm(id) {
        Arm::Canary => LensArm::LensArmCanary,
        Arm::Baseline => LensArm::LensArmBaseline,
    }
}
