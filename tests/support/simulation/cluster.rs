//! What kubelets, the controllers of Kubernetes and people write.

use reboot_core::audit::Actor;
use reboot_core::ids::BootId;
use reboot_core::ledger;
use serde_json::{Value, json};

use super::machine::Machine;
use super::world::{NAMESPACE, World};

impl World {
    /// kubelet says how the node is and (`Some`) which boot it runs, and registers a Node that is not there. Without a
    /// boot it is the control plane that speaks, of a node that it has not heard from.
    pub fn report(&self, machine: &Machine, boot: Option<BootId>, ready: bool) {
        let name = &machine.name;
        let status = status(boot, ready);
        let user = if boot.is_some() { "kubelet" } else { "kube-controller-manager" };
        self.write(Actor::Machine, |api| {
            let written = api.patch(user, "nodes/status", "", name, &json!({ "status": status }));
            if written.is_err() && boot.is_some() {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status});
                api.create(user, &node).expect("a Node");
            }
        });
    }

    /// A person sets an annotation or (`None`) removes it.
    pub fn annotate(&self, node: &str, key: &str, value: Option<&str>) {
        self.patch_node("kubectl-annotate", node, json!({"metadata": {"annotations": {key: value}}}));
    }

    /// A person cordons a node or uncordons it.
    pub fn cordon(&self, node: &str, cordon: bool) {
        let value = if cordon { json!(true) } else { Value::Null };
        self.patch_node("kubectl-cordon", node, json!({"spec": {"unschedulable": value}}));
    }

    /// A person patches, with this tool, a Node that may not be there.
    pub fn patch_node(&self, tool: &str, node: &str, patch: Value) {
        self.write(Actor::Person, |api| drop(api.patch(tool, "nodes", "", node, &patch)));
    }

    /// A person deletes a Node that may not be there.
    pub fn delete_node(&self, node: &str) {
        self.write(Actor::Person, |api| drop(api.delete("kubectl", "nodes", "", node, None)));
    }

    /// A person deletes the ledger, or (`Some`) writes this into it, where there is one.
    pub fn harm_ledger(&self, text: Option<&str>) {
        self.write(Actor::Person, |api| match text {
            None => drop(api.delete("kubectl", "configmaps", NAMESPACE, ledger::NAME, None)),
            Some(text) => {
                let patch = json!({"data": {ledger::DATA_KEY: text}});
                drop(api.patch("kubectl-edit", "configmaps", NAMESPACE, ledger::NAME, &patch));
            }
        });
    }
}

fn status(boot: Option<BootId>, ready: bool) -> Value {
    let word = match (boot, ready) {
        (_, true) => "True",
        (Some(_), false) => "False",
        (None, false) => "Unknown",
    };
    let mut status = json!({"conditions": [{"type": "Ready", "status": word}]});
    if let Some(boot) = boot {
        status["nodeInfo"] = node_info(boot);
    }
    status
}

/// What kubelet says of a machine that runs this boot. A Node without all of these is no Node.
pub fn node_info(boot: BootId) -> Value {
    json!({
        "bootID": boot.to_string(), "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
        "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
        "systemUUID": "",
    })
}
