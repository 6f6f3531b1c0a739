//! Ways to break the protocol, one for each sentence of it that closes a hole.
//!
//! Each changes what goes into the functions of the crate, what comes out of them, or what is done with it. A model that
//! holds although the code is wrong would prove nothing.

use super::state::Faults;
use super::world::World;

macro_rules! mutations {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What is wrong on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Mutation {
            $($(#[$doc])* $name,)+
        }

        impl Mutation {
            /// All of them.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)+];
        }
    };
}

mutations! {
    /// The controller grants without a slot in the ledger.
    SkipLedger,
    /// The controller writes the Node first and the ledger second.
    NodeBeforeLedger,
    /// The controller counts the nodes that its cache shows as unavailable, instead of the slots.
    CountInsteadOfLedger,
    /// The controller replaces the ledger whatever its resourceVersion is.
    LedgerWithoutVersion,
    /// The controller writes the grant whatever the Node's resourceVersion is.
    GrantWithoutVersion,
    /// The controller grants to nodes whose agent has not answered.
    GrantUnanswered,
    /// The controller grants to nodes that are paused.
    GrantPaused,
    /// The controller takes a malformed permission for none.
    GrantOverMalformed,
    /// The controller writes a grant that did not arrive once more, under the same id.
    WriteIdTwice,
    /// The controller judges a slot by a cached view of its Node.
    FreeOnCachedRead,
    /// The controller frees a slot when both annotations are missing.
    FreeOnMissingAnnotations,
    /// The controller frees a slot of a node that is Ready whatever its boot ID is.
    FreeWithoutNewBoot,
    /// The controller frees a slot of a node under another boot ID that is not Ready yet.
    FreeBeforeReady,
    /// The controller frees a slot when it was held for too long.
    FreeAfterDeadline,
    /// The controller withdraws from a node in progress.
    WithdrawInProgress,
    /// The controller frees the slot first and fences the Node second.
    FreeBeforeFence,
    /// The controller withdraws by a write that changes nothing where the grant did not arrive.
    FenceChangesNothing,
    /// The controller uses the same fence twice.
    FenceRepeated,
    /// The controller withdraws whatever the Node's resourceVersion is.
    FenceWithoutVersion,
    /// The controller grants again at once what a person has removed.
    ForgetRemoval,
    /// The controller takes a lost ledger for an empty one.
    LostIsEmpty,
    /// The controller takes a restored backup of the ledger for the ledger.
    BackupIsLedger,
    /// A rebuilt ledger leaves grants out that were not taken up yet.
    RebuildWithoutGrants,
    /// A rebuilt ledger leaves out what is in progress.
    RebuildWithoutProgress,
    /// The controller rebuilds the ledger without a fence on those who ask.
    RebuildWithoutFence,
    /// The agent begins whatever the Node's resourceVersion is.
    StartWithoutVersion,
    /// The agent takes up a grant of an earlier boot.
    StartOnSpentGrant,
    /// The agent takes a malformed permission for `now`.
    MalformedIsNow,
    /// The agent begins on a paused node, and goes on there.
    IgnorePause,
    /// The agent goes on when its permission was removed.
    IgnoreWithdrawal,
    /// The agent goes on when the node was uncordoned.
    IgnoreUncordon,
    /// The agent passes the point of no return whatever the Node's resourceVersion is.
    CommitWithoutVersion,
    /// The agent calls logind before the write that is the point of no return.
    CallBeforeCommit,
    /// The agent calls logind although that write failed.
    CallAfterFailedCommit,
    /// The agent calls logind without a list of the pods.
    CallWithoutPods,
    /// The agent gives back on a pause after it has called logind.
    GiveBackAfterCall,
    /// The agent does not restore `reboot-in-progress` after the point of no return.
    NotRestored,
    /// A restarted agent calls logind past what an earlier run may have written last.
    TrustEarlierRun,
    /// A restarted agent takes a reboot in progress for done.
    ConcludeAfterRestart,
    /// The agent believes Ready before kubelet reports the new boot.
    BelieveOldReady,
    /// The agent reports the reboot before the node is Ready.
    ReportBeforeReady,
    /// The agent removes a cordon whoever placed it.
    UncordonForeign,
    /// The agent clears a person's `now` on a pause.
    PauseClearsNow,
}

impl Mutation {
    /// The smallest world in which it shows.
    pub(crate) fn world(self) -> World {
        let usual = Faults { crashes: 1, acts: 1, ..Faults::default() };
        let world = match self {
            Self::CountInsteadOfLedger | Self::LostIsEmpty | Self::BackupIsLedger => World::new(1, 2, 1, usual),
            Self::LedgerWithoutVersion => World::new(2, 2, 1, Faults::default()),
            Self::RebuildWithoutFence => World::new(2, 1, 1, usual),
            Self::FreeOnCachedRead | Self::CallAfterFailedCommit => World::new(1, 1, 1, Faults { stale: 1, ..usual }),
            Self::StartWithoutVersion | Self::CommitWithoutVersion => World::new(1, 1, 1, Faults { late: 1, ..usual }),
            Self::TrustEarlierRun => World::new(1, 1, 1, Faults { late: 1, refusals: 1, ..usual }),
            Self::FreeAfterDeadline => World::new(1, 1, 1, Faults { hours: 1, ..usual }),
            Self::CallWithoutPods => World::new(1, 1, 1, Faults { pods: 1, ..usual }),
            Self::PauseClearsNow => World::new(1, 1, 1, Faults { acts: 2, ..usual }),
            _ => World::new(1, 1, 1, usual),
        };
        World { mutation: Some(self), ..world }
    }
}

impl World {
    pub(crate) fn is(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}
