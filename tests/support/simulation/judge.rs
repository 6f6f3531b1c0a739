//! Every change and every call to logind goes past [`Audit`], and into the story.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use reboot_core::annotations::PREFIX;
use reboot_core::audit::{Actor, Audit, Fault, Violation};
use reboot_core::drain::PodView;
use reboot_core::ids::BootId;
use reboot_core::ledger::{Ledger, LedgerState};
use reboot_core::node::NodeView;
use reboot_core::values::LastReboot;

use super::setup::Setup;

/// Judges a simulation while it runs.
pub struct Judge {
    audit: Audit,
    nodes: BTreeMap<String, Arc<Seen>>,
    /// A grant that a person took away may be given again where the trace of it is lost: a second controller can
    /// write over it, and where clocks differ the pause is over too early.
    pub traces_last: bool,
    /// The promises that were broken.
    pub broken: Vec<Violation>,
}

/// A Node as it was seen last.
#[derive(Debug)]
pub struct Seen {
    view: NodeView,
    annotations: BTreeMap<String, String>,
}

/// What a change came to; it prints itself where the story is told.
#[derive(Debug)]
pub enum Turn {
    /// A Node was written or (`None`) deleted.
    Node(Option<Arc<Seen>>, Option<Arc<Seen>>),
    /// This is in the ledger now.
    Ledger(LedgerState),
    /// Something else was deleted.
    Gone,
    /// Something else was written.
    Written,
}

impl Judge {
    /// A judge of a world without nodes.
    pub fn of(setup: &Setup) -> Self {
        let policy = setup.controller.policy();
        Self {
            audit: Audit::new(policy.quota, policy.selector),
            nodes: BTreeMap::new(),
            traces_last: setup.replicas == 1,
            broken: Vec::new(),
        }
    }

    fn hold_against(&mut self, found: Vec<Violation>) {
        let counts = |violation: &Violation| self.traces_last || violation.fault != Fault::GrantRenewed;
        self.broken.extend(found.into_iter().filter(counts));
    }

    /// A Node was written or (`None`) deleted.
    pub fn node_changed(&mut self, actor: Actor, name: &str, node: Option<Node>, mono: Duration) -> Turn {
        let seen = node.map(|node| Arc::new(Seen::from(node)));
        let found = self.audit.node_changed(actor, name, seen.as_ref().map(|seen| &seen.view), mono);
        self.hold_against(found);
        let before = match &seen {
            Some(seen) => self.nodes.insert(name.to_owned(), seen.clone()),
            None => self.nodes.remove(name),
        };
        Turn::Node(before, seen)
    }

    /// The ledger was written or (`None`) deleted.
    pub fn ledger_changed(&mut self, actor: Actor, map: Option<&ConfigMap>) -> Turn {
        let state = LedgerState::read(map);
        let found = self.audit.ledger_changed(actor, &state);
        self.hold_against(found);
        Turn::Ledger(state)
    }

    /// The machine of this node runs this boot from now on.
    pub fn booted(&mut self, node: &str, boot: BootId) {
        self.audit.booted(node, boot);
    }

    /// The agent of this node calls logind; `pods` were on it when the agent last listed them.
    pub fn logind_called(&mut self, node: &str, pods: &[PodView], pods_may_be_left: bool) {
        let found = self.audit.logind_called(node, pods, pods_may_be_left);
        self.hold_against(found);
    }
}

impl From<Node> for Seen {
    fn from(node: Node) -> Self {
        Self { view: NodeView::from(&node), annotations: node.metadata.annotations.unwrap_or_default() }
    }
}

impl Turn {
    /// How the latest cycle of a Node ended, where it is this change that tells.
    pub fn ended(&self) -> Option<&LastReboot> {
        let Self::Node(before, Some(after)) = self else { return None };
        let last = after.view.last_reboot.get()?;
        (before.as_ref().and_then(|before| before.view.last_reboot.get()) != Some(last)).then_some(last)
    }
}

impl fmt::Display for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(_, None) => f.write_str("deleted"),
            Self::Node(Some(before), Some(after)) => f.write_str(&difference(before, after)),
            Self::Node(None, Some(after)) => f.write_str(&difference(&Seen::from(Node::default()), after)),
            Self::Ledger(LedgerState::Known(ledger)) => f.write_str(&slots(ledger)),
            Self::Ledger(LedgerState::Lost(lost)) => write!(f, "lost: {}", lost.why),
            Self::Gone => f.write_str("gone"),
            Self::Written => f.write_str("written"),
        }
    }
}

fn slots(ledger: &Ledger) -> String {
    let slot = |slot: &reboot_core::ledger::Slot| {
        let id = slot.id.map_or_else(|| "?".to_owned(), |id| id.to_string());
        format!("{}={}", slot.node, shorten(&id))
    };
    let slots: Vec<String> = ledger.slots().iter().map(slot).collect();
    format!("v{} [{}]", ledger.version.resource_version, slots.join(", "))
}

/// Boot IDs of the simulation differ in their first and their last digits.
pub fn shorten(text: &str) -> String {
    text.replace("-0000-0000-0000-0000000", "-").replace(PREFIX, "")
}

fn difference(before: &Seen, after: &Seen) -> String {
    let (Seen { view: old, annotations: old_notes }, Seen { view: new, annotations: new_notes }) = (before, after);
    let mut words = vec![format!("v{}", new.resource_version)];
    let cordon = if new.unschedulable { format!("cordoned ({:?})", new.cordon_owner) } else { "uncordoned".to_owned() };
    words.extend(((old.unschedulable, old.cordon_owner) != (new.unschedulable, new.cordon_owner)).then_some(cordon));
    let boot = new.boot.map_or_else(|| "no boot".to_owned(), |boot| shorten(&boot.to_string()));
    words.extend((old.boot != new.boot).then_some(boot));
    words.extend((old.ready != new.ready).then(|| format!("ready={}", new.ready)));
    words.extend((old.labels != new.labels).then(|| format!("labels={:?}", new.labels)));
    words.extend((old.uid != new.uid).then(|| format!("uid={}", new.uid)));
    let set = new_notes.iter().filter(|(key, value)| old_notes.get(*key) != Some(value));
    words.extend(set.map(|(key, value)| shorten(&format!("{key}={value}"))));
    let removed = old_notes.keys().filter(|key| !new_notes.contains_key(*key));
    words.extend(removed.map(|key| shorten(&format!("-{key}"))));
    words.join(" ")
}
