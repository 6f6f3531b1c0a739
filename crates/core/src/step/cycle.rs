//! A cycle of this boot is in progress: drain, pass the point of no return, call logind; or give back.

use std::time::Duration;

use super::drain::{self, Going, Stage};
use super::memory::LogindReply;
use super::{Action, Note, NoteReason, OnDrainTimeout, Situation, Step, ask};
use crate::annotations::{self as key, NodePatch};
use crate::ids::BootId;
use crate::reason::EndReason;
use crate::values::{InProgress, LastReboot, Outcome, Phase};

pub(super) fn go_on(s: &Situation<'_>, progress: &InProgress) -> Step {
    if progress.phase == Phase::Rebooting {
        return call_logind(s, progress);
    }
    if let Some(committed) = s.memory.cycle(s.node).filter(|known| known.phase == Phase::Rebooting) {
        return restore(s, committed);
    }
    match reason_to_stop(s, progress) {
        Some(reason) => give_back(s, progress, reason, None),
        None => drain_on(s, progress),
    }
}

/// `reboot-in-progress` was taken away under a cycle of this process. Before the point of no return that ends the
/// cycle; after it the annotation is restored, because the machine may be going down already.
pub(super) fn progress_removed(s: &Situation<'_>, lost: &InProgress, boot: BootId) -> Step {
    if s.memory.committed_here() {
        return restore(s, lost);
    }
    if s.node.granted().is_some_and(|id| id != lost.id) {
        // That cycle is over for the controller too: this is the next one.
        return ask::idle(s, boot);
    }
    if s.memory.drains_here() {
        give_back(s, lost, EndReason::ProgressRemoved, None)
    } else {
        removed_from_earlier_run(s, lost)
    }
}

/// The same under a cycle of an earlier run of this agent, which may have passed the point of no return and called
/// logind. What this run did not see on the Node, the machine still knows.
pub(super) fn removed_from_earlier_run(s: &Situation<'_>, lost: &InProgress) -> Step {
    let Some(fresh) = s.fresh else { return refresh("Rebooting: looking whether the shutdown is under way") };
    match fresh.preparing_for_shutdown {
        Some(true) => restore(s, &InProgress { phase: Phase::Rebooting, ..lost.clone() }),
        Some(false) => give_back(s, lost, EndReason::ProgressRemoved, None),
        None => ask_logind_again(),
    }
}

/// Nobody knows whether the machine goes down: the cordon and the slot are kept until logind says, however late.
pub(super) fn ask_logind_again() -> Step {
    Step::wait("Waiting: logind does not say whether a shutdown is under way").wake_in(LOGIND_AWAY)
}

fn restore(s: &Situation<'_>, committed: &InProgress) -> Step {
    if let Some((LogindReply::Refused(words), _)) = s.memory.logind_call(s.now) {
        return give_back(s, committed, EndReason::RebootRefused, Some(words.clone()));
    }
    let text = "Restored reboot-in-progress: the reboot cannot be taken back".to_owned();
    let note = Note { warning: true, reason: NoteReason::Restored, text };
    Step::new(Action::Write(set_progress(NodePatch::default(), committed.clone(), s), Some(note)))
}

/// What ends a drain before its time, foreign changes first.
fn reason_to_stop(s: &Situation<'_>, progress: &InProgress) -> Option<EndReason> {
    // A person's `now` over a live grant keeps the cycle going under its own id.
    let permitted = s.node.is_forced() || s.node.granted() == Some(progress.id);
    if s.node.paused.is_some() {
        Some(EndReason::Paused)
    } else if !permitted {
        Some(EndReason::GrantRemoved)
    } else if !s.node.unschedulable {
        Some(EndReason::UncordonedByOther)
    } else if !s.node.is_forced() && ask::asking(s).is_empty() {
        Some(EndReason::NotNeeded)
    } else {
        None
    }
}

fn drain_on(s: &Situation<'_>, progress: &InProgress) -> Step {
    let left = time_left(s);
    let going = match drain::stage(s) {
        Stage::Detaching(volumes, wait) if !left.is_zero() => return detaching(volumes, wait.min(left)),
        // The pods are gone, which is what the timeout is about: no reason to give the drain up.
        Stage::Detaching(volumes, _) => return end(s, progress, &Remaining::Volumes(volumes.unwrap_or_default())),
        Stage::Done(volumes) => return end(s, progress, &Remaining::Volumes(volumes)),
        Stage::NotListed => None,
        Stage::Going(going) => Some(going),
    };
    if left.is_zero() && s.policy.on_drain_timeout == OnDrainTimeout::Reboot {
        return match going {
            Some(going) => end(s, progress, &Remaining::Pods(going.remaining)),
            None => refresh("Draining: timed out; listing the pods that are left"),
        };
    }
    let step = going.map_or_else(|| Step::wait("Draining: listing the pods of this node"), Going::step);
    if left.is_zero() {
        return give_back(s, progress, EndReason::DrainTimedOut, step.status);
    }
    step.wake_in(left)
}

