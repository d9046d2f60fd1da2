//! The hosts of a rollout: who carries which arm, and who is left out together.
//!
//! Whether every host carries both arms or each arm has hosts of its own is read from the requests
//! themselves. In the first case each host is a stratum of its own and its lasting speed drops out;
//! in the second it is the hosts that are compared.
//! Evidence is also kept without each host in turn, so that one bad host is not taken for a bad
//! version. Hosts are left out by *fold*: up to `FOLDS_MAX` hosts of an arm have a fold to
//! themselves, more share them in turn.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::placebo::HOSTS_MAX;

/// Sets of hosts that evidence is kept without.
pub const FOLDS_MAX: usize = 16;

/// Share of its requests below which a host does not carry an arm.
const CARRIES_MIN: f64 = 0.01;

/// The name that hosts past [`HOSTS_MAX`] are counted under.
pub const OTHERS: &str = "(others)";

/// How the arms are spread over hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// No canary request has been seen.
    #[default]
    Unknown,
    /// Most canary requests are served by hosts that serve the baseline as well.
    InHost,
    /// The canary has hosts of its own.
    HostSplit,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: Box<str>,
    /// Canary samples since the rollout began.
    pub canary: u64,
    /// Baseline samples since the rollout began.
    pub baseline: u64,
    /// The fold its canary is left out with.
    pub fold: Option<usize>,
    /// The fold its baseline is left out with when arms have hosts of their own.
    pub baseline_fold: Option<usize>,
}

impl Host {
    #[allow(clippy::cast_precision_loss)]
    fn carries(&self, own: u64) -> bool {
        own > 0 && own as f64 >= CARRIES_MIN * (self.canary.saturating_add(self.baseline)) as f64
    }

    /// Whether it carries the canary.
    pub fn carries_canary(&self) -> bool {
        self.carries(self.canary)
    }

    /// Whether it carries the baseline.
    pub fn carries_baseline(&self) -> bool {
        self.carries(self.baseline)
    }
}

/// All hosts, in order of appearance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostList {
    hosts: Vec<Host>,
    places: BTreeMap<Box<str>, usize>,
}

impl HostList {
    /// The place of a host, given one if it is new; past the limit all new ones share the last.
    pub fn place(&mut self, name: &str) -> usize {
        if let Some(&place) = self.places.get(name) {
            return place;
        }
        let last = HOSTS_MAX - 1;
        if self.hosts.len() > last {
            return last;
        }
        let name = if self.hosts.len() == last { OTHERS } else { name };
        let place = self.hosts.len();
        let host =
            Host { name: name.into(), canary: 0, baseline: 0, fold: None, baseline_fold: None };
        self.hosts.push(host);
        self.places.insert(name.into(), place);
        place
    }

    /// Counts samples of a host's arms in a window of the rollout.
    pub fn count(&mut self, place: usize, canary: u64, baseline: u64) {
        if let Some(host) = self.hosts.get_mut(place) {
            host.canary = host.canary.saturating_add(canary);
            host.baseline = host.baseline.saturating_add(baseline);
        }
    }

    /// Gives folds to hosts that need one by now.
    pub fn assign_folds(&mut self, spread: Spread) {
        let mut canaries = self.hosts.iter().filter(|host| host.fold.is_some()).count();
        let mut baselines = self.hosts.iter().filter(|host| host.baseline_fold.is_some()).count();
        for host in &mut self.hosts {
            if host.fold.is_none() && host.canary > 0 {
                host.fold = Some(canaries % FOLDS_MAX);
                canaries += 1;
            }
            let split = spread == Spread::HostSplit && host.baseline > 0;
            if host.baseline_fold.is_none() && split {
                host.baseline_fold = Some(baselines % FOLDS_MAX);
                baselines += 1;
            }
        }
    }

    /// The hosts.
    pub fn all(&self) -> &[Host] {
        &self.hosts
    }

