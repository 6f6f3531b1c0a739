//! Which pods are evicted, and when a refused eviction is tried again.

use super::scene::{Scene, scene};
use super::*;
use crate::drain::Refusal;

fn draining(more: &str) -> String {
    format!("asks granted=7 draining=7 cordon=reboot-agent {more}")
}

fn budget_refused() -> EvictReply {
    EvictReply::Refused(Refusal::Budget("the disruption budget web needs 2 healthy pods and has 2 currently".into()))
}

/// Checks what follows at this moment, and after how many milliseconds time alone changes it.
#[track_caller]
fn check_wait(scene: &Scene, blocked: &str, millis: std::ops::Range<u128>) {
    // What is to be said stands there already, so that no write of it is due.
    let node = NodeView { status: scene.step().status, ..scene.node.clone() };
    let step = step(&Situation { node: &node, ..scene.situation() });
    assert_eq!(in_words(&step.action, &node), "wait");
    let status = step.status.unwrap();
    assert!(status.contains(blocked), "{status:?} does not contain {blocked:?}");
    assert!(millis.contains(&step.wake.unwrap().as_millis()), "{:?} is not in {millis:?}", step.wake);
}

#[test]
fn a_drain_evicts_every_pod_once_and_waits_until_it_is_gone() {
    check(&draining("pods=a+b+c!+d@"), "evict a,b");
    let posted = scene(&draining("pods=a+b")).evicted("a", EvictReply::Accepted);
    check_scene(&posted, "evict b");
    let both = posted.evicted("b", EvictReply::Accepted).wrote();
    check_scene(&both, "wait");
    check_scene(&both.then(&draining("pods=a!")), "wait");
    check_status(&draining("pods=a!+b!+d@"), "Draining: 2 pods left");
    check_status(&draining(""), "listing the pods");
}

#[test]
fn no_more_than_eight_evictions_are_without_an_answer() {
    let many = scene(&draining("pods=a+b+c+d+e+f+g+h+i+j"));
    check_scene(&many, "evict a,b,c,d,e,f,g,h");
    let posted = many.posts().wrote();
    check_scene(&posted, "wait");
    check_scene(&posted.answered("c", EvictReply::Accepted), "evict i");
}

#[test]
fn the_list_of_the_budgets_is_waited_for_but_not_long() {
    let unlisted = scene(&draining("no-budgets pods=web/a+web/b")).wrote();
    check_wait(&unlisted, "Draining: 2 pods left", 2000..2001);
    check_scene(&unlisted.then(&draining("pods=web/a+web/b budgets=web:1:7")), "evict web/a");
}

#[test]
fn without_knowledge_one_pod_of_a_controller_asks_whether_there_is_a_budget() {
    let first = scene(&draining("no-budgets pods=web/a+web/b+db/c+d")).after(2);
    check_scene(&first, "evict web/a,db/c,d");
    let posted = first.posts().wrote();
    check_scene(&posted, "wait");
    check_scene(&posted.answered("web/a", EvictReply::Accepted), "evict web/b");
}

#[test]
fn without_knowledge_a_refusal_by_a_budget_holds_the_pods_of_the_controller_for_its_pause() {
    let refused = scene(&draining("no-budgets pods=web/a+web/b")).after(2).posts();
    let refused = refused.answered("web/a", budget_refused()).wrote();
    let why = "default/web/a is refused: PodDisruptionBudget: the disruption budget web";
    check_wait(&refused, why, 15_000..18_750);
    check_scene(&refused.after(19), "evict web/a");
}

#[test]
fn a_budget_that_allows_none_is_not_asked_until_it_opens_and_seldom_if_nothing_is_heard_of_it() {
    let closed = scene(&draining("pods=web/a+web/b+c budgets=web:0:7")).posts().wrote();
    let closed = closed.answered("c", EvictReply::Accepted).then(&draining("pods=web/a+web/b+c!"));
    let why = "default/web/a is blocked by PodDisruptionBudget web, which allows no disruption now";
    check_wait(&closed, why, 15_000..18_750);
    let again = closed.then(&draining("pods=web/a+web/b budgets=web:0:8"));
    check_wait(&again, why, 15_000..18_750);
    let probed = again.after(19);
    check_scene(&probed, "evict web/a");
    let refused = probed.posts().answered("web/a", budget_refused()).wrote();
    check_wait(&refused, why, 30_000..37_500);
    check_scene(&refused.then(&draining("pods=web/a+web/b budgets=web:1:9")), "evict web/a");
}

