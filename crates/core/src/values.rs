//! What stands under the annotation keys: typed, with an explicit malformed state (S7).

use std::fmt;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ids::{BootId, GrantId};
use crate::reason::{EndReason, WaitReason};

/// The version of this protocol. Agents say which one they speak; only this one is granted.
pub const PROTOCOL: u32 = 1;

/// The value of one annotation as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<T> {
    /// Not there, or a value that is defined to mean the same.
    Absent,
    /// There, and not what the protocol allows; says why. Neither permission nor absence.
    Malformed(String),
    /// There, and well-formed.
    Set(T),
}

impl<T> Field<T> {
    /// The value, where there is one.
    pub fn get(&self) -> Option<&T> {
        match self {
            Self::Set(value) => Some(value),
            Self::Absent | Self::Malformed(_) => None,
        }
    }

    /// Whether nothing is there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    /// Why the value is malformed, if it is.
    pub fn malformed(&self) -> Option<&str> {
        match self {
            Self::Malformed(why) => Some(why),
            Self::Absent | Self::Set(_) => None,
        }
    }
}

/// Reads a value that is written as one JSON object.
pub(crate) fn read_json<T: DeserializeOwned>(text: Option<&str>) -> Field<T> {
    match text {
        None => Field::Absent,
        Some(text) => match serde_json::from_str(text) {
            Ok(value) => Field::Set(value),
            Err(error) => {
                Field::Malformed(format!("{} is not valid here: {}", shorten(text), printable(&error.to_string())))
            }
        },
    }
}

/// Text of foreign origin in a form that fits an annotation and a log line: without control characters, and bounded
/// (a refusal in dbus-daemon's words takes some 400 characters).
///
/// A value that is copied into another one must be bounded, or else the API server refuses the Node's annotations as too
/// many, and with them every write that would end the cycle.
pub fn printable(text: &str) -> String {
    const LONGEST: usize = 512;
    text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A quoted value, cut to a length that fits into a message.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}

macro_rules! display_as_json {
    ($($type:ty),+) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
            }
        }
    )+};
}
display_as_json!(Request, InProgress, Waiting, LastReboot);

/// Who asks for a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// update_engine has installed an update that a reboot activates.
    UpdateEngine,
    /// A person annotated the Node.
    Person,
}

/// `reboot-request`: the agent's answer to an ask. It proves that an agent works, and under which boot it saw the ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The protocol that the agent speaks.
    pub protocol: u32,
    /// The boot under which the request is made; another boot has fulfilled it.
    #[serde(rename = "bootID")]
    pub boot: BootId,
    /// The operating system version that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Since when the node asks; the order of grants goes by it.
    pub since: Timestamp,
    /// All who ask.
    pub sources: Vec<Source>,
    /// How many cycles in a row were given back; it sizes `not_before`.
    #[serde(default)]
    pub attempts: u32,
    /// No grant before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
}

/// A request as the controller reads it: the protocol number is looked at before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The agent speaks this protocol.
    Compatible(Request),
    /// The agent speaks another one, whose fields are not for us to read.
    Incompatible(u32),
}

impl Answer {
    /// Reads `reboot-request`.
    pub fn read(text: Option<&str>) -> Field<Self> {
        #[derive(Deserialize)]
        struct Head {
            protocol: u32,
        }
        match read_json::<Head>(text) {
            Field::Set(Head { protocol: PROTOCOL }) => match read_json(text) {
                Field::Set(request) => Field::Set(Self::Compatible(request)),
                Field::Malformed(why) => Field::Malformed(why),
                Field::Absent => Field::Absent,
            },
            Field::Set(Head { protocol }) => Field::Set(Self::Incompatible(protocol)),
            Field::Malformed(why) => Field::Malformed(why),
            Field::Absent => Field::Absent,
        }
    }

    /// The request, when it is of this protocol.
    pub fn compatible(&self) -> Option<&Request> {
        match self {
            Self::Compatible(request) => Some(request),
            Self::Incompatible(_) => None,
        }
    }
}

/// `reboot`: the permission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// From the controller, within the quota.
    Granted(GrantId),
    /// `now`, from a person: without the quota, and with the drain.
    Now,
}