    /// The host at a place.
    pub fn get(&self, place: usize) -> Option<&Host> {
        self.hosts.get(place)
    }

    /// How the arms are spread.
    #[allow(clippy::cast_precision_loss)]
    pub fn spread(&self) -> Spread {
        let canary = |host: &&Host| host.carries_canary();
        let all: u64 = self.hosts.iter().filter(canary).map(|host| host.canary).sum();
        let both: u64 = (self.hosts.iter().filter(canary))
            .filter(|host| host.carries_baseline())
            .map(|host| host.canary)
            .sum();
        match all {
            0 => Spread::Unknown,
            _ if both as f64 >= 0.5 * all as f64 => Spread::InHost,
            _ => Spread::HostSplit,
        }
    }

    /// Hosts that carry the canary, and hosts that carry the baseline.
    pub fn carriers(&self) -> (usize, usize) {
        let count = |carries: fn(&Host) -> bool| self.hosts.iter().filter(|h| carries(h)).count();
        (count(Host::carries_canary), count(Host::carries_baseline))
    }

    /// Folds in use.
    pub fn folds(&self) -> usize {
        let last = |fold: fn(&Host) -> Option<usize>| self.hosts.iter().filter_map(fold).max();
        let (canary, baseline) = (last(|host| host.fold), last(|host| host.baseline_fold));
        canary.max(baseline).map_or(0, |last| last + 1)
    }

    /// Canary samples that are left when a fold is left out.
    pub fn canary_without(&self, fold: usize) -> u64 {
        let kept = self.hosts.iter().filter(|host| host.fold != Some(fold));
        kept.fold(0, |sum, host| sum.saturating_add(host.canary))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(counts: &[(u64, u64)]) -> HostList {
        let mut list = HostList::default();
        for (at, (canary, baseline)) in counts.iter().enumerate() {
            let place = list.place(&format!("h{at}"));
            list.count(place, *canary, *baseline);
        }
        list
    }

    #[test]
    fn how_arms_are_spread_is_read_from_the_requests() {
        assert_eq!(list(&[]).spread(), Spread::Unknown);
        assert_eq!(list(&[(0, 900)]).spread(), Spread::Unknown);
        assert_eq!(list(&[(5, 95), (5, 95)]).spread(), Spread::InHost);
        assert_eq!(list(&[(100, 0), (0, 100), (0, 100)]).spread(), Spread::HostSplit);
        // A health check on the wrong arm does not make a host carry it.
        assert_eq!(list(&[(1_000, 1), (0, 1_000)]).spread(), Spread::HostSplit);
        // After the last step few requests keep the baseline, on every host.
        assert_eq!(list(&[(95, 5), (95, 5)]).spread(), Spread::InHost);
    }

    #[test]
    fn hosts_of_an_arm_have_a_fold_each_until_folds_run_out() {
        let mut few = list(&[(5, 95); 5]);
        few.assign_folds(Spread::InHost);
        let folds: Vec<_> = few.all().iter().map(|host| host.fold).collect();
        assert_eq!(folds, (0..5).map(Some).collect::<Vec<_>>());
        let mut many = list(&[(5, 95); FOLDS_MAX + 1]);
        many.assign_folds(Spread::InHost);
        assert_eq!((many.folds(), many.all()[FOLDS_MAX].fold), (FOLDS_MAX, Some(0)));
        assert_eq!(many.canary_without(0), 5 * (FOLDS_MAX as u64 - 1));
    }

    #[test]
    fn hosts_past_the_limit_are_counted_together() {
        let mut list = HostList::default();
        for at in 0..HOSTS_MAX - 1 {
            assert_eq!(list.place(&format!("h{at}")), at);
        }
        assert_eq!(list.place("one more"), HOSTS_MAX - 1);
        assert_eq!(list.place("another"), HOSTS_MAX - 1);
        assert_eq!(list.get(HOSTS_MAX - 1).map(|host| &*host.name), Some(OTHERS));
        assert_eq!(list.place("h7"), 7);
    }
}
