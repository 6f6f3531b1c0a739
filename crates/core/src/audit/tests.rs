//! Every rule has a violation made by hand, and a twin that differs in one thing and is clean.

use k8s_openapi::api::core::v1::Node;

use super::*;
use crate::drain::PodRef;
use crate::ledger::{Ledger, Lost, Slot, Version};
use crate::node::CordonOwner;
use crate::values::{Answer, Field, LastReboot, PROTOCOL, Request};

const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";
const NEXT: &str = "1a2b3c4d-1c3a-4a52-9d3b-2f6a3c5e7b91";

/// A world of the nodes `a` and `b` under [`BOOT`], an empty ledger, and a quota of one.
struct World {
    audit: Audit,
    nodes: BTreeMap<&'static str, NodeView>,
    found: Vec<Fault>,
    seconds: u64,
}

fn world() -> World {
    let audit = Audit::new(Quota::Nodes(1), Selector::default());
    let mut world = World { audit, nodes: BTreeMap::new(), found: Vec::new(), seconds: 0 };
    for name in ["a", "b"] {
        let mut node = NodeView::from(&Node::default());
        (node.name, node.uid, node.ready, node.boot) = (name.into(), name.into(), true, BOOT.parse().ok());
        (node.needed, node.request) = (Some("kernel".into()), answered());
        world.nodes.insert(name, node);
        world.audit.booted(name, BOOT.parse().unwrap());
        world = world.writes(Actor::Machine, name, |_| {});
    }
    world.ledger(Actor::Controller, &[])
}

impl World {
    fn writes(mut self, actor: Actor, name: &'static str, change: impl FnOnce(&mut NodeView)) -> Self {
        let node = self.nodes.get_mut(name).unwrap();
        change(node);
        let violations = self.audit.node_changed(actor, name, Some(node), Duration::from_secs(self.seconds));
        self.found.extend(violations.iter().map(|violation| violation.fault));
        self
    }

    /// The ledger becomes these slots: `node` and serial, then `@` and the UID where it is another one.
    fn ledger(mut self, actor: Actor, slots: &[(&str, &str)]) -> Self {
        let slot = |(node, serial): &(&str, &str)| {
            let (serial, uid) = serial.split_once('@').unwrap_or((serial, node));
            let (id, since) = (Some(id(serial)), jiff::Timestamp::UNIX_EPOCH);
            Slot { node: (*node).into(), uid: uid.into(), id, since }
        };
        let version = Version { uid: "l".into(), resource_version: "1".into() };
        let ledger = LedgerState::Known(Ledger::complete(version, slots.iter().map(slot).collect()));
        self.found.extend(self.audit.ledger_changed(actor, &ledger).iter().map(|violation| violation.fault));
        self
    }

    fn ledger_lost(mut self) -> Self {
        let lost = LedgerState::Lost(Lost { why: "deleted".into(), version: None });
        self.found.extend(self.audit.ledger_changed(Actor::Person, &lost).iter().map(|violation| violation.fault));
        self
    }

    fn granted(self, name: &'static str, serial: &'static str) -> Self {
        self.ledger(Actor::Controller, &[(name, serial)]).writes(Actor::Controller, name, |node| grant(node, serial))
    }

    fn forced(self, name: &'static str) -> Self {
        self.writes(Actor::Person, name, |node| node.permission = Field::Set(Permission::Now))
    }

    fn draining(self, name: &'static str, serial: &'static str) -> Self {
        self.writes(Actor::Agent, name, |node| {
            node.unschedulable = true;
            node.in_progress = progress(Phase::Draining, serial);
        })
    }

    fn rebooting(self, name: &'static str, serial: &'static str) -> Self {
        self.writes(Actor::Agent, name, |node| node.in_progress = progress(Phase::Rebooting, serial))
    }

    fn boots(mut self, name: &'static str) -> Self {
        self.audit.booted(name, NEXT.parse().unwrap());
        self.writes(Actor::Machine, name, |_| {})
    }

