//! The real [`crate::plan`] and the real [`crate::step`] against a world in memory, in seeded random order, with every
//! fault that the design speaks of; the [`crate::audit`] looks at each change. In the end the faults stop, and every
//! node that asks must be rebooted and clean, driven by nothing but changes and the wake-ups that both sides ask for.

mod agent;
mod controller;
mod faults;
mod machine;
mod random;
mod world;

use std::time::Duration;

use crate::step::Engine;
use world::World;

/// How many things happen before the faults stop.
const EVENTS: usize = 150;

#[track_caller]
fn check(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        if let Err(why) = run(seed, false).1 {
            let story = run(seed, true).0.story.unwrap_or_default();
            let last = story.len().saturating_sub(150);
            panic!("seed {seed}: {why}\n{}", story[last..].join("\n"));
        }
    }
}

fn run(seed: u64, tell: bool) -> (World, Result<(), String>) {
    let mut world = World::new(seed, tell);
    let result = faulty_time(&mut world).and_then(|()| quiet_time(&mut world));
    (world, result)
}

fn broken(world: &World) -> Result<(), String> {
    world.violations.first().map_or(Ok(()), |violation| Err(violation.to_string()))
}

fn faulty_time(world: &mut World) -> Result<(), String> {
    for _ in 0..EVENTS {
        world.happen();
        broken(world)?;
    }
    Ok(())
}

/// How often everything may be looked at, and time be moved on to the next wake-up, before all is done.
const ROUNDS: usize = 400;

fn quiet_time(world: &mut World) -> Result<(), String> {
    world.heal();
    world.tell(|| "the faults have stopped".into());
    let asking: Vec<bool> = (0..world.hosts.len()).map(|host| asks(world, host)).collect();
    let boots: Vec<_> = world.hosts.iter().map(|host| host.machine.boot).collect();
    for _ in 0..ROUNDS {
        work_off(world)?;
        let dirty: Vec<String> = (0..world.hosts.len()).filter_map(|host| left_over(world, host)).collect();
        let slots = world.read_ledger().known().map(|ledger| ledger.slots().len());
        let next = wake_ups(world).min();
        match next {
            Some(at) if !dirty.is_empty() || slots != Some(0) => {
                let delay = at.saturating_sub(world.mono).max(Duration::from_millis(1));
                world.pass(delay);
            }
            None if !dirty.is_empty() || slots != Some(0) => {
                return Err(format!("nobody will do anything about: {dirty:?}, slots {slots:?}"));
            }
            _ => {
                let unmoved = |(host, asks): (usize, &bool)| *asks && world.hosts[host].machine.boot == boots[host];
                return match asking.iter().enumerate().position(unmoved) {
                    Some(host) => Err(format!("n{host} asked and was not rebooted")),
                    None => Ok(()),
                };
            }
        }
    }
    let dirty: Vec<String> = (0..world.hosts.len()).filter_map(|host| left_over(world, host)).collect();
    Err(format!("not done after {ROUNDS} rounds: {dirty:?}"))
}

/// Both sides look and act until there is nothing left to do at this moment.
fn work_off(world: &mut World) -> Result<(), String> {
    for _ in 0..100 {
        let mut done = world.run_controller(0);
        for host in 0..world.hosts.len() {
            done |= world.run_agent(host);
        }
        broken(world)?;
        if !done {
            return Ok(());
        }
    }
    Err("both sides go on for ever".into())
}

fn wake_ups(world: &World) -> impl Iterator<Item = Duration> {
    let controller = world.controllers[0].as_ref().and_then(|controller| controller.wake);
    let agents = world.hosts.iter().filter_map(|host| host.agent.as_ref()?.wake);
    let machines = world.hosts.iter().filter_map(|host| host.machine.due());
    machines.chain(agents).chain(controller)
}

/// Whether the node asks for a reboot that has not come yet.
fn asks(world: &World, host: usize) -> bool {
    let Some(node) = world.view(host) else { return false };
    let boot = world.hosts[host].machine.boot;
    let fulfilled = node.compatible_request().is_some_and(|request| request.boot != boot)
        || node.in_progress.get().is_some_and(|progress| progress.id.boot != boot);
    let own = node.needed.as_ref().is_some_and(|why| why.starts_with("update_engine: "));
    let person = node.needed.is_some() && !own && !fulfilled;
    !world.hosts[host].machine.is_down()
        && (person || matches!(world.hosts[host].machine.engine, Engine::NeedsReboot(_)))
}

/// What the operator has left on the node, and must not leave when all is done.
fn left_over(world: &World, host: usize) -> Option<String> {
    let api = world.hosts[host].api.as_ref()?;
    let kept = [crate::annotations::LAST_REBOOT, crate::annotations::FENCE];
    let left = api.annotations.iter().filter(|(key, value)| !kept.contains(&key.as_str()) && *value != "false");
    let mut left: Vec<&str> = left.map(|(key, _)| key.as_str()).collect();
    left.extend(api.cordon.is_some().then_some("the cordon"));
    left.extend((!api.ready).then_some("not Ready"));
    (!left.is_empty()).then(|| format!("{}: {}", world.hosts[host].name, left.join(", ")))
}

#[test]
fn every_promise_holds_and_every_node_that_asks_is_rebooted() {
    check(0..3000);
}
