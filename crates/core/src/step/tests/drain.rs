//! Which pods are evicted, and when a refused eviction is tried again.

use super::scene::{Scene, scene};
use super::*;
use crate::drain::{Choice, Refusal, Rules};

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
    check_status(&draining("pods=a!+b!+d@"), "Draining: 2 of 2 pods left");
    check_status(&draining(""), "listing the pods");
}

#[test]
fn a_drain_that_waits_for_pods_to_end_names_the_one_with_the_most_time() {
    let mut ending = scene(&draining("pods=a!+b!+c"));
    let now = ending.now().wall;
    let minutes = |more: i64| Some(now + jiff::SignedDuration::from_mins(more));
    let times = [minutes(1), minutes(30), None];
    for (pod, ends_at) in ending.host.pods.iter_mut().flatten().zip(times) {
        pod.ends_at = ends_at;
    }
    let status = ending.step().status.unwrap();
    assert!(status.ends_with("3 of 3 pods left; default/b has until 2026-01-01T12:30:00Z to end"), "{status}");
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
    check_wait(&unlisted, "Draining: 2 of 2 pods left", 2000..2001);
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
    check_wait(&refused, why, 11_000..11_001);
    let still = refused.after(11);
    check_wait(&still, "which allows no disruption now; no pod has gone for 30s", 19_000..26_500);
    check_scene(&still.then(&draining("pods=web/a+web/b budgets=web:1:9")), "evict web/a");
}

#[test]
fn what_blocks_is_told_in_an_event_when_no_pod_has_gone_for_half_a_minute_and_once() {
    let note = |scene: &Scene| match scene.step().action {
        Action::Write(_, note) => note,
        other => panic!("{other:?}"),
    };
    let probed = |scene: Scene| scene.posts().answered("web/a", budget_refused());
    let closed = scene(&draining("pods=web/a+b! budgets=web:0:7")).after(20);
    assert_eq!(note(&probed(closed)), None);
    let closed = scene(&draining("pods=web/a+b! budgets=web:0:7")).after(20).then(&draining("pods=web/a"));
    assert_eq!(note(&probed(closed.after(29))), None);
    let mut still = probed(scene(&draining("pods=web/a budgets=web:0:7")).after(30));
    let told = note(&still).unwrap();
    assert!(told.warning && told.reason == NoteReason::DrainBlocked, "{told:?}");
    assert_eq!(told.text, "default/web/a is blocked by PodDisruptionBudget web, which allows no disruption now");
    // The next write is of the time spent alone.
    still.node.status = still.step().status;
    let later = still.after(31);
    check_scene(&later, "write spent:61");
    assert_eq!(note(&later), None);
}

#[test]
fn a_budget_is_not_tried_again_while_it_owes_an_answer() {
    let asked = scene(&draining("pods=web/a+web/b budgets=web:1:7")).posts();
    let closed = asked.then(&draining("pods=web/a+web/b budgets=web:0:8")).after(19).wrote();
    check_scene(&closed, "wait");
    check_scene(&closed.answered("web/a", budget_refused()), "evict web/a");
}

#[test]
fn a_budget_that_never_opens_is_named_as_such_in_the_drain() {
    let never = scene(&draining("pods=web/a budgets=web:never:7")).wrote();
    check_wait(&never, "default/web/a is blocked by PodDisruptionBudget web, which never allows", 15_000..18_750);
}

#[test]
fn nodes_that_wait_for_the_same_budget_do_not_try_it_at_the_same_moment() {
    let probes = |seed| {
        let mut scene = scene(&draining("pods=web/a budgets=web:0:7"));
        let closed_at = scene.now();
        scene.memory = Memory::seeded(seed);
        scene.memory.observe(&scene.node, closed_at);
        scene.memory.observe_host(&scene.host, closed_at);
        scene.node.status = scene.step().status;
        scene.step().wake.unwrap()
    };
    assert!(probes(0) != probes(1) && probes(1) != probes(2) && probes(2) != probes(0));
}

