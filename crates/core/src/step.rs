//! The agent's brain: the one next thing to do for its own node.
//!
//! [`step`] is called after every change of what the agent knows; whatever it returns is carried out, and then it is
//! called again. Nothing lives on the stack in between, so a restart at any point goes on where the Node says.

mod ask;
mod cycle;
mod drain;
mod evictions;
mod finish;
mod memory;
mod note;
mod preflight;
mod told;
mod volumes;
mod watches;

pub use evictions::{Evict, EvictReply, Means, Under};
pub use memory::{LogindReply, Memory};
pub use note::{Note, NoteReason};
pub use watches::{Watches, watches};

use std::time::Duration;

use crate::annotations::{self as key, NodePatch};
use crate::drain::{Attachments, Budgets, PodView, Rules};
use crate::ids::BootId;
use crate::node::NodeView;
use crate::values::Field;
use crate::{Now, earlier};

/// What the agent was told to do.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// What happens when it takes longer.
    pub on_drain_timeout: OnDrainTimeout,
    /// What happens when, before it begins, a drain could not end as things stand, or the reboot not follow.
    pub on_drain_blocked: OnDrainBlocked,
    /// No ask is answered earlier than this after the boot: update_engine marks the booted partition as good 45 s after
    /// its start, and a reboot before that spends one of the partition's boot tries.
    pub min_uptime: Duration,
    /// How a drain treats pods.
    pub drain: Rules,
}

/// What happens when a drain does not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrainTimeout {
    /// Uncordon and hand the slot back; the other nodes go first.
    GiveUp,
    /// Reboot with the pods that are left.
    Reboot,
}

/// What happens when a drain, before it begins, could not end as things stand, or a lock blocks the reboot after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDrainBlocked {
    /// Hand the slot back, without a cordon; the other nodes go first.
    GiveUp,
    /// Drain all the same.
    Drain,
}

/// What update_engine says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// It has not been heard: the bus is away, or nobody owns the name. Neither an ask nor the end of one.
    Unheard,
    /// An update waits for a reboot; the new version, where it is known.
    NeedsReboot(Option<String>),
    /// It does anything else.
    Otherwise,
}

/// Whether somebody holds a lock that blocks shutdowns, on which logind refuses a reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShutdownLock {
    /// logind was not asked, or has not answered yet.
    Unknown,
    /// Nobody does, or logind does not say.
    Free,
    /// Somebody does; these words name the holder.
    Held(String),
}

/// What the agent knows of its host.
#[derive(Clone, Debug)]
pub struct HostView {
    /// The running boot; `None` while it cannot be read.
    pub boot: Option<BootId>,
    /// The running operating system version.
    pub os_version: Option<String>,
    /// Time since the boot.
    pub uptime: Duration,
    /// What update_engine says.
    pub engine: Engine,
    /// The pods of the node; `None` until they have been listed.
    pub pods: Option<Vec<PodView>>,
    /// Every `PodDisruptionBudget`, from a watch.
    pub budgets: Budgets,
    /// The volumes that are attached to the node, from a watch.
    pub attachments: Attachments,
    /// Whether a lock blocks shutdowns; asked where [`Watches::lock`] wants it.
    pub lock: ShutdownLock,
    /// Another reboot manager that is active on this machine.
    pub other_manager: Option<String>,
}

/// What is not watched, but asked for where a decision needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fresh {
    /// logind's `PreparingForShutdown`; `None`: it does not answer.
    pub preparing_for_shutdown: Option<bool>,
}

/// Everything that a decision rests on.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// The agent's own Node.
    pub node: &'a NodeView,
    /// The machine.
    pub host: &'a HostView,
    /// What this process has done so far.
    pub memory: &'a Memory,
    /// The settings.
    pub policy: &'a Policy,
    /// What [`Action::Refresh`] brought; update_engine and the pods of `host` are of the same moment then. `None`: all
    /// that is known is from watches.
    pub fresh: Option<Fresh>,
    /// The time.
    pub now: Now,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing until something changes.
    Wait,
    /// Write to the Node at the resourceVersion of the view; then say the note, if there is one.
    Write(NodePatch, Option<Note>),
    /// Post these evictions, all at once.
    Evict(Vec<Evict>),
    /// Ask update_engine and logind, list the pods, and decide again on that. The Node is read as well where the point of
    /// no return is passed ([`Memory::is_committed`]). Before that it need not be: what is decided about it is a write at
    /// the resourceVersion of the view, which fails where that is not the newest.
    Refresh,
    /// Call logind.
    Reboot,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What to do.
    pub action: Action,
    /// One sentence for `reboot-status`; `None`: there is nothing to say.
    pub status: Option<String>,
    /// After how long time alone changes the decision.
    pub wake: Option<Duration>,
    /// What is told to people when the action has been carried out.
    pub notes: Vec<Note>,
}

impl Step {
    fn new(action: Action) -> Self {
        Self { action, status: None, wake: None, notes: Vec::new() }
    }

    fn wait(status: impl Into<String>) -> Self {
        Self { status: Some(status.into()), ..Self::new(Action::Wait) }
    }

    fn wake_in(mut self, delay: Duration) -> Self {
        self.wake = earlier(self.wake, Some(delay));
        self
    }
}

/// Decides. Total: every situation has a step.
pub fn step(s: &Situation<'_>) -> Step {
    with_status(decide(s), s)
}

fn decide(s: &Situation<'_>) -> Step {
    let Some(boot) = s.host.boot else {
        return Step::wait("Stopped: this machine's boot ID cannot be read, so no reboot could be told from none");
    };
    match &s.node.in_progress {
        Field::Malformed(why) => {
            Step::wait(format!("Stopped: annotation {} is malformed: {why}; remove it to go on", key::IN_PROGRESS))
        }
        Field::Set(progress) if progress.id.boot == boot => cycle::go_on(s, progress),
        Field::Set(progress) => finish::rebooted(s, progress, boot),
        Field::Absent => match s.memory.cycle(s.node) {
            Some(lost) if lost.id.boot == boot => cycle::progress_removed(s, lost, boot),
            _ => ask::idle(s, boot),
        },
    }
}

/// The least time between two writes that only tell people something.
const STATUS_INTERVAL: Duration = Duration::from_secs(10);

/// Brings `reboot-status` along: in the same patch where one is written anyway, else by itself but seldom.
fn with_status(mut step: Step, s: &Situation<'_>) -> Step {
    if let (None, Some(other)) = (&step.status, &s.host.other_manager) {
        step.status = Some(format!("Warning: {other} is active and reboots this node by its own rules; switch it off"));
    }
    let save_in = cycle::save_in(s);
    let differs = step.status != s.node.status || save_in.is_some_and(|left| left.is_zero());
    let say = |patch: NodePatch| match &step.status {
        Some(text) => patch.set(key::STATUS, text),
        None => patch.remove(key::STATUS),
    };
    match step.action {
        Action::Write(patch, note) if differs => step.action = Action::Write(say(patch), note),
        Action::Wait if differs => match STATUS_INTERVAL.saturating_sub(s.memory.since_last_write(s.now)) {
            Duration::ZERO => {
                let note = step.notes.pop().filter(|_| step.status != s.node.status);
                step.action = Action::Write(say(cycle::with_spent(NodePatch::default(), s)), note);
            }
            left => step = step.wake_in(left),
        },
        Action::Wait => {
            if let Some(left) = save_in {
                step = step.wake_in(left);
            }
        }
        _ => {}
    }
    step
}

#[cfg(test)]
mod tests;
