//! The volumes that are attached to the agent's own node, and the claims that they are bound to.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::runtime::watcher;
use kube::{Api, Client};
use reboot_core::drain::{Attachment, Attachments, Claim, claim_of, volume_on};
use reboot_runtime::call::{CallError, call};
use tracing::warn;

use crate::watched::Watched;

/// The attached volumes of one node, kept up to date by a watch of all `VolumeAttachment`s: there is no selector for
/// those of a node. What is of other nodes is dropped as it comes.
pub(crate) struct Volumes {
    persistent: Api<PersistentVolume>,
    attached: Watched<VolumeAttachment, String>,
    /// What is known of the volumes that are or were attached, by name.
    claims: BTreeMap<String, Claimed>,
    reads: FuturesUnordered<BoxFuture<'static, (String, Option<Claim>)>>,
}

/// Whose a volume is.
enum Claimed {
    /// It is being read.
    Asked,
    /// It is bound to this claim, or to none.
    By(Option<Claim>),
}

impl Volumes {
    /// Begins to watch those of the node of this name.
    pub(crate) fn watch(client: Client, node: &str) -> Self {
        let node = node.to_owned();
        let here = move |attachment: &VolumeAttachment| volume_on(attachment, &node);
        let attached = Watched::new(Api::all(client.clone()), watcher::Config::default(), here);
        Self { persistent: Api::all(client), attached, claims: BTreeMap::new(), reads: FuturesUnordered::new() }
    }

    /// The volumes; `None` until they have been listed once, and while one of them is being read.
    pub(crate) fn values(&self) -> Attachments {
        let known = |volume: String| match self.claims.get(&volume) {
            Some(Claimed::By(claim)) => Some(Attachment { claim: claim.clone(), volume }),
            Some(Claimed::Asked) | None => None,
        };
        Attachments(self.attached.values().and_then(|volumes| volumes.into_iter().map(known).collect()))
    }

    /// Waits until [`Volumes::values`] has changed. Safe to drop and call again.
    pub(crate) async fn changed(&mut self) {
        tokio::select! {
            biased;
            () = self.attached.changed() => {}
            Some((volume, claim)) = self.reads.next() => drop(self.claims.insert(volume, Claimed::By(claim))),
        }
        for volume in self.attached.values().into_iter().flatten() {
            if !self.claims.contains_key(&volume) {
                self.claims.insert(volume.clone(), Claimed::Asked);
                self.reads.push(Box::pin(read(self.persistent.clone(), volume)));
            }
        }
    }
}

/// Whose the volume of this name is. A volume that cannot be read is taken for nobody's: then it is not waited for.
async fn read(volumes: Api<PersistentVolume>, name: String) -> (String, Option<Claim>) {
    let claim = match call("reading a PersistentVolume", volumes.get(&name)).await {
        Ok(volume) => claim_of(&volume),
        Err(CallError::Gone(_)) => None,
        Err(error) => {
            warn!(volume = name, "{error}");
            None
        }
    };
    (name, claim)
}
