//! The controller's loop around the real [`plan`], made simple: a slot is freed by a write of its own, where the
//! controller's process gives it to the next node in the same write, and a lost ledger is rebuilt in one go.

use std::time::Duration;

use super::world::{Failure, World};
use crate::annotations::NodePatch;
use crate::audit::Actor;
use crate::ledger::{self, Ledger, LedgerState, Slot, Verdict, Withdrawal};
use crate::node::NodeView;
use crate::plan::{Action, ClusterView, Memory, plan};

/// One run of a controller's process.
#[derive(Default)]
pub(super) struct Controller {
    memory: Memory,
    /// How far the watch has come in the history of each node.
    watched: Vec<usize>,
    /// As last read or written; `None`: to be read.
    ledger: Option<LedgerState>,
    /// When it wants to look again by itself.
    pub(super) wake: Option<Duration>,
}

impl Controller {
    /// It becomes the only one, and reads the ledger as whoever is elected does.
    pub(super) fn elected(&mut self) {
        self.ledger = None;
    }

    /// One plan, carried out; whether there was anything to do.
    fn turn(&mut self, world: &mut World) -> Result<bool, Failure> {
        if self.ledger.is_none() || (world.faults && world.random.once_in(4)) {
            world.disturb()?;
            self.ledger = Some(world.read_ledger());
        }
        let nodes = self.watch(world);
        let state = self.ledger.clone().unwrap();
        let view = ClusterView { nodes: &nodes, ledger: &state, home: Some("n0") };
        let now = world.now();
        self.memory.observe(&view, now);
        let plan = plan(&view, &world.plan_policy, &self.memory, now);
        self.wake = plan.wake.map(|delay| world.mono + delay);
        for action in &plan.actions {
            world.disturb()?;
            world.tell(|| format!("the controller does {}", in_words(action)));
            let cached = nodes.iter().find(|node| Some(node.name.as_str()) == action.node());
            match self.act(world, action, cached) {
                // The API server's own no concerns this action; the others go on with the ledger read anew.
                Err(Failure::Conflict | Failure::Gone) => self.ledger = None,
                done => done?,
            }
        }
        Ok(!plan.actions.is_empty())
    }

    fn watch(&mut self, world: &mut World) -> Vec<NodeView> {
        self.watched.resize(world.hosts.len(), 0);
        let mut nodes = Vec::new();
        for host in 0..world.hosts.len() {
            let behind = if world.faults && world.random.once_in(3) { world.random.below(5) } else { 0 };
            let newest = world.hosts[host].history.len() - 1;
            self.watched[host] = self.watched[host].max(newest.saturating_sub(behind));
            nodes.extend(world.hosts[host].history[self.watched[host]].clone());
        }
        nodes
    }

    fn act(&mut self, world: &mut World, action: &Action, cached: Option<&NodeView>) -> Result<(), Failure> {
        match (action, cached) {
            (Action::Rebuild, _) => self.rebuild(world),
            (Action::Settle(slot), _) => self.settle(world, slot),
            (Action::Adopt(name), _) => self.adopt(world, name),
            (Action::Expel(name), _) => self.expel(world, name),
            (Action::Grant(_, limit), Some(node)) => self.grant(world, node, *limit),
            (Action::Explain(_, explanation), Some(node)) => {
                let patch = NodePatch::default();
                let patch = match explanation {
                    Some((_, waiting)) => patch.set(crate::annotations::WAITING, waiting),
                    None => patch.remove(crate::annotations::WAITING),
                };
                write(world, node, &patch).map(drop)
            }
            (Action::Grant(..) | Action::Explain(..), None) => Ok(()),
        }
    }

    /// The ledger, read where it is not known; nothing while it is lost.
    fn known(&mut self, world: &mut World) -> Result<Option<Ledger>, Failure> {
        if self.ledger.is_none() {
            world.disturb()?;
            self.ledger = Some(world.read_ledger());
        }
        Ok(self.ledger.as_ref().and_then(LedgerState::known).cloned())
    }

    fn replace(&mut self, world: &mut World, next: &Ledger) -> Result<(), Failure> {
        world.disturb()?;
        match world.replace_ledger(next) {
            Ok(ledger) => {
                self.ledger = Some(LedgerState::Known(ledger));
                Ok(())
            }
            Err(failure) => {
                self.ledger = None;
                Err(failure)
            }
        }
    }

