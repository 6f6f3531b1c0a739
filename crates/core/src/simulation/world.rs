//! The API server, the machines and the pods: what is true. Every change goes through the [`Audit`].

use std::time::Duration;

use serde_json::Value;

use super::agent::Agent;
use super::api::{ApiNode, Map, Refused};
use super::budget::Budget;
use super::controller::Controller;
use super::machine::Machine;
use super::random::Random;
use crate::Now;
use crate::annotations::{self as key, NodePatch};
use crate::audit::{Actor, Audit, Fault, Violation};
use crate::ledger::{Ledger, LedgerState};
use crate::node::{CONTROL_PLANE, NodeView};
use crate::step::OnDrainBlocked;

/// Why a call did not do what it was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// 409.
    Conflict,
    /// 404, or another UID.
    Gone,
    /// The reply was lost: it was done, or will be done, or neither.
    Unknown,
    /// The caller is no more.
    Crash,
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Conflict => Self::Conflict,
            Refused::Gone => Self::Gone,
        }
    }
}

/// A node with everything on it.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) api: Option<ApiNode>,
    /// What a watch would show, oldest first.
    pub(super) history: Vec<Option<NodeView>>,
    pub(super) machine: Machine,
    /// `None` while it is at work or its machine is down.
    pub(super) agent: Option<Agent>,
    /// Whether kubelet registers it as a control-plane node.
    pub(super) control_plane: bool,
}

/// A write whose client has given up waiting, and that arrives later.
pub(super) enum Late {
    Node(Actor, usize, Value),
    Ledger(Ledger),
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) mono: Duration,
    pub(super) wall_offset: i64,
    /// How far the wall clock has stepped forward: what waits for a time of day is over so much earlier.
    pub(super) skipped: Duration,
    version: u64,
    pub(super) hosts: Vec<Host>,
    map: Option<Map>,
    /// `None` while it is at work.
    pub(super) controllers: Vec<Option<Controller>>,
    pub(super) plan_policy: crate::plan::Policy,
    pub(super) step_policy: crate::step::Policy,
    pub(super) budget: Budget,
    pub(super) audit: Audit,
    pub(super) violations: Vec<Violation>,
    pub(super) faults: bool,
    pub(super) depth: usize,
    pub(super) late: Vec<Late>,
    /// What happened, when it is to be told.
    pub(super) story: Option<Vec<String>>,
    fences: u64,
}

impl World {
    pub(super) fn new(seed: u64, tell: bool) -> Self {
        let mut random = Random::new(seed);
        let quota = random.pick(&["1", "1", "2", "50%", "100%"]).parse().unwrap();
        let selector: crate::selector::Selector = "role!=control".parse().unwrap();
        let on_drain_timeout =
            *random.pick(&[crate::step::OnDrainTimeout::GiveUp, crate::step::OnDrainTimeout::Reboot]);
        let mut world = Self {
            mono: Duration::from_secs(1000),
            wall_offset: 0,
            skipped: Duration::ZERO,
            version: 100,
            hosts: Vec::new(),
            map: None,
            controllers: (0..=seed % 2).map(|_| Some(Controller::default())).collect(),
            plan_policy: crate::plan::Policy {
                quota,
                selector: selector.clone(),
                pickup_deadline: Duration::from_mins(2),
            },
            step_policy: crate::step::Policy {
                drain_timeout: Duration::from_mins(10),
                on_drain_timeout,
                on_drain_blocked: *random.pick(&[
                    OnDrainBlocked::GiveUp,
                    OnDrainBlocked::GiveUp,
                    OnDrainBlocked::Drain,
                ]),
                min_uptime: Duration::from_mins(2),
                drain: crate::drain::Rules::default(),
            },
            budget: Budget::new(1 + random.below(2)),
            audit: Audit::new(quota, selector),
            violations: Vec::new(),
            faults: true,
            depth: 0,
            late: Vec::new(),
            story: tell.then(Vec::new),
            fences: 0,
            random,
        };
        for number in 0..3 + world.random.below(2) {
            let (name, machine) = (format!("n{number}"), Machine::new(&mut world.random));
            world.audit.booted(&name, machine.boot);
            let agent = Some(Agent::started_at(world.mono, machine.boot));
            let control_plane = seed.is_multiple_of(3) && number < 2;
            world.hosts.push(Host { name, api: None, history: Vec::new(), machine, agent, control_plane });
            world.register(number);
        }
        world
    }

