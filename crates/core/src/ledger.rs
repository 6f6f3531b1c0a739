//! The ledger of slots: one ConfigMap that holds every reboot that is under way, and the rules by which slots are freed.
//!
//! The slot is written first and the Node second, and every write of the ledger is a replace at its resourceVersion.
//! So no stale cache, no late write and no second controller can bring the slots above the quota (S1).

mod evidence;

pub use evidence::{Evidence, Handover, Verdict, Withdrawal, fence_patch, is_stray, judge, withdraw_patch};

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use crate::Now;
use crate::annotations::{self as key, NodePatch};
use crate::ids::{GrantId, Serial, parse_version};
use crate::node::NodeView;
use crate::values::{Field, PROTOCOL, Permission, printable, shorten};

/// The ConfigMap's name, in the operator's namespace.
pub const NAME: &str = "reboot-slots";
/// The key in the ConfigMap's data.
pub const DATA_KEY: &str = "ledger";
/// The most slots that the ledger takes: an object holds 1 MiB, and a slot needs 410 bytes at most, 253 of them for the
/// node's name.
pub const MOST_SLOTS: usize = 2000;

/// One reboot under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// The node.
    pub node: String,
    /// The UID of the Node; another Node of the same name does not hold this slot.
    pub uid: String,
    /// The cycle; unknown when it was taken in from a malformed annotation, or from a Node that could not be made stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<GrantId>,
    /// Since when.
    pub since: Timestamp,
}

/// The identity and resourceVersion at which the ConfigMap was read; the next write replaces exactly that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// All slots, as read at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Where it was read; writes replace this version.
    pub version: Version,
    slots: Vec<Slot>,
}

/// The ledger as the controller knows it. What is missing or malformed is lost, never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerState {
    /// Read and complete.
    Known(Ledger),
    /// To be rebuilt from the Nodes before anything is granted.
    Lost(Lost),
}

/// What is wrong with the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// In words.
    pub why: String,
    /// The ConfigMap as it stands, if there is one.
    pub version: Option<Version>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    protocol: u32,
    /// The UID of the very ConfigMap that was completed. A copy, a restored backup or a fresh object has another one.
    complete: String,
    slots: Vec<Slot>,
}

impl LedgerState {
    /// Reads the ConfigMap; `None` is "there is none".
    pub fn read(config_map: Option<&ConfigMap>) -> Self {
        let Some(map) = config_map else {
            return Self::Lost(Lost { why: format!("ConfigMap {NAME} does not exist"), version: None });
        };
        let version = Version {
            uid: map.metadata.uid.clone().unwrap_or_default(),
            resource_version: map.metadata.resource_version.clone().unwrap_or_default(),
        };
        match slots_in(map, &version) {
            Ok(slots) => Self::Known(Ledger { version, slots }),
            Err(why) => Self::Lost(Lost { why, version: Some(version) }),
        }
    }

    /// The version of the ConfigMap; `None`: there is none.
    pub fn version(&self) -> Option<&Version> {
        match self {
            Self::Known(ledger) => Some(&ledger.version),
            Self::Lost(lost) => lost.version.as_ref(),
        }
    }

    /// All slots; none while the ledger is lost.
    pub fn slots(&self) -> &[Slot] {
        self.known().map(Ledger::slots).unwrap_or_default()
    }

    /// The ledger, unless it is lost.
    pub fn known(&self) -> Option<&Ledger> {
        match self {
            Self::Known(ledger) => Some(ledger),
            Self::Lost(_) => None,
        }
    }
}

fn slots_in(map: &ConfigMap, version: &Version) -> Result<Vec<Slot>, String> {
    let text = map.data.as_ref().and_then(|data| data.get(DATA_KEY));
    let text = text.ok_or_else(|| format!("ConfigMap {NAME} has no key {DATA_KEY:?}"))?;
    let document: Document = serde_json::from_str(text)
        .map_err(|error| format!("{} is no ledger: {}", shorten(text), printable(&error.to_string())))?;
    if document.protocol != PROTOCOL {
        return Err(format!("the ledger is of protocol {}, this controller speaks {PROTOCOL}", document.protocol));
    }
    if document.complete != version.uid {
        return Err("the ledger was completed as another object, such as a backup of this one".to_owned());
    }
    let mut nodes: Vec<&str> = document.slots.iter().map(|slot| slot.node.as_str()).collect();
    nodes.sort_unstable();
    if nodes.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a node holds two slots".to_owned());
    }
    Ok(document.slots)
}