    fn calls(mut self, name: &str, pods: usize, pods_may_be_left: bool) -> Self {
        let pod = PodView {
            pod: PodRef { namespace: "default".into(), name: "web".into(), uid: "web".into() },
            ..PodView::default()
        };
        let violations = self.audit.logind_called(name, &vec![pod; pods], pods_may_be_left);
        self.found.extend(violations.iter().map(|violation| violation.fault));
        self
    }
}

fn id(serial: &str) -> GrantId {
    format!("{BOOT}.{serial}").parse().unwrap()
}

fn answered() -> Field<Answer> {
    Field::Set(Answer::Compatible(Request {
        protocol: PROTOCOL,
        boot: BOOT.parse().unwrap(),
        os_version: None,
        since: jiff::Timestamp::UNIX_EPOCH,
        sources: Vec::new(),
        attempts: 0,
        not_before: None,
    }))
}

fn grant(node: &mut NodeView, serial: &str) {
    node.permission = Field::Set(Permission::Granted(id(serial)));
}

fn progress(phase: Phase, serial: &str) -> Field<InProgress> {
    let (id, since) = (id(serial), jiff::Timestamp::UNIX_EPOCH);
    Field::Set(InProgress { phase, id, since, spent_seconds: 0, os_version: None, cordoned: true, run: None })
}

fn report(node: &mut NodeView, outcome: Outcome, reason: EndReason, serial: &str) {
    node.last_reboot = Field::Set(LastReboot {
        id: Some(id(serial)),
        outcome,
        reason,
        detail: None,
        at: jiff::Timestamp::UNIX_EPOCH,
        seconds: 0,
        drain_seconds: 0,
        why: None,
        os_before: None,
        os_after: None,
        same_version: 0,
    });
    node.in_progress = Field::Absent;
}

#[track_caller]
fn check(world: World, expected: &[Fault]) {
    assert_eq!(world.found, expected);
}

#[test]
fn s1_a_slot_is_taken_within_the_limit_only() {
    let one = || world().granted("a", "1");
    check(one(), &[]);
    check(one().ledger(Actor::Controller, &[("a", "1"), ("b", "2")]), &[Fault::SlotAboveLimit { slots: 2, limit: 1 }]);
    let forced = one().forced("b").draining("b", "now-9");
    check(forced.ledger(Actor::Controller, &[("a", "1"), ("b", "now-9")]), &[]);
    // What was in progress when its Node was read may have ended when its slot is written.
    let begun = one().writes(Actor::Machine, "b", |node| node.in_progress = progress(Phase::Draining, "2"));
    let ended = begun.writes(Actor::Machine, "b", |node| node.in_progress = Field::Absent);
    check(ended.ledger(Actor::Controller, &[("a", "1"), ("b", "2")]), &[]);
}

#[test]
fn s1_a_grant_has_a_slot_and_an_id_of_its_own() {
    check(world().writes(Actor::Controller, "a", |node| grant(node, "1")), &[Fault::GrantWithoutSlot]);
    check(
        world().granted("b", "1").writes(Actor::Controller, "a", |node| grant(node, "1")),
        &[Fault::GrantRepeated, Fault::GrantWithoutSlot],
    );
    let withdrawn = || world().granted("a", "1").writes(Actor::Controller, "a", |node| node.permission = Field::Absent);
    check(withdrawn().writes(Actor::Controller, "a", |node| grant(node, "1")), &[Fault::GrantRepeated]);
    check(withdrawn().ledger_lost().writes(Actor::Controller, "a", |node| grant(node, "2")), &[]);
}

#[test]
fn s2_the_point_of_no_return_needs_a_permission_and_a_slot() {
    let draining = || world().granted("a", "1").draining("a", "1");
    check(draining().rebooting("a", "1"), &[]);
    let removed = draining().writes(Actor::Person, "a", |node| node.permission = Field::Absent);
    check(removed.rebooting("a", "1"), &[Fault::CommitWithoutPermission]);
    check(draining().rebooting("a", "2"), &[Fault::CommitWithoutPermission]);
    let freed = draining().ledger(Actor::Person, &[]);
    check(freed.rebooting("a", "1"), &[Fault::CommitWithoutSlot]);
    let forced = || world().forced("a");
    check(forced().draining("a", "now-9").rebooting("a", "now-9"), &[]);
}

