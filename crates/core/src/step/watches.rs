//! What has to be watched for the next decisions: everything else costs the API server nothing.

use super::Situation;
use super::drain::{self, Stage};
use super::{preflight, volumes};
use crate::values::Phase;

/// What has to be watched, beside the Node and update_engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watches {
    /// The pods of the node, and every `PodDisruptionBudget`.
    pub pods: bool,
    /// Every `VolumeAttachment`: the API server cannot select those of one node.
    pub volumes: bool,
    /// Whether a lock blocks shutdowns. logind is asked once, when this begins.
    pub lock: bool,
}

/// Decides what to watch.
///
/// Pods and budgets from the grant on, so that what is looked at before the cordon costs the drain nothing.
/// Volumes only at the end of a drain, once the pods are gone, and only where one of these had a claim.
pub fn watches(s: &Situation<'_>) -> Watches {
    let Some(progress) = s.node.in_progress.get().filter(|progress| Some(progress.id.boot) == s.host.boot) else {
        let due = preflight::is_due(s);
        return Watches { pods: due, volumes: false, lock: due };
    };
    let over = || matches!(drain::stage(s), Stage::Done(_) | Stage::Detaching(..));
    Watches { pods: true, volumes: progress.phase == Phase::Draining && volumes::matter(s) && over(), lock: false }
}
