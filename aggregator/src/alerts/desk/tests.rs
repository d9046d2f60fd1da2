//! The desk over a real directory and a receiver that answers as told.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use lens_model::Nanos;
use lens_service::shutdown::Shutdown;

use super::*;
use crate::alerts::lifecycle::tests::{condition, slice, tail};
use crate::alerts::policy::Policy;
use crate::alerts::sink::{self, Answer, Outcome, Request, Secret, Sink};
use crate::alerts::{Key, Rule, Subject, deliver};

/// A receiver that gives its answers in turn, the last for ever, and keeps what it was sent.
#[derive(Debug)]
struct Receiver {
    answers: Vec<Result<Answer, String>>,
    asked: AtomicUsize,
    taken: Mutex<Vec<Request>>,
}

fn answer(status: u16) -> Result<Answer, String> {
    Ok(Answer { status, retry_after: None, body: String::new() })
}

impl Receiver {
    fn new(answers: Vec<Result<Answer, String>>) -> Arc<Self> {
        Arc::new(Self { answers, asked: AtomicUsize::new(0), taken: Mutex::default() })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Transport for Receiver {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, String>> {
        let at = self.asked.fetch_add(1, Ordering::Relaxed).min(self.answers.len() - 1);
        self.taken.lock().push(request);
        Box::pin(std::future::ready(self.answers[at].clone()))
    }
}

fn hook(name: &str) -> Sink {
    let keys = vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap()];
    let kind = sink::Kind::Webhook { url: "http://127.0.0.1:1".into(), keys };
    Sink { name: name.into(), kind, severity_min: Severity::Warning }
}

fn config(dir: Option<&tempfile::TempDir>, sinks: Vec<Sink>) -> Config {
    let (pending, clear, hold) = (Nanos(0), Nanos(0), Nanos(0));
    Config {
        dir: dir.map(|dir| dir.path().join("alerts")),
        policy: Policy { pending, clear, hold, ..Policy::default() },
        sinks,
        retry_for: Nanos::from_secs(3_600),
        ..Config::default()
    }
}

fn open(config: Config, receiver: &Arc<Receiver>) -> Desk {
    let transport: Arc<dyn Transport> = Arc::clone(receiver) as _;
    Desk::open(Env::system(), config, transport).unwrap()
}

fn read(language: &str, state: Reading) -> Condition {
    condition(&tail(&slice(language)), state, Severity::Error)
}

fn queued(desk: &Desk) -> usize {
    let inner = desk.inner.lock();
    inner.deliveries.values().filter(|d| d.progress == Progress::Queued).count()
}

fn step(desk: &Desk, language: &str, state: Reading) -> Vec<Kind> {
    let now = desk.env.now();
    desk.evaluate(&[read(language, state)], now).iter().map(|t| t.kind).collect()
}

#[test]
fn a_restart_loses_nothing_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(vec![answer(200)]);
    let make = || open(config(Some(&dir), vec![hook("hook")]), &receiver);
    let desk = make();
    assert_eq!(step(&desk, "rust", Reading::Violated), [Kind::Fired]);
    let Next::Send(first) = desk.next("hook", desk.env.now()) else { panic!() };
    drop(desk);

    let desk = make();
    let Next::Send(again) = desk.next("hook", desk.env.now()) else { panic!("lost") };
    assert_eq!(again, first, "the same notice under the same id");
    assert_eq!(step(&desk, "rust", Reading::Violated), [], "told already");
    let delivered = Outcome::Delivered { said: "200".into(), thread: None };
    desk.settle(again.seq, &delivered, 0, desk.env.now());
    drop(desk);

    let desk = make();
    assert_eq!(desk.next("hook", desk.env.now()), Next::Idle, "repeated");
    assert_eq!(step(&desk, "rust", Reading::Violated), []);
    assert_eq!(step(&desk, "rust", Reading::Clear), [Kind::Resolved]);
    let totals = desk.totals();
    assert_eq!((totals.transitions[&Kind::Fired], totals.transitions[&Kind::Resolved]), (1, 1));
}

