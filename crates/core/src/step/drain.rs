//! How the drain of the cycle under way stands, and which pods it evicts next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::evictions::{Evict, Evictions, Means, Standing, Under};
use super::told::Told;
use super::volumes::{self, Detach};
use super::{Action, Note, Situation, Step};
use crate::drain::{BudgetView, Fate, Guard, PodView, Refusal};
use crate::{earlier, until};

/// How long no pod has gone before an Event says what blocks the drain. Until then it is the usual wait for a replacement.
const STANDSTILL: Duration = Duration::from_secs(30);

/// How long after the end of its grace period a pod may still be there: kubelet kills its containers then, and tidies up.
const OVERDUE: Duration = Duration::from_secs(10);

/// How long the containers have to end once the drain has taken too long for more.
pub(super) const SHORT_GRACE: Duration = Duration::from_secs(10);

/// Where the drain stands.
pub(super) enum Stage {
    /// The pods have not been listed yet.
    NotListed,
    /// The pods are gone, and volumes of theirs are still attached: which, where they are listed, and for how long they
    /// are waited for.
    Detaching(Option<Vec<String>>, Duration),
    /// Nothing that has to go is left, apart from these volumes, which have been waited for long enough.
    Done(Vec<String>),
    /// Some pods are left.
    Going(Going),
}

/// A drain that is not done.
pub(super) struct Going {
    /// The pods that have to go and are still there.
    pub(super) remaining: Vec<String>,
    /// To be evicted now.
    evict: Vec<Evict>,
    /// What is told about these.
    notes: Vec<Note>,
    /// How it stands, for people.
    status: String,
    /// How long until time alone changes something.
    retry: Option<Duration>,
}

impl Going {
    pub(super) fn step(self) -> Step {
        let action = if self.evict.is_empty() { Action::Wait } else { Action::Evict(self.evict) };
        Step { action, status: Some(self.status), wake: self.retry, notes: self.notes }
    }
}

/// What the drain does about one pod now.
enum Turn {
    /// It is evicted, under this knowledge.
    Evict(Under),
    /// Its eviction is posted or accepted.
    UnderWay,
    /// It waits for the answer to another eviction, or for a moment.
    Soon(Option<Duration>),
    /// It cannot go, for this reason; how long until it is tried if nothing else is heard, where it is not being tried now.
    Blocked(String, Option<Duration>),
}

/// Where the drain stands now.
pub(super) fn stage(s: &Situation<'_>) -> Stage {
    let Some(pods) = &s.host.pods else { return Stage::NotListed };
    let evictions = s.memory.evictions();
    let sorted = pods.iter().map(|pod| (pod, s.policy.drain.fate(pod, evictions.came_later(&pod.pod.uid), s.now.wall)));
    let going: Vec<_> = sorted.filter(|(_, fate)| fate.must_go()).collect();
    if going.is_empty() {
        return match volumes::detach(s) {
            Detach::Done => Stage::Done(Vec::new()),
            Detach::Awaited(volumes, left) => Stage::Detaching(volumes, left),
            Detach::Left(volumes) => Stage::Done(volumes),
        };
    }
    let mut outlook = Outlook::default();
    outlook.wake_at_next_escalation(s);
    for (pod, _) in &going {
        outlook.wake_when_stuck(pod, s);
    }
    match going.iter().find_map(|(pod, fate)| Some((pod, fate.blocks()?))) {
        Some((pod, why)) => outlook.blocked = Some(format!("{} blocks the drain: {why}", pod.pod)),
        None => take_turns(s, pods, &going, &mut outlook),
    }
    let remaining: Vec<String> = going.iter().map(|(pod, _)| pod.pod.to_string()).collect();
    let all = remaining.len().saturating_add(s.memory.evictions().gone(pods));
    let why = outlook.say_what_blocks(s).or_else(|| last_deadline(&going));
    let why = why.map(|why| format!("; {why}")).unwrap_or_default();
    let status = format!("Draining: {} of {all} pods left{why}", remaining.len());
    let notes = outlook.told.notes();
    Stage::Going(Going { remaining, evict: outlook.evict, notes, status, retry: outlook.retry })
}

