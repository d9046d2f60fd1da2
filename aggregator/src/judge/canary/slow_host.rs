//! Hosts that are slower than the other hosts of their arm.
//!
//! The same bet as between the arms, between one host and the rest that serve the same arm: a slow
//! version slows all its hosts alike and is nothing here, a slow machine slows what runs on it
//! whatever its version. A host needs two others to differ from.
//! Bounds: `HOSTS_MAX` hosts of two arms a stage; a slow host is named once for each arm.

use lens_model::{Arm, Stage};
use serde::{Deserialize, Serialize};

use super::evalue::{Hits, OddsBet};
use super::process::{Mixture, tempered};
use super::reference::Thresholds;
use super::tally::{ArmTally, HostTally, SLOW_LEVELS};
use crate::judge::math::{exp, ln, ln_sum_exp};

/// Strengths bet on, as logarithms of odds ratios: a slow host is not slightly slow.
const LN_PSI: [f64; 3] = [0.4, 0.8, 1.6];

/// Least evidence, nats: more than half a minute's windows can add, so that a stall of 30 s does not
/// make a host slow.
const LN_E_MIN: f64 = 8.0;

/// Hosts of an arm among which one may be called slow.
const HOSTS_MIN: usize = 3;

/// Evidence against one host's arm.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Watched {
    levels: [Mixture<3>; 2],
    /// Requests of the host and of its peers, above the edge and in all, by level.
    own: [Counted; 2],
    peers: [Counted; 2],
    named: bool,
}

/// How many of some requests exceeded a threshold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Those that did.
    pub above: u64,
    /// All of them.
    pub n: u64,
}

impl Counted {
    pub(super) fn add(&mut self, hits: Hits) {
        self.above = self.above.saturating_add(hits.hits);
        self.n = self.n.saturating_add(hits.n);
    }
}

/// A host found slow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SlowHost {
    /// The stage it is slow at.
    pub stage: Stage,
    /// The arm whose other hosts it is slower than.
    pub arm: Arm,
    /// Its name.
    pub host: Box<str>,
    /// Logarithm of the evidence.
    pub ln_e: f64,
    /// What it had to reach.
    pub bound: f64,
    /// The quantile of the baseline whose exceedance shows it best.
    pub level: f64,
    /// Its requests above that quantile times the margin.
    pub own: Counted,
    /// Its peers' requests above that quantile.
    pub peers: Counted,
}

/// The watch over one stage's hosts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SlowHosts {
    /// By host, then by arm.
    watched: Vec<[Watched; 2]>,
}

/// The bets on one stream's window.
#[derive(Clone, Debug)]
pub struct SlowBets([Option<[OddsBet; 3]>; 2]);

impl SlowBets {
    /// Bets around the baseline's rates of exceeding its thresholds.
    pub fn new(thresholds: &Thresholds) -> Self {
        let bets = |pi: f64| LN_PSI.map(|ln_psi| OddsBet::new(pi, exp(ln_psi)));
        Self(SLOW_LEVELS.map(|level| thresholds[level].map(|t| bets(t.pi))))
    }
}

/// One window's evidence by host and arm, neither tempered nor capped: slices add up.
#[derive(Clone, Debug, Default)]
pub struct SlowWindow {
    hosts: Vec<[[[f64; 3]; 2]; 2]>,
    seen: Vec<[[(Hits, Hits); 2]; 2]>,
}

fn arm_of(tally: &HostTally, arm: usize) -> &ArmTally {
    if arm == 0 { &tally.baseline } else { &tally.canary }
}

impl SlowWindow {
    /// Adds one stream's window.
    pub fn add(&mut self, hosts: &[HostTally], bets: &SlowBets) {
        for arm in 0..2 {
            let carriers = hosts.iter().filter(|tally| arm_of(tally, arm).n > 0).count();
            if carriers < HOSTS_MIN {
                continue;
            }
            let all = hosts.iter().fold(ArmTally::default(), |s, t| s.plus(arm_of(t, arm)));
            for tally in hosts {
                self.add_host(tally.host, arm, arm_of(tally, arm), &all, bets);
            }
        }
    }

