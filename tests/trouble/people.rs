//! What people do to Nodes with kubectl, at every moment of a cycle.

use jiff::Timestamp;
use reboot_tests::referee::{Expect, history::NodeSeen};
use serde_json::Value;

use crate::{
    site::{Site, phase, value},
    world::{World, claims},
};

#[tokio::test]
async fn what_people_annotate_is_done_and_what_they_undo_is_not_done_again_at_once() {
    let claims = claims![
        an_ask_is_done,
        a_pause_before_the_grant_holds_it_back,
        a_pause_in_the_drain_gives_back_and_its_removal_goes_on,
        a_pause_keeps_a_persons_now,
        a_pause_past_the_point_of_no_return_comes_too_late,
        what_update_engine_asked_comes_back_when_it_is_removed,
        an_update_that_is_taken_back_silently_is_not_rebooted_for,
        a_persons_ask_that_is_removed_is_gone,
        an_ask_that_is_removed_in_the_drain_gives_back,
        a_grant_that_is_removed_in_the_drain_is_not_given_again_at_once,
        a_force_that_is_taken_back_in_the_drain_is_gone,
        a_reboot_in_progress_that_is_removed_in_the_drain_gives_back,
        a_node_that_is_uncordoned_in_the_drain_is_left_to_whoever_did_it,
        a_persons_cordon_outlives_the_reboot,
        a_node_that_is_deleted_in_the_drain_frees_its_slot,
    ];
    let nodes = claims.len();
    World::start(nodes, nodes).await.hold(claims).await;
}

async fn an_ask_is_done(site: Site<'_>) -> usize {
    let boot = site.seen().await.boot_id;
    site.annotate("reboot-needed", "why, in words").await;
    assert_eq!(site.until_rebooted().await["why"], "why, in words");
    let seen = site.seen().await;
    assert!(seen.boot_id != boot && !seen.cordoned, "{seen:?}");
    // The shortest form that the protocol knows.
    site.annotate("reboot-needed", "").await;
    site.until("to reboot again", |node| node.boot_id != seen.boot_id).await;
    site.until_rebooted().await;
    2
}

async fn a_pause_before_the_grant_holds_it_back(site: Site<'_>) -> usize {
    site.annotate("reboot-paused", "database migration").await;
    site.ask().await;
    let waiting = site.until_waiting("Paused").await;
    assert!(waiting["message"].as_str().unwrap().contains("database migration"), "{waiting}");
    let seen = site.seen().await;
    assert!(!seen.notes.contains_key("reboot") && !seen.cordoned, "{seen:?}");
    // `false` is the same as absent.
    site.annotate("reboot-paused", "false").await;
    site.until("to be granted", |node| !phase(node).is_empty() || node.notes.contains_key("last-reboot")).await;
    site.remove("reboot-paused").await;
    site.until_rebooted().await;
    1
}

async fn a_pause_in_the_drain_gives_back_and_its_removal_goes_on(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.annotate("reboot-paused", "database migration").await;
    site.until_given_back("Paused").await;
    let waiting = site.until_waiting("Paused").await;
    assert!(waiting["message"].as_str().unwrap().contains("database migration"), "{waiting}");
    assert!(!site.seen().await.notes.contains_key("reboot"));
    site.remove("reboot-paused").await;
    site.until("to drain again", |node| phase(node) == "draining").await;
    site.release().await;
    site.until_rebooted().await;
    1
}

async fn a_pause_keeps_a_persons_now(site: Site<'_>) -> usize {
    site.annotate("reboot-paused", "first").await;
    site.force().await;
    assert!(!site.until_status("Paused").await.cordoned);
    site.anchor().await;
    site.remove("reboot-paused").await;
    site.until_anchored().await;
    site.annotate("reboot-paused", "second").await;
    site.until_given_back("Paused").await;
    assert_eq!(site.seen().await.notes["reboot"], "now");
    site.remove("reboot-paused").await;
    site.until("to drain again", |node| phase(node) == "draining").await;
    site.release().await;
    site.until_rebooted().await;
    1
}

async fn a_pause_past_the_point_of_no_return_comes_too_late(site: Site<'_>) -> usize {
    site.stays_down();
    site.ask().await;
    site.until("to go down", |node| !node.ready).await;
    site.annotate("reboot-paused", "too late").await;
    site.machine.bring_back().await.unwrap();
    site.until_rebooted().await;
    site.remove("reboot-paused").await;
    1
}

async fn what_update_engine_asked_comes_back_when_it_is_removed(site: Site<'_>) -> usize {
    site.annotate("reboot-paused", "not yet").await;
    site.machine.announce_update("4100.0.0").await.unwrap();
    let asks = |node: &NodeSeen| {
        let words = node.notes.get("reboot-needed").is_some_and(|why| why.starts_with("update_engine"));
        words && node.notes.contains_key("reboot-request")
    };
    site.until("to ask", asks).await;
    site.remove("reboot-needed").await;
    site.until("to ask again", asks).await;
    // In the drain its absence changes nothing either: update_engine still asks.
    site.anchor().await;
    site.remove("reboot-paused").await;
    site.until_anchored().await;
    site.remove("reboot-needed").await;
    site.release().await;
    assert_eq!(site.until_rebooted().await["osAfter"], "4100.0.0");
    1
}

