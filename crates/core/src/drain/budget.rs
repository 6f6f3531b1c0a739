//! What the status of a `PodDisruptionBudget` says about an eviction before it is posted.
//!
//! It never permits anything: the API server decides, and a status may be old. It spares the requests that would be
//! refused, and says when to try again. The rules are those of the API server's eviction
//! (`pkg/registry/core/pod/storage/eviction.go`).

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};

use super::{Health, PodView};
use crate::selector::Selector;

/// One `PodDisruptionBudget` as the drain sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetView {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// Which object it is, and at which version.
    pub seen: BudgetSeen,
    /// Which pods of its namespace it guards; `None`: none.
    pub selector: Option<Selector>,
    /// Whether the status is of an older spec than this: the API server then refuses every eviction.
    pub stale: bool,
    /// `status.disruptionsAllowed`.
    pub allowed: usize,
    /// Whether a pod that is not Ready may be evicted whatever is allowed.
    pub lets_unready_go: bool,
    /// Since when it has allowed no disruption, where it allows none.
    pub closed_since: Option<Timestamp>,
    /// `status.desiredHealthy`: how many healthy pods it needs.
    pub desired: i32,
    /// `status.currentHealthy`: how many it has.
    pub healthy: i32,
    /// `status.expectedPods`: how many pods it counts in all, healthy or not.
    pub expected: i32,
}

/// One version of a `PodDisruptionBudget`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BudgetSeen {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
}

/// Every budget of the cluster; `None` while they have not been listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets(pub Option<Vec<BudgetView>>);

/// What is known about the budgets of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard<'a> {
    /// The budgets have not been listed.
    Unknown,
    /// The API server will ask no budget.
    Free,
    /// It will ask this one.
    One(&'a BudgetView),
    /// It will refuse, because it asks no more than one.
    Several(&'a BudgetView, &'a BudgetView),
}

impl From<&PodDisruptionBudget> for BudgetView {
    fn from(budget: &PodDisruptionBudget) -> Self {
        let (meta, spec) = (&budget.metadata, budget.spec.as_ref());
        let status = budget.status.clone().unwrap_or_default();
        let healthy = status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy;
        let always = spec.and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref()) == Some("AlwaysAllow");
        Self {
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone().unwrap_or_default(),
            seen: BudgetSeen {
                uid: meta.uid.clone().unwrap_or_default(),
                version: meta.resource_version.clone().unwrap_or_default(),
            },
            selector: spec.and_then(|spec| spec.selector.as_ref()).and_then(|labels| labels.try_into().ok()),
            stale: status.observed_generation.unwrap_or_default() < meta.generation.unwrap_or_default(),
            allowed: usize::try_from(status.disruptions_allowed).unwrap_or_default(),
            lets_unready_go: always || healthy,
            closed_since: closed_since(&status),
            desired: status.desired_healthy,
            healthy: status.current_healthy,
            expected: status.expected_pods,
        }
    }
}

/// The condition changes its time only when the budget opens or closes, whoever writes it: the disruption controller,
/// or the API server with an eviction.
fn closed_since(status: &PodDisruptionBudgetStatus) -> Option<Timestamp> {
    let mut conditions = status.conditions.iter().flatten();
    let closed = conditions.find(|condition| condition.type_ == "DisruptionAllowed" && condition.status == "False")?;
    Some(closed.last_transition_time.0)
}

impl BudgetView {
    /// Whether it allows no disruption however healthy its pods are: `maxUnavailable: 0`, or a `minAvailable` of all.
    pub fn never_opens(&self) -> bool {
        !self.stale && self.expected > 0 && self.desired >= self.expected
    }

    /// The words for that.
    pub(crate) fn never(&self) -> String {
        let Self { name, desired, expected, .. } = self;
        format!(
            "blocked by PodDisruptionBudget {name}, which never allows a disruption: {desired} of its {expected} pods \
             must be healthy"
        )
    }

    /// The words for two budgets over one pod.
    pub(crate) fn several(one: &Self, other: &Self) -> String {
        let names = format!("PodDisruptionBudgets {} and {}", one.name, other.name);
        format!("guarded by more than one, {names}: the API server evicts no such pod")
    }

    /// How many evictions at once it would let through, by its own word.
    pub fn open(&self) -> usize {
        if self.stale { 0 } else { self.allowed }
    }

    /// Whether it guards this pod.
    pub(crate) fn guards(&self, pod: &PodView) -> bool {
        self.namespace == pod.pod.namespace && self.selector.as_ref().is_some_and(|all| all.matches(&pod.labels))
    }
}

impl Budgets {
    /// Every budget that is known.
    pub fn iter(&self) -> impl Iterator<Item = &BudgetView> {
        self.0.iter().flatten()
    }

    /// The versions of all that select this pod, whether the API server will ask them or not.
    pub fn over(&self, pod: &PodView) -> Vec<BudgetSeen> {
        self.iter().filter(|budget| budget.guards(pod)).map(|budget| budget.seen.clone()).collect()
    }

