//! Every typed value, printed and read back, is the same value: what one process writes, any other understands.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use reboot_core::annotations::{self as key, NodePatch};
use reboot_core::ids::{BootId, GrantId, Serial};
use reboot_core::ledger::{DATA_KEY, Ledger, LedgerState, Slot, Version};
use reboot_core::node::NodeView;
use reboot_core::quota::Quota;
use reboot_core::reason::EndReason;
use reboot_core::values::{
    Answer, Field, InProgress, LastReboot, Outcome, PROTOCOL, Permission, Phase, Request, Source, Waiting,
};
use serde_json::{Value, json};

/// Words as people and programs choose them: any characters, none at all included.
fn words() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-z0-9.-]{0,20}", Just("false".to_owned()), Just("\u{0}\"\\\n".to_owned())]
}

fn boot() -> impl Strategy<Value = BootId> {
    (1..=u128::MAX).prop_map(|number| {
        let hex = format!("{number:032x}");
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]).parse().unwrap()
    })
}

fn grant() -> impl Strategy<Value = GrantId> {
    (boot(), any::<u64>()).prop_map(|(boot, number)| GrantId { boot, serial: Serial::Granted(number) })
}

fn cycle() -> impl Strategy<Value = GrantId> {
    let forced = (boot(), any::<u64>()).prop_map(|(boot, number)| GrantId { boot, serial: Serial::Forced(number) });
    prop_oneof![grant(), forced]
}

/// From the first to the last moment that there is.
fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let any = (seconds, 0..1_000_000_000).prop_map(|(second, nano)| Timestamp::new(second, nano).unwrap_or_default());
    prop_oneof![any, Just(Timestamp::MIN), Just(Timestamp::MAX)]
}

fn permission() -> impl Strategy<Value = Permission> {
    prop_oneof![grant().prop_map(Permission::Granted), Just(Permission::Now)]
}

fn request() -> impl Strategy<Value = Request> {
    let sources = vec(select(&[Source::UpdateEngine, Source::Person]), 0..3);
    let parts = (boot(), option::of(words()), time(), sources, any::<u32>(), option::of(time()));
    parts.prop_map(|(boot, os_version, since, sources, attempts, not_before)| Request {
        protocol: PROTOCOL,
        boot,
        os_version,
        since,
        sources,
        attempts,
        not_before,
    })
}

fn in_progress() -> impl Strategy<Value = InProgress> {
    let phase = select(&[Phase::Draining, Phase::Rebooting]);
    let parts = (phase, cycle(), time(), any::<u64>(), option::of(words()), any::<bool>(), option::of(words()));
    parts.prop_map(|(phase, id, since, spent_seconds, os_version, cordoned, run)| InProgress {
        phase,
        id,
        since,
        spent_seconds,
        os_version,
        cordoned,
        run,
    })
}

fn waiting() -> impl Strategy<Value = Waiting> {
    let times = (time(), option::of(time()), option::of(time()));
    let parts = (words(), times, option::of(words()), option::of(boot()), option::of(cycle()), words());
    parts.prop_map(|(reason, (since, until, held_until), blocker, held_boot, lapsed, message)| Waiting {
        reason,
        since,
        blocker,
        until,
        held_until,
        held_boot,
        lapsed,
        message,
    })
}

fn last_reboot() -> impl Strategy<Value = LastReboot> {
    let outcome = select(&[Outcome::Rebooted, Outcome::GaveBack, Outcome::FoundRebooted]);
    let texts = (option::of(words()), option::of(words()), option::of(words()), option::of(words()));
    let numbers = (any::<u64>(), any::<u64>(), any::<u32>());
    let parts = (option::of(cycle()), outcome, select(&EndReason::ALL), texts, time(), numbers);
    parts.prop_map(|(id, outcome, reason, (detail, why, os_before, os_after), at, numbers)| {
        let (seconds, drain_seconds, same_version) = numbers;
        LastReboot { id, outcome, reason, detail, at, seconds, drain_seconds, why, os_before, os_after, same_version }
    })
}

/// Slots as the ledger can hold them: one for each node.
fn slots() -> impl Strategy<Value = Vec<Slot>> {
    let parts = (words(), option::of(cycle()), time());
    btree_map(words(), parts, 0..4)
        .prop_map(|all| all.into_iter().map(|(node, (uid, id, since))| Slot { node, uid, id, since }).collect())
}

/// A Node with this annotation, as the operator reads it.
fn node_with(key: &str, value: impl ToString) -> NodeView {
    let mut node = Node::default();
    node.metadata.annotations = Some(BTreeMap::from([(key.to_owned(), value.to_string())]));
    NodeView::from(&node)
}

