//! The agent's loop around the real [`step`], made simple: whatever it does is answered before it goes on, evictions
//! included, and with every fresh view it reads the Node, which the agent's process does past the point of no return only.

use std::time::Duration;

use super::world::{Failure, World};
use crate::audit::Actor;
use crate::drain::{Attachments, Budgets, PodView};
use crate::ids::BootId;
use crate::node::NodeView;
use crate::step::{Action, EvictReply, Fresh, HostView, Memory, Situation, Step, Watches, step, watches};

/// One run of the agent's process.
pub(super) struct Agent {
    memory: Memory,
    /// How far the watch of the Node has come in the history, and what reads and writes have shown since.
    watched: usize,
    newest: Option<NodeView>,
    pods: Option<Vec<PodView>>,
    budgets: Budgets,
    watching: Watches,
    started: Duration,
    /// When logind was last called by it, or it started.
    called: Duration,
    boot: BootId,
    /// When it wants to look again by itself.
    pub(super) wake: Option<Duration>,
}

impl Agent {
    pub(super) fn started_at(mono: Duration, boot: BootId) -> Self {
        let (memory, budgets) =
            (Memory::seeded(u64::try_from(mono.as_nanos()).unwrap_or_default()), Budgets::default());
        let watching = Watches::default();
        let (started, called) = (mono, mono);
        Self { memory, watched: 0, newest: None, pods: None, budgets, watching, started, called, boot, wake: None }
    }

    /// Something else may happen, the end of this process included.
    fn disturb(&self, world: &mut World, host: usize) -> Result<(), Failure> {
        world.disturb()?;
        let machine = &world.hosts[host].machine;
        if machine.is_down() || machine.boot != self.boot { Err(Failure::Crash) } else { Ok(()) }
    }

    /// One turn of the loop; whether anything was done.
    fn turn(&mut self, world: &mut World, host: usize) -> Result<bool, Failure> {
        self.watch(world, host);
        let Some(node) = self.newest.clone() else { return Ok(false) };
        self.memory.observe(&node, self.now(world));
        let (pods, budgets, volumes) = (self.pods.clone(), self.budgets.clone(), self.attachments(world, host));
        let view = world.hosts[host].machine.host_view(pods, budgets, volumes, world.mono);
        self.memory.observe_host(&view, self.now(world));
        let before = self.watching;
        self.watching = watches(&self.situation(world, &node, &view, None));
        if self.watching != before {
            // What is watched anew is seen at the next turn.
            return Ok(true);
        }
        let decided = self.decide(world, &node, &view, None);
        self.wake = decided.wake.map(|delay| world.mono + delay);
        match decided.action {
            Action::Refresh => self.act_on_fresh_view(world, host),
            action => self.act(world, host, action, &node, &view),
        }
    }

    fn now(&self, world: &World) -> crate::Now {
        crate::Now { mono: world.mono.saturating_sub(self.started), ..world.now() }
    }

    fn watch(&mut self, world: &mut World, host: usize) {
        let history = world.hosts[host].history.len();
        let behind = if world.faults && world.random.once_in(3) { world.random.below(4) } else { 0 };
        self.watched = self.watched.max(history.saturating_sub(1 + behind));
        let seen = world.hosts[host].history[self.watched].clone();
        let version = |node: &NodeView| node.resource_version.parse::<u64>().unwrap();
        if seen.is_none() || self.newest.as_ref().map(version) < seen.as_ref().map(version) {
            self.newest = seen;
        }
        if !self.watching.pods {
            (self.pods, self.budgets) = (None, Budgets::default());
            return;
        }
        if behind == 0 {
            self.pods = Some(world.hosts[host].machine.pods());
        }
        // A watch of its own, which is behind at other times, or has not begun.
        if !world.faults || world.random.once_in(2) {
            self.budgets = world.budget.view();
        }
    }

    fn attachments(&self, world: &World, host: usize) -> Attachments {
        if self.watching.volumes { world.hosts[host].machine.attachments() } else { Attachments::default() }
    }

