//! A process that was killed is started again, in the middle of whatever goes on.
//!
//! Only a kill (`SIGKILL`) is answered so: a process that ends by itself has a fault, which a
//! restart would hide. Each comes back where it was: the aggregator and the nodes at their
//! addresses, the agents at their segments.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::children::{self, Said};
use super::lives::{self, NodeLife, Restart};
use super::{Failure, Stage, plan};

/// Longest the status of a process is waited for whose output has ended.
const STATUS_MAX: Duration = Duration::from_secs(2);

/// Whether it was killed.
pub(super) fn killed(status: Option<ExitStatus>) -> bool {
    status.and_then(|status| status.signal()) == Some(Signal::KILL.as_raw())
}

impl Stage {
    /// Takes what a process said or did while everything should run.
    pub(super) async fn heed(&mut self, who: &str, said: Said) -> Result<(), Failure> {
        match said {
            Said::Ended => self.revive(who).await,
            Said::Line(line) if line["event"] == "ready" => self.back(who, &line),
            Said::Line(_) => Ok(()),
        }
    }

    /// Processes that were killed and are not back yet.
    pub(super) fn anyone_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Starts a killed process again.
    async fn revive(&mut self, who: &str) -> Result<(), Failure> {
        let now = Instant::now();
        let Some(dead) = self.running.iter_mut().find(|running| running.name == who) else {
            return Err(Failure::Internal(format!("{who} ended, which was never started")));
        };
        let status = dead.ended(STATUS_MAX).await;
        let too_often = self.deaths.one_too_many(who, now);
        if !killed(status) || too_often {
            let Failure::Died(mut what) = self.died(who).await else {
                return Err(Failure::Internal(format!("{who} ended")));
            };
            if too_often {
                what.push_str(&format!("\n    {}", lives::too_often()));
            }
            return Err(Failure::Died(what));
        }
        let on_the_way = self.bury(who);
        if who == "aggregator" {
            // What it last said of itself is not what its successor will say.
            self.shown.send_replace(Value::Null);
        }
        let args = self.command_of(who)?;
        let again = children::start(who, self.plan.dir(), &args, &self.to);
        let again = again.map_err(Failure::Internal)?;
        self.live.restarted(&format!("{who} was killed; started again as {}", again.pid()));
        self.running.retain(|running| running.name != who);
        self.running.push(again);
        self.missing.insert(who.to_owned(), self.restarts.len());
        let after = now.duration_since(self.began);
        self.restarts.push(Restart { process: who.into(), after, back_after: None, on_the_way });
        Ok(())
    }

    /// Takes the end of a node that was asked to end.
    pub(super) async fn node_ended(&mut self, who: &str) -> Result<(), Failure> {
        let Some(at) = self.running.iter().position(|running| running.name == who) else {
            return Ok(());
        };
        let status = self.running[at].ended(STATUS_MAX).await;
        // Said what it recorded: its life is told.
        if let Some(life) = self.lives.get(who) {
            if life.was_ready() && !killed(status) {
                let what = format!("{who} ended without saying what it recorded");
                return Err(Failure::Died(what));
            }
            self.bury(who);
        }
        self.missing.remove(who);
        self.running.remove(at);
        Ok(())
    }

    /// Ends a node's life: no more queries for it, and its inheritance is taken.
    pub(super) fn bury(&mut self, who: &str) -> Option<(u64, u64)> {
        let life = self.lives.remove(who)?;
        if let Some(target) = self.target(who) {
            let weight = target.weight();
            target.set_weight(0);
            if weight > 0 {
                self.weights.insert(who.to_owned(), weight);
            }
        }
        let inheritance = life.inherit(who);
        self.ledgers.extend(inheritance.ledger);
        self.doubts.extend(inheritance.doubt);
        Some(inheritance.on_the_way)
    }

    /// A killed process is ready again.
    fn back(&mut self, who: &str, line: &Value) -> Result<(), Failure> {
        let Some(restart) = self.missing.remove(who) else {
            return Ok(());
        };
        let restart = &mut self.restarts[restart];
        let back_after = self.began.elapsed().saturating_sub(restart.after);
        restart.back_after = Some(back_after);
        if plan::NODES.iter().any(|node| node.name == who) {
            self.node_ready(who, line)?;
            if let (Some(target), Some(weight)) = (self.target(who), self.weights.get(who)) {
                target.set_weight(*weight);
            }
        }
        self.live.say(&format!("{who} is back after {:.1} s", back_after.as_secs_f64()));
        Ok(())
    }

    /// Holds on to the memory of a node that is ready.
    pub(super) fn node_ready(&mut self, who: &str, line: &Value) -> Result<(), Failure> {
        let listen = line["listen"].as_str();
        let listen = listen.ok_or_else(|| Failure::Internal(format!("{who} gave no address")))?;
        self.listens.insert(who.to_owned(), listen.to_owned());
        let pid = self.running.iter().find(|running| running.name == who);
        let pid = pid.and_then(|running| u32::try_from(running.pid()).ok()).unwrap_or(0);
        let node = plan::NODES.iter().find(|node| node.name == who);
        let (Some(life), Some(node)) = (self.lives.get_mut(who), node) else {
            return Err(Failure::Internal(format!("{who} is ready, which was never started")));
        };
        // One that was killed since has recorded nothing, and its end is told of next.
        if let Err(error) = life.hold(&self.plan.segments(node.host), pid) {
            tracing::warn!(%error, who, "its memory is not held");
        }
        Ok(())
    }

    /// The command line that brings a process back to where it was.
    fn command_of(&mut self, who: &str) -> Result<Vec<String>, Failure> {
        if who == "aggregator" {
            let (quic, http) = self.addresses.clone();
            return Ok(self.plan.aggregator(&quic, &http));
        }
        if let Some(host) = plan::HOSTS.into_iter().find(|host| who == plan::agent_name(host)) {
            return Ok(self.plan.agent(host, &self.addresses.0));
        }
        let node = plan::NODES.into_iter().find(|node| node.name == who);
        let node = node.ok_or_else(|| Failure::Internal(format!("{who} is nobody's name")))?;
        Ok(self.node_command(node))
    }

    /// The command line of the next life of a node.
    pub(super) fn node_command(&mut self, node: plan::NodePlan) -> Vec<String> {
        self.lives_begun += 1;
        let ledger = self.plan.ledger(node, self.lives_begun);
        let listen = self.listens.get(node.name).map_or("127.0.0.1:0", String::as_str);
        let args = self.plan.node(node, listen, &ledger, &self.regress);
        self.lives.insert(node.name.to_owned(), NodeLife::new(ledger));
        args
    }

    fn target(&self, who: &str) -> Option<&lens_benches::load::search::Target> {
        let at = plan::NODES.iter().position(|node| node.name == who)?;
        self.targets.get(at)
    }

    /// Kills what is to be killed by now.
    pub(super) fn kill_due(&mut self, elapsed: Duration) {
        while self.kills.last().is_some_and(|kill| kill.after <= elapsed) {
            let Some(kill) = self.kills.pop() else { return };
            if let Some(running) = self.running.iter().find(|running| running.name == kill.name) {
                self.live.say(&format!("killing {}, as asked", kill.name));
                running.kill();
            }
        }
    }

    /// When the next is to be killed, after the first query.
    pub(super) fn next_kill(&self) -> Option<Duration> {
        self.kills.last().map(|kill| kill.after)
    }
}
