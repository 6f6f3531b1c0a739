//! The objects, their one history, and who hears of it.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{budgets::Guarded, selector::Filter};

/// Where an object is stored. Nothing else is ordered by anything else, so that every run is the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The resource as in paths: `nodes`, `leases`.
    pub resource: &'static str,
    /// Empty for objects without a namespace.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resourceVersion that it made; one after the other for all objects.
    pub revision: u64,
    /// What changed.
    pub key: Key,
    /// `None`: it was created.
    pub before: Option<Arc<Value>>,
    /// `None`: it was deleted.
    pub after: Option<Arc<Value>>,
}

/// How often it is forgotten what was history already at the last time, as kube-apiserver has etcd do it.
const COMPACTION: SignedDuration = SignedDuration::from_mins(5);

/// Tells the time.
pub(super) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

pub(super) struct Store {
    clock: Clock,
    objects: BTreeMap<Key, Arc<Value>>,
    history: Vec<Arc<Change>>,
    /// The newest revision.
    revision: u64,
    /// The history begins after this revision.
    forgotten: u64,
    /// When something was last forgotten, and the newest revision then.
    compacted: (Timestamp, u64),
    /// How many names and UIDs have been made up.
    made_up: u64,
    audience: Vec<(Filter, UnboundedSender<Arc<Change>>)>,
    /// What the budgets at these keys guard.
    pub(super) guarded: BTreeMap<Key, Guarded>,
    /// Whether the status of budgets follows every change by itself.
    pub(super) keeps_budgets: bool,
}

impl Store {
    pub(super) fn new(clock: Clock) -> Self {
        let compacted = (clock(), 1);
        Self {
            clock,
            objects: BTreeMap::new(),
            history: Vec::new(),
            revision: 1,
            forgotten: 0,
            compacted,
            made_up: 0,
            audience: Vec::new(),
            guarded: BTreeMap::new(),
            keeps_budgets: true,
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// Now, in whole seconds, as metadata has it.
    pub(super) fn now(&self) -> Value {
        json!(format!("{:.0}", self.time()))
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    pub(super) fn time(&self) -> Timestamp {
        (self.clock)()
    }

    /// A number that was not there before.
    pub(super) fn next(&mut self) -> u64 {
        self.made_up += 1;
        self.made_up
    }

    pub(super) fn get(&self, key: &Key) -> Option<Arc<Value>> {
        self.objects.get(key).cloned()
    }

    /// The objects of a resource by their keys, of one namespace or (where that is empty) of all.
    pub(super) fn scan<'a>(
        &'a self,
        resource: &'static str,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let first = Key { resource, namespace: namespace.to_owned(), name: String::new() };
        let within = move |key: &Key| key.resource == resource && (namespace.is_empty() || key.namespace == namespace);
        self.objects.range(first..).take_while(move |(key, _)| within(key))
    }

    /// Those of them that are meant, as of an earlier revision; `None` where that is forgotten.
    pub(super) fn scan_at(
        &self,
        resource: &'static str,
        namespace: &str,
        revision: u64,
        is_meant: impl Fn(&Key, &Value) -> bool,
    ) -> Option<BTreeMap<Key, Arc<Value>>> {
        let later = self.since(revision)?;
        let meant = self.scan(resource, namespace).filter(|(key, object)| is_meant(key, object));
        let mut objects: BTreeMap<_, _> = meant.map(|(key, object)| (key.clone(), object.clone())).collect();
        for change in later.iter().rev().filter(|change| change.key.resource == resource) {
            match change.before.as_ref().filter(|before| is_meant(&change.key, before)) {
                _ if !namespace.is_empty() && change.key.namespace != namespace => {}
                Some(before) => drop(objects.insert(change.key.clone(), before.clone())),
                None => drop(objects.remove(&change.key)),
            }
        }
        Some(objects)
    }

    /// Every change after this revision; `None` where some of them are forgotten.
    pub(super) fn since(&self, revision: u64) -> Option<&[Arc<Change>]> {
        if revision < self.forgotten {
            return None;
        }
        let from = self.history.partition_point(|change| change.revision <= revision);
        self.history.get(from..)
    }

    /// This revision or, where that is forgotten, the oldest that is not: no cache is behind that.
    pub(super) fn remembered(&self, revision: u64) -> u64 {
        revision.max(self.forgotten)
    }

    /// Forgets the history: whoever asks for something older than now is told that it is too old.
    pub(super) fn forget(&mut self) {
        self.history.clear();
        self.forgotten = self.revision;
    }

    /// Stores an object under the next revision; returns it with that.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), object.clone());
        self.tell(Change { revision: self.revision, key, before, after: Some(object.clone()) });
        object
    }

    /// Removes an object, which is a revision too.
    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(before) = self.objects.remove(key) {
            self.revision += 1;
            self.tell(Change { revision: self.revision, key: key.clone(), before: Some(before), after: None });
        }
    }

    /// Everything there is, as if each had just come, in the order of the last changes.
    pub(super) fn all(&self) -> Vec<Change> {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str()?.parse().ok();
        let change = |(key, object): (&Key, &Arc<Value>)| {
            let revision = version(object).unwrap_or_default();
            Change { revision, key: key.clone(), before: None, after: Some(object.clone()) }
        };
        let mut all: Vec<Change> = self.objects.iter().map(change).collect();
        all.sort_by_key(|change| change.revision);
        all
    }

    /// Every change from now on that this filter is about, in order.
    pub(super) fn subscribe(&mut self, filter: Filter) -> UnboundedReceiver<Arc<Change>> {
        let (sender, receiver) = unbounded_channel();
        self.audience.push((filter, sender));
        receiver
    }

    fn compact(&mut self) {
        let (now, (last, revision)) = (self.time(), self.compacted);
        if now.duration_since(last) >= COMPACTION {
            let kept = self.history.partition_point(|change| change.revision <= revision);
            self.history.drain(..kept);
            self.forgotten = self.remembered(revision);
            self.compacted = (now, self.revision);
        }
    }

    fn tell(&mut self, change: Change) {
        self.compact();
        let change = Arc::new(change);
        self.history.push(change.clone());
        self.audience.retain(|(filter, sender)| {
            if filter.concerns(&change) { sender.send(change.clone()).is_ok() } else { !sender.is_closed() }
        });
    }
}