#[test]
fn a_pod_whose_eviction_was_accepted_is_blocked_by_nothing_though_its_budget_closes() {
    let accepted = scene(&draining("pods=web/a budgets=web:1:7")).posts().answered("web/a", EvictReply::Accepted);
    let closed = accepted.then(&draining("pods=web/a budgets=web:0:8"));
    assert_eq!(closed.step().status.unwrap(), "Draining: 1 of 1 pods left");
}

#[test]
fn what_blocks_is_named_while_it_is_tried_again() {
    let tried = scene(&draining("pods=web/a budgets=web:0:7")).after(19).posts();
    assert!(tried.step().status.unwrap().ends_with("web, which allows no disruption now"));
}

/// What a refusal that no budget is the reason of can be, and how many milliseconds its first pause takes.
fn other_refusals() -> [(Refusal, std::ops::Range<u128>); 8] {
    [
        (Refusal::Throttled(Some(Duration::from_secs(7))), 7000..8750),
        (Refusal::Throttled(None), 1000..1250),
        (Refusal::NamespaceTerminating, 5000..6250),
        (Refusal::Replaced, 500..625),
        (Refusal::Conflict, 500..625),
        (Refusal::Forbidden("no such right".into()), 4000..5000),
        (Refusal::NotAdmitted("a webhook says no".into()), 4000..5000),
        (Refusal::NoAnswer("timed out".into()), 1000..1250),
    ]
}

#[test]
fn every_other_refusal_is_named_while_it_is_tried_again_and_told_once() {
    for (refusal, _) in other_refusals() {
        let answered = |scene: Scene| scene.answered("a", EvictReply::Refused(refusal.clone()));
        let first = answered(scene(&draining("pods=a")).posts());
        let mut refused = answered(first.after(31).posts());
        let Step { action: Action::Write(_, Some(note)), status, .. } = refused.step() else { panic!("{refusal}") };
        assert_eq!((note.reason, note.text), (NoteReason::DrainBlocked, format!("default/a is refused: {refusal}")));
        refused.node.status.clone_from(&status);
        let tried = refused.after(13).posts();
        assert_eq!(tried.step().status, status);
        check_scene(&tried, "wait");
        check_scene(&answered(tried), "wait");
    }
}

#[test]
fn a_pod_that_should_have_ended_long_ago_is_named() {
    let ends = |seconds: i64| {
        let mut scene = scene(&draining("pods=web/a!")).after(60).wrote();
        let at = scene.now().wall.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        scene.host.pods.iter_mut().flatten().for_each(|pod| pod.ends_at = Some(at));
        scene.step()
    };
    assert!(ends(-9).status.unwrap().ends_with("default/web/a has until 2026-01-01T12:00:51Z to end"));
    assert_eq!(ends(-9).wake, Some(Duration::from_secs(1)));
    let overdue = ends(-10);
    let why = "default/web/a should have ended at 2026-01-01T12:00:50Z; no pod has gone for 30s";
    assert_eq!(overdue.status.unwrap(), format!("Draining: 1 of 1 pods left; {why}"));
    let told: Vec<_> = overdue.notes.into_iter().map(|note| (note.reason, note.text)).collect();
    assert_eq!(
        told,
        [(NoteReason::DrainBlocked, "default/web/a should have ended at 2026-01-01T12:00:50Z".to_owned())]
    );
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
    let accepted = posted.answered("web/a", EvictReply::Accepted).after(1);
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
    let unchanged = both.after(19).posts();
    assert!(unchanged.step().status.unwrap().contains("refused: PodDisruptionBudget"));
    let both = unchanged.answered("web/a", budget_refused()).then(&draining("pods=web/a+web/b budgets=web:1:9"));
    check_scene(&both, "evict web/a");
    assert_eq!(both.posts().step().status.unwrap(), "Draining: 2 of 2 pods left");
}

