//! The promises S1 to S6 a second time, independent of [`crate::plan`], [`crate::step`] and [`crate::ledger::judge`].
//!
//! An [`Audit`] is told every true change of the world, by whom it was made, and every call to logind; it answers with
//! the promises that were broken. It knows nothing of caches, intentions or errors: only what was written, and when.
//! Tests feed it after each step. It has no part in the operator itself.

mod slots;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::drain::{Nature, PodView};
use crate::ids::{BootId, GrantId};
use crate::ledger::LedgerState;
use crate::node::NodeView;
use crate::quota::Quota;
use crate::reason::EndReason;
use crate::selector::Selector;
use crate::values::{InProgress, Outcome, Permission, Phase};
use slots::Slots;

/// Who made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The agent of the node.
    Agent,
    /// A controller.
    Controller,
    /// A person, or a program that is not part of the operator.
    Person,
    /// kubelet and the parts of Kubernetes that write a Node's status, create it and delete it.
    Machine,
}

/// One broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Where.
    pub node: String,
    /// What was done.
    pub fault: Fault,
}

/// What breaks a promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// S1: a slot was taken for a grant when the quota was used up.
    SlotAboveLimit {
        /// The slots, this one included.
        slots: usize,
        /// The slots that the quota allowed.
        limit: usize,
    },
    /// S1: a grant was written to a Node that holds no slot under its id.
    GrantWithoutSlot,
    /// S1: an id was written to a Node for the second time.
    GrantRepeated,
    /// S2: the point of no return was passed without a permission for this cycle.
    CommitWithoutPermission,
    /// S2: the point of no return of a granted cycle was passed without its slot.
    CommitWithoutSlot,
    /// S2: logind was called for a cycle that had not passed the point of no return under this boot.
    CallWithoutCommit,
    /// S2: logind was called while pods were left to evict.
    CallWithPodsLeft {
        /// How many.
        pods: usize,
    },
    /// S3: a reboot was reported although the machine runs the same boot.
    ReportWithoutReboot,
    /// S3: a reboot was reported before kubelet had confirmed it: another boot ID on the Node, or not Ready.
    ReportUnconfirmed,
    /// S4: the operator removed a cordon that the agent had not placed.
    ForeignCordonRemoved,
    /// S5: the point of no return was passed on a paused Node.
    CommitWhilePaused,
    /// S5: the point of no return was passed on a Node that somebody had uncordoned.
    CommitUncordoned,
    /// S5: a pause took a person's `now` away.
    ForceClearedByPause,
    /// S5: a grant was renewed at once that a person had removed, or whose cycle a person had ended.
    GrantRenewed,
    /// S5: a grant was written to a Node that is paused, malformed or in progress, that does not ask, or whose agent has
    /// not answered under the boot that the Node shows.
    GrantUnasked,
    /// S5: a drain was begun on a Node that is paused or without the permission for it.
    StartWithoutPermission,
    /// S5: a cycle was given back when logind had begun the shutdown.
    GaveBackTooLate,
    /// S6: a slot was removed, or handed to another cycle, without evidence.
    SlotFreedWithoutEvidence,
    /// S6: the ledger was rebuilt without a cycle that is under way.
    CycleLeftOut,
}

/// How long what a person undid must not be redone, unless the person then says anything to the contrary: asks, forces,
/// ends a pause, corrects a malformed value, or takes the annotations away that say until when it is held back.
const AT_ONCE: Duration = Duration::from_secs(30);

/// The state of the world as far as the promises need it.
#[derive(Clone, Debug)]
pub struct Audit {
    quota: Quota,
    selector: Selector,
    nodes: BTreeMap<String, Known>,
    slots: Slots,
    granted: BTreeMap<GrantId, String>,
}

/// One node.
#[derive(Clone, Debug, Default)]
struct Known {
    view: Option<Arc<NodeView>>,
    boot: Option<BootId>,
    cordoned_by_agent: bool,
    committed: Option<GrantId>,
    going_down: bool,
    undone: Option<Duration>,
}