fn detaching(volumes: Option<Vec<String>>, wait: Duration) -> Step {
    let what = match volumes.as_deref() {
        None => "listing the volumes that are attached".to_owned(),
        Some([volume]) => format!("waiting for 1 volume ({volume}) to detach"),
        Some(volumes) => format!("waiting for {} volumes ({}) to detach", volumes.len(), volumes.join(", ")),
    };
    Step::wait(format!("Draining: all pods are gone; {what}")).wake_in(wait)
}

/// What is still there at the end of a drain.
enum Remaining {
    /// These volumes are attached, or none is.
    Volumes(Vec<String>),
    /// These pods are there, and any volumes.
    Pods(Vec<String>),
}

/// How often a logind that does not answer is asked again: a bus that is restarted is back in seconds, and whoever asks
/// lists the pods as well.
const LOGIND_AWAY: Duration = Duration::from_secs(5);

/// The drain is over: the point of no return, on a fresh view. It is not passed while logind does not answer: beyond it
/// only an answer of logind leads back, and the slot would be held for as long as there is none.
fn end(s: &Situation<'_>, progress: &InProgress, remaining: &Remaining) -> Step {
    let Some(fresh) = s.fresh else { return refresh("Draining: done") };
    if fresh.preparing_for_shutdown.is_some() {
        return commit(s, progress, remaining);
    }
    match time_left(s) {
        Duration::ZERO => {
            let why = "logind did not answer before the end of the drain timeout";
            give_back(s, progress, EndReason::RebootRefused, Some(why.to_owned()))
        }
        left => Step::wait("Draining: all pods are gone; logind does not answer").wake_in(LOGIND_AWAY.min(left)),
    }
}

/// What is left of the drain timeout.
fn time_left(s: &Situation<'_>) -> Duration {
    s.policy.drain_timeout.saturating_sub(s.memory.spent(s.now))
}

pub(super) fn refresh(status: &str) -> Step {
    Step { status: Some(status.to_owned()), ..Step::new(Action::Refresh) }
}

/// The point of no return. update_engine, logind and the pods were just asked; the write itself fails where the Node is
/// another one than was seen.
fn commit(s: &Situation<'_>, progress: &InProgress, remaining: &Remaining) -> Step {
    let progress =
        InProgress { phase: Phase::Rebooting, spent_seconds: s.memory.spent(s.now).as_secs(), ..progress.clone() };
    let (seconds, id) = (progress.spent_seconds, progress.id);
    let (warning, text) = match remaining {
        Remaining::Volumes(none) if none.is_empty() => (false, format!("Drained in {seconds}s; rebooting ({id})")),
        Remaining::Volumes(volumes) => {
            (true, format!("Drained in {seconds}s; rebooting ({id}) with volumes attached: {}", volumes.join(", ")))
        }
        Remaining::Pods(pods) => {
            (true, format!("Not drained in {seconds}s; rebooting ({id}) with these pods: {}", pods.join(", ")))
        }
    };
    let patch = set_progress(NodePatch::default(), progress, s);
    let note = Note { warning, reason: NoteReason::Rebooting, text };
    let mut step = Step::new(Action::Write(patch, Some(note)));
    step.status = Some("Rebooting".to_owned());
    step
}

/// While logind holds the reboot for its delay inhibitors, this is how often that is looked at again.
pub(super) const STILL_PREPARING: Duration = Duration::from_secs(10);

/// Past the point of no return: until the boot ID changes, or logind itself says no.
fn call_logind(s: &Situation<'_>, progress: &InProgress) -> Step {
    let call = s.memory.logind_call(s.now);
    let status = match call {
        Some((LogindReply::Refused(words), _)) => {
            return give_back(s, progress, EndReason::RebootRefused, Some(words.clone()));
        }
        Some((LogindReply::NotSent(words), _)) => format!("Rebooting: logind was not reached: {words}"),
        Some((LogindReply::MayHappen, _)) | None => "Rebooting".to_owned(),
    };
    if !s.node.unschedulable {
        return cordon_again(s, progress);
    }
    let due_in = call.map(|(_, due_in)| due_in).unwrap_or_default();
    if !due_in.is_zero() {
        return Step::wait(status).wake_in(due_in);
    }
    let preparing = |left| Step::wait("Rebooting: logind is preparing the shutdown").wake_in(left);
    if let Some(left) = s.memory.still_preparing(s.now) {
        return preparing(left);
    }
    let Some(fresh) = s.fresh else { return refresh(&status) };
    if fresh.preparing_for_shutdown == Some(true) {
        return preparing(STILL_PREPARING);
    }
    let over = time_left(s).is_zero() && s.policy.on_drain_timeout == OnDrainTimeout::Reboot;
    // Nothing leads back any more: giving this drain up can only mean to go on without it.
    let go_on_without = over || s.memory.call_overdue(s.now) >= s.policy.drain_timeout;
    match drain::stage(s) {
        Stage::Going(going) if !go_on_without => going.step().wake_in(STILL_PREPARING),
        Stage::NotListed => Step::wait("Rebooting: listing the pods of this node").wake_in(STILL_PREPARING),
        // An earlier run passed the point of no return. What it wrote last may still be on its way, such as a give-back
        // after logind's refusal: this write makes that stale before logind is called again.
        _ if !s.memory.committed_here() => {
            let patch = set_progress(NodePatch::default(), progress.clone(), s);
            Step { status: Some(status), ..Step::new(Action::Write(patch, None)) }
        }
        Stage::Done(_) | Stage::Detaching(..) | Stage::Going(_) => {
            Step { status: Some(status), ..Step::new(Action::Reboot) }
        }
    }
}

