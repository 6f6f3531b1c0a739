//! The machine runs another boot than the one that the cycle was to end.

use super::{Action, Note, NoteReason, Situation, Step};
use crate::annotations::{self as key, NodePatch};
use crate::ids::BootId;
use crate::reason::EndReason;
use crate::values::{InProgress, LastReboot, Outcome, Source};

/// Ends the cycle once kubelet has confirmed the new boot: before it has, Ready is the old kubelet's word.
pub(super) fn rebooted(s: &Situation<'_>, progress: &InProgress, boot: BootId) -> Step {
    if s.node.boot != Some(boot) || !s.node.ready {
        return Step::wait("Rebooted: waiting until kubelet reports this boot and the Node is Ready");
    }
    let sources = s.node.compatible_request().map(|request| request.sources.clone()).unwrap_or_default();
    let took = s.now.wall.duration_since(progress.since).as_secs();
    let last = LastReboot {
        id: Some(progress.id),
        outcome: Outcome::Rebooted,
        reason: EndReason::Rebooted,
        detail: None,
        at: s.now.wall_seconds(),
        seconds: u64::try_from(took).unwrap_or(0),
        drain_seconds: progress.spent_seconds,
        why: s.node.why(),
        os_before: progress.os_version.clone(),
        os_after: s.host.os_version.clone(),
        same_version: same_version(s, progress.os_version.as_deref(), &sources),
    };
    let version = match (&last.os_before, &last.os_after) {
        (Some(before), Some(after)) if before != after => format!("; {before} became {after}"),
        (Some(before), Some(_)) if last.same_version > 0 => format!("; the version is {before} as before"),
        _ => String::new(),
    };
    let text = format!("Rebooted in {}s{version}", last.seconds);
    let note = Note { warning: last.same_version > 0, reason: NoteReason::Rebooted, text };
    let patch = cleared(s, NodePatch::default().uncordon_if(s.node.cordon_is_ours()));
    Step::new(Action::Write(patch.remove(key::IN_PROGRESS).set(key::LAST_REBOOT, last), Some(note)))
}

/// Removes what a reboot has fulfilled. A malformed permission stays, so that it is reported.
pub(super) fn cleared(s: &Situation<'_>, patch: NodePatch) -> NodePatch {
    let patch = patch.remove(key::NEEDED).remove(key::REQUEST);
    if s.node.permission.malformed().is_some() { patch } else { patch.remove(key::REBOOT) }
}

/// How often in a row a reboot for update_engine left the version as it was, this one included.
pub(super) fn same_version(s: &Situation<'_>, before: Option<&str>, sources: &[Source]) -> u32 {
    let known = before.is_some() && before == s.host.os_version.as_deref();
    if known && sources.contains(&Source::UpdateEngine) {
        s.node.last_reboot.get().map_or(0, |last| last.same_version).saturating_add(1)
    } else {
        0
    }
}
