//! What the disruption controller does: keeps the status of every `PodDisruptionBudget` up to the pods.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    selector::{Requirement, all_hold, of_object},
    store::{Change, Key, Store},
};

pub(super) const BUDGETS: &str = "poddisruptionbudgets";

/// An evicted pod counts as gone for so long, even if it is still there.
const DISRUPTED_FOR: SignedDuration = SignedDuration::from_mins(2);

/// Kinds whose changes can change a budget's status.
const WATCHED: [&str; 5] = ["pods", BUDGETS, "deployments", "replicasets", "statefulsets"];

/// The pods of a budget as of a revision, so that they need not be sought among all pods for each change of one.
#[derive(Default)]
pub(super) struct Guarded {
    selector: Value,
    revision: u64,
    pods: BTreeMap<Key, Arc<Value>>,
}

impl Guarded {
    /// Brings them up to date.
    fn follow(&mut self, store: &Store, namespace: &str, budget: &Value) {
        let terms = selection(budget);
        let is_guarded = |pod: &Value| is_selected(terms.as_deref(), pod);
        let selector = &budget["spec"]["selector"];
        if let Some(changes) = store.since(self.revision).filter(|_| self.selector == *selector) {
            let is_here = |change: &&Arc<Change>| change.key.resource == "pods" && change.key.namespace == namespace;
            for change in changes.iter().filter(is_here) {
                match change.after.as_ref().filter(|pod| is_guarded(pod)) {
                    Some(pod) => drop(self.pods.insert(change.key.clone(), pod.clone())),
                    None => drop(self.pods.remove(&change.key)),
                }
            }
        } else {
            let pods = store.scan("pods", namespace).filter(|(_, pod)| is_guarded(pod));
            self.pods = pods.map(|(key, pod)| (key.clone(), pod.clone())).collect();
            self.selector = selector.clone();
        }
        self.revision = store.revision();
    }
}

/// Brings the budgets up to date that a change since this revision may concern.
pub(super) fn keep(store: &mut Store, since: u64) {
    let changes = store.since(since).unwrap_or_default().iter();
    let changes: Vec<_> = changes.filter(|change| WATCHED.contains(&change.key.resource)).collect();
    if changes.is_empty() {
        return;
    }
    let concerned = |key: &Key, budget: &Value| changes.iter().any(|change| concerns(change, key, budget));
    let budgets = store.scan(BUDGETS, "").filter(|(key, budget)| concerned(key, budget));
    let budgets = budgets.map(|(key, budget)| (key.clone(), budget.clone())).collect();
    update(store, budgets);
}

/// Whether a change may be one for the status of a budget: a pod is for those that select it.
fn concerns(change: &Change, key: &Key, budget: &Value) -> bool {
    let selected = || [&change.before, &change.after].into_iter().flatten().any(|pod| selects(budget, pod));
    change.key.namespace == key.namespace && (change.key.resource != "pods" || selected())
}

/// Brings all budgets up to date.
pub(super) fn keep_all(store: &mut Store) {
    let budgets = store.scan(BUDGETS, "").map(|(key, budget)| (key.clone(), budget.clone())).collect();
    update(store, budgets);
}

fn update(store: &mut Store, budgets: Vec<(Key, Arc<Value>)>) {
    for (key, budget) in budgets {
        let mut guarded = store.guarded.remove(&key).unwrap_or_default();
        guarded.follow(store, &key.namespace, &budget);
        let status = status(store, &key.namespace, &budget, &guarded.pods);
        store.guarded.insert(key.clone(), guarded);
        if status != budget["status"] {
            let mut updated = (*budget).clone();
            updated["status"] = status;
            store.put(key, updated);
        }
    }
}

/// The budgets that guard a pod.
pub(super) fn guarding(store: &Store, pod: &Value) -> Vec<(Key, Arc<Value>)> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let guards = store.scan(BUDGETS, namespace).filter(|(_, budget)| selects(budget, pod));
    guards.map(|(key, budget)| (key.clone(), budget.clone())).collect()
}

/// Whether the pod's condition Ready is True.
pub(super) fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