/// Somebody uncordoned the node past the point of no return: what the scheduler puts there would be evicted again and
/// again. The cordon is ours from then on, so that it goes when the cycle ends.
fn cordon_again(s: &Situation<'_>, progress: &InProgress) -> Step {
    let patch = set_progress(NodePatch::default().cordon(), InProgress { cordoned: true, ..progress.clone() }, s);
    let text = "Put the cordon back: the reboot cannot be taken back".to_owned();
    let note = Note { warning: true, reason: NoteReason::Restored, text };
    Step { status: Some("Rebooting".to_owned()), ..Step::new(Action::Write(patch, Some(note))) }
}

/// Ends a cycle without a reboot: our cordon goes, the permission goes, and the request says when to try again.
///
/// A pause is no failure of the cycle: nothing is held back for it, and it never takes a person's `now` away. A
/// malformed permission stays, so that it is reported.
pub(super) fn give_back(s: &Situation<'_>, progress: &InProgress, reason: EndReason, detail: Option<String>) -> Step {
    let paused = reason == EndReason::Paused;
    let sources = ask::asking(s);
    let mut patch = NodePatch::default().remove(key::IN_PROGRESS).uncordon_if(s.node.cordon_is_ours());
    if s.node.permission.get().is_some() && !(paused && s.node.is_forced()) {
        patch = patch.remove(key::REBOOT);
    }
    if sources.is_empty() {
        patch = ask::unasked(s, patch);
    } else if s.node.compatible_request().is_some() || ask::may_answer(s) {
        let answer = ask::wanted_answer(s, progress.id.boot, sources, (!paused).then_some(reason));
        patch = patch.set(key::REQUEST, answer);
    }
    let spent = s.memory.spent(s.now).as_secs();
    let last = LastReboot {
        id: Some(progress.id),
        outcome: Outcome::GaveBack,
        reason,
        detail: detail.clone(),
        at: s.now.wall_seconds(),
        seconds: spent,
        drain_seconds: spent,
        why: s.node.why(),
        os_before: progress.os_version.clone(),
        os_after: None,
        same_version: s.node.last_reboot.get().map_or(0, |last| last.same_version),
    };
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    let text = format!("Gave the reboot back ({}): {reason}{detail}", reason.code());
    let blocked = matches!(reason, EndReason::BlockedByBudget | EndReason::BlockedByPod);
    let warning = blocked || matches!(reason, EndReason::DrainTimedOut | EndReason::RebootRefused);
    let note = Note { warning, reason: NoteReason::GaveBack, text: text.clone() };
    let mut step = Step::new(Action::Write(patch.set(key::LAST_REBOOT, last), Some(note)));
    step.status = Some(text);
    step
}

/// How often the time spent draining is written down where nothing else is written. A restarted agent goes on from what
/// stands there, so that each restart can make a drain longer by no more than this.
const SAVE_INTERVAL: Duration = Duration::from_mins(1);

/// How long until the time spent draining is to be written down; `None` where nothing drains.
pub(super) fn save_in(s: &Situation<'_>) -> Option<Duration> {
    let progress = draining(s)?;
    let saved = Duration::from_secs(progress.spent_seconds);
    Some(saved.saturating_add(SAVE_INTERVAL).saturating_sub(s.memory.spent(s.now)))
}

/// Adds the time spent draining, so that a restarted agent keeps to the same deadline.
pub(super) fn with_spent(patch: NodePatch, s: &Situation<'_>) -> NodePatch {
    match draining(s) {
        Some(progress) => {
            let spent_seconds = s.memory.spent(s.now).as_secs();
            set_progress(patch, InProgress { spent_seconds, ..progress.clone() }, s)
        }
        None => patch,
    }
}

/// Every write of `reboot-in-progress` names the run that made it.
pub(super) fn set_progress(patch: NodePatch, progress: InProgress, s: &Situation<'_>) -> NodePatch {
    patch.set(key::IN_PROGRESS, InProgress { run: Some(s.memory.run()), ..progress })
}

fn draining<'a>(s: &Situation<'a>) -> Option<&'a InProgress> {
    let ours = |progress: &&InProgress| progress.phase == Phase::Draining && Some(progress.id.boot) == s.host.boot;
    s.node.in_progress.get().filter(ours)
}
