//! The real [`crate::plan`] and the real [`crate::step`] against a world in memory, in seeded random order, with crashes,
//! lost and late writes, stale watches, and people; the [`crate::audit`] looks at each change. In the end the faults stop,
//! and every node that asks must be rebooted and clean, driven by nothing but changes and the wake-ups that both sides ask
//! for.
//!
//! The loops around them ([`agent`], [`controller`]) are simpler than those of the two processes, which `tests/simulation`
//! runs as they are.

mod agent;
mod api;
mod budget;
mod controller;
mod faults;
mod machine;
mod random;
mod world;

use std::time::Duration;

use crate::audit::Actor;
use crate::ids::BootId;
use crate::step::{Engine, OnDrainBlocked, OnDrainTimeout};
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
    let asked: Vec<_> = (0..world.hosts.len()).map(|host| asks(world, host)).collect();
    settle(world, |world| left_over(world, &asked))
}

/// Lets time pass until nothing is left over.
fn settle(world: &mut World, left_over: impl Fn(&World) -> String) -> Result<(), String> {
    let mut left = String::new();
    for _ in 0..ROUNDS {
        work_off(world)?;
        left = left_over(world);
        if left.is_empty() {
            return Ok(());
        }
        let Some(at) = wake_ups(world).min() else { return Err(format!("nobody will do anything about: {left}")) };
        world.pass(at.saturating_sub(world.mono).max(Duration::from_millis(1)));
    }
    Err(format!("not done after {ROUNDS} rounds: {left}"))
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
    machines.chain(agents).chain(controller).chain(world.budget.due())
}

/// The boot that a node asks to end, if it does.
fn asks(world: &World, host: usize) -> Option<BootId> {
    let machine = &world.hosts[host].machine;
    let node = world.view(host)?;
    let lapsed = node.waiting.get().and_then(|waiting| waiting.lapsed).filter(|_| node.request.is_absent());
    let fulfilled = node.compatible_request().is_some_and(|request| request.boot != machine.boot)
        || lapsed.is_some_and(|id| id.boot != machine.boot)
        || node.in_progress.get().is_some_and(|progress| progress.id.boot != machine.boot);
    let own = node.needed.as_ref().is_some_and(|why| why.starts_with("update_engine: "));
    let person = node.needed.is_some() && !own && !fulfilled;
    let engine = matches!(machine.engine, Engine::NeedsReboot(_));
    (!machine.is_down() && (person || engine)).then_some(machine.boot)
}

/// What is not as it must be when all is done.
fn left_over(world: &World, asked: &[Option<BootId>]) -> String {
    // A ledger that was lost when nobody needed it is found missing by the next who does.
    let ledger = world.read_ledger();
    let mut left: Vec<String> = ledger.slots().iter().map(|slot| format!("{slot} has a slot")).collect();
    for (host, asked) in world.hosts.iter().zip(asked) {
        let name = &host.name;
        left.extend((*asked == Some(host.machine.boot)).then(|| format!("{name} was not rebooted")));
        let Some(node) = &host.api else { continue };
        let kept = [crate::annotations::LAST_REBOOT, crate::annotations::FENCE];
        let keys = node.annotations.iter().filter(|(key, value)| !kept.contains(&key.as_str()) && *value != "false");
        left.extend(keys.map(|(key, _)| format!("{name} has {key}")));
        left.extend(node.cordon.is_some().then(|| format!("{name} is cordoned")));
        left.extend((!node.ready).then(|| format!("{name} is not Ready")));
    }
    left.join(", ")
}

/// Without faults: the budget lets no pod of the first node go, until a person changes it.
#[test]
fn a_node_that_a_budget_blocks_is_not_cordoned_and_starves_nobody() {
    for seed in 0..100 {
        let mut world = World::new(seed, false);
        world.heal();
        world.step_policy.on_drain_blocked = OnDrainBlocked::GiveUp;
        world.step_policy.on_drain_timeout = OnDrainTimeout::GiveUp;
        world.budget.set_never(true);
        world.pass(Duration::from_mins(5));
        for host in 0..world.hosts.len() {
            world.hosts[host].machine.set_pods(host == 0);
            world.person_asks(host);
        }
        let asked: Vec<_> = (0..world.hosts.len()).map(|host| asks(&world, host)).collect();
        let rebooted = |world: &World, host: usize| asked[host] != Some(world.hosts[host].machine.boot);
        let others = |world: &World| (1..world.hosts.len()).filter(|host| !rebooted(world, *host)).count();
        let left = |world: &World| if others(world) == 0 { String::new() } else { "others wait".into() };
        settle(&mut world, left).unwrap();
        assert!(!rebooted(&world, 0), "seed {seed}");
        let mut views = world.hosts[0].history.iter().flatten();
        assert!(views.all(|node| !node.unschedulable), "seed {seed}: cordoned for nothing");
        world.budget.set_never(false);
        settle(&mut world, |world| left_over(world, &asked)).unwrap();
    }
}

/// Without faults, and with a quota that would let all go at once.
#[test]
fn control_plane_nodes_reboot_one_after_the_other() {
    for seed in 0..100 {
        let mut world = World::new(seed, false);
        world.heal();
        world.plan_policy.quota = "100%".parse().unwrap();
        for host in 0..world.hosts.len() {
            world.hosts[host].control_plane = true;
            world.set_node(Actor::Machine, host, None);
            world.register(host);
            world.person_asks(host);
        }
        let asked: Vec<_> = (0..world.hosts.len()).map(|host| asks(&world, host)).collect();
        let left = |world: &World| {
            assert!(world.read_ledger().slots().len() <= 1, "seed {seed}: {:?}", world.read_ledger());
            left_over(world, &asked)
        };
        settle(&mut world, left).unwrap();
    }
}

#[test]
fn every_promise_holds_and_every_node_that_asks_is_rebooted() {
    check(0..2500);
}
