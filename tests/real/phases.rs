//! The phases of a node's cycle, and how a scenario takes a node into one and out of it again.

use std::time::Duration;

use reboot_tests::{
    call::within,
    referee::history::NodeSeen,
    scene::{LIMIT, last_reboot, phase_of},
};
use tokio::time::sleep;

use crate::stage::{Stage, UPDATE};

/// How far a node's cycle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its agent has answered; a person's pause holds it there.
    Asked,
    /// It has been granted its reboot this very moment. Nothing holds it there: what falls now may fall a little later.
    Granted,
    /// One pod is left to go; it holds the drain.
    Draining,
    /// logind has the request. A delay lock holds the machine for the 5 s that logind has patience.
    Committed,
    /// The machine has been started again this very moment.
    Booted,
}

/// All of them, in order: one for each node of a cluster of five.
pub(crate) const PHASES: [Phase; 5] = [Phase::Asked, Phase::Granted, Phase::Draining, Phase::Committed, Phase::Booted];

impl Stage {
    /// Announces an update on the node and lets its cycle come so far.
    pub(crate) async fn reach(&self, phase: Phase, node: &str) {
        match phase {
            Phase::Asked => self.annotate(node, "reboot-paused", Some("held by the test")).await,
            Phase::Draining => self.anchor(node).await,
            Phase::Committed => self.delay_shutdowns(node),
            Phase::Granted | Phase::Booted => {}
        }
        self.node(node).announce_update(UPDATE).await.unwrap();
        match phase {
            Phase::Asked => {
                self.until_waiting(node, "Paused").await;
            }
            Phase::Granted => {
                self.until_node(node, "to be granted", |node| node.notes.contains_key("reboot")).await;
            }
            Phase::Draining => self.until_at_anchor(node).await,
            Phase::Committed => {
                let committed = |node: &NodeSeen| phase_of(node).as_deref() == Some("rebooting");
                self.until_node(node, "to reboot", committed).await;
                self.until_shutting_down(node).await;
            }
            Phase::Booted => self.node(node).until_boots(2).await.unwrap(),
        }
    }

    /// Lets the node go on.
    pub(crate) async fn go_on(&self, phase: Phase, node: &str) {
        match phase {
            Phase::Asked => self.annotate(node, "reboot-paused", None).await,
            Phase::Draining => self.weigh_anchor(node).await,
            Phase::Granted | Phase::Committed | Phase::Booted => {}
        }
    }

    /// Waits until the node serves under another boot ID than this one, with nothing of ours left on it.
    pub(crate) async fn until_back(&self, node: &str, boot_id: &str) -> NodeSeen {
        let settled = ["last-reboot", "reboot-fence", "reboot-status"];
        self.until_node(node, "to be back", |node| {
            let clean = node.notes.keys().all(|key| settled.contains(&key.as_str()));
            let known = !last_reboot(node).is_null();
            node.ready && !node.cordoned && node.boot_id != boot_id && clean && known
        })
        .await
    }

    /// Its boot ID, as the Node has it now.
    pub(crate) async fn boot_id(&self, node: &str) -> String {
        self.until_node(node, "to exist", |_| true).await.boot_id
    }

    /// Waits until logind has begun the shutdown. The Node shows the point of no return a moment before the agent itself
    /// knows that it has passed it: an agent that is cut off in that moment cannot know, and waits.
    async fn until_shutting_down(&self, node: &str) {
        let property = "busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager PreparingForShutdown";
        let property: Vec<_> = property.split(' ').collect();
        let begun = async {
            // A machine that is so far that it does not answer has begun as well.
            while self.node(node).execute(&property).is_ok_and(|answer| answer.trim() == "b false") {
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        within(LIMIT, format!("the shutdown of {node}"), begun).await.unwrap();
    }

    fn delay_shutdowns(&self, node: &str) {
        let hold = "systemd-run --quiet --unit=holder systemd-inhibit --what=shutdown --mode=delay --who=test --why=test sleep infinity";
        self.node(node).execute(&hold.split(' ').collect::<Vec<_>>()).unwrap();
    }
}
