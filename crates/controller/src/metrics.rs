//! The controller's metrics; the README has their table.

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use reboot_core::Now;
use reboot_core::plan::Plan;
use reboot_core::reason::{EndReason, WaitReason};
use reboot_core::values::{LastReboot, Outcome};

/// Every state of a node, in the order of a cycle.
const STATES: [&str; 5] = ["idle", "waiting", "granted", "draining", "rebooting"];

/// Upper bounds in seconds, from an empty node to a drain that takes an hour.
const SECONDS: [f64; 10] = [1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// What the controller counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Nodes by state.
    pub nodes: Family<StateLabels, Gauge>,
    /// Nodes that wait, by reason.
    pub waiting: Family<ReasonLabels, Gauge>,
    /// Nodes whose latest update did not take.
    pub same_version: Gauge,
    /// Slots taken.
    pub slots_used: Gauge,
    /// Slots that the quota allows.
    pub slots_limit: Gauge,
    /// How long the node has waited that has waited longest, in seconds; nodes that a person keeps back do not count.
    pub oldest_request: Gauge,
    /// How long the slot is taken that has been taken longest, in seconds.
    pub oldest_slot: Gauge,
    /// Cycles that ended, by how.
    pub cycles: Family<CycleLabels, Counter>,
    /// How long the drains of the cycles took that ended with a reboot.
    pub drain_seconds: Histogram,
    /// How long these cycles took, from the cordon to the Ready node.
    pub cycle_seconds: Histogram,
    /// Whether this process leads.
    pub leader: Gauge,
    /// Malformed annotations, over all Nodes.
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

/// The label of [`Metrics::cycles`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CycleLabels {
    /// One of [`EndReason::ALL`].
    pub reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            nodes: Family::default(),
            waiting: Family::default(),
            same_version: Gauge::default(),
            slots_used: Gauge::default(),
            slots_limit: Gauge::default(),
            oldest_request: Gauge::default(),
            oldest_slot: Gauge::default(),
            cycles: Family::default(),
            drain_seconds: Histogram::new(SECONDS),
            cycle_seconds: Histogram::new(SECONDS),
            leader: Gauge::default(),
            malformed: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Metrics that the registry writes out.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let controller = registry.sub_registry_with_prefix("reboot_controller");
        controller.register("nodes", "Nodes by state", metrics.nodes.clone());
        controller.register("nodes_waiting", "Nodes that wait for a grant, by reason", metrics.waiting.clone());
        let help = "Nodes that run the version from before their latest reboot for an update";
        controller.register("nodes_same_version", help, metrics.same_version.clone());
        controller.register("slots_used", "Slots taken", metrics.slots_used.clone());
        controller.register("slots_limit", "Slots that the quota allows", metrics.slots_limit.clone());
        let (request, slot) = (metrics.oldest_request.clone(), metrics.oldest_slot.clone());
        let help = "Age of the oldest request that waits and that no pause, selector or quota of zero keeps back";
        controller.register_with_unit("oldest_request_age", help, Unit::Seconds, request);
        controller.register_with_unit("oldest_slot_age", "Age of the oldest slot", Unit::Seconds, slot);
        controller.register("cycles", "Cycles that ended, by how", metrics.cycles.clone());
        let (drain, cycle) = (metrics.drain_seconds.clone(), metrics.cycle_seconds.clone());
        controller.register_with_unit("drain", "Time from the cordon to the point of no return", Unit::Seconds, drain);
        controller.register_with_unit("cycle", "Time from the cordon to the Ready node", Unit::Seconds, cycle);
        controller.register("leader", "1 while this process holds the lease", metrics.leader.clone());
        let malformed = metrics.malformed.clone();
        controller.register("malformed_annotations", "Malformed annotations, over all Nodes", malformed);
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
        for reason in EndReason::ALL {
            drop(self.cycles.get_or_create(&CycleLabels { reason: reason.code() }));
        }
    }

    /// Shows what a plan counted; by the default one all are zero.
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
        self.same_version.set(gauge(census.same_version));
        self.slots_used.set(gauge(census.slots));
        self.slots_limit.set(gauge(census.limit));
        self.malformed.set(gauge(census.malformed));
        let age = |since: Option<Timestamp>| since.map_or(0, |since| now.wall.duration_since(since).as_secs().max(0));
        self.oldest_request.set(age(census.oldest_request));
        self.oldest_slot.set(age(census.oldest_slot));
    }

    /// Counts a cycle that its agent reported as ended. The agent's own process does not live to be asked: it ends with
    /// the machine a moment after the drain.
    pub fn ended(&self, last: &LastReboot) {
        self.cycles.get_or_create(&CycleLabels { reason: last.reason.code() }).inc();
        if last.outcome == Outcome::Rebooted {
            self.drain_seconds.observe(seconds(last.drain_seconds));
            self.cycle_seconds.observe(seconds(last.seconds));
        }
    }
}

fn seconds(whole: u64) -> f64 {
    u32::try_from(whole).unwrap_or(u32::MAX).into()
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