impl Ledger {
    /// A ledger with these slots that replaces the given version, complete.
    pub fn complete(version: Version, slots: Vec<Slot>) -> Self {
        Self { version, slots }
    }

    /// All slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slot of a node.
    pub fn slot(&self, node: &str) -> Option<&Slot> {
        self.slots.iter().find(|slot| slot.node == node)
    }

    /// The text for the ConfigMap's data.
    pub fn to_data(&self) -> String {
        let document = Document { protocol: PROTOCOL, complete: self.version.uid.clone(), slots: self.slots.clone() };
        // A struct of strings and numbers always serialises; an empty text would read as malformed, hence lost.
        serde_json::to_string(&document).unwrap_or_default()
    }

    /// The ledger with a slot for a grant to this node, and the grant's id; `None` where there is no grant to be had: the
    /// node's boot is unknown, it holds a slot already, or the slots are used up in this very version (S1), which may be
    /// newer than the one that the plan was made on.
    pub fn with_grant(&self, node: &NodeView, limit: usize, now: Now) -> Option<(Self, GrantId)> {
        let serial = Serial::Granted(parse_version(&self.version.resource_version)?);
        let id = GrantId { boot: node.boot?, serial };
        let taken = self.slot(&node.name).is_some() || self.slots.len() >= limit.min(MOST_SLOTS);
        (!taken).then(|| (self.with(slot_for(node, Some(id), now)), id))
    }

    /// The ledger in which the node's slot is this one.
    #[must_use]
    pub fn with(&self, slot: Slot) -> Self {
        let mut next = self.without(&slot.node);
        next.slots.push(slot);
        next
    }

    /// The ledger without the node's slot.
    #[must_use]
    pub fn without(&self, node: &str) -> Self {
        let slots = self.slots.iter().filter(|slot| slot.node != node).cloned().collect();
        Self { version: self.version.clone(), slots }
    }
}

/// The patch that hands a grant to its Node: permission, and no more waiting. The fence keeps the id when somebody
/// removes the permission, so that any controller can tell a grant that was removed from one that never arrived.
pub fn grant_patch(id: GrantId) -> NodePatch {
    NodePatch::default().set(key::REBOOT, id).set(key::FENCE, id).remove(key::WAITING)
}

/// The slot that a node in progress must have, if it has none or one under another id. This is how forced cycles are
/// counted.
pub fn adoption(node: &NodeView, held: Option<&Slot>, now: Now) -> Option<Slot> {
    let held = held.filter(|slot| slot.uid == node.uid);
    match &node.in_progress {
        Field::Set(progress) if held.is_none_or(|slot| slot.id != Some(progress.id)) => {
            Some(slot_for(node, Some(progress.id), now))
        }
        Field::Malformed(_) if held.is_none() => Some(slot_for(node, None, now)),
        _ => None,
    }
}

/// What a rebuilt ledger takes in from one Node, as listed uncached: whoever is granted or in progress, malformed values
/// included. `now` alone needs no slot.
pub fn taken_in(node: &NodeView, now: Now) -> Option<Slot> {
    adoption(node, None, now).or_else(|| match &node.permission {
        Field::Set(Permission::Granted(id)) => Some(slot_for(node, Some(*id), now)),
        Field::Malformed(_) => Some(slot_for(node, None, now)),
        Field::Set(Permission::Now) | Field::Absent => None,
    })
}

/// The slot of a Node that cannot be made stale now, because the API server refuses that: an earlier grant may still reach
/// it. It is settled like any other.
pub fn reserved(node: &NodeView, now: Now) -> Slot {
    slot_for(node, None, now)
}

fn slot_for(node: &NodeView, id: Option<GrantId>, now: Now) -> Slot {
    Slot { node: node.name.clone(), uid: node.uid.clone(), id, since: now.wall_seconds() }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => write!(f, "{} ({id})", self.node),
            None => write!(f, "{} (id unknown)", self.node),
        }
    }
}

#[cfg(test)]
mod tests;