/// The pod whose grace period ends last, and when that is; `None` where no pod is ending.
fn last_deadline(going: &[(&PodView, Fate)]) -> Option<String> {
    let ending = going.iter().filter_map(|(pod, _)| Some((pod.ends_at?, pod)));
    let (at, last) = ending.max_by_key(|(at, _)| *at)?;
    Some(format!("{} has until {at} to end", last.pod))
}

/// What comes of a look at all pods.
#[derive(Default)]
struct Outlook {
    evict: Vec<Evict>,
    told: Told,
    retry: Option<Duration>,
    blocked: Option<String>,
    /// What should be over, but is not.
    overdue: Option<String>,
}

impl Outlook {
    fn wake_in(&mut self, delay: Duration) {
        self.retry = earlier(self.retry, Some(delay));
    }

    /// What blocks, in the words of the status. Where it goes on for long, people are told in an Event as well.
    fn say_what_blocks(&mut self, s: &Situation<'_>) -> Option<String> {
        let why = self.blocked.take().or(self.overdue.take())?;
        let since = s.memory.evictions().moved_at().unwrap_or(s.now.mono);
        let left = since.saturating_add(STANDSTILL).saturating_sub(s.now.mono);
        if !left.is_zero() {
            self.wake_in(left);
            return Some(why);
        }
        // What is evicted is told of at once, and this with the status.
        if self.evict.is_empty() {
            self.told.blocked = Some(why.clone());
        }
        Some(format!("{why}; no pod has gone for {}s", STANDSTILL.as_secs()))
    }

    /// Notes a terminating pod that is still there [`OVERDUE`] after its grace period: a finalizer holds it, or kubelet
    /// cannot remove it. Until then, wakes at that moment.
    fn note_if_overdue(&mut self, pod: &PodView, s: &Situation<'_>) {
        let Some(ends_at) = pod.ends_at else { return };
        match until(ends_at.checked_add(OVERDUE).unwrap_or(Timestamp::MAX), s.now) {
            Some(left) => self.wake_in(left),
            None => drop(self.overdue.get_or_insert_with(|| format!("{} should have ended at {ends_at}", pod.pod))),
        }
    }

    /// Time alone makes the drain less patient.
    fn wake_at_next_escalation(&mut self, s: &Situation<'_>) {
        let (rules, spent) = (&s.policy.drain, s.memory.spent(s.now));
        let escalations = [rules.shorten_after, rules.delete_after].into_iter().flatten();
        escalations.filter(|after| *after > spent).for_each(|after| self.wake_in(after.saturating_sub(spent)));
    }

    /// Time alone makes it leave a pod that does not end.
    fn wake_when_stuck(&mut self, pod: &PodView, s: &Situation<'_>) {
        if let (Some(longest), Some(ends_at)) = (s.policy.drain.skip_stuck_after, pod.ends_at) {
            let over = Duration::try_from(s.now.wall.duration_since(ends_at)).unwrap_or_default();
            // The times of the API server have whole seconds.
            self.wake_in(longest.saturating_sub(over).saturating_add(Duration::from_secs(1)));
        }
    }
}

/// The pods that the system needs go last: not before everything else is gone.
fn take_turns(s: &Situation<'_>, pods: &[PodView], going: &[(&PodView, Fate)], outlook: &mut Outlook) {
    let only_critical = going.iter().all(|(pod, _)| pod.critical);
    let mut round = Round::new(s, pods);
    for (pod, fate) in going.iter().filter(|(pod, _)| only_critical || !pod.critical) {
        match round.turn(pod) {
            Turn::Evict(under) => {
                let evict = round.evict(pod, under);
                outlook.told.add(pod, *fate, &evict, s);
                outlook.evict.push(evict);
            }
            Turn::UnderWay => outlook.note_if_overdue(pod, s),
            Turn::Soon(delay) => delay.into_iter().for_each(|delay| outlook.wake_in(delay)),
            Turn::Blocked(why, delay) => {
                if let Some(delay) = delay {
                    outlook.wake_in(delay);
                }
                outlook.blocked.get_or_insert_with(|| format!("{} is {why}", pod.pod));
            }
        }
    }
}