    fn add_host(
        &mut self,
        host: usize,
        arm: usize,
        own: &ArmTally,
        all: &ArmTally,
        bets: &SlowBets,
    ) {
        if self.hosts.len() <= host {
            self.hosts.resize(host + 1, [[[0.0; 3]; 2]; 2]);
            self.seen.resize(host + 1, [[(Hits::default(), Hits::default()); 2]; 2]);
        }
        let peers = all.minus(own);
        for (which, &level) in SLOW_LEVELS.iter().enumerate() {
            let Some(bets) = &bets.0[which] else { continue };
            let own = Hits { hits: own.above_slow[which], n: own.n };
            let peers = Hits { hits: peers.above_plain[level], n: peers.n };
            let sums = &mut self.hosts[host][arm][which];
            sums.iter_mut().zip(bets).for_each(|(sum, bet)| *sum += bet.ln_e(own, peers));
            let seen = &mut self.seen[host][arm][which];
            *seen = (seen.0.plus(own), seen.1.plus(peers));
        }
    }
}

impl SlowHosts {
    /// Takes in one window, `mass` of the evidence starting with it.
    pub fn take(&mut self, window: &SlowWindow, started: f64, mass: f64, phi: f64) {
        while self.watched.len() < window.hosts.len() {
            let mut watched = Watched::default();
            watched.levels.iter_mut().for_each(|mixture| mixture.start(started));
            self.watched.push([watched.clone(), watched]);
        }
        for (host, arms) in self.watched.iter_mut().enumerate() {
            for (arm, watched) in arms.iter_mut().enumerate() {
                for which in 0..2 {
                    let mixture = &mut watched.levels[which];
                    mixture.start(mass);
                    let Some(hosts) = window.hosts.get(host) else { continue };
                    mixture.multiply(&hosts[arm][which].map(|ln_e| tempered(ln_e, phi)));
                    let (own, peers) = window.seen[host][arm][which];
                    watched.own[which].add(own);
                    watched.peers[which].add(peers);
                }
            }
        }
    }

    /// The hosts whose evidence has reached the bound since they were last asked for.
    #[allow(clippy::cast_precision_loss)]
    pub fn found(
        &mut self,
        stage: Stage,
        alpha: f64,
        name: impl Fn(usize) -> Box<str>,
    ) -> Vec<SlowHost> {
        let bound = ln(2.0 * self.watched.len().max(1) as f64 / alpha).max(LN_E_MIN);
        let mut found = Vec::new();
        for (host, arms) in self.watched.iter_mut().enumerate() {
            for (arm, watched) in Arm::ALL.into_iter().zip(arms) {
                let by_level = [watched.levels[0].ln_e(), watched.levels[1].ln_e()];
                let ln_e = ln_sum_exp(by_level) - ln(2.0);
                if watched.named || ln_e < bound {
                    continue;
                }
                watched.named = true;
                let which = usize::from(by_level[1] > by_level[0]);
                found.push(SlowHost {
                    stage,
                    arm,
                    host: name(host),
                    ln_e,
                    bound,
                    level: super::reference::LEVELS[SLOW_LEVELS[which]],
                    own: watched.own[which],
                    peers: watched.peers[which],
                });
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::canary::reference::Threshold;

    fn tally(host: usize, above: u64) -> HostTally {
        let arm = ArmTally {
            n: 100,
            above: [above; 6],
            above_plain: [above; 6],
            above_slow: [above; 2],
            ..ArmTally::default()
        };
        HostTally { host, baseline: arm, ..HostTally::default() }
    }

    fn named(hosts: usize, slow: u64, windows: usize) -> Vec<(Box<str>, Arm)> {
        let bets = SlowBets::new(&[Some(Threshold { edge: 9, pi: 0.05 }); 6]);
        let mut watch = SlowHosts::default();
        let mut found = Vec::new();
        for t in 0..windows {
            let mut window = SlowWindow::default();
            let tallies: Vec<_> =
                (0..hosts).map(|h| tally(h, if h == 1 { slow } else { 5 })).collect();
            window.add(&tallies, &bets);
            watch.take(&window, 0.0, if t == 0 { 1.0 } else { 0.0 }, 1.25);
            found.extend(watch.found(Stage::A, 0.05, |h| format!("h{h}").into()));
        }
        found.into_iter().map(|slow| (slow.host, slow.arm)).collect()
    }

    #[test]
    fn a_host_slower_than_its_peers_is_named_once() {
        assert_eq!(named(5, 25, 60), vec![("h1".into(), Arm::Baseline)]);
    }

    #[test]
    fn a_host_like_its_peers_or_without_two_of_them_is_not_named() {
        assert_eq!(named(5, 5, 700), vec![]);
        assert_eq!(named(2, 50, 700), vec![]);
    }

    #[test]
    fn a_stall_of_half_a_minute_does_not_make_a_host_slow() {
        assert_eq!(named(5, 90, 6), vec![]);
    }
}
