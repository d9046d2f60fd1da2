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
    durable();
    inputs();
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

/// Records of the log, of the spool and of the audit chain.
fn durable() {
    use lens_aggregator::audit::head::Head;
    use lens_aggregator::audit::record::{Decision, Entry, Link};
    use lens_aggregator::log::Record;
    use lens_aggregator::log::record::{Body, Gauge, Histogram, Requests};
    let label = |text| Label::new(text).unwrap();
    let mut block = Vec::new();
    block::encode(&few(), &mut block);
    let (stage, arm) = (Stage::A, Arm::Baseline);
    let instance = Instance {
        name: InstanceName::new("node-7").unwrap(),
        service: label("lens"),
        version: label("1"),
        zone: label(""),
    };
    let body = Body {
        start: UnixNanos(1_763_755_200_000_000_000),
        duration: Nanos::from_secs(1),
        clock: ClockOffset { offset_nanos: -1_500, error_nanos: 90_000 },
        instances: vec![instance],
        slices: vec![Slice::new("backend", "rust", "large").unwrap()],
        histograms: vec![Histogram { instance: 0, slice: 0, stage, arm, block: block.into() }],
        requests: vec![Requests { instance: 0, slice: 0, arm, ok: 400, error: 3 }],
        gauges: vec![Gauge { instance: 0, name: label("queue"), value: 0.5 }],
    };
    let record = Record {
        identity: "spiffe://lens.test/agent/node-7".parse().unwrap(),
        incarnation: LIFE,
        sequence: Sequence(41),
        received: UnixNanos(1_763_755_201_000_000_000),
        body: Some(body),
    };
    put("log", "one_of_each", &record.encode());
    put("log", "goodbye", &Record { body: None, ..record }.encode());
    spool();
    let key = SigningKey::from_bytes(&[7; 32]);
    let (mut link, mut chain) = (Link::default(), Vec::new());
    for verb in ["alert_acknowledge", "agent_revoke"] {
        let entry = Entry {
            principal: "alice".into(),
            credential: "token:8f0c5a2e91d34b77".into(),
            role: "operator".into(),
            verb: verb.into(),
            target: "agent-7".into(),
            arguments: b"{\"for_s\":60}".to_vec(),
            decision: Decision::Allowed,
        };
        let (line, next) = link.next(&entry, 0, UnixNanos(1_763_755_200_000_000_000));
        chain.extend_from_slice(&line);
        link = next;
    }
    let head = Head::sign(&link, UnixNanos(1_763_755_201_000_000_000), &key).text();
    put("audit", "two", &[&chain, &b"\n"[..], head.as_bytes()].concat());
}

/// What a harvest leaves in a spool, read back from its journal.
fn spool() {
    use lens_agent::harvest::Harvester;
    use lens_agent::spool::{DurableSpool, Outbox};
    use lens_agent::status::Status;
    use lens_journal::testing::FaultyDisk;
    use lens_segment::{Node, Recorder};
    use std::sync::Arc;
    let disk = FaultyDisk::new(1);
    let env =
        lens_service::env::Env { disk: Arc::new(disk.clone()), ..lens_service::env::Env::system() };
    let dir = Path::new("/spool");
    let agent = AgentName::new("node-7").unwrap();
    let segments = tempfile::tempdir().unwrap();
    let node = Node { service: "lens", version: "1", instance: "node-7" };
    let node = Recorder::create(segments.path(), node).unwrap();
    let (spool, found) = DurableSpool::open(&env, dir, 1 << 20, &agent).unwrap();
    let (spool, status) = (Arc::new(spool), Arc::new(Status::new(env.now(), "a".into(), found)));
    let (path, held) = (segments.path().to_owned(), Arc::clone(&spool));
    let mut harvester = Harvester::new(env.clone(), path, "", status, held, Arc::default());
    for latency in [1_000_000, 2_000_000] {
        let slice = Slice::new("backend", "rust", "large").unwrap();
        node.series(slice, Stage::A).unwrap().record(latency);
        node.requests().ok();
        node.gauge("queue").set(0.5);
        harvester.scan();
        harvester.harvest(env.now(), ClockOffset::UNMEASURED);
    }
    spool.renew(LIFE).unwrap();
    drop((harvester, spool));
    let options = lens_journal::Options::new(1 << 20);
    let (journal, _) = lens_journal::Journal::open(Arc::new(disk), dir, options, 1).unwrap();
    for record in journal.reader().read(0, 1 << 20).unwrap() {
        let kind = u8::try_from(record.kind).unwrap();
        put(
            "spool",
            &format!("record-{}", record.position),
            &[&[kind], &record.payload[..]].concat(),
        );
    }
}

fn inputs() {
    put(
        "alerts",
        "log",
        b"[alerts]\nclear_s = 60\n[[alerts.sink]]\nname = \"l\"\nkind = \"log\"\n",
    );
    put("doors", "nobody", b"\0lens_abc_def\0GET\0/api/v1/tail");
    let csv = "t_ms,slice,stage,arm,host,latency_ms,ok\n0,a/b/c,stage_a,baseline,h,1.5,true\n";
    put("replay", "csv", csv.as_bytes());
    let line = r#"{"t_ms":0,"slice":"a/b/c","stage":"stage_b","arm":"canary","host":"h","latency_ms":2,"ok":false}"#;
    put("replay", "lines", line.as_bytes());
    put("replay", "hlog", b"#[StartTime: 1763755200.0 (seconds since epoch)]\nTag=a/b/c:stage_a:baseline,0.0,1.0,1.0,HISTFAAA\n");
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
