//! A cycle in progress: draining, giving back, the point of no return, logind, and the end.

use super::scene::{BOOT, ENDS, OLD, Scene, scene};
use super::*;
use crate::values::read_json;

const DRAINING: &str = "asks granted=7 draining=7 cordon=reboot-agent";
const REBOOTING: &str = "asks granted=7 rebooting=7 cordon=reboot-agent";

fn draining(more: &str) -> String {
    format!("{DRAINING} {more}")
}

fn rebooting(more: &str) -> String {
    format!("{REBOOTING} {more}")
}

/// Checks how what is told with the write begins and ends.
#[track_caller]
fn check_note(scene: &Scene, begins: &str, ends: &str) {
    let Action::Write(_, Some(note)) = scene.step().action else { panic!("{:?}", scene.step()) };
    let told = format!("{} {}: {}", if note.warning { "Warning" } else { "Normal" }, note.reason.code(), note.text);
    assert!(told.starts_with(begins) && told.ends_with(ends), "{told:?}");
}

#[test]
fn every_foreign_change_before_the_point_of_no_return_gives_the_slot_back() {
    let cycle = "cordon=reboot-agent draining=7";
    check(&draining("paused pods="), "write GaveBack:7:Paused uncordon request:person -reboot -in-progress");
    check(
        &format!("asks {cycle} fresh pods="),
        "write GaveBack:7:GrantRemoved uncordon request:person@01T12:01 -in-progress",
    );
    check(
        &format!("asks granted=8 {cycle} pods="),
        "write GaveBack:7:GrantRemoved uncordon request:person@01T12:01 -reboot -in-progress",
    );
    check(
        "asks granted=7 draining=7 fresh pods=",
        "write GaveBack:7:UncordonedByOther request:person@01T12:01 -reboot -in-progress",
    );
    check(&format!("granted=7 {cycle} pods="), "write GaveBack:7:NotNeeded uncordon -reboot -in-progress");
    check(
        &format!("own granted=7 {cycle} fresh pods="),
        "write GaveBack:7:NotNeeded uncordon -reboot -in-progress -needed -request",
    );
    check_scene(
        &scene(DRAINING).wrote().then("asks granted=7 cordon=reboot-agent"),
        "write GaveBack:7:ProgressRemoved uncordon request:person@01T12:01 -reboot -in-progress",
    );
}

#[test]
fn the_beginning_of_a_drain_is_told_with_the_reason_for_the_reboot() {
    let begins = "Normal Draining: Draining this node for ";
    check_note(&scene("asks granted=7"), begins, &format!("its reboot ({BOOT}.7): kernel"));
    check_note(&scene("asks needed granted=7"), begins, &format!("its reboot ({BOOT}.7): a reboot was asked for"));
    check_note(&scene("asks now"), begins, &format!("a forced reboot ({BOOT}.now-50)"));
}

#[test]
fn a_permission_that_turns_malformed_ends_a_drain_and_stays_to_be_seen() {
    check(
        "asks reboot=True draining=7 cordon=reboot-agent",
        "write GaveBack:7:GrantRemoved uncordon request:person@01T12:01 -in-progress",
    );
    check("needed=x reboot=True was-rebooting=7", "write Rebooted -in-progress -needed -request");
}

#[test]
fn giving_back_leaves_a_foreign_cordon() {
    let words = "asks granted=7 draining=7! paused";
    check(&format!("{words} cordon=kubectl-cordon"), "write GaveBack:7:Paused request:person -reboot -in-progress");
    check(&format!("{words} cordon=ancient-changes"), "write GaveBack:7:Paused request:person -reboot -in-progress");
    let ours = "asks granted=7 draining=7 paused";
    check(&format!("{ours} cordon=kubectl-cordon"), "write GaveBack:7:Paused request:person -reboot -in-progress");
    check(
        &format!("{ours} cordon=ancient-changes"),
        "write GaveBack:7:Paused uncordon request:person -reboot -in-progress",
    );
}

