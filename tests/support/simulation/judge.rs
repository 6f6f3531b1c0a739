//! Every change and every call to logind goes past [`Audit`], and into the story.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node};
use reboot_core::annotations::PREFIX;
use reboot_core::audit::{Actor, Audit, Fault, Violation};
use reboot_core::drain::PodView;
use reboot_core::ids::BootId;
use reboot_core::ledger::{Ledger, LedgerState};
use reboot_core::node::NodeView;

use super::setup::Setup;

/// Judges a simulation while it runs.
pub struct Judge {
    audit: Audit,
    nodes: BTreeMap<String, Node>,
    /// A grant that a person took away may be given again where the trace of it is lost: a second controller can
    /// write over it, and where clocks differ the pause is over too early.
    pub traces_last: bool,
    /// The promises that were broken.
    pub broken: Vec<Violation>,
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

    /// A Node was written or (`None`) deleted; returns what changed, in words.
    pub fn node_changed(&mut self, actor: Actor, name: &str, node: Option<Node>, mono: Duration) -> String {
        let view = node.as_ref().map(NodeView::from);
        let found = self.audit.node_changed(actor, name, view.as_ref(), mono);
        self.hold_against(found);
        let before = self.nodes.remove(name).unwrap_or_default();
        let Some(node) = node else { return "deleted".to_owned() };
        let words = difference(&before, &node);
        self.nodes.insert(name.to_owned(), node);
        words
    }

    /// The ledger was written or (`None`) deleted; returns what is in it, in words.
    pub fn ledger_changed(&mut self, actor: Actor, map: Option<&ConfigMap>) -> String {
        let state = LedgerState::read(map);
        let found = self.audit.ledger_changed(actor, &state);
        self.hold_against(found);
        match &state {
            LedgerState::Known(ledger) => slots(ledger),
            LedgerState::Lost(lost) => format!("lost: {}", lost.why),
        }
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

fn difference(before: &Node, after: &Node) -> String {
    let (old, new) = (NodeView::from(before), NodeView::from(after));
    let none = BTreeMap::new();
    let old_notes = before.metadata.annotations.as_ref().unwrap_or(&none);
    let new_notes = after.metadata.annotations.as_ref().unwrap_or(&none);
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