    fn settle(&mut self, world: &mut World, slot: &Slot) -> Result<(), Failure> {
        let ledger = self.known(world)?.filter(|ledger| ledger.slot(&slot.node) == Some(slot));
        let Some(ledger) = ledger else { return Ok(()) };
        let node = get(world, &slot.node)?;
        let now = world.now();
        let verdict = ledger::judge(slot, node.as_ref(), self.memory.handover(slot, &world.plan_policy, now));
        world.tell(|| format!("the verdict on {}'s slot is {verdict:?}", slot.node));
        if let (Verdict::Withdraw(why), Some(node)) = (verdict, &node) {
            withdraw(world, node, why)?;
        }
        if verdict == Verdict::Keep { Ok(()) } else { self.replace(world, &ledger.without(&slot.node)) }
    }

    fn adopt(&mut self, world: &mut World, name: &str) -> Result<(), Failure> {
        let Some(ledger) = self.known(world)? else { return Ok(()) };
        let node = get(world, name)?;
        match node.and_then(|node| ledger::adoption(&node, ledger.slot(name), world.now())) {
            Some(slot) => self.replace(world, &ledger.with(slot)),
            None => Ok(()),
        }
    }

    /// The ledger is read after the Node: a grant that is on the Node had its slot before.
    fn expel(&mut self, world: &mut World, name: &str) -> Result<(), Failure> {
        let node = get(world, name)?;
        self.ledger = None;
        match (node, self.known(world)?) {
            (Some(node), Some(ledger)) if ledger::is_stray(&node, ledger.slot(name)) => fence(world, &node).map(drop),
            _ => Ok(()),
        }
    }

    fn grant(&mut self, world: &mut World, node: &NodeView, limit: usize) -> Result<(), Failure> {
        let granted = self.known(world)?.and_then(|ledger| ledger.with_grant(node, limit, world.now()));
        let Some((next, id)) = granted else { return Ok(()) };
        self.replace(world, &next)?;
        write(world, node, &ledger::grant_patch(id))?;
        self.memory.wrote_grant(id, world.now());
        Ok(())
    }

    fn rebuild(&mut self, world: &mut World) -> Result<(), Failure> {
        world.create_ledger();
        world.disturb()?;
        self.ledger = None;
        let LedgerState::Lost(lost) = world.read_ledger() else { return Ok(()) };
        let Some(version) = lost.version else { return Ok(()) };
        world.disturb()?;
        let listed: Vec<NodeView> = (0..world.hosts.len()).filter_map(|host| world.view(host).cloned()).collect();
        let mut slots = Vec::new();
        for mut node in listed {
            loop {
                if let Some(slot) = ledger::taken_in(&node, world.now()) {
                    slots.push(slot);
                    break;
                }
                let asks = node.needed.is_some() || node.is_forced();
                if !asks {
                    break;
                }
                match fence(world, &node) {
                    Ok(_) => break,
                    Err(Failure::Conflict) => match get(world, &node.name)? {
                        Some(fresh) => node = fresh,
                        None => break,
                    },
                    Err(failure) => return Err(failure),
                }
            }
        }
        self.replace(world, &Ledger::complete(version, slots))
    }
}

fn get(world: &mut World, name: &str) -> Result<Option<NodeView>, Failure> {
    world.disturb()?;
    Ok(world.index(name).and_then(|host| world.view(host).cloned()))
}

fn write(world: &mut World, seen: &NodeView, patch: &NodePatch) -> Result<NodeView, Failure> {
    world.disturb()?;
    let host = world.index(&seen.name).ok_or(Failure::Gone)?;
    world.patch(Actor::Controller, host, seen, patch)
}

fn fence(world: &mut World, node: &NodeView) -> Result<NodeView, Failure> {
    let fence = world.fresh_fence();
    write(world, node, &ledger::fence_patch(node, &fence))
}

fn withdraw(world: &mut World, node: &NodeView, why: Withdrawal) -> Result<NodeView, Failure> {
    let (fence, now) = (world.fresh_fence(), world.now());
    write(world, node, &ledger::withdraw_patch(node, why, &fence, now))
}

fn in_words(action: &Action) -> String {
    match action {
        Action::Settle(slot) => format!("settle {}", slot.node),
        Action::Explain(name, explanation) => {
            format!("explain {name} {}", explanation.as_ref().map_or("nothing", |(reason, _)| reason.code()))
        }
        other => format!("{other:?}"),
    }
}

impl World {
    /// This controller makes one plan and carries it out; whether there was anything to do.
    pub(super) fn run_controller(&mut self, number: usize) -> bool {
        let Some(mut controller) = self.controllers.get_mut(number).and_then(Option::take) else { return false };
        let done = controller.turn(self);
        if done == Err(Failure::Crash) {
            self.tell(|| format!("controller {number} starts anew"));
            controller = Controller::default();
        }
        self.controllers[number] = Some(controller);
        done != Ok(false)
    }
}
