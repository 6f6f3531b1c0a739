//! What people are told in Events.

/// What is told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Whether a person should look.
    pub warning: bool,
    /// What it is about.
    pub reason: NoteReason,
    /// A sentence.
    pub text: String,
}

/// What an Event on a Node is about, whichever side says it. Those of one moment are told in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoteReason {
    /// Pods are deleted whatever their budgets say.
    DeletedPastBudget,
    /// Pods are evicted whose emptyDir goes with them.
    EvictedEmptyDir,
    /// Pods are evicted that nobody starts anew.
    EvictedUnmanaged,
    /// Pods that end have less time for it than they were promised.
    GraceShortened,
    /// No pod has gone for long.
    DrainBlocked,
    /// A drain has begun.
    Draining,
    /// Something else rebooted the machine.
    FoundRebooted,
    /// A cycle ended without a reboot.
    GaveBack,
    /// A cycle ended with one.
    Rebooted,
    /// The point of no return is passed.
    Rebooting,
    /// `reboot-in-progress` or the cordon was put back.
    Restored,
    /// By the controller: why a node waits.
    RebootWaiting,
    /// By the controller: a grant that was not taken up is taken back.
    GrantWithdrawn,
    /// At the agent's start: logind would refuse, or cannot be asked.
    CannotReboot,
    /// At the agent's start: another reboot manager runs.
    OtherRebootManager,
}

impl NoteReason {
    /// Every reason.
    pub const ALL: [Self; 15] = [
        Self::DeletedPastBudget,
        Self::EvictedEmptyDir,
        Self::EvictedUnmanaged,
        Self::GraceShortened,
        Self::DrainBlocked,
        Self::Draining,
        Self::FoundRebooted,
        Self::GaveBack,
        Self::Rebooted,
        Self::Rebooting,
        Self::Restored,
        Self::RebootWaiting,
        Self::GrantWithdrawn,
        Self::CannotReboot,
        Self::OtherRebootManager,
    ];

    /// The reason as one CamelCase word.
    pub fn code(self) -> &'static str {
        match self {
            Self::DeletedPastBudget => "DeletedPastBudget",
            Self::EvictedEmptyDir => "EvictedEmptyDir",
            Self::EvictedUnmanaged => "EvictedUnmanaged",
            Self::GraceShortened => "GraceShortened",
            Self::DrainBlocked => "DrainBlocked",
            Self::Draining => "Draining",
            Self::FoundRebooted => "FoundRebooted",
            Self::GaveBack => "GaveBack",
            Self::Rebooted => "Rebooted",
            Self::Rebooting => "Rebooting",
            Self::Restored => "Restored",
            Self::RebootWaiting => "RebootWaiting",
            Self::GrantWithdrawn => "GrantWithdrawn",
            Self::CannotReboot => "CannotReboot",
            Self::OtherRebootManager => "OtherRebootManager",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_the_word_that_it_is_called_by() {
        assert!(NoteReason::ALL.is_sorted());
        for reason in NoteReason::ALL {
            assert_eq!(reason.code(), format!("{reason:?}"));
        }
    }
}