#[test]
fn two_budgets_on_a_pod_are_named_and_seldom_tried() {
    let two = || scene(&draining("pods=web/a budgets=web:1:7+web*:1:7")).wrote();
    check_wait(
        &two(),
        "more than one, PodDisruptionBudgets web and web*: the API server evicts no such pod",
        15_000..18_750,
    );
    check_scene(&two().then(&draining("pods=web/a budgets=web:1:7")), "evict web/a");
    // The one that is left is as it was when the pod was refused, and yet something is new: the other is gone.
    let refused = two().after(20).posts().answered("web/a", EvictReply::Refused(Refusal::SeveralBudgets)).wrote();
    check_wait(&refused, "more than one", 1_000..40_000);
    check_scene(&refused.then(&draining("pods=web/a budgets=web:1:7")), "evict web/a");
}

#[test]
fn a_pod_that_is_refused_though_no_budget_was_to_be_asked_is_tried_again_when_one_over_it_changes() {
    let unready = |version: u32| draining(&format!("pods=web/a? budgets=web:healthy:{version}"));
    let refused = scene(&unready(7)).posts().answered("web/a", budget_refused()).wrote();
    check_wait(&refused, "refused: PodDisruptionBudget", 15_000..18_750);
    check_scene(&refused.then(&unready(8)), "evict web/a");
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
    check_wait(&opened(), "Draining: 1 of 2 pods left", 30..31);
    check_scene(&opened().after_millis(30), "evict web/b");
    let taken = opened().after_millis(10).then(&draining("pods=web/b budgets=web:0:10"));
    check_wait(&taken, "blocked by PodDisruptionBudget web", 15_000..18_750);
    let rewritten = opened().after_millis(10).then(&draining("pods=web/b budgets=web:1:10"));
    check_wait(&rewritten, "Draining: 1 of 2 pods left", 20..21);
}

#[test]
fn the_node_that_was_refused_last_does_not_wait() {
    let lost = scene(&draining("pods=web/b budgets=web:1:7")).posts().answered("web/b", budget_refused());
    let opened = lost.then(&draining("pods=web/b budgets=web:0:8")).then(&draining("pods=web/b budgets=web:1:9"));
    check_scene(&opened, "evict web/b");
}

#[test]
fn every_other_refusal_is_said_and_tried_again_after_its_own_pause() {
    for (refusal, millis) in other_refusals() {
        let said = format!("default/a is refused: {}", refusal.code());
        let refused = scene(&draining("pods=a+b")).evicted("a", EvictReply::Refused(refusal));
        check_scene(&refused, "evict b");
        let alone = refused.then(&draining("pods=a+b!")).wrote();
        check_wait(&alone, &said, millis);
        check_scene(&alone.after(9), "evict a");
    }
}

fn under(rules: Rules, more: &str) -> Scene {
    let mut scene = scene(&draining(more));
    scene.policy.drain = rules;
    scene
}

/// Checks what is told when the evictions that follow are carried out.
#[track_caller]
fn check_told(scene: &Scene, expected: &str) {
    let told: Vec<String> =
        scene.step().notes.into_iter().map(|note| format!("{}: {}", note.reason.code(), note.text)).collect();
    assert_eq!(told.join("; "), expected);
}

#[test]
fn the_status_counts_the_pods_that_are_gone() {
    let posted = scene(&draining("pods=a+b+c")).posts();
    let gone = posted.answered("a", EvictReply::Accepted).then(&draining("pods=b+c"));
    assert!(gone.step().status.unwrap().starts_with("Draining: 2 of 3 pods left"));
    // What is still there has not gone, and what went by itself was not evicted.
    let there = gone.answered("b", EvictReply::Accepted);
    assert!(there.step().status.unwrap().starts_with("Draining: 2 of 3 pods left"));
    assert!(there.then(&draining("pods=b")).step().status.unwrap().starts_with("Draining: 1 of 2 pods left"));
}

#[test]
fn what_the_system_needs_goes_last() {
    let mixed = scene(&draining("pods=dns^+a+b!"));
    check_scene(&mixed, "evict a");
    check_scene(&mixed.posts().wrote().then(&draining("pods=dns^+a!")), "wait");
    check_scene(&scene(&draining("pods=dns^+other^+ds@")), "evict dns,other");
}

