//! logind, PDBs and updates that say no.

use jiff::{SignedDuration, Timestamp};
use reboot_tests::{
    bus::{Answer, FakeEngine, Inhibitor},
    referee::{Declaration, Expect, history::NodeSeen},
    sim::Reboots,
};
use serde_json::Value;

use crate::{
    site::{Site, phase, value},
    world::{World, claims},
};

#[tokio::test]
async fn a_reboot_that_is_refused_or_comes_to_nothing_is_said_and_put_off() {
    let claims = claims![
        a_refusal_by_logind_is_told_in_its_own_words,
        a_lock_on_shutdowns_is_named_with_its_holder_and_nothing_is_drained_for_it,
        a_lost_reply_is_no_failure,
        a_call_that_hangs_is_made_again_and_cannot_be_taken_back,
        a_restarted_agent_calls_again,
        a_drain_that_takes_too_long_is_cut_short_where_the_policy_says_so,
        another_reboot_manager_is_warned_of,
        an_update_that_does_not_take_is_put_off_for_an_hour,
    ];
    let nodes = claims.len();
    World::start(nodes, nodes).await.hold(claims).await;
}

async fn a_refusal_by_logind_is_told_in_its_own_words(site: Site<'_>) -> usize {
    let words = "Operation denied by the administrator";
    let logind = site.machine.logind();
    logind.answer(Answer::Refuse("org.freedesktop.DBus.Error.AccessDenied".to_owned(), words.to_owned()));
    is_given_back(site, &[words]).await;
    assert_eq!(logind.requests(), 1, "it does not insist");
    logind.answer(Answer::Accept);
    site.force().await;
    site.until_rebooted().await;
    1
}

async fn a_lock_on_shutdowns_is_named_with_its_holder_and_nothing_is_drained_for_it(site: Site<'_>) -> usize {
    site.anchor().await;
    let logind = site.machine.logind();
    let (who, why) = ("Package Manager".to_owned(), "writing the boot loader".to_owned());
    logind.inhibitors(vec![Inhibitor { what: "shutdown:sleep".to_owned(), who, why, mode: "block".to_owned() }]);
    is_given_back(site, &["a lock blocks the shutdown", "Package Manager", "writing the boot loader"]).await;
    assert!(!site.anchor_is_evicted().await);
    assert_eq!(logind.requests(), 0);
    logind.inhibitors(Vec::new());
    site.release().await;
    site.force().await;
    site.until_rebooted().await;
    1
}