#[test]
fn what_people_did_survives_a_restart_and_time_nobody_looked_resolves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(vec![answer(200)]);
    let mut long = config(Some(&dir), vec![hook("hook")]);
    long.policy.clear = Nanos::from_secs(60);
    let desk = open(long.clone(), &receiver);
    step(&desk, "rust", Reading::Violated);
    let (id, now) = (tail(&slice("rust")).id(), desk.env.now());
    let ack = crate::alerts::lifecycle::Action::Acknowledge;
    desk.act(&id, &ack, "ann", Some("mine"), now).unwrap();
    let window = Maintenance {
        id: String::new(),
        from: now,
        to: now.plus(Nanos::from_secs(7_200)),
        covers: "tail".into(),
        by: "ann".into(),
        reason: "reindexing".into(),
    };
    let window = desk.announce(window, now).unwrap();
    // It began to hold; then the aggregator was away for an hour.
    step(&desk, "rust", Reading::Clear);
    drop(desk);
    let desk = open(long, &receiver);
    let later = now.plus(Nanos::from_secs(3_600));
    desk.inner.lock().book.alerts.values_mut().for_each(|alert| alert.reading_since = later);
    assert_eq!(desk.evaluate(&[read("rust", Reading::Clear)], later), []);
    let alert = &desk.open_alerts()[0];
    assert_eq!(alert.ack.as_ref().map(|ack| ack.by.as_str()), Some("ann"));
    assert_eq!(desk.maintenance(later), std::slice::from_ref(&window));
    assert!(desk.end_maintenance(&window.id, later));
    assert!(!desk.end_maintenance(&window.id, later));
}

#[test]
fn a_second_aggregator_on_the_same_directory_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(vec![answer(200)]);
    let first = open(config(Some(&dir), Vec::new()), &receiver);
    let transport: Arc<dyn Transport> = Arc::clone(&receiver) as _;
    let refused = Desk::open(Env::system(), config(Some(&dir), Vec::new()), transport);
    assert!(refused.unwrap_err().to_string().contains("another process uses it"));
    assert!(first.durable());
}

#[test]
fn a_full_queue_pushes_out_its_oldest_and_counts_it() {
    let receiver = Receiver::new(vec![answer(200)]);
    let desk = open(config(None, vec![hook("hook")]), &receiver);
    let all: Vec<Condition> =
        (0..=QUEUE_MAX).map(|n| read(&format!("l{n}"), Reading::Violated)).collect();
    desk.evaluate(&all[..QUEUE_MAX], desk.env.now());
    assert_eq!((queued(&desk), desk.healths()["hook"].dead), (QUEUE_MAX, 0));
    desk.evaluate(&all, desk.env.now());
    assert_eq!((queued(&desk), desk.healths()["hook"].dead), (QUEUE_MAX, 1));
    let dead = desk.inner.lock().deliveries[&1].clone();
    assert_eq!(dead.progress, Progress::Dead);
    assert!(dead.said.unwrap().contains("pushed out"));
}

#[test]
fn settled_deliveries_and_closed_alerts_are_kept_to_their_limits() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(vec![answer(200)]);
    let mut short = config(Some(&dir), Vec::new());
    short.policy.reopen = Nanos(0);
    let desk = open(short.clone(), &receiver);
    let now = desk.env.now();
    for round in 0..2 {
        let all = |state| -> Vec<Condition> {
            (0..PAST_MAX).map(|n| read(&format!("l{round}x{n}"), state)).collect()
        };
        desk.evaluate(&all(Reading::Violated), now);
        desk.evaluate(&all(Reading::Clear), now);
        desk.evaluate(&[], now.plus(Nanos(1)));
    }
    assert_eq!(desk.past_alerts().len(), PAST_MAX);
    drop(desk);
    let desk = open(short, &receiver);
    assert_eq!(desk.past_alerts().len(), PAST_MAX);
    assert!(desk.open_alerts().is_empty());
}

/// Runs the sinks of a desk until nothing is queued. Time is tokio's, paused.
async fn drain(desk: &Arc<Desk>) {
    let (stop, shutdown) = Shutdown::manual();
    let mut tasks = tokio::task::JoinSet::new();
    for sink in desk.config.sinks.clone() {
        tasks.spawn(deliver::run(Arc::clone(desk), sink, shutdown.clone()));
    }
    while queued(desk) > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.begin();
    while tasks.join_next().await.is_some() {}
}

