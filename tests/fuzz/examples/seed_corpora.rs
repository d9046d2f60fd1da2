//! Writes the first inputs of every corpus: one good input of each kind, for the fuzzer to change.
//!
//! `cargo run -p lens-fuzz --example seed_corpora`; a file that is there already stays.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;

use lens_flags::{Assignment, Document, Scope, Share, SignedDocument, SigningKey};
use lens_hist::{Sparse, block};
use lens_model::{
    AgentName, Arm, Incarnation, InstanceName, Nanos, Sequence, SeriesKey, Slice, Stage, UnixNanos,
};
use lens_wire::{
    Ack, AgentDictionary, Applied, Bye, ClockOffset, DeltaEncoder, DeltaHead, Flags, Hello,
    Instance, Label, Ping, Trouble, Welcome,
};

const LIFE: Incarnation = Incarnation(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);

fn main() {
    frames();
    blocks();
    certificates();
    documents();
    put("config", "agent", b"\0[harvest]\ninterval_ms = 500\n[node]\nlabels = { rack = \"r7\" }\n");
    put("config", "aggregator", b"\x01[slo]\ntail_ratio = 2.5\n[slices]\nknown = [\"a/b/c\"]\n");
    put("config", "unknown", b"\0[harvst]\ninterval = -1\n");
    put("journal", "untouched", &[0, 0, 0]);
    put("journal", "torn", &[1, 60, 0, 0, 0, 0, 0]);
    put("journal", "headless", &[0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    // Place in three bytes, then the byte: magic, state, a table's length, a counter.
    put("segment", "magic", &[0, 0, 0, 0xFF, 0, 2, 0, 9]);
    put("segment", "state", &[0, 2, 0, 1, 0, 2, 0, 9]);
    put("segment", "length", &[8, 2, 0, 1, 4, 2, 0, 0xFF]);
    put("segment", "counter", &[0, 0xB0, 0, 1, 0x14, 0xB0, 0, 0]);
}

fn put(target: &str, name: &str, bytes: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    if !path.exists() {
        std::fs::write(&path, bytes).unwrap();
        println!("{target}/{name}: {} bytes", bytes.len());
    }
}

/// The body of a frame: what is between its six bytes of head and four of checksum.
fn body(frame: &[u8]) -> &[u8] {
    &frame[6..frame.len() - 4]
}

fn frames() {
    let label = |text| Label::new(text).unwrap();
    let mut hello = Hello::new(AgentName::new("node-7").unwrap(), LIFE, label("0.1.0"));
    hello.labels.set(label("zone"), label("eu-1")).unwrap();
    let mut first = Vec::new();
    hello.encode(&mut first);
    put("hello", "labels", body(&first));
    let mut welcome = Vec::new();
    Welcome::new(&hello, Sequence(3), UnixNanos(4)).encode(&mut welcome);
    Ack { acked: Sequence(1), received: Sequence(2) }.encode(LIFE, &mut welcome);
    put("frame", "answers", &[&[90], &welcome[..]].concat());

    let mut names = AgentDictionary::new();
    let instance = Instance {
        name: InstanceName::new("node-7").unwrap(),
        service: label("lens"),
        version: label("1.4.2"),
        zone: label(""),
    };
    let instance = names.instance(&instance).unwrap();
    let slice = Slice::new("backend", "rust", "large").unwrap();
    let key = SeriesKey { slice: slice.clone(), stage: Stage::A, arm: Arm::Canary };
    let series = names.series(instance, &key).unwrap();
    let requests = names.requests(instance, &slice, Arm::Canary).unwrap();
    let gauge = names.gauge(instance, &label("queue")).unwrap();
    let mut encoder = DeltaEncoder::default();
    encoder.histogram(series, &few()).unwrap();
    encoder.requests(requests, 400, 3).unwrap();
    encoder.gauge(gauge, 0.5).unwrap();
    let clock = ClockOffset { offset_nanos: -1_500, error_nanos: 90_000 };
    let start = UnixNanos(1_763_755_200_000_000_000);
    let head = DeltaHead { sequence: Sequence(41), start, duration: Nanos::from_secs(1), clock };
    let mut delta = Vec::new();
    encoder.finish(&head, LIFE, &mut delta);
    put("delta", "one_of_each", body(&delta));

    let mut stream = vec![128];
    stream.extend_from_slice(&first);
    while let Some(dict) = names.next_dict(1 << 20) {
        dict.encode(LIFE, &mut stream).unwrap();
    }
    stream.extend_from_slice(&delta);
    Ping { nonce: 1, t1: UnixNanos(2) }.encode(LIFE, &mut stream);
    Bye.encode(LIFE, &mut stream);
    put("frame", "conversation", &stream);
}

fn documents() {
    let document = Document {
        generation: 7,
        issued_at: UnixNanos(1_000),
        expires_at: UnixNanos(2_000),
        scope: Scope::Fleet,
        assignment: Assignment { salt: 9, share: Share::ALL, progressive: true, killed: true },
        version: "2.0.0".into(),
        bits: 1 << 5,
        emergency: true,
    };
    let mut bytes = Vec::new();
    document.encode(&mut bytes);
    put("document", "killed", &bytes);
    let signed = SignedDocument::sign(&document, &SigningKey::from_bytes(&[7; 32]));
    let (key, signature, document) = (signed.key, signed.signature, signed.bytes);
    let mut stream = vec![90];
    Flags { key, signature, document }.encode(LIFE, &mut stream);
    Applied { generation: 7, pages: 2, failed: 1, trouble: Trouble::Key }.encode(LIFE, &mut stream);
    put("frame", "flags", &stream);
}

fn few() -> Sparse {
    [1_000_000, 1_200_000, 5_000_000].into_iter().collect()
}

fn blocks() {
    let many: Sparse = (0..4_000_u64).map(|i| 1_000_000 + 8_192 * (i % 97)).collect();
    let shapes = [("few", few()), ("many", many), ("one", [u64::MAX].into_iter().collect())];
    for (name, counts) in shapes {
        let mut bytes = Vec::new();
        block::encode(&counts, &mut bytes);
        put("block", name, &bytes);
    }
}

fn certificates() {
    let dir = tempfile::tempdir().unwrap();
    let id = "spiffe://lens.test/agent/node-7".parse().unwrap();
    lens_service::certs::init(dir.path(), 2).unwrap();
    let subject = lens_service::certs::Subject::Agent(id);
    let files = lens_service::certs::issue(dir.path(), "a", &subject, 2, false).unwrap();
    for (name, path) in [("agent", &files.cert), ("authority", &files.ca)] {
        use rustls_pki_types::CertificateDer;
        use rustls_pki_types::pem::PemObject;
        let der = CertificateDer::from_pem_file(path).unwrap();
        put("certificate", name, &der);
    }
}
