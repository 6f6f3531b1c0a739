//! What the agent's process remembers of the evictions of the cycle under way.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::backoff::spread;
use crate::drain::{BudgetSeen, BudgetView, Budgets, Nature, PodRef, PodView, Refusal};

/// An eviction to be posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evict {
    /// Which pod.
    pub pod: PodRef,
    /// By which means.
    pub means: Means,
    /// How long its containers have to end; `None`: as the pod says.
    pub grace: Option<Duration>,
    /// What is known of its budgets; it belongs to the memory of the eviction.
    pub under: Under,
}

/// How a pod is made to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By an eviction, which its budgets can refuse.
    Eviction,
    /// By its deletion, which asks no budget.
    Deletion,
}

/// How an eviction was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EvictReply {
    /// The pod is being deleted, or is gone.
    Accepted,
    /// Not now.
    Refused(Refusal),
}

/// Under which knowledge of budgets an eviction was posted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Under {
    /// The budgets were not known.
    Unknown,
    /// No budget was to be asked, though these select the pod.
    Free(Vec<BudgetSeen>),
    /// This version of a budget was to be asked, one of these that select the pod.
    Budget(BudgetSeen, Vec<BudgetSeen>),
}

/// Evictions by the UID of the pod, and what was learnt from them.
#[derive(Clone, Debug)]
pub(super) struct Evictions {
    pods: BTreeMap<String, Eviction>,
    budgets: BTreeMap<String, BudgetMemory>,
    /// Since when budgets are looked for.
    looked_since: Option<Duration>,
    /// The pods that were there when the drain began, as far as this process has seen it.
    first: BTreeSet<String>,
    /// Until when those that are seen count as such; `None`: none were listed yet.
    first_until: Option<Duration>,
    /// How many pods were there that a drain may move when it was last looked at.
    pods_seen: Option<usize>,
    /// When that last changed, or an eviction was accepted.
    moved_at: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Eviction {
    tries: u32,
    means: Means,
    grace: Option<Duration>,
    under: Under,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    /// Without an answer; how the same was refused before, where it was.
    InFlight(Option<Refusal>),
    Accepted,
    Refused {
        refusal: Refusal,
        again_at: Duration,
    },
}

#[derive(Clone, Debug)]
struct BudgetMemory {
    version: String,
    /// Since when it has said without a break that it lets some go.
    open_since: Option<Duration>,
    /// When it was last heard of or tried.
    heard_at: Duration,
    /// How often it was tried since then, though it says that it lets none go.
    tries: u32,
    /// How many it let go by that version, and when this was seen.
    open: usize,
    version_at: Duration,
    /// When this node was the last whose pod it let go, as far as can be told.
    won_at: Option<Duration>,
}

impl Eviction {
    /// How this one was refused, where `next` only tries it again: by the same means, and with nothing new known of the
    /// budgets where these were the reason.
    fn refused_before(self, next: &Evict) -> Option<Refusal> {
        let refusal = match self.state {
            State::InFlight(before) => before?,
            State::Refused { refusal, .. } => refusal,
            State::Accepted => return None,
        };
        let is_same = (self.means, self.grace) == (next.means, next.grace);
        (is_same && (!refusal.is_of_budgets() || self.under == next.under)).then_some(refusal)
    }
}

/// How one pod's eviction stands.
pub(super) enum Standing<'a> {
    /// It has not been posted.
    New,
    /// It is posted, or was accepted.
    UnderWay,
    /// It was refused.
    Refused {
        refusal: &'a Refusal,
        /// What was known when it was posted.
        under: &'a Under,
        /// How long to wait if nothing else is heard.
        left: Duration,
    },
}

/// After a budget let one of this node's pods go, the other nodes that drain under it have so long to go first: longer
/// than a change takes to reach them, much shorter than a replacement takes to become Ready.
const YIELD: Duration = Duration::from_millis(30);

/// For how long after the first list of the pods those that are seen count as there when the drain began: a watch may be
/// late. No clock of the API server is looked at, for this machine's may differ.
const FIRST: Duration = Duration::from_secs(5);

/// How long the first list of the budgets is waited for. It comes within moments, where it comes at all.
const LISTING: Duration = Duration::from_secs(2);

impl Evictions {
    /// No evictions.
    pub(super) const fn none() -> Self {
        Self {
            pods: BTreeMap::new(),
            budgets: BTreeMap::new(),
            looked_since: None,
            first: BTreeSet::new(),
            first_until: None,
            pods_seen: None,
            moved_at: None,
        }
    }

    /// Takes in what the watch of the budgets shows.
    pub(super) fn observe(&mut self, budgets: &Budgets, now: Duration) {
        self.looked_since.get_or_insert(now);
        for budget in budgets.iter() {
            let known = self.budgets.entry(budget.seen.uid.clone()).or_insert_with(|| BudgetMemory {
                version: budget.seen.version.clone(),
                open_since: None,
                heard_at: now,
                tries: 0,
                open: budget.open(),
                version_at: now,
                won_at: None,
            });
            if known.version != budget.seen.version {
                // It let a pod go that is not ours: so another node had its turn.
                let taken = budget.open() < known.open;
                known.won_at = known.won_at.filter(|at| !taken || *at >= known.version_at);
                (known.heard_at, known.version_at, known.tries) = (now, now, 0);
                known.version.clone_from(&budget.seen.version);
            }
            known.open = budget.open();
            known.open_since = (budget.open() > 0).then(|| known.open_since.unwrap_or(now));
        }
    }