#[test]
fn s2_logind_is_called_after_the_point_of_no_return_and_without_pods_left() {
    let draining = || world().granted("a", "1").draining("a", "1");
    check(draining().calls("a", 0, false), &[Fault::CallWithoutCommit]);
    let committed = || draining().rebooting("a", "1");
    check(committed().calls("a", 0, false), &[]);
    check(committed().calls("a", 2, false), &[Fault::CallWithPodsLeft { pods: 2 }]);
    check(committed().calls("a", 2, true), &[]);
    check(committed().boots("a").calls("a", 0, false), &[Fault::CallWithoutCommit]);
    let removed = committed().writes(Actor::Person, "a", |node| node.in_progress = Field::Absent);
    check(removed.calls("a", 0, false), &[]);
    let given_back =
        committed().writes(Actor::Agent, "a", |node| report(node, Outcome::GaveBack, EndReason::RebootRefused, "1"));
    check(given_back.calls("a", 0, false), &[Fault::CallWithoutCommit]);
}

#[test]
fn s3_a_reboot_is_reported_when_the_boot_differs_and_kubelet_says_so() {
    let committed = || world().granted("a", "1").draining("a", "1").rebooting("a", "1");
    let done = |world: World| {
        world.writes(Actor::Agent, "a", |node| report(node, Outcome::Rebooted, EndReason::Rebooted, "1"))
    };
    let confirmed = |ready| move |node: &mut NodeView| (node.boot, node.ready) = (NEXT.parse().ok(), ready);
    check(done(committed().boots("a").writes(Actor::Machine, "a", confirmed(true))), &[]);
    check(done(committed().boots("a").writes(Actor::Machine, "a", confirmed(false))), &[Fault::ReportUnconfirmed]);
    check(done(committed().boots("a")), &[Fault::ReportUnconfirmed]);
    check(done(committed()), &[Fault::ReportWithoutReboot]);
}

#[test]
fn s4_only_the_agents_cordon_is_removed() {
    let cordons = |actor| world().writes(actor, "a", |node| node.unschedulable = true);
    let uncordons = |world: World, actor| world.writes(actor, "a", |node| node.unschedulable = false);
    check(uncordons(cordons(Actor::Agent), Actor::Agent), &[]);
    check(uncordons(cordons(Actor::Person), Actor::Agent), &[Fault::ForeignCordonRemoved]);
    check(uncordons(cordons(Actor::Person), Actor::Person), &[]);
    let passed_on =
        uncordons(cordons(Actor::Agent), Actor::Person).writes(Actor::Person, "a", |node| node.unschedulable = true);
    check(uncordons(passed_on, Actor::Agent), &[Fault::ForeignCordonRemoved]);
    check(uncordons(cordons(Actor::Agent), Actor::Controller), &[]);
}

#[test]
fn s5_a_pause_and_an_uncordon_before_the_point_of_no_return_are_honoured() {
    let draining = || world().granted("a", "1").draining("a", "1");
    let pause = |world: World| world.writes(Actor::Person, "a", |node| node.paused = Some("x".into()));
    check(pause(draining()).rebooting("a", "1"), &[Fault::CommitWhilePaused]);
    check(pause(draining().rebooting("a", "1")).calls("a", 0, false), &[]);
    let uncordoned = draining().writes(Actor::Person, "a", |node| node.unschedulable = false);
    check(uncordoned.rebooting("a", "1"), &[Fault::CommitUncordoned]);
}

