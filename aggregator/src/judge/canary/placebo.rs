//! How much more the counts of hosts differ than independent requests would: φ, from placebos.
//!
//! Requests of one host share its caches, neighbours and stalls, so a few hosts' requests carry less
//! than their number. Groups of hosts that all ran the baseline are compared with the rest as if
//! they were canaries; φ is how many times wider they scatter than independent requests, at the
//! worst of three time scales, with a quarter on top. Evidence is divided by it, which is to count
//! φ requests as one. A host's lasting difference is taken out here; it is what [`super::host_effect`]
//! is about.
//! Bounds: one hour of windows, `HOSTS_MAX` hosts each.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::evalue::Hits;
use super::harm::Phi;
use super::reference::N_LEVELS;
use super::tally::ArmTally;

/// Hosts that one comparison tells apart; more are counted together as one.
pub const HOSTS_MAX: usize = 256;

/// Windows kept: one hour.
const WINDOWS_MAX: usize = 720;

/// Time scales, in windows: 5 s, a minute, five minutes.
const BLOCKS: [usize; 3] = [1, 12, 60];

/// What is put on top of what was measured.
const SAFETY: f64 = 1.25;

/// Groups that pseudo-canaries of several hosts are drawn as.
const GROUPS: usize = 20;

/// Counts of one host's baseline window: exceedances by level and failures, of samples and requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct HostRow {
    host: u16,
    above: [u32; N_LEVELS],
    n: u32,
    failed: u32,
    requests: u32,
}

/// One window, and which levels had a threshold in it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    rows: Vec<HostRow>,
    levels: [bool; N_LEVELS],
}

/// The baseline's windows by host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Placebo {
    windows: VecDeque<Window>,
}

fn narrow(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn hits(hits: u32, n: u32) -> Hits {
    Hits { hits: u64::from(hits), n: u64::from(n) }
}

impl Placebo {
    /// Takes in one window of the baseline by host, hosts in any order, `levels` those compared.
    pub fn push(&mut self, hosts: &[(usize, ArmTally)], levels: [bool; N_LEVELS]) {
        let mut rows: Vec<HostRow> = hosts
            .iter()
            .filter(|(_, tally)| tally.n > 0 || tally.errors.n > 0)
            .map(|(host, tally)| HostRow {
                host: u16::try_from(*host).unwrap_or(u16::MAX),
                above: tally.above.map(narrow),
                n: narrow(tally.n),
                failed: narrow(tally.errors.hits),
                requests: narrow(tally.errors.n),
            })
            .collect();
        rows.sort_unstable_by_key(|row| row.host);
        self.windows.push_back(Window { rows, levels });
        if self.windows.len() > WINDOWS_MAX {
            self.windows.pop_front();
        }
    }

    /// Windows held in which some host had data.
    pub fn windows(&self) -> usize {
        self.windows.iter().filter(|window| !window.rows.is_empty()).count()
    }

    /// Hosts seen.
    pub fn hosts(&self) -> Vec<usize> {
        let rows = self.windows.iter().flat_map(|window| &window.rows);
        let mut hosts: Vec<usize> = rows.map(|row| usize::from(row.host)).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }

    /// φ of each level and of errors for pseudo-canaries of `size` hosts; 1 where nothing is known.
    pub fn phi(&self, size: usize) -> Phi {
        let hosts = self.hosts();
        let groups = groups(hosts.len(), size);
        let place = |row: &HostRow| hosts.binary_search(&usize::from(row.host)).unwrap_or(0);
        std::array::from_fn(|what| {
            let of = |row: &HostRow| match row.above.get(what) {
                Some(&above) => hits(above, row.n),
                None => hits(row.failed, row.requests),
            };
            let windows: Vec<Vec<Hits>> = (self.windows.iter())
                .map(|window| {
                    let mut by_host = vec![Hits::default(); hosts.len()];
                    if window.levels.get(what).copied().unwrap_or(true) {
                        window.rows.iter().for_each(|row| by_host[place(row)] = of(row));
                    }
                    by_host
                })
                .collect();
            dispersion(&windows, &groups, &BLOCKS)
        })
    }
}

/// Pseudo-canaries of `size` of `hosts`: each host alone, or groups drawn by a fixed sequence.
fn groups(hosts: usize, size: usize) -> Vec<Vec<usize>> {
    if size <= 1 || hosts <= size {
        return (0..hosts).map(|host| vec![host]).collect();
    }
    // A fixed sequence: the same history always gives the same φ.
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move |below: usize| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % below.max(1) as u64).unwrap_or(0)
    };
    let mut draw = || {
        let mut order: Vec<usize> = (0..hosts).collect();
        for at in 0..size {
            let other = at + next(hosts - at);
            order.swap(at, other);
        }
        order.truncate(size);
        order
    };
    (0..GROUPS).map(|_| draw()).collect()
}

