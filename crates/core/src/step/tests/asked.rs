//! Asking, being granted, and what is put right while no cycle is in progress.

use super::*;

const ASKED: &str = "needed=\"update_engine: a reboot completes an update\" request:engine";

#[test]
fn update_engine_asks_in_its_own_words_and_is_answered_in_the_same_write() {
    check("engine", &format!("write {ASKED}"));
    check("engine=0.0.0", &format!("write {ASKED}"));
    check("engine=4152.1", "write needed=\"update_engine: a reboot completes the update to 4152.1\" request:engine");
    check("engine own", "wait");
}

#[test]
fn a_person_asks_with_any_value_but_false() {
    check("needed=kernel", "write request:person");
    check("needed", "write request:person");
    check("needed=true", "write request:person");
    check("needed=false", "wait");
    check("asks", "wait");
}

#[test]
fn both_may_ask_and_the_request_lasts_as_long_as_one_does() {
    check("engine needed=kernel", "write request:engine+person");
    check("engine asks", "write request:engine+person");
    check("engine both", "wait");
    check("both", "write request:person");
    check("engine request-of=engine+person", &format!("write {ASKED}"));
    check("request-of=person", "write -request");
    check("needed=false request-of=person", "write -request");
    check("own", "write -needed -request");
}

#[test]
fn what_update_engine_asks_comes_back_when_a_person_removes_it() {
    check("engine request-of=engine", "write needed=\"update_engine: a reboot completes an update\"");
    check("engine needed=false", &format!("write {ASKED}"));
}

#[test]
fn an_engine_that_is_not_heard_neither_asks_nor_stops_asking() {
    check("unheard", "wait");
    check("unheard own", "wait");
    check("unheard both", "wait");
    check("unheard asks", "wait");
    check("unheard own-words", "write request:engine");
    check("unheard request-of=engine", "write needed=\"update_engine: a reboot completes an update\"");
}

#[test]
fn no_ask_is_answered_within_the_minimum_uptime() {
    check("engine up=119", "write");
    check("engine up=119 status=Waiting_until_the_machine_has_been_up_for_120s", "wait");
    check("needed=kernel request={} up=119", "write");
    check("needed=kernel request={} up=120", "write request:person");
    check_wake(&scene::scene("needed=kernel up=50 status=Waiting_until_the_machine_has_been_up_for_120s"), Some(70));
    check("asks up=5", "wait");
}

#[test]
fn no_ask_is_answered_until_kubelet_reports_the_same_boot() {
    check("engine kubelet-old", "write");
    check_status("engine kubelet-old", "BootIdMismatch");
    check_status("now kubelet-old", "BootIdMismatch");
    check_status("old-request=person needed=kernel kubelet-old", "BootIdMismatch");
}

#[test]
fn a_request_of_an_earlier_boot_has_been_fulfilled_by_whatever_rebooted_the_machine() {
    check("needed=kernel old-request=person", "write FoundRebooted -reboot -needed -request");
    check("needed=kernel old-request=person spent=7 up=5", "write FoundRebooted -reboot -needed -request");
    check(
        "needed=kernel old-request=person cordon=reboot-agent",
        "write FoundRebooted uncordon -reboot -needed -request",
    );
    check("own-words old-request=engine", "write FoundRebootedsame=1 -reboot -needed -request");
    check("own-words old-request=engine version=4152.1", "write FoundRebooted -reboot -needed -request");
}

#[test]
fn an_ask_whose_grant_lapsed_under_an_earlier_boot_has_been_fulfilled_as_well_and_only_once() {
    let found = "write FoundRebooted -reboot -needed -request";
    check("needed=kernel lapsed-before=7", found);
    check("needed=kernel lapsed-before=7 now", found);
    check("needed=kernel lapsed-before=7 up=5", found);
    check_status("needed=kernel lapsed-before=7 kubelet-old", "BootIdMismatch");
    check("needed=kernel lapsed=7", "write request:person");
    check("engine lapsed-before=7", &format!("write {ASKED}"));
    check("asks lapsed-before=7", "wait");
    // What was noted is still there when somebody asks anew.
    let before = scene::scene("needed=kernel lapsed-before=7");
    let Action::Write(patch, _) = before.step().action else { panic!("a write") };
    let mut again = scene::scene("needed=again lapsed-before=7");
    again.node.last_reboot = crate::values::read_json(patch.get(key::LAST_REBOOT).flatten());
    check_scene(&again, "write request:person");
    // The agent had answered anew in between, and the controller has not seen it.
    let before = scene::scene("needed=kernel old-request=person lapsed-before=7");
    let Action::Write(patch, _) = before.step().action else { panic!("a write") };
    again.node.last_reboot = crate::values::read_json(patch.get(key::LAST_REBOOT).flatten());
    check_scene(&again, "write request:person");
}

