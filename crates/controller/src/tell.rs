//! What the controller tells people through Events on the Node.

use reboot_core::ids::GrantId;
use reboot_core::ledger::Withdrawal;
use reboot_core::node::NodeView;
use reboot_core::reason::WaitReason;
use reboot_runtime::events::{EventNote, Events, node_reference};

/// Publishes the controller's Events.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Events);

impl Teller {
    /// Publishes through this handle.
    pub(crate) fn new(events: Events) -> Self {
        Self(events)
    }

    pub(crate) fn granted(&self, node: &NodeView, id: GrantId) {
        self.say(node, false, "RebootGranted", format!("Granted a reboot ({id})"));
    }

    pub(crate) fn withdrew(&self, node: &NodeView, why: Withdrawal) {
        self.say(node, why == Withdrawal::NotPickedUp, "GrantWithdrawn", format!("Withdrew the grant: {why}"));
    }

    pub(crate) fn waits(&self, node: &NodeView, reason: &WaitReason) {
        self.say(node, reason.needs_attention(), "RebootWaiting", format!("{}: {reason}", reason.code()));
    }

    fn say(&self, node: &NodeView, warning: bool, reason: &str, note: String) {
        let object = node_reference(&node.name, &node.uid);
        self.0.publish(EventNote { object, warning, reason: reason.to_owned(), action: "Reboot".to_owned(), note });
    }
}