    pub(super) fn now(&self) -> Now {
        let seconds = i64::try_from(self.mono.as_secs()).unwrap() + self.wall_offset + 1_767_268_800;
        Now { mono: self.mono, wall: jiff::Timestamp::from_second(seconds).unwrap() }
    }

    pub(super) fn tell(&mut self, what: impl FnOnce() -> String) {
        let (mono, depth) = (self.mono, self.depth);
        if let Some(story) = &mut self.story {
            story.push(format!("{:>9.1} {:indent$}{}", mono.as_secs_f64(), "", what(), indent = depth * 4));
        }
    }

    pub(super) fn view(&self, host: usize) -> Option<&NodeView> {
        self.hosts[host].history.last().and_then(Option::as_ref)
    }

    pub(super) fn index(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| host.name == name)
    }

    pub(super) fn fresh_fence(&mut self) -> String {
        self.fences += 1;
        format!("fence-{}", self.fences)
    }

    /// kubelet creates the Node, as it does where there is none.
    pub(super) fn register(&mut self, host: usize) {
        let boot = self.hosts[host].machine.boot.to_string();
        let label = self.hosts[host].control_plane.then(|| (CONTROL_PLANE.to_owned(), String::new()));
        let (uid, labels) = (format!("uid-{}", self.version), label.into_iter().collect());
        let api = ApiNode { uid, labels, boot, ready: true, ..ApiNode::default() };
        self.set_node(Actor::Machine, host, Some(api));
    }

    /// A change by somebody who does not look at resourceVersions.
    pub(super) fn change(&mut self, actor: Actor, host: usize, change: impl FnOnce(&mut ApiNode)) {
        let Some(before) = &self.hosts[host].api else { return };
        let mut after = before.clone();
        change(&mut after);
        self.set_node(actor, host, Some(after));
    }

    pub(super) fn set_node(&mut self, actor: Actor, host: usize, node: Option<ApiNode>) {
        self.version += 1;
        let node = node.map(|node| ApiNode { version: self.version, ..node });
        let view = node.as_ref().map(|node| node.view(&self.hosts[host].name));
        let name = self.hosts[host].name.clone();
        let before = self.hosts[host].api.take().unwrap_or_default();
        self.tell(|| {
            format!(
                "{actor:?} wrote {name}: {}",
                node.as_ref().map_or("deleted".into(), |node| difference(&before, node))
            )
        });
        let mono = self.mono + self.skipped;
        let found = self.audit.node_changed(actor, &name, view.as_ref(), mono);
        // Of two controllers one can write over the trace by which the other knows what a person removed.
        let alone = self.controllers.len() == 1;
        self.violations.extend(found.into_iter().filter(|found| alone || found.fault != Fault::GrantRenewed));
        self.hosts[host].api = node;
        self.hosts[host].history.push(view);
    }

    /// A merge patch of the operator reaches the API server.
    pub(super) fn apply(&mut self, actor: Actor, host: usize, body: &Value) -> Result<NodeView, Failure> {
        let before = self.hosts[host].api.clone().ok_or(Failure::Gone)?;
        let manager = if actor == Actor::Agent { key::AGENT_MANAGER } else { key::CONTROLLER_MANAGER };
        let after = before.merged(manager, body)?;
        // A write that changes nothing does not raise the resourceVersion.
        if after != before {
            self.set_node(actor, host, Some(after));
        }
        self.view(host).cloned().ok_or(Failure::Gone)
    }

    /// The operator patches a Node at the version of this view, over a network that may lose and delay.
    pub(super) fn patch(
        &mut self,
        actor: Actor,
        host: usize,
        seen: &NodeView,
        patch: &NodePatch,
    ) -> Result<NodeView, Failure> {
        let body = patch.to_merge_patch(&seen.uid, &seen.resource_version);
        if self.faults && self.random.once_in(30) {
            self.tell(|| format!("{actor:?}'s write is delayed"));
            self.late.push(Late::Node(actor, host, body));
            return Err(Failure::Unknown);
        }
        let reply = self.apply(actor, host, &body);
        self.lose(reply)
    }

    /// The reply to a call may get lost.
    pub(super) fn lose<T>(&mut self, reply: Result<T, Failure>) -> Result<T, Failure> {
        if self.faults && self.random.once_in(30) {
            self.tell(|| "the reply is lost".into());
            return Err(Failure::Unknown);
        }
        reply
    }

    pub(super) fn read_ledger(&self) -> LedgerState {
        Map::read(self.map.as_ref())
    }

    pub(super) fn create_ledger(&mut self) {
        if self.map.is_none() {
            self.version += 1;
            self.map = Some(Map { uid: format!("map-{}", self.version), version: self.version, data: None });
            self.ledger_written(Actor::Controller);
        }
    }

    pub(super) fn replace_ledger(&mut self, ledger: &Ledger) -> Result<Ledger, Failure> {
        if self.faults && self.random.once_in(30) {
            self.tell(|| "a write of the ledger is delayed".into());
            self.late.push(Late::Ledger(ledger.clone()));
            return Err(Failure::Unknown);
        }
        let reply = self.apply_ledger(ledger);
        self.lose(reply)
    }

    pub(super) fn apply_ledger(&mut self, ledger: &Ledger) -> Result<Ledger, Failure> {
        let before = self.map.clone().ok_or(Failure::Gone)?;
        let after = before.replaced(ledger)?;
        if after != before {
            self.version += 1;
            self.map = Some(Map { version: self.version, ..after });
            self.ledger_written(Actor::Controller);
        }
        self.read_ledger().known().cloned().ok_or(Failure::Gone)
    }

    /// A person deletes the ledger, or writes nonsense into it.
    pub(super) fn harm_ledger(&mut self, delete: bool) {
        self.version += 1;
        match &mut self.map {
            Some(_) if delete => self.map = None,
            Some(map) => (map.version, map.data) = (self.version, Some("{}".into())),
            None => return,
        }
        self.ledger_written(Actor::Person);
    }

    fn ledger_written(&mut self, actor: Actor) {
        let state = self.read_ledger();
        self.tell(|| match &state {
            LedgerState::Known(ledger) => {
                let slots: Vec<String> = ledger.slots().iter().map(short_slot).collect();
                format!("{actor:?} wrote the ledger {}: [{}]", ledger.version.resource_version, slots.join(", "))
            }
            LedgerState::Lost(lost) => format!("{actor:?} left the ledger lost: {}", lost.why),
        });
        self.violations.extend(self.audit.ledger_changed(actor, &state));
    }
}