#[test]
fn nothing_is_evicted_while_a_pod_blocks_by_policy() {
    let rules = || Rules { empty_dir: Choice::Block, ..Rules::default() };
    let blocked = under(rules(), "pods=web/a+web/b=").wrote();
    assert_eq!(blocked.step().action, Action::Wait);
    let why = "default/web/b blocks the drain: it has an emptyDir, and --drain-emptydir-pods is `block`";
    assert!(blocked.step().status.unwrap().contains(why));
    check_scene(&blocked.then(&draining("pods=web/a")), "evict web/a");
}

#[test]
fn a_pod_that_may_be_left_when_it_does_not_end_is_looked_at_again_then() {
    let rules = Rules { skip_stuck_after: Some(Duration::from_secs(20)), ..Rules::default() };
    let mut ending = under(rules, "pods=web/a!").wrote();
    let ended_at = ending.now().wall - jiff::SignedDuration::from_secs(14);
    ending.host.pods.iter_mut().flatten().for_each(|pod| pod.ends_at = Some(ended_at));
    assert_eq!(ending.step().wake, Some(Duration::from_secs(7)));
    check_scene(&ending.after(7), "refresh");
}

#[test]
fn people_are_told_once_which_pods_nobody_starts_anew_and_which_lose_data() {
    let first = scene(&draining("pods=a+b+web/c=+web/d"));
    assert!(first.step().notes.iter().all(|note| note.warning), "what is lost does not come back");
    check_told(
        &first,
        "EvictedEmptyDir: Evicting pods with an emptyDir, whose content goes with them: default/web/c; \
         EvictedUnmanaged: Evicting pods without a controller, which nobody starts anew: default/a, default/b",
    );
    let refused = first.posts().answered("a", EvictReply::Refused(Refusal::Conflict)).after(1);
    check_scene(&refused, "evict a");
    check_told(&refused, "");
    let refused = scene(&draining("pods=web/c=")).posts().answered("web/c", EvictReply::Refused(Refusal::Conflict));
    check_told(&refused.after(1), "");
}

#[test]
fn grace_periods_and_the_means_are_those_of_the_rules() {
    let grace = Some(Duration::from_secs(3));
    check_scene(&under(Rules { grace, ..Rules::default() }, "pods=a"), "evict a/3");
    let delete = Rules { delete: true, ..Rules::default() };
    check_scene(&under(delete, "pods=web/a+web/b budgets=web:0:7"), "evict xweb/a,xweb/b");
    let two = Rules { concurrency: 2, ..Rules::default() };
    check_scene(&under(two, "pods=a+b+c"), "evict a,b");
}

#[test]
fn a_drain_that_takes_long_cuts_grace_periods_short_where_the_rules_say_so() {
    let rules = || Rules { shorten_after: Some(Duration::from_secs(40)), ..Rules::default() };
    let ending = under(rules(), "pods=web/a!").wrote();
    assert_eq!(ending.step().wake, Some(Duration::from_secs(10)));
    let late = ending.after(40);
    check_scene(&late, "evict web/a/10");
    check_told(&late, "GraceShortened: Cutting grace periods short, by --drain-shorten-after: default/web/a");
    let posted = late.posts().answered("web/a", EvictReply::Accepted).wrote();
    check_scene(&posted, "wait");
    let full = under(rules(), "pods=web/a").after(39).posts().answered("web/a", EvictReply::Accepted).wrote();
    check_scene(&full.after(1).then(&draining("pods=web/a!")), "evict web/a/10");
    let small = Rules { grace: Some(Duration::from_secs(3)), ..rules() };
    let small = under(small, "pods=web/a").after(40);
    check_scene(&small, "evict web/a/3");
    check_told(&small, "");
    let own = |seconds| Rules { grace: Some(Duration::from_secs(seconds)), ..rules() };
    check_scene(&under(own(30), "pods=web/a"), "evict web/a/30");
    check_scene(&under(own(30), "pods=web/a").after(40), "evict web/a/10");
    check_told(&under(own(10), "pods=web/a"), "");
}

