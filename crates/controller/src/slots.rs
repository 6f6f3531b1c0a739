//! The ledger's ConfigMap: read, created, and replaced at the version that was read.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use reboot_core::annotations::CONTROLLER_MANAGER;
use reboot_core::ledger::{DATA_KEY, Ledger, LedgerState, NAME};
use reboot_runtime::call::{CallError, call};

/// The ledger as last read or written; forgotten after every write that failed, so that it is read again.
pub struct Slots {
    api: Api<ConfigMap>,
    state: Option<LedgerState>,
}

impl Slots {
    /// The ledger in this namespace, not read yet.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), state: None }
    }

    /// Forgets what is known, so that it is read again.
    pub fn forget(&mut self) {
        self.state = None;
    }

    /// The ledger; reads it where it is not known.
    pub async fn state(&mut self) -> Result<LedgerState, CallError> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let state = match call("reading the ledger", self.api.get(NAME)).await {
            Ok(map) => LedgerState::read(Some(&map)),
            Err(CallError::Gone(_)) => LedgerState::read(None),
            Err(error) => return Err(error),
        };
        self.state = Some(state.clone());
        Ok(state)
    }

    /// Creates the ConfigMap, empty, which reads as lost: a rebuild completes it.
    pub async fn create(&mut self) -> Result<LedgerState, CallError> {
        self.state = None;
        let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
        let map = ConfigMap { metadata, ..ConfigMap::default() };
        let created = call("creating the ledger", self.api.create(&params(), &map)).await?;
        let state = LedgerState::read(Some(&created));
        self.state = Some(state.clone());
        Ok(state)
    }

    /// Replaces the ledger at the version that it carries.
    pub async fn replace(&mut self, ledger: &Ledger) -> Result<(), CallError> {
        self.state = None;
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
        Ok(())
    }
}

fn params() -> PostParams {
    PostParams { field_manager: Some(CONTROLLER_MANAGER.to_owned()), ..PostParams::default() }
}
