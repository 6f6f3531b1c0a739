//! The agent's loop around the real [`step`], one call to the outside at a time.

use std::sync::Arc;

use reboot_core::Now;
use reboot_core::annotations::{self as key, NodePatch};
use reboot_core::audit::Actor;
use reboot_core::ids::GrantId;
use reboot_core::node::{CordonOwner, NodeView};
use reboot_core::step::{Action, EvictReply, Fresh, HostView, LogindReply, Memory, Situation, step};
use reboot_core::values::{Field, InProgress, Permission, Phase};

use super::mutation::Mutation as M;
use super::print::FIRST;
use super::state::{NodeWrite, Printed, Seen, State, Write};
use super::world::{World, boot_id};

/// How the call of a turn ends, where that is not as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Luck {
    Good,
    /// The write arrives later, or never.
    Late,
    /// logind says no.
    Refused,
    /// logind says yes, and nothing comes of it.
    NothingHappens,
}

impl World {
    /// One turn of the agent on the Node as it stands, or as a watch showed it earlier; whether there was anything to do.
    pub(crate) fn agent_turns(&self, state: &mut State, host: usize, seen: &Arc<Seen>, luck: Luck) -> bool {
        if seen.api.version < state.hosts[host].newest {
            return false;
        }
        let (now, before) = (state.now(), Arc::clone(&state.hosts[host].memory));
        let mut memory = before.value.clone();
        self.observe(&mut memory, &seen.view, now);
        let forgets_removed = self.is(M::NotRestored) && seen.view.in_progress.is_absent();
        let forgets_paused = self.is(M::GiveBackAfterCall) && seen.view.paused.is_some();
        if forgets_removed || forgets_paused {
            memory = Memory::seeded(state.draw());
        }
        let (seen, action) = self.decide(state, host, seen, &mut memory);
        let done = self.act(state, host, &seen, action, &mut memory, luck);
        let memory = Printed::new(memory);
        let has_learnt = memory.print != before.print;
        // A crash in this very turn has nothing to remember.
        state.hosts[host].memory = memory;
        done.unwrap_or(luck == Luck::Good && has_learnt)
    }

    fn observe(&self, memory: &mut Memory, view: &NodeView, now: Now) {
        let mut view = view.clone();
        if let Field::Set(progress) = &mut view.in_progress
            && self.is(M::TrustEarlierRun)
        {
            progress.run = Some(memory.run());
        }
        memory.observe(&view, now);
    }

    /// What the agent does on this view, or on one that it reads for this.
    fn decide(&self, state: &State, host: usize, seen: &Arc<Seen>, memory: &mut Memory) -> (Arc<Seen>, Action) {
        let decide = |seen: &Seen, memory: &Memory, fresh: bool| {
            let (node, view) = self.taken_by_agent(&seen.view, state.host_view(host, fresh));
            let (policy, now) = (&self.step_policy, state.now());
            let going_down = state.hosts[host].machine.going_down && !self.is(M::NotRestored);
            let fresh = fresh.then_some(Fresh { preparing_for_shutdown: Some(going_down) });
            step(&Situation { node: &node, host: &view, memory, policy, fresh, now }).action
        };
        let action = decide(seen, memory, false);
        if action != Action::Refresh {
            return (Arc::clone(seen), action);
        }
        // Before the point of no return the Node need not be read: what is decided is a write at its resourceVersion.
        let newest = if memory.is_committed() { state.node(host).unwrap_or(seen) } else { seen };
        self.observe(memory, &newest.view, state.now());
        (Arc::clone(newest), decide(newest, memory, true))
    }

    /// Carries it out; `None`: there was nothing to do.
    fn act(
        &self,
        state: &mut State,
        host: usize,
        seen: &Arc<Seen>,
        action: Action,
        memory: &mut Memory,
        luck: Luck,
    ) -> Option<bool> {
        match action {
            Action::Wait | Action::Refresh => None,
            Action::Write(patch, _) => self.agent_writes(state, host, seen, &patch, memory, luck),
            Action::Evict(_) | Action::Reboot if luck == Luck::Late => Some(false),
            Action::Evict(_) if luck != Luck::Good => Some(false),
            Action::Evict(pods) => {
                for evict in pods {
                    memory.evicting(&evict, state.now());
                    memory.evicted(&evict.pod.uid, EvictReply::Accepted, state.now());
                }
                state.hosts[host].machine.pod = None;
                Some(true)
            }
            Action::Reboot => {
                state.logind_called(host);
                let reply = match luck {
                    Luck::Refused => LogindReply::Refused("an inhibitor".to_owned()),
                    Luck::Good | Luck::Late | Luck::NothingHappens => LogindReply::MayHappen,
                };
                memory.logind_replied(reply, state.now());
                if luck == Luck::Good {
                    state.go_down(host);
                }
                Some(true)
            }
        }
    }

