//! The API server, the machines, and everybody who is not part of the operator.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use reboot_core::Now;
use reboot_core::annotations::{self as key, NodePatch};
use reboot_core::audit::{Actor, Audit, Violation};
use reboot_core::drain::{Attachments, Budgets, PodRef, PodView};
use reboot_core::ids::BootId;
use reboot_core::ledger::{Ledger, LedgerState};
use reboot_core::quota::Quota;
use reboot_core::selector::Selector;
use reboot_core::step::{Engine, HostView, Memory, ShutdownLock};

use super::api::{ApiNode, Map, Refused};
use super::mutation::Mutation;
use super::print::FIRST;
use super::state::{Faults, Held, Host, Kubelet, Machine, Printed, Seen, State};

/// What is the same in every state.
pub(crate) struct World {
    pub(crate) nodes: usize,
    pub(crate) controllers: usize,
    pub(crate) faults: Faults,
    /// Whether every state is played to its end.
    pub(crate) checks_ends: bool,
    /// The most rounds that a state took to its end.
    pub(crate) rounds: AtomicUsize,
    /// What is wrong on purpose.
    pub(crate) mutation: Option<Mutation>,
    pub(crate) plan_policy: reboot_core::plan::Policy,
    pub(crate) step_policy: reboot_core::step::Policy,
}

/// The label by which the selector leaves a node out.
const LEFT_OUT: (&str, &str) = ("role", "control");

impl World {
    pub(crate) fn new(controllers: usize, nodes: usize, quota: usize, faults: Faults) -> Self {
        Self {
            nodes,
            controllers,
            faults,
            checks_ends: false,
            rounds: AtomicUsize::new(0),
            mutation: None,
            plan_policy: reboot_core::plan::Policy {
                quota: Quota::Nodes(quota),
                selector: Self::selector(),
                pickup_deadline: Duration::from_mins(2),
            },
            step_policy: reboot_core::step::Policy {
                drain_timeout: Duration::from_mins(10),
                on_drain_timeout: reboot_core::step::OnDrainTimeout::GiveUp,
                // There are no budgets here.
                on_drain_blocked: reboot_core::step::OnDrainBlocked::Drain,
                min_uptime: Duration::ZERO,
                drain: reboot_core::drain::Rules::default(),
            },
        }
    }

    fn selector() -> Selector {
        format!("{}!={}", LEFT_OUT.0, LEFT_OUT.1).parse().unwrap()
    }

    /// Every node is asked for, and the ledger is whole and empty.
    pub(crate) fn first(&self) -> State {
        let audit = Audit::new(self.plan_policy.quota, Self::selector());
        let mut state = State::new(Vec::new(), Held::new(None), self.controllers, self.faults, audit);
        for host in 0..self.nodes {
            let name = format!("n{}", state.draw()).into();
            let machine = Machine { boot: state.draw(), going_down: false, kubelet: Kubelet::Steady, pod: None };
            let memory = Printed::new(Memory::seeded(state.draw()));
            state.hosts.push(Host { name, node: None, machine, memory, newest: 0 });
            state.boots(host);
            state.register(host);
            state.change(Actor::Person, host, |node| {
                node.annotations.insert(key::NEEDED.to_owned(), "kernel".to_owned());
            });
        }
        state.create_map();
        let Some(version) = version(&state.map.state) else { unreachable!("the ConfigMap was just created") };
        let _ = state.replace(&Ledger::complete(version, Vec::new()), Actor::Controller);
        state.fingerprinted()
    }
}

pub(crate) fn version(state: &LedgerState) -> Option<reboot_core::ledger::Version> {
    match state {
        LedgerState::Known(ledger) => Some(ledger.version.clone()),
        LedgerState::Lost(lost) => lost.version.clone(),
    }
}

pub(crate) fn boot_id(number: u64) -> BootId {
    format!("aaaaaaaa-aaaa-aaaa-aaaa-{number}").parse().unwrap()
}

impl State {
    /// An identity that was never used.
    pub(crate) fn draw(&mut self) -> u64 {
        self.drawn += 1;
        FIRST + self.drawn
    }