#[test]
fn a_pause_keeps_a_persons_force_and_anything_else_takes_it() {
    let forced = "now draining=now-9 cordon=reboot-agent";
    check(&format!("{forced} paused"), "write GaveBack:now-9:Paused uncordon -in-progress");
    check("now draining=now-9", "write GaveBack:now-9:UncordonedByOther -reboot -in-progress");
    check("draining=now-9 cordon=reboot-agent", "write GaveBack:now-9:GrantRemoved uncordon -in-progress");
}

#[test]
fn a_force_over_a_live_grant_keeps_the_cycle_and_its_id() {
    let words = "now draining=7 cordon=reboot-agent pods= fresh";
    check(&format!("asks {words}"), "write commit:7");
    check(words, "write commit:7");
}

#[test]
fn every_give_back_but_a_pause_puts_the_next_attempt_off_by_1_minute_doubling_to_1_hour() {
    for (before, until) in
        [(0_u32, "12:01"), (1, "12:02"), (2, "12:04"), (5, "12:32"), (6, "13:00"), (4_000_000_000, "13:00")]
    {
        check(
            &format!("asks=attempts:{before} granted=7 draining=7 pods="),
            &format!("write GaveBack:7:UncordonedByOther request:person@01T{until} -reboot -in-progress"),
        );
    }
    check(
        "needed=kernel granted=7 draining=7",
        "write GaveBack:7:UncordonedByOther request:person@01T12:01 -reboot -in-progress",
    );
    check("needed=kernel now draining=now-9 up=5", "write GaveBack:now-9:UncordonedByOther -reboot -in-progress");
    check(
        "asks=attempts:2+notBefore:13 granted=7 draining=7 paused",
        "write GaveBack:7:Paused request:person@01T13:00 -reboot -in-progress",
    );
    check(
        "asks=attempts:2+notBefore:13 granted=7 draining=7",
        "write GaveBack:7:UncordonedByOther request:person@01T12:04 -reboot -in-progress",
    );
}

#[test]
fn a_drain_that_does_not_end_in_time_is_given_up() {
    let stuck = scene(&draining("pods=a!")).after(599).wrote();
    check_wake(&stuck, Some(1));
    check_scene(
        &stuck.after(1),
        "write GaveBack:7:DrainTimedOut uncordon request:person@01T12:11 -reboot -in-progress",
    );
    let unlisted = scene(DRAINING).after(600);
    check_scene(&unlisted, "write GaveBack:7:DrainTimedOut uncordon request:person@01T12:11 -reboot -in-progress");
}

#[test]
fn a_drain_that_does_not_end_in_time_is_cut_short_where_the_policy_says_so() {
    let late = |more: &str| scene(&draining(&format!("force-on-timeout {more}"))).after(600);
    check_scene(&late("pods=a!"), "refresh");
    check_scene(&late("pods=a! fresh"), "write commit:7");
    check_note(&late("pods=a!+b+d@ fresh"), "Warning Rebooting: Not drained in 600s", "pods: default/a, default/b");
    check_scene(&late("fresh"), "refresh");
    let in_time = scene(&rebooting("force-on-timeout fresh preparing=no pods=a")).wrote();
    check_scene(&in_time, "evict a");
    check_scene(&in_time.after(600).then(&rebooting("")), "reboot");
    let committed = late("pods=a!").then(&rebooting("force-on-timeout fresh preparing=no pods=a!")).wrote();
    check_scene(&committed, "reboot");
}

#[test]
fn the_deadline_counts_the_seconds_spent_over_all_runs_of_the_agent() {
    let status = "status=Draining:_1_of_1_pods_left";
    let resumed =
        scene(&format!("asks granted=7 draining=7/590 cordon=reboot-agent pods=a! {status}")).after(9).wrote();
    check_scene(&resumed, "wait");
    check_wake(&resumed, Some(1));
    let over = "write GaveBack:7:DrainTimedOut uncordon request:person@01T12:00:10Z -reboot -in-progress";
    check_scene(&resumed.after(1), &over.replace("12:00:10Z", "12:01:10Z"));
    let again = scene("asks granted=7 draining=7/600 cordon=reboot-agent pods=a!").restarted();
    check_scene(&again, "write GaveBack:7:DrainTimedOut uncordon request:person@01T12:01 -reboot -in-progress");
    scene(&format!("asks granted=7 draining=7/{} cordon=reboot-agent pods=a!", u64::MAX)).step();
}