    /// What the API server will ask before it evicts this pod.
    pub fn guard(&self, pod: &PodView) -> Guard<'_> {
        let Some(budgets) = &self.0 else { return Guard::Unknown };
        let mut guards = budgets.iter().filter(|budget| budget.guards(pod));
        match (guards.next(), guards.next()) {
            _ if pod.health == Health::Pending => Guard::Free,
            (None, _) => Guard::Free,
            (Some(budget), None) if pod.health == Health::NotReady && budget.lets_unready_go => Guard::Free,
            (Some(budget), None) => Guard::One(budget),
            (Some(budget), Some(other)) => Guard::Several(budget, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// `budgets`: pairs of a spec and a status. `expected`: the guard in words.
    #[track_caller]
    fn check(health: Health, budgets: &[(Value, Value)], expected: &str) {
        let pod = PodView { health, labels: [("app".into(), "web".into())].into(), ..PodView::default() };
        let view = |(index, (spec, status)): (usize, &(Value, Value))| {
            let meta = json!({ "name": format!("b{index}"), "uid": "u", "generation": 2 });
            let budget = json!({ "metadata": meta, "spec": spec, "status": status });
            BudgetView::from(&serde_json::from_value::<PodDisruptionBudget>(budget).unwrap())
        };
        let known = Budgets(Some(budgets.iter().enumerate().map(view).collect()));
        let found = match known.guard(&pod) {
            Guard::Unknown => "unknown".into(),
            Guard::Free => "free".into(),
            Guard::One(budget) => format!("{} opens {}", budget.name, budget.open()),
            Guard::Several(one, other) => format!("{} and {}", one.name, other.name),
        };
        assert_eq!(found, expected, "{health:?} {budgets:?}");
    }

    fn selects(app: &str) -> Value {
        json!({ "selector": { "matchLabels": { "app": app } } })
    }

    fn status(allowed: i32, healthy: i32, generation: i64) -> Value {
        json!({ "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": 2, "expectedPods": 3,
                "observedGeneration": generation })
    }

    #[test]
    fn a_budget_is_asked_as_the_api_server_asks_it() {
        let (open, closed, stale) = (status(1, 3, 2), status(0, 2, 2), status(1, 3, 1));
        check(Health::Ready, &[], "free");
        check(Health::Ready, &[(selects("other"), closed.clone())], "free");
        check(Health::Ready, &[(json!({}), closed.clone())], "free");
        check(Health::Ready, &[(json!({ "selector": {} }), closed.clone())], "b0 opens 0");
        check(Health::Ready, &[(selects("web"), open.clone())], "b0 opens 1");
        check(Health::Ready, &[(selects("web"), closed.clone())], "b0 opens 0");
        check(Health::Ready, &[(selects("web"), stale)], "b0 opens 0");
        check(Health::Ready, &[(selects("web"), Value::Null)], "b0 opens 0");
        check(Health::Ready, &[(selects("web"), status(-1, 2, 2))], "b0 opens 0");
        check(Health::Ready, &[(selects("web"), open.clone()), (selects("web"), open)], "b0 and b1");
        check(Health::Pending, &[(selects("web"), closed.clone()), (selects("web"), closed)], "free");
    }

    #[test]
    fn a_pod_that_is_not_ready_goes_where_the_budget_is_healthy_or_says_always() {
        let always = json!({ "selector": {}, "unhealthyPodEvictionPolicy": "AlwaysAllow" });
        check(Health::NotReady, &[(selects("web"), status(0, 2, 2))], "free");
        check(Health::NotReady, &[(selects("web"), status(0, 1, 2))], "b0 opens 0");
        check(Health::NotReady, &[(selects("web"), Value::Null)], "b0 opens 0");
        check(Health::NotReady, &[(always.clone(), status(0, 1, 2))], "free");
        check(Health::NotReady, &[(always.clone(), status(0, 1, 2)), (selects("web"), status(0, 1, 2))], "b0 and b1");
        check(Health::Ready, &[(always, status(0, 1, 2))], "b0 opens 0");
    }

    /// `never`: whether it never opens; `since`: since when it is closed.
    #[track_caller]
    fn check_closed(status: Value, never: bool, since: Option<&str>) {
        let meta = json!({ "name": "web", "generation": 2 });
        let budget = BudgetView::from(&serde_json::from_value(json!({ "metadata": meta, "status": status })).unwrap());
        assert_eq!(budget.never_opens(), never, "{budget:?}");
        assert_eq!(budget.closed_since, since.map(|at| at.parse().unwrap()), "{budget:?}");
    }

    #[test]
    fn a_budget_that_needs_all_of_its_pods_never_opens() {
        let needs = |desired: i32, expected: i32, generation: i64| {
            json!({ "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": desired, "expectedPods": expected,
                    "observedGeneration": generation })
        };
        check_closed(needs(3, 3, 2), true, None);
        check_closed(needs(4, 3, 2), true, None);
        check_closed(needs(2, 3, 2), false, None);
        check_closed(needs(3, 3, 1), false, None);
        check_closed(needs(0, 0, 2), false, None);
    }

    #[test]
    fn a_budget_says_since_when_it_is_closed() {
        let at = "2026-01-01T12:00:00Z";
        let says = |kind: &str, is: &str| {
            let condition =
                json!({ "type": kind, "status": is, "lastTransitionTime": at, "reason": "", "message": "" });
            json!({ "conditions": [condition], "disruptionsAllowed": 0, "currentHealthy": 0, "desiredHealthy": 0,
                    "expectedPods": 0 })
        };
        check_closed(says("DisruptionAllowed", "False"), false, Some(at));
        check_closed(says("DisruptionAllowed", "True"), false, None);
        check_closed(says("Other", "False"), false, None);
    }

    #[test]
    fn a_budget_guards_its_own_namespace() {
        let spec = json!({ "selector": {} });
        let budget = json!({ "metadata": { "namespace": "other" }, "spec": spec });
        let budget = BudgetView::from(&serde_json::from_value::<PodDisruptionBudget>(budget).unwrap());
        assert_eq!(Budgets(Some(vec![budget])).guard(&PodView::default()), Guard::Free);
    }

    #[test]
    fn nothing_is_known_before_they_are_listed() {
        assert_eq!(Budgets::default().guard(&PodView::default()), Guard::Unknown);
    }
}