#[test]
fn a_request_that_another_program_wrote_is_answered_anew() {
    check(r#"needed=kernel request={"protocol":2}"#, "write request:person");
    check(r#"request={"protocol":2}"#, "write -request");
    check("request={}", "write -request");
}

#[test]
fn a_live_grant_is_taken_up_with_the_cordon_in_one_write() {
    check("asks granted=7", "write cordon start:7");
    check("engine own granted=7", "write cordon start:7");
    check("unheard own granted=7", "write cordon start:7");
    check("asks granted=7 cordon=kubectl-cordon", "write start:7!");
    check("asks granted=7 cordon=ancient-changes", "write start:7!");
}

#[test]
fn a_live_grant_that_will_not_be_used_is_given_back_at_once() {
    check("asks granted=7 paused", "write GaveBack:7:Paused request:person -reboot -in-progress");
    check("own granted=7", "write GaveBack:7:NotNeeded -reboot -in-progress -needed -request");
    check("granted=7", "write GaveBack:7:NotNeeded -reboot -in-progress");
}

#[test]
fn an_agent_that_finds_its_cordon_without_a_cycle_looks_whether_an_earlier_run_has_called_logind() {
    let found = "asks granted=7 cordon=reboot-agent";
    let given_back = "write GaveBack:7:ProgressRemoved uncordon request:person@01T12:01 -reboot -in-progress";
    check(found, "refresh");
    check(&format!("{found} fresh preparing=no"), given_back);
    for more in ["", "paused"] {
        check(&format!("{found} {more} fresh preparing=yes"), "write restore:7");
    }
    check("granted=7 cordon=reboot-agent fresh preparing=yes", "write restore:7");
}

#[test]
fn a_grant_for_another_boot_or_node_or_for_a_cycle_that_has_ended_is_spent() {
    check("asks spent=7", "write -reboot");
    check("asks granted=7 last=7", "write -reboot");
    check("asks granted=8 last=7", "write cordon start:8");
    check("spent=7 cordon=reboot-agent", "write uncordon -reboot");
}

#[test]
fn what_means_absent_permits_nothing() {
    check("asks reboot=", "wait");
    check("asks reboot=false", "wait");
}

#[test]
fn a_malformed_permission_permits_nothing_and_is_left_for_a_person_to_see() {
    let truncated = format!("asks reboot={}.7", &scene::BOOT[1..]);
    for words in
        ["asks reboot=True", "asks reboot=now_", "asks reboot={}", "asks reboot=NOW", &truncated, "engine reboot=yes"]
    {
        check(words, "write");
        check_status(words, "reboot-operator.io/reboot is malformed");
    }
    let forced_id = format!("asks reboot={}.now-7", scene::BOOT);
    check_status(&forced_id, "malformed");
}

#[test]
fn a_forced_cycle_is_named_after_the_version_at_which_the_force_was_seen() {
    check("now", "write cordon start:now-50");
    check("asks now", "write cordon start:now-50");
    check("now up=5", "write cordon start:now-50");
    check("now cordon=kubectl-cordon", "write start:now-50!");
    check("now cordon=reboot-agent", "write start:now-50");
}

#[test]
fn pause_beats_force_and_the_force_stays() {
    check("now paused=x status=Paused:_the_forced_reboot_waits", "wait");
    check("now paused=false", "write cordon start:now-50");
}

#[test]
fn a_cordon_of_ours_without_a_cycle_is_removed_and_anybody_elses_is_not() {
    let known = "fresh preparing=no cordon=reboot-agent";
    check(known, "write uncordon");
    check(&format!("asks {known}"), "write uncordon request:person@01T12:01");
    check("paused now cordon=reboot-agent", "write uncordon");
    check(&format!("asks reboot=True {known}"), "write uncordon");
    check("cordon=reboot-agent+kubectl-cordon", "wait");
    check("cordon=ancient-changes", "wait");
}

#[test]
fn a_cordon_of_ours_without_a_cycle_stays_while_the_machine_goes_down() {
    for ask in ["", "asks", "asks reboot=True"] {
        check(&format!("{ask} cordon=reboot-agent"), "refresh");
        let going_down = "Rebooting: logind is preparing the shutdown";
        check_status(&format!("{ask} fresh preparing=yes cordon=reboot-agent"), going_down);
    }
}

#[test]
fn a_cordon_of_ours_without_a_cycle_stays_while_logind_does_not_answer_and_nothing_else_depends_on_logind() {
    let silent = "no-logind fresh status=Waiting:_logind_does_not_say_whether_a_shutdown_is_under_way";
    for ask in ["", "asks", "needed=kernel", "asks reboot=True", "asks granted=7"] {
        let waits = scene::scene(&format!("{ask} cordon=reboot-agent {silent}"));
        check_scene(&waits, "wait");
        check_wake(&waits, Some(5));
    }
    check("needed=kernel no-logind", "write request:person");
    check("asks granted=7 no-logind", "write cordon start:7");
    check("cordon=kubectl-cordon no-logind", "wait");
    check(
        "old-request=person needed=kernel no-logind cordon=reboot-agent",
        "write FoundRebooted uncordon -reboot -needed -request",
    );
}

#[test]
fn an_update_that_does_not_take_holds_update_engine_back_for_1_hour_doubling_to_24() {
    for (times, until) in [(1, "01T13:00"), (2, "01T14:00"), (3, "01T16:00"), (4, "01T20:00"), (5, "02T04:00")] {
        let needed = "needed=\"update_engine: a reboot completes an update\"";
        check(&format!("engine last=7/{times}"), &format!("write {needed} request:engine@{until}"));
    }
    check("own-words engine last=7/6", "write request:engine@02T12:00");
    check("own-words engine last=7/4000000000", "write request:engine@02T12:00");
}

#[test]
fn a_persons_ask_is_not_held_back_by_an_update_that_does_not_take() {
    check("needed=kernel engine last=7/3", "write request:engine+person");
    check("needed=kernel request-of=engine engine last=7/3", "write request:engine+person");
    check("needed=kernel last=7/3", "write request:person");
}

#[test]
fn only_a_person_who_joins_lifts_what_holds_the_request_back() {
    check("engine asks=attempts:3+notBefore:13", "write request:engine+person@01T13:00");
    check("asks=attempts:3+notBefore:13", "wait");
    check("both=attempts:3+notBefore:13", "write request:person@01T13:00");
    check("needed=kernel unheard request-of=engine", "write request:engine+person");
    check("own=notBefore:13 engine needed=kernel", "write request:engine+person");
    check("own=notBefore:13 engine", "wait");
}

#[test]
fn a_time_that_a_wrong_clock_wrote_years_ahead_holds_nothing_back() {
    let request = |times: &str| {
        let boot = scene::BOOT;
        format!(r#"needed=kernel request={{"protocol":1,"bootID":"{boot}",{times},"sources":["person"]}}"#)
    };
    let since = r#""since":"2026-01-01T11:00:00Z""#;
    check(&request(&format!(r#"{since},"notBefore":"2030-01-01T12:00:00Z""#)), "write request:person");
    let ahead = scene::scene(&request(r#""since":"2030-01-01T12:00:00Z""#));
    let Action::Write(patch, _) = ahead.step().action else { panic!("a write") };
    assert!(patch.get(key::REQUEST).flatten().unwrap().contains(r#""since":"2026-01-01T12:00:00Z""#));
    for words in ["engine own-words last=7/3", "needed=kernel last=7!"] {
        let mut ahead = scene::scene(words);
        let Field::Set(last) = &mut ahead.node.last_reboot else { panic!("{words:?} has a report") };
        last.at = "2030-01-01T12:00:00Z".parse().unwrap();
        assert!(!in_words(&ahead.step().action, &ahead.node).contains('@'), "{words:?}");
    }
}

#[test]
fn a_pause_that_is_over_is_nothing_to_begin_a_request_with_but_keeps_its_place() {
    check_scene(&scene::scene("needed=kernel last=7!").after(59), "write request:person@01T12:01");
    check_scene(&scene::scene("needed=kernel last=7!").after(60), "write request:person");
    check_scene(&scene::scene("engine own-words last=7/1").after(3600), "write request:engine");
    check_scene(&scene::scene("asks=notBefore:13").after(7200), "wait");
}

#[test]
fn the_same_ask_is_held_to_the_minute_after_a_cycle_that_was_given_back_even_without_its_request() {
    let needed = "needed=\"update_engine: a reboot completes an update\"";
    check("engine last=7!", &format!("write {needed} request:engine@01T12:01"));
    check("engine last=7", &format!("write {needed} request:engine"));
    check("engine own-words request-of=engine last=7!", "wait");
    check("needed=kernel last=7!", "write request:person@01T12:01");
    check("needed=urgent last=7!", "write request:person");
    check("engine needed=urgent last=7!", "write request:engine+person");
}