#[test]
fn the_seconds_spent_are_saved_with_every_status_and_at_least_once_a_minute() {
    check_scene(&scene(&draining("pods=a! status=Draining:_2_of_2_pods_left")).after(20), "write spent:20");
    let status = format!("status=Draining:_1_of_1_pods_left;_default/a_has_until_{ENDS}_to_end");
    let quiet = |seconds| scene(&draining(&format!("pods=a! {status}"))).after(seconds);
    check_scene(&quiet(59), "wait");
    check_wake(&quiet(59), Some(1));
    check_scene(&quiet(60), "write spent:60");
}

#[test]
fn the_point_of_no_return_is_passed_on_a_fresh_view_only_and_by_a_write() {
    check(&draining("pods="), "refresh");
    check(&draining("pods=d@"), "refresh");
    check(&draining("pods= fresh"), "write commit:7");
    check_note(&scene(&draining("pods= fresh")), "Normal Rebooting: Drained in 0s; rebooting", &format!("({BOOT}.7)"));
    check_status(&draining("pods="), "Draining: done");
    check(&draining("pods= fresh unheard"), "write commit:7");
    check(&draining("fresh"), "write spent:0");
    check(&draining("pods=late fresh"), "evict late");
    check("asks granted=7 draining=7! cordon=kubectl-cordon pods= fresh", "write commit:7!");
}

#[test]
fn the_point_of_no_return_is_not_passed_while_logind_does_not_answer() {
    let silent = "status=Draining:_all_pods_are_gone;_logind_does_not_answer";
    for drained in ["pods=", "pods=d@"] {
        let waits = scene(&draining(&format!("fresh no-logind {drained} {silent}")));
        check_scene(&waits, "wait");
        check_wake(&waits, Some(5));
        check_scene(&waits.then(&draining("preparing=no")), "write commit:7");
    }
    check_status(&draining("fresh no-logind pods="), "Draining: all pods are gone; logind does not answer");
    // It was not asked yet.
    check(&draining("no-logind pods="), "refresh");
    check("now draining=now-9 cordon=reboot-agent fresh no-logind pods=", "write spent:0");
    check(
        &draining("fresh no-logind pods= paused"),
        "write GaveBack:7:Paused uncordon request:person -reboot -in-progress",
    );
}

#[test]
fn a_drained_node_whose_logind_does_not_answer_is_given_back_at_the_drain_timeout() {
    let given_back = "uncordon request:person@01T12:11 -reboot -in-progress";
    for policy in ["", "force-on-timeout"] {
        let drained = |seconds| scene(&draining(&format!("fresh no-logind pods= {policy}"))).after(seconds).wrote();
        check_wake(&drained(598), Some(2));
        check_scene(&drained(600), &format!("write GaveBack:7:RebootRefused {given_back}"));
        let ends = "logind did not answer before the end of the drain timeout";
        check_note(&drained(600), "Warning GaveBack: Gave the reboot back", ends);
    }
    let left = scene(&draining("fresh no-logind pods=a! force-on-timeout")).after(600);
    check_scene(&left, &format!("write GaveBack:7:RebootRefused {given_back}"));
    let forced = scene("now draining=now-9 cordon=reboot-agent fresh no-logind pods=").after(600);
    check_scene(&forced, "write GaveBack:now-9:RebootRefused uncordon -reboot -in-progress");
}

#[test]
fn past_the_point_of_no_return_a_logind_that_does_not_answer_is_called_all_the_same() {
    check_scene(&scene(&rebooting("fresh no-logind pods=")).wrote(), "reboot");
}

