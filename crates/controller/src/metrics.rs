//! The controller's metrics; the README has their table.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use reboot_core::Now;
use reboot_core::plan::Plan;
use reboot_core::reason::WaitReason;

/// Every state of a node, in the order of a cycle.
const STATES: [&str; 5] = ["idle", "waiting", "granted", "draining", "rebooting"];

/// What the controller counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Nodes by state.
    pub nodes: Family<StateLabels, Gauge>,
    /// Nodes that wait, by reason.
    pub waiting: Family<ReasonLabels, Gauge>,
    /// Slots taken.
    pub slots_used: Gauge,
    /// Slots that the quota allows.
    pub slots_limit: Gauge,
    /// How long the node has waited that has waited longest.
    pub oldest_request: Gauge,
    /// Whether this process leads.
    pub leader: Gauge,
    /// Malformed annotations, and the ledger when it is lost.
    pub malformed: Gauge,
}

/// The label of [`Metrics::nodes`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StateLabels {
    /// `idle`, `waiting`, `granted`, `draining` or `rebooting`.
    pub state: &'static str,
}

/// The label of [`Metrics::waiting`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ReasonLabels {
    /// One of [`WaitReason::CODES`].
    pub reason: &'static str,
}

impl Metrics {
    /// Metrics that the registry writes out.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let controller = registry.sub_registry_with_prefix("reboot_controller");
        controller.register("nodes", "Nodes by state", metrics.nodes.clone());
        controller.register("nodes_waiting", "Nodes that wait for a grant, by reason", metrics.waiting.clone());
        controller.register("slots_used", "Slots taken", metrics.slots_used.clone());
        controller.register("slots_limit", "Slots that the quota allows", metrics.slots_limit.clone());
        let oldest = metrics.oldest_request.clone();
        controller.register_with_unit(
            "oldest_request_age",
            "Age of the oldest ungranted request",
            Unit::Seconds,
            oldest,
        );
        controller.register("leader", "1 while this process holds the lease", metrics.leader.clone());
        let malformed = metrics.malformed.clone();
        controller.register("malformed_inputs", "Malformed annotations, and the ledger if it is lost", malformed);
        metrics.expose_all();
        metrics
    }

    /// A gauge that is missing until its first node cannot be alerted on, so all labels appear from the start.
    fn expose_all(&self) {
        for state in STATES {
            drop(self.nodes.get_or_create(&StateLabels { state }));
        }
        for reason in WaitReason::CODES {
            drop(self.waiting.get_or_create(&ReasonLabels { reason }));
        }
    }

    /// Shows what a plan counted.
    pub fn show(&self, plan: &Plan, now: Now) {
        let census = &plan.census;
        let busy = census.waiting + census.granted + census.draining + census.rebooting;
        let idle = census.nodes.saturating_sub(busy);
        let counts = [idle, census.waiting, census.granted, census.draining, census.rebooting];
        for (state, count) in STATES.into_iter().zip(counts) {
            self.nodes.get_or_create(&StateLabels { state }).set(gauge(count));
        }
        for reason in WaitReason::CODES {
            let count = plan.waits.values().filter(|wait| wait.code() == reason).count();
            self.waiting.get_or_create(&ReasonLabels { reason }).set(gauge(count));
        }
        self.slots_used.set(gauge(census.slots));
        self.slots_limit.set(gauge(census.limit));
        self.malformed.set(gauge(census.malformed));
        let age = census.oldest_request.map_or(0, |since| now.wall.duration_since(since).as_secs());
        self.oldest_request.set(age.max(0));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
