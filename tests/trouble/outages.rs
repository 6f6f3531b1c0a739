//! The API server, the bus and `update_engine` fail in the middle of a cycle, each in every way it can, and come back.

use std::time::Duration;

use reboot_tests::{
    bus::{FakeEngine, Manner},
    proxy::{Cut, Fault, Proxy},
    referee::{Expect, history::NodeSeen},
    sim::Reboots,
};

use crate::{
    site::{Site, value},
    world::{LIMIT, World, claims},
};

/// How long a fault lasts: long enough for a loop without backoff to show.
const FAULT: Duration = Duration::from_secs(4);
/// Longer than the operator waits for any answer.
const SILENCE: Duration = Duration::from_secs(12);
/// How many requests a process may send in that time: it tries again after 0.5, 1, 2, … seconds, and its watches do.
const FEW: usize = 60;

#[tokio::test]
async fn a_cycle_survives_an_api_server_that_dies_or_hangs() {
    let world = World::start(2, 1).await;
    let [first, second] = [1, 2].map(|number| world.site(number));
    let control_plane = world.cluster.control_plane();
    // Killed in the drain.
    first.drain_held().await;
    second.ask().await;
    second.until_waiting("QuotaUsed").await;
    world.restart_apiserver().await;
    first.release().await;
    first.until_rebooted().await;
    second.until_rebooted().await;
    // Killed while the machine is down, which boots before the API server is back.
    first.stays_down();
    first.ask().await;
    first.machine.until_off(LIMIT).await.unwrap();
    control_plane.kill_apiserver().unwrap();
    assert!(first.machine.bring_back().await.is_err(), "kubelet cannot report");
    world.restart_apiserver().await;
    first.machine.node().report().await.unwrap();
    first.until_rebooted().await;
    first.machine.set_reboots(Reboots::default());
    // Silent while the drain ends: the agent's calls come to nothing.
    second.drain_held().await;
    second.release().await;
    control_plane.pause_apiserver().unwrap();
    tokio::time::sleep(SILENCE).await;
    control_plane.resume_apiserver().unwrap();
    second.until_rebooted().await;
    // Silent while the machine boots.
    second.stays_down();
    second.ask().await;
    second.machine.until_off(LIMIT).await.unwrap();
    control_plane.pause_apiserver().unwrap();
    let back = second.machine.bring_back();
    let resumed = async {
        tokio::time::sleep(FAULT).await;
        control_plane.resume_apiserver().unwrap();
    };
    tokio::join!(back, resumed).0.unwrap();
    second.until_rebooted().await;
    world.ends(&Expect::default().rebooted("node-1", 2).rebooted("node-2", 3)).await;
}

#[tokio::test]
async fn an_agent_survives_whatever_fails_around_it() {
    let claims = claims![
        throttled_it_waits_and_goes_on,
        refused_with_errors_it_waits_and_goes_on,
        told_that_everything_is_expired_it_lists_again,
        unanswered_it_goes_on_when_answered,
        not_told_whether_its_writes_were_made_it_finds_out,
        watches_that_end_are_begun_again,
        a_node_that_is_replaced_while_nobody_can_see_it_is_another_node,
        the_bus_dies_while_the_node_waits,
        the_bus_dies_in_the_drain,
        update_engine_is_restarted_while_the_node_waits,
        update_engine_is_gone_at_the_end_of_the_drain,
        update_engine_that_talks_nonsense_asks_for_nothing,
    ];
    let nodes = claims.len();
    World::start(nodes, nodes).await.hold(claims).await;
}

async fn throttled_it_waits_and_goes_on(site: Site<'_>) -> usize {
    drain_ends_under(site, Fault::Status(429), FAULT).await
}

async fn refused_with_errors_it_waits_and_goes_on(site: Site<'_>) -> usize {
    drain_ends_under(site, Fault::Status(500), FAULT).await
}

async fn told_that_everything_is_expired_it_lists_again(site: Site<'_>) -> usize {
    drain_ends_under(site, Fault::Status(410), FAULT).await
}

async fn unanswered_it_goes_on_when_answered(site: Site<'_>) -> usize {
    drain_ends_under(site, Fault::Hang, SILENCE).await
}

/// The drain ends while the agent's requests fail, and nothing comes of that before they succeed again.
async fn drain_ends_under(site: Site<'_>, fault: Fault, lasts: Duration) -> usize {
    let proxy = site.start_agent_behind_proxy().await;
    let boot = site.drain_held().await.boot_id;
    bad_for(&proxy, "reboot-agent", fault, lasts, site.release()).await;
    assert_eq!(site.seen().await.boot_id, boot);
    site.until_rebooted().await;
    1
}

/// Breaks all connections, and then every request fails for so long; `meanwhile` happens at the beginning.
async fn bad_for(proxy: &Proxy, program: &str, fault: Fault, lasts: Duration, meanwhile: impl Future<Output = ()>) {
    proxy.set(fault);
    proxy.cut(Cut::Break);
    meanwhile.await;
    let before = proxy.requests(program);
    tokio::time::sleep(lasts).await;
    let requests = proxy.requests(program) - before;
    assert!(requests <= FEW, "{program} sent {requests} requests in {lasts:?} of {fault:?}");
    proxy.set(Fault::None);
}

async fn not_told_whether_its_writes_were_made_it_finds_out(site: Site<'_>) -> usize {
    let proxy = site.start_agent_behind_proxy().await;
    // For the whole cycle: not one write is answered.
    proxy.set(Fault::LostAnswer);
    site.ask().await;
    site.until_rebooted().await;
    let requests = proxy.requests("reboot-agent");
    assert!(requests <= 2 * FEW, "{requests} requests for one cycle");
    1
}

