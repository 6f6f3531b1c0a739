//! An independent judge of what the operator does to a cluster.
//!
//! It watches Nodes, Pods and PDBs with a client of its own and imports nothing of the operator: it knows Kubernetes,
//! the prefix of the annotations, and which of them may stay after a cycle. It writes nothing.
//!
//! The three watches are not in step with each other, so nothing is judged while it happens: the referee keeps every
//! event, and puts them in the order of the store's revisions (`resourceVersion`, comparable across kinds) before the
//! rules (`judge`) see them. What a test does itself is declared, and gets its place in that order as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures::TryStreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::watch, task::JoinHandle};

use crate::call::within;

pub mod history;
pub mod judge;
#[cfg(test)]
mod tests;

pub use history::Declaration;
use history::{At, Event, NodeSeen, PdbSeen, PodSeen};
use judge::{Judge, Moment};

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
    /// How often a watch had to start over with a list: what happened in between was not seen. More than 0 only when
    /// the API server was restarted.
    pub gaps: usize,
}

/// The watching referee. Dropping it ends the watches.
pub struct Referee {
    client: Client,
    quota: usize,
    seen: Arc<Seen>,
    watches: Vec<JoinHandle<()>>,
}

/// Everything seen so far.
#[derive(Debug)]
struct Seen {
    log: Mutex<Log>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<(At, Event)>,
    /// Sees the events as they come, for the question whether the run is over; its violations mean nothing.
    live: Judge,
    /// By kind.
    watched: BTreeMap<String, Watched>,
}

/// How far one of the watches has come.
#[derive(Debug, Default)]
struct Watched {
    /// The revision of the last event.
    latest: u64,
    /// The living objects by UID, each with its revision.
    living: BTreeMap<String, u64>,
    /// How often it started with a list.
    lists: usize,
}

const CALL: Duration = Duration::from_secs(10);
/// How long the watches may lag behind a list.
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
    /// Starts to watch, and returns once everything that exists was seen. `client` should not be the operator's.
    pub async fn start(client: Client, quota: usize) -> Result<Self> {
        let seen = Arc::new(Seen { log: Mutex::default(), changed: watch::Sender::new(()) });
        let watches = vec![
            tokio::spawn(follow::<Node>(
                client.clone(),
                seen.clone(),
                |node| Event::Node(NodeSeen::from(node)),
                |node| Event::NodeGone(node.name_any()),
            )),
            tokio::spawn(follow::<Pod>(
                client.clone(),
                seen.clone(),
                |pod| Event::Pod(PodSeen::from(pod)),
                |pod| Event::PodGone(pod.uid().unwrap_or_default()),
            )),
            tokio::spawn(follow::<PodDisruptionBudget>(
                client.clone(),
                seen.clone(),
                |pdb| Event::Pdb(PdbSeen::from(pdb)),
                |pdb| Event::PdbGone(pdb.uid().unwrap_or_default()),
            )),
        ];
        let this = Self { client, quota, seen, watches };
        this.until(LAG, "the referee's first lists", |log| (log.lists() < 3).then(|| "not all complete".to_owned()))
            .await?;
        Ok(this)
    }

    /// Tells the referee of something that the test did before this call or will do after it.
    pub async fn declare(&self, declaration: Declaration) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let parameters = ListParams::default().limit(1);
        let call = nodes.list_metadata(&parameters);
        let list = within(CALL, "asking for the current revision", call).await?;
        let revision = list.metadata.resource_version.unwrap_or_default();
        let revision = revision.parse().with_context(|| format!("the revision {revision:?}"))?;
        self.seen.change(|log| log.add(revision, Event::Declared(declaration)));
        Ok(())
    }

    /// Waits until the state is as expected.
    ///
    /// # Errors
    /// After `limit`, with what is still missing.
    pub async fn settled(&self, expect: &Expect, limit: Duration) -> Result<()> {
        self.until(limit, "the expected state", |log| {
            let complaints = log.live.complaints(expect);
            (!complaints.is_empty()).then(|| complaints.join("; "))
        })
        .await
    }

    /// The verdict on what was seen so far, without a word on what is missing.
    pub fn so_far(&self) -> Verdict {
        let log = self.seen.lock();
        let judge = judged(&log.events, self.quota);
        verdict(&judge, &log, Vec::new())
    }

    /// The verdict. First waits until the watches have seen all that is in the store now.
    ///
    /// # Errors
    /// When a watch lags behind for more than 30 s.
    pub async fn finish(self, expect: &Expect) -> Result<Verdict> {
        self.caught_up::<Node>().await?;
        self.caught_up::<Pod>().await?;
        self.caught_up::<PodDisruptionBudget>().await?;
        let log = self.seen.lock();
        let judge = judged(&log.events, self.quota);
        let complaints = judge.complaints(expect);
        Ok(verdict(&judge, &log, complaints))
    }

    async fn caught_up<K>(&self) -> Result<()>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let objects: Api<K> = Api::all(self.client.clone());
        let everything = ListParams::default();
        let call = objects.list_metadata(&everything);
        let list = within(CALL, "listing for the final state", call).await?;
        let now = list.metadata.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default();
        let latest = list.items.iter().map(revision).max().unwrap_or_default();
        let listed: BTreeSet<_> = list.items.iter().map(|object| object.uid().unwrap_or_default()).collect();
        self.until(LAG, "the referee's watches", |log| {
            let watched = log.watched.get(kind::<K>().as_str())?;
            let deleted = |(uid, revision): &(&String, &u64)| !listed.contains(*uid) && **revision <= now;
            let behind = watched.latest < latest || watched.living.iter().any(|entry| deleted(&entry));
            behind.then(|| format!("that of {} is at revision {}, the store at {now}", kind::<K>(), watched.latest))
        })
        .await
    }

    /// Waits until `missing` has nothing to say.
    async fn until(&self, limit: Duration, what: &str, missing: impl Fn(&Log) -> Option<String>) -> Result<()> {
        let mut changed = self.seen.changed.subscribe();
        let wait = async {
            while missing(&self.seen.lock()).is_some() {
                changed.changed().await.context("the referee's watches have ended")?;
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(limit, wait).await {
            Ok(done) => done,
            Err(_) => bail!("{what}: not within {limit:?}: {}", missing(&self.seen.lock()).unwrap_or_default()),
        }
    }
}

impl Drop for Referee {
    fn drop(&mut self) {
        self.watches.iter().for_each(JoinHandle::abort);
    }
}

impl Seen {
    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }

    fn living<K: Resource<DynamicType = ()>>(&self, uid: String, revision: u64, event: Event) {
        self.change(|log| {
            let watched = log.watched::<K>(revision);
            let known = watched.living.insert(uid, revision) == Some(revision);
            if !known {
                log.add(revision, event);
            }
        });
    }

    fn gone<K: Resource<DynamicType = ()>>(&self, uid: &str, revision: u64, event: Event) {
        self.change(|log| {
            log.watched::<K>(revision).living.remove(uid);
            log.add(revision, event);
        });
    }

    fn listed<K: Resource<DynamicType = ()>>(&self) {
        self.change(|log| log.watched::<K>(0).lists += 1);
    }
}

