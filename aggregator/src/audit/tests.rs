use std::os::unix::fs::PermissionsExt;

use super::*;

fn places(dir: &Path) -> Places {
    Places {
        dir: dir.join("audit"),
        head: dir.join("elsewhere.json"),
        key: dir.join("audit.key"),
        rotate_bytes: 1 << 20,
    }
}

fn entry(target: &str) -> Entry {
    Entry {
        principal: "alice".into(),
        credential: "token:1".into(),
        role: "admin".into(),
        verb: "agent.revoke".into(),
        target: target.into(),
        arguments: vec![],
        decision: Decision::Allowed,
    }
}

#[tokio::test]
async fn without_a_place_to_record_in_there_is_no_receipt() {
    let error = Audit::off().record(entry("a")).await.unwrap_err();
    assert!(error.to_string().contains("audit.dir"), "{error}");
    let (done, recorded) = Audit::off().act_first(entry("a"), async { 7 }).await;
    assert!(done == 7 && recorded.is_err(), "stopping does not wait for the record");
}

#[tokio::test]
async fn a_receipt_means_the_record_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let audit = Audit::open(&Env::system(), &places).unwrap();
    let receipt = audit.record(entry("host-1")).await.unwrap();
    assert_eq!(receipt.number(), 1);
    let text = std::fs::read_to_string(places.dir.join(verify::file_name(1))).unwrap();
    assert!(text.contains("host-1"), "{text}");
    let (done, recorded) = audit.act_first(entry("all"), async { 7 }).await;
    assert_eq!((done, recorded.unwrap().number()), (7, 2));
    let (records, head) = audit.read(1, 10).await.unwrap();
    assert_eq!(records[1].decision, Decision::Done);
    assert_eq!(head.unwrap().n, 0, "signed at the start, before there was anything");
}

#[tokio::test]
async fn the_key_is_made_once_for_its_owner_alone_and_the_head_is_signed_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let audit = Audit::open(&Env::system(), &places).unwrap();
    assert_eq!(audit.record(entry("host-1")).await.unwrap().number(), 1);
    audit.sign().await;
    drop(audit);
    let mode = std::fs::metadata(&places.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let public = std::fs::read_to_string(places.dir.join(PUBLIC_KEY_FILE)).unwrap();
    let public = head::public_key(&public).unwrap();
    let text = std::fs::read_to_string(&places.head).unwrap();
    assert_eq!(Head::verify(&text, Some(&public)).unwrap().1.n, 1);
    // The same key again, and the chain goes on.
    let audit = Audit::open(&Env::system(), &places).unwrap();
    assert_eq!(audit.record(entry("host-2")).await.unwrap().number(), 2);
    drop(audit);
    std::fs::set_permissions(&places.key, PermissionsExt::from_mode(0o640)).unwrap();
    assert!(matches!(Audit::open(&Env::system(), &places), Err(AuditError::Key(_))));
}

#[tokio::test]
async fn attempts_are_recorded_up_to_their_bound_and_the_rest_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(&Env::system(), &places(dir.path())).unwrap();
    for _ in 0..ATTEMPTS_PER_MINUTE_MAX + 25 {
        audit.attempt(entry("host-1")).await;
    }
    let (records, _) = audit.read(1, 1_000).await.unwrap();
    assert_eq!(records.len() as u64, ATTEMPTS_PER_MINUTE_MAX);
    let inner = audit.0.as_ref().unwrap();
    inner.attempts.lock().since -= Duration::from_secs(60);
    audit.attempt(entry("host-1")).await;
    let (records, _) = audit.read(ATTEMPTS_PER_MINUTE_MAX + 1, 10).await.unwrap();
    assert_eq!(records[0].suppressed, 25);
}
