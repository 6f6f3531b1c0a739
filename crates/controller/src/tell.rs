//! What the controller tells people through Events on the Node.

use reboot_core::ledger::Withdrawal;
use reboot_core::node::NodeView;
use reboot_core::reason::WaitReason;
use reboot_core::step::NoteReason;
use reboot_runtime::events::{EventNote, Events, node_reference};

/// Publishes the controller's Events.
#[derive(Clone, Debug)]
pub(crate) struct Teller(Events);

impl Teller {
    /// Publishes through this handle.
    pub(crate) fn new(events: Events) -> Self {
        Self(events)
    }

    pub(crate) fn withdrew(&self, node: &NodeView, why: Withdrawal) {
        let warning = why == Withdrawal::NotPickedUp;
        self.say(node, warning, NoteReason::GrantWithdrawn, format!("Withdrew the grant: {why}"));
    }

    pub(crate) fn waits(&self, node: &NodeView, reason: &WaitReason) {
        let warning = reason.needs_attention();
        self.say(node, warning, NoteReason::RebootWaiting, format!("{}: {reason}", reason.code()));
    }

    fn say(&self, node: &NodeView, warning: bool, reason: NoteReason, note: String) {
        let object = node_reference(&node.name, &node.uid);
        self.0.publish(EventNote { object, warning, reason: reason.code(), action: "Reboot", note });
    }
}
