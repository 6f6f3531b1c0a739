//! What the agent's process remembers of the cycle under way. Losing it in a restart costs time, never safety.

use std::time::Duration;

use super::cycle::STILL_PREPARING;
use super::evictions::{Evict, EvictReply, Evictions};
use super::volumes::Claims;
use super::{Fresh, HostView};
use crate::Now;
use crate::backoff::doubling;
use crate::ids::GrantId;
use crate::node::NodeView;
use crate::values::{InProgress, Phase};

/// How the call to logind was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogindReply {
    /// Accepted, under way already, or nobody knows: the machine may be going down.
    MayHappen,
    /// The call did not reach logind; why.
    NotSent(String),
    /// logind's own error reply, in its words.
    Refused(String),
}

/// What this process has done, and when, by its own monotonic clock.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    cycle: Option<Cycle>,
    /// The grant that is not taken up yet, and when it was first seen.
    granted: Option<(GrantId, Duration)>,
    last_write: Option<Duration>,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Cycle {
    uid: String,
    progress: InProgress,
    spent_before: Duration,
    joined: Duration,
    evictions: Evictions,
    claims: Claims,
    call: Option<Call>,
    /// Until when logind is left alone, because it was seen to prepare a shutdown.
    preparing_until: Option<Duration>,
}

/// The latest call to logind of a cycle.
#[derive(Clone, Debug)]
struct Call {
    /// Which one it was.
    tries: u32,
    reply: LogindReply,
    /// When the next one is due.
    again_at: Duration,
}

impl Cycle {
    fn joined(node: &NodeView, progress: &InProgress, now: Now) -> Self {
        Self {
            uid: node.uid.clone(),
            progress: progress.clone(),
            spent_before: Duration::from_secs(progress.spent_seconds),
            joined: now.mono,
            evictions: Evictions::none(),
            claims: Claims::none(),
            call: None,
            preparing_until: None,
        }
    }
}

impl Memory {
    /// An empty memory of a run that this seed tells from every other run on the node; it spreads the pauses as well.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Takes the Node in: a cycle seen there is the one that this process takes part in. To be called before
    /// [`super::step`], with every view of the Node.
    pub fn observe(&mut self, node: &NodeView, now: Now) {
        let over = |cycle: &Cycle| {
            let reported = node.last_reboot.get().and_then(|last| last.id) == Some(cycle.progress.id);
            cycle.uid != node.uid || (node.in_progress.is_absent() && reported)
        };
        if self.cycle.as_ref().is_some_and(over) {
            self.cycle = None;
        }
        self.granted = node.granted().map(|id| (id, self.granted_at(id).unwrap_or(now.mono)));
        let Some(progress) = node.in_progress.get() else { return };
        match &mut self.cycle {
            Some(cycle) if cycle.progress.id == progress.id => {
                // What was said past the point of no return stays said, whatever the Node shows now.
                if cycle.progress.phase == Phase::Draining || progress.phase == Phase::Rebooting {
                    cycle.progress = progress.clone();
                }
            }
            _ => self.cycle = Some(Cycle::joined(node, progress, now)),
        }
    }

    /// Notes a write to the Node whose success was answered, and takes the Node in as it is after that.
    pub fn wrote(&mut self, node: &NodeView, now: Now) {
        self.observe(node, now);
        self.last_write = Some(now.mono);
    }

    /// Takes in what the watches of pods and budgets show. To be called before [`super::step`], with every view of them.
    pub fn observe_host(&mut self, host: &HostView, now: Now) {
        if let Some(cycle) = &mut self.cycle {
            cycle.evictions.observe(&host.budgets, now.mono);
            if let Some(pods) = &host.pods {
                cycle.evictions.observe_pods(pods, now.mono);
                cycle.claims.observe(pods, now.mono);
            }
        }
    }

    /// Notes that an eviction has been posted.
    pub fn evicting(&mut self, evict: &Evict, now: Now) {
        if let Some(cycle) = &mut self.cycle {
            cycle.evictions.posted(evict, now.mono);
        }
    }

    /// Notes how an eviction was answered.
    pub fn evicted(&mut self, uid: &str, reply: EvictReply, now: Now) {
        if let Some(cycle) = &mut self.cycle {
            cycle.evictions.answered(uid, reply, now.mono, self.seed);
        }
    }

    /// Notes how the call to logind was answered.
    pub fn logind_replied(&mut self, reply: LogindReply, now: Now) {
        if let Some(cycle) = &mut self.cycle {
            let tries = cycle.call.as_ref().map_or(0, |call| call.tries).saturating_add(1);
            let again_at = now.mono.saturating_add(call_delay(&reply, tries));
            cycle.call = Some(Call { tries, reply, again_at });
        }
    }

