//! The real loops of the operator, one controller or two and an agent for each node, over the API server in memory and
//! simulated machines, on a clock that nobody waits for.
//!
//! A seed decides everything: in which order requests, answers and events arrive and how late, which of them are lost,
//! when processes crash (at any await) and machines fail, whose clock steps, and what people do meanwhile. Every change
//! and every call to logind goes past [`reboot_core::audit`]. After a while the faults end, and then everything must
//! settle: every node that asks is rebooted, nothing is left cordoned, and no slot is taken.
//!
//! [`network`], [`machine`] and [`trouble`] are where things go wrong; [`operator`] puts the processes together;
//! [`judge`] and [`settle`] say what is right.
#![expect(clippy::expect_used, clippy::missing_panics_doc, reason = "a world that cannot be made is the end of a test")]

pub mod cluster;
pub mod faults;
pub mod figures;
pub mod host;
pub mod judge;
pub mod machine;
pub mod network;
pub mod operator;
pub mod process;
pub mod random;
pub mod settle;
pub mod setup;
pub mod trouble;
pub mod workload;
pub mod world;

use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::time::sleep;

use figures::Figures;
use random::Random;
use setup::Setup;
use world::World;

/// What a simulation came to.
#[derive(Debug)]
pub struct Played {
    /// What happened, counted.
    pub figures: Figures,
    /// What happened, line by line, where it was asked for.
    pub story: Vec<String>,
    /// The promise that was broken, or what did not come to an end.
    pub outcome: Result<(), String>,
}

/// Plays the world of a seed; `tell`: write the story down.
pub fn play(seed: u64, tell: bool) -> Played {
    let random = Random::new(seed);
    let setup = Setup::drawn(&random);
    play_in(setup, random, tell)
}

/// Plays a world: first with faults, then until everything has settled.
pub fn play_in(setup: Setup, random: Random, tell: bool) -> Played {
    // The backoff of kube's watches draws from this one.
    fastrand::seed(random.next());
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = World::new(setup, random, tell);
        let outcome = tokio::select! {
            biased;
            why = world.violation() => Err(why),
            outcome = story(&world) => outcome,
        };
        Played { figures: world.figures(), story: world.story(), outcome }
    })
}

async fn story(world: &Arc<World>) -> Result<(), String> {
    workload::begin(world);
    let mut life = tokio::task::JoinSet::new();
    life.spawn(workload::live(world.clone()));
    life.spawn(workload::keep_budgets(world.clone()));
    for machine in &world.machines {
        world.booted(machine);
        machine.set_engine(world.setup.all_ask);
        life.spawn(machine::live(world.clone(), machine.clone()));
    }
    for index in 0..world.controllers.len() {
        life.spawn(operator::controller(world.clone(), index));
    }
    let trouble = async { tokio::join!(trouble::events(world.clone()), trouble::people(world.clone())) };
    tokio::select! {
        biased;
        () = sleep(world.setup.faulty_for) => {}
        _ = trouble => sleep(world.setup.faulty_for).await,
    }
    trouble::heal(world);
    settle::settled(world).await
}
