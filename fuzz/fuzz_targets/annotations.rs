//! Every annotation from arbitrary text: what is read prints and reads back, and no text makes either side do what it must
//! not do, write what cannot be read, or write without end.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use reboot_core::annotations as key;
use reboot_core::node::NodeView;
use reboot_core::values::{Answer, Field, Permission};
use reboot_fuzz::cluster::{Cluster, annotations};
use reboot_fuzz::text::{REASON, check_shown};
use reboot_fuzz::{agent, controller};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let cluster = Cluster::read(&text);
    for node in &cluster.nodes {
        check_values(node);
    }
    agent::check(&cluster);
    for passed in [Duration::ZERO, Duration::from_mins(5)] {
        controller::check(&cluster, passed);
    }
});

/// Absent, set and malformed are told apart by key, and what is set survives printing.
fn check_values(node: &k8s_openapi::api::core::v1::Node) {
    let view = NodeView::from(node);
    let mut again = node.clone();
    let found: Vec<(&str, &str)> = view.malformed().collect();
    let there = |name: &str| node.metadata.annotations.as_ref().and_then(|all| all.get(name)).map(String::as_str);
    let mut check = |name: &'static str, absent: bool, printed: Option<String>| {
        let why = found.iter().find(|(malformed, _)| *malformed == name).map(|(_, why)| *why);
        assert_eq!(why.is_some(), !absent && printed.is_none(), "{name}: {:?} is one of three", there(name));
        let means_absent = there(name).is_none_or(|text| name == key::REBOOT && matches!(text, "" | "false"));
        assert_eq!(absent, means_absent, "{name}: {:?}", there(name));
        if let Some(why) = why {
            check_shown(why, REASON);
        }
        if let Some(printed) = printed {
            annotations(&mut again).insert(name.to_owned(), printed);
        }
    };
    let request = match &view.request {
        Field::Set(Answer::Compatible(request)) => Some(request.to_string()),
        Field::Set(Answer::Incompatible(protocol)) => Some(format!(r#"{{"protocol":{protocol}}}"#)),
        Field::Absent | Field::Malformed(_) => None,
    };
    let permission = view.permission.get().map(|permission| match permission {
        Permission::Granted(id) => id.to_string(),
        Permission::Now => "now".to_owned(),
    });
    check(key::REQUEST, view.request.is_absent(), request);
    check(key::REBOOT, view.permission.is_absent(), permission);
    check(key::IN_PROGRESS, view.in_progress.is_absent(), view.in_progress.get().map(ToString::to_string));
    check(key::WAITING, view.waiting.is_absent(), view.waiting.get().map(ToString::to_string));
    check(key::LAST_REBOOT, view.last_reboot.is_absent(), view.last_reboot.get().map(ToString::to_string));
    assert_eq!(NodeView::from(&again), view, "printed and read back");
}
