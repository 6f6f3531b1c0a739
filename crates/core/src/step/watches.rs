//! What has to be watched for the next decisions: everything else costs the API server nothing.

use super::Situation;
use super::drain::{self, Progress};
use super::volumes;
use crate::values::Phase;

/// What has to be watched, beside the Node and update_engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watches {
    /// The pods of the node, and every `PodDisruptionBudget`.
    pub pods: bool,
    /// Every `VolumeAttachment`: the API server cannot select those of one node.
    pub volumes: bool,
}

/// Decides what to watch.
///
/// Volumes only at the end of a drain, once the pods are gone, and only where one of these had a claim.
pub fn watches(s: &Situation<'_>) -> Watches {
    let Some(progress) = s.node.in_progress.get().filter(|progress| Some(progress.id.boot) == s.host.boot) else {
        return Watches::default();
    };
    let over = || matches!(drain::progress(s), Progress::Done(_) | Progress::Detaching(..));
    Watches { pods: true, volumes: progress.phase == Phase::Draining && volumes::matter(s) && over() }
}