/// Sets the condition that says whether a budget lets a pod go, as of its status.
pub(super) fn set_condition(status: &mut Value, now: Value) {
    let is_allowed = status["disruptionsAllowed"].as_i64().is_some_and(|allowed| allowed > 0);
    let (word, reason) = if is_allowed { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    set(status, word, reason, "", now);
}

fn set(status: &mut Value, word: &str, reason: &str, message: &str, now: Value) {
    let mut condition = json!({
        "type": "DisruptionAllowed", "status": word, "reason": reason, "message": message, "lastTransitionTime": now,
    });
    if let Some(generation) = status["observedGeneration"].as_u64() {
        condition["observedGeneration"] = json!(generation);
    }
    let old = &status["conditions"][0];
    if old["status"] == condition["status"] {
        condition["lastTransitionTime"] = old["lastTransitionTime"].clone();
    }
    status["conditions"] = json!([condition]);
}

fn selects(budget: &Value, pod: &Value) -> bool {
    is_selected(selection(budget).as_deref(), pod)
}

fn is_selected(terms: Option<&[Requirement]>, pod: &Value) -> bool {
    terms.is_some_and(|terms| all_hold(terms, pod["metadata"]["labels"].as_object()))
}

/// The terms by which it selects pods; `None`: it selects none.
fn selection(budget: &Value) -> Option<Vec<Requirement>> {
    let selector = &budget["spec"]["selector"];
    selector.is_object().then(|| of_object(selector))
}

fn status(store: &Store, namespace: &str, budget: &Value, pods: &BTreeMap<Key, Arc<Value>>) -> Value {
    let pods: Vec<&Value> = pods.values().map(|pod| &**pod).collect();
    let (expected, desired) = match expectation(store, namespace, &budget["spec"], &pods) {
        Ok(found) => found,
        Err(why) => {
            let mut status = budget["status"].clone();
            status["disruptionsAllowed"] = json!(0);
            set(&mut status, "False", "SyncFailed", &why, store.now());
            return status;
        }
    };
    let disrupted = still_disrupted(store.time(), &budget["status"], &pods);
    let is_disrupted = |pod: &Value| disrupted.contains_key(pod["metadata"]["name"].as_str().unwrap_or_default());
    let counts = |pod: &&&Value| is_ready(pod) && !is_ending(pod) && !is_disrupted(pod);
    let healthy = i64::try_from(pods.iter().filter(counts).count()).unwrap_or(i64::MAX);
    let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
    let mut status = json!({
        "currentHealthy": healthy, "desiredHealthy": desired, "disruptionsAllowed": allowed, "expectedPods": expected,
        "observedGeneration": budget["metadata"]["generation"],
    });
    if let Some(conditions) = budget["status"].get("conditions") {
        status["conditions"] = conditions.clone();
    }
    if !disrupted.is_empty() {
        status["disruptedPods"] = Value::Object(disrupted);
    }
    set_condition(&mut status, store.now());
    status
}

fn still_disrupted(now: Timestamp, status: &Value, pods: &[&Value]) -> Map<String, Value> {
    let mut disrupted = status["disruptedPods"].as_object().cloned().unwrap_or_default();
    disrupted.retain(|name, since| {
        let is_there = pods.iter().any(|pod| pod["metadata"]["name"] == name.as_str() && !is_ending(pod));
        let since = since.as_str().and_then(|since| since.parse::<Timestamp>().ok());
        is_there && since.is_some_and(|since| now.duration_since(since) <= DISRUPTED_FOR)
    });
    disrupted
}

fn is_ending(pod: &Value) -> bool {
    !pod["metadata"]["deletionTimestamp"].is_null()
}

/// How many pods there should be, and how many have to be healthy.
fn expectation(store: &Store, namespace: &str, spec: &Value, pods: &[&Value]) -> Result<(i64, i64), String> {
    let present = i64::try_from(pods.len()).unwrap_or(i64::MAX);
    let (most, least) = (&spec["maxUnavailable"], &spec["minAvailable"]);
    if !most.is_null() {
        let expected = scale(store, namespace, pods)?;
        return Ok((expected, (expected - part_of(most, expected)).max(0)));
    }
    match least.as_i64() {
        Some(number) => Ok((present, number)),
        None if least.is_string() => {
            let expected = scale(store, namespace, pods)?;
            Ok((expected, part_of(least, expected)))
        }
        None => Ok((0, 0)),
    }
}

/// A number, or a percentage of `all`, rounded up.
fn part_of(value: &Value, all: i64) -> i64 {
    let percent = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<i64>().ok());
    percent.map_or_else(|| value.as_i64().unwrap_or_default(), |percent| (percent * all + 99) / 100)
}

/// How many pods those want that the pods belong to. Pods on their own count for nothing.
fn scale(store: &Store, namespace: &str, pods: &[&Value]) -> Result<i64, String> {
    let mut wanted = BTreeMap::new();
    for pod in pods {
        let Some(owner) = controller(pod) else { continue };
        let found = owner_scale(store, namespace, owner);
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let (uid, replicas) = found.ok_or_else(|| format!("found no controllers for pod {name:?}"))?;
        wanted.insert(uid, replicas);
    }
    Ok(wanted.values().sum())
}

fn controller(object: &Value) -> Option<&Value> {
    object["metadata"]["ownerReferences"].as_array()?.iter().find(|owner| owner["controller"] == true)
}

/// The UID and the replicas of whoever decides about the number of pods.
fn owner_scale(store: &Store, namespace: &str, owner: &Value) -> Option<(String, i64)> {
    let resource = match owner["kind"].as_str()? {
        "Deployment" => "deployments",
        "ReplicaSet" => "replicasets",
        "StatefulSet" => "statefulsets",
        _ => return None,
    };
    let key = Key { resource, namespace: namespace.to_owned(), name: owner["name"].as_str()?.to_owned() };
    let found = store.get(&key).filter(|found| found["metadata"]["uid"] == owner["uid"])?;
    match controller(&found).filter(|above| above["kind"] == "Deployment") {
        Some(above) => owner_scale(store, namespace, above),
        None => Some((found["metadata"]["uid"].as_str()?.to_owned(), found["spec"]["replicas"].as_i64()?)),
    }
}
