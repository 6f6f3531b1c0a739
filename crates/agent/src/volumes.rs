//! The volumes that are attached to the agent's own node, and the claims that they are bound to.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use k8s_openapi::api::core::v1::PersistentVolume;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::runtime::watcher;
use kube::{Api, Client};
use reboot_core::backoff;
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

/// Whose the volume of this name is. One that does not exist, or that the agent may not read, is taken for nobody's: then
/// it is not waited for. No answer is not such a no, and asked again.
async fn read(volumes: Api<PersistentVolume>, name: String) -> (String, Option<Claim>) {
    let mut failures = 0;
    loop {
        let error = match call("reading a PersistentVolume", volumes.get(&name)).await {
            Ok(volume) => return (name, claim_of(&volume)),
            Err(CallError::Gone(_)) => return (name, None),
            Err(error) => error,
        };
        warn!(volume = name, "{error}");
        if let CallError::Refused(_) | CallError::Conflict(_) = error {
            return (name, None);
        }
        failures += 1;
        tokio::time::sleep(backoff::after_answer(failures, error.retry_after())).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::VecDeque;
    use std::sync::Mutex;

    use hyper::Response;
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// Reads a volume from a server that answers with these codes, one after the other; it must ask for every one.
    async fn check(codes: &[u16], expected: Option<&str>) {
        let left: &'static Mutex<VecDeque<u16>> = Box::leak(Box::new(Mutex::new(codes.iter().copied().collect())));
        let service = move |_| async move {
            let code = left.lock().unwrap().pop_front().unwrap();
            let body = match code {
                200 => json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv-1"},
                              "spec": {"claimRef": {"namespace": "db", "name": "data-db-0"}}}),
                404 => json!({"kind": "Status", "code": code, "reason": "NotFound"}),
                _ => json!({"kind": "Status", "code": code, "reason": "No"}),
            };
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        };
        let volumes = Api::all(Client::new(service_fn(service), "default"));
        let (volume, claim) = read(volumes, "pv-1".to_owned()).await;
        assert_eq!((volume.as_str(), claim.map(|claim| claim.name).as_deref()), ("pv-1", expected), "{codes:?}");
        assert!(left.lock().unwrap().is_empty(), "{codes:?}: not all were asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_volume_is_nobodys_only_by_an_answer() {
        check(&[200], Some("data-db-0")).await;
        check(&[503, 429, 500, 200], Some("data-db-0")).await;
        check(&[404], None).await;
        check(&[403], None).await;
        check(&[500, 404], None).await;
    }
}
