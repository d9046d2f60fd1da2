//! Every bound of the system, in one place, with the reason for its value.
//!
//! A limit that a configuration may change is here as its default and, where it matters, its
//! hard maximum. The relations between limits that memory or the wire depend on are asserted at
//! compile time below.

use crate::units::Nanos;

/// Longest slice part, bytes: three parts and separators stay under 200 bytes in any label.
pub const SLICE_PART_BYTES_MAX: usize = 48;

/// Longest agent, instance, service or gauge name, bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Counters in one histogram: HdrHistogram's layout for 2 significant digits, 1 ns to 2^36−1 ns.
pub const HISTOGRAM_COUNTERS: usize = 3_840;

/// Largest latency with a bucket of its own, nanoseconds (68.7 s). Larger ones are counted apart.
pub const LATENCY_NANOS_MAX: u64 = (1 << 36) - 1;

/// Series one segment may publish. At 4 shards that is 15.8 MB of shared memory when all are used.
pub const SEGMENT_SERIES_MAX: usize = 256;

/// Exclusive recording threads of one segment; threads beyond share one locked shard.
pub const SEGMENT_SHARDS_MAX: usize = 64;

/// Request counters (slice × arm) one segment may publish.
pub const SEGMENT_REQUESTS_MAX: usize = 128;

/// Gauges one segment may publish.
pub const SEGMENT_GAUGES_MAX: usize = 64;

/// Exemplars one segment holds at once: as many slots of 64 bytes as its header page has room for.
pub const SEGMENT_EXEMPLARS_MAX: usize = 48;

/// Exemplars of one series that an agent takes from one harvest: the slowest.
pub const HARVEST_EXEMPLARS_MAX: usize = 2;

/// Exemplars an agent keeps for its connection, and one frame brings; the oldest give way.
pub const AGENT_EXEMPLARS_MAX: usize = 1_024;

/// Exemplars the aggregator holds, in all. At some 150 bytes each: 10 MB.
pub const AGGREGATOR_EXEMPLARS_MAX: usize = 65_536;

/// Bytes of steps one capture collects.
pub const CAPTURE_BYTES_MAX: usize = 64 << 20;

/// Largest file of a capture that is read back, bytes.
pub const CAPTURE_FILE_BYTES_MAX: u64 = 1 << 30;

/// Captures that are kept; the oldest gives way.
pub const CAPTURES_MAX: usize = 32;

/// Exemplars one answer holds.
pub const ANSWER_EXEMPLARS_MAX: usize = 1_000;

/// Segments one agent harvests; further ones are refused, counted and named in `/status`.
pub const AGENT_SEGMENTS_MAX: usize = 256;

/// Unacknowledged delta frames an agent has in flight on its connection.
pub const AGENT_FRAMES_IN_FLIGHT_MAX: usize = 64;

/// Bytes an agent's spool takes up on disk at most, by default; past it harvesting pauses and the
/// counts stay in the segments, so nothing is lost, only time resolution. A host of 48 busy series
/// writes some 4 KiB a second: 18 hours without an aggregator.
pub const SPOOL_BYTES_MAX: u64 = 256 << 20;

/// Largest frame body, bytes. A delta frame with [`FRAME_SERIES_MAX`] series of realistic data is
/// under 100 KiB; the worst block ([`BLOCK_BYTES_MAX`]) still fits with room for the rest.
pub const FRAME_BYTES_MAX: usize = 1 << 20;

/// Largest sparse block of one histogram, bytes: 61 pages of 64 ten-byte varints and heads.
pub const BLOCK_BYTES_MAX: usize = 61 * (64 * 10 + 3) + 64;

/// Histogram deltas in one frame; a harvest with more becomes several frames.
pub const FRAME_SERIES_MAX: usize = 4_096;

/// Series one connection may intern.
pub const CONNECTION_SERIES_MAX: usize = 65_536;

/// Instances (search node processes) one connection may intern.
pub const CONNECTION_INSTANCES_MAX: usize = 1_024;

/// Connections the aggregator keeps at once.
pub const CONNECTIONS_MAX: usize = 4_096;

/// Connections the aggregator keeps per agent identity: the old one and its replacement.
pub const CONNECTIONS_PER_AGENT_MAX: usize = 2;

/// Handshakes under way beyond which a new address must first prove itself (stateless retry).
pub const HANDSHAKES_UNVALIDATED_MAX: usize = 64;

/// Slices the aggregator takes on without being told of them; one more is refused and counted.
pub const AUTOMATIC_SLICES_MAX: usize = 1_000;

/// Series (slice × stage × arm × host) the aggregator holds. With the 72 slots of the default summary
/// window a busy one takes about 20 KB, its lifetime counts included: 1.3 GB when every one is busy.
pub const AGGREGATOR_SERIES_MAX: usize = 65_536;

/// Hosts (agent × instance) the aggregator tells apart.
pub const AGGREGATOR_HOSTS_MAX: usize = 16_384;

/// Request counters (slice × arm × host) the aggregator holds.
pub const AGGREGATOR_REQUESTS_MAX: usize = 65_536;

/// Gauges (name × host) the aggregator holds.
pub const AGGREGATOR_GAUGES_MAX: usize = 65_536;

/// Series (slice × stage × arm × host) one replay tells apart, with up to 15 open slots each.
pub const REPLAY_SERIES_MAX: usize = 65_536;

