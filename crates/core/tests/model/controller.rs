//! The controller's loop around the real [`plan`] and the real decisions on the ledger, one call to the outside at a time.
//!
//! A reply that is lost needs no case of its own: it leaves the controller as a crash after the call does. Nor does a
//! slot that is freed and given to the next node in one write of the ledger: whatever that can do, the two writes that it
//! is here can do when nothing comes between them.

use std::sync::Arc;
use std::time::Duration;

use reboot_core::Now;
use reboot_core::annotations::{self as key, NodePatch};
use reboot_core::audit::Actor;
use reboot_core::ledger::{self, Ledger, LedgerState, Slot, Verdict, Withdrawal};
use reboot_core::node::NodeView;
use reboot_core::plan::{Action, ClusterView, Memory, plan};
use reboot_core::values::{Answer, Field, Waiting};

use super::api::Refused;
use super::mutation::Mutation as M;
use super::print::FIRST;
use super::rebuild;
use super::state::{Controller, Held, NodeWrite, Printed, Seen, State, Work, Write};
use super::world::{World, boot_id, version};

/// What a plan is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Whether one Node is seen as it was.
    pub(crate) old: bool,
    /// Whether everything was seen an hour ago already.
    pub(crate) long_ago: bool,
}

impl World {
    /// The ledger as this controller takes it.
    fn ledger(&self, held: &Held) -> LedgerState {
        let lost = match &held.state {
            LedgerState::Lost(lost) => lost,
            known @ LedgerState::Known(_) => return known.clone(),
        };
        match (&lost.version, &held.map) {
            (Some(version), _) if self.is(M::LostIsEmpty) => {
                LedgerState::Known(Ledger::complete(version.clone(), Vec::new()))
            }
            (Some(version), Some(map)) if self.is(M::BackupIsLedger) => {
                let owner = |text: &String| Some(text.split_once(r#""complete":""#)?.1.split_once('"')?.0.to_owned());
                let own = |text: &String| Some(text.replace(&owner(text)?, &version.uid));
                let data = map.data.as_ref().and_then(own);
                super::api::Map::read(Some(&super::api::Map { data, ..map.clone() }))
            }
            _ => held.state.clone(),
        }
    }

    /// Everything that a plan of this controller could come to, whichever node it runs on.
    pub(crate) fn plans(&self, state: &State, number: usize, sight: Sight) -> Vec<Action> {
        let held = state.controllers[number].ledger.as_ref().unwrap_or(&state.map);
        let seen = views(state, sight.old);
        let nodes: Vec<NodeView> = seen.iter().map(|seen| self.taken_by_controller(&seen.view)).collect();
        let known = match self.ledger(held) {
            LedgerState::Known(ledger) if self.is(M::CountInsteadOfLedger) => {
                LedgerState::Known(Ledger::complete(ledger.version, Vec::new()))
            }
            known => known,
        };
        let mut actions = self.plan(&nodes, &known, None, state.now(), sight.long_ago);
        if self.judges_wrongly() {
            actions.extend(known.slots().iter().cloned().map(Action::Settle));
        }
        // Which of several nodes comes first is nothing that safety may rest on.
        if actions.iter().any(|action| matches!(action, Action::Grant(..))) {
            for home in &state.hosts {
                let others = self.plan(&nodes, &known, Some(&home.name), state.now(), sight.long_ago);
                actions.extend(others.into_iter().filter(|other| matches!(other, Action::Grant(..))));
            }
            actions.sort_by_cached_key(|action| format!("{action:?}"));
            actions.dedup();
        }
        actions
    }

    fn plan(
        &self,
        nodes: &[NodeView],
        ledger: &LedgerState,
        home: Option<&str>,
        now: Now,
        long_ago: bool,
    ) -> Vec<Action> {
        let view = ClusterView { nodes, ledger, home };
        let memory = memory_of(&view, now, long_ago);
        let actions = plan(&view, &self.plan_policy, &memory, now).actions;
        actions.into_iter().filter(|action| matters(action, nodes)).collect()
    }

    /// The next call to the outside of this controller; whether there was any. `action`: what it plans to do.
    pub(crate) fn controller_turns(&self, state: &mut State, number: usize, planned: Option<(&Action, Sight)>) -> bool {
        let mut controller = state.controllers[number].clone();
        let held = Arc::clone(controller.ledger.get_or_insert_with(|| Arc::clone(&state.map)));
        let work = std::mem::replace(&mut controller.work, Work::Plan);
        let done = match (work, planned) {
            (Work::Plan, Some((action, sight))) => self.begin(state, &held, action, sight),
            (Work::Plan, None) | (_, Some(_)) => return false,
            (Work::Write(write), None) => self.write(state, &write.value),
            (Work::Expel(host, seen), None) => Ok(self.expel(state, host, &seen)),
            (Work::Create, None) => rebuild::create(state),
            (Work::List(version), None) => Ok(rebuild::list(state, version)),
            (Work::TakeIn(ledger, left), None) => Ok(self.take_in(state, ledger, left)),
        };
        match done {
            Ok(Done { work, read }) => {
                controller.work = work;
                if read {
                    controller.ledger = Some(Arc::clone(&state.map));
                }
            }
            // The API server's own no: the ledger is read anew.
            Err(_) => controller = Controller { ledger: None, work: Work::Plan },
        }
        state.controllers[number] = controller;
        true
    }

    /// The first call of an action.
    fn begin(&self, state: &mut State, held: &Held, action: &Action, sight: Sight) -> Result<Done, Refused> {
        let LedgerState::Known(ledger) = self.ledger(held) else {
            return Ok(Done::then(match version(&state.map.state) {
                _ if state.map.state.known().is_some() => return Ok(Done::read()),
                Some(version) => Work::List(version),
                None => Work::Create,
            }));
        };
        let host = action.node().and_then(|node| state.index(node)).ok_or(Refused::Gone)?;
        let now = state.now();
        match action {
            Action::Rebuild => Ok(Done::read()),
            Action::Settle(slot) => Ok(Done::then(self.settle(state, host, &ledger, slot, sight))),
            Action::Adopt(name) => {
                let slot = state.node(host).and_then(|node| ledger::adoption(&node.view, ledger.slot(name), now));
                Ok(Done::then(slot.map_or(Work::Plan, |slot| Work::of(Write::Ledger(ledger.with(slot), None)))))
            }
            Action::Expel(_) => {
                Ok(Done::then(state.node(host).map_or(Work::Plan, |seen| Work::Expel(host, Arc::clone(seen)))))
            }
            Action::Grant(_, limit) => self.grant(state, host, &ledger, *limit, sight),
            Action::Explain(_, explanation) => {
                let patch = match explanation {
                    Some((_, waiting)) => NodePatch::default().set(key::WAITING, waiting),
                    None => NodePatch::default().remove(key::WAITING),
                };
                let seen = view_of(state, host, sight.old).ok_or(Refused::Gone)?;
                self.send(state, Actor::Controller, host, &seen, &patch).map(|_| Done::default())
            }
        }
    }

    fn grant(
        &self,
        state: &mut State,
        host: usize,
        ledger: &Ledger,
        limit: usize,
        sight: Sight,
    ) -> Result<Done, Refused> {
        let seen = view_of(state, host, sight.old).ok_or(Refused::Gone)?;
        let limit = if self.is(M::CountInsteadOfLedger) { usize::MAX } else { limit };
        let Some((next, id)) = ledger.with_grant(&seen.view, limit, state.now()) else { return Ok(Done::default()) };
        let patch = ledger::grant_patch(id);
        let write = |then| NodeWrite { actor: Actor::Controller, host, seen: Arc::clone(&seen), patch, then };
        if self.is(M::SkipLedger) {
            return Ok(Done::then(Work::of(Write::Node(write(None)))));
        }
        if self.is(M::NodeBeforeLedger) {
            return Ok(Done::then(Work::of(Write::Node(write(Some(next))))));
        }
        self.write(state, &Write::Ledger(next, Some(write(None))))
    }

    /// The Node is read after the ledger was.
    fn settle(&self, state: &mut State, host: usize, ledger: &Ledger, slot: &Slot, sight: Sight) -> Work {
        let cached = self.is(M::FreeOnCachedRead);
        let seen = if cached { view_of(state, host, true) } else { state.node(host).cloned() };
        let now = state.now();
        let nodes: Vec<NodeView> = seen.iter().map(|seen| seen.view.clone()).collect();
        let known = LedgerState::Known(ledger.clone());
        let memory = memory_of(&ClusterView { nodes: &nodes, ledger: &known, home: None }, now, sight.long_ago);
        let verdict = self.judge(slot, nodes.first(), memory.handover(slot, &self.plan_policy, now));
        let freed = ledger.without(&slot.node);
        match (verdict, seen) {
            (Verdict::Keep, _) | (Verdict::Withdraw(_), None) => Work::Plan,
            (Verdict::Free(_), _) => Work::of(Write::Ledger(freed, None)),
            (Verdict::Withdraw(why), Some(seen)) => {
                let patch = self.withdrawal(state, &seen.view, why);
                let write = |then| NodeWrite { actor: Actor::Controller, host, seen: Arc::clone(&seen), patch, then };
                if self.is(M::WriteIdTwice)
                    && let (Withdrawal::NotWritten | Withdrawal::GrantRemoved, Some(id)) = (why, slot.id)
                {
                    let patch = ledger::grant_patch(id);
                    return Work::of(Write::Node(NodeWrite { patch, ..write(None) }));
                }
                if self.is(M::FreeBeforeFence) {
                    return Work::of(Write::Ledger(freed, Some(write(None))));
                }
                Work::of(Write::Node(write(Some(freed))))
            }
        }
    }

    /// Whether a slot is looked at although the real judgement would keep it.
    fn judges_wrongly(&self) -> bool {
        let wrong = [M::FreeAfterDeadline, M::FreeBeforeReady, M::FreeOnCachedRead, M::FreeOnMissingAnnotations];
        [wrong.as_slice(), &[M::FreeWithoutNewBoot, M::WithdrawInProgress]]
            .concat()
            .contains(&self.mutation.unwrap_or(M::SkipLedger))
    }

    fn judge(&self, slot: &Slot, node: Option<&NodeView>, handover: ledger::Handover) -> Verdict {
        let mut node = node.cloned();
        if let Some(node) = &mut node {
            let nothing_left = node.permission.is_absent() && node.in_progress.is_absent();
            match self.mutation {
                Some(M::FreeOnMissingAnnotations) if nothing_left => return Verdict::Free(ledger::Evidence::Reported),
                Some(M::FreeAfterDeadline) if handover.seen_for >= Some(handover.pickup_deadline) => {
                    return Verdict::Free(ledger::Evidence::Reported);
                }
                Some(M::FreeWithoutNewBoot) => node.boot = Some(boot_id(FIRST)),
                Some(M::FreeBeforeReady) => node.ready = true,
                Some(M::WithdrawInProgress) => node.in_progress = Field::Absent,
                _ => {}
            }
        }
        ledger::judge(slot, node.as_ref(), handover)
    }

    fn withdrawal(&self, state: &mut State, node: &NodeView, why: Withdrawal) -> NodePatch {
        let now = state.now();
        self.fenced(state, |fence| ledger::withdraw_patch(node, why, fence, now))
    }

    pub(crate) fn fence(&self, state: &mut State, node: &NodeView) -> NodePatch {
        self.fenced(state, |fence| ledger::fence_patch(node, fence))
    }

    /// The patch with a fresh fence, unless that is what is wrong.
    fn fenced(&self, state: &mut State, patch: impl FnOnce(&str) -> NodePatch) -> NodePatch {
        let fence = if self.is(M::FenceRepeated) { "again".to_owned() } else { format!("f{}", state.draw()) };
        let patch = patch(&fence);
        let left_out = |key: &str| match self.mutation {
            Some(M::FenceChangesNothing) => key == key::FENCE,
            Some(M::ForgetRemoval) => key == key::WAITING,
            _ => false,
        };
        patch.annotations().filter(|(key, _)| !left_out(key)).fold(NodePatch::default(), |kept, (key, value)| {
            match value {
                Some(value) => kept.set(key, value),
                None => kept.remove(key),
            }
        })
    }

    /// A write, and what comes after it.
    fn write(&self, state: &mut State, write: &Write) -> Result<Done, Refused> {
        match write {
            Write::Ledger(next, then) => {
                self.replace(state, next)?;
                let work = then.as_ref().map_or(Work::Plan, |then| Work::of(Write::Node(then.clone())));
                Ok(Done { work, read: true })
            }
            Write::Node(NodeWrite { actor, host, seen, patch, then }) => {
                let after = self.send(state, *actor, *host, seen, patch)?;
                let fences = !matches!(self.mutation, Some(M::FenceChangesNothing | M::FenceRepeated));
                if fences && after.api.version == seen.api.version {
                    // What changes nothing fences nothing.
                    return Err(Refused::Conflict);
                }
                let work = then.as_ref().map(|next| Work::of(Write::Ledger(next.clone(), None)));
                Ok(Done::then(work.unwrap_or(Work::Plan)))
            }
        }
    }

    pub(crate) fn replace(&self, state: &mut State, next: &Ledger) -> Result<(), Refused> {
        if self.is(M::LedgerWithoutVersion)
            && let Some(version) = version(&state.map.state)
        {
            return state.replace(&Ledger::complete(version, next.slots().to_vec()), Actor::Controller);
        }
        state.replace(next, Actor::Controller)
    }

    /// The ledger is read after the Node: a grant that is on the Node had its slot before.
    fn expel(&self, state: &mut State, host: usize, seen: &Arc<Seen>) -> Done {
        let LedgerState::Known(ledger) = self.ledger(&state.map) else { return Done::read() };
        if !ledger::is_stray(&seen.view, ledger.slot(&seen.view.name)) {
            return Done::read();
        }
        let patch = self.fence(state, &seen.view);
        let write = NodeWrite { actor: Actor::Controller, host, seen: Arc::clone(seen), patch, then: None };
        Done { work: Work::of(Write::Node(write)), read: true }
    }

    /// What the controller takes a Node for when it plans.
    fn taken_by_controller(&self, node: &NodeView) -> NodeView {
        let mut node = node.clone();
        match self.mutation {
            Some(M::GrantUnanswered) if node.request.is_absent() => {
                let boot = node.boot.map(|boot| boot.to_string()).unwrap_or_default();
                let answer = format!(
                    r#"{{"protocol":1,"bootID":"{boot}","since":"2026-01-01T00:00:00Z","sources":["person"]}}"#
                );
                node.request = Answer::read(Some(&answer));
            }
            Some(M::GrantPaused) => node.paused = None,
            Some(M::GrantOverMalformed) if node.permission.malformed().is_some() => node.permission = Field::Absent,
            _ => {}
        }
        node
    }
}

/// The Nodes as a watch shows them.
fn views(state: &State, old: bool) -> Vec<Arc<Seen>> {
    let view = |host: usize| match &state.old {
        Some((of, seen)) if old && *of == host => Some(Arc::clone(seen)),
        _ => state.node(host).cloned(),
    };
    (0..state.hosts.len()).filter_map(view).collect()
}

fn view_of(state: &State, host: usize, old: bool) -> Option<Arc<Seen>> {
    let name = &state.hosts[host].name;
    views(state, old).into_iter().find(|seen| *seen.view.name == **name)
}

/// What a controller remembers matters for one deadline only. So it remembers either nothing or everything.
fn memory_of(view: &ClusterView<'_>, now: Now, long_ago: bool) -> Memory {
    let mut memory = Memory::default();
    let since = if long_ago { Duration::ZERO } else { now.mono };
    memory.observe(view, Now { mono: since, ..now });
    memory
}

/// What a call came to.
pub(crate) struct Done {
    pub(crate) work: Work,
    /// Whether the ledger is known as it is now.
    pub(crate) read: bool,
}

impl Default for Done {
    fn default() -> Self {
        Self { work: Work::Plan, read: false }
    }
}

impl Done {
    pub(crate) fn then(work: Work) -> Self {
        Self { work, read: false }
    }

    fn read() -> Self {
        Self { work: Work::Plan, read: true }
    }
}

impl Work {
    pub(crate) fn of(write: Write) -> Self {
        Self::Write(Printed::new(write))
    }
}

/// Explanations are for people, except for those that say until when a removed grant is not given again, and which grant
/// no agent took up.
fn matters(action: &Action, nodes: &[NodeView]) -> bool {
    let Action::Explain(name, explanation) = action else { return true };
    let before = nodes.iter().find(|node| node.name == *name).and_then(|node| node.waiting.get());
    let counts = |waiting: &Waiting| waiting.held_until.is_some() || waiting.lapsed.is_some();
    before.is_some_and(counts) || explanation.as_ref().is_some_and(|(_, waiting)| counts(waiting))
}
