//! How the drain of the cycle under way stands, and which pods it evicts next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Situation;
use super::evictions::{Evictions, Standing, Under};
use crate::drain::{BudgetView, Guard, PodRef, PodView, Refusal, remaining};

/// How many evictions may be without an answer at once.
const EVICTIONS_IN_FLIGHT: usize = 8;

/// An eviction to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evict {
    /// Which pod.
    pub pod: PodRef,
    /// What is known of its budgets; it belongs to the memory of the eviction.
    pub under: Under,
}

pub(super) enum Progress {
    /// The pods have not been listed yet.
    NotListed,
    /// Nothing that has to go is left.
    Done,
    /// Some pods are left.
    Going {
        /// To be evicted now.
        evict: Vec<Evict>,
        /// How it stands, for people.
        status: String,
        /// How long until time alone makes a pod due.
        retry: Option<Duration>,
    },
}

/// What the drain does about one pod now.
enum Turn {
    /// It is evicted, under this knowledge.
    Evict(Under),
    /// Its eviction is posted or accepted.
    UnderWay,
    /// It waits for the answer to another eviction, or for a moment.
    Soon(Option<Duration>),
    /// It cannot go, for this reason; how long until it is tried if nothing else is heard.
    Blocked(String, Duration),
}

pub(super) fn progress(s: &Situation<'_>) -> Progress {
    let Some(pods) = &s.host.pods else { return Progress::NotListed };
    let mut round = Round::new(s, pods);
    let (mut left, mut evict, mut retry, mut blocked) = (0_usize, Vec::new(), None::<Duration>, None);
    let mut wake_in = |delay: Duration| retry = Some(retry.map_or(delay, |retry| retry.min(delay)));
    for pod in remaining(pods) {
        left += 1;
        if pod.terminating {
            continue;
        }
        match round.turn(pod) {
            Turn::Evict(under) => evict.push(Evict { pod: pod.pod.clone(), under }),
            Turn::UnderWay => {}
            Turn::Soon(delay) => delay.into_iter().for_each(&mut wake_in),
            Turn::Blocked(why, delay) => {
                wake_in(delay);
                blocked.get_or_insert_with(|| format!("; {} is {why}", pod.pod));
            }
        }
    }
    if left == 0 {
        return Progress::Done;
    }
    let status = format!("Draining: {left} pods left{}", blocked.unwrap_or_default());
    Progress::Going { evict, status, retry }
}

/// One look at all pods. What it decides for one pod counts for the next.
struct Round<'a> {
    evictions: &'a Evictions,
    s: &'a Situation<'a>,
    now: Duration,
    seed: u64,
    /// How many evictions more may be posted.
    room: usize,
    /// The controllers one of whose pods is asked for, or was refused.
    busy: BTreeSet<&'a str>,
    /// How many evictions this round posts under each budget.
    posts: BTreeMap<&'a str, usize>,
}

impl<'a> Round<'a> {
    fn new(s: &'a Situation<'a>, pods: &'a [PodView]) -> Self {
        let (evictions, now) = (s.memory.evictions(), s.now.mono);
        let is_busy = |pod: &&PodView| match evictions.standing(&pod.pod.uid, now) {
            Standing::Refused { refusal, left, .. } => refusal.is_of_budgets() && !left.is_zero(),
            _ => evictions.is_in_flight(&pod.pod.uid),
        };
        let busy = pods.iter().filter(is_busy).filter_map(|pod| pod.controller.as_deref()).collect();
        let room = EVICTIONS_IN_FLIGHT.saturating_sub(evictions.in_flight());
        Self { evictions, s, now, seed: s.memory.seed(), room, busy, posts: BTreeMap::new() }
    }

    fn turn(&mut self, pod: &'a PodView) -> Turn {
        let standing = self.evictions.standing(&pod.pod.uid, self.now);
        match &standing {
            Standing::UnderWay => return Turn::UnderWay,
            Standing::Refused { refusal, left, .. } if !refusal.is_of_budgets() && !left.is_zero() => {
                return Turn::Blocked(format!("refused: {refusal}"), *left);
            }
            Standing::Refused { .. } | Standing::New => {}
        }
        let turn = match self.s.host.budgets.guard(pod) {
            Guard::Unknown => self.without_knowledge(pod, &standing),
            Guard::Free => retry_when_new(Under::Free, &standing),
            Guard::One(budget) => self.under(budget, &standing),
            Guard::Several(budget, other) => {
                let names = format!("PodDisruptionBudgets {} and {}", budget.name, other.name);
                self.probe(budget, format!("guarded by more than one, {names}: the API server evicts no such pod"))
            }
        };
        match turn {
            Turn::Evict(_) if self.room == 0 => Turn::Soon(None),
            Turn::Evict(under) => {
                self.room -= 1;
                self.busy.extend(pod.controller.as_deref());
                if let Guard::One(budget) | Guard::Several(budget, _) = self.s.host.budgets.guard(pod) {
                    *self.posts.entry(&budget.seen.uid).or_default() += 1;
                }
                Turn::Evict(under)
            }
            turn => turn,
        }
    }

    /// The budgets are not known, and cannot be had: one pod of a controller at a time finds out whether there is one.
    fn without_knowledge(&self, pod: &PodView, standing: &Standing<'_>) -> Turn {
        let listing = self.evictions.listing(self.now);
        if !listing.is_zero() {
            return Turn::Soon(Some(listing));
        }
        match retry_when_new(Under::Unknown, standing) {
            Turn::Evict(_) if pod.controller.as_deref().is_some_and(|uid| self.busy.contains(uid)) => Turn::Soon(None),
            turn => turn,
        }
    }

    /// One budget is asked: not more pods at once than it lets go, and none that it has refused as it is.
    fn under(&self, budget: &'a BudgetView, standing: &Standing<'_>) -> Turn {
        let posts = self.posts.get(budget.seen.uid.as_str()).copied().unwrap_or_default();
        let used = self.evictions.used(&budget.seen).saturating_add(posts);
        if budget.open() == 0 {
            let why = if budget.stale { "whose status is out of date" } else { "which allows no disruption now" };
            return self.probe(budget, format!("blocked by PodDisruptionBudget {}, {why}", budget.name));
        }
        if budget.open() <= used {
            return Turn::Soon(None);
        }
        let yields = self.evictions.yields(budget, self.now);
        if !yields.is_zero() {
            return Turn::Soon(Some(yields));
        }
        retry_when_new(Under::Budget(budget.seen.clone()), standing)
    }

    /// The API server would refuse: it is asked only once nothing has been heard for a while.
    fn probe(&self, budget: &'a BudgetView, why: String) -> Turn {
        let posted = self.posts.contains_key(budget.seen.uid.as_str()) || self.evictions.used(&budget.seen) > 0;
        match self.evictions.probe_in(budget, self.now, self.seed) {
            Duration::ZERO if !posted => Turn::Evict(Under::Budget(budget.seen.clone())),
            Duration::ZERO => Turn::Soon(None),
            left => Turn::Blocked(why, left),
        }
    }
}

/// A pod that a budget refused is tried again at once where something else is known now than when it was refused, and
/// else after the pause.
fn retry_when_new(under: Under, standing: &Standing<'_>) -> Turn {
    match standing {
        Standing::Refused { refusal, under: before, left } if **before == under && !left.is_zero() => {
            Turn::Blocked(refused(refusal), *left)
        }
        _ => Turn::Evict(under),
    }
}

fn refused(refusal: &Refusal) -> String {
    format!("refused: {refusal}")
}