/// What an audit remembers of one node that is not to be seen there. Two worlds that look alike, and whose audits
/// remember alike, have the same faults ahead of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Whether the agent placed the cordon.
    pub cordoned_by_agent: bool,
    /// The cycle that passed the point of no return and has not been reported.
    pub committed: Option<GrantId>,
    /// Whether logind has begun a shutdown.
    pub going_down: bool,
    /// When a person undid what must not be redone at once.
    pub undone: Option<Duration>,
    /// Whether the end of the cycle of its slot was proven.
    pub slot_is_over: Option<bool>,
}

impl Audit {
    /// An audit of a world without nodes and without a ledger.
    pub fn new(quota: Quota, selector: Selector) -> Self {
        Self { quota, selector, nodes: BTreeMap::new(), slots: Slots::default(), granted: BTreeMap::new() }
    }

    /// The machine of this node runs this boot from now on.
    pub fn booted(&mut self, node: &str, boot: BootId) {
        let known = self.nodes.entry(node.to_owned()).or_default();
        known.boot = Some(boot);
        known.undone = None;
        known.going_down = false;
    }

    /// logind of this node has begun a shutdown: the machine will boot anew.
    pub fn going_down(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().going_down = true;
    }

    /// What is remembered of this node.
    pub fn remembered(&self, node: &str) -> Remembered {
        let unknown = Known::default();
        let known = self.nodes.get(node).unwrap_or(&unknown);
        Remembered {
            cordoned_by_agent: known.cordoned_by_agent,
            committed: known.committed,
            going_down: known.going_down,
            undone: known.undone,
            slot_is_over: self.slots.is_over(node),
        }
    }

    /// Every cycle that was ever granted on a Node, and every one that was ever in progress.
    pub fn cycles(&self) -> (impl Iterator<Item = GrantId>, impl Iterator<Item = GrantId>) {
        (self.granted.keys().copied(), self.slots.cycles())
    }

    /// A Node was written, created, or (`None`) deleted, at this time of one clock that never steps.
    pub fn node_changed(
        &mut self,
        actor: Actor,
        name: &str,
        after: Option<&NodeView>,
        mono: Duration,
    ) -> Vec<Violation> {
        let known = self.nodes.entry(name.to_owned()).or_default();
        let before = std::mem::replace(&mut known.view, after.cloned().map(Arc::new));
        let same = |before: &&NodeView| after.is_some_and(|after| after.uid == before.uid);
        let before = before.as_deref().filter(same);
        known.undone = known.undone.filter(|_| before.is_some());
        self.slots.node_changed(actor, name, before, after);
        let Some(after) = after else { return Vec::new() };
        let mut faults = Vec::new();
        match (actor, before) {
            (Actor::Agent, Some(before)) => faults.extend(known.agent_wrote(before, after, &self.slots)),
            (Actor::Controller, Some(before)) => {
                faults.extend(controller_granted(before, after, known, &self.slots, &mut self.granted, mono));
            }
            (Actor::Person, Some(before)) => known.person_wrote(before, after, self.slots.are_known(), mono),
            _ => {}
        }
        let operator = matches!(actor, Actor::Agent | Actor::Controller);
        faults.extend(known.cordon_changed(operator, before, after).then_some(Fault::ForeignCordonRemoved));
        known.cordoned_by_agent = match (before.is_some_and(|before| before.unschedulable), after.unschedulable) {
            (false, true) => actor == Actor::Agent,
            (true, true) => known.cordoned_by_agent,
            (_, false) => false,
        };
        faults.into_iter().map(|fault| Violation { node: name.to_owned(), fault }).collect()
    }

    /// The ledger was written or deleted.
    pub fn ledger_changed(&mut self, actor: Actor, ledger: &LedgerState) -> Vec<Violation> {
        let selected = || self.nodes.values().filter_map(|known| known.view.as_deref());
        let selected = || selected().filter(|node| self.selector.matches(&node.labels));
        let limit = self.quota.limit(selected().count());
        // What is in progress without its grant may have begun, or come back, after the list of the Nodes.
        let granted = |node: &NodeView| match node.permission.get() {
            Some(Permission::Granted(id)) => self.granted.get(id) == Some(&node.name),
            _ => false,
        };
        let under_way: Vec<&str> = selected().filter(|node| granted(node)).map(|node| node.name.as_str()).collect();
        let views =
            self.nodes.iter().filter_map(|(name, known)| Some((name.as_str(), known.view.as_deref()?))).collect();
        let violations = self.slots.ledger_changed(actor, ledger, limit, &under_way, &views);
        if ledger.known().is_none() {
            // Without the ledger the operator cannot know that a grant was taken away, rather than never written.
            self.nodes.values_mut().for_each(|known| known.undone = None);
        }
        violations
    }

