//! How the drain of the cycle under way stands.

use std::time::Duration;

use super::Situation;
use super::memory::EvictionStanding;
use crate::drain::{PodRef, remaining};

pub(super) enum Progress {
    /// The pods have not been listed yet.
    NotListed,
    /// Nothing that has to go is left.
    Done,
    /// Some pods are left.
    Going {
        /// To be evicted now.
        evict: Vec<PodRef>,
        /// How it stands, for people.
        status: String,
        /// How long until a refused pod is tried again.
        retry: Option<Duration>,
    },
}

pub(super) fn progress(s: &Situation<'_>) -> Progress {
    let Some(pods) = &s.host.pods else { return Progress::NotListed };
    let (mut left, mut evict, mut retry, mut blocked) = (0_usize, Vec::new(), None::<Duration>, None);
    for pod in remaining(pods) {
        left += 1;
        if pod.terminating {
            continue;
        }
        match s.memory.eviction(&pod.pod.uid, s.now) {
            EvictionStanding::Due => evict.push(pod.pod.clone()),
            EvictionStanding::UnderWay => {}
            EvictionStanding::Refused(words, again) => {
                retry = Some(retry.map_or(again, |retry| retry.min(again)));
                blocked.get_or_insert_with(|| format!("; {} is refused: {words}", pod.pod));
            }
        }
    }
    if left == 0 {
        return Progress::Done;
    }
    let status = format!("Draining: {left} pods left{}", blocked.unwrap_or_default());
    Progress::Going { evict, status, retry }
}