#[test]
fn s5_a_grant_is_for_a_node_that_asks_and_is_answered_and_is_not_paused() {
    let grant_after = |change: fn(&mut NodeView)| world().writes(Actor::Person, "a", change).granted("a", "1");
    check(grant_after(|_| {}), &[]);
    check(grant_after(|node| node.needed = None), &[Fault::GrantUnasked]);
    check(grant_after(|node| node.request = Field::Absent), &[Fault::GrantUnasked]);
    check(grant_after(|node| node.boot = NEXT.parse().ok()), &[Fault::GrantUnasked]);
    check(grant_after(|node| node.paused = Some("x".into())), &[Fault::GrantUnasked]);
    check(grant_after(|node| node.permission = Field::Malformed(String::new())), &[Fault::GrantUnasked]);
    check(grant_after(|node| node.in_progress = Field::Malformed(String::new())), &[Fault::GrantUnasked]);
}

#[test]
fn s5_a_drain_begins_with_its_permission_and_without_a_pause() {
    check(world().granted("a", "1").draining("a", "1"), &[]);
    check(world().granted("a", "1").draining("a", "2"), &[Fault::StartWithoutPermission]);
    check(world().draining("a", "now-9"), &[Fault::StartWithoutPermission]);
    let paused = world().forced("a").writes(Actor::Person, "a", |node| node.paused = Some("x".into()));
    check(paused.draining("a", "now-9"), &[Fault::StartWithoutPermission]);
    let pass_on = |world: World| world.draining("a", "1").rebooting("a", "1");
    let restored = pass_on(world().granted("a", "1")).writes(Actor::Person, "a", |node| {
        (node.in_progress, node.permission) = (Field::Absent, Field::Absent);
    });
    check(restored.rebooting("a", "1"), &[]);
}

#[test]
fn s5_nothing_is_given_back_when_the_shutdown_has_begun() {
    let committed = |begun| {
        let mut world = world().granted("a", "1").draining("a", "1").rebooting("a", "1");
        if begun {
            world.audit.going_down("a");
        }
        world.writes(Actor::Agent, "a", |node| report(node, Outcome::GaveBack, EndReason::ProgressRemoved, "1"))
    };
    check(committed(true), &[Fault::GaveBackTooLate]);
    check(committed(false), &[]);
}

#[test]
fn s5_a_pause_leaves_a_force_where_it_is() {
    let forced = || world().forced("a").draining("a", "now-9");
    let ends = |reason, permission| {
        forced().writes(Actor::Agent, "a", move |node| {
            report(node, Outcome::GaveBack, reason, "now-9");
            node.permission = permission;
        })
    };
    check(ends(EndReason::Paused, Field::Absent), &[Fault::ForceClearedByPause]);
    check(ends(EndReason::Paused, Field::Set(Permission::Now)), &[]);
    check(ends(EndReason::DrainTimedOut, Field::Absent), &[]);
}

#[test]
fn s5_what_a_person_removes_is_not_renewed_at_once() {
    let removed = || {
        let fence = |node: &mut NodeView| node.fence = Some("f".into());
        world()
            .granted("a", "1")
            .writes(Actor::Person, "a", |node| node.permission = Field::Absent)
            .writes(Actor::Controller, "a", fence)
            .ledger(Actor::Controller, &[])
    };
    check(removed().granted("a", "2"), &[Fault::GrantRenewed]);
    check(World { seconds: 30, ..removed() }.granted("a", "2"), &[]);
    let ended = |change: fn(&mut NodeView)| {
        let report = |node: &mut NodeView| {
            report(node, Outcome::GaveBack, EndReason::UncordonedByOther, "1");
            node.permission = Field::Absent;
        };
        let ended = world().granted("a", "1").draining("a", "1").writes(Actor::Person, "a", change);
        ended.writes(Actor::Agent, "a", report).ledger(Actor::Controller, &[])
    };
    check(ended(|node| node.unschedulable = false).granted("a", "2"), &[Fault::GrantRenewed]);
    check(ended(|node| node.in_progress = Field::Absent).granted("a", "2"), &[Fault::GrantRenewed]);
    check(ended(|node| node.in_progress = Field::Malformed(String::new())).granted("a", "2"), &[]);
    let then = |change: fn(&mut NodeView)| removed().writes(Actor::Person, "a", change).granted("a", "2");
    check(then(|_| {}), &[Fault::GrantRenewed]);
    check(then(|node| node.needed = Some("again".into())), &[]);
    check(then(|node| node.waiting = Field::Malformed(String::new())), &[]);
    let paused = removed().writes(Actor::Person, "a", |node| node.paused = Some("x".into()));
    check(paused.writes(Actor::Person, "a", |node| node.paused = None).granted("a", "2"), &[]);
}