/// A JSON merge patch as RFC 7396 has it, written a second time and independent of any library.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (name, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut target[name.as_str()], change);
        }
    }
}

proptest! {
    #[test]
    fn an_identity_reads_back_and_only_in_its_own_spelling(boot in boot(), id in cycle()) {
        prop_assert_eq!(boot.to_string().parse(), Ok(boot));
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert!(boot.to_string().parse::<GrantId>().is_err() && id.to_string().parse::<BootId>().is_err());
    }

    #[test]
    fn a_permission_reads_back_and_a_forced_cycles_id_is_none(permission in permission(), id in cycle()) {
        let text = match permission {
            Permission::Granted(id) => id.to_string(),
            Permission::Now => "now".to_owned(),
        };
        prop_assert_eq!(node_with(key::REBOOT, text).permission, Field::Set(permission));
        let read = node_with(key::REBOOT, id).permission;
        prop_assert_eq!(read.malformed().is_some(), id.is_forced());
    }

    #[test]
    fn a_request_reads_back(request in request()) {
        let read = node_with(key::REQUEST, &request).request;
        prop_assert_eq!(read, Field::Set(Answer::Compatible(request)));
    }

    #[test]
    fn a_request_of_another_protocol_is_read_as_no_more_than_that(request in request(), protocol in any::<u32>()) {
        prop_assume!(protocol != PROTOCOL);
        let read = node_with(key::REQUEST, Request { protocol, ..request }).request;
        prop_assert_eq!(read, Field::Set(Answer::Incompatible(protocol)));
    }

    #[test]
    fn a_cycle_in_progress_reads_back(progress in in_progress()) {
        prop_assert_eq!(node_with(key::IN_PROGRESS, &progress).in_progress, Field::Set(progress));
    }

    #[test]
    fn why_a_node_waits_reads_back(waiting in waiting()) {
        prop_assert_eq!(node_with(key::WAITING, &waiting).waiting, Field::Set(waiting));
    }

    #[test]
    fn how_a_cycle_ended_reads_back(last in last_reboot()) {
        prop_assert_eq!(node_with(key::LAST_REBOOT, &last).last_reboot, Field::Set(last));
    }

    #[test]
    fn a_quota_reads_back(nodes in any::<usize>(), percent in 0_u8..=100) {
        for quota in [Quota::Nodes(nodes), Quota::Percent(percent)] {
            prop_assert_eq!(quota.to_string().parse(), Ok(quota));
        }
    }

    #[test]
    fn a_ledger_reads_back_and_only_as_the_object_that_it_was_completed_as(slots in slots(), uid in words(), other in words()) {
        let version = Version { uid, resource_version: "7".to_owned() };
        let ledger = Ledger::complete(version.clone(), slots);
        let read = |uid: &str| {
            let mut map = ConfigMap::default();
            map.metadata.uid = Some(uid.to_owned());
            map.metadata.resource_version = Some(version.resource_version.clone());
            map.data = Some(BTreeMap::from([(DATA_KEY.to_owned(), ledger.to_data())]));
            LedgerState::read(Some(&map))
        };
        prop_assert_eq!(read(&version.uid), LedgerState::Known(ledger.clone()));
        prop_assert!(other == version.uid || read(&other).known().is_none());
    }

    #[test]
    fn a_patch_does_to_a_node_what_it_says_and_nothing_else(
        before in btree_map(select(&key::ALL), words(), 0..9),
        changes in btree_map(select(&key::ALL), option::of(words()), 0..9),
        cordoned in any::<bool>(),
        cordon in option::of(any::<bool>()),
    ) {
        let mut patch = changes.iter().fold(NodePatch::default(), |patch, (key, value)| match value {
            Some(value) => patch.set(key, value),
            None => patch.remove(key),
        });
        if let Some(cordon) = cordon {
            patch = if cordon { patch.cordon() } else { patch.uncordon_if(true) };
        }
        let mut node = json!({ "metadata": { "name": "n", "annotations": before }, "spec": { "unschedulable": cordoned } });
        merge(&mut node, &patch.to_merge_patch("uid", "7"));
        let node: Node = serde_json::from_value(node).unwrap();

        let mut expected: BTreeMap<String, String> = before.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        expected.retain(|key, _| changes.get(key.as_str()) != Some(&None));
        expected.extend(changes.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        prop_assert_eq!(node.metadata.annotations.unwrap_or_default(), expected);
        prop_assert_eq!(node.spec.unwrap_or_default().unschedulable.unwrap_or(false), cordon.unwrap_or(cordoned));
        let identity = (node.metadata.name, node.metadata.uid, node.metadata.resource_version);
        prop_assert_eq!(identity, (Some("n".to_owned()), Some("uid".to_owned()), Some("7".to_owned())));
    }
}
