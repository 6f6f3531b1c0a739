//! What happens to machines, processes and the network, and what people do.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use reboot_core::annotations as key;
use reboot_core::node::NodeView;
use reboot_core::quota::Quota;
use serde_json::json;
use tokio::time::sleep;

use super::machine::Machine;
use super::workload;
use super::world::World;

/// Machines fail, pods are deleted, clocks step, the network breaks, again and again.
pub async fn events(world: Arc<World>) {
    let pause = world.setup.faults.events;
    if pause == 0 {
        return;
    }
    loop {
        sleep(world.random.seconds(2 * pause)).await;
        let machine = world.random.pick(&world.machines).clone();
        event(&world, &machine).await;
    }
}

async fn event(world: &Arc<World>, machine: &Arc<Machine>) {
    let name = &machine.name;
    let controller = world.random.pick(&world.controllers);
    match world.random.below(26) {
        20..=22 => other_program(world, name),
        23..=24 => {
            world.happened("pod that comes");
            workload::add(world, name);
        }
        0..=3 => {
            world.happened("update installed");
            machine.set_engine(true);
        }
        4 => {
            world.happened("update taken back silently");
            machine.set_engine(false);
        }
        5..=6 => {
            world.happened("power failure");
            machine.power_fails(false);
        }
        7 => {
            world.happened("node that does not come back");
            machine.power_fails(true);
        }
        8 => {
            world.happened("kubelet stops");
            machine.kubelet_disturbed.notify_one();
        }
        9..=10 => {
            world.happened("agent deleted");
            machine.agent_deleted.notify_one();
        }
        11..=12 => {
            world.happened("controller deleted");
            controller.deleted.notify_one();
        }
        13 => step_clock(world, machine),
        14 if counts_for_itself(world) => {
            world.happened("Node deleted");
            world.delete_node(name);
            sleep(world.random.time(Duration::from_mins(1))).await;
            machine.kubelet_disturbed.notify_one();
        }
        15..=16 => cut_off(world, "*", "outage of the API server").await,
        17 => cut_off(world, &format!("agent:{name}"), "node cut off").await,
        18 => cut_off(world, "controller:0", "controller cut off").await,
        _ => {
            world.happened("budget that blocks");
            workload::set_budget(world, true);
            sleep(world.random.seconds(300)).await;
            workload::set_budget(world, false);
        }
    }
}

fn step_clock(world: &World, machine: &Machine) {
    let seconds: i64 = *world.random.pick(&[-3000, -100, 100, 3000]);
    if world.random.once_in(2) {
        world.happened("clock of a machine steps");
        machine.step_clock(seconds);
    } else {
        world.happened("clock of a controller steps");
        world.random.pick(&world.controllers).clock.fetch_add(seconds, Ordering::Relaxed);
    }
    world.traces_do_not_last();
}

async fn cut_off(world: &Arc<World>, user: &str, what: &'static str) {
    world.happened(what);
    world.cut_off(user, true);
    sleep(world.random.time(Duration::from_mins(4))).await;
    world.cut_off(user, false);
}

/// People ask, change their minds, and put their fingers where they should not.
pub async fn people(world: Arc<World>) {
    let pause = world.setup.faults.people;
    if pause == 0 {
        return;
    }
    loop {
        sleep(world.random.seconds(2 * pause)).await;
        let machine = world.random.pick(&world.machines);
        act(&world, &machine.name);
    }
}

