//! Makes a lost ledger good: takes in every grant that stands, makes every one that may be under way stale, and only then
//! completes the ledger at the version that was read before all that.
//!
//! With thousands of nodes that ask this is a long row of writes. It is done some at a time, so that the loop looks whether
//! it may go on; and a write that fails is tried again, not the whole row. A Node that refuses to be made stale is given a
//! slot, for an earlier grant may still reach it, and is settled like any other later.

use reboot_core::Now;
use reboot_core::ledger::{self, Ledger, LedgerState, Lost, Slot, Version};
use reboot_core::node::NodeView;
use reboot_core::plan::Memory;
use reboot_runtime::call::CallError;
use tracing::{info, warn};

use crate::apply::{Applied, Executor};

/// How many Nodes are made stale before the loop looks around again.
const AT_ONCE: usize = 50;

/// A ledger that is being made good.
pub(crate) struct Rebuild {
    /// The version of the lost ledger. Whoever completes it first changes that.
    version: Version,
    /// The cycles that are taken in.
    slots: Vec<Slot>,
    /// The Nodes that ask and are yet to be made stale.
    asking: Vec<NodeView>,
}

impl Executor {
    /// Goes on with the rebuild, or begins it.
    pub(crate) async fn rebuild_some(&mut self, memory: &mut Memory, now: Now) -> Result<Applied, CallError> {
        let Some(version) = self.lost_version().await? else {
            self.rebuild = None;
            return Ok(Applied::Changed);
        };
        let mut rebuild = match self.rebuild.take().filter(|begun| begun.version == version) {
            Some(begun) => begun,
            None => self.begin(version, now).await?,
        };
        let complete = self.go_on(&mut rebuild, memory, now).await;
        if !matches!(complete, Ok(true)) {
            self.rebuild = Some(rebuild);
        }
        complete.map(|_| Applied::Changed)
    }

    /// Makes some Nodes stale; where none is left, completes the ledger and returns true.
    async fn go_on(&mut self, rebuild: &mut Rebuild, memory: &mut Memory, now: Now) -> Result<bool, CallError> {
        for _ in 0..AT_ONCE {
            self.liveness.turned();
            let Some(node) = rebuild.asking.last() else {
                self.write(&Ledger::complete(rebuild.version.clone(), rebuild.slots.clone())).await?;
                info!(slots = rebuild.slots.len(), "rebuilt the ledger of slots");
                return Ok(true);
            };
            let slot = self.take_in_or_fence(node.clone(), memory, now).await?;
            rebuild.slots.extend(slot);
            rebuild.asking.pop();
        }
        Ok(false)
    }

    /// The version of the lost ledger, read afresh; created where there is none. `None`: it is lost no more.
    async fn lost_version(&mut self) -> Result<Option<Version>, CallError> {
        self.slots.forget();
        let state = match self.slots.state().await? {
            LedgerState::Lost(Lost { version: None, .. }) => self.slots.create().await?,
            state => state,
        };
        Ok(match state {
            LedgerState::Lost(lost) => lost.version.clone(),
            LedgerState::Known(_) => None,
        })
    }

    async fn begin(&mut self, version: Version, now: Now) -> Result<Rebuild, CallError> {
        if let LedgerState::Lost(lost) = self.slots.state().await? {
            warn!("rebuilding the ledger of slots: {}", lost.why);
        }
        let (mut slots, mut asking) = (Vec::new(), Vec::new());
        for node in self.nodes.list(&self.liveness).await? {
            match ledger::taken_in(&node, now) {
                Some(slot) => slots.push(slot),
                None if asks(&node) => asking.push(node),
                None => {}
            }
        }
        Ok(Rebuild { version, slots, asking })
    }

    /// Reads and decides again for as long as the Node changes under it: each time because somebody else got on.
    async fn take_in_or_fence(
        &mut self,
        mut node: NodeView,
        memory: &mut Memory,
        now: Now,
    ) -> Result<Option<Slot>, CallError> {
        loop {
            let slot = ledger::taken_in(&node, now);
            if slot.is_some() || !asks(&node) {
                return Ok(slot);
            }
            match self.fence(&node, None, memory, now).await {
                Ok(true) | Err(CallError::Gone(_)) => return Ok(None),
                Ok(false) => return Ok(Some(ledger::reserved(&node, now))),
                Err(CallError::Conflict(_)) => match self.nodes.read(&node.name).await? {
                    Some(fresh) => node = fresh,
                    None => return Ok(None),
                },
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether a grant that is under way could be meant for it.
fn asks(node: &NodeView) -> bool {
    node.needed.is_some() || !node.permission.is_absent()
}
