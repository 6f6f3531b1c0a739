//! Why a node waits for its grant, and how a cycle ended: in annotations, Events, metrics and logs under the same names.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Why a node that asks for a reboot has no grant yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// A person has paused the node.
    Paused {
        /// The person's words.
        why: String,
    },
    /// The node selector of the controller leaves the node out.
    NotSelected,
    /// No agent has answered the ask.
    NoAgent,
    /// The agent speaks another protocol.
    AgentIncompatible {
        /// The protocol that it speaks.
        protocol: u32,
    },
    /// An annotation is not what the protocol allows.
    Malformed {
        /// The annotation.
        key: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// kubelet does not report the boot under which the request was made.
    BootIdMismatch,
    /// The latest cycle failed, or its update did not take; the next one is put off.
    BackingOff {
        /// How the latest cycle ended, in words.
        why: String,
        /// No grant before this time.
        until: Timestamp,
    },
    /// A person took the permission away; it is not given again at once.
    GrantRemoved {
        /// No grant before this time.
        until: Timestamp,
    },
    /// The quota is zero.
    QuotaZero,
    /// The quota of unavailable nodes is used up.
    QuotaUsed {
        /// How many slots there are.
        limit: usize,
        /// The node that uses it up without getting on, and how, where one does.
        blocker: Option<(String, String)>,
    },
    /// Another control-plane node is out of service.
    ControlPlane {
        /// That node, and how.
        blocker: (String, String),
        /// Whether it does not get on by itself: it does not reboot, or has for long.
        is_stuck: bool,
    },
    /// The API server refuses what the controller writes to this Node.
    WriteRefused,
    /// The ledger holds as many slots as an object can.
    SlotsCapped,
    /// The ledger of slots is missing or malformed and is being rebuilt.
    LedgerLost {
        /// What is wrong with it.
        why: String,
    },
}

impl WaitReason {
    /// Every code, for the metric that counts waiting nodes by reason.
    pub const CODES: [&'static str; 14] = [
        "Paused",
        "NotSelected",
        "NoAgent",
        "AgentIncompatible",
        "Malformed",
        "BootIdMismatch",
        "BackingOff",
        "GrantRemoved",
        "QuotaZero",
        "QuotaUsed",
        "ControlPlane",
        "WriteRefused",
        "SlotsCapped",
        "LedgerLost",
    ];