async fn watches_that_end_are_begun_again(site: Site<'_>) -> usize {
    let proxy = site.start_agent_behind_proxy().await;
    site.annotate("reboot-paused", "not yet").await;
    site.ask().await;
    site.until_waiting("Paused").await;
    proxy.cut(Cut::Expire);
    site.anchor().await;
    site.remove("reboot-paused").await;
    site.until_anchored().await;
    proxy.cut(Cut::End);
    site.release().await;
    site.until_rebooted().await;
    1
}

async fn a_node_that_is_replaced_while_nobody_can_see_it_is_another_node(site: Site<'_>) -> usize {
    let proxy = site.start_agent_behind_proxy().await;
    site.drain_held().await;
    bad_for(&proxy, "reboot-agent", Fault::Status(500), FAULT, async {
        site.register_anew(site.delete().await).await;
        site.release().await;
    })
    .await;
    assert_eq!(site.until_rebooted().await["why"], "asked of the new Node");
    1
}

async fn the_bus_dies_while_the_node_waits(site: Site<'_>) -> usize {
    waits_for_its_update(site).await;
    site.machine.kill_bus().await.unwrap();
    site.anchor().await;
    site.remove("reboot-paused").await;
    // What update_engine asked still stands.
    site.until_anchored().await;
    site.machine.restart_bus().await.unwrap();
    site.release().await;
    assert_eq!(site.until_rebooted().await["osAfter"], "4100.0.0");
    1
}

async fn the_bus_dies_in_the_drain(site: Site<'_>) -> usize {
    site.drain_held().await;
    site.machine.kill_bus().await.unwrap();
    site.release().await;
    site.until_status("logind does not answer").await;
    site.machine.restart_bus().await.unwrap();
    site.until_rebooted().await;
    assert_eq!(site.machine.logind().requests(), 1);
    1
}

async fn update_engine_is_restarted_while_the_node_waits(site: Site<'_>) -> usize {
    waits_for_its_update(site).await;
    let engine = site.machine.engine();
    engine.stop().await;
    site.anchor().await;
    site.remove("reboot-paused").await;
    site.until_anchored().await;
    // What it knew but for the version.
    engine.set_silently(FakeEngine::NEED_REBOOT, "0.0.0");
    engine.resume().await.unwrap();
    site.release().await;
    site.until_rebooted().await;
    1
}

async fn update_engine_is_gone_at_the_end_of_the_drain(site: Site<'_>) -> usize {
    site.anchor().await;
    site.machine.announce_update("4100.0.0").await.unwrap();
    site.until_anchored().await;
    site.machine.engine().stop().await;
    site.release().await;
    assert_eq!(site.until_rebooted().await["osAfter"], "4100.0.0");
    1
}

async fn update_engine_that_talks_nonsense_asks_for_nothing(site: Site<'_>) -> usize {
    let engine = site.machine.engine();
    engine.set("UPDATE_STATUS_UPDATED_NEED_REBOOT\u{7}", "\u{1b}[31m").await.unwrap();
    engine.set("UPDATE_STATUS_FROBNICATING", "").await.unwrap();
    engine.answer(Manner::Nonsense);
    for _ in 0..50 {
        engine.broadcast(&("nonsense", 7_u32)).await.unwrap();
    }
    tokio::time::sleep(FAULT).await;
    let seen = site.seen().await;
    assert!(!seen.notes.contains_key("reboot-needed"), "{seen:?}");
    engine.answer(Manner::Sense);
    site.machine.announce_update("4100.0.0").await.unwrap();
    site.until_rebooted().await;
    1
}

/// Paused, with an update that waits for its reboot.
async fn waits_for_its_update(site: Site<'_>) {
    site.annotate("reboot-paused", "not yet").await;
    site.machine.announce_update("4100.0.0").await.unwrap();
    site.until_waiting("Paused").await;
}

#[tokio::test]
async fn the_controller_survives_whatever_the_api_server_does() {
    let world = World::create(2, 1).await;
    let [first, second] = [1, 2].map(|number| world.site(number));
    let control_plane = world.cluster.control_plane();
    let proxy = Proxy::start(&control_plane.kubeconfig()).await.unwrap();
    let kubeconfig = proxy.kubeconfig(&control_plane.kubeconfig_of("reboot-controller").unwrap()).unwrap();
    world.start_controller(&["--kubeconfig", kubeconfig.to_str().unwrap()]);
    world.cluster.start_agents(&[]).unwrap();
    let mut rounds = 0;
    for (fault, lasts) in [429, 500, 410]
        .map(|code| (Fault::Status(code), FAULT))
        .into_iter()
        .chain([(Fault::Hang, SILENCE), (Fault::LostAnswer, FAULT)])
    {
        // One slot is taken when it begins and freed while it lasts; another node waits for it.
        let begun = last_id(&second.seen().await);
        first.drain_held().await;
        second.ask().await;
        second.until_waiting("QuotaUsed").await;
        bad_for(&proxy, "reboot-controller", fault, lasts, first.release()).await;
        first.until_rebooted().await;
        second.until("to have rebooted", |node| last_id(node) != begun).await;
        second.until_rebooted().await;
        rounds += 1;
    }
    for how in [Cut::End, Cut::Break, Cut::Expire] {
        proxy.cut(how);
        first.ask().await;
        first.until("to be granted", |node| node.notes.contains_key("reboot") || !node.ready).await;
        first.until_rebooted().await;
    }
    world.ends(&Expect::default().rebooted("node-1", rounds + 3).rebooted("node-2", rounds)).await;
}

fn last_id(node: &NodeSeen) -> String {
    value(node, "last-reboot")["id"].as_str().unwrap_or_default().to_owned()
}