    /// The agent of this node calls logind. `pods`: the pods that really were on the node when the agent last read
    /// them, which it must do before each call; `pods_may_be_left`: its drain timed out, and the policy goes on or the
    /// point of no return is passed.
    pub fn logind_called(&mut self, node: &str, pods: &[PodView], pods_may_be_left: bool) -> Vec<Violation> {
        let known = self.nodes.entry(node.to_owned()).or_default();
        let committed = known.committed.is_some_and(|id| Some(id.boot) == known.boot);
        let left = pods.iter().filter(|pod| pod.nature == Nature::Ordinary).count();
        let faults = [
            (!committed).then_some(Fault::CallWithoutCommit),
            (left > 0 && !pods_may_be_left).then_some(Fault::CallWithPodsLeft { pods: left }),
        ];
        faults.into_iter().flatten().map(|fault| Violation { node: node.to_owned(), fault }).collect()
    }
}

impl Known {
    fn agent_wrote(&mut self, before: &NodeView, after: &NodeView, slots: &Slots) -> Vec<Fault> {
        let mut faults = Vec::new();
        let rebooting = after.in_progress.get().filter(|progress| progress.phase == Phase::Rebooting);
        if let Some(progress) = rebooting.filter(|progress| self.committed != Some(progress.id)) {
            faults.extend(committed(before, progress, slots));
            self.committed = Some(progress.id);
        }
        faults.extend(started_unpermitted(before, after).then_some(Fault::StartWithoutPermission));
        let Some(last) = after.last_reboot.get().filter(|_| after.last_reboot != before.last_reboot) else {
            return faults;
        };
        self.committed = self.committed.filter(|id| last.id != Some(*id));
        let ended = match last.outcome {
            Outcome::Rebooted => last.id.map(|id| id.boot),
            Outcome::FoundRebooted => before.asked_under(),
            Outcome::GaveBack => {
                let forced = |node: &NodeView| node.permission.get() == Some(&Permission::Now);
                let cleared = last.reason == EndReason::Paused && forced(before) && !forced(after);
                faults.extend(cleared.then_some(Fault::ForceClearedByPause));
                faults.extend(self.going_down.then_some(Fault::GaveBackTooLate));
                return faults;
            }
        };
        if ended.is_none() || ended == self.boot {
            faults.push(Fault::ReportWithoutReboot);
            return faults;
        }
        // What kubelet said was true when the report was sent, even where power failed before it arrived.
        let confirmed = before.boot.is_some() && before.boot != ended;
        if !confirmed || (last.outcome == Outcome::Rebooted && !before.ready) {
            faults.push(Fault::ReportUnconfirmed);
        }
        faults
    }

    fn person_wrote(&mut self, before: &NodeView, after: &NodeView, ledger_is_known: bool, mono: Duration) {
        let live = |id: &GrantId| Some(id.boot) == self.boot && self.committed != Some(*id);
        let granted = |node: &NodeView| matches!(node.permission.get(), Some(Permission::Granted(id)) if live(id));
        let draining = before.in_progress.get().is_some_and(|progress| live(&progress.id));
        let taken_away = granted(before) && !granted(after);
        // An annotation that is removed before anybody saw it leaves no trace but the cordon.
        let removed = after.in_progress.is_absent() && self.cordoned_by_agent;
        let uncordoned = before.unschedulable && !after.unschedulable;
        let ended = draining && after.needed.is_some() && (removed || uncordoned);
        let forced = after.permission.get() == Some(&Permission::Now);
        let corrected = before.permission.malformed().or(before.in_progress.malformed()).is_some();
        let traces = |node: &NodeView| (node.waiting.clone(), node.request.clone(), node.last_reboot.clone());
        if forced
            || corrected
            || traces(before) != traces(after)
            || before.needed != after.needed
            || before.paused != after.paused
        {
            self.undone = None;
        } else if ledger_is_known && (taken_away || ended) {
            self.undone = Some(mono);
        }
    }

