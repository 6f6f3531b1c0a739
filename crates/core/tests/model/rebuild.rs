//! How a controller makes a lost ledger good, one call to the outside at a time.

use std::sync::Arc;

use reboot_core::audit::Actor;
use reboot_core::ledger::{self, Ledger};

use super::api::Refused;
use super::controller::Done;
use super::mutation::Mutation as M;
use super::state::{Seen, State, Work, Write};
use super::world::{World, version};

/// Creates the ConfigMap, empty, which reads as lost.
pub(super) fn create(state: &mut State) -> Result<Done, Refused> {
    if state.map.map.is_some() {
        return Err(Refused::Conflict);
    }
    state.create_map();
    let version = version(&state.map.state).ok_or(Refused::Gone)?;
    Ok(Done { work: Work::List(version), read: true })
}

/// All Nodes at one moment.
pub(super) fn list(state: &State, version: ledger::Version) -> Done {
    let listed = (0..state.hosts.len()).filter_map(|host| Some((host, Arc::clone(state.node(host)?))));
    Done::then(Work::TakeIn(Ledger::complete(version, Vec::new()), listed.collect()))
}

impl World {
    /// One Node after the other is taken in or fenced; the ledger is complete when none is left.
    pub(super) fn take_in(&self, state: &mut State, ledger: Ledger, mut left: Vec<(usize, Arc<Seen>)>) -> Done {
        let Some((host, seen)) = left.pop() else { return Done::then(Work::of(Write::Ledger(ledger, None))) };
        let progress = !seen.view.in_progress.is_absent();
        let granted = !progress && !seen.view.permission.is_absent();
        if (progress && self.is(M::RebuildWithoutProgress)) || (granted && self.is(M::RebuildWithoutGrants)) {
            return Done::then(Work::TakeIn(ledger, left));
        }
        if let Some(slot) = ledger::taken_in(&seen.view, state.now()) {
            return Done::then(Work::TakeIn(ledger.with(slot), left));
        }
        let asks = seen.view.needed.is_some() || !seen.view.permission.is_absent();
        if asks && !self.is(M::RebuildWithoutFence) {
            let patch = self.fence(state, &seen.view);
            if let Err(Refused::Conflict) = self.send(state, Actor::Controller, host, &seen, &patch) {
                // It is read, and decided on again.
                left.extend(state.node(host).map(|seen| (host, Arc::clone(seen))));
            }
        }
        Done::then(Work::TakeIn(ledger, left))
    }
}