fn short_slot(slot: &crate::ledger::Slot) -> String {
    format!("{}={}", slot.node, slot.id.map_or("?".into(), |id| shorten(&id.to_string())))
}

/// Boot IDs of the simulation differ in their last digits.
fn shorten(text: &str) -> String {
    text.replace("00000000-0000-0000-0000-0000", "").replace("reboot-operator.io/", "")
}

fn difference(before: &ApiNode, after: &ApiNode) -> String {
    let mut words = vec![format!("v{}", after.version)];
    let cordon = |node: &ApiNode| {
        node.cordon.as_ref().map_or("uncordoned".into(), |owners| format!("cordon {}", owners.join("+")))
    };
    words.extend((before.cordon != after.cordon).then(|| cordon(after)));
    words.extend((before.boot != after.boot).then(|| shorten(&after.boot)));
    words.extend((before.ready != after.ready).then(|| format!("ready={}", after.ready)));
    words.extend((before.labels != after.labels).then(|| format!("labels={:?}", after.labels)));
    words.extend((before.uid != after.uid).then(|| format!("uid={}", after.uid)));
    let set = after.annotations.iter().filter(|(key, value)| before.annotations.get(*key) != Some(value));
    words.extend(set.map(|(key, value)| shorten(&format!("{key}={value}"))));
    let removed = before.annotations.keys().filter(|key| !after.annotations.contains_key(*key));
    words.extend(removed.map(|key| shorten(&format!("-{key}"))));
    words.join(" ")
}
