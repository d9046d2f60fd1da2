//! A campaign of kills: one aggregator, one agent, two search nodes, all recording and shipping
//! while one or two of them at a time are killed at random instants and started again.
//!
//! All choices come from one seed; the instants are real time, so a seed repeats the order of the
//! kills and not the interleaving. Every so many kills the nodes are killed too and the books are
//! made up: what their memories hold is what the aggregator must have merged, series by series,
//! requests as well.
#![allow(dead_code, unreachable_pub, reason = "each user needs a part of it")]

mod books;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use super::world::node::{self, Recorded, RecordingNode};
use super::world::{Agent, World, choices, holds, until};

pub use books::{Books, Report, Resumes};

/// Kills between two times the books are made up.
const KILLS_PER_BOOK: u64 = 20;

/// Lines shown of each log when the books do not agree.
const LOG_LINES: usize = 200;

/// Search nodes.
const NODES: usize = 2;

/// Longest from one kill to the next.
const BETWEEN_MICROS_MAX: u64 = 300_000;

/// Longest a process that is started lives that is killed before it is ready.
const STARTING_MICROS_MAX: u64 = 60_000;

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// One search node.
    Node,
    /// The agent.
    Agent,
    /// The aggregator.
    Aggregator,
    /// The agent and a search node, one right after the other.
    AgentAndNode,
    /// The aggregator and the agent.
    AggregatorAndAgent,
}

