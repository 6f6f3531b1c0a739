//! What a person can do to the operator in one go.

use reboot_core::annotations as key;
use reboot_core::audit::Actor;
use reboot_core::ledger::Ledger;

use super::api::Map;
use super::state::State;
use super::world::version;

/// One act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Ask,
    NoLongerAsk,
    Pause,
    EndPause,
    Force,
    RemoveGrant,
    RemoveProgress,
    RemoveRequest,
    RemoveReport,
    RemoveEverything,
    GarbleGrant,
    GarbleProgress,
    GarbleRequest,
    /// Copies the grant of another node.
    CopyGrant,
    Cordon,
    Uncordon,
    Select,
    /// kubelet creates it anew.
    DeleteNode,
    DeleteLedger,
    GarbleLedger,
    /// A backup of the ledger from before all grants.
    RestoreLedger,
}

impl Act {
    /// What can be done to a node.
    pub(crate) const TO_NODES: [Self; 18] = [
        Self::Ask,
        Self::NoLongerAsk,
        Self::Pause,
        Self::EndPause,
        Self::Force,
        Self::RemoveGrant,
        Self::RemoveProgress,
        Self::RemoveRequest,
        Self::RemoveReport,
        Self::RemoveEverything,
        Self::GarbleGrant,
        Self::GarbleProgress,
        Self::GarbleRequest,
        Self::CopyGrant,
        Self::Cordon,
        Self::Uncordon,
        Self::Select,
        Self::DeleteNode,
    ];
    /// What can be done to the ledger.
    pub(crate) const TO_LEDGER: [Self; 3] = [Self::DeleteLedger, Self::GarbleLedger, Self::RestoreLedger];
}

impl State {
    /// A person acts; whether that changed anything.
    pub(crate) fn person_acts(&mut self, act: Act, host: usize) -> bool {
        match act {
            Act::Ask => self.annotate(host, key::NEEDED, Some("kernel")),
            Act::NoLongerAsk => self.annotate(host, key::NEEDED, None),
            Act::Pause => self.annotate(host, key::PAUSED, Some("maintenance")),
            Act::EndPause => self.annotate(host, key::PAUSED, None),
            Act::Force => self.annotate(host, key::REBOOT, Some("now")),
            Act::RemoveGrant => self.annotate(host, key::REBOOT, None),
            Act::RemoveProgress => self.annotate(host, key::IN_PROGRESS, None),
            Act::RemoveRequest => self.annotate(host, key::REQUEST, None),
            Act::RemoveReport => self.annotate(host, key::LAST_REBOOT, None),
            Act::RemoveEverything => self.change(Actor::Person, host, |node| node.annotations.clear()),
            Act::GarbleGrant => self.annotate(host, key::REBOOT, Some("True")),
            Act::GarbleProgress => self.annotate(host, key::IN_PROGRESS, Some("{}")),
            Act::GarbleRequest => self.annotate(host, key::REQUEST, Some("{}")),
            Act::CopyGrant => self.copy_grant(host),
            Act::Cordon => self.change(Actor::Person, host, |node| {
                node.cordon.get_or_insert_with(|| vec!["kubectl-cordon".to_owned()]);
            }),
            Act::Uncordon => self.change(Actor::Person, host, |node| node.cordon = None),
            Act::Select => self.toggle_selection(host),
            Act::DeleteNode => self.delete_node(host),
            Act::DeleteLedger => self.harm_map(|_| None),
            Act::GarbleLedger => self.harm_map(|map| Some(Map { data: Some("{}".to_owned()), ..map })),
            Act::RestoreLedger => self.restore_ledger(),
        }
    }

    pub(crate) fn annotate(&mut self, host: usize, key: &str, value: Option<&str>) -> bool {
        self.change(Actor::Person, host, |node| {
            match value {
                Some(value) => node.annotations.insert(key.to_owned(), value.to_owned()),
                None => node.annotations.remove(key),
            };
        })
    }

    fn copy_grant(&mut self, host: usize) -> bool {
        let grant = |node: &super::api::ApiNode| node.annotations.get(key::REBOOT).cloned();
        let mut others = (0..self.hosts.len()).filter(|other| *other != host);
        let copied = others.find_map(|other| grant(&self.node(other)?.api));
        copied.is_some_and(|grant| self.annotate(host, key::REBOOT, Some(&grant)))
    }

    /// The ConfigMap is created anew with the content that it had before all grants.
    fn restore_ledger(&mut self) -> bool {
        let uid = format!("m{}", self.draw());
        let before_all = version(&self.map.state).map(|version| Ledger::complete(version, Vec::new()).to_data());
        before_all.is_some() && self.harm_map(|map| Some(Map { uid, data: before_all, ..map }))
    }
}
