//! What is attached is waited for after the pods, and not for ever.

use super::scene::{Scene, scene};
use super::*;

fn draining(more: &str) -> String {
    format!("asks granted=7 draining=7 cordon=reboot-agent {more}")
}

/// A pod with the claim `data` was there, and is gone.
fn drained(before: &str, after: &str) -> Scene {
    scene(&draining(before)).then(&draining(after)).wrote()
}

/// Checks what is waited for, and for how many seconds: at most 60, when the time spent is saved.
#[track_caller]
fn check_awaits(scene: &Scene, status: &str, seconds: u64) {
    let step = scene.step();
    assert_eq!(in_words(&step.action, &scene.node), "wait");
    assert_eq!(step.status.unwrap(), format!("Draining: all pods are gone; {status}"));
    // All that is to be written is written.
    let mut told = NodeView { status: scene.step().status, ..scene.node.clone() };
    if let Field::Set(progress) = &mut told.in_progress {
        progress.spent_seconds = scene.memory.spent(scene.now()).as_secs();
    }
    let wake = super::step(&Situation { node: &told, ..scene.situation() }).wake;
    assert_eq!(wake, Some(Duration::from_secs(seconds)));
}

/// Checks whether volumes are watched.
#[track_caller]
fn check_watched(scene: &Scene, expected: bool) {
    assert_eq!(watches(&scene.situation()), Watches { pods: true, volumes: expected, lock: false });
}

#[test]
fn the_volume_of_a_pod_that_left_is_waited_for_until_it_is_detached() {
    let attached = drained("pods=a:data", "pods= attached=pv-1:data");
    check_awaits(&attached, "waiting for 1 volume (pv-1) to detach", 60);
    check_scene(&attached.then(&draining("pods= attached=")), "refresh");
    let two = drained("pods=a:data,logs", "pods= attached=pv-1:data+pv-2:logs");
    check_awaits(&two, "waiting for 2 volumes (pv-1, pv-2) to detach", 60);
    check_awaits(&two.then(&draining("attached=pv-2:logs")), "waiting for 1 volume (pv-2) to detach", 60);
}

#[test]
fn a_volume_is_not_waited_for_where_it_is_nobodys_or_of_a_pod_that_stays() {
    check_scene(&drained("pods=a", "pods= attached=pv-1:data"), "refresh");
    check_scene(&drained("pods=a:data", "pods= attached=pv-2:other"), "refresh");
    check_scene(&drained("pods=a:data", "pods= attached=pv-2"), "refresh");
    check_scene(&drained("pods=a:data+ds:data@", "pods=ds:data@ attached=pv-1:data"), "refresh");
    check_scene(&drained("pods=ds:data@", "pods=ds:data@ attached=pv-1:data"), "refresh");
}

#[test]
fn a_pod_that_has_ended_keeps_no_volume() {
    let ended = drained("pods=job:data", "pods=job:data. attached=pv-1:data");
    check_awaits(&ended, "waiting for 1 volume (pv-1) to detach", 60);
}

#[test]
fn volumes_are_watched_only_at_the_end_of_a_drain_of_pods_that_had_some() {
    check_watched(&scene(&draining("")), false);
    check_watched(&scene(&draining("pods=a:data")), false);
    check_watched(&drained("pods=a:data+b", "pods=b"), false);
    check_watched(&drained("pods=a", "pods="), false);
    check_watched(&drained("pods=ds:data@", "pods=ds:data@"), false);
    let over = drained("pods=a:data", "pods=");
    check_watched(&over, true);
    let listed = over.then(&draining("attached="));
    check_watched(&listed, true);
    check_watched(&listed.then("asks granted=7 rebooting=7 cordon=reboot-agent"), false);
    check_watched(&drained("no-volumes pods=a:data", "pods="), false);
    assert_eq!(watches(&scene("asks pods=a:data").situation()), Watches::default());
}

