//! One state of the world: what the API server holds, what each process knows, and which faults are still to come.

use std::fmt;
use std::sync::Arc;

use reboot_core::audit::{Actor, Audit, Violation};
use reboot_core::ids::{GrantId, Serial};
use reboot_core::ledger::{Ledger, LedgerState, Slot, Version};
use reboot_core::node::NodeView;
use reboot_core::step::Memory;

use super::api::{ApiNode, Map};
use super::print::{Canon, Print};

/// How often each kind of fault may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Faults {
    /// A controller or an agent ends and starts anew, or a machine loses power.
    pub(crate) crashes: u8,
    /// A person does something.
    pub(crate) acts: u8,
    /// A view of a Node is kept, to be looked at when it is old.
    pub(crate) stale: u8,
    /// A write is on its way for longer than its sender waits.
    pub(crate) late: u8,
    /// An hour passes: every deadline.
    pub(crate) hours: u8,
    /// A pod comes to a node.
    pub(crate) pods: u8,
    /// logind refuses, or takes a call and does nothing.
    pub(crate) refusals: u8,
}

/// A Node at one version, as it is and as it is read.
pub(crate) struct Seen {
    pub(crate) api: ApiNode,
    pub(crate) view: NodeView,
    print: Print,
}

impl Seen {
    pub(crate) fn new(name: &str, api: ApiNode) -> Arc<Self> {
        let view = api.view(name);
        let print = Print::of(&view);
        Arc::new(Self { api, view, print })
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}

/// The ConfigMap of the ledger at one version.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) map: Option<Map>,
    pub(crate) state: LedgerState,
    print: Print,
}

impl Held {
    pub(crate) fn new(map: Option<Map>) -> Arc<Self> {
        let state = Map::read(map.as_ref());
        let print = Print::of(&state);
        Arc::new(Self { map, state, print })
    }

    fn slot(&self, node: &str) -> Option<&Slot> {
        self.state.known().and_then(|ledger| ledger.slot(node))
    }
}

/// Anything with its print.
#[derive(Debug)]
pub(crate) struct Printed<T> {
    pub(crate) value: T,
    pub(crate) print: Print,
}

impl<T: fmt::Debug> Printed<T> {
    pub(crate) fn new(value: T) -> Arc<Self> {
        let print = Print::of(&value);
        Arc::new(Self { value, print })
    }
}

/// A machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) boot: u64,
    /// logind has begun the shutdown.
    pub(crate) going_down: bool,
    pub(crate) kubelet: Kubelet,
    pub(crate) pod: Option<u64>,
}

/// What kubelet has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kubelet {
    Steady,
    /// The machine has booted: the boot ID, and that the node is not Ready yet.
    Boot,
    /// That it is Ready.
    Ready,
}

/// A node with its machine and its agent.
#[derive(Clone, Debug)]
pub(crate) struct Host {
    pub(crate) name: Arc<str>,
    pub(crate) node: Option<Arc<Seen>>,
    pub(crate) machine: Machine,
    /// What the agent's process remembers.
    pub(crate) memory: Arc<Printed<Memory>>,
    /// The newest version of the Node that this process has seen: a watch does not go back.
    pub(crate) newest: u64,
}

/// A write to a Node at the version at which it was decided.
#[derive(Clone)]
pub(crate) struct NodeWrite {
    pub(crate) actor: Actor,
    pub(crate) host: usize,
    pub(crate) seen: Arc<Seen>,
    pub(crate) patch: reboot_core::annotations::NodePatch,
    /// The ledger that is written after it.
    pub(crate) then: Option<Ledger>,
}

impl fmt::Debug for NodeWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What else the view shows is that very version of the Node, or the write fails.
        let NodeView { name, uid, resource_version, .. } = &self.seen.view;
        (self.actor, name, uid, resource_version, &self.patch, &self.then).fmt(f)
    }
}

/// A write that is on its way.
#[derive(Debug)]
pub(crate) enum Write {
    Node(NodeWrite),
    /// The ledger, and after it the Node.
    Ledger(Ledger, Option<NodeWrite>),
}

/// What a controller is about to do.
#[derive(Clone, Debug)]
pub(crate) enum Work {
    /// Plan.
    Plan,
    Write(Arc<Printed<Write>>),
    /// Read the ledger, and take away this grant if it is not in there.
    Expel(usize, Arc<Seen>),
    /// Create the ConfigMap.
    Create,
    /// List the Nodes, to complete this ConfigMap.
    List(Version),
    /// Take in or fence these Nodes, then complete the ledger.
    TakeIn(Ledger, Vec<(usize, Arc<Seen>)>),
}

/// A controller's process.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    /// The ledger as last read or written; `None`: to be read.
    pub(crate) ledger: Option<Arc<Held>>,
    pub(crate) work: Work,
}

#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) hosts: Vec<Host>,
    pub(crate) map: Arc<Held>,
    pub(crate) controllers: Vec<Controller>,
    /// A write whose sender has given up waiting.
    pub(crate) late: Option<Arc<Printed<Write>>>,
    /// A view that a watch may still show.
    pub(crate) old: Option<(usize, Arc<Seen>)>,
    /// Hours since the beginning.
    pub(crate) hours: u8,
    pub(crate) left: Faults,
    pub(crate) audit: Arc<Audit>,
    pub(crate) broken: Option<Violation>,
    pub(crate) drawn: u64,
    fingerprint: u64,
}