/// The cycle is given back, with these words in the annotation and in the Event, and the next one is put off.
async fn is_given_back(site: Site<'_>, words: &[&str]) {
    site.ask().await;
    let last = site.until_given_back("RebootRefused").await;
    let told = site.until_event("Warning", "GaveBack", "logind would not").await;
    for text in [last["detail"].as_str().unwrap(), told.as_str()] {
        for part in words {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
    }
    site.until_waiting("BackingOff").await;
    assert!(put_off(&site.seen().await) > SignedDuration::from_secs(20));
}

async fn a_lost_reply_is_no_failure(site: Site<'_>) -> usize {
    site.machine.logind().answer(Answer::Vanish);
    site.ask().await;
    site.until_rebooted().await;
    assert_eq!(site.machine.logind().requests(), 1);
    1
}

async fn a_call_that_hangs_is_made_again_and_cannot_be_taken_back(site: Site<'_>) -> usize {
    site.machine.logind().answer(Answer::Hang);
    site.ask().await;
    let begun = site.until("to pass the point of no return", |node| phase(node) == "rebooting").await;
    // The machine may go down at any moment now, so neither of these changes anything.
    site.annotate("reboot-paused", "stop").await;
    site.remove("reboot-in-progress").await;
    let restored = site.until("to restore what it is about", |node| phase(node) == "rebooting").await;
    assert_eq!(value(&begun, "reboot-in-progress")["id"], value(&restored, "reboot-in-progress")["id"]);
    site.until_event("Warning", "Restored", "cannot be taken back").await;
    site.machine.logind().answer(Answer::Accept);
    site.until_rebooted().await;
    site.remove("reboot-paused").await;
    1
}

async fn a_restarted_agent_calls_again(site: Site<'_>) -> usize {
    site.machine.logind().answer(Answer::Hang);
    site.ask().await;
    site.until("to pass the point of no return", |node| phase(node) == "rebooting").await;
    site.machine.kill_agent().unwrap();
    site.machine.logind().answer(Answer::Accept);
    site.machine.restart_agent().unwrap();
    site.until_rebooted().await;
    1
}

async fn a_drain_that_takes_too_long_is_cut_short_where_the_policy_says_so(site: Site<'_>) -> usize {
    site.world.declare(Declaration::Undrained(site.name().to_owned())).await;
    site.machine.start_agent(&["--drain-timeout", "2s", "--on-drain-timeout", "reboot"]).unwrap();
    site.block().await;
    site.ask().await;
    let last = site.until_rebooted().await;
    assert!(last["seconds"].as_u64() >= Some(2), "{last}");
    site.unblock().await;
    1
}

async fn another_reboot_manager_is_warned_of(site: Site<'_>) -> usize {
    site.machine.systemd().set("locksmithd.service", "active");
    site.machine.restart_agent().unwrap();
    site.until_event("Warning", "OtherRebootManager", "locksmithd.service is active").await;
    site.until_status("locksmithd.service is active").await;
    // It is a warning, not an obstacle.
    site.ask().await;
    site.until_rebooted().await;
    1
}

async fn an_update_that_does_not_take_is_put_off_for_an_hour(site: Site<'_>) -> usize {
    site.machine.set_reboots(Reboots { takes_update: false, ..Reboots::default() });
    site.machine.announce_update("4100.0.0").await.unwrap();
    let last = site.until_rebooted().await;
    assert!(last["osBefore"] == last["osAfter"] && last["sameVersion"] == 1, "{last}");
    site.machine.engine().set(FakeEngine::NEED_REBOOT, "4100.0.0").await.unwrap();
    site.until_waiting("BackingOff").await;
    let seen = site.seen().await;
    let left = put_off(&seen);
    assert!(left > SignedDuration::from_mins(50) && left <= SignedDuration::from_mins(61), "{left:?}: {seen:?}");
    // A person who asks is not held to that.
    site.ask().await;
    let boot = seen.boot_id;
    site.until("to reboot again", |node| node.boot_id != boot).await;
    site.until_rebooted().await;
    2
}

/// For how long the request says not to grant it.
fn put_off(node: &NodeSeen) -> SignedDuration {
    let request = value(node, "reboot-request");
    let not_before: Timestamp = request["notBefore"].as_str().unwrap().parse().unwrap();
    not_before.duration_since(Timestamp::now())
}

/// Three nodes, one slot.
#[tokio::test]
async fn a_drain_that_a_pdb_never_allows_is_given_up_and_the_others_go_first() {
    let world = World::create(3, 1).await;
    world.start_controller(&[]);
    world.cluster.start_agents(&["--drain-timeout", "3s", "--on-drain-blocked", "drain"]).unwrap();
    let [blocked, second, third] = [1, 2, 3].map(|number| world.site(number));
    blocked.block().await;
    blocked.ask().await;
    blocked.until("to drain", |node| phase(node) == "draining").await;
    second.ask().await;
    third.ask().await;
    blocked.until_status("PodDisruptionBudget").await;
    let last = blocked.until_given_back("DrainTimedOut").await;
    let told: &Value = &last["detail"];
    assert!(told.as_str().unwrap().contains("blocker-node-1"), "{last}");
    blocked.until_event("Warning", "GaveBack", "did not end in time").await;
    second.until_rebooted().await;
    third.until_rebooted().await;
    blocked.until_waiting("BackingOff").await;
    blocked.unblock().await;
    blocked.force().await;
    blocked.until_rebooted().await;
    world.ends(&Expect::rebooted_once(["node-1", "node-2", "node-3"])).await;
}

/// The same, with the look before the cordon that is the default.
#[tokio::test]
async fn a_node_whose_pod_a_pdb_never_lets_go_is_not_cordoned_and_names_it() {
    let world = World::create(3, 1).await;
    world.start_controller(&[]);
    world.cluster.start_agents(&[]).unwrap();
    let [blocked, second, third] = [1, 2, 3].map(|number| world.site(number));
    blocked.block().await;
    blocked.ask().await;
    let last = blocked.until_given_back("BlockedByBudget").await;
    let never =
        "default/blocker-node-1 is blocked by PodDisruptionBudget blocker-node-1, which never allows a disruption";
    assert!(last["detail"].as_str().unwrap().starts_with(never), "{last}");
    assert_eq!(last["seconds"], 0, "it was not even begun: {last}");
    blocked.until_event("Warning", "GaveBack", never).await;
    let waiting = blocked.until_waiting("BackingOff").await;
    assert!(waiting["message"].as_str().unwrap().contains(never), "{waiting}");
    second.ask().await;
    third.ask().await;
    second.until_rebooted().await;
    third.until_rebooted().await;
    // It comes back by itself.
    blocked.unblock().await;
    blocked.until_rebooted().await;
    world.ends(&Expect::rebooted_once(["node-1", "node-2", "node-3"])).await;
}
