//! Why an eviction did not happen: one reason for each answer of the API server, each with a pause of its own.

use std::fmt;
use std::time::Duration;

use crate::backoff::doubling;

/// Why a pod was not evicted.
///
/// The answers are those of the API server's eviction (`pkg/registry/core/pod/storage/eviction.go`) and of what comes
/// before it: authorisation, admission, priority and fairness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// 429 with the cause `DisruptionBudget`: a `PodDisruptionBudget` allows no eviction now, in the server's words.
    Budget(String),
    /// 429 without that cause: the API server has too much to do, and may say how long to leave it alone.
    Throttled(Option<Duration>),
    /// 500: more than one `PodDisruptionBudget` guards the pod. That lasts until somebody changes them.
    SeveralBudgets,
    /// 403 with the cause `NamespaceTerminating`: the pod will be deleted with its namespace.
    NamespaceTerminating,
    /// 409 on the UID: the name belongs to another pod now, and this one is gone.
    Replaced,
    /// 409 otherwise: two writes met.
    Conflict,
    /// 401 or 403: the agent may not do it, in the server's words.
    Forbidden(String),
    /// Any other definite no, such as that of an admission webhook or policy, in its words.
    NotAdmitted(String),
    /// No answer, or a failure of the server, in words: the eviction may have happened.
    NoAnswer(String),
}

impl Refusal {
    /// Every code, for the metric that counts refused evictions by reason.
    pub const CODES: [&'static str; 9] = [
        "Budget",
        "Throttled",
        "SeveralBudgets",
        "NamespaceTerminating",
        "Replaced",
        "Conflict",
        "Forbidden",
        "NotAdmitted",
        "NoAnswer",
    ];

    /// The reason as one CamelCase word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Budget(_) => "Budget",
            Self::Throttled(_) => "Throttled",
            Self::SeveralBudgets => "SeveralBudgets",
            Self::NamespaceTerminating => "NamespaceTerminating",
            Self::Replaced => "Replaced",
            Self::Conflict => "Conflict",
            Self::Forbidden(_) => "Forbidden",
            Self::NotAdmitted(_) => "NotAdmitted",
            Self::NoAnswer(_) => "NoAnswer",
        }
    }

    /// Whether a change of a `PodDisruptionBudget` can end it.
    pub fn is_of_budgets(&self) -> bool {
        matches!(self, Self::Budget(_) | Self::SeveralBudgets)
    }

    /// How long to wait after so many tries in a row, before jitter.
    pub fn pause(&self, tries: u32) -> Duration {
        let seconds = Duration::from_secs;
        let (first, longest) = match self {
            Self::Throttled(Some(asked)) => return (*asked).clamp(seconds(1), seconds(60)),
            // A change of the budgets is seen by the watch; this covers one that is missed.
            Self::Budget(_) | Self::SeveralBudgets => (seconds(15), seconds(60)),
            // The watch of the pods shows within moments what became of the pod.
            Self::Replaced | Self::Conflict => (Duration::from_millis(500), seconds(4)),
            Self::Throttled(None) | Self::NoAnswer(_) => (seconds(1), seconds(15)),
            Self::NamespaceTerminating => (seconds(5), seconds(30)),
            // Until somebody changes the rights, or an admission webhook its mind.
            Self::Forbidden(_) | Self::NotAdmitted(_) => (seconds(4), seconds(60)),
        };
        doubling(first, tries, longest)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Budget(words) => write!(f, "PodDisruptionBudget: {words}"),
            Self::Throttled(_) => write!(f, "Throttled: the API server asks for a pause"),
            Self::SeveralBudgets => write!(f, "SeveralBudgets: more than one PodDisruptionBudget guards it"),
            Self::NamespaceTerminating => write!(f, "NamespaceTerminating: it will be deleted with its namespace"),
            Self::Replaced => write!(f, "Replaced: its name belongs to another pod"),
            Self::Conflict => write!(f, "Conflict: it was changed at the same moment"),
            Self::Forbidden(words) => write!(f, "Forbidden: {words}"),
            Self::NotAdmitted(words) => write!(f, "NotAdmitted: {words}"),
            Self::NoAnswer(words) => write!(f, "NoAnswer: {words}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(refusal: &Refusal, seconds: [u64; 4]) {
        let pauses = [1, 2, 3, u32::MAX].map(|tries| refusal.pause(tries).as_secs());
        assert_eq!(pauses, seconds, "{refusal}");
        assert!(Refusal::CODES.contains(&refusal.code()));
    }

    #[test]
    fn each_answer_has_a_pause_of_its_own() {
        let words = || "its words".to_owned();
        check(&Refusal::Budget(words()), [15, 30, 60, 60]);
        check(&Refusal::SeveralBudgets, [15, 30, 60, 60]);
        check(&Refusal::Throttled(None), [1, 2, 4, 15]);
        check(&Refusal::Throttled(Some(Duration::from_secs(7))), [7, 7, 7, 7]);
        check(&Refusal::Throttled(Some(Duration::from_hours(7))), [60, 60, 60, 60]);
        check(&Refusal::NamespaceTerminating, [5, 10, 20, 30]);
        check(&Refusal::Replaced, [0, 1, 2, 4]);
        check(&Refusal::Conflict, [0, 1, 2, 4]);
        check(&Refusal::Forbidden(words()), [4, 8, 16, 60]);
        check(&Refusal::NotAdmitted(words()), [4, 8, 16, 60]);
        check(&Refusal::NoAnswer(words()), [1, 2, 4, 15]);
    }
}
