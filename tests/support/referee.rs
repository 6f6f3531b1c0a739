//! An independent judge of what the operator does to a cluster.
//!
//! It imports nothing of the operator: it knows Kubernetes, the prefix of the annotations, and which of them may stay
//! after a cycle. It reads Nodes, Pods and PDBs from the API server's store: one history in one order, without gaps,
//! whatever happens to the API server. What a test does itself is declared, and gets its place in that order by a key
//! that the referee writes beside the objects, where the API server does not look.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::{Stream, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};

use crate::{control_plane::ControlPlane, memory::MemoryApi};

pub mod history;
pub mod judge;
mod store;
#[cfg(test)]
mod tests;

pub use history::Declaration;
use history::{At, Event, NodeSeen, PdbSeen, PodSeen};
use judge::{Judge, Moment};
use store::{Change, Store};

/// What a test expects at its end. Nodes that are not named are expected not to have rebooted.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    reboots: BTreeMap<String, usize>,
    may_stay: BTreeSet<String>,
}

/// What the referee says at the end.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Broken rules and what is missing for the expected state; empty when all is well.
    pub violations: Vec<String>,
    /// What happened, in order.
    pub timeline: Vec<Moment>,
    /// How often each node rebooted.
    pub reboots: BTreeMap<String, usize>,
}

/// The watching referee. Dropping it ends the watch.
pub struct Referee {
    store: Store,
    seen: Arc<Seen>,
    watch: JoinHandle<()>,
}

struct Seen {
    bench: Mutex<Bench>,
    changed: watch::Sender<()>,
}

/// The judge and what lies before them.
struct Bench {
    judge: Judge,
    /// Declarations whose keys are on their way; by key. `None` declares nothing but that the watch has come so far.
    announced: BTreeMap<String, Option<Declaration>>,
    keys: usize,
    /// Why the watch ended.
    failure: Option<String>,
}

/// Where the referee's own keys are: between those of Nodes and Pods, and of no kind that exists.
const OWN_KEYS: &str = "/registry/notes-of-the-referee/";
/// How long the watch may lag behind the store.
const LAG: Duration = Duration::from_secs(30);

impl Expect {
    /// Each of these nodes has rebooted exactly once and is back in service, clean.
    pub fn rebooted_once<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Self {
        Self { reboots: nodes.into_iter().map(|node| (node.into(), 1)).collect(), ..Self::default() }
    }

    /// This node has rebooted so often.
    #[must_use]
    pub fn rebooted(mut self, node: &str, times: usize) -> Self {
        self.reboots.insert(node.to_owned(), times);
        self
    }

    /// This annotation (without the prefix) may still be there.
    #[must_use]
    pub fn may_keep(mut self, key: &str) -> Self {
        self.may_stay.insert(key.to_owned());
        self
    }
}

impl Referee {
    /// Starts to watch, and returns once everything that exists was seen. What happened before is not judged.
    pub async fn start(control_plane: &ControlPlane, quota: usize) -> Result<Self> {
        Self::watch(Store::at(&control_plane.etcd_url())?, quota).await
    }

    /// The same over an API server in memory.
    pub async fn over_memory(api: &MemoryApi, quota: usize) -> Result<Self> {
        Self::watch(Store::Memory(api.clone()), quota).await
    }

    async fn watch(store: Store, quota: usize) -> Result<Self> {
        let judge = Judge::new(quota);
        let bench = Bench { judge, announced: BTreeMap::new(), keys: 0, failure: None };
        let seen = Arc::new(Seen { bench: Mutex::new(bench), changed: watch::Sender::new(()) });
        let watch = tokio::spawn(follow(store.changes().await?, seen.clone()));
        let this = Self { store, seen, watch };
        this.caught_up().await?;
        Ok(this)
    }

    /// Tells the referee of something that the test did before this call or will do after it.
    pub async fn declare(&self, declaration: Declaration) -> Result<()> {
        self.write_key(Some(declaration)).await.map(drop)
    }

    /// Waits until the state is as expected.
    ///
    /// # Errors
    /// After `limit`, with what is still missing.
    pub async fn settled(&self, expect: &Expect, limit: Duration) -> Result<()> {
        self.until(limit, "the expected state", |bench| {
            let complaints = bench.judge.complaints(expect);
            (!complaints.is_empty()).then(|| complaints.join("; "))
        })
        .await
    }

    /// The verdict on everything up to now, without a word on what is missing.
    ///
    /// # Errors
    /// When the watch has ended or lags behind for more than 30 s.
    pub async fn so_far(&self) -> Result<Verdict> {
        self.caught_up().await?;
        Ok(verdict(&self.seen.lock().judge, Vec::new()))
    }

