//! What is looked at before the cordon, and what a node does that could not be drained.

use super::scene::{Scene, scene};
use super::*;
use crate::drain::{Choice, Rules};

const BEGINS: &str = "write cordon start:7";

fn granted(more: &str) -> Scene {
    scene(&format!("asks granted=7 preflight {more}"))
}

/// Checks that the grant is given back before anything is cordoned, and in which words.
#[track_caller]
fn check_gives_back(scene: &Scene, reason: &str, detail: &str) {
    // Budgets open by themselves; a lock is as long-lived as what it protects.
    let until = if reason == "RebootRefused" { "12:01" } else { "12:00:15Z" };
    check_scene(scene, &format!("write GaveBack:7:{reason} request:person@01T{until} -reboot -in-progress"));
    let Action::Write(patch, Some(note)) = scene.step().action else { panic!("a note") };
    assert_eq!(patch.unschedulable(), None);
    assert!(note.warning && note.text.ends_with(detail), "{note:?}");
}

#[test]
fn a_grant_is_taken_up_once_pods_and_budgets_are_listed_and_nothing_blocks() {
    let unlisted = granted("");
    check_scene(&unlisted, "wait");
    check_wake(&unlisted, Some(2));
    check_scene(&granted("pods=web/a no-budgets"), "wait");
    check_scene(&granted("pods="), BEGINS);
    check_scene(&granted("pods=web/a+b+ds@"), BEGINS);
    check_scene(&granted("pods=web/a budgets=web:1:7"), BEGINS);
    check_scene(&granted("pods=web/a budgets=web:1:7:9999"), BEGINS);
}

#[test]
fn a_lock_that_blocks_shutdowns_gives_the_grant_back_before_anything_is_cordoned() {
    let held = granted("pods=web/a lock=held");
    check_gives_back(&held, "RebootRefused", "held");
}

#[test]
fn logind_is_asked_for_locks_from_the_grant_on_and_holds_no_drain_up() {
    let unknown = granted("pods=web/a lock=unknown");
    check_scene(&unknown, "wait");
    check_wake(&unknown, Some(2));
    check_scene(&unknown.after(2), BEGINS);
    let asked = |words: &str| watches(&scene(words).situation()).lock;
    assert!(asked("asks granted=7 preflight"));
    assert!(!asked("asks granted=7 draining=7 preflight"));
    assert!(!asked("asks preflight"));
}

#[test]
fn nothing_is_said_for_the_moment_that_the_lists_take() {
    let quiet = granted("status=x");
    check_scene(&quiet, "wait");
    assert_eq!(quiet.step().status.as_deref(), Some("x"));
}

#[test]
fn lists_that_do_not_come_hold_no_drain_up() {
    check_scene(&granted("").after(2), BEGINS);
    check_scene(&granted("pods=web/a no-budgets").after(2), BEGINS);
    let next = granted("").after(2).then("asks granted=8");
    check_scene(&next, "wait");
    check_scene(&next.after(2), "write cordon start:8");
}

#[test]
fn pods_and_budgets_are_watched_from_the_grant_on_and_nobody_else_looks() {
    let watched = |words: &str| watches(&scene(words).situation()).pods;
    assert!(watched("asks granted=7 preflight"));
    assert!(watched("asks granted=7 draining=7 preflight"));
    for words in
        ["asks preflight", "asks granted=7", "asks spent=7 preflight", "asks granted=7 last=7 preflight", "now"]
    {
        assert!(!watched(words), "{words}");
    }
}

#[test]
fn a_budget_that_never_allows_a_disruption_is_named_as_such() {
    check_gives_back(
        &granted("pods=web/a budgets=web:never:7"),
        "BlockedByBudget",
        "default/web/a is blocked by PodDisruptionBudget web, which never allows a disruption: 3 of its 3 pods must be \
         healthy",
    );
}

