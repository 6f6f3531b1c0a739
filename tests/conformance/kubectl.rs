//! Stock kubectl finds no difference between the two.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use kube::Client;
use reboot_tests::control_plane::binary;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::side::{MERGE, Side};

/// An API server as kubectl finds it.
pub(crate) struct Place {
    pub(crate) kubeconfig: PathBuf,
    /// kubectl remembers by the address what there is; ports are used again.
    pub(crate) cache: PathBuf,
    pub(crate) client: Client,
}

impl Place {
    fn kubectl(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary("kubectl").unwrap_or_else(|_| "kubectl".into()));
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// What kubectl prints for each command, on a Node with a pod of a `DaemonSet` and two others.
pub(crate) async fn session(place: Place) -> Result<Vec<String>> {
    let mut side = Side::new("kubectl", place.client.clone());
    furnish(&mut side).await;
    let name = side.node("a");
    let namespace = side.node("").trim_end_matches('-').to_owned();
    let mut told = Vec::new();
    let mut run = async |args: &[&str]| {
        let output = place.kubectl(args).output();
        let output = tokio::time::timeout(Duration::from_mins(1), output).await.context("kubectl takes too long")??;
        told.push(format!("$ kubectl {}", args.join(" ")));
        for text in [output.stdout, output.stderr] {
            told.extend(String::from_utf8_lossy(&text).lines().map(plain).filter(|line| !line.is_empty()));
        }
        anyhow::Ok(())
    };
    let node = format!("node/{name}");
    run(&["version"]).await?;
    run(&["get", "nodes", "-l", "of=kubectl"]).await?;
    run(&["get", &node, "-o", "wide"]).await?;
    run(&["get", "pods,pdb,ds", "-n", &namespace]).await?;
    run(&["annotate", "node", &name, "reboot-operator.io/reboot-needed=new kernel"]).await?;
    run(&["annotate", "node", &name, "reboot-operator.io/reboot-needed=other"]).await?;
    run(&["annotate", "node", &name, "reboot-operator.io/reboot-needed=other", "--overwrite"]).await?;
    run(&["get", "node", &name, "-o", "jsonpath={.metadata.annotations}"]).await?;
    run(&["label", "node", &name, "x=y"]).await?;
    run(&["cordon", &name]).await?;
    run(&["cordon", &name]).await?;
    run(&["get", "no", &name]).await?;
    run(&["describe", "node", &name]).await?;
    run(&["uncordon", &name]).await?;
    // One reason to refuse: kubectl names several in any order.
    run(&["drain", &name, "--force", "--timeout=5s"]).await?;
    run(&["drain", &name, "--ignore-daemonsets", "--force", "--timeout=3s", "--dry-run=server"]).await?;
    run(&["drain", &name, "--ignore-daemonsets", "--force", "--timeout=3s"]).await?;
    run(&["get", "pods", "-n", &namespace]).await?;
    run(&["annotate", "node", &name, "reboot-operator.io/reboot-needed-"]).await?;
    run(&["delete", "node", &name]).await?;
    run(&["get", "node", &name]).await?;
    run(&["get", "things"]).await?;
    Ok(told)
}

/// What `kubectl get -w` prints while a Node is cordoned and deleted.
pub(crate) async fn watching(place: Place) -> Result<Vec<String>> {
    let mut side = Side::new("kubectl-w", place.client.clone());
    side.create_node("a", json!({})).await;
    let name = side.node("a");
    let mut child = place.kubectl(&["get", "nodes", "-l", "of=kubectl-w", "-w"]).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut told = Vec::new();
    let mut next = async |count: usize| {
        for _ in 0..count {
            let line =
                tokio::time::timeout(Duration::from_secs(20), lines.next_line()).await.context("no line in time")?;
            told.push(plain(&line?.context("kubectl ended")?));
        }
        anyhow::Ok(())
    };
    next(2).await?;
    // What is watched from here on shows the state of each change, however late it is read.
    side.patch(&side.node_path("a"), MERGE, &json!({"spec": {"unschedulable": true}})).await;
    next(1).await?;
    side.patch(&side.node_path("a"), MERGE, &json!({"spec": {"unschedulable": null}})).await;
    next(1).await?;
    side.create_node("b", json!({})).await;
    next(1).await?;
    child.kill().await?;
    ensure!(told.iter().any(|line| line.contains(&name)), "{told:?}");
    Ok(told)
}

/// A Node, a pod of a `DaemonSet`, a pod with a budget that refuses, and one that may go.
async fn furnish(side: &mut Side) {
    side.namespace().await;
    side.create_node("a", json!({})).await;
    let status = json!({"status": {
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        "nodeInfo": {"kubeletVersion": "v1.36.3", "osImage": "An OS", "architecture": "amd64", "bootID": "x"},
        "capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"}, "allocatable": {"cpu": "2", "memory": "4Gi"},
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
    }});
    side.patch(&format!("{}/status", side.node_path("a")), MERGE, &status).await;
    let template = json!({
        "metadata": {"labels": {"app": "everywhere"}}, "spec": {"containers": [{"name": "main", "image": "none"}]},
    });
    let set = json!({"metadata": {"name": "everywhere"}, "spec": {"selector": {"matchLabels": {"app": "everywhere"}}, "template": template}});
    let set = side.post(&side.path("apis/apps/v1", "daemonsets"), &set).await;
    let owner = json!([{
        "apiVersion": "apps/v1", "kind": "DaemonSet", "name": "everywhere", "uid": set["metadata"]["uid"], "controller": true,
    }]);
    let budget = json!({"metadata": {"name": "guarded"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "guarded"}}}});
    side.post(&side.path("apis/policy/v1", "poddisruptionbudgets"), &budget).await;
    for (name, owners) in [("everywhere", owner), ("guarded", Value::Null)] {
        let metadata = json!({"name": name, "labels": {"app": name}, "ownerReferences": owners});
        let spec = json!({"nodeName": side.node("a"), "containers": [{"name": "main", "image": "none"}]});
        let pods = side.path("api/v1", "pods");
        side.post(&pods, &json!({"metadata": metadata, "spec": spec})).await;
        let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        side.patch(&format!("{pods}/{name}/status"), MERGE, &status).await;
    }
    let path = side.path("apis/policy/v1", "poddisruptionbudgets/guarded");
    side.until(&path, |budget| budget["status"]["currentHealthy"] == 1).await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "told"}, "action": "Wait",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "QuotaUsed", "type": "Normal", "note": "it waits",
        "reportingController": "reboot-controller", "reportingInstance": "one",
        "regarding": {"kind": "Node", "apiVersion": "v1", "name": side.node("a"), "uid": side.node("a")},
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    let (code, _) = side.exchange(&Method::POST, path, "application/json", "application/json", &event).await;
    assert_eq!(code, 201);
}

/// A line without ages, times and the width of columns.
fn plain(line: &str) -> String {
    if let Some((what, _)) = line.split_once(':').filter(|_| line.contains("+0000")) {
        return format!("{what}: TIME");
    }
    // kubectl itself warns in any order.
    if let Some(warnings) = line.strip_prefix("Warning: ") {
        let mut warnings: Vec<_> = warnings.split("; ").collect();
        warnings.sort_unstable();
        return warnings.join("; ");
    }
    let words = line.split_whitespace().map(|word| {
        let is_age = word.len() <= 6
            && word.starts_with(|first: char| first.is_ascii_digit())
            && word.ends_with(['s', 'm', 'h'])
            && word.chars().all(|letter| letter.is_ascii_digit() || "smh".contains(letter));
        if is_age { "AGE" } else { word }
    });
    words.collect::<Vec<_>>().join(" ")
}
