//! What kind of world a seed makes.

use std::sync::LazyLock;
use std::time::Duration;

use clap::Parser as _;
use reboot_core::quota::Quota;

use super::faults::Faults;
use super::random::Random;
use super::world::NAMESPACE;

/// The size of a world, its settings, and what goes wrong in it.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Machines.
    pub nodes: usize,
    /// Replicas of the controller.
    pub replicas: usize,
    /// Pods on each node, at most.
    pub pods: usize,
    /// Whether an update waits on every machine from the beginning.
    pub all_ask: bool,
    /// The flags of every agent.
    pub agent: reboot_agent::args::Args,
    /// The flags of the controllers.
    pub controller: reboot_controller::args::Args,
    /// What goes wrong, and how often.
    pub faults: Faults,
    /// For how long things go wrong.
    pub faulty_for: Duration,
}

/// Parsing flags takes a while, and each simulation starts from the same.
static AGENT: LazyLock<reboot_agent::args::Args> =
    LazyLock::new(|| reboot_agent::args::Args::parse_from(["reboot-agent", "--node-name", "none"]));
static CONTROLLER: LazyLock<reboot_controller::args::Args> = LazyLock::new(|| {
    reboot_controller::args::Args::parse_from([
        "reboot-controller",
        "--namespace",
        NAMESPACE,
        "--node-selector",
        "role!=control",
    ])
});

impl Setup {
    /// A small world in which much goes wrong.
    pub fn drawn(random: &Random) -> Self {
        let mut agent = AGENT.clone();
        if random.once_in(2) {
            agent.on_drain_timeout = reboot_agent::args::TimedOut::Reboot;
        }
        let quotas = [Quota::Nodes(1), Quota::Nodes(1), Quota::Nodes(2), Quota::Percent(50), Quota::Percent(100)];
        let controller = reboot_controller::args::Args { max_unavailable: *random.pick(&quotas), ..CONTROLLER.clone() };
        Self {
            nodes: 2 + random.below(3),
            replicas: 1 + random.below(2),
            pods: random.below(5),
            all_ask: false,
            agent,
            controller,
            faults: Faults::drawn(random),
            faulty_for: Duration::from_mins(15),
        }
    }

    /// A fleet in which nothing goes wrong.
    pub fn fleet(nodes: usize, at_once: usize) -> Self {
        let controller = reboot_controller::args::Args { max_unavailable: Quota::Nodes(at_once), ..CONTROLLER.clone() };
        Self {
            nodes,
            replicas: 1,
            pods: 3,
            all_ask: true,
            agent: AGENT.clone(),
            controller,
            faults: Faults::default(),
            faulty_for: Duration::ZERO,
        }
    }
}