    fn cordon_changed(&self, operator: bool, before: Option<&NodeView>, after: &NodeView) -> bool {
        let removed = before.is_some_and(|before| before.unschedulable) && !after.unschedulable;
        operator && removed && !self.cordoned_by_agent
    }
}

/// A drain that begins. What is past the point of no return is restored whatever the Node says.
fn started_unpermitted(before: &NodeView, after: &NodeView) -> bool {
    let draining = after.in_progress.get().filter(|progress| progress.phase == Phase::Draining);
    let permitted = |id: GrantId| match before.permission.get() {
        Some(Permission::Granted(granted)) => *granted == id,
        Some(Permission::Now) => id.is_forced(),
        None => false,
    };
    let begun = draining.filter(|_| before.in_progress.is_absent());
    begun.is_some_and(|progress| before.paused.is_some() || !permitted(progress.id))
}

/// The point of no return.
fn committed(before: &NodeView, progress: &InProgress, slots: &Slots) -> impl Iterator<Item = Fault> {
    let (permitted, forced) = match before.permission.get() {
        Some(Permission::Granted(id)) => (*id == progress.id, false),
        Some(Permission::Now) => (true, true),
        None => (false, false),
    };
    let holds_slot = forced || slots.holds(&before.name, progress.id);
    let faults = [
        (!permitted).then_some(Fault::CommitWithoutPermission),
        (permitted && !holds_slot).then_some(Fault::CommitWithoutSlot),
        before.paused.is_some().then_some(Fault::CommitWhilePaused),
        (!before.unschedulable).then_some(Fault::CommitUncordoned),
    ];
    faults.into_iter().flatten()
}

fn controller_granted(
    before: &NodeView,
    after: &NodeView,
    known: &Known,
    slots: &Slots,
    granted: &mut BTreeMap<GrantId, String>,
    mono: Duration,
) -> Vec<Fault> {
    let Some(Permission::Granted(id)) = after.permission.get().filter(|_| after.permission != before.permission) else {
        return Vec::new();
    };
    let renewed = known.undone.is_some_and(|at| mono.saturating_sub(at) < AT_ONCE);
    let faults = [
        granted.insert(*id, after.name.clone()).map(|_| Fault::GrantRepeated),
        (!slots.holds(&after.name, *id)).then_some(Fault::GrantWithoutSlot),
        renewed.then_some(Fault::GrantRenewed),
        (!is_asked(before)).then_some(Fault::GrantUnasked),
    ];
    faults.into_iter().flatten().collect()
}

/// Whether a grant may be written to a Node that looks like this.
fn is_asked(node: &NodeView) -> bool {
    let answered = node.compatible_request().is_some_and(|request| Some(request.boot) == node.boot);
    let free = node.permission.is_absent() && node.in_progress.is_absent() && node.paused.is_none();
    free && answered && node.needed.is_some()
}

impl Fault {
    /// The promise that it breaks.
    pub fn promise(self) -> &'static str {
        match self {
            Self::SlotAboveLimit { .. } | Self::GrantWithoutSlot | Self::GrantRepeated => "S1",
            Self::CommitWithoutPermission
            | Self::CommitWithoutSlot
            | Self::CallWithoutCommit
            | Self::CallWithPodsLeft { .. } => "S2",
            Self::ReportWithoutReboot | Self::ReportUnconfirmed => "S3",
            Self::ForeignCordonRemoved => "S4",
            Self::CommitWhilePaused
            | Self::CommitUncordoned
            | Self::ForceClearedByPause
            | Self::GrantRenewed
            | Self::GrantUnasked
            | Self::StartWithoutPermission
            | Self::GaveBackTooLate => "S5",
            Self::SlotFreedWithoutEvidence | Self::CycleLeftOut => "S6",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} broken on {}: {:?}", self.fault.promise(), self.node, self.fault)
    }
}

#[cfg(test)]
mod tests;
