//! Installing the operator's manifests, and the credentials that its processes then run with.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::process::Command;

use super::Machine;
use crate::{
    call::within,
    control_plane::{ControlPlane, binary},
    workload::{daemon_set_ready, pods_on},
};

/// Where the manifests put everything that has a namespace.
pub const NAMESPACE: &str = "reboot-operator";
const AGENT: &str = "reboot-agent";
const CONTROLLER: &str = "reboot-controller";
const LIMIT: Duration = Duration::from_mins(1);

/// Applies the manifests, gives every machine its agent's credentials, and returns the controller's kubeconfig.
pub(super) async fn install(
    control_plane: &ControlPlane,
    machines: &[Arc<Machine>],
    manifests: &Path,
) -> Result<PathBuf> {
    let kubeconfig = control_plane.kubeconfig();
    kubectl(&kubeconfig, &["apply", "-f", &manifests.to_string_lossy()]).await?;

    // The controller is a process here. Its pod would be drained like any other, and its token would go with it.
    let deployments: Api<Deployment> = Api::namespaced(control_plane.client(), NAMESPACE);
    let parameters = PatchParams::default();
    let patch = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let call = deployments.patch(CONTROLLER, &parameters, &patch);
    within(LIMIT, "scaling the controller's Deployment down", call).await?;

    daemon_set_ready(&control_plane.client(), NAMESPACE, AGENT, machines.len()).await?;
    for machine in machines {
        machine.run_agent_as(agent_kubeconfig(control_plane, machine.node().name()).await?);
    }
    let token = control_plane.token_for(CONTROLLER, NAMESPACE, None).await?;
    control_plane.kubeconfig_for_token(CONTROLLER, &token)
}

/// Runs kubectl, the one beside the control plane or, where there is none, the one on PATH; returns what it printed.
///
/// # Errors
/// When it fails or takes more than a minute; its words are in the text.
pub async fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
    kubectl_within(LIMIT, kubeconfig, arguments).await
}

/// [`kubectl`] with a limit of the caller's own.
pub async fn kubectl_within(limit: Duration, kubeconfig: &Path, arguments: &[&str]) -> Result<String> {
    let kubectl = binary("kubectl").unwrap_or_else(|_| "kubectl".into());
    let mut command = Command::new(kubectl);
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    // In a group of its own: a Ctrl-C in the terminal is for the test, which then drops this.
    command.stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    let what = format!("running kubectl {}", arguments.join(" "));
    let output = within(limit, &what, command.output()).await?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} failed ({}): {words}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn agent_kubeconfig(control_plane: &ControlPlane, node: &str) -> Result<PathBuf> {
    let pods = pods_on(&control_plane.client(), node).await?;
    let names = pods.iter().filter_map(|pod| pod.metadata.name.as_deref());
    let pod = names.into_iter().find(|name| name.starts_with(AGENT));
    let pod = pod.with_context(|| format!("there is no agent's pod on {node}"))?;
    let token = control_plane.token_for(AGENT, NAMESPACE, Some(pod)).await?;
    control_plane.kubeconfig_for_token(&format!("{AGENT}-{node}"), &token)
}
