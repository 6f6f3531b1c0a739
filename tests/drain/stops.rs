//! What comes in between: pods that appear, agents that end, people who stop the drain.

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use reboot_tests::{referee::history::NodeSeen, scene::phase_of};
use serde_json::json;

use crate::{
    pods::{lasting, pod},
    site::Site,
    stage::{LIMIT, Stage, claims},
};

#[tokio::test]
async fn whatever_comes_in_between_no_pod_is_forgotten_and_none_is_evicted_in_vain() {
    Stage::hold(claims![
        a_pod_that_appears_in_the_drain_goes_too,
        the_next_agent_evicts_nothing_twice,
        a_pause_stops_the_evictions,
        a_grant_that_is_withdrawn_stops_the_evictions,
        an_uncordon_stops_the_evictions,
    ])
    .await;
}

async fn a_pod_that_appears_in_the_drain_goes_too(site: Site<'_>) -> usize {
    site.create(lasting(pod("first"))).await;
    site.ask().await;
    site.until_ending("first").await;
    site.create(lasting(pod("late"))).await;
    site.until_ending("late").await;
    site.end("first").await;
    site.create(lasting(pod("later"))).await;
    site.until_ending("later").await;
    site.end("late").await;
    site.end("later").await;
    site.until_rebooted().await;
    for name in ["first", "late", "later"] {
        assert_eq!(site.answers(name), [201], "{name}");
    }
    1
}

/// A pod that comes after its start shows that the next agent has seen all that are here.
async fn the_next_agent_evicts_nothing_twice(site: Site<'_>) -> usize {
    let mut names = vec!["one", "two", "three"];
    for name in &names {
        site.create(lasting(pod(name))).await;
    }
    site.ask().await;
    for name in &names {
        site.until_ending(name).await;
    }
    for (end, late) in [("terminated", "late"), ("killed", "later")] {
        match end {
            "terminated" => {
                assert!(site.machine.stop_agent(LIMIT).await.unwrap().success());
                let seen = site.stage.until_node(site.name(), "to exist", |_| true).await;
                assert!(seen.cordoned && phase_of(&seen).as_deref() == Some("draining"), "{seen:?}");
                site.machine.start_agent(&[]).unwrap();
            }
            _ => site.machine.restart_agent().unwrap(),
        }
        site.create(lasting(pod(late))).await;
        site.until_ending(late).await;
        names.push(late);
    }
    for name in &names {
        site.end(name).await;
    }
    site.until_rebooted().await;
    for name in names {
        assert_eq!(site.answers(name), [201], "{name}");
    }
    1
}

async fn a_pause_stops_the_evictions(site: Site<'_>) -> usize {
    let left = site.drain_one_of_two().await;
    site.stage.annotate(site.name(), "reboot-paused", Some("database migration")).await;
    stopped(site, "Paused", &left).await
}

async fn a_grant_that_is_withdrawn_stops_the_evictions(site: Site<'_>) -> usize {
    let left = site.drain_one_of_two().await;
    site.stage.annotate(site.name(), "reboot", None).await;
    stopped(site, "GrantRemoved", &left).await
}

async fn an_uncordon_stops_the_evictions(site: Site<'_>) -> usize {
    let left = site.drain_one_of_two().await;
    let nodes: Api<Node> = Api::all(site.stage.client());
    let uncordon = Patch::Merge(json!({"spec": {"unschedulable": null}}));
    nodes.patch(site.name(), &PatchParams::default(), &uncordon).await.unwrap();
    stopped(site, "UncordonedByOther", &left).await
}

/// The drain has ended for this reason: the pod that is left stays, whatever its budget says from now on.
async fn stopped(site: Site<'_>, reason: &str, left: &str) -> usize {
    site.stage.until_given_back(site.name(), reason).await;
    site.budget("pair", json!({"minAvailable": 0}), 1).await;
    // The agent hears this later than it would have heard of the budget.
    site.stage.annotate(site.name(), "reboot-needed", None).await;
    let unasked = |node: &NodeSeen| !node.notes.contains_key("reboot-request");
    site.stage.until_node(site.name(), "to ask no more", unasked).await;
    let pod = site.pods().get(left).await.unwrap();
    assert!(pod.metadata.deletion_timestamp.is_none(), "{pod:?}");
    assert_eq!(site.answers(left), [0; 0]);
    0
}
