use k8s_openapi::api::core::v1::{ConfigMap, Node};
use serde_json::{Value, json};

use super::*;
use crate::node::CordonOwner;
use crate::values::Waiting;
use std::time::Duration;

const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";
const NEXT: &str = "1a2b3c4d-1c3a-4a52-9d3b-2f6a3c5e7b91";

fn now() -> Now {
    Now { mono: Duration::from_secs(1000), wall: "2026-01-01T00:00:00Z".parse().unwrap() }
}

fn node(boot: &str, ready: bool, annotations: Value) -> NodeView {
    let mut all = json!({ key::NEEDED: "why", key::REQUEST: format!(
        r#"{{"protocol":1,"bootID":"{BOOT}","since":"2026-01-01T00:00:00Z","sources":["person"]}}"#) });
    all.as_object_mut().unwrap().extend(annotations.as_object().unwrap().clone());
    all.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    let node: Node = serde_json::from_value(json!({
        "metadata": { "name": "n1", "uid": "u1", "resourceVersion": "5", "annotations": all },
        "status": { "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "Unknown" } }],
                    "nodeInfo": { "bootID": boot, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                                  "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "",
                                  "osImage": "", "systemUUID": "" } },
    }))
    .unwrap();
    NodeView::from(&node)
}

fn slot() -> Slot {
    Slot { node: "n1".into(), uid: "u1".into(), id: Some(format!("{BOOT}.7").parse().unwrap()), since: now().wall }
}

#[track_caller]
fn check(node: Option<&NodeView>, seen_seconds: Option<u64>, expected: Verdict) {
    let handover =
        Handover { seen_for: seen_seconds.map(Duration::from_secs), pickup_deadline: Duration::from_mins(2) };
    assert_eq!(judge(&slot(), node, handover), expected);
}

fn granted() -> Value {
    json!({ key::REBOOT: format!("{BOOT}.7") })
}

fn in_progress(id: &str) -> Value {
    json!({ key::IN_PROGRESS: format!(
        r#"{{"phase":"draining","id":"{id}","since":"2026-01-01T00:00:00Z","cordoned":true}}"#) })
}

fn with(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

#[test]
fn what_is_wrong_with_the_ledger_is_short_and_printable_whatever_stands_there() {
    let slot =
        |since: &str| format!(r#"{{"protocol":1,"complete":"","slots":[{{"node":"a","uid":"a","since":"{since}"}}]}}"#);
    for text in
        [slot(&format!("2026-01-01T00:00:00Z{}", "x".repeat(200_000))), slot("\\u001b"), "\u{1b}".repeat(200_000)]
    {
        let data = Some([(DATA_KEY.to_owned(), text)].into());
        let map = ConfigMap { data, ..ConfigMap::default() };
        let LedgerState::Lost(lost) = LedgerState::read(Some(&map)) else { panic!("it is garbled") };
        assert!(lost.why.len() < 1200 && !lost.why.contains(char::is_control), "{:?}", lost.why);
    }
}

#[test]
fn a_slot_is_freed_by_a_report_a_new_boot_or_a_node_that_is_gone() {
    let report = json!({ key::LAST_REBOOT: format!(
        r#"{{"id":"{BOOT}.7","outcome":"gave-back","reason":"Paused","at":"2026-01-01T00:00:00Z","seconds":1}}"#) });
    check(Some(&node(BOOT, true, report)), None, Verdict::Free(Evidence::Reported));
    check(Some(&node(NEXT, true, json!({}))), Some(1), Verdict::Free(Evidence::RebootedAndReady));
    check(None, Some(1), Verdict::Free(Evidence::NodeGone));
    let mut replaced = node(BOOT, true, granted());
    replaced.uid = "u2".into();
    check(Some(&replaced), Some(1), Verdict::Free(Evidence::NodeGone));
}

#[test]
fn what_cannot_be_known_keeps_the_slot() {
    check(Some(&node(NEXT, false, json!({}))), Some(1), Verdict::Keep);
    check(Some(&node(NEXT, true, in_progress(&format!("{BOOT}.7")))), Some(9999), Verdict::Keep);
    check(Some(&node("garbage", true, with(granted(), in_progress(&format!("{BOOT}.7"))))), Some(9999), Verdict::Keep);
    check(Some(&node(NEXT, true, json!({ key::IN_PROGRESS: "{}" }))), Some(9999), Verdict::Keep);
    let other_report = json!({ key::LAST_REBOOT: format!(
        r#"{{"id":"{BOOT}.6","outcome":"gave-back","reason":"Paused","at":"2026-01-01T00:00:00Z","seconds":1}}"#) });
    check(Some(&node(BOOT, true, with(granted(), other_report))), Some(1), Verdict::Keep);
    let again = json!({ key::LAST_REBOOT: format!(
        r#"{{"id":"{BOOT}.7","outcome":"gave-back","reason":"Paused","at":"2026-01-01T00:00:00Z","seconds":1}}"#) });
    check(Some(&node(BOOT, true, with(in_progress(&format!("{BOOT}.7")), again))), Some(1), Verdict::Keep);
}

#[test]
fn a_cycle_whose_cordon_is_there_had_begun_whatever_else_was_taken_away() {
    let fenced = json!({ key::FENCE: format!("{BOOT}.7") });
    check(Some(&node(BOOT, true, fenced.clone())), None, Verdict::Withdraw(Withdrawal::GrantRemoved));
    for (owner, verdict) in [
        (CordonOwner::Agent, Verdict::Keep),
        (CordonOwner::Other, Verdict::Withdraw(Withdrawal::GrantRemoved)),
        (CordonOwner::Untracked, Verdict::Withdraw(Withdrawal::GrantRemoved)),
    ] {
        let bare = NodeView { unschedulable: true, cordon_owner: owner, ..node(BOOT, true, fenced.clone()) };
        check(Some(&bare), Some(9999), verdict);
    }
}

#[test]
fn a_grant_that_is_not_taken_up_is_withdrawn_never_just_freed() {
    let verdict = |why| Verdict::Withdraw(why);
    check(Some(&node(BOOT, true, granted())), Some(119), Verdict::Keep);
    check(Some(&node(BOOT, true, granted())), Some(120), verdict(Withdrawal::NotPickedUp));
    let fenced = |serial: u32, more| with(json!({ key::FENCE: format!("{BOOT}.{serial}") }), more);
    check(Some(&node(BOOT, true, json!({}))), None, verdict(Withdrawal::NotWritten));
    check(Some(&node(BOOT, true, fenced(6, json!({})))), None, verdict(Withdrawal::NotWritten));
    check(Some(&node(BOOT, true, json!({ key::FENCE: "withdrawn" }))), Some(200), verdict(Withdrawal::NotWritten));
    check(Some(&node(BOOT, true, fenced(7, json!({})))), None, verdict(Withdrawal::GrantRemoved));
    check(Some(&node("garbage", true, fenced(7, json!({})))), None, verdict(Withdrawal::GrantRemoved));
    let replaced = fenced(7, json!({ key::REBOOT: "garbage" }));
    check(Some(&node(BOOT, true, replaced)), Some(1), verdict(Withdrawal::GrantRemoved));
    check(Some(&node(BOOT, true, with(granted(), json!({ key::PAUSED: "" })))), Some(1), verdict(Withdrawal::Paused));
    check(
        Some(&node(BOOT, true, with(granted(), json!({ key::NEEDED: null })))),
        Some(1),
        verdict(Withdrawal::NotNeeded),
    );
    check(
        Some(&node(BOOT, true, with(granted(), json!({ key::REQUEST: null })))),
        Some(1),
        verdict(Withdrawal::Unanswered),
    );
    check(Some(&node(NEXT, true, granted())), Some(1), verdict(Withdrawal::Spent));
}

#[test]
fn a_fence_takes_a_grant_away_and_nothing_else() {
    let changes = |annotations| {
        let patch = fence_patch(&node(BOOT, true, annotations), "f1");
        patch.annotations().map(|(key, value)| (key, value.map(str::to_owned))).collect::<Vec<_>>()
    };
    let fence = || (key::FENCE, Some("f1".to_owned()));
    assert_eq!(changes(json!({})), [fence()]);
    assert_eq!(changes(json!({ key::REBOOT: "now" })), [fence()]);
    assert_eq!(changes(json!({ key::REBOOT: "garbage" })), [fence()]);
    assert_eq!(changes(granted()), [(key::REBOOT, None), fence()]);
}

#[test]
fn a_withdrawal_leaves_a_persons_force_and_always_fences() {
    let forced = node(BOOT, true, json!({ key::REBOOT: "now" }));
    let patch = withdraw_patch(&forced, Withdrawal::Paused, "f1", now());
    assert_eq!((patch.get(key::REBOOT), patch.get(key::FENCE)), (None, Some(Some("f1"))));
    let patch = withdraw_patch(&node(BOOT, true, granted()), Withdrawal::NotPickedUp, "f2", now());
    assert_eq!((patch.get(key::REBOOT), patch.get(key::REQUEST)), (Some(None), Some(None)));
}

#[test]
fn a_grant_that_no_agent_took_up_stays_noted_in_place_of_the_request() {
    let forced_over = json!({ key::REBOOT: "now", key::FENCE: format!("{BOOT}.7") });
    for annotations in [granted(), forced_over] {
        let patch = withdraw_patch(&node(BOOT, true, annotations), Withdrawal::NotPickedUp, "f1", now());
        let waiting: Waiting = serde_json::from_str(patch.get(key::WAITING).unwrap().unwrap()).unwrap();
        assert_eq!((waiting.reason.as_str(), waiting.lapsed), ("NoAgent", slot().id));
    }
}

#[test]
fn a_grant_that_a_person_removed_is_held_back_for_5_minutes_and_under_this_boot() {
    let patch = withdraw_patch(&node(BOOT, true, json!({})), Withdrawal::GrantRemoved, "f1", now());
    let waiting: Waiting = serde_json::from_str(patch.get(key::WAITING).unwrap().unwrap()).unwrap();
    assert_eq!(waiting.held_until, Some("2026-01-01T00:05:00Z".parse().unwrap()));
    assert_eq!(waiting.held_boot, BOOT.parse().ok());
    assert_eq!(withdraw_patch(&node(BOOT, true, json!({})), Withdrawal::Spent, "f1", now()).get(key::WAITING), None);
}

#[test]
fn a_grant_comes_with_its_fence_and_ends_the_wait() {
    let id = format!("{BOOT}.7");
    let patch = grant_patch(id.parse().unwrap());
    let keys: Vec<_> = patch.annotations().collect();
    assert_eq!(keys, [(key::REBOOT, Some(&*id)), (key::FENCE, Some(&*id)), (key::WAITING, None)]);
}

#[test]
fn a_grant_that_no_slot_of_its_node_is_for_is_a_stray() {
    let stray = |annotations, slot: Option<&Slot>| is_stray(&node(BOOT, true, annotations), slot);
    assert!(stray(granted(), None));
    assert!(stray(granted(), Some(&Slot { uid: "u2".into(), ..slot() })));
    assert!(!stray(granted(), Some(&slot())));
    assert!(!stray(with(granted(), in_progress(&format!("{BOOT}.7"))), None), "it is adopted");
    assert!(!stray(json!({}), None));
    assert!(!stray(json!({ key::REBOOT: "now" }), None));
}

#[test]
fn what_becomes_of_a_slot_is_said_in_words() {
    let forced = Slot { id: None, ..slot() };
    assert_eq!((slot().to_string(), forced.to_string()), (format!("n1 ({BOOT}.7)"), "n1 (id unknown)".into()));
    for (evidence, words) in [
        (Evidence::Reported, "the agent reported the end of the cycle"),
        (Evidence::RebootedAndReady, "the node is Ready under another boot ID"),
        (Evidence::NodeGone, "the Node is gone"),
    ] {
        assert_eq!(evidence.to_string(), words);
    }
    for (why, words) in [
        (Withdrawal::Paused, "the node was paused"),
        (Withdrawal::NotNeeded, "nobody asks for the reboot any more"),
        (Withdrawal::Unanswered, "the agent's reboot-request is gone"),
        (Withdrawal::NotWritten, "the grant did not reach the Node"),
        (Withdrawal::GrantRemoved, "the grant was removed from the Node"),
        (Withdrawal::Spent, "the machine was rebooted before the agent took the grant up"),
        (Withdrawal::NotPickedUp, "no agent took the grant up in time"),
    ] {
        assert_eq!(why.to_string(), words);
    }
}

#[test]
fn a_forced_cycle_gets_a_slot_or_takes_its_slot_over() {
    let forced = node(BOOT, true, in_progress(&format!("{BOOT}.now-9")));
    let adopted = adoption(&forced, None, now()).unwrap();
    assert!(adopted.id.unwrap().is_forced());
    assert!(adoption(&forced, Some(&slot()), now()).unwrap().id.unwrap().is_forced());
    assert_eq!(adoption(&forced, Some(&adopted), now()), None);
    assert_eq!(adoption(&node(BOOT, true, json!({ key::REBOOT: "now" })), None, now()), None);
    let garbled = node(BOOT, true, json!({ key::IN_PROGRESS: "{}" }));
    assert_eq!(adoption(&garbled, None, now()).unwrap().id, None);
    assert_eq!(adoption(&garbled, Some(&slot()), now()), None);
}

#[test]
fn a_rebuilt_ledger_takes_in_every_grant_even_a_malformed_one() {
    let id_taken_in = |annotations| taken_in(&node(BOOT, true, annotations), now()).map(|slot| slot.id.is_some());
    assert_eq!(id_taken_in(granted()), Some(true));
    assert_eq!(id_taken_in(json!({ key::REBOOT: "garbage" })), Some(false));
    assert_eq!(id_taken_in(json!({ key::IN_PROGRESS: "{}" })), Some(false));
    assert_eq!(id_taken_in(json!({ key::REBOOT: "now" })), None);
    assert_eq!(id_taken_in(json!({})), None);
}

#[test]
fn a_grant_takes_a_slot_within_the_limit_of_the_very_version_that_is_replaced() {
    let version = |text: &str| Version { uid: "u".into(), resource_version: text.into() };
    let ready = node(BOOT, true, json!({}));
    let other = Slot { node: "n2".into(), ..slot() };
    let ledger = Ledger::complete(version("70"), vec![other]);
    assert_eq!(ledger.with_grant(&ready, 1, now()), None);
    let (next, id) = ledger.with_grant(&ready, 2, now()).unwrap();
    assert_eq!((id.to_string(), next.slot("n1").unwrap().id), (format!("{BOOT}.70"), Some(id)));
    assert_eq!(next.with_grant(&ready, 9, now()), None, "it holds a slot already");
    assert_eq!(ledger.with_grant(&node("garbage", true, json!({})), 9, now()), None);
    assert_eq!(Ledger::complete(version("x"), vec![]).with_grant(&ready, 9, now()), None);
}

#[test]
fn a_node_has_one_slot_and_the_others_keep_theirs() {
    let version = Version { uid: "u".into(), resource_version: "7".into() };
    let other = Slot { node: "n2".into(), ..slot() };
    let both = Ledger::complete(version, vec![slot(), other.clone()]);
    let later = Slot { id: None, ..slot() };
    assert_eq!(both.with(later.clone()).slots(), [other.clone(), later]);
    assert_eq!(both.without("n1").slots(), [other]);
}

fn config_map(uid: &str, data: Option<&str>) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "uid": uid, "resourceVersion": "7" }, "data": data.map(|text| json!({ DATA_KEY: text })) }))
        .unwrap()
}

#[test]
fn a_ledger_reads_back_what_it_wrote() {
    let version = Version { uid: "u".into(), resource_version: "7".into() };
    let ledger = Ledger::complete(version, vec![slot()]);
    let read = LedgerState::read(Some(&config_map("u", Some(&ledger.to_data()))));
    assert_eq!(read.version(), Some(&ledger.version));
    assert_eq!(read, LedgerState::Known(ledger));
    assert_eq!(LedgerState::read(Some(&config_map("u", None))).version().unwrap().resource_version, "7");
    assert_eq!(LedgerState::read(None).version(), None);
}

#[test]
fn a_ledger_in_which_a_node_holds_two_slots_is_lost() {
    let read = |nodes: [&str; 2]| {
        let slots = nodes.map(|name| Slot { node: name.into(), ..slot() }).to_vec();
        let ledger = Ledger::complete(Version { uid: "u".into(), resource_version: "7".into() }, slots);
        LedgerState::read(Some(&config_map("u", Some(&ledger.to_data())))).known().is_some()
    };
    assert!(read(["n1", "n2"]));
    assert!(!read(["n1", "n1"]));
}

#[test]
fn what_is_no_complete_ledger_is_lost_never_empty() {
    let good = Ledger::complete(Version { uid: "u".into(), resource_version: "7".into() }, vec![]).to_data();
    let newer = good.replace("\"protocol\":1", "\"protocol\":2");
    for text in [None, Some(""), Some("{}"), Some("[]"), Some("{\"slots\":[]}"), Some(newer.as_str())] {
        assert!(LedgerState::read(Some(&config_map("u", text))).known().is_none(), "{text:?}");
    }
    assert!(LedgerState::read(None).known().is_none());
    assert!(LedgerState::read(Some(&config_map("restored", Some(&good)))).known().is_none(), "a restored backup");
}
