//! What a drain does with each kind of pod, side by side with what `kubectl drain --ignore-daemonsets` does.

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

/// When the drain began, which is when kubectl would list the pods.
const SINCE: &str = "2026-01-01T12:00:00Z";
const NOW: &str = "2026-01-01T12:01:00Z";

/// `kubectl`: whether `kubectl drain` evicts the pod, leaves it, refuses to drain, or misses it. `because`: why we do
/// something else, where we do.
#[track_caller]
fn check_under(rules: &Rules, pod: &Value, ours: Fate, kubectl: &str, because: &str) {
    let mut pod = pod.clone();
    if pod["metadata"]["creationTimestamp"].is_null() {
        pod["metadata"]["creationTimestamp"] = json!("2025-12-24T18:00:00Z");
    }
    let view = PodView::from(&serde_json::from_value::<Pod>(pod.clone()).unwrap());
    let came_later = pod["metadata"]["creationTimestamp"].as_str() > Some(SINCE);
    assert_eq!(rules.fate(&view, came_later, NOW.parse().unwrap()), ours, "{pod}");
    assert_eq!(kubectl_drain(rules, &pod), kubectl, "{pod}");
    let same = match ours {
        _ if ours.is_evicted() => kubectl == "evicts",
        _ if ours.blocks().is_some() => kubectl == "refuses",
        _ => kubectl == "leaves",
    };
    assert_eq!(same, because.is_empty(), "a difference has a reason, and nothing else has: {pod}");
}

#[track_caller]
fn check(pod: &Value, ours: Fate, kubectl: &str, because: &str) {
    check_under(&Rules::default(), pod, ours, kubectl, because);
}

/// The filters of `kubectl drain` in their order (`pkg/drain/filters.go`), without `--force` and `--delete-emptydir-data`.
fn kubectl_drain(rules: &Rules, pod: &Value) -> &'static str {
    let (meta, text) = (&pod["metadata"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
    let time = |value: &Value| text(value).parse::<Timestamp>().ok();
    let controller = meta["ownerReferences"].as_array().and_then(|owners| owners.first());
    let finished = ["Succeeded", "Failed"].contains(&text(&pod["status"]["phase"]).as_str());
    let labels = serde_json::from_value(meta["labels"].clone()).unwrap_or_default();
    let mut volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    // It lists once.
    if time(&meta["creationTimestamp"]) > time(&json!(SINCE)) {
        return "misses";
    }
    let deleted = time(&meta["deletionTimestamp"]).zip(rules.skip_stuck_after);
    if deleted.is_some_and(|(at, longest)| at.checked_add(longest).unwrap() < NOW.parse().unwrap()) {
        return "leaves";
    }
    match controller.map(|owner| (text(&owner["kind"]), text(&owner["name"]))) {
        _ if !rules.selector.matches(&labels) => "leaves",
        Some((kind, name)) if kind == "DaemonSet" && !finished && name == GONE => "refuses",
        Some((kind, _)) if kind == "DaemonSet" && !finished => "leaves",
        _ if !meta["annotations"]["kubernetes.io/config.mirror"].is_null() => "leaves",
        _ if !finished && volumes.any(|volume| !volume["emptyDir"].is_null()) => "refuses",
        None if !finished => "refuses",
        _ => "evicts",
    }
}

/// The name of a controller that does not exist any more.
const GONE: &str = "gone";

/// A pod of this kind of controller with more in its metadata, spec and status.
fn pod(kind: &str, more: &Value) -> Value {
    let owner = json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "u", "controller": true }]);
    let mut pod = json!({ "metadata": { "ownerReferences": owner }, "spec": { "containers": [] } });
    for part in ["metadata", "spec", "status"] {
        for (key, value) in more[part].as_object().into_iter().flatten() {
            pod[part][key] = value.clone();
        }
    }
    pod
}

fn bare(more: &Value) -> Value {
    let mut pod = pod("", more);
    pod["metadata"].as_object_mut().unwrap().remove("ownerReferences");
    pod
}

fn orphan(kind: &str) -> Value {
    let mut pod = pod(kind, &json!({}));
    pod["metadata"]["ownerReferences"][0]["name"] = json!(GONE);
    pod
}

fn in_phase(phase: &str) -> Value {
    json!({ "status": { "phase": phase } })
}

fn deleted_at(at: &str) -> Value {
    json!({ "metadata": { "deletionTimestamp": at } })
}

fn mirror() -> Value {
    json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "hash" } } })
}

fn empty_dir() -> Value {
    json!({ "spec": { "volumes": [{ "name": "scratch", "emptyDir": {} }] } })
}

/// Why no pod holds a drain up unless a flag says so.
const UNATTENDED: &str =
    "nobody is there to repeat the command with --force; an Event says it, and a flag makes it block";

#[test]
fn what_serves_somebody_is_evicted() {
    for kind in ["ReplicaSet", "StatefulSet", "Job", "ReplicationController", "SomethingOfAnOperator"] {
        check(&pod(kind, &json!({})), Fate::Evict, "evicts", "");
    }
    check(&pod("ReplicaSet", &in_phase("Pending")), Fate::Evict, "evicts", "");
    check(&pod("ReplicaSet", &in_phase("Unknown")), Fate::Evict, "evicts", "");
    check(&orphan("ReplicaSet"), Fate::Evict, "evicts", "");
    // Elsewhere it stays Pending, which is for its owner to know: the node goes down.
    let pinned = json!({ "spec": { "nodeSelector": { "kubernetes.io/hostname": "node-1" } } });
    check(&pod("ReplicaSet", &pinned), Fate::Evict, "evicts", "");
    let came_later = json!({ "metadata": { "creationTimestamp": "2026-01-01T12:00:30Z" } });
    check(&pod("ReplicaSet", &came_later), Fate::Evict, "misses", "the pods are watched to the end of the drain");
}