#[test]
fn logind_is_called_after_the_pods_were_read_and_only_when_no_shutdown_is_under_way() {
    check(&rebooting("pods="), "refresh");
    check(&rebooting("pods= preparing=no"), "refresh");
    check_scene(&scene(&rebooting("fresh pods= preparing=no")).wrote(), "reboot");
    let unreached = scene(&rebooting("fresh pods= preparing=no")).wrote().called(LogindReply::NotSent("no bus".into()));
    assert_eq!(unreached.after(1).step().status.unwrap(), "Rebooting: logind was not reached: no bus");
    check(&rebooting("fresh pods=late preparing=no"), "evict late");
    let ending = format!("status=Draining:_1_of_1_pods_left;_default/late_has_until_{ENDS}_to_end");
    check(&rebooting(&format!("fresh pods=late! preparing=no {ending}")), "wait");
    check(&rebooting("fresh preparing=no status=Rebooting:_listing_the_pods_of_this_node"), "wait");
    let preparing = scene(&rebooting("fresh pods= preparing=yes status=Rebooting:_logind_is_preparing_the_shutdown"));
    check_scene(&preparing, "wait");
    check_wake(&preparing, Some(10));
}

#[test]
fn while_logind_prepares_a_shutdown_nothing_that_changes_is_a_reason_to_ask_it_again() {
    let late = "pods=late status=Rebooting:_logind_is_preparing_the_shutdown";
    let told = || scene(&rebooting(late)).seen_preparing();
    check_scene(&told(), "wait");
    check_wake(&told().after(4), Some(6));
    check_scene(&told().after(10), "refresh");
    // The shutdown that is prepared is the call: pods put nothing off meanwhile.
    let again = told().after(600).seen_preparing().after(11);
    check_scene(&again.then(&rebooting("fresh pods=late preparing=no")), "evict late");
    check_scene(
        &scene(&rebooting("pods=late status=Rebooting")).called(LogindReply::MayHappen).seen_preparing(),
        "wait",
    );
}

#[test]
fn a_pod_that_comes_late_is_drained_before_logind_is_called_again() {
    let words = rebooting("fresh pods=late preparing=no");
    let called = scene(&words).wrote().called(LogindReply::MayHappen).after(30);
    check_scene(&called, "evict late");
    check_scene(&called.then(&rebooting("fresh pods= preparing=no")), "reboot");
}

#[test]
fn a_call_that_brings_no_reboot_is_repeated_with_backoff_and_sooner_where_it_reached_nobody() {
    let words = rebooting("fresh pods= preparing=no status=Rebooting");
    let unheard = LogindReply::NotSent("no bus".into());
    for (reply, delays) in [(LogindReply::MayHappen, [30, 60, 120, 240, 300, 300]), (unheard, [1, 2, 4, 8, 16, 30])] {
        let mut scene = scene(&words);
        for seconds in delays {
            scene = scene.called(reply.clone()).wrote();
            assert_eq!(scene.step().wake.map(|wake| wake.as_secs() >= seconds.min(10)), Some(true));
            assert_ne!(scene.step().action, Action::Reboot);
            scene = scene.after(seconds - 1);
            assert_ne!(scene.step().action, Action::Reboot);
            scene = scene.after(1);
            check_scene(&scene, "reboot");
        }
    }
    check_scene(&scene(&words).called(LogindReply::MayHappen).restarted(), "write resume");
}

#[test]
fn a_call_at_the_end_of_time_is_noted() {
    let mut last = scene(&rebooting("fresh pods=")).wrote();
    last.run_for = Duration::MAX;
    check_scene(&last.called(LogindReply::MayHappen), "reboot");
}

#[test]
fn only_loginds_own_refusal_leads_back_from_the_point_of_no_return() {
    let refused = scene(&rebooting("pods=")).wrote().called(LogindReply::Refused("blocked by an inhibitor".into()));
    check_scene(&refused, "write GaveBack:7:RebootRefused uncordon request:person@01T12:01 -reboot -in-progress");
    let told =
        "Warning GaveBack: Gave the reboot back (RebootRefused): logind would not reboot the machine: blocked by";
    check_note(&refused, told, "an inhibitor");
    let Action::Write(patch, note) = refused.step().action else { panic!("a write") };
    assert!(patch.get(key::LAST_REBOOT).unwrap().unwrap().contains("blocked by an inhibitor"));
    assert!(note.unwrap().warning);
    let removed = refused.then("asks granted=7 cordon=reboot-agent");
    check_scene(&removed, "write GaveBack:7:RebootRefused uncordon request:person@01T12:01 -reboot -in-progress");
}

