//! `lens demo`: the whole system on one machine, as real processes over real files and queries.
//!
//! One aggregator, two agents (two "hosts"), three reference search nodes that index real source
//! files and answer real queries, each user's in the arm that the aggregator's flags assign: a
//! rollout is begun and goes as far as its evidence. It ends with what came of it, and the
//! samples the nodes say they recorded held against the samples the aggregator merged, series by
//! series; a difference is exit code 1. A process that is killed on the way is started again.

mod canary;
mod children;
mod live;
mod lives;
mod plan;
mod revive;
pub(crate) mod snapshots;
mod summary;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use clap::Args as ClapArgs;
use lens_benches::Regression;
use lens_benches::load::search::{SearchLoad, SearchReport, Target};
use lens_benches::node::Ledger;
use lens_service::exit::Exit;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use children::{Message, Running, Said};
use live::Live;
use lives::{Deaths, Kill, NodeLife, Restart};
use plan::Plan;

/// Longest a process may take until it is ready; indexing has a limit of its own.
const READY_MAX: Duration = Duration::from_secs(30);

/// Longest the nodes may take to index.
const INDEXING_MAX: Duration = Duration::from_secs(300);

/// Longest the last samples may take from the nodes to the aggregator.
const SETTLE_MAX: Duration = Duration::from_secs(20);

/// Snapshots still looked at once everything is merged, where a process was started again.
const LOOKS_AFTER_RESTARTS: usize = 3;

/// Longest a process may take to end when asked.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Queries a second over all nodes: a load two cores carry beside everything else.
const RATE: f64 = 120.0;

/// Run everything on this machine for a while.
#[derive(ClapArgs, Clone, Debug)]
pub(crate) struct Args {
    /// How long queries are sent.
    #[arg(long = "for", value_name = "DURATION", default_value = "90s",
        value_parser = lens_benches::arguments::duration)]
    pub duration: Duration,
    /// Directory of source files to index
    /// [default: this checkout and the sources of the packages it was built from].
    #[arg(long, value_name = "DIR")]
    pub corpus: Option<PathBuf>,
    /// Where the aggregator's API and page listen.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:3000")]
    pub http: std::net::SocketAddr,
    /// Make a stage slower: STAGE=FACTOR[@ARM][:after=DURATION], such as stage_b=3@canary.
    #[arg(long, value_name = "REGRESSION")]
    pub regress: Vec<Regression>,
    /// Kill a process that long after the first query: NAME@TIME, such as agent-1@20s; named as in
    /// the line "processes:". It is started again, as is one that is killed from outside.
    #[arg(long, value_name = "NAME@TIME")]
    pub kill: Vec<Kill>,
    /// Keep logs, certificates and configuration in this directory.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
    /// Queries a second over all nodes.
    #[arg(long, value_name = "N", default_value_t = RATE, value_parser = lens_benches::arguments::rate)]
    pub rate: f64,
    /// Print the summary as one JSON object, and nothing else on standard output.
    #[arg(long)]
    pub json: bool,
    /// Do not open a browser.
    #[arg(long)]
    pub no_browser: bool,
}

/// Why the demo ended without a summary.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Something about the arguments or the machine; said before anything started.
    Usage(String),
    /// A process ended that should not have.
    Died(String),
    /// Something of ours.
    Internal(String),
    /// The user asked.
    Interrupted,
}

/// Runs the demo.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: Args) -> Exit {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lens demo: no runtime: {error}");
            return Exit::Internal;
        }
    };
    match runtime.block_on(demo(args)) {
        Ok(true) => Exit::Done,
        Ok(false) => Exit::No,
        Err(Failure::Usage(what)) => {
            eprintln!("lens demo: {what}");
            Exit::Usage
        }
        Err(Failure::Died(what)) => {
            eprintln!("lens demo: stopped, because {what}");
            Exit::No
        }
        Err(Failure::Internal(what)) => {
            eprintln!("lens demo: {what}");
            Exit::Internal
        }
        Err(Failure::Interrupted) => {
            eprintln!("lens demo: interrupted; everything it started was stopped");
            Exit::No
        }
    }
}

async fn demo(args: Args) -> Result<bool, Failure> {
    let plan = Plan::new(&args)?;
    let mut stage = Stage::new(plan, Live::new(args.json), &args)?;
    let told = stage.play(&args).await;
    stage.stop_all().await;
    told
}