impl Permission {
    /// Reads `reboot`. Empty and `false` are the same as absent; only exactly `now` forces.
    pub fn read(text: Option<&str>) -> Field<Self> {
        match text {
            None | Some("" | "false") => Field::Absent,
            Some("now") => Field::Set(Self::Now),
            Some(text) => match text.parse::<GrantId>() {
                Ok(id) if !id.is_forced() => Field::Set(Self::Granted(id)),
                _ => Field::Malformed(format!("{} is neither a grant id nor `now`", shorten(text))),
            },
        }
    }
}

/// Where a cycle stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Cordoned; pods are being evicted. The cycle can still be given back.
    Draining,
    /// The point of no return is passed: logind has been or will be called.
    Rebooting,
}

/// `reboot-in-progress`: the agent acts on a permission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InProgress {
    /// Where the cycle stands.
    pub phase: Phase,
    /// The cycle.
    pub id: GrantId,
    /// When the cycle began.
    pub since: Timestamp,
    /// How long it has been draining, over all runs of the agent, so that a clock step moves no deadline.
    #[serde(default)]
    pub spent_seconds: u64,
    /// The operating system version before the reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Whether the agent placed the cordon; it decides only where the API server does not know the cordon's owner.
    pub cordoned: bool,
    /// Which run of the agent wrote this. What another run wrote last may still be on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// `reboot-waiting`: why a node that asks has no grant yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// The typed reason.
    pub reason: String,
    /// Since when it waits for this reason.
    pub since: Timestamp,
    /// The node that stands in the way, where one does so by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocker: Option<String>,
    /// A time before which nothing happens, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Until when a grant that a person removed is not given again, whatever the node waits for meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_until: Option<Timestamp>,
    /// The boot that the removed grant was for: a reboot ends that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_boot: Option<BootId>,
    /// The grant that no agent took up, kept until one answers: an agent under another boot finds that the ask is
    /// fulfilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapsed: Option<GrantId>,
    /// For people: what would release it.
    pub message: String,
}

impl Waiting {
    /// The value for this reason, which has held since then.
    pub fn new(reason: &WaitReason, since: Timestamp) -> Self {
        Self {
            reason: reason.code().to_owned(),
            since,
            blocker: reason.blocker().map(str::to_owned),
            until: reason.until(),
            held_until: if let WaitReason::GrantRemoved { until } = reason { Some(*until) } else { None },
            held_boot: None,
            lapsed: None,
            message: reason.to_string(),
        }
    }

    /// Whether the value already says this reason; if so it is left alone, whatever details have changed.
    pub fn says(&self, reason: &WaitReason) -> bool {
        self.reason == reason.code() && self.blocker.as_deref() == reason.blocker() && self.until == reason.until()
    }
}

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The boot ID changed under the cycle.
    Rebooted,
    /// The cycle ended before the reboot; the node serves as before.
    GaveBack,
    /// Something else rebooted the machine while it waited.
    FoundRebooted,
}

/// `last-reboot`: how the latest cycle ended; history for people, evidence for the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastReboot {
    /// The cycle, or the grant that lapsed before; none where there was neither.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<GrantId>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why it ended so.
    pub reason: EndReason,
    /// Details in words, such as logind's own error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// When it ended.
    pub at: Timestamp,
    /// How long the cycle took, in seconds: where it ended with a reboot, from its beginning by the wall clock; where it was
    /// given back, since the drain began, over all runs of the agent; else 0.
    pub seconds: u64,
    /// How much of that was before the point of no return, in seconds.
    #[serde(default)]
    pub drain_seconds: u64,
    /// Why the node asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The operating system version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_before: Option<String>,
    /// The operating system version after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_after: Option<String>,
    /// How often in a row a reboot for update_engine left the version as it was.
    #[serde(default)]
    pub same_version: u32,
}

/// Reads an annotation whose value is words: empty and `true` count as words, `false` is the same as absent.
pub(crate) fn read_words(text: Option<&str>) -> Option<String> {
    text.filter(|text| *text != "false").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_is_quoted_is_cut_to_60_characters() {
        assert_eq!(shorten("\"x\""), r#""\"x\"""#);
        assert_eq!(shorten(&"é".repeat(60)), format!("\"{}\"", "é".repeat(60)));
        assert_eq!(shorten(&"é".repeat(61)), format!("\"{}\"...", "é".repeat(60)));
    }
}