#[test]
fn past_the_point_of_no_return_foreign_changes_change_nothing() {
    let committed = || scene(REBOOTING).wrote();
    let check = |words: &str| check_scene(&committed().then(&format!("{words} fresh pods= preparing=no")), "reboot");
    check(&rebooting("paused"));
    check("asks rebooting=7 cordon=reboot-agent");
    check("granted=7 rebooting=7 cordon=reboot-agent");
    check("asks reboot=True rebooting=7 cordon=kubectl-cordon");
}

#[test]
fn a_cordon_that_is_taken_away_past_the_point_of_no_return_is_put_back_before_anything_else() {
    for more in ["", "pods=late", "fresh pods= preparing=no", "fresh pods=late preparing=yes", "paused"] {
        let words = format!("asks granted=7 rebooting=7 {more}");
        check_scene(&scene(REBOOTING).wrote().then(&words), "write cordon resume");
        check_scene(&scene(REBOOTING).restarted().then(&words), "write cordon resume");
        check_scene(&scene(REBOOTING).wrote().called(LogindReply::MayHappen).then(&words), "write cordon resume");
    }
    let uncordoned = scene("asks granted=7 rebooting=7! fresh pods=late preparing=no");
    check_note(&uncordoned, "Warning Restored: Put the cordon back", "");
    // The person's cordon is gone with it, so this one is the agent's, whatever the API server knows of its owner.
    let Action::Write(patch, _) = uncordoned.step().action else { panic!("a write") };
    let written = patch.get(key::IN_PROGRESS).unwrap().unwrap().to_owned();
    for owner in ["reboot-agent", "ancient-changes"] {
        let back = written.replace(BOOT, OLD);
        let done = "write Rebooted uncordon -reboot -in-progress -needed -request";
        check(&format!("needed=kernel old-request=person in-progress={back} cordon={owner}"), done);
    }
    let refused = scene(REBOOTING).wrote().called(LogindReply::Refused("no".into())).then("asks granted=7 rebooting=7");
    check_scene(&refused, "write GaveBack:7:RebootRefused request:person@01T12:01 -reboot -in-progress");
}

#[test]
fn pods_that_come_late_put_a_call_to_logind_off_by_the_drain_timeout_at_most() {
    let late = || scene(&rebooting("fresh pods=late preparing=no")).wrote();
    check_scene(&late().after(599), "evict late");
    check_scene(&late().after(600), "reboot");
    // From each call on anew.
    let called = || late().after(600).called(LogindReply::NotSent("no bus".into()));
    check_scene(&called().after(1), "evict late");
    check_scene(&called().after(600), "evict late");
    check_scene(&called().after(601), "reboot");
    // The drain before the point of no return does not count, nor does what an earlier run has waited.
    let drained = scene("asks granted=7 rebooting=7/590 cordon=reboot-agent fresh pods=late preparing=no").wrote();
    check_scene(&drained.after(599), "evict late");
    check_scene(&late().after(599).restarted().after(599), "evict late");
    check_scene(&late().after(599).restarted().after(600), "write resume");
}

#[test]
fn what_an_earlier_run_wrote_last_is_made_stale_before_logind_is_called_again() {
    let restarted = scene(&rebooting("fresh pods= preparing=no")).restarted();
    check_scene(&restarted, "write resume");
    let Action::Write(patch, _) = restarted.step().action else { panic!("a write") };
    let written = patch.get(key::IN_PROGRESS).unwrap().unwrap().to_owned();
    // Its own write it knows when it sees it, whether the API server has answered it or not.
    let resumed = format!("asks granted=7 in-progress={written} cordon=reboot-agent fresh pods= preparing=no");
    let seen = restarted.then(&resumed);
    check_scene(&seen, "reboot");
    check_scene(&seen.restarted(), "write resume");
}

#[test]
fn an_in_progress_that_is_taken_away_past_the_point_of_no_return_is_restored() {
    let committed = || scene(REBOOTING).wrote();
    check_scene(&committed().then("asks granted=7 cordon=reboot-agent"), "write restore:7");
    check_scene(&committed().then("paused"), "write restore:7");
    check_scene(&committed().then("asks granted=8"), "write restore:7");
    check_scene(&committed().then(DRAINING), "write commit:7");
    check_scene(&committed().then(&draining("paused")), "write commit:7");
    check_scene(&committed().then("uid=u2"), "wait");
    check_scene(&scene(REBOOTING).wrote().called(LogindReply::MayHappen).then("asks"), "write restore:7");
}

