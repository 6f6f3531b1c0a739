//! Everything that a simulation consists of, and what its parts tell each other.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Client;
use reboot_core::audit::{Actor, Violation};
use reboot_core::drain::PodView;
use reboot_core::ledger;
use reboot_core::values::Outcome;
use reboot_runtime::client::begin_in_time;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::faults::Faults;
use super::figures::Figures;
use super::judge::{Judge, Turn};
use super::machine::Machine;
use super::network::Network;
use super::operator::Controller;
use super::random::Random;
use super::setup::Setup;
use crate::memory::{Call, Change, MemoryApi};

/// The namespace of the operator.
pub const NAMESPACE: &str = "reboot-operator";

/// A simulation.
pub struct World {
    /// The API server.
    pub api: MemoryApi,
    /// Where all chance comes from.
    pub random: Random,
    /// What kind of world it is.
    pub setup: Setup,
    /// The machines.
    pub machines: Vec<Arc<Machine>>,
    /// The replicas of the controller.
    pub controllers: Vec<Controller>,
    day: Day,
    changes: Mutex<UnboundedReceiver<Arc<Change>>>,
    judge: Mutex<Judge>,
    violation: Notify,
    story: Mutex<Option<Vec<String>>>,
    figures: Mutex<Figures>,
    faulty: AtomicBool,
    /// The users that cannot reach the API server.
    cut_off: Mutex<BTreeSet<String>>,
    /// Some of them can again. Unlike the other channels of tokio this one wakes in a fixed order.
    reconnected: Notify,
}

/// The time of day in a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Day {
    start: Instant,
}

