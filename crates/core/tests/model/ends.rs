//! Every cycle ends: from any state, when the faults stop and all parts are up and take turns.
//!
//! `stateright` has a property for this that is right only where no path joins another. So each state is played to its
//! end instead, which shows the same for every path through it.

use std::sync::Arc;

use reboot_core::annotations as key;
use reboot_core::audit::Actor;
use reboot_core::plan::Action;

use super::agent::Luck;
use super::controller::Sight;
use super::state::{State, Work};
use super::world::World;

/// How many rounds of all parts a state may take to its end.
pub(crate) const ROUNDS: usize = 60;

impl World {
    /// After how many rounds nothing is left to do; or what is left after [`ROUNDS`].
    pub(crate) fn ends(&self, state: &State) -> Result<usize, String> {
        let mut state = state.clone();
        state.heal();
        for round in 0..ROUNDS {
            let moved = self.round(&mut state);
            if let Some(broken) = &state.broken {
                return Err(broken.to_string());
            }
            if moved {
                continue;
            }
            if left_over(&state).is_empty() {
                return Ok(round);
            }
            // All wait for a time.
            state.hours += 1;
        }
        Err(format!("left after {ROUNDS} rounds: {}", left_over(&state).join(", ")))
    }

    /// Every part takes one turn; whether anything was done.
    fn round(&self, state: &mut State) -> bool {
        let mut moved = self.controller_round(state);
        for host in 0..state.hosts.len() {
            moved |= state.machine_goes_on(host);
            if let Some(seen) = state.node(host).cloned() {
                moved |= self.agent_turns(state, host, &seen, Luck::Good);
            }
        }
        moved
    }

    fn controller_round(&self, state: &mut State) -> bool {
        if !matches!(state.controllers[0].work, Work::Plan) {
            return self.controller_turns(state, 0, None);
        }
        let sight = Sight { old: false, long_ago: state.hours > 0 };
        let planned: Option<Action> = self.plans(state, 0, sight).into_iter().next();
        planned.is_some_and(|action| self.controller_turns(state, 0, Some((&action, sight))))
    }
}

impl State {
    /// People put away what only people can put away, one controller is elected, and nothing fails any more.
    fn heal(&mut self) {
        (self.late, self.old) = (None, None);
        self.controllers.truncate(1);
        (self.controllers[0].ledger, self.controllers[0].work) = (None, Work::Plan);
        for host in 0..self.hosts.len() {
            let Some(seen) = self.node(host).map(Arc::clone) else { continue };
            let ours = seen.view.cordon_owner == reboot_core::node::CordonOwner::Agent;
            let malformed: Vec<&str> = seen.view.malformed().map(|(key, _)| key).collect();
            self.change(Actor::Person, host, |node| {
                node.annotations.retain(|key, _| !malformed.contains(&key.as_str()));
                node.annotations.remove(key::PAUSED);
                node.labels.clear();
                node.cordon = node.cordon.take().filter(|_| ours);
            });
        }
    }
}

/// What is not as it must be when all is done.
fn left_over(state: &State) -> Vec<String> {
    let ledger = &state.map.state;
    let mut left: Vec<String> = ledger.slots().iter().map(|slot| format!("{slot} has a slot")).collect();
    left.extend(ledger.known().is_none().then(|| "the ledger is lost".to_owned()));
    for host in &state.hosts {
        let Some(node) = &host.node else {
            left.push(format!("{} has no Node", host.name));
            continue;
        };
        let kept = [key::LAST_REBOOT, key::FENCE, key::WAITING];
        let keys = node.api.annotations.keys().filter(|key| !kept.contains(&key.as_str()));
        left.extend(keys.map(|key| format!("{} has {key}", host.name)));
        left.extend(node.api.cordon.is_some().then(|| format!("{} is cordoned", host.name)));
        left.extend((!node.api.ready).then(|| format!("{} is not Ready", host.name)));
    }
    left
}
