//! What one stream's window says: every host a stratum of its own, or one arm's hosts against the
//! other's.

use super::harm::{HarmBets, HarmWindow};
use super::hosts::{HostList, Spread};
use super::promotion::{PromotionBets, PromotionWindow};
use super::tally::{ArmTally, HostTally};
use super::unit::UnitWindow;

/// Evidence for harm of one stream's window, with and without each fold of hosts.
pub fn harm(
    bets: &HarmBets,
    tallies: &[HostTally],
    hosts: &HostList,
    spread: Spread,
) -> UnitWindow {
    let pool = |arm: fn(&HostTally) -> ArmTally| {
        tallies.iter().fold(ArmTally::default(), |sum, tally| sum.plus(&arm(tally)))
    };
    let (canary, baseline) = (pool(|tally| tally.canary), pool(|tally| tally.baseline));
    let (all, without) = match spread {
        Spread::Unknown => (HarmWindow::default(), Vec::new()),
        Spread::InHost => in_host(bets, tallies, hosts),
        Spread::HostSplit => split(bets, tallies, hosts, &canary, &baseline),
    };
    UnitWindow { all, without, canary, baseline }
}

fn in_host(
    bets: &HarmBets,
    tallies: &[HostTally],
    hosts: &HostList,
) -> (HarmWindow, Vec<HarmWindow>) {
    let mut all = HarmWindow::default();
    let mut own = vec![HarmWindow::default(); hosts.folds()];
    for tally in tallies.iter().filter(|tally| tally.canary != ArmTally::default()) {
        let window = bets.window(&tally.canary, &tally.baseline);
        all.add(&window);
        if let Some(fold) = hosts.get(tally.host).and_then(|host| host.fold) {
            own[fold].add(&window);
        }
    }
    let without = |own: HarmWindow| {
        let mut rest = all;
        rest.subtract(&own);
        rest
    };
    (all, own.into_iter().map(without).collect())
}

fn split(
    bets: &HarmBets,
    tallies: &[HostTally],
    hosts: &HostList,
    canary: &ArmTally,
    baseline: &ArmTally,
) -> (HarmWindow, Vec<HarmWindow>) {
    let without = |fold: usize| {
        let (mut c, mut b) = (*canary, *baseline);
        for tally in tallies {
            let Some(host) = hosts.get(tally.host) else { continue };
            if host.fold == Some(fold) {
                c = c.minus(&tally.canary);
            }
            if host.baseline_fold == Some(fold) {
                b = b.minus(&tally.baseline);
            }
        }
        bets.window(&c, &b)
    };
    (bets.window(canary, baseline), (0..hosts.folds()).map(without).collect())
}

/// Evidence of "not worse" of one stream's window.
pub fn not_worse(
    bets: &PromotionBets,
    tallies: &[HostTally],
    harm: &UnitWindow,
    spread: Spread,
) -> PromotionWindow {
    match spread {
        Spread::Unknown => PromotionWindow::default(),
        Spread::HostSplit => bets.window(&harm.canary, &harm.baseline),
        Spread::InHost => tallies.iter().fold(PromotionWindow::default(), |mut sum, tally| {
            sum.add(&bets.window(&tally.canary, &tally.baseline));
            sum
        }),
    }
}