impl Victim {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Node, Self::Agent, Self::Aggregator, Self::AgentAndNode, Self::AggregatorAndAgent];

    /// The one of this name.
    ///
    /// # Errors
    /// The names there are.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|victim| victim.name() == name);
        found.ok_or_else(|| format!("name one of {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Agent => "agent",
            Self::Aggregator => "aggregator",
            Self::AgentAndNode => "agent+node",
            Self::AggregatorAndAgent => "aggregator+agent",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Orders {
    /// Who is killed, in turn.
    pub victims: Vec<Victim>,
    /// Kills, at most.
    pub kills: u64,
    /// Time, at most.
    pub time: Duration,
    /// Where all choices come from.
    pub seed: u64,
}

/// Everything that runs.
pub struct Campaign {
    // Processes end before the directory of the world goes.
    nodes: Vec<Option<RecordingNode>>,
    agent: Option<Agent>,
    world: World,
    rng: StdRng,
    lives: usize,
    recorded: Recorded,
    kills: BTreeMap<Victim, u64>,
    kills_starting: u64,
    resumes: Resumes,
    seed: u64,
}

impl Campaign {
    /// Starts everything.
    pub fn new(seed: u64) -> Self {
        let world = World::new(&[]);
        let agent = Some(world.agent("host-1", &[]));
        let mut campaign = Self {
            nodes: (0..NODES).map(|_| None).collect(),
            agent,
            world,
            rng: choices(seed),
            lives: 0,
            recorded: Recorded::default(),
            kills: BTreeMap::new(),
            kills_starting: 0,
            resumes: Resumes::default(),
            seed,
        };
        (0..NODES).for_each(|node| campaign.start_node(node));
        campaign
    }

    /// Kills as ordered, keeping the books; what came of it.
    ///
    /// It ends early with books that do not agree: nothing after that would mean anything.
    pub fn run(mut self, orders: Orders, mut say: impl FnMut(&str)) -> Report {
        let began = Instant::now();
        let mut done = 0;
        let mut books = Books::default();
        while done < orders.kills && began.elapsed() < orders.time {
            let round = KILLS_PER_BOOK.min(orders.kills - done);
            // Every kind comes up, however short the campaign.
            let number = |kills| usize::try_from(kills).unwrap();
            let first = number(done) % orders.victims.len();
            let victims = orders.victims.iter().cycle().skip(first);
            victims.take(number(round)).for_each(|victim| self.kill(*victim));
            done += round;
            books = self.make_up_books();
            say(&format!("{done} kills, {} samples: {books}", self.recorded.total()));
            if !books.agree() {
                self.tell_logs(&mut say);
                break;
            }
        }
        self.report(books, began.elapsed())
    }

    /// What the processes said last, for whoever looks for the reason.
    fn tell_logs(&mut self, say: &mut impl FnMut(&str)) {
        let logs = [
            self.agent.as_ref().map(|agent| agent.process.log()).unwrap_or_default(),
            self.world.aggregator().log(),
        ];
        for log in logs {
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(LOG_LINES)..].iter().for_each(|line| say(line));
        }
    }

    /// Kills at a random instant, starts again, and mostly waits until work goes on.
    fn kill(&mut self, victim: Victim) {
        self.wait_up_to(BETWEEN_MICROS_MAX);
        *self.kills.entry(victim).or_default() += 1;
        let node = self.rng.random_range(0..NODES);
        let merged = self.merged_total();
        let killed = Instant::now();
        match victim {
            Victim::Node => self.kill_node(node),
            Victim::Agent => self.kill_agent(),
            Victim::Aggregator => self.world.aggregator().kill(),
            Victim::AgentAndNode => {
                self.kill_agent();
                self.wait_up_to(3_000);
                self.kill_node(node);
            }
            Victim::AggregatorAndAgent => {
                self.world.aggregator().kill();
                self.wait_up_to(3_000);
                self.kill_agent();
            }
        }
        if self.rng.random_bool(0.25) {
            self.kill_starting(victim, node);
        }
        if matches!(victim, Victim::Aggregator | Victim::AggregatorAndAgent) {
            self.world.start_aggregator(&[]);
        }
        if self.agent.is_none() {
            self.agent = Some(self.world.start_agent("host-1", &[]));
        }
        if self.nodes[node].is_none() {
            self.start_node(node);
        }
        // Now and then the next comes in the middle of the recovery.
        if self.rng.random_bool(0.7) {
            self.until_resumed(node, merged);
            self.resumes.add(victim, killed.elapsed());
        }
    }

    /// Waits until the node is harvested and more is merged than before.
    fn until_resumed(&self, node: usize, merged: u64) {
        let segment = self.nodes[node].as_ref().and_then(|node| node.segment().file_name());
        let agent = self.agent.as_ref().expect("it was started again");
        until("work goes on", || {
            let status = agent.status()?;
            let segments = status["segments"].as_array().ok_or("no segments")?;
            let harvested = segments.iter().any(|held| {
                held["samples"].as_u64() > Some(0)
                    && held["file"].as_str() == segment.and_then(|name| name.to_str())
            });
            holds(harvested, &status["segments"])?;
            let now = self.world.merged()?.values().sum::<u64>();
            holds(now > merged, &(now, merged))
        });
    }

    /// Starts one of the victims and kills it before it is ready.
    fn kill_starting(&mut self, victim: Victim, node: usize) {
        self.kills_starting += 1;
        let mut process = match victim {
            Victim::Node => {
                let (instance, segments) = (instance(node), self.segments());
                // It waits for a word before it records, and does not get it.
                let oracle = self.world.dir().join("starting.oracle");
                node::start(&instance, &segments, &oracle, self.world.dir())
            }
            Victim::Agent | Victim::AgentAndNode => self.world.spawn_agent("host-1", &[]),
            Victim::Aggregator | Victim::AggregatorAndAgent => self.world.spawn_aggregator(&[]),
        };
        self.wait_up_to(STARTING_MICROS_MAX);
        process.kill();
    }

    fn kill_agent(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            agent.process.kill();
        }
    }

    fn kill_node(&mut self, node: usize) {
        if let Some(node) = self.nodes[node].take() {
            self.recorded.add(node.kill());
        }
    }

    fn start_node(&mut self, node: usize) {
        self.lives += 1;
        let (segments, dir) = (self.segments(), self.world.dir());
        self.nodes[node] = Some(RecordingNode::new(&instance(node), &segments, dir, self.lives));
    }

    fn segments(&self) -> std::path::PathBuf {
        self.world.segments("host-1")
    }

    fn wait_up_to(&mut self, micros: u64) {
        std::thread::sleep(Duration::from_micros(self.rng.random_range(0..micros)));
    }

    fn merged_total(&self) -> u64 {
        until("merged", || Ok(self.world.merged()?.values().sum()))
    }

    /// Kills the nodes, holds their memories against the aggregator, kills that and looks again.
    fn make_up_books(&mut self) -> Books {
        (0..NODES).for_each(|node| self.kill_node(node));
        let books = Books::wait(&self.world, &self.recorded);
        if !books.agree() {
            return books;
        }
        if let Some(agent) = &self.agent {
            agent.until_acknowledged();
        }
        // What was acknowledged is durable: an aggregator that never saw it arrive says the same.
        self.world.aggregator().kill();
        self.world.start_aggregator(&[]);
        let books = Books::wait(&self.world, &self.recorded);
        (0..NODES).for_each(|node| self.start_node(node));
        books
    }

    fn report(mut self, books: Books, elapsed: Duration) -> Report {
        (0..NODES).for_each(|node| self.kill_node(node));
        Report {
            seed: self.seed,
            kills: self.kills.iter().map(|(victim, n)| (victim.name().to_owned(), *n)).collect(),
            kills_total: self.kills.values().sum(),
            kills_starting: self.kills_starting,
            node_lives: self.lives,
            in_flight_max: self.recorded.in_flight_max,
            in_flight_made: self.recorded.in_flight_made,
            resume: self.resumes.summary(),
            elapsed_s: elapsed.as_secs_f64(),
            books,
        }
    }
}

fn instance(node: usize) -> String {
    format!("node-{}", node + 1)
}
