//! The ledger of slots, taken away or changed under a cycle: it is never believed to be empty.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use reboot_tests::{call::until, referee::Expect};
use serde_json::{Value, json};

use crate::world::{LIMIT, NAMESPACE, World, ledger};

const NAME: &str = "reboot-slots";

/// How long a ledger cannot be rebuilt, and what a loop without patience would exceed in that time.
const WHILE: Duration = Duration::from_secs(4);
const MANY: usize = 100;

/// What somebody does to the ledger.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Deleted,
    Garbled,
    Emptied,
    OfANewerProtocol,
    /// Deleted, and created again from a copy that was made when no slot was taken.
    Restored,
}

const ALL: [Damage; 5] =
    [Damage::Deleted, Damage::Garbled, Damage::Emptied, Damage::OfANewerProtocol, Damage::Restored];

#[tokio::test]
async fn a_damaged_ledger_is_rebuilt_with_the_cycle_in_progress_and_the_quota_kept() {
    let world = World::start(3, 2).await;
    let [first, second, third] = [1, 2, 3].map(|number| world.site(number));
    world.until_slots(&[]).await;
    let copy = maps(&world).get(NAME).await.unwrap();
    for damage in ALL {
        first.drain_held().await;
        world.until_slots(&["node-1"]).await;
        do_damage(&world, damage, &copy).await;
        // Were the ledger believed to be empty, two more would be granted.
        second.drain_held().await;
        third.ask().await;
        third.until_waiting("QuotaUsed").await;
        world.until_slots(&["node-1", "node-2"]).await;
        is_complete(&world, damage).await;
        first.release().await;
        second.release().await;
        for site in [first, second, third] {
            site.until_rebooted().await;
        }
        world.until_slots(&[]).await;
    }
    let rounds = ALL.len();
    let expect = Expect::default().rebooted("node-1", rounds).rebooted("node-2", rounds).rebooted("node-3", rounds);
    let log = world.controller_log();
    world.ends(&expect).await;
    assert_eq!(log.matches("rebuilding the ledger").count(), rounds + 1, "once for each damage, and at the start");
}

#[tokio::test]
async fn a_ledger_that_is_damaged_while_nobody_needs_it_is_made_whole_at_once() {
    let world = World::start(1, 1).await;
    world.until_slots(&[]).await;
    let copy = maps(&world).get(NAME).await.unwrap();
    for damage in ALL {
        do_damage(&world, damage, &copy).await;
        let whole = |map: Option<&ConfigMap>| map.is_some_and(speaks_for_itself);
        until(LIMIT, format!("{damage:?}"), maps(&world), NAME, whole).await.unwrap();
    }
    world.ends(&Expect::default()).await;
}

#[tokio::test]
async fn a_new_controller_does_not_believe_a_restored_ledger() {
    let world = World::start(2, 1).await;
    let [first, second] = [1, 2].map(|number| world.site(number));
    world.until_slots(&[]).await;
    let copy = maps(&world).get(NAME).await.unwrap();
    first.drain_held().await;
    second.ask().await;
    second.until_waiting("QuotaUsed").await;
    world.kill_controller();
    do_damage(&world, Damage::Restored, &copy).await;
    world.forget_leader().await;
    world.start_controller(&[]);
    world.until_slots(&["node-1"]).await;
    is_complete(&world, Damage::Restored).await;
    let seen = second.seen().await;
    assert!(!seen.notes.contains_key("reboot") && !seen.cordoned, "{seen:?}");
    first.release().await;
    first.until_rebooted().await;
    second.until_rebooted().await;
    world.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

#[tokio::test]
async fn a_ledger_that_cannot_be_rebuilt_is_said_grants_nothing_and_costs_little() {
    let world = World::start(2, 1).await;
    world.until_slots(&[]).await;
    let then = Timestamp::now();
    let immutable = json!({"immutable": true, "data": {"ledger": "{"}});
    maps(&world).patch(NAME, &PatchParams::default(), &Patch::Merge(immutable)).await.unwrap();
    let sites = [1, 2].map(|number| world.site(number));
    for site in sites {
        site.ask().await;
        site.until_waiting("LedgerLost").await;
    }
    tokio::time::sleep(WHILE).await;
    for site in sites {
        assert!(!site.seen().await.notes.contains_key("reboot"));
    }
    let requests = world.requests_since(then).len();
    assert!(requests < MANY, "{requests} requests in vain");
    maps(&world).delete(NAME, &DeleteParams::default()).await.unwrap();
    for site in sites {
        site.until_rebooted().await;
    }
    world.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

async fn do_damage(world: &World, damage: Damage, copy: &ConfigMap) {
    let patch = |ledger: Value| json!({"data": {"ledger": ledger}});
    let merge = match damage {
        Damage::Deleted => {
            maps(world).delete(NAME, &DeleteParams::default()).await.unwrap();
            return;
        }
        Damage::Restored => {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let restored = ConfigMap { metadata, ..copy.clone() };
            // It would create the ConfigMap itself as soon as there is none.
            world.behind_its_back(replace(world, &restored)).await;
            return;
        }
        Damage::Garbled => patch(json!("{\"protocol\":1,\"slots\":")),
        Damage::Emptied => patch(Value::Null),
        Damage::OfANewerProtocol => {
            let map = maps(world).get(NAME).await.unwrap();
            let newer = json!({"protocol": 2, "complete": map.metadata.uid, "slots": [], "more": true});
            patch(json!(newer.to_string()))
        }
    };
    maps(world).patch(NAME, &PatchParams::default(), &Patch::Merge(merge)).await.unwrap();
}

async fn replace(world: &World, restored: &ConfigMap) {
    maps(world).delete(NAME, &DeleteParams::default()).await.unwrap();
    maps(world).create(&PostParams::default(), restored).await.unwrap();
}

/// The ledger speaks the protocol again, and is the very object that was completed.
async fn is_complete(world: &World, damage: Damage) {
    let map = maps(world).get(NAME).await.unwrap();
    assert!(speaks_for_itself(&map), "{damage:?}: {map:?}");
}

fn speaks_for_itself(map: &ConfigMap) -> bool {
    let ledger = ledger(map);
    ledger["protocol"] == 1 && ledger["complete"].as_str() == map.metadata.uid.as_deref()
}

fn maps(world: &World) -> Api<ConfigMap> {
    Api::namespaced(world.client(), NAMESPACE)
}
