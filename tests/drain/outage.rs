//! An API server that goes away in the middle of a drain.

use reboot_tests::{proxy::Fault, referee::Expect};
use serde_json::json;

use crate::{
    pods::{lasting, pod},
    site::EVICTION,
    stage::Stage,
};

/// Some evictions were accepted before, one finds nobody there, one waits for its budget all the while.
#[tokio::test]
async fn an_api_server_that_restarts_in_the_drain_loses_no_eviction_and_gets_none_twice() {
    let stage = Stage::set(1, 1).await;
    let site = stage.site(1);
    site.make_namespace().await;
    let proxy = site.agent_behind_proxy(&[]).await;
    let left = site.drain_one_of_two().await;
    site.create(lasting(pod("early"))).await;
    site.until_ending("early").await;

    proxy.set_for(EVICTION, Fault::Hold);
    site.create(lasting(pod("late"))).await;
    proxy.until_met(1).await.unwrap();
    stage.cluster.control_plane().kill_apiserver().unwrap();
    proxy.set(Fault::None);
    proxy.until_answered(1).await.unwrap();
    stage.cluster.control_plane().restart_apiserver().await.unwrap();

    site.until_ending("late").await;
    site.budget("pair", json!({"minAvailable": 0}), 1).await;
    site.until_ending(&left).await;
    let pods = ["one", "two", "early", "late"];
    for name in pods {
        site.end(name).await;
    }
    site.until_rebooted().await;
    for name in pods {
        let answers = site.answers(name);
        let accepted = answers.iter().filter(|code| **code == 201).count();
        // A budget of which nothing is heard for a while is tried: 429. An API server that has just started and has not
        // read the roles yet forbids everything: 403.
        assert!(accepted == 1 && answers.iter().all(|code| [201, 403, 429].contains(code)), "{name}: {answers:?}");
    }
    stage.ends(&Expect::rebooted_once(["node-1"])).await;
}
