//! managedFields: who owns the cordon.

use serde_json::{Value, json};

use crate::side::{MERGE, STRATEGIC, Side};

/// Logs the managers of `spec.unschedulable` and of an annotation.
fn owners(side: &mut Side, node: &Value) {
    for (what, pointer) in [
        ("the cordon", "/fieldsV1/f:spec/f:unschedulable"),
        ("the annotation", "/fieldsV1/f:metadata/f:annotations/f:example.com~1a"),
        ("all annotations", "/fieldsV1/f:metadata/f:annotations/."),
    ] {
        let entries = node["metadata"]["managedFields"].as_array().into_iter().flatten();
        let mut owners: Vec<_> =
            entries.filter(|entry| entry.pointer(pointer).is_some()).map(|entry| entry["manager"].as_str()).collect();
        owners.sort_unstable();
        side.note(what, format!("{owners:?}"));
    }
}

pub(crate) async fn cordons(side: &mut Side) {
    let (on, off) = (json!({"spec": {"unschedulable": true}}), json!({"spec": {"unschedulable": null}}));
    for (name, spec) in [("a", json!({})), ("born", json!({"unschedulable": true}))] {
        let path = side.node_path(name);
        let by = |manager: &str| format!("{path}?fieldManager={manager}");
        let node = side.create_node(name, spec).await;
        owners(side, &node);
        for (manager, patch) in [
            (
                "reboot-agent",
                json!({"spec": {"unschedulable": true}, "metadata": {"annotations": {"example.com/a": "1"}}}),
            ),
            ("kubectl-cordon", on.clone()),
            ("person", json!({"metadata": {"annotations": {"example.com/a": "2"}}})),
            ("reboot-agent", json!({"metadata": {"annotations": null}})),
            ("kubectl-cordon", off.clone()),
            ("kubectl-cordon", on.clone()),
            ("reboot-agent", on.clone()),
            ("reboot-agent", off.clone()),
        ] {
            let node = side.patch(&by(manager), MERGE, &patch).await;
            owners(side, &node);
        }
        let node = side.patch(&path, STRATEGIC, &on).await;
        owners(side, &node);
    }
    let path = side.node_path("bare");
    let bare = json!({"metadata": {"name": side.node("bare")}});
    side.post("/api/v1/nodes?fieldManager=creator", &bare).await;
    let node = side.patch(&format!("{path}?fieldManager=reboot-agent"), MERGE, &on).await;
    owners(side, &node);
    side.show(&node, &["/metadata/managedFields"]);
}

pub(crate) async fn many_managers(side: &mut Side) {
    side.create_node("a", json!({})).await;
    let path = side.node_path("a");
    let first = json!({"spec": {"unschedulable": true}});
    side.patch(&format!("{path}?fieldManager=reboot-agent"), MERGE, &first).await;
    // Who is oldest is told by the second: managers of the same second are ordered by their names.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    for number in 10..22 {
        let patch = json!({"metadata": {"annotations": {format!("example.com/{number}"): "1"}}});
        let node = side.patch(&format!("{path}?fieldManager=manager-{number}"), MERGE, &patch).await;
        let entries = node["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let mut managers: Vec<_> = entries.iter().map(|entry| entry["manager"].as_str().unwrap_or_default()).collect();
        managers.sort_unstable();
        side.note("managers", managers.join(" "));
        owners(side, &node);
    }
}