#[test]
fn a_list_of_the_volumes_that_does_not_come_is_not_waited_for_long() {
    let unlisted = drained("pods=a:data", "pods=");
    check_awaits(&unlisted, "listing the volumes that are attached", 10);
    check_scene(&unlisted.after(10), "refresh");
}

#[test]
fn the_list_of_the_volumes_is_waited_for_from_when_the_last_pod_has_gone() {
    let with_claim_gone =
        |rest: &str| scene(&draining(&format!("pods=a:data+{rest}"))).then(&draining(&format!("pods={rest}")));
    let listing = "listing the volumes that are attached";
    for (rest, end) in [("b", ""), ("job", "job."), ("b+ds@", "ds@")] {
        let last = with_claim_gone(rest).after(40).then(&draining(&format!("pods={end}"))).wrote();
        check_watched(&last, true);
        check_awaits(&last, listing, 10);
        check_scene(&last.after(10), "refresh");
    }
    // A pod of a DaemonSet that comes is nothing to wait for, and the setting holds all the same.
    let last = with_claim_gone("b").after(40).then(&draining("pods=")).after(4).then(&draining("pods=ds@")).wrote();
    check_awaits(&last, listing, 6);
    let late = |seconds| with_claim_gone("b").after(seconds).then(&draining("pods=")).wrote();
    check_awaits(&late(115), listing, 5);
    check_scene(&late(120), "refresh");
}

#[test]
fn the_list_of_the_volumes_is_waited_for_from_when_the_last_pod_is_not_waited_for_any_longer() {
    let with = |mut scene: Scene| {
        scene.policy.drain.skip_stuck_after = Some(Duration::from_secs(20));
        let ended_at = "2026-01-01T12:00:10Z".parse().unwrap();
        scene
            .host
            .pods
            .iter_mut()
            .flatten()
            .filter(|pod| pod.is_terminating())
            .for_each(|pod| pod.ends_at = Some(ended_at));
        scene
    };
    let left = with(scene(&draining("pods=a:data+b!")).then(&draining("pods=b!"))).after(31).wrote();
    check_awaits(&left, "listing the volumes that are attached", 9);
    check_scene(&left.after(9), "refresh");
}

#[test]
fn a_volume_that_stays_attached_is_said_and_holds_the_reboot_for_no_longer_than_the_setting() {
    let stays = || drained("pods=a:data", "pods= attached=pv-1:data");
    check_awaits(&stays().after(70).wrote(), "waiting for 1 volume (pv-1) to detach", 50);
    check_scene(&stays().after(120), "refresh");
    let over = stays().after(120).then(&draining("fresh"));
    check_scene(&over, "write commit:7");
    let Action::Write(_, Some(note)) = over.step().action else { panic!("a note") };
    assert!(note.warning && note.text.ends_with("with volumes attached: pv-1"), "{note:?}");
    check_scene(&drained("no-volumes pods=a:data", "pods= attached=pv-1:data"), "refresh");
}

#[test]
fn the_wait_for_volumes_ends_with_the_drain_timeout_and_is_no_reason_to_give_up() {
    let late = scene(&draining("pods=a:data")).after(550).then(&draining("pods= attached=pv-1:data")).wrote();
    check_awaits(&late, "waiting for 1 volume (pv-1) to detach", 50);
    check_scene(&late.after(50).then(&draining("fresh")), "write commit:7");
}

#[test]
fn a_pause_ends_the_wait_for_volumes() {
    let paused = drained("pods=a:data", "pods= attached=pv-1:data paused");
    check_scene(&paused, "write GaveBack:7:Paused uncordon request:person -reboot -in-progress");
}

#[test]
fn a_pod_that_comes_back_is_drained_before_its_volume_is_waited_for() {
    let came = drained("pods=a:data", "pods=a:data attached=pv-1:data");
    check_scene(&came, "evict a");
    check_watched(&came, false);
}
