//! The agent's decisions on a situation of arbitrary text.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use reboot_core::Now;
use reboot_core::annotations as key;
use reboot_core::drain::{Attachments, Budgets, PodRef, PodView, Rules};
use reboot_core::node::NodeView;
use reboot_core::step::{
    Action, Engine, Fresh, HostView, Memory, OnDrainBlocked, OnDrainTimeout, Policy, ShutdownLock, Situation, Step,
    step,
};
use reboot_core::values::{Field, Phase};

use crate::cluster::{Cluster, size, write};
use crate::text::{REASON, check_shown};

/// How many writes a Node may need until there is nothing more to write, when nothing else happens.
const WRITES: usize = 6;

/// By how many bytes one write may make the annotations longer, whatever stands there: the API server takes 256 KiB of
/// them, and a value that is copied over and over would get there.
const GROWTH: usize = 12_000;

/// Lets an agent work on `node-0` until it waits, and judges each step.
///
/// # Panics
/// When a claim does not hold.
pub fn check(cluster: &Cluster<'_>) {
    let (mut node, host, policy) = (cluster.nodes[0].clone(), host(cluster), policy(cluster));
    let now = Now { mono: Duration::from_hours(1), wall: jiff::Timestamp::constant(1_767_268_800, 0) };
    let mut memory = Memory::seeded(1);
    for _ in 0..WRITES {
        let view = NodeView::from(&node);
        memory.observe(&view, now);
        memory.observe_host(&host, now);
        let decide =
            |fresh| step(&Situation { node: &view, host: &host, memory: &memory, policy: &policy, fresh, now });
        let decided = match decide(cluster.says("fresh").then(|| fresh(cluster))) {
            Step { action: Action::Refresh, .. } => decide(Some(fresh(cluster))),
            decided => decided,
        };
        check_step(&decided, &view, &host);
        let Action::Write(patch, _) = decided.action else { return };
        let before = node.clone();
        write(&mut node, &patch);
        check_write(&before, &node);
        memory.wrote(&NodeView::from(&node), now);
    }
    panic!("still writing after {WRITES} writes: {node:?}");
}

/// What logind says when it is asked.
fn fresh(cluster: &Cluster<'_>) -> Fresh {
    let preparing = cluster.says("shutdown").then_some(true).or(cluster.says("steady").then_some(false));
    Fresh { preparing_for_shutdown: preparing }
}

fn host(cluster: &Cluster<'_>) -> HostView {
    let pod = |number: usize| PodView {
        pod: PodRef { namespace: "default".into(), name: format!("web-{number}"), uid: format!("pod-{number}") },
        ..PodView::default()
    };
    HostView {
        boot: cluster.boot().and_then(|boot| boot.parse().ok()),
        os_version: cluster.says("version").then(|| "4081.2.0".to_owned()),
        uptime: if cluster.says("early") { Duration::ZERO } else { Duration::from_hours(2) },
        engine: match (cluster.says("engine"), cluster.says("quiet")) {
            (true, _) => Engine::NeedsReboot(Some("4152.1.0".to_owned())),
            (false, true) => Engine::Otherwise,
            (false, false) => Engine::Unheard,
        },
        pods: (!cluster.says("unlisted")).then(|| (0..cluster.number("pods").min(3)).map(pod).collect()),
        budgets: Budgets((!cluster.says("unlisted")).then(Vec::new)),
        attachments: Attachments((!cluster.says("unlisted")).then(Vec::new)),
        lock: ShutdownLock::Free,
        other_manager: None,
    }
}

fn policy(cluster: &Cluster<'_>) -> Policy {
    Policy {
        drain_timeout: if cluster.says("hurry") { Duration::ZERO } else { Duration::from_mins(10) },
        on_drain_timeout: if cluster.says("reboot") { OnDrainTimeout::Reboot } else { OnDrainTimeout::GiveUp },
        on_drain_blocked: if cluster.says("drain") { OnDrainBlocked::Drain } else { OnDrainBlocked::GiveUp },
        min_uptime: Duration::from_mins(2),
        drain: Rules::default(),
    }
}

/// What is done rests on what is set and of this boot, and on nothing that is malformed.
fn check_step(step: &Step, view: &NodeView, host: &HostView) {
    if let Some(status) = &step.status {
        check_shown(status, REASON + 200);
    }
    let ours = view.in_progress.get().filter(|progress| Some(progress.id.boot) == host.boot);
    let stopped = host.boot.is_none() || matches!(view.in_progress, Field::Malformed(_));
    match &step.action {
        Action::Wait => {}
        Action::Refresh => panic!("a fresh view is not enough"),
        Action::Evict(_) => {
            let progress = ours.expect("S2: evictions without a cycle of this boot");
            let permitted = view.permission.get().is_some() && view.paused.is_none() && view.unschedulable;
            assert!(permitted || progress.phase == Phase::Rebooting, "S5: evictions without permission");
        }
        Action::Reboot => {
            assert!(ours.is_some_and(|progress| progress.phase == Phase::Rebooting), "S2: a call too early");
        }
        Action::Write(patch, _) if stopped => {
            assert!(patch.annotations().all(|(key, _)| key == key::STATUS), "S7: a write on a malformed cycle");
            assert_eq!(patch.unschedulable(), None, "S7: the cordon of a malformed cycle");
        }
        Action::Write(patch, _) => {
            let begins = matches!(patch.get(key::IN_PROGRESS), Some(Some(_))) && view.in_progress.is_absent();
            assert!(!begins || view.permission.get().is_some(), "S2: a cycle begins without permission");
            assert!(patch.unschedulable() != Some(false) || view.cordon_is_ours(), "S4: a cordon that is not ours");
        }
    }
}

/// A write changes something, can be read, and does not pile up what it copies.
fn check_write(before: &Node, after: &Node) {
    assert!(
        before.metadata.annotations != after.metadata.annotations || before.spec != after.spec,
        "a write that changes nothing is made again for ever"
    );
    let (old, new) = (NodeView::from(before), NodeView::from(after));
    let known: Vec<&str> = old.malformed().map(|(key, _)| key).collect();
    assert!(new.malformed().all(|(key, _)| known.contains(&key)), "S7: the agent wrote what it cannot read");
    assert!(size(after) <= size(before) + GROWTH, "{} bytes of annotations became {}", size(before), size(after));
}