    fn agent_writes(
        &self,
        state: &mut State,
        host: usize,
        seen: &Arc<Seen>,
        patch: &NodePatch,
        memory: &mut Memory,
        luck: Luck,
    ) -> Option<bool> {
        let patch = self.without_words(patch, &seen.view);
        if patch == NodePatch::default() {
            return None;
        }
        let commits = phase(&patch) == Some(Phase::Rebooting);
        match luck {
            Luck::Good => {}
            Luck::Late if state.late.is_none() => {
                let write = NodeWrite { actor: Actor::Agent, host, seen: Arc::clone(seen), patch, then: None };
                state.late = Some(Printed::new(Write::Node(write)));
                return Some(true);
            }
            _ => return Some(false),
        }
        if commits && self.is(M::CallBeforeCommit) {
            state.logind_called(host);
        }
        let written = self.send(state, Actor::Agent, host, seen, &patch);
        if written.is_err() && commits && self.is(M::CallAfterFailedCommit) {
            state.logind_called(host);
        }
        match &written {
            Ok(node) => memory.wrote(&node.view, state.now()),
            // After a no the Node is read.
            Err(_) => state.node(host).into_iter().for_each(|node| self.observe(memory, &node.view, state.now())),
        }
        state.hosts[host].newest = state.node(host).map_or(0, |node| node.api.version);
        Some(true)
    }

    /// A write of the operator, at the version at which it was decided.
    pub(crate) fn send(
        &self,
        state: &mut State,
        actor: Actor,
        host: usize,
        seen: &Arc<Seen>,
        patch: &NodePatch,
    ) -> Result<Arc<Seen>, super::api::Refused> {
        let unconditional = match actor {
            Actor::Agent => match phase(patch) {
                Some(Phase::Draining) => self.is(M::StartWithoutVersion),
                Some(Phase::Rebooting) => self.is(M::CommitWithoutVersion),
                None => false,
            },
            _ if matches!(patch.get(key::REBOOT), Some(Some(_))) => self.is(M::GrantWithoutVersion),
            _ => self.is(M::FenceWithoutVersion),
        };
        let seen = if unconditional { state.node(host).unwrap_or(seen) } else { seen };
        let seen = Arc::clone(seen);
        state.patch(actor, host, &seen, patch)
    }

    /// What is only for people is left out: the search would tell states apart by it.
    fn without_words(&self, patch: &NodePatch, node: &NodeView) -> NodePatch {
        let mut kept = NodePatch::default().uncordon_if(patch.unschedulable() == Some(false));
        if patch.unschedulable() == Some(true) {
            kept = kept.cordon();
        }
        for (name, value) in patch.annotations().filter(|(name, _)| *name != key::STATUS) {
            kept = match value {
                Some(value) => kept.set(name, value),
                None => kept.remove(name),
            };
        }
        let gives_back = patch.get(key::LAST_REBOOT).is_some() && node.paused.is_some();
        if gives_back && self.is(M::PauseClearsNow) { kept.remove(key::REBOOT) } else { kept }
    }

    /// What the agent takes the Node and its machine for.
    fn taken_by_agent(&self, node: &NodeView, mut host: HostView) -> (NodeView, HostView) {
        let mut node = node.clone();
        let progress = node.in_progress.get().cloned();
        let boot = host.boot;
        let after_reboot = progress.as_ref().is_some_and(|progress| Some(progress.id.boot) != boot);
        match self.mutation {
            Some(M::StartOnSpentGrant) => {
                if let (Field::Set(Permission::Granted(id)), Some(boot)) = (&mut node.permission, boot)
                    && id.boot != boot
                {
                    *id = GrantId { boot, ..*id };
                    node.request = Field::Absent;
                }
            }
            Some(M::MalformedIsNow) if node.permission.malformed().is_some() => {
                node.permission = Field::Set(Permission::Now);
            }
            Some(M::IgnorePause) => node.paused = None,
            Some(M::IgnoreWithdrawal) => {
                let id = progress.map(|progress| Field::Set(Permission::Granted(progress.id)));
                node.permission = id.unwrap_or(node.permission);
            }
            Some(M::IgnoreUncordon) if progress.is_some() => node.unschedulable = true,
            Some(M::CallWithoutPods) => host.pods = Some(Vec::new()),
            Some(M::GiveBackAfterCall) if node.paused.is_some() && !after_reboot => {
                node.in_progress = progress
                    .map_or(Field::Absent, |progress| Field::Set(InProgress { phase: Phase::Draining, ..progress }));
            }
            Some(M::ConcludeAfterRestart) if progress.is_some_and(|progress| progress.phase == Phase::Rebooting) => {
                (host.boot, node.boot) = (Some(boot_id(FIRST)), Some(boot_id(FIRST)));
            }
            Some(M::BelieveOldReady) if after_reboot => node.boot = boot,
            Some(M::ReportBeforeReady) if after_reboot => node.ready = true,
            Some(M::UncordonForeign) => node.cordon_owner = CordonOwner::Agent,
            _ => {}
        }
        (node, host)
    }
}

/// The phase that a write puts the cycle into.
fn phase(patch: &NodePatch) -> Option<Phase> {
    let progress = patch.get(key::IN_PROGRESS)??;
    serde_json::from_str::<InProgress>(progress).ok().map(|progress| progress.phase)
}