impl Day {
    /// The time by a clock that is off by so many seconds.
    pub fn now(self, off: i64) -> Timestamp {
        let begin = Timestamp::constant(1_767_268_800 + off, 0);
        begin.checked_add(self.start.elapsed()).unwrap_or(begin)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A world without Nodes and pods yet; `tell`: write the story down.
    pub fn new(setup: Setup, random: Random, tell: bool) -> Arc<Self> {
        let day = Day { start: Instant::now() };
        Arc::new_cyclic(|world| {
            let api = MemoryApi::new(move || day.now(0), Network::new(world.clone()));
            Self {
                changes: Mutex::new(api.changes()),
                judge: Mutex::new(Judge::of(&setup)),
                machines: (0..setup.nodes).map(|index| Arc::new(Machine::new(index))).collect(),
                controllers: (0..setup.replicas).map(|_| Controller::default()).collect(),
                api,
                random,
                setup,
                day,
                violation: Notify::new(),
                story: Mutex::new(tell.then(Vec::new)),
                figures: Mutex::default(),
                faulty: AtomicBool::new(true),
                cut_off: Mutex::default(),
                reconnected: Notify::new(),
            }
        })
    }

    /// The clock on the wall.
    pub fn day(&self) -> Day {
        self.day
    }

    /// A client of this user, over the network, as patient as that of the binaries.
    pub fn client(&self, user: &str) -> Client {
        let network = self.api.client(user);
        let service = tower::service_fn(move |request| {
            let network = network.clone();
            begin_in_time(async move { Ok(network.send(request).await?) })
        });
        Client::new(service, "default")
    }

    /// Time since the begin.
    pub fn elapsed(&self) -> Duration {
        self.day.start.elapsed()
    }

    /// Adds a line to the story, where it is written down.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(story) = &mut *lock(&self.story) {
            story.push(format!("{:>10.3} {}", self.elapsed().as_secs_f64(), what()));
        }
    }

    /// The story so far.
    pub fn story(&self) -> Vec<String> {
        lock(&self.story).clone().unwrap_or_default()
    }

    /// What was counted so far.
    pub fn figures(&self) -> Figures {
        Figures { seeds: 1, simulated: self.elapsed(), ..lock(&self.figures).clone() }
    }

    /// Whether something goes wrong now that does once in so many times.
    pub fn fault(&self, what: &'static str, once_in: impl FnOnce(&Faults) -> usize) -> bool {
        let happens = self.is_faulty() && self.random.once_in(once_in(&self.setup.faults));
        if happens {
            self.happened(what);
        }
        happens
    }

    /// Counts and tells something that goes wrong.
    pub fn happened(&self, what: &'static str) {
        lock(&self.figures).count(what);
        self.tell(|| format!("    fault: {what}"));
    }

    /// Whether things still go wrong.
    pub fn is_faulty(&self) -> bool {
        self.faulty.load(Ordering::Relaxed)
    }

    /// From now on nothing goes wrong any more.
    pub fn faults_end(&self) {
        self.faulty.store(false, Ordering::Relaxed);
        lock(&self.cut_off).clear();
        self.reconnected.notify_waiters();
    }

    /// After how many polls of its tasks a process that starts now crashes.
    pub fn polls_to_live(&self) -> Option<usize> {
        let most = self.setup.faults.crash;
        (self.is_faulty() && most > 0).then(|| self.random.below(most))
    }

    /// Keeps a user (`*`: everybody) from the API server, or no longer.
    pub fn cut_off(&self, user: &str, off: bool) {
        if off {
            lock(&self.cut_off).insert(user.to_owned());
        } else {
            lock(&self.cut_off).remove(user);
            self.reconnected.notify_waiters();
        }
    }

    /// Whether this user cannot reach the API server.
    pub fn is_cut_off(&self, user: &str) -> bool {
        let users = lock(&self.cut_off);
        users.contains(user) || users.contains("*")
    }

    /// Waits until the user can reach the API server.
    pub async fn connected(&self, user: &str) {
        loop {
            let reconnected = self.reconnected.notified();
            if !self.is_cut_off(user) {
                return;
            }
            reconnected.await;
        }
    }

    /// The resourceVersion so many changes ago.
    pub fn revision_before(&self, changes: usize) -> u64 {
        self.api.revision().saturating_sub(changes as u64).max(1)
    }

    /// A process sends a request.
    pub fn requested(&self, call: &Call) {
        lock(&self.figures).requests += 1;
        // Events are named by the true time of day.
        let name = if call.resource == "events" { "" } else { &call.name };
        self.tell(|| format!("        {} {} {} {name}", call.user, call.verb, call.resource));
    }

    /// The API server has served this call, just now.
    pub fn served(&self, call: &Call, code: u16) {
        self.catch_up(actor(&call.user));
        if code >= 400 {
            self.tell(|| format!("        {} is told {code}", call.user));
        }
        let lists_pods = (call.verb, call.resource.as_str()) == ("list", "pods");
        if let Some(name) = call.user.strip_prefix("agent:").filter(|_| lists_pods)
            && let Some(machine) = self.machines.iter().find(|machine| machine.name == name)
        {
            machine.pods_listed(self.pods_on(name));
        }
    }

    /// The pods that are really on a node.
    pub fn pods_on(&self, node: &str) -> Vec<PodView> {
        let pods = self.api.list("pods", "");
        let here = pods.iter().filter(|pod| pod["spec"]["nodeName"] == node);
        here.filter_map(|pod| read::<Pod>(pod)).map(|pod| PodView::from(&pod)).collect()
    }

    /// All objects of a resource.
    pub fn all<K: DeserializeOwned>(&self, resource: &str) -> Vec<K> {
        self.api.list(resource, "").iter().filter_map(|object| read(object)).collect()
    }

    /// Writes as this actor, at once.
    pub fn write<T>(&self, by: Actor, write: impl FnOnce(&MemoryApi) -> T) -> T {
        let written = write(&self.api);
        self.catch_up(by);
        written
    }

    /// Looks at every change that was not looked at yet; this actor made them.
    fn catch_up(&self, by: Actor) {
        let mut changes = lock(&self.changes);
        while let Ok(change) = changes.try_recv() {
            self.judge_change(by, &change);
        }
    }

    fn judge_change(&self, by: Actor, change: &Change) {
        let name = &change.key.name;
        let turn = match change.key.resource {
            "nodes" => {
                let node: Option<Node> = change.after.as_deref().and_then(read);
                lock(&self.judge).node_changed(by, name, node, self.elapsed())
            }
            "configmaps" if name == ledger::NAME => {
                let map: Option<ConfigMap> = change.after.as_deref().and_then(read);
                lock(&self.judge).ledger_changed(by, map.as_ref())
            }
            "leases" | "events" => return,
            _ if change.after.is_none() => Turn::Gone,
            _ => Turn::Written,
        };
        self.count_ending(&turn);
        self.tell(|| format!("{by:?}: {} {name}: {turn}", change.key.resource));
        self.look_for_violations();
    }

    fn look_for_violations(&self) {
        if self.broken().is_some() {
            self.violation.notify_one();
        }
    }

    fn count_ending(&self, turn: &Turn) {
        let Some(last) = turn.ended() else { return };
        let mut figures = lock(&self.figures);
        match last.outcome {
            Outcome::Rebooted => figures.rebooted += 1,
            Outcome::GaveBack => figures.given_back += 1,
            Outcome::FoundRebooted => {}
        }
    }

    /// An agent calls logind.
    pub fn logind_called(&self, machine: &Machine) {
        self.tell(|| format!("logind of {} is called", machine.name));
        let policy = self.setup.agent.policy();
        // Past the point of no return pods put a call off for no longer than a drain may take.
        let may_be_left = policy.on_drain_timeout == reboot_core::step::OnDrainTimeout::Reboot
            || machine.up_for() >= policy.drain_timeout;
        lock(&self.judge).logind_called(&machine.name, &machine.listed(), may_be_left);
        self.look_for_violations();
    }

    /// A machine runs another boot.
    pub fn booted(&self, machine: &Machine) {
        self.tell(|| format!("{} boots as {}", machine.name, super::judge::shorten(&machine.boot().to_string())));
        lock(&self.judge).booted(&machine.name, machine.boot());
    }

    /// The first promise that was broken.
    pub fn broken(&self) -> Option<Violation> {
        lock(&self.judge).broken.first().cloned()
    }

    /// Waits until a promise is broken, and says which.
    pub async fn violation(&self) -> String {
        loop {
            self.violation.notified().await;
            if let Some(violation) = self.broken() {
                return violation.to_string();
            }
        }
    }

    /// From now on what a person undoes may be redone: the clocks by which it is held back differ.
    pub fn traces_do_not_last(&self) {
        lock(&self.judge).traces_last = false;
    }
}

/// Who is behind a user of the network.
fn actor(user: &str) -> Actor {
    if user.starts_with("agent:") { Actor::Agent } else { Actor::Controller }
}

/// An object of the store as its type.
pub fn read<K: DeserializeOwned>(object: &Value) -> Option<K> {
    K::deserialize(object).ok()
}
