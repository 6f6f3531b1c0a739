//! The controller's decisions on a situation of arbitrary text.

use std::time::Duration;

use reboot_core::Now;
use reboot_core::ledger::{Ledger, LedgerState, Lost, Slot, Verdict, Version, grant_patch, judge, withdraw_patch};
use reboot_core::node::NodeView;
use reboot_core::plan::{Action, ClusterView, Memory, Plan, Policy, plan};
use reboot_core::quota::Quota;
use reboot_core::reason::WaitReason;
use reboot_core::selector::Selector;
use reboot_core::values::{Field, Permission, Waiting};

use crate::cluster::{BOOTS, Cluster, views, write};
use crate::text::{REASON, check_shown};

/// Plans for the cluster, after a time in which nothing changed, and judges the plan.
///
/// # Panics
/// When a claim does not hold.
pub fn check(cluster: &Cluster<'_>, passed: Duration) {
    let nodes = views(&cluster.nodes);
    let ledger = ledger(cluster, &nodes);
    let view = ClusterView { nodes: &nodes, ledger: &ledger, home: cluster.says("home").then_some("node-0") };
    let quota = Quota::Nodes(if cluster.says("two") { 2 } else { 1 });
    let policy = Policy { quota, selector: Selector::default(), pickup_deadline: Duration::from_mins(2) };
    let now = |mono| Now { mono, wall: jiff::Timestamp::constant(1_767_268_800, 0) };
    let mut memory = Memory::default();
    memory.observe(&view, now(Duration::ZERO));
    memory.observe(&view, now(passed));
    let decided = plan(&view, &policy, &memory, now(passed));
    check_waits(&decided, &nodes);
    check_grants(&decided, &view, quota.limit(nodes.len()), now(passed));
    for action in &decided.actions {
        match action {
            Action::Explain(_, Some((_, waiting))) => check_explanation(waiting),
            Action::Settle(slot) => {
                let found = cluster.nodes.iter().find(|node| node.metadata.name.as_deref() == Some(&slot.node));
                let judged =
                    judge(slot, found.map(NodeView::from).as_ref(), memory.handover(slot, &policy, now(passed)));
                if let (Verdict::Withdraw(why), Some(node)) = (judged, found) {
                    let mut after = node.clone();
                    write(&mut after, &withdraw_patch(&NodeView::from(node), why, "fence", now(passed)));
                    let left = NodeView::from(&after).permission;
                    assert!(!matches!(left, Field::Set(Permission::Granted(_))), "S6: withdrawn, and still granted");
                }
            }
            _ => {}
        }
    }
}

/// The first `slots=` Nodes hold a slot each, under the id that ends with `7`.
fn ledger(cluster: &Cluster<'_>, nodes: &[NodeView]) -> LedgerState {
    let version = Version { uid: "ledger".to_owned(), resource_version: "100".to_owned() };
    if cluster.says("lost") {
        return LedgerState::Lost(Lost { why: "it is garbled".to_owned(), version: Some(version) });
    }
    let slot = |node: &NodeView| Slot {
        node: node.name.clone(),
        uid: node.uid.clone(),
        id: format!("{}.7", BOOTS[0]).parse().ok(),
        since: jiff::Timestamp::constant(1_767_268_000, 0),
    };
    LedgerState::Known(Ledger::complete(version, nodes.iter().take(cluster.number("slots")).map(slot).collect()))
}

/// What stops a node is told as what stops it.
fn check_waits(plan: &Plan, nodes: &[NodeView]) {
    assert_eq!(plan.census.malformed, nodes.iter().map(|node| node.malformed().count()).sum::<usize>());
    for node in nodes {
        let stopped = node.permission.malformed().or(node.in_progress.malformed()).is_some();
        let reason = plan.waits.get(&node.name).map(WaitReason::code);
        assert!(!stopped || reason == Some("Malformed"), "S7: {} waits for {reason:?}", node.name);
    }
}

/// Grants go to nodes that ask, answer and are free, and never beyond the quota.
fn check_grants(plan: &Plan, view: &ClusterView<'_>, quota: usize, now: Now) {
    let (mut ledger, before) =
        (view.ledger.known().cloned(), view.ledger.known().map_or(0, |known| known.slots().len()));
    let mut granted = 0;
    for action in &plan.actions {
        let Action::Grant(name, limit) = action else { continue };
        granted += 1;
        let node = view.nodes.iter().find(|node| node.name == *name).expect("a grant to a Node of the view");
        let free = node.permission.is_absent() && node.in_progress.is_absent() && node.paused.is_none();
        assert!(free && node.needed.is_some(), "S7: a grant to {node:?}");
        let request = node.compatible_request().expect("S7: a grant without an answer");
        assert_eq!(Some(request.boot), node.boot, "S3: a grant for another boot");
        let known = ledger.take().expect("S1: a grant without a ledger");
        let (next, id) = known.with_grant(node, *limit, now).expect("S1: a grant without a slot");
        let mut patched = k8s_openapi::api::core::v1::Node::default();
        write(&mut patched, &grant_patch(id));
        assert_eq!(NodeView::from(&patched).permission, Field::Set(Permission::Granted(id)), "the grant reads back");
        ledger = Some(next);
    }
    assert!(granted == 0 || before + granted <= quota, "S1: {granted} grants beside {before} slots");
}

/// What is written to a Node that waits reads back, and is fit to be shown.
fn check_explanation(waiting: &Waiting) {
    check_shown(&waiting.message, REASON + 200);
    let mut node = k8s_openapi::api::core::v1::Node::default();
    let printed = waiting.to_string();
    crate::cluster::annotations(&mut node).insert(reboot_core::annotations::WAITING.to_owned(), printed);
    assert_eq!(NodeView::from(&node).waiting.get(), Some(waiting), "the explanation reads back");
}