#[test]
fn a_grace_period_whose_cut_was_refused_is_cut_again_after_the_pause() {
    let rules = || Rules { shorten_after: Some(Duration::from_secs(40)), ..Rules::default() };
    let posted = || under(rules(), "pods=web/a!").after(40).posts().wrote();
    check_scene(&posted(), "wait");
    for (refusal, millis) in [
        (Refusal::Throttled(None), 1000..1250),
        (Refusal::Conflict, 500..625),
        (Refusal::Forbidden("no right".into()), 4000..5000),
        (Refusal::NoAnswer("timed out".into()), 1000..1250),
    ] {
        let said = format!("default/web/a is refused: {}", refusal.code());
        let refused = posted().answered("web/a", EvictReply::Refused(refusal)).wrote();
        check_wait(&refused, &said, millis);
        let status = refused.step().status;
        let again = refused.after(5);
        check_scene(&again, "evict web/a/10");
        check_told(&again, "");
        let tried = again.posts();
        assert_eq!(tried.step().status, status);
        let accepted = tried.answered("web/a", EvictReply::Accepted).wrote();
        check_scene(&accepted.after(5), "wait");
    }
    // What was refused before is no cut.
    let earlier = under(rules(), "pods=web/a").after(39).posts();
    let earlier = earlier.answered("web/a", EvictReply::Refused(Refusal::Forbidden("no right".into())));
    check_scene(&earlier.after(1).then(&draining("pods=web/a!")), "evict web/a/10");
    // A full one without an answer is waited for.
    let full = under(rules(), "pods=web/a").after(39).posts().after(1).then(&draining("pods=web/a!")).wrote();
    check_scene(&full, "wait");
}

#[test]
fn a_pod_that_tolerates_the_cordon_is_left_when_it_comes_5_seconds_after_the_first_list_by_no_clock_of_others() {
    let begun = || scene(&draining("pods=a~+b"));
    check_scene(&begun(), "evict a,b");
    check_scene(&begun().after(599), "evict a,b");
    // A watch may be late.
    check_scene(&scene(&draining("pods=")).after(5).then(&draining("pods=late~")), "evict late");
    let back = || begun().after(6).then(&draining("fresh pods=back~"));
    check_scene(&back(), "write commit:7");
    check_scene(&begun().after(6).then(&draining("fresh pods=back")), "evict back");
    // An agent that starts anew has seen nothing come, and the next drain is another one.
    check_scene(&back().restarted(), "evict back");
    check_scene(&back().then("asks granted=8 draining=8 cordon=reboot-agent pods=back~"), "evict back");
}

#[test]
fn a_drain_that_takes_too_long_deletes_past_the_budgets_where_the_rules_say_so() {
    let rules = Rules { delete_after: Some(Duration::from_secs(40)), ..Rules::default() };
    let closed = under(rules, "pods=web/a+web/b+web/c! budgets=web:0:7").wrote();
    assert_eq!(closed.step().action, Action::Wait);
    let late = closed.after(40);
    check_scene(&late, "evict xweb/a,xweb/b");
    check_told(
        &late,
        "DeletedPastBudget: Deleting pods whatever their budgets say, by --drain-delete-after: default/web/a, default/web/b",
    );
    let posted = late.posts().answered("web/a", EvictReply::Accepted);
    let refused = posted.answered("web/b", EvictReply::Refused(Refusal::Forbidden("no right".into()))).wrote();
    check_wait(&refused, "default/web/b is refused: Forbidden: no right", 4000..5000);
}

#[test]
fn a_refused_pod_is_deleted_at_once_when_the_time_for_budgets_is_over() {
    let rules = Rules { delete_after: Some(Duration::from_secs(40)), ..Rules::default() };
    let refused =
        under(rules, "pods=web/a budgets=web:1:7").after(39).posts().answered("web/a", budget_refused()).wrote();
    check_wait(&refused, "refused", 1000..1001);
    check_scene(&refused.after(1), "evict xweb/a");
}
