use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use lens_model::UnixNanos;
use tokio::time::Instant;

use super::*;
use crate::state::Rules;
use crate::window::Windows;

/// Answers as told, then 204; keeps what it was sent and when.
#[derive(Debug, Default)]
struct Receiver {
    answers: Mutex<VecDeque<Result<Answer, String>>>,
    taken: Mutex<Vec<(Instant, Request)>>,
}

impl Receiver {
    fn new(answers: impl IntoIterator<Item = Result<Answer, String>>) -> Arc<Self> {
        Arc::new(Self { answers: Mutex::new(answers.into_iter().collect()), ..Self::default() })
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.taken.lock().iter().map(|(_, request)| request.body.clone()).collect()
    }
}

impl Transport for Receiver {
    fn send(&self, request: Request) -> BoxFuture<'_, Result<Answer, String>> {
        self.taken.lock().push((Instant::now(), request));
        let answer = self.answers.lock().pop_front().unwrap_or_else(|| answer(204, None));
        Box::pin(std::future::ready(answer))
    }
}

fn answer(status: u16, after_secs: Option<u64>) -> Result<Answer, String> {
    let retry_after = after_secs.map(Nanos::from_secs);
    Ok(Answer { status, retry_after, body: "said so\nat length".into() })
}

fn state() -> Arc<State> {
    let (env, windows) = (Env::system(), Windows::new(Nanos::from_secs(5), Nanos::from_secs(60)));
    let now = env.now();
    let mut state = State::new(env, Rules::default(), windows, now);
    state.remote_write = Some(Arc::new(Tally::default()));
    Arc::new(state)
}

fn config() -> Config {
    Config {
        url: crate::alerts::sink::Secret::new("http://127.0.0.1:1/"),
        interval: Duration::from_secs(15),
        headers: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        native: true,
        queue_bytes: 1 << 20,
        samples: 2_000,
    }
}

fn work(receiver: &Arc<Receiver>, queue_bytes: usize) -> Work {
    Work {
        env: Env::system(),
        config: Arc::new(config()),
        transport: Arc::clone(receiver) as _,
        tally: Arc::default(),
        queue: Mutex::new(Queue::new(queue_bytes)),
        bell: Notify::new(),
    }
}

fn batch(name: u8) -> Batch {
    Batch { body: vec![name], samples: 10, collected: UnixNanos(u64::from(name)) }
}

fn count(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(std::sync::atomic::Ordering::Relaxed)
}

/// Sends until nothing waits.
async fn drained(work: &Work) {
    let (stop, shutdown) = Shutdown::manual();
    let empty = async {
        while !work.queue.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.begin();
    };
    tokio::join!(work.send(&shutdown), empty);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_taken_now_is_sent_again_in_order_and_not_before_it_was_asked_for() {
    let busy = [Err("connection refused".into()), answer(500, None), answer(429, Some(7))];
    let receiver = Receiver::new(busy);
    let work = work(&receiver, 100);
    work.offer(vec![batch(1), batch(2)]);
    drained(&work).await;
    assert_eq!(receiver.bodies(), [[1], [1], [1], [1], [2]]);
    let taken = receiver.taken.lock();
    assert!(taken[3].0 - taken[2].0 >= Duration::from_secs(7));
    let tally = &work.tally;
    assert_eq!((count(&tally.requests_retried_total), count(&tally.requests_sent_total)), (3, 2));
    assert_eq!((count(&tally.samples_sent_total), count(&tally.samples_dropped_total)), (20, 0));
    assert_eq!((count(&tally.queue_bytes), count(&tally.oldest)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_dropped_and_counted_and_the_next_goes() {
    let receiver = Receiver::new([answer(400, None), answer(302, None)]);
    let work = work(&receiver, 100);
    work.offer(vec![batch(1), batch(2), batch(3)]);
    drained(&work).await;
    assert_eq!(receiver.bodies(), [[1], [2], [3]]);
    let tally = &work.tally;
    assert_eq!(
        (count(&tally.requests_dropped_total), count(&tally.samples_dropped_total)),
        (2, 20)
    );
    assert_eq!(count(&tally.samples_sent_total), 10);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_keeps_what_it_has_and_counts_what_was_not_collected() {
    let receiver = Receiver::new([]);
    let work = work(&receiver, 2);
    work.offer(vec![batch(1)]);
    work.offer(vec![batch(2), batch(3)]);
    work.offer(vec![batch(4)]);
    assert_eq!(count(&work.tally.collections_skipped_total), 1);
    assert_eq!((count(&work.tally.queue_requests), count(&work.tally.oldest)), (2, 1));
    drained(&work).await;
    assert_eq!(receiver.bodies(), [[1], [4]]);
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_sent_at_every_interval_until_shutdown() {
    let (receiver, state) = (Receiver::new([]), state());
    let (stop, shutdown) = Shutdown::manual();
    let begun = Instant::now();
    let running = tokio::spawn(run(state, config(), Arc::clone(&receiver) as _, shutdown));
    while receiver.taken.lock().len() < 3 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(30), "the first at once, two intervals");
    stop.begin();
    running.await.unwrap();
}

#[test]
fn an_answer_is_taken_later_or_refused_by_its_status() {
    let later = |status, asked, given: Option<u64>| {
        let said = format!("{status} said so");
        let given = given.map(Nanos::from_secs);
        assert_eq!(outcome(answer(status, asked)), Outcome::Later(given, said));
    };
    assert_eq!(outcome(answer(200, None)), Outcome::Taken);
    assert_eq!(outcome(answer(204, None)), Outcome::Taken);
    later(429, Some(3), Some(3));
    later(503, Some(10_000), Some(600));
    later(500, None, None);
    for status in [301, 400, 401, 404, 413, 499] {
        assert_eq!(outcome(answer(status, None)), Outcome::Refused(format!("{status} said so")));
    }
}