#[test]
fn a_restarted_agent_restores_it_only_while_the_machine_is_going_down() {
    let removed = |more: &str| scene(REBOOTING).restarted().then(&format!("asks granted=7 cordon=reboot-agent {more}"));
    check_scene(&removed(""), "refresh");
    check_scene(&removed("fresh preparing=yes"), "write restore:7");
    let given_back = "write GaveBack:7:ProgressRemoved uncordon request:person@01T12:01 -reboot -in-progress";
    check_scene(&removed("fresh preparing=no"), given_back);
    // The drain that it saw may be an old view.
    let seen = scene(DRAINING).restarted().then("asks granted=7 cordon=reboot-agent");
    check_scene(&seen, "refresh");
    check_scene(&seen.then("asks granted=7 cordon=reboot-agent fresh preparing=yes"), "write restore:7");
    check_scene(&scene(REBOOTING).then("asks granted=8"), "write cordon start:8");
    check_scene(&scene(DRAINING).then("asks granted=8"), "write cordon start:8");
}

#[test]
fn a_restarted_agent_keeps_cordon_and_slot_while_logind_does_not_say_whether_the_machine_is_going_down() {
    let silent = "status=Waiting:_logind_does_not_say_whether_a_shutdown_is_under_way";
    let asked = format!("asks granted=7 cordon=reboot-agent fresh {silent}");
    for seen in [REBOOTING, DRAINING] {
        let waits = scene(seen).restarted().then(&format!("{asked} no-logind"));
        check_wake(&waits, Some(5));
        let for_long = waits.after(3600);
        check_scene(&for_long, "wait");
        check_scene(&for_long.then(&format!("{asked} preparing=yes")), "write restore:7");
    }
    let removed = scene(REBOOTING).restarted().then("asks granted=7 cordon=reboot-agent fresh no-logind");
    assert_eq!(removed.step().status.unwrap(), "Waiting: logind does not say whether a shutdown is under way");
}

#[test]
fn a_reboot_is_done_when_kubelet_reports_the_new_boot_and_the_node_is_ready() {
    for was in ["was-rebooting=7", "was-draining=7"] {
        let words = format!("needed=kernel old-request=person spent=7 {was} cordon=reboot-agent");
        let done = "write Rebooted uncordon -reboot -in-progress -needed -request";
        check(&words, done);
        check(&format!("{words} paused"), done);
        let not_yet = "status=Rebooted:_waiting_until_kubelet_reports_this_boot_and_the_Node_is_Ready";
        check(&format!("{words} kubelet-old {not_yet}"), "wait");
        check(&format!("{words} down {not_yet}"), "wait");
        check_scene(&scene(&format!("{words} down {not_yet}")).after(3600), "wait");
        check(&format!("{words} kubelet-old down {not_yet}"), "wait");
    }
}

#[test]
fn a_reboot_is_told_with_its_time_and_what_became_of_the_version() {
    let rebooted = |more: &str| scene(&format!("needed=kernel was-rebooting=7 {more}"));
    let same = "Rebooted in 60s; the version is 4081.2.0 as before";
    check_note(&rebooted("old-request=engine"), "Warning", same);
    check_note(&rebooted("old-request=engine last=6/2"), "Warning", same);
    check_note(&rebooted("old-request=person"), "Normal", "Rebooted in 60s");
    check_note(&rebooted("old-request=engine version=4152.1"), "Normal", "60s; 4081.2.0 became 4152.1");
}

#[test]
fn a_cycle_that_has_ended_is_forgotten() {
    let rebooting = || scene(REBOOTING).wrote();
    check_scene(&rebooting().then("asks last=7"), "wait");
    check_scene(&rebooting().then("asks last=6"), "write restore:7");
    assert!(!rebooting().then("asks uid=u2").memory.is_committed());
    // A cycle of an earlier boot needs no restoring.
    let earlier = scene("needed=kernel old-request=person was-rebooting=7 down");
    check_scene(&earlier.then("needed=kernel old-request=person"), "write FoundRebooted -reboot -needed -request");
}