/// Everything that runs, and what it says.
struct Stage {
    plan: Plan,
    live: Live,
    running: Vec<Running>,
    to: mpsc::UnboundedSender<Message>,
    from: mpsc::UnboundedReceiver<Message>,
    /// How often the user asked to end.
    interrupted: watch::Receiver<u32>,
    regress: Vec<Regression>,
    /// The first query.
    began: Instant,
    /// The same, and when all nodes were ready, by the clock that decisions are dated by.
    began_at: SystemTime,
    nodes_ready_at: SystemTime,
    /// Where the rollout stands.
    standing: watch::Sender<Value>,
    /// The aggregator's latest snapshot.
    shown: watch::Sender<Value>,
    /// Where agents and readers find the aggregator.
    addresses: (String, String),
    /// Where each node listens.
    listens: BTreeMap<String, String>,
    /// Where queries go, in the order of [`plan::NODES`].
    targets: Vec<Target>,
    /// Shares of the queries of nodes that were killed, for when they are back.
    weights: BTreeMap<String, u32>,
    lives: BTreeMap<String, NodeLife>,
    lives_begun: usize,
    /// What nodes that ended recorded.
    ledgers: Vec<Ledger>,
    /// What does not fit together about them.
    doubts: Vec<String>,
    /// To be killed, the next one last.
    kills: Vec<Kill>,
    deaths: Deaths,
    restarts: Vec<Restart>,
    /// Those not back yet, by name, as places in `restarts`.
    missing: BTreeMap<String, usize>,
}

impl Stage {
    fn new(plan: Plan, live: Live, args: &Args) -> Result<Self, Failure> {
        let (to, from) = mpsc::unbounded_channel();
        let (tell, interrupted) = watch::channel(0);
        tokio::spawn(async move {
            while tokio::signal::ctrl_c().await.is_ok() {
                tell.send_modify(|times| *times += 1);
            }
        });
        let mut kills = args.kill.clone();
        kills.sort_by_key(|kill| std::cmp::Reverse(kill.after));
        Ok(Self {
            plan,
            live,
            running: Vec::new(),
            to,
            from,
            interrupted,
            regress: args.regress.clone(),
            began: Instant::now(),
            began_at: SystemTime::now(),
            nodes_ready_at: SystemTime::now(),
            standing: watch::Sender::new(Value::Null),
            shown: watch::Sender::new(Value::Null),
            addresses: Default::default(),
            listens: BTreeMap::new(),
            targets: Vec::new(),
            weights: BTreeMap::new(),
            lives: BTreeMap::new(),
            lives_begun: 0,
            ledgers: Vec::new(),
            doubts: Vec::new(),
            kills,
            deaths: Deaths::default(),
            restarts: Vec::new(),
            missing: BTreeMap::new(),
        })
    }

