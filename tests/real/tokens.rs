//! Tokens that are worth nothing any more: the operator takes the next one from its file, without a restart.

use std::time::Duration;

use reboot_tests::{real::Install, referee::Expect, workload::Workload};
use tokio::time::sleep;

use crate::{
    health::FEW_REQUESTS,
    outages::patient,
    phases::Phase,
    stage::{Stage, UPDATE},
};

/// The shortest life that the API server gives to a token.
const LIFE: u32 = 600;
/// When none is valid any more that was issued before: the API server forgives a minute.
const EXPIRED: Duration = Duration::from_secs(LIFE as u64 + 90);

/// The API server comes back with another key for tokens, in a drain that ends while nobody is let in. kubelet, which
/// keeps tokens until they are old, brings new ones when it is started again.
pub(crate) async fn invalidated() {
    let stage = Stage::with(&patient(), 1).await;
    let before = stage.boot_id("node-1").await;
    stage.reach(Phase::Draining, "node-1").await;
    stage.node("node-2").announce_update(UPDATE).await.unwrap();
    stage.until_waiting("node-2", "QuotaUsed").await;
    let health = stage.health();
    // A key that is at hand.
    let key = stage.node("node-1").execute(&["cat", "/var/lib/kubelet/pki/kubelet.key"]).unwrap();
    stage.cluster.control_plane().invalidate_tokens(&key).await.unwrap();
    stage.go_on(Phase::Draining, "node-1").await;
    // The length of the outage.
    sleep(Duration::from_secs(30)).await;
    let refused = stage.cluster.control_plane().unauthenticated().unwrap();
    for node in stage.cluster.nodes() {
        let requests = refused.iter().filter(|address| **address == node.address()).count();
        println!("{}: {requests} requests answered 401", node.name());
        // On one of them is the controller as well.
        assert!((1..=2 * FEW_REQUESTS).contains(&requests), "{requests} requests of {} were answered 401", node.name());
    }
    stage.health().as_good_as(&health);
    assert_eq!(stage.boot_id("node-1").await, before, "nothing is rebooted unseen");
    for node in stage.cluster.nodes() {
        node.execute(&["systemctl", "restart", "kubelet"]).unwrap();
    }
    stage.until_back("node-1", &before).await;
    stage.until_rebooted("node-2").await;
    stage.ends(&Expect::rebooted_once(["node-1", "node-2"])).await;
}

/// Tokens of ten minutes in longer drains. kubelet replaces them in time, and nobody notices; where kubelet is down, the
/// agent is refused until kubelet is back.
pub(crate) async fn expired() {
    let drain = vec!["--drain-timeout=1h".to_owned()];
    let install = Install { agent: drain, token_seconds: Some(LIFE), ..Install::with_quota(2) };
    let stage = Stage::installed(&patient(), 2, &install, &Workload::new("web", 6)).await;
    let leader = stage.leader().await;
    let others: Vec<_> = stage.cluster.names().into_iter().filter(|node| *node != leader.node).collect();
    let (replaced, expired) = (others[0].as_str(), others[1].as_str());
    let before = stage.boot_id(expired).await;
    for node in [replaced, expired] {
        stage.reach(Phase::Draining, node).await;
    }
    let health = stage.health();
    stage.node(expired).execute(&["systemctl", "stop", "kubelet"]).unwrap();
    // The life of the tokens.
    sleep(EXPIRED).await;
    stage.health().as_good_as(&health);
    stage.go_on(Phase::Draining, replaced).await;
    stage.until_rebooted(replaced).await;
    stage.go_on(Phase::Draining, expired).await;
    // The length of the outage.
    sleep(Duration::from_secs(30)).await;
    assert_eq!(stage.boot_id(expired).await, before, "nothing is rebooted unseen");
    stage.node(expired).execute(&["systemctl", "start", "kubelet"]).unwrap();
    stage.until_back(expired, &before).await;

    let refused = stage.cluster.control_plane().unauthenticated().unwrap();
    println!("{} requests answered 401", refused.len());
    let address = stage.node(expired).address();
    assert!(refused.iter().all(|from| *from == address), "others than {expired} were refused: {refused:?}");
    assert!(!refused.is_empty(), "its token never expired");
    stage.ends(&Expect::rebooted_once([replaced, expired])).await;
}
