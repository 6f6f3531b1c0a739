//! Which nodes may be granted, in which order, and what holds the others back apart from the quota.

use super::{ClusterView, Memory, Plan, Policy, WriteOf};
use crate::annotations as key;
use crate::node::NodeView;
use crate::reason::WaitReason;
use crate::values::{Answer, Field, LastReboot, Outcome, Request, printable};
use crate::{Now, earlier, until};

enum Standing<'a> {
    /// Nothing is asked of the node, or it is being taken care of.
    Quiet,
    /// It waits, for a reason of its own.
    Waits(WaitReason),
    /// Only the capacity is in question.
    Candidate(&'a Request),
}

/// Sorts the nodes into candidates, in the order in which they are granted, and nodes that wait for a reason of their
/// own, which go into the plan.
pub(super) fn sort<'a>(
    view: &ClusterView<'a>,
    policy: &Policy,
    memory: &Memory,
    now: Now,
    plan: &mut Plan,
) -> Vec<&'a NodeView> {
    let mut candidates = Vec::new();
    for node in view.nodes {
        match standing(node, view, policy, memory, now) {
            Standing::Quiet => {}
            Standing::Candidate(request) => candidates.push((node, request)),
            Standing::Waits(reason) => {
                let wake = reason.until().and_then(|at| until(at, now));
                plan.wake = earlier(plan.wake, wake);
                plan.waits.insert(node.name.clone(), reason);
            }
        }
    }
    let order = |&(node, request): &(&'a NodeView, &Request)| {
        let turn = memory.put_off_until(node, request).map_or(request.since, |at| at.max(request.since));
        (
            view.home == Some(node.name.as_str()),
            memory.refuses(&node.name, WriteOf::Permission),
            turn,
            node.name.as_str(),
        )
    };
    candidates.sort_by_key(order);
    candidates.into_iter().map(|(node, _)| node).collect()
}

fn standing<'a>(
    node: &'a NodeView,
    view: &ClusterView<'_>,
    policy: &Policy,
    memory: &Memory,
    now: Now,
) -> Standing<'a> {
    if node.needed.is_none()
        && !node.is_forced()
        && node.permission.malformed().is_none()
        && node.in_progress.malformed().is_none()
    {
        return Standing::Quiet;
    }
    let slot = view.ledger.known().and_then(|ledger| ledger.slot(&node.name));
    if let Some(reason) = malformed(node) {
        return Standing::Waits(reason);
    }
    if node.in_progress.get().is_some() {
        return Standing::Quiet;
    }
    if let Some(why) = &node.paused {
        return Standing::Waits(WaitReason::Paused { why: printable(why) });
    }
    if node.granted().is_some() || (slot.is_some() && !node.is_forced()) {
        return Standing::Quiet;
    }
    if node.is_forced() {
        return no_agent_yet(node, memory, now);
    }
    if !policy.selector.matches(&node.labels) {
        return Standing::Waits(WaitReason::NotSelected);
    }
    match &node.request {
        Field::Absent | Field::Malformed(_) => no_agent_yet(node, memory, now),
        Field::Set(Answer::Incompatible(protocol)) => {
            Standing::Waits(WaitReason::AgentIncompatible { protocol: *protocol })
        }
        Field::Set(Answer::Compatible(request)) => answered(node, request, memory, now),
    }
}

fn answered<'a>(node: &NodeView, request: &'a Request, memory: &Memory, now: Now) -> Standing<'a> {
    if node.boot != Some(request.boot) {
        return Standing::Waits(WaitReason::BootIdMismatch);
    }
    if let Some(until) = held_back(node, now) {
        return Standing::Waits(WaitReason::GrantRemoved { until });
    }
    match memory.put_off_until(node, request).filter(|at| until(*at, now).is_some()) {
        Some(until) => Standing::Waits(WaitReason::BackingOff { why: why_put_off(node), until }),
        None if memory.is_left_alone(&node.name, WriteOf::Permission, now) => Standing::Waits(WaitReason::WriteRefused),
        None => Standing::Candidate(request),
    }
}

/// Why the agent wants no grant before `notBefore`.
fn why_put_off(node: &NodeView) -> String {
    match node.last_reboot.get() {
        Some(LastReboot { outcome: Outcome::GaveBack, reason, detail: Some(detail), .. }) => {
            format!("the latest attempt was given back: {reason}: {}", printable(detail))
        }
        Some(LastReboot { outcome: Outcome::GaveBack, reason, .. }) => {
            format!("the latest attempt was given back: {reason}")
        }
        Some(last) if last.same_version > 0 => "the latest reboot left the version as it was".to_owned(),
        _ => "the agent asks for a pause".to_owned(),
    }
}

/// A person removed the grant: the withdrawal noted until when it is not given again. `None` once that time has come, or
/// the machine was rebooted since.
pub(super) fn held_back(node: &NodeView, now: Now) -> Option<jiff::Timestamp> {
    let waiting = node.waiting.get()?;
    // No time of another machine is looked at: its clock may be wrong.
    let over = matches!((waiting.held_boot, node.boot), (Some(held), Some(boot)) if held != boot);
    waiting.held_until.filter(|at| !over && until(*at, now).is_some())
}

fn no_agent_yet<'a>(node: &NodeView, memory: &Memory, now: Now) -> Standing<'a> {
    if memory.answer_is_due(&node.name, now) { Standing::Waits(WaitReason::NoAgent) } else { Standing::Quiet }
}

/// The malformed annotation that stops the node, if there is one. What the operator itself only reports stops nothing.
fn malformed(node: &NodeView) -> Option<WaitReason> {
    let stops = [key::REQUEST, key::REBOOT, key::IN_PROGRESS];
    let (key, why) = node.malformed().find(|(key, _)| stops.contains(key))?;
    Some(WaitReason::Malformed { key, why: why.to_owned() })
}