impl Log {
    fn add(&mut self, revision: u64, event: Event) {
        let at = At { revision, time: Timestamp::now() };
        self.live.observe(&event, at);
        self.events.push((at, event));
    }

    fn watched<K: Resource<DynamicType = ()>>(&mut self, revision: u64) -> &mut Watched {
        let watched = self.watched.entry(kind::<K>()).or_default();
        watched.latest = watched.latest.max(revision);
        watched
    }

    fn lists(&self) -> usize {
        self.watched.values().map(|watched| watched.lists).sum()
    }
}

/// Keeps what one watch reports, for ever; a failing watch is tried again with kube's backoff.
async fn follow<K>(client: Client, seen: Arc<Seen>, is: fn(&K) -> Event, gone: fn(&K) -> Event)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut living = BTreeMap::<String, K>::new();
    let mut before = BTreeMap::new();
    let mut stream = pin!(watcher(Api::<K>::all(client), watcher::Config::default()).default_backoff());
    loop {
        let event = match stream.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return,
            Err(_retried) => continue,
        };
        match event {
            watcher::Event::Init => before = std::mem::take(&mut living),
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                let uid = object.uid().unwrap_or_default();
                before.remove(&uid);
                seen.living::<K>(uid.clone(), revision(&object), is(&object));
                living.insert(uid, object);
            }
            watcher::Event::Delete(object) => {
                let uid = object.uid().unwrap_or_default();
                living.remove(&uid);
                seen.gone::<K>(&uid, revision(&object), gone(&object));
            }
            watcher::Event::InitDone => {
                // Deleted unseen, at an unknown revision up to that of the list.
                let listed = living.values().map(revision).max().unwrap_or_default();
                for (uid, object) in std::mem::take(&mut before) {
                    seen.gone::<K>(&uid, listed.max(revision(&object)), gone(&object));
                }
                seen.listed::<K>();
            }
        }
    }
}

/// The rules applied to the history in the order of its revisions; of equals, the one that was heard of first.
fn judged(events: &[(At, Event)], quota: usize) -> Judge {
    let mut ordered: Vec<_> = events.iter().collect();
    ordered.sort_by_key(|(at, _)| at.revision);
    let mut judge = Judge::new(quota);
    for (at, event) in ordered {
        judge.observe(event, *at);
    }
    judge
}

fn verdict(judge: &Judge, log: &Log, complaints: Vec<String>) -> Verdict {
    let mut violations = judge.violations().to_vec();
    violations.extend(complaints);
    Verdict {
        violations,
        timeline: judge.timeline().to_vec(),
        reboots: judge.reboots(),
        gaps: log.lists().saturating_sub(3),
    }
}

fn revision<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn kind<K: Resource<DynamicType = ()>>() -> String {
    K::kind(&()).into_owned()
}