async fn an_update_that_is_taken_back_silently_is_not_rebooted_for(site: Site<'_>) -> usize {
    site.anchor().await;
    site.machine.announce_update("4100.0.0").await.unwrap();
    site.until_anchored().await;
    site.machine.engine().reset();
    site.release().await;
    site.until_given_back("NotNeeded").await;
    site.until("to ask no more", |node| !node.notes.contains_key("reboot-needed")).await;
    0
}

async fn a_persons_ask_that_is_removed_is_gone(site: Site<'_>) -> usize {
    site.annotate("reboot-paused", "not yet").await;
    site.ask().await;
    site.until_waiting("Paused").await;
    site.remove("reboot-needed").await;
    let gone = |key: &'static str| move |node: &NodeSeen| !node.notes.contains_key(key);
    site.until("to withdraw its request", gone("reboot-request")).await;
    site.until("not to wait any more", gone("reboot-waiting")).await;
    site.remove("reboot-paused").await;
    0
}

async fn an_ask_that_is_removed_in_the_drain_gives_back(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.remove("reboot-needed").await;
    site.until_given_back("NotNeeded").await;
    site.until("to ask no more", |node| !node.notes.contains_key("reboot-request")).await;
    site.release().await;
    0
}

async fn a_grant_that_is_removed_in_the_drain_is_not_given_again_at_once(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.remove("reboot").await;
    site.until_given_back("GrantRemoved").await;
    let waiting = site.until_waiting("BackingOff").await;
    site.release().await;
    // What it waits for comes: L1.
    let last = site.until_rebooted().await;
    let time = |value: &Value| value.as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(time(&last["at"]) >= time(&waiting["until"]), "{waiting} {last}");
    1
}

async fn a_force_that_is_taken_back_in_the_drain_is_gone(site: Site<'_>) -> usize {
    site.anchor().await;
    site.force().await;
    site.until_anchored().await;
    site.annotate("reboot", "false").await;
    site.until_given_back("GrantRemoved").await;
    site.release().await;
    0
}

async fn a_reboot_in_progress_that_is_removed_in_the_drain_gives_back(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.remove("reboot-in-progress").await;
    site.until_given_back("ProgressRemoved").await;
    site.until_waiting("BackingOff").await;
    site.remove("reboot-needed").await;
    site.release().await;
    0
}

async fn a_node_that_is_uncordoned_in_the_drain_is_left_to_whoever_did_it(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.world.kubectl(&["uncordon", site.name()]).await;
    site.until_given_back("UncordonedByOther").await;
    site.until_waiting("BackingOff").await;
    site.remove("reboot-needed").await;
    site.release().await;
    0
}

async fn a_persons_cordon_outlives_the_reboot(site: Site<'_>) -> usize {
    site.cordon().await;
    site.drain_held().await;
    // Nor does giving back touch it.
    site.annotate("reboot-paused", "wait").await;
    let paused = |node: &NodeSeen| value(node, "last-reboot")["reason"] == "Paused";
    assert!(site.until("to give back", paused).await.cordoned);
    site.remove("reboot-paused").await;
    site.release().await;
    site.until_rebooted().await;
    assert!(site.seen().await.cordoned);
    site.uncordon().await;
    1
}

async fn a_node_that_is_deleted_in_the_drain_frees_its_slot(site: Site<'_>) -> usize {
    site.drain_held().await;
    let node = site.delete().await;
    let freed = |ledger: &Value| !ledger.to_string().contains(&format!("{:?}", site.name()));
    site.world.until_ledger("the slot of the deleted Node to be freed", freed).await;
    site.register_anew(node).await;
    site.until("to drain again", |node| phase(node) == "draining").await;
    site.release().await;
    assert_eq!(site.until_rebooted().await["why"], "asked of the new Node");
    1
}

/// Four nodes, one slot.
#[tokio::test]
async fn a_force_needs_no_slot_and_a_grant_that_is_removed_holds_up_nobody() {
    let world = World::start(4, 1).await;
    let [holder, removed, forced, other] = [1, 2, 3, 4].map(|number| world.site(number));
    holder.drain_held().await;
    removed.ask().await;
    removed.until_waiting("QuotaUsed").await;
    removed.machine.kill_agent().unwrap();

    forced.anchor().await;
    forced.force().await;
    forced.until_anchored().await;
    world.until_slots(&["node-1", "node-3"]).await;
    forced.release().await;
    assert!(forced.until_rebooted().await["id"].as_str().unwrap().contains(".now-"));

    // Its agent is dead, so the grant stays on the Node until a person removes it.
    holder.release().await;
    removed.until("to be granted", |node| node.notes.contains_key("reboot")).await;
    removed.remove("reboot").await;
    removed.until_waiting("GrantRemoved").await;
    other.ask().await;
    holder.until_rebooted().await;
    other.until_rebooted().await;
    removed.machine.restart_agent().unwrap();
    removed.until_waiting("GrantRemoved").await;
    assert!(!removed.seen().await.notes.contains_key("reboot"));
    // But whoever forces it, means it, and the reboot ends what the node was held back for.
    removed.force().await;
    let done = |node: &NodeSeen| value(node, "last-reboot")["outcome"] == "rebooted" && phase(node).is_empty();
    assert!(!removed.until("to have rebooted", done).await.cordoned);
    let all = Expect::rebooted_once(["node-1", "node-2", "node-3", "node-4"]);
    world.ends(&all).await;
}
