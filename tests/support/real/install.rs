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
/// What runs of the operator: kind and name.
const PROGRAMS: [(&str, &str); 2] = [("DaemonSet", "reboot-agent"), ("Deployment", "reboot-controller")];
/// Where pods find another kubeconfig.
const WAY: &str = "/etc/way";
/// Where pods find the account that they run under.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// What is set when the operator is installed.
#[derive(Clone, Debug)]
pub struct Install {
    /// `--max-unavailable` of the controller.
    pub quota: String,
    /// Further flags of the agents.
    pub agent: Vec<String>,
    /// How many controllers there are; the manifests have one.
    pub controllers: usize,
    /// The URL at which all of the operator finds the API server, other than where pods find it.
    pub server: Option<String>,
    /// How many seconds the tokens of the operator's pods live; `None` is the hour of the manifests, and ten minutes are the least.
    pub token_seconds: Option<u32>,
}

impl Install {
    /// With this quota, and as it is shipped.
    pub fn with_quota(quota: usize) -> Self {
        Self { quota: quota.to_string(), agent: Vec::new(), controllers: 1, server: None, token_seconds: None }
    }
}

/// Applies the manifests with these settings.
pub(super) async fn apply(control_plane: &ControlPlane, dir: &Path, install: &Install) -> Result<()> {
    let overlay = overlay(dir, install)?;
    kubectl(&control_plane.kubeconfig(), &["apply", "-k", &overlay.to_string_lossy()]).await.map(drop)
}

/// Waits until every controller and an agent on every node are ready.
pub(super) async fn until_installed(client: &Client, nodes: usize) -> Result<()> {
    daemon_set_ready(client, NAMESPACE, "reboot-agent", nodes).await?;
    let available = |deployment: Option<&Deployment>| {
        let Some(Deployment { spec: Some(spec), status: Some(status), .. }) = deployment else { return false };
        spec.replicas.is_some() && status.available_replicas == spec.replicas
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
        fs::copy(&path, folder.join(&name)).with_context(|| format!("copying {name}"))?;
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
    let quota = argument(&format!("--max-unavailable={}", install.quota));
    let mut patches = vec![
        patch("DaemonSet", "reboot-agent", &json!(agent)),
        patch("Deployment", "reboot-controller", &json!([quota])),
    ];
    if let Some(server) = &install.server {
        fs::write(folder.join("way.yaml"), way(server).to_string()).context("writing the kubeconfig")?;
        resources.push("way.yaml".to_owned());
        let flag = json!([argument(&format!("--kubeconfig={WAY}/kubeconfig"))]);
        patches.extend(PROGRAMS.map(|(kind, name)| patch(kind, name, &flag)));
        patches.extend(PROGRAMS.map(|program| volume(program, WAY, &json!({"configMap": {"name": "way"}}))));
    }
    if let Some(seconds) = install.token_seconds {
        patches.extend(PROGRAMS.map(|program| volume(program, ACCOUNT, &account(seconds))));
    }
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources,
        "patches": patches, "replicas": [{"name": "reboot-controller", "count": install.controllers}],
    });
    fs::write(folder.join("kustomization.yaml"), kustomization.to_string()).context("writing the kustomization")?;
    Ok(folder)
}

/// Changes a program's manifest by a JSON patch.
fn patch(kind: &str, name: &str, operations: &Value) -> Value {
    json!({"target": {"kind": kind, "name": name}, "patch": operations.to_string()})
}

/// Mounts a volume into the only container of a program; merged, so that it takes the place of one of the same name.
fn volume((kind, name): (&str, &str), path: &str, source: &Value) -> Value {
    let called = path.rsplit('/').next();
    let mut volume = source.clone();
    volume["name"] = json!(called);
    let mount = json!({"name": called, "mountPath": path, "readOnly": true});
    let container = json!({"name": name, "volumeMounts": [mount]});
    let spec = json!({"containers": [container], "volumes": [volume]});
    let metadata = json!({"name": name, "namespace": NAMESPACE});
    let merged =
        json!({"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": {"template": {"spec": spec}}});
    json!({"patch": merged.to_string()})
}

/// A kubeconfig for pods, as a ConfigMap: another way to the API server, with the pod's own token.
fn way(server: &str) -> Value {
    // The way is in plain text, but a client is made with certificates all the same, and the images have none.
    let cluster = json!({"server": server, "certificate-authority": format!("{ACCOUNT}/ca.crt")});
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "way",
        "clusters": [{"name": "way", "cluster": cluster}],
        "users": [{"name": "pod", "user": {"tokenFile": format!("{ACCOUNT}/token")}}],
        "contexts": [{"name": "way", "context": {"cluster": "way", "user": "pod"}}],
    });
    let metadata = json!({"name": "way", "namespace": NAMESPACE});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"kubeconfig": kubeconfig.to_string()}})
}

/// What the manifests mount into every pod, with a token that lives for so long.
fn account(seconds: u32) -> Value {
    let namespace = json!({"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}});
    let sources = json!([
        {"serviceAccountToken": {"path": "token", "expirationSeconds": seconds}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [namespace]}},
    ]);
    json!({"projected": {"sources": sources}})
}

fn argument(flag: &str) -> Value {
    add("/spec/template/spec/containers/0/args/-", json!(flag))
}

fn add(path: &str, value: Value) -> Value {
    json!({"op": "add", "path": path, "value": value})
}