impl State {
    pub(crate) fn new(hosts: Vec<Host>, map: Arc<Held>, controllers: usize, left: Faults, audit: Audit) -> Self {
        let controllers = vec![Controller { ledger: None, work: Work::Plan }; controllers];
        let audit = Arc::new(audit);
        let (late, old, broken) = (None, None, None);
        Self { hosts, map, controllers, late, old, hours: 0, left, audit, broken, drawn: 0, fingerprint: 0 }
    }

    /// To be called when a state is as it shall be.
    pub(crate) fn fingerprinted(mut self) -> Self {
        self.fingerprint = self.canonical();
        self
    }

    pub(crate) fn node(&self, host: usize) -> Option<&Arc<Seen>> {
        self.hosts[host].node.as_ref()
    }

    pub(crate) fn index(&self, name: &str) -> Option<usize> {
        self.hosts.iter().position(|host| &*host.name == name)
    }

    /// Whether this is the Node as it stands.
    pub(crate) fn is_current(&self, host: usize, seen: &Seen) -> bool {
        self.node(host).is_some_and(|now| now.api.version == seen.api.version)
    }

    pub(crate) fn is_current_ledger(&self, version: &Version) -> bool {
        let map = self.map.map.as_ref();
        map.is_some_and(|map| map.version.to_string() == version.resource_version)
    }

    /// Whether a write can only be answered by 409.
    pub(crate) fn is_doomed(&self, write: &Write) -> bool {
        match write {
            Write::Node(write) => !self.is_current(write.host, &write.seen),
            Write::Ledger(ledger, _) => !self.is_current_ledger(&ledger.version),
        }
    }

    /// The same for states that differ in the names of things, in the order of the nodes, or in that of the controllers.
    fn canonical(&self) -> u64 {
        let mut canon = Canon::default();
        canon.value((self.hours, self.left, self.broken.is_some()));
        let mut order: Vec<usize> = (0..self.hosts.len()).collect();
        order.sort_by_cached_key(|host| self.shape(*host));
        for host in order {
            self.print_host(host, &mut canon);
        }
        canon.print(&self.map.print);
        let mut controllers: Vec<&Controller> = self.controllers.iter().collect();
        controllers.sort_by_cached_key(|controller| {
            let mut own = Canon::default();
            print_controller(controller, &mut own);
            own.finish()
        });
        for controller in controllers {
            print_controller(controller, &mut canon);
        }
        canon.value((self.late.is_some(), self.old.is_some()));
        self.late.iter().for_each(|late| canon.print(&late.print));
        if let Some((host, old)) = &self.old {
            canon.value(old.api.version >= self.hosts[*host].newest);
            canon.print(&old.print);
        }
        self.print_cycles(&mut canon);
        canon.finish()
    }

    /// How a host looks by itself, so that hosts can be put into an order that does not depend on their names.
    fn shape(&self, host: usize) -> u64 {
        let mut canon = Canon::default();
        self.print_host(host, &mut canon);
        self.map.slot(&self.hosts[host].name).iter().for_each(|slot| canon.print(&Print::of(slot)));
        canon.finish()
    }

    fn print_host(&self, host: usize, canon: &mut Canon) {
        let Host { name, node, machine, memory, .. } = &self.hosts[host];
        canon.value((node.is_some(), machine.going_down, machine.kubelet, machine.pod.is_some()));
        canon.identity(machine.boot);
        machine.pod.into_iter().for_each(|pod| canon.identity(pod));
        if let Some(node) = node {
            canon.print(&node.print);
        }
        canon.print(&memory.print);
        let remembered = self.audit.remembered(name);
        let flags = (remembered.cordoned_by_agent, remembered.going_down, remembered.undone, remembered.slot_is_over);
        canon.value((flags, remembered.committed.is_some()));
        remembered.committed.into_iter().for_each(|id| canon.identity(number(id)));
    }

    /// What the audit remembers of the cycles that something in the world still speaks of.
    fn print_cycles(&self, canon: &mut Canon) {
        let (granted, in_progress) = self.audit.cycles();
        for cycles in [granted.collect::<Vec<_>>(), in_progress.collect()] {
            let mut labels: Vec<usize> = cycles.into_iter().filter_map(|id| canon.label(number(id))).collect();
            labels.sort_unstable();
            canon.value(labels);
        }
    }
}

fn print_controller(controller: &Controller, canon: &mut Canon) {
    // A ledger that is not known is read before anything is done with it.
    canon.value(controller.ledger.is_some());
    controller.ledger.iter().for_each(|ledger| canon.print(&ledger.print));
    match &controller.work {
        Work::Plan => canon.value(0),
        Work::Write(write) => {
            canon.value(1);
            canon.print(&write.print);
        }
        Work::Expel(_, seen) => {
            canon.value(2);
            canon.print(&seen.print);
        }
        Work::Create => canon.value(3),
        Work::List(version) => {
            canon.value(4);
            canon.print(&Print::of(version));
        }
        Work::TakeIn(ledger, left) => {
            canon.value((5, left.len()));
            canon.print(&Print::of(ledger));
            for (_, seen) in left {
                canon.print(&seen.print);
            }
        }
    }
}

fn number(id: GrantId) -> u64 {
    match id.serial {
        Serial::Granted(number) | Serial::Forced(number) => number,
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl std::hash::Hash for State {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.fingerprint);
    }
}