    async fn play(&mut self, args: &Args) -> Result<bool, Failure> {
        self.live.say("starting one aggregator, two agents, three search nodes");
        self.start_aggregator().await?;
        let url = format!("http://{}", self.addresses.1);
        self.start_agents().await?;
        let nodes = self.start_nodes().await?;
        self.live.say(&format!("dashboard: {url}/"));
        if !args.no_browser && !args.json {
            live::open_browser(&url);
        }
        let pids = self.running.iter().map(|r| format!("{} {}", r.name, r.pid()));
        self.live.say(&format!("processes: {}", pids.collect::<Vec<_>>().join(", ")));
        let mut latest = self.shown.subscribe();
        let follower = tokio::spawn({
            let (url, shown) = (url.clone(), self.shown.clone());
            async move {
                loop {
                    // A broken stream is taken up again; a dead aggregator is noticed elsewhere.
                    drop(snapshots::follow(&url, None, &shown).await);
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        });
        let api = canary::Api::new(&url).map_err(Failure::Internal)?;
        self.nodes_ready_at = SystemTime::now();
        self.live.say(canary::PLAN);
        api.start().await.map_err(Failure::Died)?;
        let watcher = tokio::spawn(api.clone().follow(self.standing.clone()));
        let load = self.load(args, &nodes, &mut latest).await?;
        watcher.abort();
        let last = self.standing.borrow().clone();
        self.live.say("queries done; waiting for the last samples to arrive");
        self.stop_nodes().await?;
        let settled = self.settle(&mut latest).await?;
        follower.abort();
        let onset = canary::onset(&self.regress, self.nodes_ready_at, self.began_at);
        let ending = canary::Ending::of(&api, &last, onset).await;
        let alerts = api.alerts().await.map_err(Failure::Died)?;
        let summary = summary::Summary::new(&summary::Facts {
            snapshot: &settled,
            ledgers: &self.ledgers,
            load: &load,
            corpus_files: nodes.iter().map(|node| node.files).max().unwrap_or(0),
            duration: self.began.elapsed(),
            regress: &args.regress,
            restarts: &self.restarts,
            doubts: &self.doubts,
            canary: &ending,
            alerts: &alerts,
        });
        self.live.summary(&summary, args.json);
        Ok(summary.reconciled)
    }

    /// Waits for the ready line of a child; any other child's end is a failure.
    async fn ready(
        &mut self,
        name: &str,
        patience: Duration,
        mut other: impl FnMut(&mut Live, &str, &Value),
    ) -> Result<Value, Failure> {
        let deadline = tokio::time::Instant::now() + patience;
        let mut interrupted = self.interrupted.clone();
        loop {
            let said = tokio::select! {
                said = self.from.recv() => said,
                _ = interrupted.wait_for(|times| *times > 0) => return Err(Failure::Interrupted),
                () = tokio::time::sleep_until(deadline) => {
                    let secs = patience.as_secs();
                    return Err(Failure::Died(format!("{name} was not ready within {secs} s")));
                }
            };
            match said {
                Some((who, Said::Line(line))) if who == name && line["event"] == "ready" => {
                    return Ok(line);
                }
                Some((who, Said::Line(line))) => other(&mut self.live, &who, &line),
                Some((who, Said::Ended)) => return Err(self.died(&who).await),
                None => return Err(Failure::Internal("lost its children's output".into())),
            }
        }
    }

    async fn died(&mut self, name: &str) -> Failure {
        let obituary = match self.running.iter_mut().find(|running| running.name == name) {
            Some(running) => running.obituary().await,
            None => format!("{name} ended"),
        };
        Failure::Died(obituary)
    }

    fn start(&mut self, name: &str, args: &[String]) -> Result<(), Failure> {
        // An earlier demo's log in a directory that was kept; a successor's goes on below.
        std::fs::remove_file(children::log(self.plan.dir(), name)).ok();
        let running = children::start(name, self.plan.dir(), args, &self.to);
        self.running.push(running.map_err(Failure::Internal)?);
        Ok(())
    }

    async fn start_aggregator(&mut self) -> Result<(), Failure> {
        self.start("aggregator", &self.plan.aggregator("127.0.0.1:0", &self.plan.http))?;
        let line = self.ready("aggregator", READY_MAX, |_, _, _| {}).await?;
        let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        self.addresses = (text("quic"), text("http"));
        Ok(())
    }

    async fn start_agents(&mut self) -> Result<(), Failure> {
        for host in plan::HOSTS {
            let name = plan::agent_name(host);
            self.start(&name, &self.plan.agent(host, &self.addresses.0))?;
            self.ready(&name, READY_MAX, |_, _, _| {}).await?;
        }
        Ok(())
    }

    async fn start_nodes(&mut self) -> Result<Vec<Node>, Failure> {
        for node in plan::NODES {
            let args = self.node_command(node);
            self.start(node.name, &args)?;
        }
        let mut early: Vec<(String, Value)> = Vec::new();
        let mut nodes = Vec::new();
        for node in plan::NODES {
            let known = early.iter().position(|(name, _)| name == node.name);
            let line = match known {
                Some(at) => early.swap_remove(at).1,
                None => {
                    self.ready(node.name, INDEXING_MAX, |live, who, line| match &line["event"] {
                        event if event == "indexing" => live.indexing(who, line),
                        event if event == "ready" => early.push((who.to_owned(), line.clone())),
                        _ => {}
                    })
                    .await?
                }
            };
            self.node_ready(node.name, &line)?;
            nodes.push(Node::ready(node.name, &line)?);
        }
        self.live.indexed(&nodes);
        Ok(nodes)
    }

    /// Sends queries until the time is over, showing what comes of them.
    async fn load(
        &mut self,
        args: &Args,
        nodes: &[Node],
        latest: &mut watch::Receiver<Value>,
    ) -> Result<SearchReport, Failure> {
        let urls: Vec<String> = nodes.iter().map(|node| node.url.clone()).collect();
        let seed = lens_benches::load::fresh_seed();
        let load = SearchLoad::new(&urls, args.rate, args.duration, seed);
        self.targets = load.targets.clone();
        let progress = std::sync::Arc::clone(&load.progress);
        let (stop, stopped) = watch::channel(false);
        let mut sending = tokio::spawn(lens_benches::load::search::run(load, async move {
            let mut stopped = stopped;
            stopped.wait_for(|on| *on).await.ok();
        }));
        (self.began, self.began_at) = (Instant::now(), SystemTime::now());
        let mut ticks = tokio::time::interval(self.live.interval());
        let (mut interrupted, mut again) = (self.interrupted.clone(), self.interrupted.clone());
        loop {
            let kill = self.next_kill();
            let kill_at = (self.began + kill.unwrap_or_default()).into();
            tokio::select! {
                done = &mut sending => {
                    let report = done.map_err(|error| Failure::Internal(error.to_string()))?;
                    return report.map_err(|error| Failure::Died(error.to_string()));
                }
                _ = ticks.tick() => {
                    let snapshot = latest.borrow_and_update().clone();
                    let canary = canary::line(&self.standing.borrow());
                    self.live.show(&snapshot, &canary, &progress, self.began.elapsed(), args.duration);
                }
                said = self.from.recv() => match said {
                    Some((who, said)) => self.heed(&who, said).await?,
                    None => return Err(Failure::Internal("lost its children's output".into())),
                },
                () = tokio::time::sleep_until(kill_at), if kill.is_some() => {
                    self.kill_due(self.began.elapsed());
                }
                _ = interrupted.wait_for(|times| *times > 0), if !*stop.borrow() => {
                    self.live.say("interrupted: ending early; interrupt again to stop at once");
                    stop.send_replace(true);
                }
                _ = again.wait_for(|times| *times > 1) => return Err(Failure::Interrupted),
            }
        }
    }

    /// Ends the nodes and collects what each says it recorded.
    async fn stop_nodes(&mut self) -> Result<(), Failure> {
        let is_node = |name: &str| plan::NODES.iter().any(|node| node.name == name);
        self.running.iter().filter(|running| is_node(&running.name)).for_each(Running::terminate);
        let deadline = tokio::time::Instant::now() + STOP_MAX;
        while self.running.iter().any(|running| is_node(&running.name)) {
            let said = tokio::select! {
                said = self.from.recv() => said,
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Failure::Died("a search node did not end when asked".into()));
                }
            };
            match said {
                Some((_, Said::Line(line))) if line["event"] == "recorded" => {
                    let ledger: Ledger = serde_json::from_value(line)
                        .map_err(|error| Failure::Internal(error.to_string()))?;
                    self.lives.remove(&ledger.instance);
                    self.ledgers.push(ledger);
                }
                Some((who, Said::Ended)) if is_node(&who) => self.node_ended(&who).await?,
                Some((who, said)) => self.heed(&who, said).await?,
                None => return Err(Failure::Internal("lost its children's output".into())),
            }
        }
        Ok(())
    }