    /// Takes in what logind was asked. Past the point of no return pods, budgets and the Node are of no interest while it
    /// prepares a shutdown, and what changes there is no reason to ask again.
    pub fn observe_fresh(&mut self, fresh: Fresh, now: Now) {
        if let Some(cycle) = self.cycle.as_mut().filter(|_| fresh.preparing_for_shutdown == Some(true)) {
            cycle.preparing_until = Some(now.mono.saturating_add(STILL_PREPARING));
        }
    }

    /// When this grant was first seen.
    pub(super) fn granted_at(&self, id: GrantId) -> Option<Duration> {
        self.granted.filter(|(granted, _)| *granted == id).map(|(_, at)| at)
    }

    /// The cycle that this process has seen under way on this Node.
    pub(super) fn cycle(&self, node: &NodeView) -> Option<&InProgress> {
        self.cycle.as_ref().filter(|cycle| cycle.uid == node.uid).map(|cycle| &cycle.progress)
    }

    /// The name of this run in what it writes, by which it knows its own writes even where nobody answered them.
    pub fn run(&self) -> String {
        self.seed.to_string()
    }

    /// Whether `reboot-in-progress` is as this very run wrote it. What an earlier run wrote may be followed by what it
    /// wrote last and is still on its way.
    fn wrote_progress(&self) -> bool {
        self.cycle.as_ref().is_some_and(|cycle| cycle.progress.run == Some(self.run()))
    }

    /// Whether this process knows for itself that its cycle is past the point of no return.
    pub(super) fn committed_here(&self) -> bool {
        self.is_committed() && self.wrote_progress()
    }

    /// Whether this process drains by a write of its own, so that no earlier run can have got further.
    pub(super) fn drains_here(&self) -> bool {
        !self.is_committed() && self.wrote_progress()
    }

    /// Whether this process has passed the point of no return of a cycle that has not ended.
    pub fn is_committed(&self) -> bool {
        self.cycle.as_ref().is_some_and(|cycle| cycle.progress.phase == Phase::Rebooting)
    }

    /// How long the cycle has been draining, over all runs of the agent.
    pub fn spent(&self, now: Now) -> Duration {
        let spent = |cycle: &Cycle| cycle.spent_before.saturating_add(now.mono.saturating_sub(cycle.joined));
        self.cycle.as_ref().map(spent).unwrap_or_default()
    }

    /// How long ago this process last wrote to the Node, with the status of that moment; or how long ago it started, where
    /// it has not written yet: what is to be said while the machine boots is soon out of date.
    pub(super) fn since_last_write(&self, now: Now) -> Duration {
        now.mono.saturating_sub(self.last_write.unwrap_or_default())
    }

    /// What became of the evictions of this cycle.
    pub(super) fn evictions(&self) -> &Evictions {
        static NONE: Evictions = Evictions::none();
        self.cycle.as_ref().map_or(&NONE, |cycle| &cycle.evictions)
    }

    /// The claims of the pods of this cycle.
    pub(super) fn claims(&self) -> &Claims {
        static NONE: Claims = Claims::none();
        self.cycle.as_ref().map_or(&NONE, |cycle| &cycle.claims)
    }

    pub(super) fn seed(&self) -> u64 {
        self.seed
    }

    /// For how long a call to logind has been due, which only pods can put off: since the pause after the latest one, or
    /// since this process knows that the point of no return is passed.
    pub(super) fn call_overdue(&self, now: Now) -> Duration {
        let Some(cycle) = &self.cycle else { return Duration::ZERO };
        // The time spent was saved at the point of no return, and is counted on from there.
        let since_commit = self.spent(now).saturating_sub(Duration::from_secs(cycle.progress.spent_seconds));
        let since_due = cycle.call.as_ref().map_or(since_commit, |call| now.mono.saturating_sub(call.again_at));
        cycle.preparing_until.map_or(since_due, |until| since_due.min(now.mono.saturating_sub(until)))
    }

    /// For how long logind is left alone, because it was seen to prepare a shutdown.
    pub(super) fn still_preparing(&self, now: Now) -> Option<Duration> {
        let until = self.cycle.as_ref()?.preparing_until?;
        until.checked_sub(now.mono).filter(|left| !left.is_zero())
    }

    /// What the latest call to logind of this cycle brought, and how long until the next one is due (zero: now).
    pub(super) fn logind_call(&self, now: Now) -> Option<(&LogindReply, Duration)> {
        let call = self.cycle.as_ref()?.call.as_ref()?;
        Some((&call.reply, call.again_at.saturating_sub(now.mono)))
    }
}

/// A machine needs a while to go down, and delay inhibitors may hold it for minutes: 30 s doubling to 5 min. A call that
/// reached nobody is made again soon, for the bus is back in a moment: 1 s doubling to 30 s.
fn call_delay(reply: &LogindReply, tries: u32) -> Duration {
    match reply {
        LogindReply::NotSent(_) => doubling(Duration::from_secs(1), tries, Duration::from_secs(30)),
        LogindReply::MayHappen | LogindReply::Refused(_) => {
            doubling(Duration::from_secs(30), tries, Duration::from_mins(5))
        }
    }
}
