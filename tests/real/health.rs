//! How the operator's processes are: whether they are still the same, what they hold, what they have written.

use std::collections::BTreeMap;

use crate::stage::Stage;

/// More than this a process does not grow in an outage, however long: there is nothing to remember.
const GROWTH: u64 = 2 << 20;
/// How many requests a process may send in half a minute in which all are refused: it tries again after 0.5, 1, 2, …
/// seconds, and so does each of its watches.
pub(crate) const FEW_REQUESTS: usize = 60;
/// Fewer lines than this a process writes in an outage.
const LINES: usize = 200;

/// The operator's processes, by node and program.
#[derive(Debug)]
pub(crate) struct Health(BTreeMap<(String, &'static str), Process>);

#[derive(Debug)]
struct Process {
    pids: Vec<u32>,
    memory: u64,
    lines: usize,
}

impl Stage {
    /// Looks at every process of the operator: on its machine, since the API server may be away.
    pub(crate) fn health(&self) -> Health {
        let mut processes = BTreeMap::new();
        for node in self.cluster.nodes() {
            for program in ["reboot-agent", "reboot-controller"] {
                let pids = node.processes(program).unwrap();
                if !pids.is_empty() {
                    let (memory, lines) = (node.memory_of(program).unwrap(), node.log_lines(program).unwrap());
                    processes.insert((node.name().to_owned(), program), Process { pids, memory, lines });
                }
            }
        }
        Health(processes)
    }
}

impl Health {
    /// Fails unless every process has lived through the time since `before` (a container that is started again has another
    /// process), has hardly grown, and has kept to few words.
    pub(crate) fn as_good_as(&self, before: &Self) {
        assert!(self.0.keys().eq(before.0.keys()), "{self:?}, before: {before:?}");
        for ((node, program), now) in &self.0 {
            let before = &before.0[&(node.clone(), *program)];
            let (grown, lines) = (now.memory.saturating_sub(before.memory), now.lines.saturating_sub(before.lines));
            println!(
                "{program} on {node}: {} KiB, {} KiB before; {lines} lines",
                now.memory >> 10,
                before.memory >> 10
            );
            assert_eq!(now.pids, before.pids, "{program} on {node} was started again");
            assert!(grown <= GROWTH, "{program} on {node} has grown by {grown} bytes");
            assert!(lines < LINES, "{program} on {node} wrote {lines} lines");
        }
    }
}
