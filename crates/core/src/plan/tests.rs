use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;
use crate::annotations as key;
use crate::ledger::{Ledger, Lost, Version};

const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";
const OTHER_BOOT: &str = "1a2b3c4d-1c3a-4a52-9d3b-2f6a3c5e7b91";

/// A fleet written in short words, one node each: `name:word,word,...`.
struct Fleet {
    nodes: Vec<NodeView>,
    ledger: LedgerState,
    quota: &'static str,
}

fn now() -> Now {
    Now { mono: Duration::from_secs(1000), wall: "2026-01-01T12:00:00Z".parse().unwrap() }
}

fn request(since_minute: u32, not_before: Option<&str>, protocol: u32) -> String {
    let not_before = not_before.map(|at| format!(r#","notBefore":"{at}""#)).unwrap_or_default();
    format!(
        r#"{{"protocol":{protocol},"bootID":"{BOOT}","since":"2026-01-01T11:{since_minute:02}:00Z","sources":["person"]{not_before}}}"#
    )
}

/// `how`: the detail of a cycle that was given back, or after how many reboots in a row the version was the same.
fn last_reboot(how: &str) -> String {
    let mut last =
        json!({ "outcome": "gave-back", "reason": "DrainTimedOut", "at": "2026-01-01T11:00:00Z", "seconds": 1 });
    match how.strip_prefix("same:") {
        Some(times) => {
            (last["outcome"], last["reason"]) = (json!("rebooted"), json!("Rebooted"));
            last["sameVersion"] = json!(times.parse::<u32>().unwrap());
        }
        None if how == "0" => {}
        None => last["detail"] = json!(how),
    }
    last.to_string()
}

fn waiting(reason: &str, more: &str) -> String {
    format!(r#"{{"reason":"{reason}","since":"2026-01-01T11:00:00Z"{more},"message":""}}"#)
}

fn node(text: &str) -> NodeView {
    let (name, words) = text.split_once(':').unwrap();
    let (mut annotations, mut labels) = (json!({}), json!({}));
    let (mut ready, mut cordoned, mut boot) = ("True", false, BOOT);
    let mut turned = "2026-01-01T11:00:00Z".to_owned();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let mut set = |key: &str, value: String| annotations[key] = Value::String(value);
        match word.split_once('=').unwrap_or((word, "0")) {
            ("asks", minute) => {
                set(key::NEEDED, "why".into());
                set(key::REQUEST, request(minute.parse().unwrap(), None, 1));
            }
            ("needed", _) => set(key::NEEDED, "why".into()),
            ("later", at) => set(key::REQUEST, request(0, Some(at), 1)),
            ("protocol2", _) => set(key::REQUEST, request(0, None, 2)),
            ("garbled", _) => set(key::REQUEST, "{}".into()),
            ("paused", _) => set(key::PAUSED, "maintenance".into()),
            ("now", _) => set(key::REBOOT, "now".into()),
            ("True", _) => set(key::REBOOT, "True".into()),
            ("granted", number) => set(key::REBOOT, format!("{BOOT}.{number}")),
            (phase @ ("draining" | "rebooting"), number) => {
                let times = r#""since":"2026-01-01T11:00:00Z","cordoned":true"#;
                set(key::IN_PROGRESS, format!(r#"{{"phase":"{phase}","id":"{BOOT}.{number}",{times}}}"#));
            }
            // `at`: until when it is held, and `/otherboot` where the grant was for another boot.
            ("removed", at) => {
                let (at, held) = at.split_once('/').map_or((at, BOOT), |(at, _)| (at, OTHER_BOOT));
                let times = format!(r#","until":"{at}","heldUntil":"{at}","heldBoot":"{held}""#);
                set(key::WAITING, waiting("GrantRemoved", &times));
            }
            ("waits", reason) => set(key::WAITING, waiting(reason, "")),
            ("lapsed", number) => set(key::WAITING, waiting("NoAgent", &format!(r#","lapsed":"{BOOT}.{number}""#))),
            ("gave-back", at) => set(key::LAST_REBOOT, last_reboot("0").replace("2026-01-01T11:00:00Z", at)),
            ("ended", how) => set(key::LAST_REBOOT, last_reboot(how)),
            // Since a second of the minute before now, or for long.
            ("down", second) => {
                ready = "Unknown";
                if second != "0" {
                    turned = format!("2026-01-01T11:59:{second}Z");
                }
            }
            ("cordoned", _) => cordoned = true,
            ("otherboot", _) => boot = OTHER_BOOT,
            ("control", _) => labels["role"] = json!("control"),
            ("cp", _) => labels["node-role.kubernetes.io/control-plane"] = json!(""),
            other => panic!("no such word: {other:?}"),
        }
    }
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": name, "uid": name, "resourceVersion": "5", "annotations": annotations, "labels": labels },
        "spec": { "unschedulable": cordoned },
        "status": { "conditions": [{ "type": "Ready", "status": ready, "lastTransitionTime": turned }],
                    "nodeInfo": { "bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                                  "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "",
                                  "osImage": "", "systemUUID": "" } },
    }))
    .unwrap();
    NodeView::from(&node)
}

fn fleet(quota: &'static str, slots: &[(&str, u64)], nodes: &[&str]) -> Fleet {
    let version = Version { uid: "l".into(), resource_version: "100".into() };
    let slot = |(name, number): &(&str, u64)| Slot {
        node: (*name).to_owned(),
        uid: (*name).to_owned(),
        id: Some(format!("{BOOT}.{number}").parse().unwrap()),
        since: "2026-01-01T11:55:00Z".parse().unwrap(),
    };
    let ledger = LedgerState::Known(Ledger::complete(version, slots.iter().map(slot).collect()));
    Fleet { nodes: nodes.iter().map(|text| node(text)).collect(), ledger, quota }
}

fn policy(quota: &str) -> Policy {
    Policy {
        quota: quota.parse().unwrap(),
        selector: "role!=control".parse().unwrap(),
        pickup_deadline: Duration::from_mins(2),
    }
}

impl Fleet {
    fn view(&self) -> ClusterView<'_> {
        ClusterView { nodes: &self.nodes, ledger: &self.ledger, home: Some("home") }
    }

    fn plan(&self) -> Plan {
        let mut memory = Memory::default();
        memory.observe(&self.view(), Now { mono: Duration::from_secs(980), ..now() });
        plan(&self.view(), &policy(self.quota), &memory, now())
    }
}

/// Checks who is granted, and what the others wait for: `name=Reason` or `name=Reason@blocker`.
#[track_caller]
fn check(fleet: &Fleet, granted: &[&str], waits: &[&str]) {
    let plan = fleet.plan();
    let grants: Vec<&str> = plan
        .actions
        .iter()
        .filter_map(|action| match action {
            Action::Grant(name, _) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    let waiting: Vec<String> = plan
        .waits
        .iter()
        .map(|(name, reason)| match reason.blocker() {
            Some(blocker) => format!("{name}={}@{blocker}", reason.code()),
            None => format!("{name}={}", reason.code()),
        })
        .collect();
    assert_eq!((grants, waiting), (granted.to_vec(), waits.iter().map(ToString::to_string).collect()));
}

#[test]
fn who_has_asked_longest_goes_first_and_the_controllers_own_node_last() {
    check(&fleet("1", &[], &["a:asks=3", "b:asks=1", "home:asks=0"]), &["b"], &["a=QuotaUsed", "home=QuotaUsed"]);
    check(&fleet("3", &[], &["a:asks=3", "b:asks=1", "home:asks=0"]), &["b", "a", "home"], &[]);
    check(&fleet("1", &[], &["b:asks=1", "a:asks=1"]), &["a"], &["b=QuotaUsed"]);
}

#[test]
fn a_slot_that_is_taken_is_taken_whatever_the_node_looks_like() {
    check(&fleet("1", &[("a", 7)], &["a:asks,granted=7", "b:asks"]), &[], &["b=QuotaUsed"]);
    check(&fleet("2", &[("a", 7)], &["a:asks,draining=7,cordoned", "b:asks", "c:asks"]), &["b"], &["c=QuotaUsed"]);
    check(&fleet("1", &[("gone", 7)], &["b:asks"]), &[], &["b=QuotaUsed"]);
    // Its grant is on the way, so it does not wait; and what is forced waits for its agent.
    check(&fleet("2", &[("a", 7)], &["a:asks"]), &[], &[]);
    check(&fleet("2", &[("a", 7)], &["a:now"]), &[], &["a=NoAgent"]);
}

#[test]
fn a_node_that_is_down_or_cordoned_uses_the_quota_up_and_is_named() {
    check(&fleet("1", &[], &["a:down", "b:asks"]), &[], &["b=QuotaUsed@a"]);
    check(&fleet("1", &[], &["a:cordoned", "b:asks"]), &[], &["b=QuotaUsed@a"]);
    check(&fleet("2", &[], &["a:down", "b:asks", "c:asks"]), &["b"], &["c=QuotaUsed@a"]);
    check(&fleet("1", &[], &["a:down,control", "b:asks"]), &["b"], &[]);
}

#[test]
fn a_node_without_a_slot_is_not_blamed_while_the_slots_alone_use_the_quota_up() {
    check(&fleet("1", &[("x", 7)], &["x:asks,granted=7", "a:down", "b:asks"]), &[], &["b=QuotaUsed"]);
    check(&fleet("2", &[("x", 7)], &["x:asks,granted=7", "a:down", "b:asks"]), &[], &["b=QuotaUsed@a"]);
    check(&fleet("2", &[("x", 7), ("y", 8)], &["x:", "y:", "a:down", "b:asks"]), &[], &["b=QuotaUsed"]);
}

#[test]
fn a_node_that_is_not_ready_for_a_moment_uses_the_quota_up_and_is_not_named() {
    check(&fleet("1", &[], &["a:down=31", "b:asks"]), &[], &["b=QuotaUsed"]);
    check(&fleet("1", &[], &["a:down=30", "b:asks"]), &[], &["b=QuotaUsed@a"]);
    check(&fleet("1", &[], &["a:down=31", "b:down=10", "c:asks"]), &[], &["c=QuotaUsed@b"]);
    check(&fleet("1", &[], &["a:down=31,cordoned", "b:asks"]), &[], &["b=QuotaUsed@a"]);
    check_first_wake(&["a:down=31", "b:asks"], Some(1));
}

#[test]
fn a_node_that_is_down_already_may_be_rebooted_but_never_above_the_slots() {
    check(&fleet("1", &[], &["a:down,asks=5", "b:asks=1"]), &["a"], &["b=QuotaUsed@a"]);
    check(&fleet("1", &[], &["a:down,asks=1", "b:cordoned,asks=2"]), &["a"], &["b=QuotaUsed"]);
    check(&fleet("1", &[("x", 7)], &["x:asks,granted=7", "a:down,asks"]), &[], &["a=QuotaUsed"]);
}

#[test]
fn control_plane_nodes_go_one_at_a_time_whatever_the_quota_is() {
    check(&fleet("9", &[], &["a:cp,asks=2", "b:cp,asks=1", "c:cp"]), &["b"], &["a=ControlPlane@b"]);
    check(&fleet("9", &[("c", 7)], &["a:cp,asks", "c:cp,asks,granted=7"]), &[], &["a=ControlPlane@c"]);
    check(&fleet("9", &[], &["a:cp,asks", "c:cp,now,draining=now-9"]), &[], &["a=ControlPlane@c"]);
    check(&fleet("9", &[], &["a:cp,asks", "c:cp,down"]), &[], &["a=ControlPlane@c"]);
    check(&fleet("9", &[], &["a:cp,asks", "c:cp,cordoned"]), &[], &["a=ControlPlane@c"]);
    check(&fleet("9", &[], &["a:cp,asks", "c:cp,control,cordoned"]), &[], &["a=ControlPlane@c"]);
    check(&fleet("9", &[], &["a:cp,asks", "c:cp"]), &["a"], &[]);
}

#[test]
fn only_another_control_plane_node_is_in_the_way_of_a_control_plane_node() {
    check(&fleet("9", &[("w", 7)], &["a:cp,asks", "w:asks,granted=7", "x:down", "y:cordoned"]), &["a"], &[]);
    check(&fleet("9", &[("c", 7)], &["w:asks", "c:cp,asks,granted=7"]), &["w"], &[]);
    check(&fleet("9", &[], &["a:cp,asks,down", "b:cp"]), &["a"], &[]);
    check(&fleet("9", &[], &["a:cp,asks,down", "b:cp,down"]), &[], &["a=ControlPlane@b"]);
    // What is forced asks nobody.
    check(&fleet("9", &[("c", 7)], &["a:cp,now", "c:cp,asks,granted=7"]), &[], &["a=NoAgent"]);
}

#[test]
fn a_control_plane_node_that_has_to_wait_starves_nobody_and_is_told_of_the_quota_first() {
    let fleet = |quota| fleet(quota, &[], &["a:cp,asks=1", "b:cp,control,down", "w:asks=2", "x:asks=3"]);
    check(&fleet("9"), &["w", "x"], &["a=ControlPlane@b"]);
    check(&fleet("1"), &["w"], &["a=ControlPlane@b", "x=QuotaUsed"]);
    check(&fleet("0"), &[], &["a=QuotaZero", "w=QuotaZero", "x=QuotaZero"]);
}

#[test]
fn a_control_plane_node_is_told_the_same_as_long_as_the_other_one_reboots_as_it_should() {
    let check_words = |fleet: &Fleet, words: &str, attention: bool| {
        check_words(fleet, words);
        assert_eq!(fleet.plan().waits["a"].needs_attention(), attention, "{words}");
    };
    let words = "control-plane nodes go one at a time: c ";
    for state in ["granted=7", "granted=7,draining=7,cordoned", "granted=7,rebooting=7,cordoned,down", "otherboot"] {
        let rebooting = fleet("9", &[("c", 7)], &["a:cp,asks", &format!("c:cp,asks,{state}")]);
        check_words(&rebooting, &format!("{words}holds a slot"), false);
    }
    check_words(&fleet("9", &[], &["a:cp,asks=1", "c:cp,asks=0"]), &format!("{words}holds a slot"), false);
    check_words(&fleet("9", &[], &["a:cp,asks", "c:cp,cordoned"]), &format!("{words}is cordoned"), true);
    let stuck = held_for_long(fleet("9", &[("c", 7)], &["a:cp,asks", "c:cp,asks,granted=7,draining=7,cordoned"]));
    check_words(&stuck, &format!("{words}has held its slot since 2026-01-01T11:50:00Z and is cordoned"), true);
}

#[test]
fn a_quota_of_zero_grants_nothing() {
    check(&fleet("0", &[], &["a:asks", "b:down,asks"]), &[], &["a=QuotaZero", "b=QuotaZero"]);
    check(&fleet("0%", &[], &["a:asks"]), &[], &["a=QuotaZero"]);
}

#[test]
fn a_percentage_counts_the_selected_nodes_only() {
    check(&fleet("50%", &[], &["a:asks=1", "b:asks=2", "c:", "d:", "e:control"]), &["a", "b"], &[]);
}

#[test]
fn whoever_cannot_be_rebooted_starves_nobody() {
    let others = ["a:needed", "b:asks,paused", "c:needed,protocol2", "d:needed,garbled", "e:asks,otherboot"];
    let more = ["f:needed,later=2026-01-01T13:00:00Z", "g:asks,control", "h:asks,True", "i:asks=59"];
    check(
        &fleet("1", &[], &[&others[..], &more[..]].concat()),
        &["i"],
        &[
            "a=NoAgent",
            "b=Paused",
            "c=AgentIncompatible",
            "d=Malformed",
            "e=BootIdMismatch",
            "f=BackingOff",
            "g=NotSelected",
            "h=Malformed",
        ],
    );
}

#[test]
fn a_time_that_has_passed_holds_nobody_back() {
    check(&fleet("1", &[], &["a:needed,later=2026-01-01T11:59:00Z"]), &["a"], &[]);
    check(&fleet("1", &[], &["a:asks,removed=2026-01-01T12:00:01Z"]), &[], &["a=GrantRemoved"]);
    check(&fleet("1", &[], &["a:asks,removed=2026-01-01T12:00:00Z"]), &["a"], &[]);
}

#[test]
fn a_reboot_ends_the_time_for_which_a_removed_grant_is_held_whatever_the_clocks_say() {
    check(&fleet("1", &[], &["a:asks,removed=2026-01-01T12:00:01Z/otherboot"]), &["a"], &[]);
    check(&fleet("1", &[], &["a:asks,removed=2026-01-01T12:00:01Z"]), &[], &["a=GrantRemoved"]);
}

/// What a process that saw the answer of `a` come at noon makes of these nodes so many seconds later.
fn seen_to_come(nodes: &[&str], seconds: u64) -> Plan {
    let mut memory = Memory::default();
    let fleets = [fleet("1", &[], &["a:needed"]), fleet("1", &[], nodes)];
    for fleet in &fleets {
        memory.observe(&fleet.view(), now());
    }
    let later = Now { wall: now().wall_after(Duration::from_secs(seconds)), ..now() };
    memory.observe(&fleets[1].view(), later);
    plan(&fleets[1].view(), &policy("1"), &memory, later)
}

#[test]
fn a_pause_is_as_long_as_the_nodes_own_clock_says_and_counted_from_when_its_answer_came() {
    let check = |given_back: &str, not_before: &str, expected: &str| {
        let node = format!("a:needed,gave-back={given_back},later={not_before}");
        for seconds in [0, 30] {
            let until = seen_to_come(&[&node], seconds).waits["a"].until();
            assert_eq!(until, expected.parse().ok(), "{given_back} {not_before}");
        }
    };
    check("2026-01-01T11:59:59Z", "2026-01-01T12:00:59Z", "2026-01-01T12:00:59Z");
    // Behind by an hour, ahead by two hours, by years, and once by years.
    check("2026-01-01T11:00:01Z", "2026-01-01T11:01:01Z", "2026-01-01T12:01:00Z");
    check("2026-01-01T14:00:00Z", "2026-01-01T14:01:00Z", "2026-01-01T12:01:00Z");
    check("2030-01-01T14:00:00Z", "2030-01-01T14:01:00Z", "2026-01-01T12:01:00Z");
    check("2026-01-01T11:59:59Z", "2030-01-01T14:01:00Z", "2026-01-02T12:00:00Z");
}

#[test]
fn an_ask_from_before_the_nodes_clock_was_set_back_shortens_no_pause() {
    let node = "a:needed,gave-back=2026-01-01T10:50:00Z,later=2026-01-01T10:51:00Z";
    assert_eq!(seen_to_come(&[node], 0).waits["a"].until(), "2026-01-01T12:01:00Z".parse().ok());
}

#[test]
fn an_answer_that_was_there_before_the_controller_is_believed_as_far_as_its_pause_goes() {
    check(&fleet("1", &[], &["a:needed,gave-back=2026-01-01T11:00:01Z,later=2026-01-01T11:01:01Z"]), &["a"], &[]);
    let ahead = fleet("1", &[], &["a:needed,gave-back=2030-01-01T11:00:00Z,later=2030-01-01T11:01:00Z"]);
    assert_eq!(ahead.plan().waits["a"].until(), "2026-01-01T12:01:00Z".parse().ok());
}

#[test]
fn whoever_gave_back_goes_behind_those_who_ask_longer_whatever_its_clock_says() {
    for (given_back, not_before) in [("11:00:01", "11:01:01"), ("11:59:59", "12:00:59"), ("14:00:00", "14:01:00")] {
        let node = format!("a:needed,gave-back=2026-01-01T{given_back}Z,later=2026-01-01T{not_before}Z");
        let actions = seen_to_come(&[&node, "b:asks=30"], 60).actions;
        assert_eq!(actions.first(), Some(&Action::Grant("b".into(), 1)), "{given_back}");
    }
}

#[test]
fn a_pause_that_is_over_does_not_begin_again_with_a_report_that_leaves_it_as_it_was() {
    let mut memory = Memory::default();
    let reported =
        ["a:needed,later=2026-01-01T11:01:00Z", "a:needed,gave-back=2026-01-01T11:50:00Z,later=2026-01-01T11:01:00Z"]
            .map(|node| fleet("1", &[], &[node]));
    for fleet in &reported {
        memory.observe(&fleet.view(), now());
    }
    assert_eq!(plan(&reported[1].view(), &policy("1"), &memory, now()).actions, [Action::Grant("a".into(), 1)]);
}

#[test]
fn nothing_is_granted_while_the_ledger_is_lost() {
    let mut lost = fleet("5", &[], &["a:asks", "b:"]);
    lost.ledger = LedgerState::Lost(Lost { why: "gone".into(), version: None });
    check(&lost, &[], &["a=LedgerLost"]);
    let actions = lost.plan().actions;
    assert_eq!(actions[0], Action::Rebuild);
    // Said on the Node all the same, in case that it cannot be rebuilt.
    assert!(
        matches!(&actions[1], Action::Explain(name, Some((_, waiting))) if name == "a" && waiting.reason == "LedgerLost")
    );
}

#[test]
fn a_ledger_takes_only_as_many_slots_as_an_object_can_hold() {
    let names: Vec<String> = (0..MOST_SLOTS).map(|number| format!("n{number}")).collect();
    let slots: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 7)).collect();
    check(&fleet("3000", &slots, &["z:asks"]), &[], &["z=SlotsCapped"]);
}

#[test]
fn a_forced_node_needs_no_slot_but_is_counted_once_it_is_in_progress() {
    check(&fleet("1", &[], &["a:now", "b:asks"]), &["b"], &["a=NoAgent"]);
    let counted = fleet("1", &[], &["a:now,draining=now-9,cordoned", "b:asks"]);
    assert_eq!(counted.plan().actions[0], Action::Adopt("a".into()));
    check(&counted, &[], &["b=QuotaUsed"]);
    check(&fleet("1", &[], &["a:now,draining=now-9", "b:asks"]), &[], &["b=QuotaUsed"]);
    check(&fleet("1", &[], &["a:now,draining=now-9", "b:down,asks"]), &[], &["b=QuotaUsed"]);
}

#[test]
fn a_grant_without_a_slot_is_taken_away() {
    assert_eq!(fleet("1", &[], &["a:asks,granted=7"]).plan().actions, [Action::Expel("a".into())]);
}

/// Checks the words in which the node `a` is told what it waits for.
#[track_caller]
fn check_words(fleet: &Fleet, expected: &str) {
    assert_eq!(fleet.plan().waits["a"].to_string(), expected);
}

#[test]
fn a_node_that_is_put_off_is_told_how_its_latest_cycle_ended() {
    let put_off = |ended: &str| fleet("1", &[], &[&format!("a:needed,later=2026-01-01T13:00:00Z,{ended}")]);
    let until = "; the next attempt is not made before 2026-01-01T13:00:00Z";
    let given_back = "the latest attempt was given back: the drain did not end in time";
    check_words(&put_off("ended"), &format!("{given_back}{until}"));
    check_words(&put_off("ended=why"), &format!("{given_back}: why{until}"));
    check_words(&put_off("ended=same:1"), &format!("the latest reboot left the version as it was{until}"));
    check_words(&put_off("ended=same:0"), &format!("the agent asks for a pause{until}"));
    check_words(&put_off(""), &format!("the agent asks for a pause{until}"));
}

/// The first slot has been held for 10 minutes.
fn held_for_long(mut fleet: Fleet) -> Fleet {
    let LedgerState::Known(ledger) = &fleet.ledger else { panic!("the ledger is known") };
    let slot = Slot { since: "2026-01-01T11:50:00Z".parse().unwrap(), ..ledger.slots()[0].clone() };
    fleet.ledger = LedgerState::Known(ledger.with(slot));
    fleet
}

#[test]
fn a_slot_that_is_held_for_long_is_named_with_the_state_of_its_node() {
    let held = |state: &str| {
        let node = format!("x:asks,granted=7,draining=7{state}");
        held_for_long(fleet("1", &[("x", 7)], &[&node, "a:asks"]))
    };
    let since = "the quota of 1 is used: x has held its slot since 2026-01-01T11:50:00Z";
    check_words(&held(""), since);
    check_words(&held(",cordoned"), &format!("{since} and is cordoned"));
    check_words(&held(",cordoned,down"), &format!("{since} and is not Ready"));
}

#[test]
fn the_fleet_is_counted() {
    let asking = ["a:asks=5,ended=same:2", "b:asks=3,ended=same:0", "c:control,ended=same:1", "d:garbled,True"];
    let under_way =
        ["e:asks,granted=1", "f:asks,granted=2", "g:asks,granted=3,draining=3", "h:asks,granted=4,draining=4"];
    let rebooting = ["i:asks,granted=5,rebooting=5", "j:asks,granted=6,rebooting=6"];
    // Its agent does not answer: it waits, and is not counted as granted as well.
    let forced = ["k:now"];
    let slots = [("e", 1), ("f", 2), ("g", 3), ("h", 4), ("i", 5), ("j", 6)];
    let nodes = [&asking[..], &under_way[..], &rebooting[..], &forced[..]].concat();
    let counted = fleet("6", &slots, &nodes).plan().census;
    let expected = Census {
        nodes: 11,
        limit: 6,
        slots: 6,
        waiting: 4,
        granted: 2,
        draining: 2,
        rebooting: 2,
        oldest_request: "2026-01-01T11:03:00Z".parse().ok(),
        oldest_slot: "2026-01-01T11:55:00Z".parse().ok(),
        malformed: 2,
        same_version: 2,
    };
    assert_eq!(counted, expected);
}

#[test]
fn the_oldest_request_is_one_that_no_person_keeps_back() {
    let oldest_under = |quota, nodes: &[&str]| {
        let census = fleet(quota, &[("x", 7)], nodes).plan().census;
        census.oldest_request.map(|at| at.strftime("%H:%M").to_string())
    };
    let oldest = |nodes: &[&str]| oldest_under("1", nodes);
    assert_eq!(oldest(&["a:asks=5", "b:asks=3"]).as_deref(), Some("11:03"));
    assert_eq!(oldest(&["a:asks=5", "b:asks=3,paused", "c:asks=1,control"]).as_deref(), Some("11:05"));
    assert_eq!(oldest(&["a:asks=5", "b:needed,later=2026-01-01T13:00:00Z"]).as_deref(), Some("11:00"));
    assert_eq!(oldest(&["a:asks=5", "b:needed,waits=NoAgent"]).as_deref(), Some("11:00"));
    assert_eq!(oldest(&["a:asks=5,granted=9,draining=9", "b:"]), None);
    assert_eq!(oldest_under("0", &["a:asks=5"]), None);
    assert_eq!(oldest_under("0", &["a:asks=5", "b:needed,waits=NoAgent"]).as_deref(), Some("11:00"));
}

#[test]
fn a_grant_says_of_how_many_slots_it_takes_one() {
    assert_eq!(fleet("3", &[], &["a:asks"]).plan().actions, [Action::Grant("a".into(), 3)]);
}

#[test]
fn what_a_node_waits_for_is_not_said_together_with_what_is_done_about_it() {
    let actions = |slots, text| fleet("1", slots, &[text]).plan().actions;
    assert_eq!(actions(&[], "a:asks,waits=QuotaUsed"), [Action::Grant("a".into(), 1)]);
    assert_eq!(actions(&[], "a:asks,granted=7,waits=QuotaUsed"), [Action::Expel("a".into())]);
    assert_eq!(actions(&[], "a:now,draining=now-9,waits=QuotaUsed"), [Action::Adopt("a".into())]);
    assert!(matches!(&actions(&[("a", 7)], "a:waits=QuotaUsed")[..], [Action::Settle(slot)] if slot.node == "a"));
}

#[test]
fn the_reason_is_written_once_and_removed_when_it_no_longer_holds() {
    let explained = |text| {
        let plan = fleet("1", &[("x", 7)], &["x:asks,granted=7", text]).plan();
        plan.actions.into_iter().find_map(|action| match action {
            Action::Explain(_, explanation) => Some(explanation.map(|(_, waiting)| waiting.reason)),
            _ => None,
        })
    };
    assert_eq!(explained("a:asks"), Some(Some("QuotaUsed".into())));
    assert_eq!(explained("a:asks,waits=QuotaUsed"), None);
    assert_eq!(explained("a:asks,waits=Paused"), Some(Some("QuotaUsed".into())));
    assert_eq!(explained("a:waits=QuotaUsed"), Some(None));
}

#[test]
fn the_reason_is_short_however_long_the_words_are_that_it_quotes() {
    let message = |change: fn(&mut NodeView)| {
        let mut fleet = fleet("1", &[], &["a:needed,later=2026-01-01T13:00:00Z"]);
        change(&mut fleet.nodes[0]);
        match fleet.plan().actions.pop() {
            Some(Action::Explain(_, Some((_, waiting)))) => waiting.message,
            other => panic!("{other:?} explains nothing"),
        }
    };
    let paused = message(|node| node.paused = Some("\u{1b}".repeat(200_000)));
    assert!(paused.starts_with("paused (\u{fffd}") && paused.ends_with("); remove reboot-paused to go on"), "{paused}");
    assert!(paused.chars().count() < 600, "{paused}");
    let put_off = message(|node| {
        let long = "x".repeat(200_000);
        let text = format!(
            r#"{{"outcome":"gave-back","reason":"RebootRefused","detail":"{long}","at":"2026-01-01T11:00:00Z","seconds":1}}"#
        );
        node.last_reboot = crate::values::read_json(Some(&text));
    });
    assert!(
        put_off.starts_with("the latest attempt was given back: logind would not reboot the machine: xxx"),
        "{put_off}"
    );
    assert!(put_off.chars().count() < 700, "{put_off}");
}

#[test]
fn a_grant_that_a_person_removed_stays_held_back_whatever_the_node_waits_for_meanwhile() {
    let explained = |text: &str| fleet("1", &[], &[text]).plan().actions.pop();
    let held = "2026-01-01T12:04:00Z";
    assert_eq!(explained(&format!("a:removed={held}")), None);
    let Some(Action::Explain(_, Some((_, waiting)))) = explained(&format!("a:asks,paused,removed={held}")) else {
        panic!("the pause is explained")
    };
    assert_eq!((waiting.reason.as_str(), waiting.held_until), ("Paused", held.parse().ok()));
    assert_eq!(waiting.held_boot, BOOT.parse().ok());
    assert_eq!(explained("a:removed=2026-01-01T11:59:00Z"), Some(Action::Explain("a".into(), None)));
}

#[test]
fn a_grant_that_no_agent_took_up_stays_noted_until_an_agent_answers_or_nobody_asks() {
    let explained = |text: &str| match fleet("1", &[], &[text]).plan().actions.pop() {
        Some(Action::Explain(_, explanation)) => Some(explanation.and_then(|(_, waiting)| waiting.lapsed)),
        _ => None,
    };
    let lapsed = Some(format!("{BOOT}.7").parse().unwrap());
    assert_eq!(explained("a:needed,lapsed=7"), None);
    assert_eq!(explained("a:needed,paused,lapsed=7"), Some(lapsed));
    assert_eq!(explained("a:lapsed=7"), Some(None));
    assert_eq!(explained("a:asks,paused,lapsed=7"), Some(None));
    // The agent has a moment to answer before its silence is a reason.
    let (silent, mut memory) = (fleet("1", &[], &["a:needed,lapsed=7"]), Memory::default());
    memory.observe(&silent.view(), now());
    assert_eq!(plan(&silent.view(), &policy("1"), &memory, now()).actions, []);
}

#[test]
fn a_grant_whose_progress_is_removed_has_the_whole_pickup_deadline_again() {
    let settles = |first: &str| {
        let (before, after) = (fleet("1", &[("a", 7)], &[first]), fleet("1", &[("a", 7)], &["a:asks,granted=7"]));
        let mut memory = Memory::default();
        memory.observe(&before.view(), Now { mono: Duration::from_secs(800), ..now() });
        memory.observe(&before.view(), Now { mono: Duration::from_secs(990), ..now() });
        memory.observe(&after.view(), now());
        !plan(&after.view(), &policy("1"), &memory, now()).actions.is_empty()
    };
    assert!(settles("a:asks,granted=7"));
    assert!(!settles("a:asks,granted=7,draining=7"));
}

/// Checks when the plan that first sees these nodes is to be made again.
#[track_caller]
fn check_first_wake(nodes: &[&str], seconds: Option<u64>) {
    let (fleet, mut memory) = (fleet("1", &[], nodes), Memory::default());
    memory.observe(&fleet.view(), now());
    let wake = plan(&fleet.view(), &policy("1"), &memory, now()).wake;
    assert_eq!(wake, seconds.map(Duration::from_secs), "{nodes:?}");
}

#[test]
fn an_agent_has_5_seconds_to_answer_an_ask_or_a_force() {
    check_first_wake(&["a:needed"], Some(5));
    check_first_wake(&["a:now"], Some(5));
    for quiet in ["a:", "a:asks", "a:needed,garbled", "a:now,draining=now-9", "a:needed,draining=now-9"] {
        check_first_wake(&[quiet], None);
    }
}

#[test]
fn an_agents_time_to_answer_is_counted_from_when_its_silence_was_first_seen() {
    let mut memory = Memory::default();
    let at = |seconds| Now { mono: Duration::from_secs(seconds), ..now() };
    let mut waits = |seconds, nodes: &[&str]| {
        let fleet = fleet("1", &[], nodes);
        memory.observe(&fleet.view(), at(seconds));
        plan(&fleet.view(), &policy("1"), &memory, at(seconds)).waits.into_keys().collect::<Vec<_>>()
    };
    assert!(waits(0, &["a:needed", "b:"]).is_empty());
    assert!(waits(3, &["a:needed", "b:"]).is_empty());
    assert!(waits(4, &["a:needed", "b:needed"]).is_empty());
    assert_eq!(waits(5, &["a:needed", "b:needed"]), ["a"]);
    // The ask was taken back, and is made anew.
    assert!(waits(6, &["a:", "b:"]).is_empty());
    assert!(waits(20, &["a:needed", "b:needed"]).is_empty());
    assert_eq!(waits(25, &["a:needed", "b:needed"]), ["a", "b"]);
}

#[test]
fn a_grant_is_taken_for_seen_from_when_it_was_written() {
    let fleet = fleet("1", &[("a", 7)], &["a:asks"]);
    let slot = &fleet.ledger.known().unwrap().slots()[0];
    let mut memory = Memory::default();
    let seen_for = |memory: &Memory| memory.handover(slot, &policy("1"), now()).seen_for;
    assert_eq!(seen_for(&memory), None);
    memory.wrote_grant(slot.id.unwrap(), Now { mono: Duration::from_secs(990), ..now() });
    memory.observe(&fleet.view(), now());
    assert_eq!(seen_for(&memory), Some(Duration::from_secs(10)));
}

#[test]
fn a_deadline_beyond_the_end_of_time_is_none() {
    let granted = fleet("1", &[("a", 7)], &["a:asks,granted=7", "b:needed"]);
    let last = Now { mono: Duration::MAX, ..now() };
    let mut memory = Memory::default();
    memory.observe(&granted.view(), last);
    let patient = Policy { pickup_deadline: Duration::MAX, ..policy("1") };
    assert_eq!(plan(&granted.view(), &patient, &memory, last).wake, None);
}

#[test]
fn a_node_that_refuses_writes_is_left_alone_for_a_while_and_no_other_waits_for_it() {
    let slots = [("a", 7), ("b", 8)];
    let nodes = ["a:asks,paused,granted=7", "b:asks,paused,granted=8", "c:asks=1,waits=NoAgent", "d:asks=2"];
    let strays = ["e:asks,granted=9", "f:asks,granted=9"];
    let fleet = fleet("3", &slots, &[&nodes[..], &strays[..]].concat());
    let at = |seconds: u64| Now { mono: Duration::from_secs(1000 + seconds), ..now() };
    let mut memory = Memory::default();
    memory.observe(&fleet.view(), at(0));
    for node in ["a", "c", "e"] {
        let refuse = |memory: &mut Memory| memory.was_refused(node, WriteOf::Permission, at(0));
        assert!(refuse(&mut memory) && refuse(&mut memory), "{node}: the second pause is 1 s");
    }
    let acted_on = |memory: &Memory, seconds| {
        let plan = plan(&fleet.view(), &policy("3"), memory, at(seconds));
        let nodes: Vec<String> = plan.actions.iter().filter_map(Action::node).map(str::to_owned).collect();
        (nodes.join(" "), plan.waits.get("c").map(WaitReason::code), plan.wake)
    };
    let soon = Some(Duration::from_secs(1));
    assert_eq!(acted_on(&memory, 0), ("b f d".to_owned(), Some("WriteRefused"), soon));
    assert_eq!(acted_on(&memory, 1).0, "a b e f d c", "whoever refused goes last");
    memory.was_taken("c");
    assert_eq!(acted_on(&memory, 0), ("b f c d".to_owned(), None, soon));
}

#[test]
fn where_many_nodes_refuse_writes_it_is_no_affair_of_single_nodes() {
    let mut memory = Memory::default();
    let taken: Vec<bool> =
        (0..12).map(|node| memory.was_refused(&format!("node-{node}"), WriteOf::Reason, now())).collect();
    assert_eq!(taken.iter().filter(|alone| **alone).count(), 10, "{taken:?}");
    // Nodes that are gone do not count.
    memory.observe(&fleet("1", &[], &["a:"]).view(), now());
    assert!(memory.was_refused("a", WriteOf::Reason, now()));
}

#[test]
fn a_node_that_takes_no_reason_is_granted_in_its_turn_all_the_same() {
    let mut memory = Memory::default();
    memory.was_refused("a", WriteOf::Reason, now());
    let granted =
        |nodes: &[&str], memory: &Memory| plan(&fleet("1", &[], nodes).view(), &policy("1"), memory, now()).actions;
    assert_eq!(granted(&["a:asks=1", "b:asks=2"], &memory)[0], Action::Grant("a".into(), 1));
    // It is told nothing for a while, and after that last.
    let waiting = ["a:needed,later=2026-01-01T13:00:00Z", "b:needed,later=2026-01-01T13:00:00Z"];
    let told = |memory: &Memory| {
        granted(&waiting, memory).iter().filter_map(|action| action.node().map(str::to_owned)).collect::<String>()
    };
    assert_eq!(told(&memory), "b");
    let mut earlier = Memory::default();
    earlier.was_refused("a", WriteOf::Reason, Now { mono: Duration::from_secs(990), ..now() });
    assert_eq!(told(&earlier), "ba");
}

#[test]
fn the_plan_says_when_time_alone_changes_it() {
    assert_eq!(fleet("1", &[], &["a:"]).plan().wake, None);
    let backing_off = fleet("1", &[], &["a:needed,later=2026-01-01T12:00:30Z"]).plan();
    assert_eq!(backing_off.wake, Some(Duration::from_secs(30)));
    let granted = fleet("1", &[("a", 7)], &["a:asks,granted=7"]).plan();
    assert_eq!(granted.wake, Some(Duration::from_secs(100)));
    let mut memory = Memory::default();
    let at = |seconds| Now { mono: Duration::from_secs(seconds), ..now() };
    for (seconds, permission) in [(900, "granted=7"), (930, "now")] {
        let fleet = fleet("1", &[("a", 7)], &[&format!("a:asks,{permission}")]);
        memory.observe(&fleet.view(), at(seconds));
        // A force over a grant keeps the grant's deadline; before that an agent has 5 seconds to answer it.
        let wake = plan(&fleet.view(), &policy("1"), &memory, at(seconds + 6)).wake;
        assert_eq!(wake, Some(Duration::from_secs(1014 - seconds)), "{permission}");
    }
    let waiting = fleet("1", &[("a", 7)], &["a:asks,granted=7", "b:asks"]).plan();
    assert_eq!(waiting.wake, Some(Duration::from_secs(100)));
    let draining = fleet("1", &[("a", 7)], &["a:asks,granted=7,draining=7", "b:asks"]).plan();
    assert_eq!(draining.wake, Some(Duration::from_mins(5)), "then the slot has been held for long");
}