    /// The reason as one CamelCase word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "Paused",
            Self::NotSelected => "NotSelected",
            Self::NoAgent => "NoAgent",
            Self::AgentIncompatible { .. } => "AgentIncompatible",
            Self::Malformed { .. } => "Malformed",
            Self::BootIdMismatch => "BootIdMismatch",
            Self::BackingOff { .. } => "BackingOff",
            Self::GrantRemoved { .. } => "GrantRemoved",
            Self::QuotaZero => "QuotaZero",
            Self::QuotaUsed { .. } => "QuotaUsed",
            Self::ControlPlane { .. } => "ControlPlane",
            Self::WriteRefused => "WriteRefused",
            Self::SlotsCapped => "SlotsCapped",
            Self::LedgerLost { .. } => "LedgerLost",
        }
    }

    /// The node that stands in the way, where one does.
    pub fn blocker(&self) -> Option<&str> {
        match self {
            Self::QuotaUsed { blocker: Some((node, _)), .. } | Self::ControlPlane { blocker: (node, _), .. } => {
                Some(node)
            }
            _ => None,
        }
    }

    /// The time before which nothing happens, where there is one.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::BackingOff { until, .. } | Self::GrantRemoved { until } => Some(*until),
            _ => None,
        }
    }

    /// Whether a person should look: what holds the node back may not pass by itself, and nobody chose that it should.
    pub fn needs_attention(&self) -> bool {
        match self {
            Self::NoAgent
            | Self::AgentIncompatible { .. }
            | Self::Malformed { .. }
            | Self::WriteRefused
            | Self::SlotsCapped
            | Self::LedgerLost { .. } => true,
            Self::QuotaUsed { blocker, .. } => blocker.is_some(),
            Self::ControlPlane { is_stuck, .. } => *is_stuck,
            Self::Paused { .. }
            | Self::NotSelected
            | Self::BootIdMismatch
            | Self::BackingOff { .. }
            | Self::GrantRemoved { .. }
            | Self::QuotaZero => false,
        }
    }
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { why } if why.is_empty() || why == "true" => {
                write!(f, "paused; remove reboot-paused to go on")
            }
            Self::Paused { why } => write!(f, "paused ({why}); remove reboot-paused to go on"),
            Self::NotSelected => write!(f, "the controller's --node-selector leaves this node out"),
            Self::NoAgent => write!(f, "no reboot-agent has answered; is its pod running on this node?"),
            Self::AgentIncompatible { protocol } => {
                write!(f, "the node's agent speaks protocol {protocol}, this controller {}", crate::values::PROTOCOL)
            }
            Self::Malformed { key, why } => write!(f, "annotation {key} is malformed: {why}; correct or remove it"),
            Self::BootIdMismatch => write!(f, "waiting until kubelet reports the boot ID that the agent sees"),
            Self::BackingOff { why, until } => write!(f, "{why}; the next attempt is not made before {until}"),
            Self::GrantRemoved { until } => write!(f, "the permission was removed by hand; not before {until}"),
            Self::QuotaZero => write!(f, "--max-unavailable is 0"),
            Self::QuotaUsed { limit, blocker: None } => write!(f, "the quota of {limit} is used; its turn will come"),
            Self::QuotaUsed { limit, blocker: Some((node, state)) } => {
                write!(f, "the quota of {limit} is used: {node} {state}")
            }
            Self::ControlPlane { blocker: (node, state), .. } => {
                write!(f, "control-plane nodes go one at a time: {node} {state}")
            }
            Self::WriteRefused => write!(f, "the API server refuses the controller's writes to this Node"),
            Self::SlotsCapped => write!(f, "the ledger is full: {} slots", crate::ledger::MOST_SLOTS),
            Self::LedgerLost { why } => write!(f, "the ledger of slots is being rebuilt: {why}"),
        }
    }
}

