//! What the agent does next, one situation a line: [`scene`] has the words.

mod asked;
mod cycle;
mod drain;
mod fairness;
mod preflight;
mod scene;
mod volumes;

use scene::{Scene, in_words};

use super::*;

/// Checks the one action that follows from these words.
#[track_caller]
fn check(words: &str, expected: &str) {
    check_scene(&scene::scene(words), expected);
}

#[track_caller]
fn check_scene(scene: &Scene, expected: &str) {
    assert_eq!(in_words(&scene.step().action, &scene.node), expected);
}

/// Checks what is said in `reboot-status` once 10 seconds have passed since the last write.
#[track_caller]
fn check_status(words: &str, expected: &str) {
    let status = scene::scene(words).step().status.unwrap_or_default();
    assert!(status.contains(expected), "{status:?} does not contain {expected:?}");
}

/// Checks after how many seconds time alone changes the decision.
#[track_caller]
fn check_wake(scene: &Scene, seconds: Option<u64>) {
    assert_eq!(scene.step().wake, seconds.map(Duration::from_secs));
}

#[test]
fn an_idle_node_is_left_alone() {
    check("", "wait");
    check_wake(&scene::scene(""), None);
    check("cordon=kubectl-cordon", "wait");
    check("paused", "wait");
}

#[test]
fn a_machine_whose_boot_cannot_be_read_is_never_touched() {
    for words in ["engine", "asks granted=7", "now", "draining=7 cordon=reboot-agent granted=7 fresh pods="] {
        check(&format!("{words} noboot status=x"), "write");
        check_status(&format!("{words} noboot"), "boot ID cannot be read");
    }
}

#[test]
fn status_is_written_when_it_changes_but_not_more_often_than_every_10_seconds() {
    let told = scene::scene("paused now").wrote();
    check_wake(&told, Some(10));
    check_scene(&told, "wait");
    check_scene(&told.after(10), "write");
    let just_started = scene::scene("paused now").restarted();
    check_wake(&just_started, Some(10));
    check_scene(&just_started, "wait");
    let unchanged = scene::scene("paused now status=Paused:_the_forced_reboot_waits");
    check_scene(&unchanged, "wait");
    check_wake(&unchanged, None);
    check("status=Draining:_done", "write");
}

/// Checks what a write does with `reboot-status`: `keeps`, `removes`, or the words that it sets.
#[track_caller]
fn check_written_status(words: &str, expected: &str) {
    let Action::Write(patch, _) = scene::scene(words).step().action else { panic!("{words:?} is a write") };
    let status = patch.get(key::STATUS).map_or("keeps", |status| status.unwrap_or("removes"));
    assert_eq!(status, expected, "{words:?}");
}

#[test]
fn a_write_of_something_else_brings_the_status_along_where_it_differs() {
    check_written_status("engine", "keeps");
    check_written_status("engine status=x", "removes");
    check_written_status("asks granted=7", "Draining: begun");
    check_written_status("asks granted=7 rebooting=7 fresh pods= preparing=no", "Rebooting");
}

#[test]
fn another_reboot_manager_is_named_where_there_is_nothing_else_to_say() {
    check_status("locksmithd", "locksmithd.service is active");
    check_status("locksmithd draining=7 granted=7 asks cordon=reboot-agent pods=a", "Draining: 1 of 1 pods left");
}

#[test]
fn no_values_under_the_keys_alone_evict_a_pod_or_reboot() {
    assert_eq!(scene::scene("needed=_").node.needed.as_deref(), Some(" "));
    let values = ["", "_", "true", "false", "now", "{}", "[]", "null", "\u{0}", "{\"phase\":\"draining\"}"];
    for key in ["needed", "request", "reboot", "in-progress", "paused"] {
        for value in values {
            for host in ["", "engine", "unheard", "fresh pods= preparing=no", "noboot"] {
                let action = scene::scene(&format!("{key}={value} {host}")).step().action;
                assert!(!matches!(action, Action::Evict(_) | Action::Reboot), "{key}={value:?} {host}: {action:?}");
            }
        }
    }
}
