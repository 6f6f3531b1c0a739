//! The ledger from arbitrary text: the first line is the ConfigMap's UID and resourceVersion, the rest is what it holds.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use libfuzzer_sys::fuzz_target;
use reboot_core::Now;
use reboot_core::ledger::{DATA_KEY, Ledger, LedgerState};
use reboot_core::node::NodeView;
use reboot_fuzz::cluster::Cluster;
use reboot_fuzz::text::{REASON, check_shown};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (head, document) = text.split_once('\n').unwrap_or(("", &text));
    let (uid, version) = head.split_once(' ').unwrap_or((head, ""));
    match LedgerState::read(Some(&config_map(uid, version, document))) {
        LedgerState::Lost(lost) => {
            check_shown(&lost.why, REASON);
            let found = lost.version.expect("a ConfigMap that is there has a version");
            assert_eq!((found.uid.as_str(), found.resource_version.as_str()), (uid, version));
        }
        LedgerState::Known(ledger) => check_known(&ledger, document),
    }
});

fn config_map(uid: &str, version: &str, document: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.uid = Some(uid.to_owned());
    map.metadata.resource_version = Some(version.to_owned());
    map.data = Some(BTreeMap::from([(DATA_KEY.to_owned(), document.to_owned())]));
    map
}

fn check_known(ledger: &Ledger, document: &str) {
    let names: BTreeSet<&str> = ledger.slots().iter().map(|slot| slot.node.as_str()).collect();
    assert_eq!(names.len(), ledger.slots().len(), "a node holds two slots");
    check_read_back(ledger);
    let copy = config_map(&format!("{}-copy", ledger.version.uid), &ledger.version.resource_version, document);
    assert!(LedgerState::read(Some(&copy)).known().is_none(), "a backup is taken for the ledger itself");
    for slot in ledger.slots() {
        let freed = ledger.without(&slot.node);
        assert_eq!(freed.slots().len() + 1, ledger.slots().len(), "one slot is freed");
        check_read_back(&freed);
        check_read_back(&freed.with(slot.clone()));
    }
    let cluster = Cluster::read("\nnode ready");
    let node = NodeView::from(&cluster.nodes[0]);
    let now = Now { mono: Duration::ZERO, wall: jiff::Timestamp::constant(1_767_268_800, 0) };
    for limit in [0, 1, 2, usize::MAX] {
        if let Some((granted, id)) = ledger.with_grant(&node, limit, now) {
            assert_eq!(granted.slots().len(), ledger.slots().len() + 1, "S1: a grant without a slot");
            assert!(granted.slots().len() <= limit, "S1: more than {limit} slots");
            assert_eq!(granted.slot(&node.name).and_then(|slot| slot.id), Some(id));
            check_read_back(&granted);
        }
    }
}

/// What the ledger writes reads back as the same slots.
fn check_read_back(ledger: &Ledger) {
    let written = config_map(&ledger.version.uid, &ledger.version.resource_version, &ledger.to_data());
    assert_eq!(LedgerState::read(Some(&written)).known(), Some(ledger));
}