#[test]
fn two_budgets_over_a_pod_never_let_it_go() {
    check_gives_back(
        &granted("pods=web/a budgets=web:1:7+web*:1:7"),
        "BlockedByBudget",
        "PodDisruptionBudgets web and web*: the API server evicts no such pod",
    );
}

#[test]
fn a_budget_that_has_been_closed_for_moments_is_what_a_drain_waits_for() {
    check_scene(&granted("pods=web/a budgets=web:0:7"), BEGINS);
    check_scene(&granted("pods=web/a budgets=web:0:7:299"), BEGINS);
    check_scene(&granted("pods=web/a budgets=web:short:7:29"), BEGINS);
    check_scene(&granted("pods=web/a budgets=web:stale:7:9999"), BEGINS);
}

#[test]
fn a_budget_that_stays_closed_gives_the_turn_to_another_node() {
    check_gives_back(
        &granted("pods=web/a budgets=web:0:7:300"),
        "BlockedByBudget",
        "which has allowed no disruption since 2026-01-01T11:55:00Z: it needs 2 healthy pods and has 2",
    );
    check_gives_back(
        &granted("pods=web/a budgets=web:short:7:30"),
        "BlockedByBudget",
        "which has allowed no disruption since 2026-01-01T11:59:30Z: it needs 2 healthy pods and has 1",
    );
}

#[test]
fn only_a_pod_that_the_drain_would_evict_counts() {
    for pods in ["web/a!", "web/a@", "web/a.", "other/a", ""] {
        check_scene(&granted(&format!("pods={pods} budgets=web:never:7")), BEGINS);
    }
}

#[test]
fn a_pod_of_the_budget_that_can_leave_this_node_may_open_it() {
    for moving in ["web/b!", "web/b?"] {
        check_scene(&granted(&format!("pods=web/a+{moving} budgets=web:0:7:9999")), BEGINS);
        check_gives_back(
            &granted(&format!("pods=web/a+{moving} budgets=web:never:7")),
            "BlockedByBudget",
            "3 of its 3 pods must be healthy",
        );
    }
}

#[test]
fn a_pod_that_the_settings_keep_blocks_before_the_cordon() {
    let mut kept = granted("pods=web/a+web/b=");
    kept.policy.drain.empty_dir = Choice::Block;
    let detail = "default/web/b stays: it has an emptyDir, and --drain-emptydir-pods is `block`";
    check_gives_back(&kept, "BlockedByPod", detail);
    let mut kept = kept.then("asks granted=7 pods=web/a");
    check_scene(&kept, BEGINS);
    kept.policy.drain.unmanaged = Choice::Block;
    let detail = "default/b stays: it has no controller, and --drain-unmanaged-pods is `block`";
    check_gives_back(&kept.then("asks granted=7 pods=web/a+b"), "BlockedByPod", detail);
}

#[test]
fn a_drain_that_may_end_in_spite_of_its_budgets_begins() {
    let never = || granted("pods=web/a budgets=web:never:7");
    let under = |rules: Rules| Scene { policy: Policy { drain: rules, ..never().policy }, ..never() };
    check_scene(&under(Rules { delete: true, ..Rules::default() }), BEGINS);
    check_scene(&under(Rules { delete_after: Some(Duration::from_secs(9)), ..Rules::default() }), BEGINS);
    check_scene(&never().then("asks granted=7 force-on-timeout"), BEGINS);
    check_scene(&scene("asks granted=7 pods=web/a budgets=web:never:7"), BEGINS);
    check_scene(&scene("now preflight pods=web/a budgets=web:never:7"), "write cordon start:now-50");
}

#[test]
fn a_node_that_is_blocked_comes_back_soon_and_then_less_often() {
    for (before, until) in [(0, "12:00:15Z"), (1, "12:00:30Z"), (2, "12:01"), (5, "12:08"), (6, "12:10"), (99, "12:10")]
    {
        let words = format!("asks=attempts:{before} granted=7 preflight pods=web/a budgets=web:never:7");
        check(&words, &format!("write GaveBack:7:BlockedByBudget request:person@01T{until} -reboot -in-progress"));
    }
}