    pub(crate) fn now(&self) -> Now {
        Now { mono: self.mono(), wall: "2026-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap() + self.mono() }
    }

    fn mono(&self) -> Duration {
        Duration::from_hours(u64::from(self.hours))
    }

    fn found(&mut self, violations: Vec<Violation>) {
        // Of two controllers one can write over the trace by which the other knows what a person removed.
        let alone = self.controllers.len() == 1;
        let counts = |found: &Violation| alone || found.fault != reboot_core::audit::Fault::GrantRenewed;
        self.broken = self.broken.take().or_else(|| violations.into_iter().find(counts));
    }

    fn set_node(&mut self, actor: Actor, host: usize, api: Option<ApiNode>) {
        let version = self.draw();
        let name = Arc::clone(&self.hosts[host].name);
        let node = api.map(|api| Seen::new(&name, ApiNode { version, ..api }));
        let mono = self.mono();
        let audit = Arc::make_mut(&mut self.audit);
        let found = audit.node_changed(actor, &name, node.as_ref().map(|node| &node.view), mono);
        self.hosts[host].node = node;
        self.found(found);
    }

    /// A change by somebody who does not look at resourceVersions; whether it changed anything.
    pub(crate) fn change(&mut self, actor: Actor, host: usize, change: impl FnOnce(&mut ApiNode)) -> bool {
        let Some(before) = self.node(host).map(|node| node.api.clone()) else { return false };
        let mut after = before.clone();
        change(&mut after);
        let changed = after != before;
        if changed {
            self.set_node(actor, host, Some(after));
        }
        changed
    }

    /// A write of the operator to the Node as it was seen.
    pub(crate) fn patch(
        &mut self,
        actor: Actor,
        host: usize,
        seen: &Seen,
        patch: &NodePatch,
    ) -> Result<Arc<Seen>, Refused> {
        let before = Arc::clone(self.node(host).ok_or(Refused::Gone)?);
        let manager = if actor == Actor::Agent { key::AGENT_MANAGER } else { key::CONTROLLER_MANAGER };
        let after = before.api.merged(manager, &patch.to_merge_patch(&seen.view.uid, &seen.view.resource_version))?;
        // A write that changes nothing does not raise the resourceVersion.
        if after != before.api {
            self.set_node(actor, host, Some(after));
        }
        self.node(host).cloned().ok_or(Refused::Gone)
    }

    pub(crate) fn delete_node(&mut self, host: usize) -> bool {
        let there = self.node(host).is_some();
        if there {
            self.set_node(Actor::Person, host, None);
        }
        there
    }

    /// kubelet creates the Node.
    pub(crate) fn register(&mut self, host: usize) {
        let uid = format!("u{}", self.draw());
        let boot = boot_id(self.hosts[host].machine.boot).to_string();
        self.set_node(Actor::Machine, host, Some(ApiNode { uid, boot, ready: true, ..ApiNode::default() }));
    }

    fn set_map(&mut self, actor: Actor, map: Option<Map>) {
        let version = self.draw();
        self.map = Held::new(map.map(|map| Map { version, ..map }));
        let found = Arc::make_mut(&mut self.audit).ledger_changed(actor, &self.map.state);
        self.found(found);
    }

    pub(crate) fn create_map(&mut self) {
        let uid = format!("m{}", self.draw());
        self.set_map(Actor::Controller, Some(Map { uid, version: 0, data: None }));
    }

    pub(crate) fn replace(&mut self, ledger: &Ledger, actor: Actor) -> Result<(), Refused> {
        let before = self.map.map.clone().ok_or(Refused::Gone)?;
        let after = before.replaced(ledger)?;
        if after != before {
            self.set_map(actor, Some(after));
        }
        Ok(())
    }

    /// A person deletes the ledger, or writes something else into it.
    pub(crate) fn harm_map(&mut self, change: impl FnOnce(Map) -> Option<Map>) -> bool {
        let there = self.map.map.clone();
        let harmed = there.is_some();
        if let Some(map) = there {
            self.set_map(Actor::Person, change(map));
        }
        harmed
    }

    fn boots(&mut self, host: usize) {
        let Host { name, machine, .. } = &self.hosts[host];
        let (name, boot) = (Arc::clone(name), boot_id(machine.boot));
        Arc::make_mut(&mut self.audit).booted(&name, boot);
    }

    /// The machine goes down and comes up again, and with it the agent.
    pub(crate) fn reboot(&mut self, host: usize) {
        let boot = self.draw();
        let machine = &mut self.hosts[host].machine;
        (machine.boot, machine.going_down, machine.kubelet) = (boot, false, Kubelet::Boot);
        self.restart_agent(host);
        self.boots(host);
    }

    pub(crate) fn restart_agent(&mut self, host: usize) {
        let run = self.draw();
        let host = &mut self.hosts[host];
        (host.memory, host.newest) = (Printed::new(Memory::seeded(run)), 0);
    }

    /// logind begins the shutdown.
    pub(crate) fn go_down(&mut self, host: usize) {
        self.hosts[host].machine.going_down = true;
        let name = Arc::clone(&self.hosts[host].name);
        Arc::make_mut(&mut self.audit).going_down(&name);
    }

    /// logind is called after the pods have been listed as they are now. An hour is longer than any drain takes.
    pub(crate) fn logind_called(&mut self, host: usize) {
        let (name, pods) = (Arc::clone(&self.hosts[host].name), self.pods(host));
        let pods_may_be_left = self.hours > 0;
        let found = Arc::make_mut(&mut self.audit).logind_called(&name, &pods, pods_may_be_left);
        self.found(found);
    }

    /// What happens on this machine by itself; whether there is anything.
    pub(crate) fn machine_goes_on(&mut self, host: usize) -> bool {
        let machine = self.hosts[host].machine;
        let boot = boot_id(machine.boot).to_string();
        match machine.kubelet {
            _ if machine.going_down => self.reboot(host),
            _ if self.node(host).is_none() => {
                self.hosts[host].machine.kubelet = Kubelet::Steady;
                self.register(host);
            }
            Kubelet::Boot => {
                self.hosts[host].machine.kubelet = Kubelet::Ready;
                self.change(Actor::Machine, host, |node| (node.boot, node.ready) = (boot, false));
            }
            Kubelet::Ready => {
                self.hosts[host].machine.kubelet = Kubelet::Steady;
                self.change(Actor::Machine, host, |node| node.ready = true);
            }
            Kubelet::Steady => return false,
        }
        true
    }

    /// What the agent sees of its machine. `fresh`: it has just asked. Until then it knows nothing of its pods, as when
    /// its watch lags for as long as it can.
    pub(crate) fn host_view(&self, host: usize, fresh: bool) -> HostView {
        let machine = self.hosts[host].machine;
        HostView {
            boot: Some(boot_id(machine.boot)),
            os_version: None,
            uptime: Duration::from_hours(1),
            engine: Engine::Otherwise,
            pods: Some(if fresh { self.pods(host) } else { Vec::new() }),
            budgets: Budgets(Some(Vec::new())),
            attachments: Attachments(Some(Vec::new())),
            lock: ShutdownLock::Free,
            other_manager: None,
        }
    }

    /// The pods on this node.
    pub(crate) fn pods(&self, host: usize) -> Vec<PodView> {
        let pod = |number: u64| {
            let pod = PodRef { namespace: "default".into(), name: "web".into(), uid: format!("p{number}") };
            PodView { pod, controller: Some("web".into()), ..PodView::default() }
        };
        self.hosts[host].machine.pod.map(pod).into_iter().collect()
    }

    /// A person labels the node so that the selector leaves it out, or takes that label away.
    pub(crate) fn toggle_selection(&mut self, host: usize) -> bool {
        self.change(Actor::Person, host, |node| {
            if node.labels.remove(LEFT_OUT.0).is_none() {
                node.labels.insert(LEFT_OUT.0.to_owned(), LEFT_OUT.1.to_owned());
            }
        })
    }
}
