//! What the API shows of the whole run, kept up to date event by event. Time is an argument.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::{Resource, runtime::watcher};
use reboot_tests::referee::history::{NodeSeen, PodSeen};
use serde_json::Value;

use crate::phase::{Phase, Sight};

/// An event of one of the three watches.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Of the Nodes.
    Node(watcher::Event<Node>),
    /// Of the Pods.
    Pod(watcher::Event<Pod>),
    /// Of the ConfigMap that holds the slots.
    Slots(watcher::Event<ConfigMap>),
}

/// The nodes, how long each has been in each phase, and the slots of the ledger.
#[derive(Debug, Default)]
pub(crate) struct Board {
    nodes: Living<NodeSeen>,
    pods: Living<PodSeen>,
    ledger: Living<Vec<String>>,
    rows: BTreeMap<(usize, String), Row>,
    slots: Vec<String>,
    most_slots: usize,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// How it looks now.
    pub(crate) sight: Sight,
    /// Since when it is in its phase.
    pub(crate) since: Duration,
    /// When it began to ask, the last time that it did.
    pub(crate) asked: Option<Duration>,
    /// When it got the permission, the last time that it did.
    pub(crate) granted: Option<Duration>,
    /// How long it was in each phase, since it began to ask.
    pub(crate) spent: BTreeMap<Phase, Duration>,
}

impl Board {
    /// Takes in an event that came at this time; returns what has changed, for people.
    pub(crate) fn happened(&mut self, happened: Happened, at: Duration) -> Vec<String> {
        match happened {
            Happened::Node(event) => self.nodes.take_in(event, |node| NodeSeen::from(node)),
            Happened::Pod(event) => self.pods.take_in(event, |pod| PodSeen::from(pod)),
            Happened::Slots(event) => self.ledger.take_in(event, holders),
        }
        let mut changes = self.update_rows(at);
        changes.extend(self.update_slots());
        changes
    }

    /// The nodes in the order of their numbers.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().map(|((_, name), row)| (name.as_str(), row))
    }

    /// The nodes that hold a slot.
    pub(crate) fn slots(&self) -> &[String] {
        &self.slots
    }

    /// The most slots that were ever taken at a time.
    pub(crate) fn most_slots(&self) -> usize {
        self.most_slots
    }

    fn update_rows(&mut self, at: Duration) -> Vec<String> {
        let mut changes = Vec::new();
        let seen: BTreeMap<_, _> = self.nodes.now.values().map(|node| (order(&node.name), node)).collect();
        self.rows.retain(|key, _| seen.contains_key(key));
        for (key, node) in seen {
            let evictable = |pod: &&PodSeen| pod.evictable && pod.node == node.name;
            let pods: Vec<_> = self.pods.now.values().filter(evictable).collect();
            let sight = Sight::of(node, &pods);
            let known = self.rows.contains_key(&key);
            let row = self.rows.entry(key).or_insert_with(|| Row { since: at, ..Row::default() });
            if known && (&row.sight.words, row.sight.cordon) != (&sight.words, sight.cordon) {
                changes.push(change(&node.name, &sight));
            }
            row.see(sight, at);
        }
        changes
    }

    fn update_slots(&mut self) -> Option<String> {
        let slots: Vec<_> = self.ledger.now.values().flatten().cloned().collect();
        if slots == self.slots {
            return None;
        }
        self.slots = slots;
        self.most_slots = self.most_slots.max(self.slots.len());
        let holders = if self.slots.is_empty() { String::new() } else { format!(" ({})", self.slots.join(", ")) };
        Some(format!("{:<8} {} in use{holders}", "slots", self.slots.len()))
    }
}

impl Row {
    fn see(&mut self, sight: Sight, at: Duration) {
        let (from, to) = (self.sight.phase, sight.phase);
        self.sight = sight;
        if from == to {
            return;
        }
        if matches!(from, Phase::Idle | Phase::Done) {
            self.spent.clear();
            self.asked = Some(at);
        } else {
            *self.spent.entry(from).or_default() += at.saturating_sub(self.since);
        }
        let before_grant = |phase| phase < Phase::Granted || phase == Phase::Done;
        if before_grant(from) && !before_grant(to) {
            self.granted = Some(at);
        }
        self.since = at;
    }
}

/// The living objects of one watch, as far as they matter.
#[derive(Debug)]
struct Living<T> {
    now: BTreeMap<String, T>,
    /// While the watch starts over, what it has listed so far.
    listed: BTreeMap<String, T>,
}

impl<T> Default for Living<T> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), listed: BTreeMap::new() }
    }
}

impl<T> Living<T> {
    fn take_in<K: Resource>(&mut self, event: watcher::Event<K>, see: impl Fn(&K) -> T) {
        let uid = |object: &K| object.meta().uid.clone().unwrap_or_default();
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => drop(self.listed.insert(uid(&object), see(&object))),
            watcher::Event::InitDone => self.now = std::mem::take(&mut self.listed),
            watcher::Event::Apply(object) => drop(self.now.insert(uid(&object), see(&object))),
            watcher::Event::Delete(object) => drop(self.now.remove(&uid(&object))),
        }
    }
}

/// `node-10` comes after `node-9`.
fn order(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

fn change(node: &str, sight: &Sight) -> String {
    let waits_for = if sight.phase == Phase::Waiting { format!(": {}", sight.waits_for) } else { String::new() };
    let cordon = match sight.cordon.who() {
        "-" => String::new(),
        who => format!(", cordoned by {}", if who == "agent" { "its agent" } else { "a person" }),
    };
    format!("{node:<8} {}{waits_for}{cordon}", sight.words)
}

/// The nodes in the ledger; a ledger that cannot be read shows none.
fn holders(map: &ConfigMap) -> Vec<String> {
    let text = map.data.as_ref().and_then(|data| data.get("ledger"));
    let ledger: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let slots = ledger["slots"].as_array().into_iter().flatten();
    slots.filter_map(|slot| Some(slot["node"].as_str()?.to_owned())).collect()
}
