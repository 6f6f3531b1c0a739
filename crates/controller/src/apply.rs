//! Carries out the actions of a plan. Every choice is made by [`reboot_core`], on what is read here.

use reboot_core::Now;
use reboot_core::annotations::{self as key, NodePatch};
use reboot_core::ledger::{self, Evidence, Ledger, Slot, Verdict, Withdrawal};
use reboot_core::node::NodeView;
use reboot_core::plan::{Action, Memory, Policy, WriteOf};
use reboot_core::reason::WaitReason;
use reboot_core::values::Waiting;
use reboot_runtime::call::CallError;
use reboot_runtime::probes::Liveness;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::rebuild::Rebuild;
use crate::slots::{Freed, Slots};
use crate::tell::Teller;

/// What an action came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// Something was written, a slot is free that the next write of the ledger takes along, or the ledger is not as the
    /// plan assumed: plan anew.
    Changed,
    /// There was nothing to do after all, until something changes.
    Nothing,
    /// Somebody else's write came first. What it changed may be nothing that a plan looks at, so that its arrival alone
    /// makes no other plan.
    Overtaken,
}

/// What actions are carried out with.
pub(crate) struct Executor {
    /// The Nodes.
    pub(crate) nodes: Nodes,
    /// The ledger.
    pub(crate) slots: Slots,
    /// The settings.
    pub(crate) policy: Policy,
    /// Who tells people.
    pub(crate) teller: Teller,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Distinguishes this process's fences from every other's.
    pub(crate) identity: String,
    /// Distinguishes the fences of this process.
    pub(crate) fences: u64,
    /// Asked whether the loop turns, which a long row of calls does.
    pub(crate) liveness: Liveness,
    /// The ledger that is being made good.
    pub(crate) rebuild: Option<Rebuild>,
    /// The slots whose grants were withdrawn from the Nodes, or never written there, and that are still in the ledger.
    pub(crate) withdrawn: Vec<Slot>,
}

impl Executor {
    /// Carries out one action that was decided on these views.
    ///
    /// # Errors
    /// The first call that fails. After it the views and the ledger may be stale.
    pub(crate) async fn apply(
        &mut self,
        action: &Action,
        views: &[NodeView],
        memory: &mut Memory,
        now: Now,
    ) -> Result<Applied, CallError> {
        let cached = views.iter().find(|view| Some(view.name.as_str()) == action.node());
        match (action, cached) {
            (Action::Rebuild, _) => self.rebuild_some(memory, now).await,
            (Action::Settle(slot), _) => self.settle(slot, memory, now).await,
            (Action::Adopt(name), _) => self.adopt(name, now).await,
            (Action::Expel(name), _) => self.expel(name, memory, now).await,
            (Action::Grant(_, limit), Some(node)) => self.grant(node, *limit, memory, now).await,
            (Action::Explain(_, explanation), Some(node)) => {
                self.explain(node, explanation.as_ref(), memory, now).await
            }
            (Action::Grant(..) | Action::Explain(..), None) => Ok(Applied::Nothing),
        }
    }

    /// Forgets what was read and begun.
    pub(crate) fn forget(&mut self) {
        self.slots.forget();
        self.rebuild = None;
        self.withdrawn.clear();
    }

    /// Writes the ledger where slots are free that no other write of it has taken along.
    pub(crate) async fn write_back(&mut self) -> Result<(), CallError> {
        match self.slots.unwritten().cloned() {
            Some(ledger) => self.write(&ledger).await,
            None => Ok(()),
        }
    }

    /// Replaces the ledger, and tells people of the slots that are free with that.
    pub(crate) async fn write(&mut self, ledger: &Ledger) -> Result<(), CallError> {
        let freed = self.slots.replace(ledger).await?;
        self.withdrawn.retain(|slot| ledger.slots().contains(slot));
        for Freed { slot, evidence, reported } in freed {
            let why =
                evidence.map_or_else(|| "no agent can begin on its grant".to_owned(), |evidence| evidence.to_string());
            info!(%slot, "freed a slot: {why}");
            if let Some(last) = reported {
                self.metrics.ended(&last);
            }
        }
        Ok(())
    }

    async fn ledger(&mut self) -> Result<Option<Ledger>, CallError> {
        Ok(self.slots.state().await?.known().cloned())
    }

    /// The slot first, the Node second. Where it is not known what became of the second write, the slot is there to be
    /// settled.
    async fn grant(
        &mut self,
        node: &NodeView,
        limit: usize,
        memory: &mut Memory,
        now: Now,
    ) -> Result<Applied, CallError> {
        let Some((ledger, id)) = self.ledger().await?.and_then(|ledger| ledger.with_grant(node, limit, now)) else {
            return Ok(Applied::Nothing);
        };
        self.write(&ledger).await?;
        let patched = self.patch(node, &ledger::grant_patch(id), WriteOf::Permission, memory, now).await;
        if matches!(patched, Ok(None) | Err(CallError::Refused(_)))
            && let (Some(ledger), Some(slot)) = (self.ledger().await?, ledger.slot(&node.name).cloned())
        {
            // The API server's own no: this id stands on no Node, and never will.
            self.withdrawn.push(slot.clone());
            self.slots.free(&ledger, Freed { slot, evidence: None, reported: None });
        }
        if patched?.is_none() {
            return Ok(Applied::Changed);
        }
        memory.wrote_grant(id, now);
        info!(node = node.name, %id, "granted a reboot");
        Ok(Applied::Changed)
    }