#[tokio::test]
async fn busy_and_broken_receivers_get_the_same_notice_again_until_they_take_it() {
    let busy = Answer { status: 429, retry_after: Some(Nanos::from_millis(20)), body: "".into() };
    let hung = Err("no answer within 5 s".into());
    let receiver = Receiver::new(vec![Ok(busy), answer(503), hung, answer(200)]);
    let desk = Arc::new(open(config(None, vec![hook("hook")]), &receiver));
    step(&desk, "rust", Reading::Violated);
    drain(&desk).await;
    assert_eq!(receiver.asked(), 4);
    let ids: BTreeSet<String> = receiver
        .taken
        .lock()
        .iter()
        .map(|request| {
            request.headers.iter().find(|h| h.0 == "webhook-id").unwrap().1.expose().to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 1, "one id over every retry");
    let health = &desk.healths()["hook"];
    assert_eq!((health.delivered, health.retried, health.dead), (1, 3, 0));
    assert_eq!(health.failing_since, None);
    let shown = desk.deliveries(1);
    assert_eq!((shown[0].attempts, shown[0].progress), (4, Progress::Delivered));
}

#[tokio::test]
async fn a_refusal_is_final_and_the_failing_sink_is_an_alert_on_the_others() {
    let receiver = Receiver::new(vec![answer(400)]);
    let log = Sink { name: "log".into(), kind: sink::Kind::Log, severity_min: Severity::Warning };
    let desk = Arc::new(open(config(None, vec![hook("hook"), log]), &receiver));
    step(&desk, "rust", Reading::Violated);
    drain(&desk).await;
    assert_eq!(receiver.asked(), 1, "the same would be refused again");
    assert_eq!(desk.healths()["hook"].dead, 1);
    let failing = crate::alerts::sense::of_desk(&desk);
    let violated: Vec<String> = failing
        .iter()
        .filter(|condition| condition.state == Reading::Violated)
        .map(|condition| condition.key.to_string())
        .collect();
    assert_eq!(violated, ["sink/hook"]);
    desk.evaluate(&failing, desk.env.now());
    let told: Vec<String> = desk.deliveries(1).iter().map(|d| d.sink.clone()).collect();
    assert_eq!(told, ["log"], "not through the sink that fails");
}

#[test]
fn a_delivery_is_given_up_after_its_time_and_counted() {
    let receiver = Receiver::new(vec![answer(500)]);
    let desk = open(config(None, vec![hook("hook")]), &receiver);
    step(&desk, "rust", Reading::Violated);
    let retry = Outcome::Retry { after: None, said: "500".into() };
    let now = desk.env.now();
    desk.settle(1, &retry, 5, now.plus(Nanos::from_secs(3_000)));
    assert_eq!(queued(&desk), 1);
    desk.settle(1, &retry, 5, now.plus(Nanos::from_secs(3_700)));
    assert_eq!((queued(&desk), desk.healths()["hook"].dead), (0, 1));
    assert!(desk.deliveries(1)[0].said.as_ref().unwrap().starts_with("given up after 2"));
}

#[test]
fn a_bots_message_is_remembered_over_a_restart_until_the_alert_is_history() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::new(vec![answer(200)]);
    let (url, channel) = ("https://slack.com/api".into(), "#a".into());
    let kind = sink::Kind::SlackBot { url, token: Secret::new("xoxb-1"), channel };
    let bot = Sink { name: "bot".into(), kind, severity_min: Severity::Warning };
    let mut short = config(Some(&dir), vec![bot]);
    short.policy.reopen = Nanos(0);
    let desk = open(short.clone(), &receiver);
    step(&desk, "rust", Reading::Violated);
    let thread = Some(Thread { channel: "C1".into(), ts: "1.2".into() });
    let ok = Outcome::Delivered { said: "ok".into(), thread: thread.clone() };
    desk.settle(1, &ok, 0, desk.env.now());
    drop(desk);
    let desk = open(short, &receiver);
    step(&desk, "rust", Reading::Clear);
    let Next::Send(resolved) = desk.next("bot", desk.env.now()) else { panic!() };
    assert_eq!(desk.thread("bot", &resolved.notice), thread);
    desk.evaluate(&[], desk.env.now().plus(Nanos(1)));
    assert_eq!(desk.thread("bot", &resolved.notice), None);
}