#[test]
fn the_next_cycle_is_timed_from_its_own_beginning() {
    let first = scene(&draining("pods=a!")).after(599);
    check_scene(&first.then("asks granted=8 draining=8 cordon=reboot-agent").after(1), "write spent:1");
}

#[test]
fn the_end_of_a_cycle_uncordons_by_ownership() {
    let done = "write Rebooted -reboot -in-progress -needed -request";
    let ours = "write Rebooted uncordon -reboot -in-progress -needed -request";
    check("was-rebooting=7! cordon=kubectl-cordon", done);
    check("was-rebooting=7 cordon=kubectl-cordon", done);
    check("was-rebooting=7 cordon=reboot-agent+kubectl-cordon", done);
    check("was-rebooting=7 cordon=ancient-changes", ours);
    check("was-rebooting=7! cordon=ancient-changes", done);
    check("was-rebooting=7", done);
}

#[test]
fn a_version_that_stays_the_same_counts_only_for_update_engine() {
    let end = |sources: &str, more: &str| format!("needed=x old-request={sources} was-rebooting=7 {more}");
    let done = |same: &str| format!("write Rebooted{same} -reboot -in-progress -needed -request");
    check(&end("engine", ""), &done("same=1"));
    check(&end("engine+person", "last=6/2"), &done("same=3"));
    check(&end("engine", "version=4152.1 last=6/2"), &done(""));
    check(&end("person", "last=6/2"), &done(""));
    check(
        "asks=attempts:1 granted=7 draining=7 paused last=6/2",
        "write GaveBack:7:Paused request:person -reboot -in-progress",
    );
}

#[test]
fn a_malformed_in_progress_stops_the_agent_until_a_person_removes_it() {
    for value in ["", "{}", "true", &format!("{{\"phase\":\"draining\",\"id\":\"{BOOT}\"}}")] {
        let words = format!("asks granted=7 in-progress={value} cordon=reboot-agent fresh pods= preparing=no");
        check(&words, "write");
        check_status(&words, "reboot-in-progress is malformed");
        check_status(&format!("now paused in-progress={value}"), "remove it to go on");
    }
    check_scene(
        &scene("asks granted=7 in-progress={} cordon=reboot-agent")
            .then("asks granted=7 cordon=reboot-agent fresh preparing=no"),
        "write GaveBack:7:ProgressRemoved uncordon request:person@01T12:01 -reboot -in-progress",
    );
    let committed = scene(REBOOTING).wrote();
    check_scene(&committed.then("in-progress={} cordon=reboot-agent").then("asks"), "write restore:7");
}

#[test]
fn a_restarted_agent_resumes_and_never_concludes() {
    let resumed = scene(&draining("pods=a!")).evicted("a", EvictReply::Accepted).restarted();
    check_scene(&resumed, "wait");
    check_scene(&resumed.after(10), "write spent:10");
    check_scene(&scene(&draining("pods=a")).restarted(), "evict a");
    check_scene(&scene(&rebooting("fresh pods= preparing=yes")).restarted(), "wait");
    check_scene(&scene(&rebooting("fresh pods= preparing=yes")).restarted().after(10), "write");
}

#[test]
fn a_cycle_ends_however_long_the_words_are_that_asked_for_it() {
    let long = "x".repeat(200_000);
    let cycle = scene(&format!("needed={long} granted=7 draining=7 cordon=reboot-agent fresh pods="));
    let Action::Write(patch, _) = cycle.then(&format!("needed={long} draining=7 cordon=reboot-agent")).step().action
    else {
        panic!("the cycle goes on")
    };
    let last = patch.get(key::LAST_REBOOT).flatten().unwrap();
    assert!(last.len() < 1000, "{} bytes beside an annotation of 200 kB", last.len());
    // It is the same ask that was given back, although its words were cut.
    let mut again = scene(&format!("needed={long}"));
    again.node.last_reboot = read_json(Some(last));
    check_scene(&again, "write request:person@01T12:01");
}