    /// Judges a slot by its Node, read after the slot was.
    async fn settle(&mut self, slot: &Slot, memory: &mut Memory, now: Now) -> Result<Applied, CallError> {
        let Some(ledger) = self.ledger().await?.filter(|ledger| ledger.slot(&slot.node) == Some(slot)) else {
            return Ok(Applied::Changed);
        };
        let node = self.nodes.read(&slot.node).await?;
        let mut freed = Freed { slot: slot.clone(), evidence: None, reported: None };
        match ledger::judge(slot, node.as_ref(), memory.handover(slot, &self.policy, now)) {
            Verdict::Keep => return Ok(Applied::Nothing),
            Verdict::Free(evidence) => {
                let last = node.and_then(|node| node.last_reboot.get().cloned());
                freed.reported = last.filter(|_| evidence == Evidence::Reported);
                freed.evidence = Some(evidence);
            }
            // Only the ledger could not be written: every grant for this slot is stale for good, or refused.
            Verdict::Withdraw(_) if self.withdrawn.contains(slot) => {}
            Verdict::Withdraw(why) => {
                let Some(node) = &node else { return Ok(Applied::Nothing) };
                if !self.fence(node, Some(why), memory, now).await? {
                    return Ok(Applied::Changed);
                }
                self.withdrawn.push(slot.clone());
                info!(%slot, "withdrew a grant: {why}");
                self.teller.withdrew(node, why);
            }
        }
        self.slots.free(&ledger, freed);
        Ok(Applied::Changed)
    }

    /// Makes every earlier write to the Node stale; with a reason it withdraws a grant. False: the API server refuses it.
    pub(crate) async fn fence(
        &mut self,
        node: &NodeView,
        why: Option<Withdrawal>,
        memory: &mut Memory,
        now: Now,
    ) -> Result<bool, CallError> {
        self.fences += 1;
        let fence = format!("{}.{}.{}", self.identity, now.wall, self.fences);
        let patch = match why {
            Some(why) => ledger::withdraw_patch(node, why, &fence, now),
            None => ledger::fence_patch(node, &fence),
        };
        let Some(fenced) = self.patch(node, &patch, WriteOf::Permission, memory, now).await? else { return Ok(false) };
        if fenced.resource_version == node.resource_version {
            // A write that changes nothing fences nothing. A fresh value always changes something.
            return Err(CallError::Unknown(format!("fencing {}: its resourceVersion stayed the same", node.name)));
        }
        Ok(true)
    }

    /// Writes to a Node. `None`: the API server refuses that, and the Node is left alone for a while.
    ///
    /// # Errors
    /// Whatever concerns more than this Node, refusals by many included, and what is not the API server's no.
    async fn patch(
        &mut self,
        node: &NodeView,
        patch: &NodePatch,
        write: WriteOf,
        memory: &mut Memory,
        now: Now,
    ) -> Result<Option<NodeView>, CallError> {
        match self.nodes.patch(node, patch).await {
            Ok(written) => {
                memory.was_taken(&node.name);
                Ok(Some(written))
            }
            // A 401 is an answer to this process, whatever it writes.
            Err(CallError::Refused(answer))
                if answer.status.code != 401 && memory.was_refused(&node.name, write, now) =>
            {
                warn!(node = node.name, "{answer}: leaving this Node alone for a while");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn adopt(&mut self, name: &str, now: Now) -> Result<Applied, CallError> {
        let Some(ledger) = self.ledger().await? else { return Ok(Applied::Changed) };
        let node = self.nodes.read(name).await?;
        let Some(slot) = node.and_then(|node| ledger::adoption(&node, ledger.slot(name), now)) else {
            return Ok(Applied::Nothing);
        };
        info!(%slot, "took a cycle into the ledger");
        self.write(&ledger.with(slot)).await?;
        Ok(Applied::Changed)
    }

    /// The Node first and the ledger after it, both afresh: another controller writes the slot before the grant, so a
    /// grant that is seen here and has no slot then has none.
    async fn expel(&mut self, name: &str, memory: &mut Memory, now: Now) -> Result<Applied, CallError> {
        let node = self.nodes.read(name).await?;
        self.slots.forget();
        let Some(ledger) = self.ledger().await? else { return Ok(Applied::Changed) };
        match node {
            Some(node) if ledger::is_stray(&node, ledger.slot(name)) => {
                warn!(node = name, "removing a grant that the ledger knows nothing of");
                self.fence(&node, None, memory, now).await?;
                Ok(Applied::Changed)
            }
            _ => Ok(Applied::Nothing),
        }
    }

    async fn explain(
        &mut self,
        node: &NodeView,
        explanation: Option<&(WaitReason, Waiting)>,
        memory: &mut Memory,
        now: Now,
    ) -> Result<Applied, CallError> {
        let patch = match explanation {
            Some((_, waiting)) => NodePatch::default().set(key::WAITING, waiting),
            None => NodePatch::default().remove(key::WAITING),
        };
        match self.patch(node, &patch, WriteOf::Reason, memory, now).await {
            Ok(None) => Ok(Applied::Changed),
            Ok(Some(_)) => {
                if let Some((reason, _)) = explanation {
                    info!(node = node.name, reason = reason.code(), "waits: {reason}");
                    self.teller.waits(node, reason);
                }
                Ok(Applied::Changed)
            }
            Err(CallError::Conflict(_)) => Ok(Applied::Overtaken),
            Err(CallError::Gone(_)) => Ok(Applied::Nothing),
            Err(error) => Err(error),
        }
    }
}