    /// Takes in what the watch of the pods shows.
    pub(super) fn observe_pods(&mut self, pods: &[PodView], now: Duration) {
        if now <= *self.first_until.get_or_insert(now.saturating_add(FIRST)) {
            self.first.extend(pods.iter().map(|pod| pod.pod.uid.clone()));
        }
        // Those of a DaemonSet come and go by themselves.
        let seen = pods.iter().filter(|pod| pod.nature == Nature::Ordinary).count();
        if self.pods_seen.replace(seen) != Some(seen) {
            self.moved_at = Some(now);
        }
    }

    /// Whether a pod came when the drain was under way.
    pub(super) fn came_later(&self, uid: &str) -> bool {
        self.first_until.is_some() && !self.first.contains(uid)
    }

    /// When a pod last went, came, or was told to go.
    pub(super) fn moved_at(&self) -> Option<Duration> {
        self.moved_at
    }

    pub(super) fn posted(&mut self, evict: &Evict, now: Duration) {
        if let Under::Budget(seen, _) = &evict.under
            && let Some(budget) = self.budgets.get_mut(&seen.uid)
        {
            budget.heard_at = now;
            budget.tries = budget.tries.saturating_add(u32::from(budget.open_since.is_none()));
        }
        let last = self.pods.remove(&evict.pod.uid);
        let tries = last.as_ref().map_or(0, |eviction| eviction.tries).saturating_add(1);
        let state = State::InFlight(last.and_then(|eviction| eviction.refused_before(evict)));
        let Evict { means, grace, under, .. } = evict.clone();
        self.pods.insert(evict.pod.uid.clone(), Eviction { tries, means, grace, under, state });
    }

    pub(super) fn answered(&mut self, uid: &str, reply: EvictReply, now: Duration, seed: u64) {
        let Some(eviction) = self.pods.get_mut(uid) else { return };
        if let Under::Budget(seen, _) = &eviction.under
            && let Some(budget) = self.budgets.get_mut(&seen.uid)
        {
            budget.won_at = (reply == EvictReply::Accepted).then_some(now);
        }
        eviction.state = match reply {
            EvictReply::Accepted => {
                self.moved_at = Some(now);
                State::Accepted
            }
            EvictReply::Refused(refusal) => {
                let pause = spread(refusal.pause(eviction.tries), seed, uid, eviction.tries);
                State::Refused { refusal, again_at: now.saturating_add(pause) }
            }
        };
    }

    pub(super) fn standing(&self, uid: &str, now: Duration) -> Standing<'_> {
        match self.pods.get(uid) {
            None => Standing::New,
            Some(Eviction { state: State::InFlight(_) | State::Accepted, .. }) => Standing::UnderWay,
            Some(Eviction { state: State::Refused { refusal, again_at }, under, .. }) => {
                Standing::Refused { refusal, under, left: again_at.saturating_sub(now) }
            }
        }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.pods.values().filter(|eviction| matches!(eviction.state, State::InFlight(_))).count()
    }

    pub(super) fn is_in_flight(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|eviction| matches!(eviction.state, State::InFlight(_)))
    }

    /// How the eviction that is tried again, and has no answer yet, was refused before.
    pub(super) fn tried_again(&self, uid: &str) -> Option<&Refusal> {
        match &self.pods.get(uid)?.state {
            State::InFlight(before) => before.as_ref(),
            State::Accepted | State::Refused { .. } => None,
        }
    }

    /// By which means and with which grace period a pod was evicted last.
    pub(super) fn last(&self, uid: &str) -> Option<(Means, Option<Duration>)> {
        self.pods.get(uid).map(|eviction| (eviction.means, eviction.grace))
    }

    /// How many pods are gone that were evicted.
    pub(super) fn gone(&self, pods: &[PodView]) -> usize {
        let there = |uid: &str| pods.iter().any(|pod| pod.pod.uid == uid);
        self.pods.iter().filter(|(uid, eviction)| matches!(eviction.state, State::Accepted) && !there(uid)).count()
    }

    /// How many of the evictions that this version of a budget lets through are used up: those without an answer, and
    /// those that were accepted after it, which the next version will count.
    pub(super) fn used(&self, seen: &BudgetSeen) -> usize {
        let counts = |eviction: &&Eviction| match (&eviction.under, &eviction.state) {
            (Under::Budget(under, _), State::InFlight(_)) => under.uid == seen.uid,
            (Under::Budget(under, _), State::Accepted) => under == seen,
            _ => false,
        };
        self.pods.values().filter(counts).count()
    }

    /// How long this node still lets the others go first under this budget.
    pub(super) fn yields(&self, budget: &BudgetView, now: Duration) -> Duration {
        let known = self.budgets.get(&budget.seen.uid).filter(|known| known.won_at.is_some());
        let until = known.and_then(|known| known.open_since).map(|since| since.saturating_add(YIELD));
        until.unwrap_or_default().saturating_sub(now)
    }

    /// How long until a budget that lets none go is tried all the same, because a change of it may have been missed.
    pub(super) fn probe_in(&self, budget: &BudgetView, now: Duration, seed: u64) -> Duration {
        let Some(known) = self.budgets.get(&budget.seen.uid) else { return Duration::ZERO };
        let tries = known.tries.saturating_add(1);
        let pause = Refusal::Budget(String::new()).pause(tries);
        known.heard_at.saturating_add(spread(pause, seed, &budget.seen.uid, tries)).saturating_sub(now)
    }

    /// How long the first list of the budgets may still be waited for.
    pub(super) fn listing(&self, now: Duration) -> Duration {
        self.looked_since.unwrap_or(now).saturating_add(LISTING).saturating_sub(now)
    }
}
