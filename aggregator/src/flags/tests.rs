use std::path::Path as FilePath;

use lens_model::TrustDomain;
use tempfile::TempDir;

use super::*;

fn domain() -> TrustDomain {
    TrustDomain::new("lens.test").unwrap()
}

fn open(dir: &TempDir) -> Flags {
    Flags::open(&Env::system(), dir.path(), Scope::TrustDomain(domain())).unwrap()
}

/// What an agent would read of the last word.
fn told(flags: &Flags) -> Document {
    let signed = flags.subscribe().borrow().clone();
    signed.open(&flags.public_key(), &domain()).unwrap()
}

#[tokio::test]
async fn every_change_is_told_signed_under_the_next_generation() {
    let flags = Flags::in_memory(&Env::system());
    let first = told(&flags).generation;
    let mut words = flags.subscribe();
    words.mark_unchanged();
    let done = flags.set_canary("2.0.0", 7, 25.0).await.unwrap();
    assert_eq!((done.generation, done.changed), (first + 1, true));
    assert!(words.has_changed().unwrap());
    let document = told(&flags);
    assert_eq!(document.generation, first + 1);
    assert_eq!((document.assignment.salt, document.assignment.share.as_percent()), (7, 25.0));
    assert_eq!(document.version, "2.0.0");
    let again = flags.set_canary("2.0.0", 7, 25.0).await.unwrap();
    assert_eq!((again.generation, again.changed), (first + 1, false));
}

#[tokio::test]
async fn a_refused_change_is_not_told() {
    let flags = Flags::in_memory(&Env::system());
    let before = told(&flags);
    assert!(flags.set_canary("2.0.0", 7, 101.0).await.is_err());
    assert!(flags.set_canary("", 7, 5.0).await.is_err());
    let path = Path::CanaryTrafficPercentage;
    let error = flags.set_override(path, Value::Number(50.0), "r", None, "ops").await;
    assert!(matches!(error, Err(FlagsError::Control(ControlError::Elsewhere { .. }))));
    assert_eq!(told(&flags), before);
}

#[tokio::test]
async fn what_was_decided_is_there_after_a_restart_under_a_newer_generation() {
    let dir = tempfile::tempdir().unwrap();
    let (generation, key) = {
        let flags = open(&dir);
        drop(flags.set_canary("2.0.0", 7, 25.0).await.unwrap());
        let path = Path::Flag(Flag::StageBEnabled);
        drop(flags.set_override(path, Value::Bool(true), "r", None, "ops").await.unwrap());
        let killed = flags.kill("p99", "ops").await;
        assert_eq!(killed.undurable, None);
        (killed.generation, flags.public_key())
    };
    let flags = open(&dir);
    let document = told(&flags);
    assert!(document.assignment.killed && document.generation > generation);
    assert_eq!(flags.public_key(), key);
    assert_eq!(flags.status().control.killed().unwrap().reason, "p99");
    assert_eq!(flags.history().len(), 1);
}

#[tokio::test]
async fn the_key_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let mode = std::fs::metadata(dir.path().join(keep::KEY_FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_state_that_cannot_be_read_is_never_taken_for_an_absent_one() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    let path = dir.path().join(keep::STATE_FILE);
    let whole = std::fs::read(&path).unwrap();
    for bytes in [&b"{}"[..], b"", &whole[..whole.len() - 1]] {
        std::fs::write(&path, bytes).unwrap();
        let opened = Flags::open(&Env::system(), dir.path(), Scope::Fleet);
        let error = opened.unwrap_err().to_string();
        assert!(error.contains(keep::STATE_FILE) && error.contains("backup"), "{error}");
    }
}

#[tokio::test]
async fn two_aggregators_never_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(&dir);
    let error = Flags::open(&Env::system(), dir.path(), Scope::Fleet).unwrap_err();
    assert!(error.to_string().contains("another process"), "{error}");
}

#[tokio::test]
async fn a_kill_holds_though_it_cannot_be_kept_and_is_kept_once_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let flags = open(&dir);
    drop(flags.set_canary("2.0.0", 7, 25.0).await.unwrap());
    let aside = |from: &FilePath, to: &FilePath| std::fs::rename(from, to).unwrap();
    let gone = dir.path().with_extension("gone");
    aside(dir.path(), &gone);
    let killed = flags.kill("p99", "ops").await;
    assert!(killed.changed && killed.undurable.is_some());
    assert!(told(&flags).assignment.killed);
    assert!(flags.release().await.is_err(), "released without being kept");
    assert!(told(&flags).assignment.killed);
    aside(&gone, dir.path());
    flags.0.keep_up();
    assert_eq!(flags.status().undurable, None);
    drop(flags);
    assert!(told(&open(&dir)).assignment.killed);
}