/// max(1, 1.25 × the largest mean of Z² over the block lengths), Z the standardised difference of a
/// group's hits in a block from its long-run share of the block's.
fn dispersion(windows: &[Vec<Hits>], groups: &[Vec<usize>], lengths: &[usize]) -> f64 {
    let total = sum(windows.iter().flatten());
    let rate = |hits: Hits| hits.hits as f64 / hits.n as f64;
    let group_of = |hosts: &[Hits], group: &[usize]| sum(group.iter().map(|&host| &hosts[host]));
    let long_run: Vec<f64> = (groups.iter())
        .map(|group| {
            let own =
                windows.iter().fold(Hits::default(), |s, hosts| s.plus(group_of(hosts, group)));
            if own.n == 0 || total.hits == 0 { 1.0 } else { rate(own) / rate(total) }
        })
        .collect();
    let mut worst = 1.0_f64;
    for &length in lengths {
        let (mut squares, mut blocks) = (0.0, 0.0);
        for block in windows.chunks_exact(length) {
            let all = sum(block.iter().flatten());
            let p = if all.n == 0 { 0.0 } else { rate(all) };
            if p <= 0.0 || p >= 1.0 {
                continue;
            }
            for (group, relative) in groups.iter().zip(&long_run) {
                let own =
                    block.iter().fold(Hits::default(), |s, hosts| s.plus(group_of(hosts, group)));
                let (n, share) = (own.n as f64, own.n as f64 / all.n as f64);
                if own.n == 0 || own.n == all.n {
                    continue;
                }
                let off = own.hits as f64 - n * p * relative;
                squares += off * off / (p * (1.0 - p) * n * (1.0 - share));
                blocks += 1.0;
            }
        }
        if blocks > 0.0 {
            worst = worst.max(SAFETY * squares / blocks);
        }
    }
    worst
}

fn sum<'a>(hits: impl Iterator<Item = &'a Hits>) -> Hits {
    hits.fold(Hits::default(), |sum, hits| sum.plus(*hits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placebos_give_the_reference_dispersion() {
        let count = |t: u64, h: u64| Hits { hits: ((7 * t + 13 * h) % 11) * 5 + 10, n: 500 };
        let windows: Vec<Vec<Hits>> =
            (0..120).map(|t| (0..4).map(|h| count(t, h)).collect()).collect();
        let phi = dispersion(&windows, &groups(4, 1), &[1, 12]);
        assert!((phi - 11.469_403_056_422).abs() < 1e-6, "{phi}");
    }

    #[test]
    fn a_host_that_is_always_slower_does_not_raise_the_dispersion() {
        let count = |h: u64| Hits { hits: if h == 0 { 50 } else { 25 }, n: 500 };
        let windows: Vec<Vec<Hits>> = (0..120).map(|_| (0..4).map(count).collect()).collect();
        assert_eq!(dispersion(&windows, &groups(4, 1), &BLOCKS), 1.0);
    }

    #[test]
    fn groups_are_of_the_size_asked_for_and_always_the_same() {
        assert_eq!(groups(3, 1), vec![vec![0], vec![1], vec![2]]);
        let drawn = groups(20, 5);
        assert_eq!(drawn, groups(20, 5));
        for group in &drawn {
            let mut hosts = group.clone();
            hosts.sort_unstable();
            hosts.dedup();
            assert_eq!(hosts.len(), 5);
        }
        assert_eq!(groups(4, 9).len(), 4, "more asked for than there are");
    }

    #[test]
    fn without_history_the_dispersion_is_one() {
        assert_eq!(Placebo::default().phi(1), [1.0; 7]);
        assert_eq!(Placebo::default().windows(), 0);
    }

    #[test]
    fn an_hour_is_kept() {
        let mut placebo = Placebo::default();
        let tally = ArmTally { n: 10, ..ArmTally::default() };
        (0..=WINDOWS_MAX).for_each(|_| placebo.push(&[(0, tally)], [true; 6]));
        assert_eq!(placebo.windows(), WINDOWS_MAX);
    }
}
