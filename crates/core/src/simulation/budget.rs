//! One `PodDisruptionBudget` over pods of all hosts, as the API server keeps it: each eviction takes from it, and it gets
//! back what it gave when a replacement is Ready.

use std::time::Duration;

use jiff::Timestamp;

use super::world::World;
use crate::Now;
use crate::drain::{BudgetSeen, BudgetView, Budgets, Refusal};

/// The label that its pods have.
pub(super) const LABEL: (&str, &str) = ("app", "web");

pub(super) struct Budget {
    allowed: usize,
    version: u64,
    /// When what was taken comes back.
    back_at: Vec<Duration>,
    /// Whether a person lets it allow no disruption whatever happens.
    never: bool,
    /// Since when it has allowed none, by the wall clock.
    closed_since: Option<Timestamp>,
}

impl Budget {
    pub(super) fn new(allowed: usize) -> Self {
        Self { allowed, version: 1, back_at: Vec::new(), never: false, closed_since: None }
    }

    /// A person sets whether it never allows a disruption.
    pub(super) fn set_never(&mut self, never: bool) {
        self.version += u64::from(self.never != never);
        self.never = never;
    }

    fn open(&self) -> usize {
        if self.never { 0 } else { self.allowed }
    }

    /// When it next changes by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        self.back_at.iter().min().copied()
    }

    pub(super) fn elapse(&mut self, now: Now) {
        let before = self.back_at.len();
        self.back_at.retain(|at| *at > now.mono);
        let back = before - self.back_at.len();
        self.allowed += back;
        self.version += back as u64;
        self.closed_since = (self.open() == 0).then(|| self.closed_since.unwrap_or(now.wall));
    }

    /// Takes one eviction from it.
    pub(super) fn take(&mut self, back_at: Duration) -> Result<(), Refusal> {
        if self.open() == 0 {
            return Err(Refusal::Budget("the disruption budget web needs 2 healthy pods and has 2".into()));
        }
        self.allowed -= 1;
        self.version += 1;
        self.back_at.push(back_at);
        Ok(())
    }

    pub(super) fn view(&self) -> Budgets {
        let view = BudgetView {
            namespace: "default".into(),
            name: LABEL.1.into(),
            seen: BudgetSeen { uid: "budget".into(), version: self.version.to_string() },
            selector: format!("{}={}", LABEL.0, LABEL.1).parse().ok(),
            stale: false,
            allowed: self.open(),
            lets_unready_go: false,
            closed_since: self.closed_since,
            desired: 2,
            healthy: 2,
            expected: if self.never { 2 } else { 3 },
        };
        Budgets(Some(vec![view]))
    }
}

impl World {
    /// Somebody else takes from the budget: a pod of another node fails.
    pub(super) fn disrupt(&mut self) {
        let back_at = self.mono + Duration::from_secs(5 + self.random.below(60) as u64);
        let taken = self.budget.take(back_at).is_ok();
        self.tell(|| format!("a pod elsewhere fails; the budget had one for it: {taken}"));
    }
}
