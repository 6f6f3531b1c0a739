//! The slots and what has proven, since each was taken, that its cycle is over.

use std::collections::{BTreeMap, BTreeSet};

use super::{Actor, Fault, Violation};
use crate::ids::{GrantId, Serial};
use crate::ledger::{Ledger, LedgerState, Slot};
use crate::node::NodeView;
use crate::values::Permission;

/// The slots in the ledger.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    /// By node; `None` while the ledger is lost.
    held: Option<BTreeMap<String, Held>>,
    /// Every cycle that was ever seen in progress.
    in_progress: BTreeSet<GrantId>,
}

#[derive(Clone, Debug)]
struct Held {
    slot: Slot,
    over: bool,
}

impl Slots {
    /// Whether the node holds a slot under this id, or one that was taken in under no id. While the ledger is lost,
    /// nobody can say no.
    pub(super) fn holds(&self, node: &str, id: GrantId) -> bool {
        let is_for = |held: &Held| held.slot.id.is_none_or(|slot| slot == id);
        self.held.as_ref().is_none_or(|held| held.get(node).is_some_and(is_for))
    }

    /// Whether the ledger is there.
    pub(super) fn are_known(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the end of the cycle of this node's slot is proven.
    pub(super) fn is_over(&self, node: &str) -> Option<bool> {
        self.held.as_ref()?.get(node).map(|held| held.over)
    }

    /// Every cycle that was ever seen in progress.
    pub(super) fn cycles(&self) -> impl Iterator<Item = GrantId> {
        self.in_progress.iter().copied()
    }

    pub(super) fn node_changed(
        &mut self,
        actor: Actor,
        name: &str,
        before: Option<&NodeView>,
        after: Option<&NodeView>,
    ) {
        self.in_progress.extend(after.and_then(|node| node.in_progress.get()).map(|progress| progress.id));
        let Some(held) = self.held.as_mut().and_then(|held| held.get_mut(name)) else { return };
        let fenced = match (before, after) {
            (Some(before), Some(after)) => {
                let still =
                    matches!(after.permission.get(), Some(Permission::Granted(id)) if Some(*id) == held.slot.id);
                // Its agent's cordon says that it has begun, whatever else is gone.
                let same_boot = held.slot.id.is_none_or(|id| Some(id.boot) == before.boot);
                let begun = !before.in_progress.is_absent() || (same_boot && before.cordon_is_ours());
                actor == Actor::Controller && before.fence != after.fence && !begun && !still
            }
            _ => false,
        };
        held.over |= fenced || proves_the_end(&held.slot, after);
    }

    pub(super) fn ledger_changed(
        &mut self,
        actor: Actor,
        ledger: &LedgerState,
        limit: usize,
        under_way: &[&str],
        nodes: &BTreeMap<&str, &NodeView>,
    ) -> Vec<Violation> {
        let LedgerState::Known(ledger) = ledger else {
            self.held = None;
            return Vec::new();
        };
        let violations = match &self.held {
            _ if actor != Actor::Controller => Vec::new(),
            Some(held) => {
                let freed = held.values().filter(|held| !self.may_become(held, ledger.slot(&held.slot.node)));
                let freed = freed.map(|held| violation(&held.slot.node, Fault::SlotFreedWithoutEvidence));
                freed.chain(self.above_limit(held, ledger, limit)).collect()
            }
            None => {
                let left_out = under_way.iter().filter(|name| ledger.slot(name).is_none());
                left_out.map(|name| violation(name, Fault::CycleLeftOut)).collect()
            }
        };
        let mut before = self.held.take().unwrap_or_default();
        let held = ledger.slots().iter().map(|slot| {
            let same = before.remove(&slot.node).filter(|held| held.slot == *slot);
            let over = proves_the_end(slot, nodes.get(slot.node.as_str()).copied());
            (slot.node.clone(), same.unwrap_or(Held { slot: slot.clone(), over }))
        });
        self.held = Some(held.collect());
        violations
    }

    /// The slots taken for grants above the limit. A cycle that has begun, and may have ended since its Node was read, only
    /// gets the slot that it must have.
    fn above_limit(&self, before: &BTreeMap<String, Held>, ledger: &Ledger, limit: usize) -> Option<Violation> {
        let begun = |slot: &Slot| slot.id.is_some_and(|id| self.in_progress.contains(&id));
        let is_grant = |slot: &&Slot| matches!(slot.id, Some(GrantId { serial: Serial::Granted(_), .. }));
        let new = ledger.slots().iter().filter(|slot| !before.contains_key(&slot.node));
        let slots = ledger.slots().len();
        let granted = new.filter(is_grant).find(|slot| !begun(slot) && slots > limit)?;
        Some(violation(&granted.node, Fault::SlotAboveLimit { slots, limit }))
    }

    /// Whether a slot may be followed by this one, or by none. Once it is over, anything may follow.
    fn may_become(&self, held: &Held, next: Option<&Slot>) -> bool {
        let same_or_adopted = |next: &Slot| {
            let same = next.id == held.slot.id || next.id.is_some_and(|id| self.in_progress.contains(&id));
            next.uid == held.slot.uid && same
        };
        held.over || next.is_some_and(same_or_adopted)
    }
}

/// What shows without doubt that the cycle of a slot is over.
fn proves_the_end(slot: &Slot, node: Option<&NodeView>) -> bool {
    let Some(node) = node.filter(|node| node.uid == slot.uid) else { return true };
    let reported = slot.id.is_some() && node.last_reboot.get().and_then(|last| last.id) == slot.id;
    let rebooted = matches!((slot.id, node.boot), (Some(id), Some(boot)) if id.boot != boot);
    let nothing_left = node.permission.is_absent() && node.in_progress.is_absent();
    reported || (rebooted && node.ready && nothing_left)
}

fn violation(node: &str, fault: Fault) -> Violation {
    Violation { node: node.to_owned(), fault }
}