fn act(world: &World, node: &str) {
    let act = |what: &'static str, key: &str, value: Option<&str>| {
        world.happened(what);
        world.annotate(node, key, value);
    };
    match world.random.below(38) {
        0..=5 | 26..=35 => act("person asks", key::NEEDED, Some("kernel")),
        6 => act("person asks no more", key::NEEDED, None),
        7 => act("person asks no more", key::NEEDED, Some("false")),
        8 => act("person pauses", key::PAUSED, Some("maintenance")),
        9..=10 => act("person ends the pause", key::PAUSED, None),
        11 => act("person forces", key::REBOOT, Some("now")),
        12 => act("person removes the grant", key::REBOOT, None),
        13 => act("person writes nonsense", key::REBOOT, Some("True")),
        14 => act("person removes reboot-in-progress", key::IN_PROGRESS, None),
        15 => act("person writes nonsense", key::IN_PROGRESS, Some("{}")),
        16 => act("person removes the request", key::REQUEST, None),
        17 => act("person removes last-reboot", key::LAST_REBOOT, None),
        18 => {
            world.happened("person removes all annotations");
            world.patch_node("kubectl-edit", node, json!({"metadata": {"annotations": null}}));
        }
        19 => {
            world.happened("person cordons");
            world.cordon(node, true);
        }
        20..=21 => {
            world.happened("person uncordons");
            world.cordon(node, false);
        }
        22 => {
            let key = *world.random.pick(&[key::REQUEST, key::WAITING, key::LAST_REBOOT]);
            let value = *world.random.pick(&["", "{}", r#"{"protocol":2}"#]);
            act("person writes nonsense", key, Some(value));
        }
        23 => {
            world.happened("ledger deleted");
            world.harm_ledger(None);
        }
        24 => {
            world.happened("ledger garbled");
            world.harm_ledger(Some("{}"));
        }
        36 => {
            world.happened("person deselects a node");
            label(world, node, Some("control"));
        }
        37 => {
            world.happened("person selects a node");
            label(world, node, None);
        }
        _ => copy_grant(world, node),
    }
}

/// Whether the quota is the same however many nodes there are. A percentage is of the nodes as the controller knows
/// them, and for a moment that can be more than there are; so the nodes stay the same where it is one.
fn counts_for_itself(world: &World) -> bool {
    matches!(world.setup.controller.max_unavailable, Quota::Nodes(_))
}

fn label(world: &World, node: &str, role: Option<&str>) {
    if counts_for_itself(world) {
        world.patch_node("kubectl-label", node, json!({"metadata": {"labels": {"role": role}}}));
    }
}

/// A program of many writes to a Node; the API server remembers no more than ten of them.
fn other_program(world: &World, node: &str) {
    world.happened("other program writes");
    let (tool, value) = (format!("tool-{}", world.random.below(12)), world.random.next().to_string());
    let patch = json!({"metadata": {"annotations": {format!("example.com/{tool}"): value}}});
    world.patch_node(&tool, node, patch);
}

/// A person copies the grant of one node to another.
fn copy_grant(world: &World, node: &str) {
    let from = world.random.pick(&world.machines);
    let nodes: Vec<k8s_openapi::api::core::v1::Node> = world.all("nodes");
    let granted = nodes.into_iter().find(|node| node.metadata.name.as_ref() == Some(&from.name));
    let grant = granted.and_then(|node| node.metadata.annotations?.remove(key::REBOOT));
    if let Some(grant) = grant {
        world.happened("person copies a grant");
        world.annotate(node, key::REBOOT, Some(&grant));
    }
}

/// Nothing goes wrong any more, and people put away what only people can put away.
pub fn heal(world: &World) {
    world.tell(|| "the faults end".to_owned());
    world.faults_end();
    workload::set_budget(world, false);
    let nodes = world.nodes();
    for machine in &world.machines {
        machine.repair();
        if !nodes.iter().any(|node| node.name == machine.name) {
            machine.kubelet_disturbed.notify_one();
        }
    }
    for node in nodes {
        label(world, &node.name, None);
        let malformed: Vec<_> = node.malformed().map(|(key, _)| key).filter(|key| *key != key::WAITING).collect();
        for key in malformed {
            world.annotate(&node.name, key, None);
        }
        if node.paused.is_some() {
            world.annotate(&node.name, key::PAUSED, None);
        }
        if node.unschedulable && !node.cordon_is_ours() {
            world.cordon(&node.name, false);
        }
    }
}

impl World {
    /// The Nodes as they are.
    pub fn nodes(&self) -> Vec<NodeView> {
        self.all::<k8s_openapi::api::core::v1::Node>("nodes").iter().map(NodeView::from).collect()
    }
}