    /// The verdict on everything up to now, and on the state that it led to.
    ///
    /// # Errors
    /// When the watch has ended or lags behind for more than 30 s.
    pub async fn finish(self, expect: &Expect) -> Result<Verdict> {
        self.caught_up().await?;
        let bench = self.seen.lock();
        Ok(verdict(&bench.judge, bench.judge.complaints(expect)))
    }

    /// Writes a key and waits until the watch tells of it: then it has told of everything before.
    async fn caught_up(&self) -> Result<()> {
        let key = self.write_key(None).await?;
        let pending = |bench: &Bench| bench.announced.contains_key(&key).then(|| "it lags behind".to_owned());
        self.until(LAG, "the referee's watch", pending).await
    }

    async fn write_key(&self, declaration: Option<Declaration>) -> Result<String> {
        let key = {
            let mut bench = self.seen.lock();
            bench.keys += 1;
            let key = format!("{OWN_KEYS}{}", bench.keys);
            bench.announced.insert(key.clone(), declaration);
            key
        };
        self.store.put(&key).await?;
        Ok(key)
    }

    /// Waits until `missing` has nothing to say.
    async fn until(&self, limit: Duration, what: &str, missing: impl Fn(&Bench) -> Option<String>) -> Result<()> {
        let mut changed = self.seen.changed.subscribe();
        let wait = async {
            loop {
                {
                    let bench = self.seen.lock();
                    if let Some(failure) = &bench.failure {
                        bail!("the referee sees nothing any more: {failure}");
                    }
                    if missing(&bench).is_none() {
                        return Ok(());
                    }
                }
                changed.changed().await.context("the referee's watch has ended")?;
            }
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(done) => done,
            Err(_) => bail!("{what}: not within {limit:?}: {}", missing(&self.seen.lock()).unwrap_or_default()),
        }
    }
}

impl Drop for Referee {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Bench> {
        self.bench.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Bench)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }
}

/// Shows the judge every change.
async fn follow(changes: impl Stream<Item = Result<Change>>, seen: Arc<Seen>) {
    let mut changes = pin!(changes);
    loop {
        let failure = match changes.try_next().await {
            Ok(Some(change)) => {
                let time = Timestamp::now();
                let at = At { revision: change.revision, time };
                match event(&change) {
                    Ok(Some(event)) => {
                        seen.change(|bench| bench.judge.observe(&event, at));
                        continue;
                    }
                    Ok(None) => {
                        seen.change(|bench| {
                            if let Some(Some(declaration)) = bench.announced.remove(&change.key) {
                                bench.judge.observe(&Event::Declared(declaration), at);
                            }
                        });
                        continue;
                    }
                    Err(error) => format!("{error:#}"),
                }
            }
            Ok(None) => "etcd ended the watch".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        return seen.change(|bench| bench.failure = Some(failure));
    }
}

/// What a change of the store means; `None` for what is not of a kind that is judged.
fn event(change: &Change) -> Result<Option<Event>> {
    let object = change.value.as_ref().or(change.before.as_ref()).map(Vec::as_slice).unwrap_or_default();
    let gone = change.value.is_none();
    let kind = change.key.strip_prefix("/registry/").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    let event = match kind {
        "minions" => {
            let node: Node = parse(object, &change.key)?;
            if gone { Event::NodeGone(node.name_any()) } else { Event::Node(NodeSeen::from(&node)) }
        }
        "pods" => {
            let pod: Pod = parse(object, &change.key)?;
            if gone { Event::PodGone(pod.uid().unwrap_or_default()) } else { Event::Pod(PodSeen::from(&pod)) }
        }
        "poddisruptionbudgets" => {
            let pdb: PodDisruptionBudget = parse(object, &change.key)?;
            if gone { Event::PdbGone(pdb.uid().unwrap_or_default()) } else { Event::Pdb(PdbSeen::from(&pdb)) }
        }
        _ => return Ok(None),
    };
    Ok(Some(event))
}

fn parse<K: DeserializeOwned>(object: &[u8], key: &str) -> Result<K> {
    serde_json::from_slice(object).with_context(|| format!("{key} is not stored as JSON"))
}

fn verdict(judge: &Judge, complaints: Vec<String>) -> Verdict {
    let mut violations = judge.violations().to_vec();
    violations.extend(complaints);
    Verdict { violations, timeline: judge.timeline().to_vec(), reboots: judge.reboots() }
}
