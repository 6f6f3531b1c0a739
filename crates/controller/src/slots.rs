//! The ledger's ConfigMap: read, created, and replaced at the version that was read; and watched, so that it is read
//! again when somebody else has changed it.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use reboot_core::annotations::CONTROLLER_MANAGER;
use reboot_core::ids::parse_version;
use reboot_core::ledger::{DATA_KEY, Evidence, Ledger, LedgerState, NAME, Slot, Version};
use reboot_core::values::LastReboot;
use reboot_runtime::call::{CallError, call};
use reboot_runtime::watches::{WatchEvents, watch};
use tracing::warn;

/// The ledger as last read or written; forgotten after every write that failed, so that it is read again.
pub(crate) struct Slots {
    api: Api<ConfigMap>,
    state: Option<LedgerState>,
    /// The slots that were taken out of `state` since it was read or written.
    freed: Vec<Freed>,
    events: WatchEvents<ConfigMap>,
    /// Whether the list that the watch begins with has it.
    listed: bool,
}

/// A slot that is taken out of the ledger. Nobody is told before that is written: else it would be said, and counted,
/// anew with every try.
pub(crate) struct Freed {
    /// The slot.
    pub(crate) slot: Slot,
    /// What proves that its cycle is over; `None`: its grant was withdrawn, or never written.
    pub(crate) evidence: Option<Evidence>,
    /// What the agent reported of the cycle.
    pub(crate) reported: Option<LastReboot>,
}

impl Slots {
    /// The ledger in this namespace, not read yet.
    pub(crate) fn new(client: Client, namespace: &str) -> Self {
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let only = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
        let events = watch(api.clone(), only);
        Self { api, state: None, freed: Vec::new(), events, listed: false }
    }

    /// Waits until it is not as it was last read or written, and forgets it then. Safe to drop and call again.
    pub(crate) async fn changed(&mut self) {
        while let Some(event) = self.events.next().await {
            let is_news = match event {
                Ok(Event::Init) => {
                    self.listed = false;
                    false
                }
                Ok(Event::InitApply(map) | Event::Apply(map)) => {
                    self.listed = true;
                    self.is_news(&map)
                }
                Ok(Event::InitDone) => !self.listed && self.known().is_some(),
                Ok(Event::Delete(map)) => {
                    self.known().is_some_and(|known| Some(&known.uid) == map.metadata.uid.as_ref())
                }
                Err(error) => {
                    warn!("watching the ledger: {error}");
                    false
                }
            };
            if is_news {
                self.forget();
                return;
            }
        }
        // The watcher's stream has no end; were it to end, nothing would change any more.
        std::future::pending::<()>().await;
    }

    fn known(&self) -> Option<&Version> {
        self.state.as_ref().and_then(LedgerState::version)
    }

    /// Whether this is anything but what is known, or was before it.
    fn is_news(&self, map: &ConfigMap) -> bool {
        let seen = map.metadata.resource_version.as_deref().and_then(parse_version);
        let known = self.known().filter(|known| Some(&known.uid) == map.metadata.uid.as_ref());
        known.is_none_or(|known| seen > parse_version(&known.resource_version))
    }

    /// Forgets what is known, so that it is read again.
    pub(crate) fn forget(&mut self) {
        self.state = None;
        self.freed.clear();
    }

    /// The ledger; reads it where it is not known.
    pub(crate) async fn state(&mut self) -> Result<&LedgerState, CallError> {
        let state = match self.state.take() {
            Some(state) => state,
            None => match call("reading the ledger", self.api.get(NAME)).await {
                Ok(map) => LedgerState::read(Some(&map)),
                Err(CallError::Gone(_)) => LedgerState::read(None),
                Err(error) => return Err(error),
            },
        };
        Ok(self.state.insert(state))
    }

    /// Creates the ConfigMap, empty, which reads as lost: a rebuild completes it.
    pub(crate) async fn create(&mut self) -> Result<&LedgerState, CallError> {
        self.forget();
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let created = call("creating the ledger", self.api.create(&params(), &map)).await?;
        Ok(self.state.insert(LedgerState::read(Some(&created))))
    }

    /// Frees a slot in what is known. The next write of the ledger takes that along: a slot that is freed and spent costs
    /// one write instead of two. Should none be made, the slot is settled again.
    pub(crate) fn free(&mut self, ledger: &Ledger, freed: Freed) {
        self.state = Some(LedgerState::Known(ledger.without(&freed.slot.node)));
        self.freed.push(freed);
    }

    /// The ledger, where slots were freed in it that no write has taken along yet.
    pub(crate) fn unwritten(&self) -> Option<&Ledger> {
        self.state.as_ref().and_then(LedgerState::known).filter(|_| !self.freed.is_empty())
    }

    /// Replaces the ledger at the version that it carries. Returns the slots that are free with that.
    pub(crate) async fn replace(&mut self, ledger: &Ledger) -> Result<Vec<Freed>, CallError> {
        let freed = std::mem::take(&mut self.freed);
        self.forget();
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                uid: Some(ledger.version.uid.clone()),
                resource_version: Some(ledger.version.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some([(DATA_KEY.to_owned(), ledger.to_data())].into()),
            ..ConfigMap::default()
        };
        let replaced = call("writing the ledger", self.api.replace(NAME, &params(), &map)).await?;
        self.state = Some(LedgerState::read(Some(&replaced)));
        Ok(freed)
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(CONTROLLER_MANAGER.to_owned()), ..PostParams::default() }
}