#[test]
fn s5_a_value_that_is_corrected_may_be_granted_at_once() {
    let garble = |node: &mut NodeView| node.permission = Field::Malformed(String::new());
    let garbled = world().granted("a", "1").writes(Actor::Person, "a", garble);
    let fenced = garbled.writes(Actor::Controller, "a", |node| node.fence = Some("f".into()));
    let freed = fenced.ledger(Actor::Controller, &[]);
    check(freed.writes(Actor::Person, "a", |node| node.permission = Field::Absent).granted("a", "2"), &[]);
}

#[test]
fn s5_what_a_person_changes_beside_a_cycle_or_past_the_point_of_no_return_holds_nothing_back() {
    let ends = |world: World, reason| {
        let report = move |node: &mut NodeView| {
            report(node, Outcome::GaveBack, reason, "1");
            node.permission = Field::Absent;
        };
        world.writes(Actor::Agent, "a", report).ledger(Actor::Controller, &[]).granted("a", "2")
    };
    let draining = || world().granted("a", "1").draining("a", "1");
    let labelled = draining().writes(Actor::Person, "a", |node| node.labels = [("a".into(), "b".into())].into());
    check(ends(labelled, EndReason::DrainTimedOut), &[]);
    let removed = draining().rebooting("a", "1").writes(Actor::Person, "a", |node| node.permission = Field::Absent);
    check(ends(removed, EndReason::RebootRefused), &[]);
}

#[test]
fn s5_a_grant_that_is_removed_while_the_ledger_is_lost_was_perhaps_never_written() {
    let lost = world().granted("a", "1").ledger_lost();
    let removed = lost.writes(Actor::Person, "a", |node| node.permission = Field::Absent);
    check(removed.ledger(Actor::Controller, &[]).granted("a", "2"), &[]);
}

#[test]
fn what_is_remembered_of_a_node_ends_with_its_cycle() {
    let known = |world: &World| world.audit.remembered("a");
    let nothing =
        Remembered { cordoned_by_agent: false, committed: None, going_down: false, undone: None, slot_is_over: None };
    assert_eq!(known(&world()), nothing);
    assert_eq!(world().audit.remembered("unheard of"), nothing);
    let granted = world().granted("a", "1");
    assert_eq!(known(&granted), Remembered { slot_is_over: Some(false), ..nothing.clone() });
    let mut rebooting = granted.draining("a", "1").rebooting("a", "1");
    rebooting.audit.going_down("a");
    let committed = Some(id("1"));
    let all = Remembered { cordoned_by_agent: true, committed, going_down: true, slot_is_over: Some(false), ..nothing };
    assert_eq!(known(&rebooting), all);
    let done = rebooting.boots("a").writes(Actor::Machine, "a", |node| node.boot = NEXT.parse().ok());
    let done = done.writes(Actor::Agent, "a", |node| report(node, Outcome::Rebooted, EndReason::Rebooted, "1"));
    assert_eq!(known(&done), Remembered { committed: None, going_down: false, slot_is_over: Some(true), ..all });
    let (granted, in_progress) = done.audit.cycles();
    assert_eq!((granted.collect(), in_progress.collect()), (vec![id("1")], vec![id("1")]));
}