#[test]
fn a_status_that_is_out_of_date_lets_none_go() {
    let stale = scene(&draining("pods=web/a budgets=web:stale:7")).wrote();
    check_wait(&stale, "blocked by PodDisruptionBudget web, whose status is out of date", 15_000..18_750);
}

#[test]
fn no_more_evictions_are_posted_than_the_budget_lets_through_and_one_that_was_accepted_counts_until_the_next_version() {
    let open = scene(&draining("pods=web/a+web/b+web/c+web/d budgets=web:2:7"));
    check_scene(&open, "evict web/a,web/b");
    let posted = open.posts().wrote();
    check_scene(&posted, "wait");
    let accepted = posted.answered("web/a", EvictReply::Accepted);
    check_scene(&accepted, "wait");
    let counted = accepted.then(&draining("pods=web/a!+web/b+web/c+web/d budgets=web:1:8"));
    check_scene(&counted, "wait");
    let both = counted.answered("web/b", EvictReply::Accepted);
    check_scene(&both.after(1), "evict web/c");
}

#[test]
fn a_budget_that_refuses_though_it_lets_some_go_is_asked_again_when_it_changes() {
    let open = scene(&draining("pods=web/a+web/b budgets=web:1:7")).posts();
    let lost = open.answered("web/a", budget_refused()).wrote();
    check_scene(&lost, "evict web/b");
    let both = lost.posts().answered("web/b", budget_refused()).wrote();
    check_wait(&both, "refused: PodDisruptionBudget", 15_000..18_750);
    check_scene(&both.then(&draining("pods=web/a+web/b budgets=web:1:9")), "evict web/a");
}

#[test]
fn two_budgets_on_a_pod_are_named_and_seldom_tried() {
    let two = scene(&draining("pods=web/a budgets=web:1:7+web*:1:7")).wrote();
    check_wait(
        &two,
        "more than one, PodDisruptionBudgets web and web*: the API server evicts no such pod",
        15_000..18_750,
    );
    check_scene(&two.then(&draining("pods=web/a budgets=web:1:7")), "evict web/a");
}

#[test]
fn a_budget_that_is_gone_holds_nobody() {
    let closed = scene(&draining("pods=web/a budgets=web:0:7")).wrote();
    check_scene(&closed, "wait");
    check_scene(&closed.then(&draining("pods=web/a budgets=")), "evict web/a");
}

#[test]
fn the_node_whose_pod_was_let_go_last_leaves_the_others_a_moment() {
    let opened = || {
        let won = scene(&draining("pods=web/a+web/b budgets=web:1:7")).posts();
        let won = won.answered("web/a", EvictReply::Accepted).wrote();
        let closed = won.then(&draining("pods=web/a!+web/b budgets=web:0:8"));
        closed.after(1).then(&draining("pods=web/b budgets=web:1:9"))
    };
    check_wait(&opened(), "1 pods left", 30..31);
    check_scene(&opened().after_millis(30), "evict web/b");
    let taken = opened().after_millis(10).then(&draining("pods=web/b budgets=web:0:10"));
    check_wait(&taken, "blocked by PodDisruptionBudget web", 15_000..18_750);
}

#[test]
fn the_node_that_was_refused_last_does_not_wait() {
    let lost = scene(&draining("pods=web/b budgets=web:1:7")).posts().answered("web/b", budget_refused());
    let opened = lost.then(&draining("pods=web/b budgets=web:0:8")).then(&draining("pods=web/b budgets=web:1:9"));
    check_scene(&opened, "evict web/b");
}

#[test]
fn every_other_refusal_is_said_and_tried_again_after_its_own_pause() {
    for (refusal, millis) in [
        (Refusal::Throttled(Some(Duration::from_secs(7))), 7000..8750),
        (Refusal::Throttled(None), 1000..1250),
        (Refusal::NamespaceTerminating, 5000..6250),
        (Refusal::Replaced, 500..625),
        (Refusal::Conflict, 500..625),
        (Refusal::Forbidden("no such right".into()), 4000..5000),
        (Refusal::NotAdmitted("a webhook says no".into()), 4000..5000),
        (Refusal::NoAnswer("timed out".into()), 1000..1250),
    ] {
        let said = format!("default/a is refused: {}", refusal.code());
        let refused = scene(&draining("pods=a+b")).evicted("a", EvictReply::Refused(refusal));
        check_scene(&refused, "evict b");
        let alone = refused.then(&draining("pods=a+b!")).wrote();
        check_wait(&alone, &said, millis);
        check_scene(&alone.after(9), "evict a");
    }
}
