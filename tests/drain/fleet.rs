//! A fleet that updates itself, under one budget that lets one pod go at a time.

use jiff::{SignedDuration, Timestamp};
use reboot_tests::{
    control_plane::audit::{Request, tally},
    referee::Expect,
    workload::Workload,
};

use crate::stage::Stage;

/// Five nodes, one at a time, 20 pods of one Deployment whose replacements take a second to become Ready.
#[tokio::test]
async fn five_nodes_under_one_budget_cost_few_requests_and_no_time_beyond_that_of_the_replacements() {
    let stage = Stage::set(5, 1).await;
    stage.cluster.start_agents(&[]).unwrap();
    Workload::new("web", 20).annotated("testbed/ready-after", "1s").deploy(&stage.client()).await.unwrap();
    let then = Timestamp::now();
    stage.cluster.announce_update("4100.0.0").await.unwrap();
    let nodes = stage.cluster.names();
    for node in &nodes {
        stage.until_rebooted(node).await;
    }
    let requests = stage.requests(then);
    let evictions: Vec<&Request> = requests.iter().filter(|request| request.resource == "pods/eviction").collect();
    let (accepted, refused) = (count(&evictions, 201), count(&evictions, 429));
    let told = format!("{accepted} accepted, {refused} refused, {} in all: {:#?}", requests.len(), tally(&requests));
    assert_eq!(accepted + refused, evictions.len(), "{told}");
    assert_eq!(refused, 0, "{told}");
    // A conflict is not of the operator's making: somebody else has written to the Node at that moment.
    let answered = requests.iter().filter(|request| request.code != 409).count();
    assert!(answered <= 120, "{told}");
    let took = requests.last().unwrap().at.duration_since(requests[0].at);
    // A second for each replacement, and a second and a half for each node's reboot.
    let bound = SignedDuration::from_millis(i64::try_from(accepted * 1000 + 5 * 1500).unwrap());
    assert!(took < bound * 2, "{took:#} of {bound:#}; {told}");
    stage.ends(&Expect::rebooted_once(nodes)).await;
}

fn count(evictions: &[&Request], code: u16) -> usize {
    evictions.iter().filter(|request| request.code == code).count()
}