    fn decide(&mut self, world: &World, node: &NodeView, host: &HostView, fresh: Option<Fresh>) -> Step {
        step(&self.situation(world, node, host, fresh))
    }

    fn situation<'a>(
        &'a self,
        world: &'a World,
        node: &'a NodeView,
        host: &'a HostView,
        fresh: Option<Fresh>,
    ) -> Situation<'a> {
        Situation { node, host, memory: &self.memory, policy: &world.step_policy, fresh, now: self.now(world) }
    }

    fn act_on_fresh_view(&mut self, world: &mut World, host: usize) -> Result<bool, Failure> {
        self.read(world, host)?;
        let pods = world.hosts[host].machine.pods();
        self.disturb(world, host)?;
        let (budgets, volumes) = (self.budgets.clone(), self.attachments(world, host));
        let view = world.hosts[host].machine.host_view(Some(pods), budgets, volumes, world.mono);
        let mut fresh = world.hosts[host].machine.fresh();
        if world.faults && world.random.once_in(10) {
            // The bus is away.
            fresh.preparing_for_shutdown = None;
        }
        let Some(node) = self.newest.clone() else { return Ok(true) };
        self.memory.observe(&node, self.now(world));
        let decided = self.decide(world, &node, &view, Some(fresh));
        if matches!(decided.action, Action::Wait | Action::Refresh) {
            self.wake = Some(world.mono + decided.wake.unwrap_or(Duration::from_secs(30)));
            return Ok(false);
        }
        self.act(world, host, decided.action, &node, &view)
    }

    fn act(
        &mut self,
        world: &mut World,
        host: usize,
        action: Action,
        node: &NodeView,
        view: &HostView,
    ) -> Result<bool, Failure> {
        self.disturb(world, host)?;
        match action {
            Action::Wait | Action::Refresh => return Ok(false),
            Action::Write(patch, _) => match world.patch(Actor::Agent, host, node, &patch) {
                Ok(node) => {
                    self.memory.wrote(&node, self.now(world));
                    self.newest = Some(node);
                }
                Err(Failure::Crash) => return Err(Failure::Crash),
                Err(_) => return self.read(world, host).map(|()| true),
            },
            Action::Evict(pods) => {
                for evict in pods {
                    self.memory.evicting(&evict, self.now(world));
                    self.disturb(world, host)?;
                    let reply: EvictReply = world.evict(host, &evict.pod.uid);
                    self.memory.evicted(&evict.pod.uid, reply, self.now(world));
                }
            }
            Action::Reboot => {
                let policy = &world.step_policy;
                let may_be_left = policy.on_drain_timeout == crate::step::OnDrainTimeout::Reboot
                    || world.mono.saturating_sub(self.called) >= policy.drain_timeout;
                self.called = world.mono;
                let (name, pods) = (world.hosts[host].name.clone(), view.pods.clone().unwrap_or_default());
                world.violations.extend(world.audit.logind_called(&name, &pods, may_be_left));
                let reply = world.call_logind(host);
                self.disturb(world, host)?;
                self.memory.logind_replied(reply, self.now(world));
            }
        }
        Ok(true)
    }

    /// Reads the Node afresh.
    fn read(&mut self, world: &mut World, host: usize) -> Result<(), Failure> {
        self.disturb(world, host)?;
        self.newest = world.view(host).cloned();
        Ok(())
    }
}

impl World {
    /// The agent of this host takes one turn, if it is there; whether anything was done.
    pub(super) fn run_agent(&mut self, host: usize) -> bool {
        let Some(mut agent) = self.hosts[host].agent.take() else { return false };
        let done = agent.turn(self, host);
        let machine = &self.hosts[host].machine;
        let boot = machine.boot;
        if machine.is_down() || agent.boot != boot {
            return true;
        }
        if done == Err(Failure::Crash) {
            let name = self.hosts[host].name.clone();
            self.tell(|| format!("the agent of {name} starts anew"));
            agent = Agent::started_at(self.mono, boot);
        }
        self.hosts[host].agent = Some(agent);
        done != Ok(false)
    }
}
