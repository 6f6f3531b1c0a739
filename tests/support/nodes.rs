//! Simulated nodes: Node objects that behave like those of real kubelets, on machines that are folders.
//!
//! KWOK runs the pods (see `kwok.yaml` for how); the status of the Node is written here, as kubelet would write it, so
//! that tests decide when a node is seen to go down and when its new boot ID arrives.

use std::{
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    boot::{BootFiles, os_image, random_uuid},
    call::within,
    control_plane::{ControlPlane, binary},
    process::Process,
};

/// The OS version that a node starts with.
pub const FIRST_OS_VERSION: &str = "4081.2.0";

/// What the API server hears of a node that goes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Ready turns False: kubelet had time to say that the node shuts down.
    NotReady,
    /// Ready turns Unknown: kubelet was not heard of for too long.
    Unknown,
    /// Nothing: the node is back before anybody misses it, and Ready stays True all the while.
    Silent,
}

/// A Node, its kubelet and its machine.
#[derive(Debug)]
pub struct SimNode {
    name: String,
    nodes: Api<Node>,
    files: BootFiles,
    boot: Mutex<Boot>,
}

#[derive(Clone, Debug)]
struct Boot {
    id: String,
    os_version: String,
}

const CALL: Duration = Duration::from_secs(10);
/// kubelet's name as a field manager.
const MANAGER: &str = "kubelet";

impl SimNode {
    /// Boots a machine for the first time (its files are in `dir`) and registers its Node, Ready.
    ///
    /// # Errors
    /// When a Node of this name exists.
    pub async fn create(client: Client, dir: &Path, name: &str, labels: &[(&str, &str)]) -> Result<Self> {
        let files = BootFiles::new(dir)?;
        let boot = Boot { id: random_uuid()?, os_version: FIRST_OS_VERSION.to_owned() };
        files.write(&boot.id, &boot.os_version)?;
        let nodes = Api::all(client);
        let mut node = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
            "status": status(&boot, "True", "KubeletReady"),
        });
        for (key, value) in labels {
            node["metadata"]["labels"][*key] = json!(value);
        }
        let node = serde_json::from_value(node).context("building the Node")?;
        let parameters = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
        within(CALL, format!("creating node {name}"), nodes.create(&parameters, &node)).await?;
        Ok(Self { name: name.to_owned(), nodes, files, boot: Mutex::new(boot) })
    }

    /// The name of the Node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The machine's files.
    pub fn files(&self) -> &BootFiles {
        &self.files
    }

    /// The machine's boot ID (kubelet may not have reported it yet).
    pub fn boot_id(&self) -> String {
        self.boot().id
    }

    /// The OS version that the machine runs.
    pub fn os_version(&self) -> String {
        self.boot().os_version
    }

    /// The node goes down. Its pods stay in the API, as they do for a while in a real cluster.
    pub async fn go_down(&self, farewell: Farewell) -> Result<()> {
        let (status, reason) = match farewell {
            Farewell::NotReady => ("False", "KubeletNotReady"),
            Farewell::Unknown => ("Unknown", "NodeStatusUnknown"),
            Farewell::Silent => return Ok(()),
        };
        self.patch_status(json!({"conditions": [condition("Ready", status, reason)]})).await
    }

    /// The machine boots under a new boot ID (returned), into `os_version`; kubelet has not said anything yet.
    pub fn boot_machine(&self, os_version: &str) -> Result<String> {
        let boot = Boot { id: random_uuid()?, os_version: os_version.to_owned() };
        self.files.write(&boot.id, &boot.os_version)?;
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = boot.clone();
        Ok(boot.id)
    }

    /// Takes over the boot of a machine that boots by itself; kubelet has not said anything yet.
    pub fn booted(&self, id: &str, os_version: &str) {
        let boot = Boot { id: id.to_owned(), os_version: os_version.to_owned() };
        *self.boot.lock().unwrap_or_else(PoisonError::into_inner) = boot;
    }

    /// kubelet reports the machine as it is: boot ID, OS and Ready in one write, as at its registration after a boot.
    pub async fn report(&self) -> Result<()> {
        self.patch_status(status(&self.boot(), "True", "KubeletReady")).await
    }

    /// kubelet reports the machine's boot ID, but the node is not Ready yet (no network, say); `report` ends that.
    pub async fn report_not_ready(&self) -> Result<()> {
        self.patch_status(status(&self.boot(), "False", "KubeletNotReady")).await
    }

    /// Boots and reports; returns the new boot ID.
    pub async fn come_up(&self, os_version: &str) -> Result<String> {
        let id = self.boot_machine(os_version)?;
        self.report().await?;
        Ok(id)
    }

    async fn patch_status(&self, status: Value) -> Result<()> {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Strategic(json!({"status": status}));
        let call = self.nodes.patch_status(&self.name, &parameters, &patch);
        within(CALL, format!("writing the status of node {}", self.name), call).await.map(drop)
    }

    fn boot(&self) -> Boot {
        self.boot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts KWOK, which runs the pods of every Node.
pub fn start_kwok(control_plane: &ControlPlane, dir: &Path) -> Result<Process> {
    let stages = dir.join("kwok.yaml");
    std::fs::write(&stages, include_str!("kwok.yaml")).context("writing KWOK's stages")?;
    let mut command = Command::new(binary("kwok")?);
    command
        .arg("--kubeconfig")
        .arg(control_plane.kubeconfig_of("kwok")?)
        .arg("--config")
        .arg(&stages)
        // No heartbeats: the grace period of node-lifecycle is a day here.
        .args(["--manage-all-nodes", "--node-lease-duration-seconds=0"])
        // Without a home it reads no configuration of the user's.
        .env("HOME", dir);
    Process::spawn("kwok", command, &dir.join("kwok.log"))
}

fn status(boot: &Boot, ready: &str, reason: &str) -> Value {
    let size = json!({"cpu": "64", "memory": "256Gi", "pods": "110"});
    let pressure = ["MemoryPressure", "DiskPressure", "PIDPressure"];
    let mut conditions: Vec<_> = pressure.map(|kind| condition(kind, "False", "KubeletIsFine")).into();
    conditions.push(condition("Ready", ready, reason));
    json!({
        "capacity": size, "allocatable": size, "conditions": conditions,
        "nodeInfo": {
            "bootID": boot.id, "osImage": os_image(&boot.os_version), "machineID": "", "systemUUID": "",
            "kernelVersion": "6.6.60-flatcar", "containerRuntimeVersion": "containerd://1.7.23",
            "kubeletVersion": "v1.36.3", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
        },
    })
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    // The API's times have whole seconds.
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": kind, "status": status, "reason": reason, "message": "",
        "lastHeartbeatTime": now, "lastTransitionTime": now,
    })
}