#[test]
fn what_comes_back_by_itself_or_has_ended_stays() {
    check(&pod("DaemonSet", &json!({})), Fate::LeaveDaemonSet, "leaves", "");
    check(&pod("DaemonSet", &empty_dir()), Fate::LeaveDaemonSet, "leaves", "");
    // What `kubectl delete --cascade=orphan` leaves behind has no owner, and is a pod without a controller.
    let collected = "the garbage collector deletes it with its DaemonSet, and a reboot need not wait for that";
    check(&orphan("DaemonSet"), Fate::LeaveDaemonSet, "refuses", collected);
    check(&bare(&mirror()), Fate::LeaveMirror, "leaves", "");
    let over = "nothing of it runs that a reboot could harm, and somebody may still want its log";
    for phase in ["Succeeded", "Failed"] {
        check(&pod("Job", &in_phase(phase)), Fate::LeaveFinished, "evicts", over);
        check(&pod("DaemonSet", &in_phase(phase)), Fate::LeaveFinished, "evicts", over);
        check(&bare(&in_phase(phase)), Fate::LeaveFinished, "evicts", over);
    }
}

#[test]
fn what_a_person_might_miss_is_evicted_or_blocks_by_choice() {
    let in_a_dir = pod("ReplicaSet", &empty_dir());
    check(&bare(&json!({})), Fate::EvictUnmanaged, "refuses", UNATTENDED);
    check(&in_a_dir, Fate::EvictEmptyDir, "refuses", UNATTENDED);
    check(&bare(&empty_dir()), Fate::EvictUnmanaged, "refuses", UNATTENDED);
    let block = Rules { unmanaged: Choice::Block, empty_dir: Choice::Block, ..Rules::default() };
    check_under(&block, &bare(&json!({})), Fate::BlockUnmanaged, "refuses", "");
    check_under(&block, &in_a_dir, Fate::BlockEmptyDir, "refuses", "");
    check_under(&block, &bare(&empty_dir()), Fate::BlockUnmanaged, "refuses", "");
    let over = "it has ended: there is nothing to keep and nothing to evict";
    check_under(&block, &bare(&in_phase("Failed")), Fate::LeaveFinished, "evicts", over);
    let goes = "somebody has deleted it already, so no policy can keep it";
    check_under(&block, &bare(&deleted_at("2026-01-01T12:00:30Z")), Fate::Evict, "refuses", goes);
}

#[test]
fn the_selector_leaves_pods_out() {
    let rules = Rules { selector: "tier!=system".parse().unwrap(), unmanaged: Choice::Block, ..Rules::default() };
    let labelled = json!({ "metadata": { "labels": { "tier": "system" } } });
    check_under(&rules, &pod("ReplicaSet", &labelled), Fate::LeaveUnselected, "leaves", "");
    check_under(&rules, &bare(&labelled), Fate::LeaveUnselected, "leaves", "");
    check_under(&rules, &pod("ReplicaSet", &json!({})), Fate::Evict, "evicts", "");
}

#[test]
fn what_is_being_deleted_is_waited_for_but_not_for_ever_where_the_rules_say_so() {
    let ends = |at: &str| pod("ReplicaSet", &deleted_at(at));
    let rules = Rules { skip_stuck_after: Some(Duration::from_mins(1)), ..Rules::default() };
    check(&ends("2026-01-01T11:00:00Z"), Fate::Evict, "evicts", "");
    check_under(&rules, &ends("2026-01-01T11:59:59Z"), Fate::LeaveStuck, "leaves", "");
    check_under(&rules, &ends("2026-01-01T12:00:00Z"), Fate::Evict, "evicts", "");
    check_under(&rules, &pod("ReplicaSet", &json!({})), Fate::Evict, "evicts", "");
}

#[test]
fn what_tolerates_the_cordon_is_evicted_once_and_left_when_it_comes_back() {
    let tolerates = |toleration: &Value, created: &str| {
        let more = json!({ "metadata": { "creationTimestamp": created }, "spec": { "tolerations": [toleration] } });
        pod("ReplicaSet", &more)
    };
    let (before, after) = ("2026-01-01T11:59:00Z", "2026-01-01T12:00:30Z");
    let any = json!({ "operator": "Exists" });
    let comes_back = "it is seen, and would come back as often as it is evicted";
    check(&tolerates(&any, before), Fate::Evict, "evicts", "");
    check(&tolerates(&any, SINCE), Fate::Evict, "evicts", "");
    check(&tolerates(&any, after), Fate::LeaveTolerant, "misses", comes_back);
    let exact = json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule" });
    check(&tolerates(&exact, after), Fate::LeaveTolerant, "misses", comes_back);
    let empty = json!({ "key": "node.kubernetes.io/unschedulable" });
    check(&tolerates(&empty, after), Fate::LeaveTolerant, "misses", comes_back);
    for other in [
        json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoExecute" }),
        json!({ "key": "node.kubernetes.io/not-ready", "operator": "Exists" }),
        json!({ "key": "node.kubernetes.io/unschedulable", "operator": "Equal", "value": "x" }),
    ] {
        check(&tolerates(&other, after), Fate::Evict, "misses", "the pods are watched to the end of the drain");
    }
}
