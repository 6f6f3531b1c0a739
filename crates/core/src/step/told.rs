//! What people are told of a drain in Events, beside its beginning and its end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::drain::SHORT_GRACE;
use super::evictions::Evict;
use super::{Note, NoteReason, Situation};
use crate::drain::{Fate, PodView};

/// What people are told.
#[derive(Default)]
pub(super) struct Told {
    /// The names of pods by what is told of them.
    pods: BTreeMap<NoteReason, Vec<String>>,
    /// What has blocked the drain for long.
    pub(super) blocked: Option<String>,
}

impl Told {
    /// Adds what is to be told of an eviction, unless it is the same one again.
    pub(super) fn add(&mut self, pod: &PodView, fate: Fate, evict: &Evict, s: &Situation<'_>) {
        let (rules, spent) = (&s.policy.drain, s.memory.spent(s.now));
        let past = |after: Option<Duration>| after.is_some_and(|after| spent >= after);
        let is_again = s.memory.evictions().last(&pod.pod.uid) == Some((evict.means, evict.grace));
        let reason = match fate {
            _ if is_again => return,
            _ if past(rules.delete_after) && !pod.is_terminating() => NoteReason::DeletedPastBudget,
            _ if past(rules.shorten_after) && evict.grace == Some(SHORT_GRACE) => NoteReason::GraceShortened,
            Fate::EvictUnmanaged => NoteReason::EvictedUnmanaged,
            Fate::EvictEmptyDir => NoteReason::EvictedEmptyDir,
            _ => return,
        };
        self.pods.entry(reason).or_default().push(pod.pod.to_string());
    }

    /// One note for each thing to tell.
    pub(super) fn notes(self) -> Vec<Note> {
        // What is lost by each of these does not come back.
        let note = |(reason, pods): (NoteReason, Vec<String>)| {
            let what = match reason {
                NoteReason::DeletedPastBudget => "Deleting pods whatever their budgets say, by --drain-delete-after",
                NoteReason::GraceShortened => "Cutting grace periods short, by --drain-shorten-after",
                NoteReason::EvictedUnmanaged => "Evicting pods without a controller, which nobody starts anew",
                _ => "Evicting pods with an emptyDir, whose content goes with them",
            };
            Note { warning: true, reason, text: format!("{what}: {}", pods.join(", ")) }
        };
        let blocked = self.blocked.map(|text| Note { warning: true, reason: NoteReason::DrainBlocked, text });
        self.pods.into_iter().map(note).chain(blocked).collect()
    }
}
