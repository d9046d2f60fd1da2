//! What the tests share: a generator with a seed, realistic counts, example frames.
#![allow(dead_code, unreachable_pub)]

use lens_hist::Sparse;
use lens_model::{AgentName, Arm, Incarnation, InstanceName, Nanos, SeriesKey, Slice, Stage};
use lens_model::{Sequence, Trace, UnixNanos};
use lens_wire::{
    Applied, ClockOffset, DeltaEncoder, DeltaHead, Dict, Flags, Gauge, GaugeId, Hello, Instance,
    InstanceId, Label, Phase, Requests, RequestsId, Run, Series, SeriesId, Trouble,
};
use lens_wire::{Capture, Captured, CapturedSlot, Exemplar, Exemplars};

pub const LIFE: Incarnation = Incarnation(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
pub const OPEN: Phase = Phase::Open(LIFE);

/// SplitMix64: the same numbers from the same seed, for ever.
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Uniform in (0, 1).
    pub fn unit(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    pub fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Latencies of one series: lognormal, median log-uniform 0.1 to 100 ms, sigma 0.4 to 1.0.
    pub fn latencies(&mut self, samples: usize) -> Sparse {
        let median = 1e5 * 1_000_f64.powf(self.unit());
        let sigma = 0.4 + 0.6 * self.unit();
        (0..samples).map(|_| (median * (sigma * self.normal()).exp()) as u64).collect()
    }
}

pub fn label(text: &str) -> Label {
    Label::new(text).unwrap()
}

pub fn head() -> DeltaHead {
    DeltaHead {
        sequence: Sequence(41),
        start: UnixNanos(1_763_755_200_000_000_000),
        duration: Nanos::from_secs(1),
        clock: ClockOffset { offset_nanos: -1_500, error_nanos: 90_000 },
    }
}

pub fn hello() -> Hello {
    let mut hello = Hello::new(AgentName::new("node-7").unwrap(), LIFE, label("0.1.0"));
    hello.resume = Sequence(42);
    hello.labels.set(label("zone"), label("eu-1")).unwrap();
    hello
}

pub fn instance(name: &str) -> Instance {
    Instance {
        name: InstanceName::new(name).unwrap(),
        service: label("lens"),
        version: label("1.4.2"),
        zone: label(""),
    }
}

pub fn slice(language: &str) -> Slice {
    Slice::new("backend", language, "large").unwrap()
}

pub fn key(language: &str, stage: Stage) -> SeriesKey {
    SeriesKey { slice: slice(language), stage, arm: Arm::Canary }
}

pub fn dict() -> Dict {
    let instance_id = InstanceId(0);
    let series = |stage| Series { instance: instance_id, key: key("rust", stage) };
    Dict {
        instances: Run { first: 0, entries: vec![instance("node-7")] },
        series: Run { first: 0, entries: vec![series(Stage::A), series(Stage::E2e)] },
        requests: Run {
            first: 0,
            entries: vec![Requests {
                instance: instance_id,
                slice: slice("rust"),
                arm: Arm::Canary,
            }],
        },
        gauges: Run {
            first: 0,
            entries: vec![Gauge { instance: instance_id, name: label("queue") }],
        },
    }
}

/// A delta frame with a block of either shape, a request delta and a gauge.
pub fn delta() -> Vec<u8> {
    let mut encoder = DeltaEncoder::default();
    encoder
        .histogram(SeriesId(0), &[1_000_000, 1_200_000, 5_000_000].into_iter().collect())
        .unwrap();
    let many = (0..400_u64).map(|i| 1_000_000 + 8_192 * (i % 7)).collect();
    encoder.histogram(SeriesId(1), &many).unwrap();
    encoder.requests(RequestsId(0), 400, 3).unwrap();
    encoder.gauge(GaugeId(0), 0.5).unwrap();
    let mut out = Vec::new();
    encoder.finish(&head(), LIFE, &mut out);
    out
}

pub fn flags() -> Flags {
    Flags { key: [3; 32], signature: [5; 64], document: b"a document".to_vec() }
}

pub fn applied() -> Applied {
    Applied { generation: 7, pages: 2, failed: 1, trouble: Trouble::Key }
}

pub fn capture() -> Capture {
    let slice = Some(Slice::new("backend", "rust", "large").unwrap());
    let (from, to) = (UnixNanos(1_000), UnixNanos(2_000));
    Capture { id: 7, from, to, slice, stage: Some(Stage::C), arm: None }
}

pub fn captured() -> Captured {
    let mut block = Vec::new();
    lens_hist::block::encode(&[5, 5, 700].into_iter().collect::<Sparse>(), &mut block);
    let (start, duration) = (UnixNanos(1_000), Nanos(100));
    let entry = CapturedSlot { series: SeriesId(1), start, duration, block: block.into() };
    let entries = vec![entry.clone(), CapturedSlot { series: SeriesId(0), ..entry }];
    let held_from = UnixNanos(500);
    Captured { id: 7, offset_nanos: -2, held_from, left_out: 3, last: true, entries }
}

pub fn exemplars() -> Exemplars {
    let trace = Trace::new([0xab; 16], [0xcd; 8]).unwrap();
    let entry = Exemplar { series: SeriesId(1), at: UnixNanos(1_000), nanos: 300, trace };
    Exemplars { offset_nanos: -2, entries: vec![entry, Exemplar { series: SeriesId(0), ..entry }] }
}

/// A frame with any type, flags and body, and the checksum of `life`; 0 is that of a handshake.
pub fn raw(code: u8, flags: u8, body: &[u8], life: Incarnation) -> Vec<u8> {
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend([code, flags]);
    frame.extend_from_slice(body);
    let sum = crc32c::crc32c_append(life.0 as u32, &frame);
    frame.extend(sum.to_le_bytes());
    frame
}

/// No life: what handshake frames are summed with.
pub const NONE: Incarnation = Incarnation(0);