/// Agents the aggregator remembers, connected or not.
pub const AGENTS_MAX: usize = 16_384;

/// Longest summary window, seconds: every snapshot adds up all of it for every series.
pub const SUMMARY_SECS_MAX: u64 = 900;

/// Slots held in memory past the summary window: the ones still being filled or settling.
pub const WINDOW_SLOTS_BEYOND_SUMMARY: usize = 12;

/// 5 s slots held in memory per series and host at most: 16 minutes, for the longest summary window.
/// What is older is answered from the store, so memory does not grow with the past.
pub const WINDOW_SLOTS_MAX: usize = 192;

/// Slots the judge goes back over when it begins: one hour, which its widest window fits into.
pub const JUDGE_SLOTS_MAX: u64 = 720;

/// Base width of a window slot, seconds.
pub const WINDOW_BASE_SECS: u64 = 5;

/// How far into the future, by the aggregator's clock, a corrected event time may lie, seconds.
pub const EVENT_FUTURE_SECS_MAX: u64 = 10;

/// Points one quantile query may return; a smaller step is refused with the smallest that fits.
pub const QUERY_POINTS_MAX: usize = 2_000;

/// Largest HTTP request body, bytes.
pub const HTTP_BODY_BYTES_MAX: usize = 1 << 20;

/// Subscribers of the event stream; one more gets 503.
pub const EVENT_SUBSCRIBERS_MAX: usize = 256;

/// Events the aggregator remembers for a reader that fell behind.
pub const EVENT_BACKLOG_MAX: usize = 1_024;

/// Connections the aggregator keeps from one address; a fleet behind one address raises it.
pub const CONNECTIONS_PER_ADDRESS_MAX: usize = 16;

/// Client connections an agent's proxy keeps at once, and so the requests it has under way; further
/// ones wait in the kernel's queue. A connection takes up to [`PROXY_HEAD_BYTES_MAX`] each way.
pub const PROXY_CONNECTIONS_MAX: usize = 4_096;

/// Largest head of a request or an answer an agent's proxy takes, bytes.
pub const PROXY_HEAD_BYTES_MAX: usize = 32 << 10;

/// Largest request body an agent's proxy can be told to forward, bytes. Bodies are streamed: this
/// bounds what an upstream is sent, not memory.
pub const PROXY_BODY_BYTES_MAX: usize = 1 << 30;

/// Longest an agent's proxy can be told to wait for an upstream, milliseconds: every wait still has
/// a bucket of its own.
pub const PROXY_TIMEOUT_MILLIS_MAX: u64 = 60_000;

/// Slices an agent's proxy tells apart, one more taking the rest: each needs request counters and
/// series in both arms, and all of them stand in one segment.
pub const PROXY_SLICES_MAX: usize = 62;

/// Bytes of a failed answer an agent's proxy looks at for the mark of a client's bad query.
pub const PROXY_MARK_BYTES_MAX: usize = 4 << 10;

/// Tokens one file holds.
pub const TOKENS_MAX: usize = 1_024;

/// Largest token file read, bytes: a line is under 2 KiB.
pub const TOKEN_FILE_BYTES_MAX: u64 = 2 << 20;

/// Longest lifetime of a token, days.
pub const TOKEN_DAYS_MAX: u32 = 366;

/// Identities and serials one revocation file names.
pub const REVOKED_MAX: usize = 16_384;

/// Largest record of the audit chain, bytes, its hash included.
pub const AUDIT_RECORD_BYTES_MAX: usize = 4 << 10;

/// Audit records one question returns.
pub const AUDIT_QUESTION_MAX: usize = 1_000;

/// Largest control document, bytes: today's are at most 170, the rest is room for a later form.
pub const DOCUMENT_BYTES_MAX: usize = 512;

/// Longest time a control document may hold without a newer one.
pub const DOCUMENT_LIFE_MAX: Nanos = Nanos::from_secs(7 * 24 * 3_600);

const _: () = {
    // A full frame of worst blocks is refused by size, never by count arithmetic overflowing.
    assert!(BLOCK_BYTES_MAX < FRAME_BYTES_MAX);
    // A gap-coded series id of two bits of mode still fits a u64 varint.
    assert!(CONNECTION_SERIES_MAX < 1 << 32);
    // The longest summary window is held in memory.
    let summary = SUMMARY_SECS_MAX / WINDOW_BASE_SECS + WINDOW_SLOTS_BEYOND_SUMMARY as u64;
    assert!(summary == WINDOW_SLOTS_MAX as u64);
    // Every slice of a proxy and the rest have counters in both arms, beside those of the whole.
    assert!(2 * (PROXY_SLICES_MAX + 1) < SEGMENT_REQUESTS_MAX);
    assert!(2 * (PROXY_SLICES_MAX + 1) <= SEGMENT_SERIES_MAX);
    assert!(PROXY_TIMEOUT_MILLIS_MAX * 1_000_000 < LATENCY_NANOS_MAX);
    // One hour of slots at the base width.
    assert!(JUDGE_SLOTS_MAX * WINDOW_BASE_SECS == 3_600);
    // Numbers, a trust domain and a version fit a control document.
    assert!(40 + 2 * (1 + NAME_BYTES_MAX) <= DOCUMENT_BYTES_MAX);
    // The last counter is that of the largest latency.
    assert!(HISTOGRAM_COUNTERS == 30 * 128);
};