/// One look at all pods. What it decides for one pod counts for the next.
struct Round<'a> {
    evictions: &'a Evictions,
    s: &'a Situation<'a>,
    now: Duration,
    seed: u64,
    /// Whether the drain has taken too long for full grace periods.
    short: bool,
    /// Whether it has taken too long to ask budgets.
    delete: bool,
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
        let (rules, spent) = (&s.policy.drain, s.memory.spent(s.now));
        let past = |after: Option<Duration>| after.is_some_and(|after| spent >= after);
        let room = rules.concurrency.saturating_sub(evictions.in_flight());
        let (short, delete) = (past(rules.shorten_after), past(rules.delete_after));
        Self { evictions, s, now, seed: s.memory.seed(), short, delete, room, busy, posts: BTreeMap::new() }
    }

    /// The eviction of this pod, as patient as the drain still is.
    fn evict(&self, pod: &PodView, under: Under) -> Evict {
        let rules = &self.s.policy.drain;
        let deletes = rules.delete || (self.delete && !pod.is_terminating());
        let means = if deletes { Means::Deletion } else { Means::Eviction };
        let grace = match rules.grace {
            Some(grace) if self.short => Some(grace.min(SHORT_GRACE)),
            None if self.short => Some(SHORT_GRACE),
            grace => grace,
        };
        Evict { pod: pod.pod.clone(), means, grace, under }
    }

    fn turn(&mut self, pod: &'a PodView) -> Turn {
        let standing = self.evictions.standing(&pod.pod.uid, self.now);
        let turn = match self.turn_without_budgets(pod, &standing) {
            Some(turn) => turn,
            None => self.ask_budgets(pod, &standing),
        };
        match turn {
            Turn::UnderWay => self.why_tried(pod).map_or(Turn::UnderWay, |why| Turn::Blocked(why, None)),
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

    /// What blocks a pod while an answer is awaited: as long as there is none, the same as before. Whatever came and went
    /// with each try would be written to the Node and told anew each time.
    fn why_tried(&self, pod: &PodView) -> Option<String> {
        let uid = &pod.pod.uid;
        let (means, _) = self.evictions.last(uid).filter(|_| self.evictions.is_in_flight(uid))?;
        let asks = means == Means::Eviction && !pod.is_terminating();
        let closed = if asks { self.why_closed(pod) } else { None };
        let before = self.evictions.tried_again(uid).filter(|_| self.short || !pod.is_terminating());
        closed.map(|(_, why)| why).or_else(|| before.map(refused))
    }

    /// The turn of a pod that no budget has a say in now.
    fn turn_without_budgets(&self, pod: &PodView, standing: &Standing<'_>) -> Option<Turn> {
        let in_flight = self.evictions.is_in_flight(&pod.pod.uid);
        let was = self.evictions.last(&pod.pod.uid);
        // A smaller grace period takes effect on a pod that is being deleted, and no budget is asked about it.
        if pod.is_terminating() {
            let shortens = was.is_some_and(|(_, grace)| grace.is_some_and(|grace| grace <= SHORT_GRACE));
            return Some(match standing {
                _ if !self.short || in_flight => Turn::UnderWay,
                Standing::UnderWay if shortens => Turn::UnderWay,
                Standing::Refused { refusal, left, .. } if shortens && !left.is_zero() => {
                    Turn::Blocked(refused(refusal), Some(*left))
                }
                _ => Turn::Evict(self.free(pod)),
            });
        }
        match standing {
            Standing::UnderWay => Some(Turn::UnderWay),
            Standing::Refused { refusal, left, .. } if !left.is_zero() => {
                let past_budget = self.delete && was.is_some_and(|(means, _)| means == Means::Eviction);
                match past_budget {
                    true => Some(Turn::Evict(self.free(pod))),
                    false if refusal.is_of_budgets() => None,
                    false => Some(Turn::Blocked(refused(refusal), Some(*left))),
                }
            }
            _ if self.delete || self.s.policy.drain.delete => Some(Turn::Evict(self.free(pod))),
            Standing::Refused { .. } | Standing::New => None,
        }
    }

    fn ask_budgets(&self, pod: &'a PodView, standing: &Standing<'_>) -> Turn {
        if let Some((budget, why)) = self.why_closed(pod) {
            return self.probe(budget, pod, why);
        }
        match self.s.host.budgets.guard(pod) {
            Guard::Unknown => self.without_knowledge(pod, standing),
            Guard::One(budget) => self.under(budget, pod, standing),
            Guard::Free | Guard::Several(..) => retry_when_new(self.free(pod), standing),
        }
    }

    /// The budget that would refuse the pod, and why, by what is known of it.
    fn why_closed(&self, pod: &PodView) -> Option<(&'a BudgetView, String)> {
        match self.s.host.budgets.guard(pod) {
            Guard::Several(budget, other) => Some((budget, BudgetView::several(budget, other))),
            Guard::One(budget) if budget.open() == 0 => {
                let says = |why: &str| format!("blocked by PodDisruptionBudget {}, {why}", budget.name);
                let why = match budget {
                    BudgetView { stale: true, .. } => says("whose status is out of date"),
                    _ if budget.never_opens() => budget.never(),
                    _ => says("which allows no disruption now"),
                };
                Some((budget, why))
            }
            Guard::Unknown | Guard::Free | Guard::One(_) => None,
        }
    }

    fn free(&self, pod: &PodView) -> Under {
        Under::Free(self.s.host.budgets.over(pod))
    }

    fn asking(&self, budget: &BudgetView, pod: &PodView) -> Under {
        Under::Budget(budget.seen.clone(), self.s.host.budgets.over(pod))
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
    fn under(&self, budget: &'a BudgetView, pod: &PodView, standing: &Standing<'_>) -> Turn {
        let posts = self.posts.get(budget.seen.uid.as_str()).copied().unwrap_or_default();
        let used = self.evictions.used(&budget.seen).saturating_add(posts);
        if budget.open() <= used {
            return Turn::Soon(None);
        }
        let yields = self.evictions.yields(budget, self.now);
        if !yields.is_zero() {
            return Turn::Soon(Some(yields));
        }
        retry_when_new(self.asking(budget, pod), standing)
    }

    /// The API server would refuse: it is asked only once nothing has been heard for a while.
    fn probe(&self, budget: &'a BudgetView, pod: &PodView, why: String) -> Turn {
        let posted = self.posts.contains_key(budget.seen.uid.as_str()) || self.evictions.used(&budget.seen) > 0;
        match self.evictions.probe_in(budget, self.now, self.seed) {
            Duration::ZERO if !posted => Turn::Evict(self.asking(budget, pod)),
            Duration::ZERO => Turn::Soon(None),
            left => Turn::Blocked(why, Some(left)),
        }
    }
}

/// A pod that a budget refused is tried again at once where something else is known now than when it was refused, and
/// else after the pause.
fn retry_when_new(under: Under, standing: &Standing<'_>) -> Turn {
    match standing {
        Standing::Refused { refusal, under: before, left } if **before == under && !left.is_zero() => {
            Turn::Blocked(refused(refusal), Some(*left))
        }
        _ => Turn::Evict(under),
    }
}

fn refused(refusal: &Refusal) -> String {
    format!("refused: {refusal}")
}