    /// Waits until the aggregator has merged what was recorded, or until it no longer grows.
    async fn settle(&mut self, latest: &mut watch::Receiver<Value>) -> Result<Value, Failure> {
        let recorded: u64 =
            self.ledgers.iter().flat_map(|l| &l.series).map(|series| series.recorded).sum();
        let mut deadline = tokio::time::Instant::now() + SETTLE_MAX;
        // What a process that was started again would send a second time comes late.
        let mut looks = if self.restarts.is_empty() { 0 } else { LOOKS_AFTER_RESTARTS };
        loop {
            let snapshot = latest.borrow_and_update().clone();
            let merged = snapshot["totals"]["samples"].as_u64().unwrap_or(0);
            if merged >= recorded && !self.anyone_missing() {
                if looks == 0 {
                    return Ok(snapshot);
                }
                looks -= 1;
            }
            tokio::select! {
                changed = latest.changed() => {
                    changed.map_err(|error| Failure::Internal(error.to_string()))?;
                }
                said = self.from.recv() => match said {
                    Some((who, said)) => {
                        self.heed(&who, said).await?;
                        if self.anyone_missing() {
                            looks = LOOKS_AFTER_RESTARTS;
                            deadline = tokio::time::Instant::now() + SETTLE_MAX;
                        }
                    }
                    None => return Err(Failure::Internal("lost its children's output".into())),
                },
                () = tokio::time::sleep_until(deadline) => return Ok(snapshot),
            }
        }
    }

    /// Ends everything that still runs: agents before the aggregator they ship to.
    async fn stop_all(&mut self) {
        for name in ["node", "agent", "aggregator"] {
            let group = |running: &&mut Running| running.name.starts_with(name);
            self.running.iter_mut().filter(group).for_each(|running| running.terminate());
            for running in self.running.iter_mut().filter(group) {
                running.ended(STOP_MAX).await;
            }
        }
        self.plan.clean();
    }
}

/// One search node that answers queries.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    name: &'static str,
    url: String,
    files: u64,
    repos: u64,
    slices: usize,
    indexing_ms: u64,
}

impl Node {
    fn ready(name: &'static str, line: &Value) -> Result<Self, Failure> {
        let listen = line["listen"].as_str();
        let listen = listen.ok_or_else(|| Failure::Internal(format!("{name} gave no address")))?;
        Ok(Self {
            name,
            url: format!("http://{listen}"),
            files: line["files"].as_u64().unwrap_or(0),
            repos: line["repos"].as_u64().unwrap_or(0),
            slices: line["slices"].as_array().map_or(0, Vec::len),
            indexing_ms: line["indexing_ms"].as_u64().unwrap_or(0),
        })
    }
}