/// Why a cycle ended as it did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The boot ID changed and the node is Ready again.
    Rebooted,
    /// The machine was rebooted by something else than this cycle.
    RebootedByOther,
    /// A person paused the node.
    Paused,
    /// `reboot` was removed or replaced.
    GrantRemoved,
    /// `reboot-in-progress` was removed by somebody else.
    ProgressRemoved,
    /// Nobody asks for the reboot any more.
    NotNeeded,
    /// Somebody uncordoned the node.
    UncordonedByOther,
    /// A `PodDisruptionBudget` would not let the drain end, so it was not begun.
    BlockedByBudget,
    /// A pod that the settings keep would not let the drain end, so it was not begun.
    BlockedByPod,
    /// The drain did not end in time.
    DrainTimedOut,
    /// A lock blocks shutdowns (found before the drain, too), or logind refused the reboot or did not answer in time.
    RebootRefused,
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::Rebooted,
        Self::RebootedByOther,
        Self::Paused,
        Self::GrantRemoved,
        Self::ProgressRemoved,
        Self::NotNeeded,
        Self::UncordonedByOther,
        Self::BlockedByBudget,
        Self::BlockedByPod,
        Self::DrainTimedOut,
        Self::RebootRefused,
    ];

    /// The reason as one CamelCase word.
    pub fn code(self) -> &'static str {
        match self {
            Self::Rebooted => "Rebooted",
            Self::RebootedByOther => "RebootedByOther",
            Self::Paused => "Paused",
            Self::GrantRemoved => "GrantRemoved",
            Self::ProgressRemoved => "ProgressRemoved",
            Self::NotNeeded => "NotNeeded",
            Self::UncordonedByOther => "UncordonedByOther",
            Self::BlockedByBudget => "BlockedByBudget",
            Self::BlockedByPod => "BlockedByPod",
            Self::DrainTimedOut => "DrainTimedOut",
            Self::RebootRefused => "RebootRefused",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rebooted => "the node rebooted",
            Self::RebootedByOther => "the machine was rebooted by something else",
            Self::Paused => "the node was paused",
            Self::GrantRemoved => "the permission was removed",
            Self::ProgressRemoved => "reboot-in-progress was removed by hand",
            Self::NotNeeded => "nobody asks for the reboot any more",
            Self::UncordonedByOther => "somebody uncordoned the node",
            Self::BlockedByBudget => "a PodDisruptionBudget would not let the drain end",
            Self::BlockedByPod => "a pod that the settings keep would not let the drain end",
            Self::DrainTimedOut => "the drain did not end in time",
            Self::RebootRefused => "logind would not reboot the machine",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `attention`: whether a person should look.
    #[track_caller]
    fn check(reason: &WaitReason, attention: bool, words: &str) {
        assert_eq!(reason.to_string(), words);
        assert!(WaitReason::CODES.contains(&reason.code()), "{reason:?}");
        assert_eq!(reason.needs_attention(), attention, "{reason:?}");
    }

    #[test]
    fn every_wait_says_what_would_end_it() {
        let (until, why) = ("2026-01-01T12:00:00Z".parse().unwrap(), || "why".to_owned());
        let paused = |why: &str| WaitReason::Paused { why: why.into() };
        for none in ["", "true"] {
            check(&paused(none), false, "paused; remove reboot-paused to go on");
        }
        check(&paused("why"), false, "paused (why); remove reboot-paused to go on");
        check(&WaitReason::NotSelected, false, "the controller's --node-selector leaves this node out");
        check(&WaitReason::NoAgent, true, "no reboot-agent has answered; is its pod running on this node?");
        let incompatible = WaitReason::AgentIncompatible { protocol: 2 };
        check(&incompatible, true, "the node's agent speaks protocol 2, this controller 1");
        let malformed = WaitReason::Malformed { key: "key", why: why() };
        check(&malformed, true, "annotation key is malformed: why; correct or remove it");
        check(&WaitReason::BootIdMismatch, false, "waiting until kubelet reports the boot ID that the agent sees");
        let backing_off = WaitReason::BackingOff { why: why(), until };
        check(&backing_off, false, "why; the next attempt is not made before 2026-01-01T12:00:00Z");
        let removed = WaitReason::GrantRemoved { until };
        check(&removed, false, "the permission was removed by hand; not before 2026-01-01T12:00:00Z");
        check(&WaitReason::QuotaZero, false, "--max-unavailable is 0");
        let used = |blocker| WaitReason::QuotaUsed { limit: 3, blocker };
        check(&used(None), false, "the quota of 3 is used; its turn will come");
        let blocker = Some(("n1".to_owned(), "is not Ready".to_owned()));
        check(&used(blocker), true, "the quota of 3 is used: n1 is not Ready");
        for is_stuck in [true, false] {
            let blocker = ("cp-2".to_owned(), "is not Ready".to_owned());
            let beside = WaitReason::ControlPlane { blocker, is_stuck };
            check(&beside, is_stuck, "control-plane nodes go one at a time: cp-2 is not Ready");
        }
        check(&WaitReason::WriteRefused, true, "the API server refuses the controller's writes to this Node");
        check(&WaitReason::SlotsCapped, true, "the ledger is full: 2000 slots");
        check(&WaitReason::LedgerLost { why: why() }, true, "the ledger of slots is being rebuilt: why");
    }

    #[test]
    fn every_end_has_words_of_its_own() {
        let words: std::collections::BTreeSet<String> = EndReason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(words.len(), EndReason::ALL.len());
    }
}