#[test]
fn s6_a_slot_is_freed_by_evidence_alone() {
    let granted = || world().granted("a", "1");
    let freed = |world: World| world.ledger(Actor::Controller, &[]);
    let report = |node: &mut NodeView| report(node, Outcome::GaveBack, EndReason::Paused, "1");
    let fence = |node: &mut NodeView| (node.permission, node.fence) = (Field::Absent, Some("f".into()));
    check(freed(granted()), &[Fault::SlotFreedWithoutEvidence]);
    check(freed(granted().writes(Actor::Agent, "a", report)), &[]);
    check(freed(granted().writes(Actor::Controller, "a", fence)), &[]);
    check(
        freed(granted().draining("a", "1").writes(Actor::Controller, "a", fence)),
        &[Fault::SlotFreedWithoutEvidence],
    );
    let gone = |node: &mut NodeView| node.permission = Field::Absent;
    check(freed(granted().writes(Actor::Person, "a", gone)), &[Fault::SlotFreedWithoutEvidence]);
    check(freed(granted().writes(Actor::Machine, "a", |node| node.uid = "a2".into())), &[]);
    let booted = |ready| move |node: &mut NodeView| (node.boot, node.ready) = (NEXT.parse().ok(), ready);
    let rebooted =
        |ready| granted().writes(Actor::Person, "a", gone).boots("a").writes(Actor::Machine, "a", booted(ready));
    check(freed(rebooted(true)), &[]);
    check(freed(rebooted(false)), &[Fault::SlotFreedWithoutEvidence]);
    let granted_still = granted().boots("a").writes(Actor::Machine, "a", booted(true));
    check(freed(granted_still), &[Fault::SlotFreedWithoutEvidence]);
    let bare = |node: &mut NodeView| {
        (node.permission, node.in_progress, node.cordon_owner) = (Field::Absent, Field::Absent, CordonOwner::Agent);
    };
    let cordoned = || granted().draining("a", "1").writes(Actor::Person, "a", bare);
    check(freed(cordoned().writes(Actor::Controller, "a", fence)), &[Fault::SlotFreedWithoutEvidence]);
    let booted_meanwhile = cordoned().boots("a").writes(Actor::Machine, "a", booted(false));
    check(freed(booted_meanwhile.writes(Actor::Controller, "a", fence)), &[]);
}

#[test]
fn s6_what_was_proven_of_a_slot_stays_proven_until_it_is_another() {
    let fence = |node: &mut NodeView| (node.permission, node.fence) = (Field::Absent, Some("f".into()));
    let fenced = || world().granted("a", "1").writes(Actor::Controller, "a", fence);
    check(fenced().ledger(Actor::Controller, &[("a", "1")]).ledger(Actor::Controller, &[]), &[]);
    check(fenced().ledger(Actor::Controller, &[("a", "1@other")]), &[]);
    check(world().granted("a", "1").ledger(Actor::Controller, &[("a", "1@other")]), &[Fault::SlotFreedWithoutEvidence]);
}

#[test]
fn s6_a_slot_passes_only_to_a_cycle_that_is_in_progress_or_when_it_is_over() {
    let followed_by = |id: &str, world: World| world.ledger(Actor::Controller, &[("a", id)]);
    check(followed_by("now-9", world().granted("a", "1")), &[Fault::SlotFreedWithoutEvidence]);
    check(followed_by("now-9", world().granted("a", "1").forced("a").draining("a", "now-9")), &[]);
    let fence = |node: &mut NodeView| (node.permission, node.fence) = (Field::Absent, Some("f".into()));
    check(followed_by("2", world().granted("a", "1")), &[Fault::SlotFreedWithoutEvidence]);
    check(followed_by("2", world().granted("a", "1").writes(Actor::Controller, "a", fence)), &[]);
}

#[test]
fn s6_a_rebuilt_ledger_has_every_cycle_that_is_under_way() {
    check(world().granted("a", "1").ledger_lost().ledger(Actor::Controller, &[]), &[Fault::CycleLeftOut]);
    check(world().granted("a", "1").ledger_lost().ledger(Actor::Controller, &[("a", "1")]), &[]);
    check(world().ledger_lost().ledger(Actor::Controller, &[]), &[]);
}

#[test]
fn a_violation_says_which_promise_it_breaks_and_where() {
    let violation = Violation { node: "a".into(), fault: Fault::CallWithPodsLeft { pods: 2 } };
    assert_eq!(violation.to_string(), "S2 broken on a: CallWithPodsLeft { pods: 2 }");
}
