//! The agent's metrics; the README has their table.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use reboot_core::drain::Refusal;
use reboot_core::step::{EvictReply, Means};

/// What the agent counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Evictions and deletions of pods by how they were answered.
    pub evictions: Family<EvictionLabels, Counter>,
    /// Whether update_engine is heard.
    pub update_engine_connected: Gauge,
    /// Malformed annotations on the Node.
    pub malformed: Gauge,
}

/// The label of [`Metrics::evictions`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EvictionLabels {
    /// `evicted`, `deleted` (without asking a budget), or `refused`.
    pub result: &'static str,
    /// Why it was refused; empty where it was not.
    pub reason: &'static str,
}

impl EvictionLabels {
    /// The labels of an eviction by these means that was answered like this.
    pub fn of(means: Means, reply: &EvictReply) -> Self {
        match (reply, means) {
            (EvictReply::Accepted, Means::Eviction) => Self { result: "evicted", reason: "" },
            (EvictReply::Accepted, Means::Deletion) => Self { result: "deleted", reason: "" },
            (EvictReply::Refused(refusal), _) => Self { result: "refused", reason: refusal.code() },
        }
    }
}

impl Metrics {
    /// Metrics that the registry writes out.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let agent = registry.sub_registry_with_prefix("reboot_agent");
        agent.register("evictions", "Evictions and deletions of pods, by result and reason", metrics.evictions.clone());
        let connected = metrics.update_engine_connected.clone();
        agent.register("update_engine_connected", "1 while update_engine is heard on the bus", connected);
        let malformed = metrics.malformed.clone();
        agent.register("malformed_annotations", "Malformed annotations on this Node", malformed);
        metrics.expose_all();
        metrics
    }

    /// A counter that is missing until its first event cannot be alerted on, so all labels appear from the start.
    fn expose_all(&self) {
        let refused = Refusal::CODES.map(|reason| EvictionLabels { result: "refused", reason });
        let gone = [Means::Eviction, Means::Deletion].map(|means| EvictionLabels::of(means, &EvictReply::Accepted));
        for labels in refused.into_iter().chain(gone) {
            drop(self.evictions.get_or_create(&labels));
        }
    }
}
