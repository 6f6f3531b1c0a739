//! What must have come to an end once nothing goes wrong any more (L1, L2).

use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use reboot_core::annotations::{FENCE, LAST_REBOOT, PREFIX};
use reboot_core::ids::BootId;
use reboot_core::ledger::{LedgerState, NAME};
use reboot_core::node::NodeView;
use tokio::time::sleep;

use super::machine::Machine;
use super::world::World;

/// How long everything may take at most: an update that does not take is put off by up to 24 hours.
const LIMIT: Duration = Duration::from_hours(30);

/// How often it is looked whether all is done.
const LOOK: Duration = Duration::from_secs(5);

/// Waits until every node that asks is rebooted and everything is put away.
///
/// # Errors
/// What is left after the longest time that this may take.
pub async fn settled(world: &World) -> Result<(), String> {
    let nodes = world.nodes();
    let asked: Vec<Option<BootId>> = world.machines.iter().map(|machine| asks(&nodes, machine)).collect();
    let end = world.elapsed() + LIMIT;
    loop {
        let late = world.elapsed() > end;
        // All objects are read anew, which is not worth it before the machines have done their part.
        if late || have_rebooted(world, &asked) {
            let left = left_over(world, &asked);
            if left.is_empty() {
                return Ok(());
            }
            if late {
                return Err(format!("not done {LIMIT:?} after the last fault: {left}"));
            }
        }
        sleep(LOOK).await;
    }
}

/// The boot that a node asks to end, if it does.
fn asks(nodes: &[NodeView], machine: &Machine) -> Option<BootId> {
    let boot = machine.boot();
    let node = nodes.iter().find(|node| node.name == machine.name)?;
    let lapsed = node.waiting.get().and_then(|waiting| waiting.lapsed).filter(|_| node.request.is_absent());
    let fulfilled = node.compatible_request().is_some_and(|request| request.boot != boot)
        || lapsed.is_some_and(|id| id.boot != boot)
        || node.in_progress.get().is_some_and(|progress| progress.id.boot != boot);
    let own = node.needed.as_ref().is_some_and(|why| why.starts_with("update_engine: "));
    let person = node.needed.is_some() && !own && !fulfilled;
    (machine.is_up() && (person || machine.engine().needs_reboot())).then_some(boot)
}

/// Whether every machine is up, and no longer in the boot that it was to end.
fn have_rebooted(world: &World, asked: &[Option<BootId>]) -> bool {
    world.machines.iter().zip(asked).all(|(machine, asked)| machine.is_up() && *asked != Some(machine.boot()))
}

/// What is not as it must be when all is done.
fn left_over(world: &World, asked: &[Option<BootId>]) -> String {
    let maps: Vec<ConfigMap> = world.all("configmaps");
    let map = maps.iter().find(|map| map.metadata.name.as_deref() == Some(NAME));
    // A ledger that was lost when nobody needed it is found missing by the next who does.
    let ledger = LedgerState::read(map);
    let slots = ledger.known().map(|ledger| ledger.slots().to_vec()).unwrap_or_default();
    let mut left: Vec<String> = slots.iter().map(|slot| format!("{slot} has a slot")).collect();
    let nodes: Vec<Node> = world.all("nodes");
    for (machine, asked) in world.machines.iter().zip(asked) {
        let name = &machine.name;
        left.extend((*asked == Some(machine.boot())).then(|| format!("{name} was not rebooted")));
        left.extend((!machine.is_up()).then(|| format!("{name} is down")));
        match nodes.iter().find(|node| node.metadata.name.as_ref() == Some(name)) {
            Some(node) => left_on(node, machine, &mut left),
            None => left.push(format!("{name} has no Node")),
        }
    }
    left.join(", ")
}

fn left_on(node: &Node, machine: &Machine, left: &mut Vec<String>) {
    let (name, view) = (&machine.name, NodeView::from(node));
    left.extend(view.unschedulable.then(|| format!("{name} is cordoned")));
    left.extend((!view.ready).then(|| format!("{name} is not Ready")));
    left.extend((view.boot != Some(machine.boot())).then(|| format!("{name} reports another boot")));
    // What does not outlive a cycle.
    let passing = |(key, value): &(&String, &String)| {
        key.starts_with(PREFIX) && ![LAST_REBOOT, FENCE].contains(&key.as_str()) && *value != "false"
    };
    let annotations = node.metadata.annotations.iter().flatten().filter(passing);
    left.extend(annotations.map(|(key, _)| format!("{name} has {key}")));
}
