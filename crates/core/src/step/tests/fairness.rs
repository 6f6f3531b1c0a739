//! Two nodes that drain under one budget, to the millisecond.

use super::scene::{Scene, scene};
use super::*;
use crate::drain::Refusal;

/// How long a pod's replacement takes to become Ready, in milliseconds.
const REPLACEMENT: u64 = 100;

/// The budget as it was written: when, how many it lets go, at which version.
type Written = (u64, usize, u64);

struct Drain {
    scene: Option<Scene>,
    pods: Vec<String>,
    /// How long after a write of the budget this node sees it, in milliseconds.
    lag: u64,
    /// How many writes it has seen.
    seen: usize,
}

impl Drain {
    fn new(lag: u64) -> Self {
        let pods = (0..6).map(|number| format!("web/{number}")).collect();
        Self { scene: Some(scene("")), pods, lag, seen: 0 }
    }

    /// A moment passes. The node sees one write of the budget after the other, and does what it decides on each.
    fn turn(&mut self, now: u64, budget: &mut Vec<Written>, back_at: &mut Vec<u64>) {
        let mut scene = self.scene.take().unwrap().after_millis(1);
        while let Some(&(_, allowed, version)) = budget.get(self.seen).filter(|(at, ..)| at + self.lag <= now) {
            self.seen += 1;
            let pods = self.pods.join("+");
            let cycle = "asks granted=7 draining=7 cordon=reboot-agent";
            scene = scene.then(&format!("{cycle} pods={pods} budgets=web:{allowed}:{version}"));
            self.act(&mut scene, now, budget, back_at);
        }
        self.act(&mut scene, now, budget, back_at);
        self.scene = Some(scene);
    }

    fn act(&mut self, scene: &mut Scene, now: u64, budget: &mut Vec<Written>, back_at: &mut Vec<u64>) {
        let Action::Evict(evicts) = scene.step().action else { return };
        for evict in evicts {
            scene.memory.evicting(&evict, scene.now());
            let (_, allowed, version) = *budget.last().unwrap();
            let reply = if allowed == 0 {
                EvictReply::Refused(Refusal::Budget("it is used up".into()))
            } else {
                budget.push((now, allowed - 1, version + 1));
                back_at.push(now + REPLACEMENT);
                self.pods.retain(|pod| *pod != evict.pod.uid);
                EvictReply::Accepted
            };
            scene.memory.evicted(&evict.pod.uid, reply, scene.now());
        }
    }
}

/// `lags`: how long after a write of the budget each of the two sees it.
#[track_caller]
fn check(lags: [u64; 2]) {
    let (mut budget, mut back_at): (Vec<Written>, _) = (vec![(0, 1, 1)], Vec::new());
    let mut drains = lags.map(Drain::new);
    for now in 0..12 * (REPLACEMENT + 60) {
        if back_at.contains(&now) {
            let (_, allowed, version) = *budget.last().unwrap();
            budget.push((now, allowed + 1, version + 1));
        }
        for drain in &mut drains {
            drain.turn(now, &mut budget, &mut back_at);
        }
        let left = drains.each_ref().map(|drain| drain.pods.len());
        assert!(left[0].abs_diff(left[1]) <= 1, "{left:?} pods are left after {now} ms");
    }
    assert!(drains.iter().all(|drain| drain.pods.is_empty()), "drained in the time that the replacements take");
}

#[test]
fn two_nodes_under_one_budget_take_turns_whoever_hears_of_it_first() {
    check([5, 5]);
    check([1, 25]);
    check([25, 1]);
    check([0, 12]);
    check([12, 0]);
    check([0, 29]);
}
