//! Two nodes that drain at the same time under one budget.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::ResourceExt as _;
use reboot_tests::{referee::Expect, workload::Workload};

use crate::stage::Stage;

const PODS: usize = 8;

/// Eight pods each, of one Deployment whose replacements take half a second to become Ready.
#[tokio::test]
async fn two_nodes_that_drain_under_one_budget_take_turns() {
    let stage = Stage::set(4, 2).await;
    let (draining, others) = (["node-1", "node-2"], ["node-3", "node-4"]);
    for node in others {
        stage.cordon(node).await;
    }
    let pods = i32::try_from(2 * PODS).unwrap();
    let web = Workload::new("web", pods).annotated("testbed/ready-after", "500ms");
    web.deploy(&stage.client()).await.unwrap();
    for node in others {
        stage.uncordon(node).await;
    }
    let mut node_of = BTreeMap::new();
    for pod in web.pods(&stage.client()).await.unwrap() {
        node_of.insert(pod.name_any(), pod.spec.unwrap().node_name.unwrap());
    }
    for node in draining {
        assert_eq!(node_of.values().filter(|on| *on == node).count(), PODS, "{node_of:?}");
    }
    stage.cluster.start_agents(&[]).unwrap();
    let then = Timestamp::now();
    for node in draining {
        stage.cluster.machine(node).unwrap().announce_update("4100.0.0").await.unwrap();
    }
    for node in draining {
        stage.until_rebooted(node).await;
    }
    let evictions = stage.requests(then);
    let evictions = evictions.iter().filter(|request| request.resource == "pods/eviction");
    let (accepted, refused): (Vec<_>, Vec<_>) = evictions.partition(|request| request.code == 201);
    let row: Vec<&str> = accepted.iter().filter_map(|request| node_of.get(&request.name)).map(String::as_str).collect();
    assert_eq!(row.len(), 2 * PODS, "{row:?}");
    // How many each has been rid of when the first of them has none left.
    let first_done = draining.map(|node| row.iter().rposition(|on| *on == node).unwrap()).into_iter().min().unwrap();
    let served = draining.map(|node| row[..=first_done].iter().filter(|on| **on == node).count());
    assert!(served.iter().all(|pods| *pods >= PODS / 2), "{served:?}: {row:?}");
    assert!(refused.len() <= PODS, "{} refused, {row:?}", refused.len());
    stage.ends(&Expect::rebooted_once(draining)).await;
}
