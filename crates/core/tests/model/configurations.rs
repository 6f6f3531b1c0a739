//! The worlds that are searched.

use super::state::Faults;
use super::world::World;

/// A world with a name.
pub(crate) struct Configuration {
    pub(crate) name: &'static str,
    pub(crate) controllers: usize,
    pub(crate) nodes: usize,
    pub(crate) quota: usize,
    pub(crate) faults: Faults,
    /// Whether every state is played to its end.
    pub(crate) ends: bool,
}

const NONE: Faults = Faults { crashes: 0, acts: 0, stale: 0, late: 0, hours: 0, pods: 0, refusals: 0 };

/// What is searched in every test run.
pub(crate) const SMALL: [Configuration; 5] = [
    Configuration {
        name: "one node, a crash and an act",
        controllers: 1,
        nodes: 1,
        quota: 1,
        faults: Faults { crashes: 1, acts: 1, ..NONE },
        ends: true,
    },
    Configuration {
        name: "one node, and a late write",
        controllers: 1,
        nodes: 1,
        quota: 1,
        faults: Faults { crashes: 1, acts: 1, late: 1, ..NONE },
        ends: false,
    },
    Configuration {
        name: "one node, and an old view",
        controllers: 1,
        nodes: 1,
        quota: 1,
        faults: Faults { crashes: 1, acts: 1, stale: 1, ..NONE },
        ends: false,
    },
    Configuration {
        name: "two nodes, two controllers, a crash",
        controllers: 2,
        nodes: 2,
        quota: 1,
        faults: Faults { crashes: 1, ..NONE },
        ends: true,
    },
    Configuration {
        name: "a pod, an hour, a refusal and a late write",
        controllers: 1,
        nodes: 1,
        quota: 1,
        faults: Faults { crashes: 1, late: 1, hours: 1, pods: 1, refusals: 1, ..NONE },
        ends: true,
    },
];

impl Configuration {
    pub(crate) fn world(&self) -> World {
        let world = World::new(self.controllers, self.nodes, self.quota, self.faults);
        World { checks_ends: self.ends, ..world }
    }
}
