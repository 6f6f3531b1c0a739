//! Annotations that are not what the protocol allows: each is reported as malformed or replaced, stops its own node at
//! most, and permits nothing.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use jiff::Timestamp;
use reboot_tests::referee::{Expect, history::NodeSeen};
use serde_json::json;

use crate::{
    site::{Site, phase, value},
    world::{World, claims},
};

/// So long nothing happens, and nobody may do much.
const QUIET: Duration = Duration::from_secs(3);
/// What an operator of eight nodes may ask in that time: a watch that is begun anew, an Event that is still on its way.
const FEW: usize = 12;

/// Not permission, and not absence either. (`""` and `false` are absence.)
const NO_PERMISSIONS: [&str; 4] = ["True", "now ", "{}", "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90.1x"];

#[tokio::test]
async fn malformed_values_stop_their_own_node_alone_and_cost_nothing() {
    // The slot that a malformed `reboot-in-progress` takes, and one for the nodes that go on.
    let world = World::start(8, 2).await;
    let sites: Vec<_> = (1..=8).map(|number| world.site(number)).collect();
    let (bad, [stranger, unfinished, unanswered, healthy]) = (&sites[..4], [4, 5, 6, 7].map(|index| sites[index]));
    let boots = boot_ids(&sites).await;
    for (site, text) in bad.iter().zip(NO_PERMISSIONS) {
        site.annotate("reboot", text).await;
        site.ask().await;
    }
    unfinished.annotate("reboot-in-progress", r#"{"phase":"draining"}"#).await;
    unfinished.ask().await;
    unanswered.machine.kill_agent().unwrap();
    unanswered.annotate("reboot-request", "[]").await;
    unanswered.ask().await;
    for (site, key) in bad
        .iter()
        .map(|site| (*site, "reboot"))
        .chain([(unfinished, "reboot-in-progress"), (unanswered, "reboot-request")])
    {
        let waiting = site.until_waiting("Malformed").await;
        assert!(waiting["message"].as_str().unwrap().contains(&format!("/{key} ")), "{waiting}");
        site.until_event("Warning", "RebootWaiting", "is malformed").await;
    }
    for site in bad.iter().copied().chain([unfinished]) {
        site.until_status("malformed").await;
    }
    world.until_slots(&[unfinished.name()]).await;

    // Another node's permission, and one that is cut off in its number, lead nowhere and are cleared away.
    for boot in [healthy, stranger].map(|site| site.machine.node().boot_id()) {
        stranger.annotate("reboot", &format!("{boot}.1")).await;
        stranger.until("to lose what is not its own", |node| !node.notes.contains_key("reboot")).await;
    }
    goes_on(healthy).await;
    is_quiet(&world).await;
    let mut now = boot_ids(&sites).await;
    now.insert(healthy.name().to_owned(), boots[healthy.name()].clone());
    assert_eq!(now, boots, "only the healthy node rebooted");

    for site in bad {
        site.remove("reboot").await;
    }
    unfinished.remove("reboot-in-progress").await;
    unanswered.machine.restart_agent().unwrap();
    stranger.ask().await;
    join_all(sites[..7].iter().map(|site| site.until_rebooted())).await;
    let once = Expect::rebooted_once((1..8).map(|number| format!("node-{number}")));
    world.ends(&once.rebooted(&format!("node-{}", 8), 3)).await;
}

/// What only tells people something, or is the same as absent, holds up nothing and is put right.
async fn goes_on(site: Site<'_>) {
    for (key, text) in [("last-reboot", "null"), ("reboot", ""), ("reboot", "false")] {
        let boot = site.seen().await.boot_id;
        site.annotate("reboot-waiting", "for Godot").await;
        site.annotate(key, text).await;
        site.ask().await;
        site.until("to reboot", |node| node.boot_id != boot && value(node, "last-reboot")["outcome"] == "rebooted")
            .await;
        site.until_rebooted().await;
    }
}

/// Nobody writes, reads or lists in a loop while nothing changes.
async fn is_quiet(world: &World) {
    let then = Timestamp::now();
    tokio::time::sleep(QUIET).await;
    let requests = world.requests_since(then);
    assert!(requests.len() <= FEW, "{} requests in {QUIET:?}: {requests:#?}", requests.len());
}

async fn boot_ids(sites: &[Site<'_>]) -> BTreeMap<String, String> {
    join_all(sites.iter().map(async |site| (site.name().to_owned(), site.seen().await.boot_id)))
        .await
        .into_iter()
        .collect()
}

#[tokio::test]
async fn malformed_values_are_survived_at_every_moment_of_a_cycle() {
    let claims = claims![
        a_malformed_permission_in_the_drain_gives_back_and_stays_visible,
        a_malformed_progress_stops_the_drain_until_it_is_removed,
        a_malformed_progress_over_a_reboot_is_cleared_up_when_it_is_removed,
        an_answer_of_another_protocol_is_not_granted,
        a_node_without_an_agent_waits_and_says_so,
        an_agent_without_a_boot_id_file_goes_on_when_there_is_one,
        an_agent_with_an_empty_boot_id_file_goes_on_when_it_is_filled,
    ];
    let nodes = claims.len();
    World::start(nodes, nodes).await.hold(claims).await;
}

async fn a_malformed_permission_in_the_drain_gives_back_and_stays_visible(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.annotate("reboot", "NOW").await;
    site.until_given_back("GrantRemoved").await;
    site.until_waiting("Malformed").await;
    assert_eq!(site.seen().await.notes["reboot"], "NOW");
    site.remove("reboot").await;
    site.until_waiting("BackingOff").await;
    site.remove("reboot-needed").await;
    site.release().await;
    0
}

async fn a_malformed_progress_stops_the_drain_until_it_is_removed(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.annotate("reboot-in-progress", "soon").await;
    assert!(site.until_status("malformed").await.cordoned);
    // The drain is over now, and nothing follows from that.
    site.release().await;
    site.until_waiting("Malformed").await;
    assert!(site.seen().await.cordoned);
    site.remove("reboot-in-progress").await;
    site.until_given_back("ProgressRemoved").await;
    site.until_waiting("BackingOff").await;
    site.remove("reboot-needed").await;
    0
}

async fn a_malformed_progress_over_a_reboot_is_cleared_up_when_it_is_removed(site: Site<'_>) -> usize {
    site.stays_down();
    site.ask().await;
    site.until("to go down", |node| !node.ready).await;
    site.annotate("reboot-in-progress", "{").await;
    site.machine.bring_back().await.unwrap();
    assert!(site.until_status("malformed").await.cordoned);
    site.remove("reboot-in-progress").await;
    let ended = |node: &NodeSeen| value(node, "last-reboot")["outcome"] == "found-rebooted" && !node.cordoned;
    site.until("to find itself rebooted", ended).await;
    1
}

async fn an_answer_of_another_protocol_is_not_granted(site: Site<'_>) -> usize {
    site.machine.kill_agent().unwrap();
    site.annotate("reboot-request", &json!({"protocol": 99, "whatever": []}).to_string()).await;
    site.ask().await;
    site.until_waiting("AgentIncompatible").await;
    assert!(!site.seen().await.notes.contains_key("reboot"));
    site.machine.restart_agent().unwrap();
    site.until_rebooted().await;
    1
}

async fn a_node_without_an_agent_waits_and_says_so(site: Site<'_>) -> usize {
    site.machine.kill_agent().unwrap();
    site.ask().await;
    site.until_waiting("NoAgent").await;
    assert!(!site.seen().await.notes.contains_key("reboot"));
    site.machine.restart_agent().unwrap();
    site.until_rebooted().await;
    1
}

async fn an_agent_without_a_boot_id_file_goes_on_when_there_is_one(site: Site<'_>) -> usize {
    boot_id_comes_late(site, None).await
}

async fn an_agent_with_an_empty_boot_id_file_goes_on_when_it_is_filled(site: Site<'_>) -> usize {
    boot_id_comes_late(site, Some("")).await
}

async fn boot_id_comes_late(site: Site<'_>, content: Option<&str>) -> usize {
    let files = site.machine.node().files();
    let (late, fresh) = (files.dir().join("late"), files.dir().join("fresh"));
    if let Some(content) = content {
        std::fs::write(&late, content).unwrap();
    }
    site.machine.start_agent(&["--boot-id-file", late.to_str().unwrap()]).unwrap();
    site.ask().await;
    site.until_status("boot ID cannot be read").await;
    site.until_waiting("NoAgent").await;
    let seen = site.seen().await;
    assert!(phase(&seen).is_empty() && !seen.notes.contains_key("reboot-request"), "{seen:?}");
    // A link, so that the file is the machine's own after the reboot as well.
    std::os::unix::fs::symlink(files.boot_id(), &fresh).unwrap();
    std::fs::rename(&fresh, &late).unwrap();
    site.until_rebooted().await;
    1
}
