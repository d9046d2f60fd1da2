use std::sync::Arc;

use lens_flags::{Scope, Share, SigningKey};
use lens_model::{Arm, Flag, Nanos};
use lens_segment::{FlagPage, Node, ReadPolicy, Recorder, SegmentReader};
use lens_service::env::Clock;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::*;

const T0: UnixNanos = UnixNanos(1_790_000_000_000_000_000);

/// A clock that a test sets.
#[derive(Debug)]
struct Wall(Mutex<UnixNanos>);

impl Clock for Wall {
    fn now(&self) -> UnixNanos {
        *self.0.lock()
    }
}

struct Host {
    dir: TempDir,
    env: Env,
    wall: Arc<Wall>,
}

fn domain() -> TrustDomain {
    TrustDomain::new("lens.test").unwrap()
}

impl Host {
    fn new() -> Self {
        let wall = Arc::new(Wall(Mutex::new(T0)));
        let env = Env { clock: Arc::clone(&wall) as Arc<dyn Clock>, ..Env::system() };
        Self { dir: tempfile::tempdir().unwrap(), env, wall }
    }

    fn open(&self) -> Flags {
        Flags::open(&self.env, &self.dir.path().join("control"), domain(), None)
    }

    fn node(&self) -> (Recorder, FlagPage) {
        let dir = self.dir.path().join("segments");
        let node = Node { service: "lens", version: "1", instance: "node-7" };
        let node = Recorder::create(&dir, node).unwrap();
        let reader = SegmentReader::open(node.path(), &ReadPolicy::default()).unwrap();
        let page = reader.flag_page().unwrap();
        (node, page)
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn document(generation: u64) -> Document {
    Document {
        generation,
        issued_at: T0,
        expires_at: UnixNanos(T0.0 + Nanos::from_secs(60).0),
        scope: Scope::TrustDomain(domain()),
        assignment: Assignment { salt: 7, share: Share::ALL, ..Assignment::default() },
        version: "2.0.0".into(),
        bits: Flag::StageBEnabled.bit(),
        emergency: false,
    }
}

fn signed(generation: u64) -> SignedDocument {
    SignedDocument::sign(&document(generation), &key(1))
}

fn killed(generation: u64) -> SignedDocument {
    let mut document = document(generation);
    document.assignment.killed = true;
    SignedDocument::sign(&document, &key(1))
}

/// Generation and trouble.
fn now(flags: &Flags) -> (u64, Trouble) {
    let applied = *flags.applied().borrow();
    (applied.generation, applied.trouble)
}

#[test]
fn a_document_reaches_every_node_those_found_later_too() {
    let host = Host::new();
    let flags = host.open();
    let (early, page) = host.node();
    flags.pages().add(page);
    assert_eq!(early.flags().generation(), 0);
    flags.take(&signed(5));
    assert_eq!(now(&flags), (5, Trouble::None));
    let (late, page) = host.node();
    flags.pages().add(page);
    for node in [&early, &late] {
        assert_eq!(node.flags().generation(), 5);
        assert!(node.flags().enabled(Flag::StageBEnabled));
        assert_eq!(node.canary().arm("user-42"), Arm::Canary);
    }
    assert_eq!(flags.assignment().borrow().arm("user-42"), Arm::Canary);
    flags.look();
    assert_eq!(flags.applied().borrow().pages, 2);
}

#[test]
fn an_older_or_equal_generation_is_never_taken_not_after_a_restart_either() {
    let host = Host::new();
    let flags = host.open();
    flags.take(&signed(5));
    flags.take(&signed(4));
    assert_eq!(now(&flags), (5, Trouble::Older));
    flags.take(&killed(5));
    assert_eq!(now(&flags), (5, Trouble::Older));
    drop(flags);
    let flags = host.open();
    assert_eq!(now(&flags), (5, Trouble::None));
    assert_eq!(flags.assignment().borrow().arm("user-42"), Arm::Canary);
    for old in [signed(4), killed(5)] {
        flags.take(&old);
        assert_eq!(now(&flags), (5, Trouble::Older));
    }
    flags.take(&signed(5));
    assert_eq!(now(&flags), (5, Trouble::None), "the same again is no trouble");
    flags.take(&signed(6));
    assert_eq!(now(&flags), (6, Trouble::None));
}

#[test]
fn any_byte_that_was_changed_is_found() {
    let host = Host::new();
    let flags = host.open();
    flags.take(&signed(5));
    let good = killed(6);
    for at in 0..good.bytes.len() {
        let mut bad = good.clone();
        bad.bytes[at] ^= 1;
        flags.take(&bad);
        assert_eq!(now(&flags), (5, Trouble::Signature), "byte {at}");
    }
    for at in 0..64 {
        let mut bad = good.clone();
        bad.signature[at] ^= 1;
        flags.take(&bad);
        assert_eq!(now(&flags), (5, Trouble::Signature), "signature byte {at}");
    }
}

#[test]
fn another_key_is_not_believed_until_the_pin_is_removed() {
    let host = Host::new();
    let flags = host.open();
    flags.take(&signed(5));
    let other = SignedDocument::sign(&document(1), &key(2));
    flags.take(&other);
    assert_eq!(now(&flags), (5, Trouble::Key));
    let problem = flags.status().problem.unwrap();
    assert!(problem.contains("control-key"), "{problem}");
    drop(flags);
    let flags = host.open();
    flags.take(&other);
    assert_eq!(now(&flags), (5, Trouble::Key), "after a restart");
    std::fs::remove_file(host.dir.path().join("control").join(keep::KEY_FILE)).unwrap();
    flags.take(&other);
    assert_eq!(now(&flags), (1, Trouble::None));
    flags.take(&signed(9));
    assert_eq!(now(&flags), (1, Trouble::Key));
}

#[test]
fn a_pin_that_cannot_be_read_lets_nobody_in() {
    let host = Host::new();
    host.open().take(&signed(5));
    std::fs::write(host.dir.path().join("control").join(keep::KEY_FILE), "nonsense").unwrap();
    let flags = host.open();
    flags.take(&SignedDocument::sign(&document(9), &key(2)));
    assert_eq!(now(&flags), (0, Trouble::Storage));
}

#[test]
fn a_configured_key_is_believed_alone() {
    let host = Host::new();
    let dir = host.dir.path().join("control");
    let own = key(2).verifying_key();
    let flags = Flags::open(&host.env, &dir, domain(), Some(own));
    flags.take(&signed(5));
    assert_eq!(now(&flags), (0, Trouble::Key));
    flags.take(&SignedDocument::sign(&document(3), &key(2)));
    assert_eq!(now(&flags), (3, Trouble::None));
    assert!(!dir.join(keep::KEY_FILE).exists());
}

#[test]
fn a_document_for_others_is_refused() {
    let host = Host::new();
    let flags = host.open();
    let mut other = document(5);
    other.scope = Scope::TrustDomain(TrustDomain::new("other.test").unwrap());
    flags.take(&SignedDocument::sign(&other, &key(1)));
    assert_eq!(now(&flags), (0, Trouble::Scope));
}

#[test]
fn an_expired_document_is_refused_unless_it_stops_everything() {
    let host = Host::new();
    let flags = host.open();
    *host.wall.0.lock() = document(1).expires_at;
    flags.take(&signed(5));
    assert_eq!(now(&flags), (0, Trouble::Expired));
    // Our clock may be what is wrong.
    flags.clock_is_ahead(-1);
    flags.take(&signed(5));
    assert_eq!(now(&flags), (5, Trouble::None));
    flags.clock_is_ahead(0);
    flags.take(&killed(6));
    assert_eq!(now(&flags), (6, Trouble::None));
}

#[test]
fn when_its_time_is_up_a_documents_canary_ends_and_its_flags_and_kill_switch_stay() {
    let host = Host::new();
    let flags = host.open();
    let (node, page) = host.node();
    flags.pages().add(page);
    flags.take(&signed(5));
    *host.wall.0.lock() = document(1).expires_at;
    flags.look();
    assert_eq!(node.canary().arm("user-42"), Arm::Baseline);
    assert_eq!(flags.assignment().borrow().arm("user-42"), Arm::Baseline);
    assert!(node.flags().enabled(Flag::StageBEnabled));
    assert!(flags.status().expired);
    flags.take(&killed(6));
    *host.wall.0.lock() = UnixNanos(u64::MAX / 2);
    flags.look();
    assert!(node.flags().killed());
}

#[test]
fn what_was_kept_is_never_written_over_what_a_page_has_newer() {
    let host = Host::new();
    let (node, page) = host.node();
    let flags = host.open();
    flags.take(&signed(5));
    drop(flags);
    // An earlier process wrote this and did not live to keep it.
    let newer = FlagWords { generation: 6, bits: 0, killed: true, salt: 0, share_ppm: 0 };
    page.write(&newer).unwrap();
    let flags = host.open();
    flags.pages().add(page);
    flags.look();
    assert!(node.flags().killed());
    flags.take(&signed(7));
    assert!(!node.flags().killed());
}

#[test]
fn a_kill_is_passed_on_though_it_cannot_be_kept_and_is_kept_once_it_can() {
    let host = Host::new();
    let flags = host.open();
    let (node, page) = host.node();
    flags.pages().add(page);
    flags.take(&signed(5));
    let (dir, gone) = (host.dir.path().join("control"), host.dir.path().join("gone"));
    std::fs::rename(&dir, &gone).unwrap();
    std::fs::write(&dir, "in the way").unwrap();
    flags.take(&killed(6));
    assert!(node.flags().killed());
    assert_eq!(now(&flags), (6, Trouble::Storage));
    std::fs::remove_file(&dir).unwrap();
    std::fs::rename(&gone, &dir).unwrap();
    flags.look();
    assert_eq!(now(&flags), (6, Trouble::None));
    drop(flags);
    assert!(host.open().assignment().borrow().killed);
}