#[test]
fn a_disk_that_refuses_is_an_alert_and_people_are_told_all_the_same() {
    let mut desk = open(config(None, vec![hook("hook")]), &Receiver::new(vec![answer(200)]));
    let dir = tempfile::tempdir().unwrap();
    let env = Env { disk: Arc::new(FullDisk::default()), ..Env::system() };
    desk.store = Store::open(&env, &dir.path().join("alerts")).unwrap();
    FULL.with(|full| full.set(true));
    step(&desk, "rust", Reading::Violated);
    FULL.with(|full| full.set(false));
    assert!(desk.trouble().is_some());
    assert_eq!(queued(&desk), 1, "told all the same");
    let store = Key { rule: Rule::Store, subject: Subject::named("alerts") };
    let read = |desk: &Desk| {
        let all = crate::alerts::sense::of_desk(desk);
        all.into_iter().find(|condition| condition.key == store).unwrap().state
    };
    assert_eq!(read(&desk), Reading::Violated);
    // Once there is room the next look writes it down, with nothing new to say.
    step(&desk, "rust", Reading::Violated);
    assert_eq!((desk.trouble(), read(&desk)), (None, Reading::Clear));
    drop(desk);
    let again = open(config(Some(&dir), vec![hook("hook")]), &Receiver::new(Vec::new()));
    assert_eq!((again.open_alerts().len(), queued(&again)), (1, 1));
}

#[test]
fn after_a_failed_sync_alerts_are_kept_again_without_a_restart() {
    let mut desk = open(config(None, vec![hook("hook")]), &Receiver::new(Vec::new()));
    let disk = lens_journal::testing::FaultyDisk::new(1);
    let env = Env { disk: Arc::new(disk.clone()), ..Env::system() };
    let dir = std::path::Path::new("/alerts");
    desk.store = Store::open(&env, dir).unwrap();
    disk.fail_sync(1);
    step(&desk, "rust", Reading::Violated);
    assert!(desk.trouble().is_some());
    step(&desk, "go", Reading::Violated);
    assert_eq!(desk.trouble(), None);
    drop(desk);
    disk.crash(lens_journal::testing::Crash::Nothing);
    let kept = Store::open(&env, dir).unwrap().load::<Alert>(Shelf::Alerts);
    assert_eq!(kept.unwrap().len(), 2);
}

thread_local! {
    /// Whether the disk of this test is full.
    static FULL: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// The real disk, until it is full.
#[derive(Debug, Default)]
struct FullDisk(lens_journal::OsDisk);

#[derive(Debug)]
struct FullFile(Box<dyn lens_journal::DiskFile>);

impl lens_journal::Disk for FullDisk {
    fn create_dir_all(&self, dir: &std::path::Path) -> std::io::Result<()> {
        self.0.create_dir_all(dir)
    }
    fn create(&self, path: &std::path::Path) -> std::io::Result<Box<dyn lens_journal::DiskFile>> {
        Ok(Box::new(FullFile(self.0.create(path)?)))
    }
    fn open(&self, path: &std::path::Path) -> std::io::Result<Box<dyn lens_journal::DiskFile>> {
        Ok(Box::new(FullFile(self.0.open(path)?)))
    }
    fn list(&self, dir: &std::path::Path) -> std::io::Result<Vec<std::ffi::OsString>> {
        self.0.list(dir)
    }
    fn rename(&self, from: &std::path::Path, to: &std::path::Path) -> std::io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, path: &std::path::Path) -> std::io::Result<()> {
        self.0.remove(path)
    }
    fn sync_dir(&self, dir: &std::path::Path) -> std::io::Result<()> {
        self.0.sync_dir(dir)
    }
    fn lock(&self, dir: &std::path::Path) -> std::io::Result<Box<dyn lens_journal::DiskLock>> {
        self.0.lock(dir)
    }
}

impl lens_journal::DiskFile for FullFile {
    fn length(&self) -> std::io::Result<u64> {
        self.0.length()
    }
    fn read_at(&self, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
        self.0.read_at(buffer, at)
    }
    fn write_at(&self, bytes: &[u8], at: u64) -> std::io::Result<()> {
        if FULL.with(std::cell::Cell::get) {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.write_at(bytes, at)
    }
    fn allocate(&self, length: u64) -> std::io::Result<()> {
        self.0.allocate(length)
    }
    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.set_len(length)
    }
    fn sync(&self) -> std::io::Result<()> {
        self.0.sync()
    }
}
