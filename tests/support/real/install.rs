//! The operator as people deploy it: by its manifests, with an overlay for what is special about the nodes of the tests.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{Api, Client};
use serde_json::{Value, json};

use super::site::manifests;
use crate::{
    call::until,
    control_plane::ControlPlane,
    sim::{NAMESPACE, kubectl},
    workload::daemon_set_ready,
};

const LIMIT: Duration = Duration::from_mins(2);

/// What is set when the operator is installed.
#[derive(Clone, Debug)]
pub struct Install {
    /// `--max-unavailable` of the controller.
    pub quota: String,
    /// Further flags of the agents.
    pub agent: Vec<String>,
}

impl Install {
    /// With this quota, and as it is shipped.
    pub fn with_quota(quota: usize) -> Self {
        Self { quota: quota.to_string(), agent: Vec::new() }
    }
}

/// Applies the manifests with these settings.
pub(super) async fn apply(control_plane: &ControlPlane, dir: &Path, install: &Install) -> Result<()> {
    let overlay = overlay(dir, install)?;
    kubectl(&control_plane.kubeconfig(), &["apply", "-k", &overlay.to_string_lossy()]).await.map(drop)
}

/// Waits until the controller and an agent on every node are ready.
pub(super) async fn until_installed(client: &Client, nodes: usize) -> Result<()> {
    daemon_set_ready(client, NAMESPACE, "reboot-agent", nodes).await?;
    let available = |deployment: Option<&Deployment>| {
        let status = deployment.and_then(|deployment| deployment.status.as_ref());
        status.and_then(|status| status.available_replicas) == Some(1)
    };
    let deployments = Api::namespaced(client.clone(), NAMESPACE);
    until(LIMIT, "waiting for the controller", deployments, "reboot-controller", available).await.map(drop)
}

/// Writes a kustomization over a copy of the manifests (kubectl accepts no absolute paths in one) and returns its folder.
///
/// What it changes: what the test sets; no minimum uptime, for a node that has just been booted is no suspicion here; and where
/// the agent finds the boot ID, because nspawn gives the node one of its own that containers do not see.
fn overlay(dir: &Path, install: &Install) -> Result<PathBuf> {
    let folder = dir.join("overlay");
    fs::create_dir_all(&folder).context("creating the overlay's folder")?;
    let mut resources = Vec::new();
    for entry in fs::read_dir(manifests()).context("reading the manifests")? {
        let path = entry.context("reading the manifests")?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("reading {name}"))?;
        // A flag may be given once: an overlay cannot add it a second time.
        let text = text.replace("--max-unavailable=1", &format!("--max-unavailable={}", install.quota));
        fs::write(folder.join(&name), text).with_context(|| format!("writing {name}"))?;
        resources.push(name);
    }
    let mut agent = vec![
        argument("--min-uptime=0s"),
        argument("--boot-id-file=/host/boot-id"),
        add(
            "/spec/template/spec/containers/0/volumeMounts/-",
            json!({"name": "boot-id", "mountPath": "/host/boot-id", "readOnly": true}),
        ),
        add(
            "/spec/template/spec/volumes/-",
            json!({"name": "boot-id", "hostPath": {"path": "/run/boot-id", "type": "File"}}),
        ),
    ];
    agent.extend(install.agent.iter().map(|flag| argument(flag)));
    let agent = json!({"target": {"kind": "DaemonSet", "name": "reboot-agent"}, "patch": json!(agent).to_string()});
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources,
        "patches": [agent],
    });
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).context("writing the kustomization")?;
    Ok(folder)
}

fn argument(flag: &str) -> Value {
    add("/spec/template/spec/containers/0/args/-", json!(flag))
}

fn add(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}
