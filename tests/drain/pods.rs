//! What the pods of a scenario are like.

use reboot_tests::workload::POD_IMAGE;
use serde_json::{Value, json};

/// A pod without a controller; its label `app` has its name.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": POD_IMAGE}]},
    })
}

/// One whose containers end when the test says so ([`crate::site::Site::end`]), and not by themselves.
pub(crate) fn lasting(mut pod: Value) -> Value {
    pod["metadata"]["annotations"]["testbed/termination"] = json!("1h");
    pod["spec"]["terminationGracePeriodSeconds"] = json!(3600);
    pod
}

/// One that does not become Ready while anybody looks.
pub(crate) fn unready(mut pod: Value) -> Value {
    pod["metadata"]["annotations"]["testbed/ready-after"] = json!("1h");
    pod
}

/// One with this label `app`.
pub(crate) fn of(app: &str, mut pod: Value) -> Value {
    pod["metadata"]["labels"]["app"] = json!(app);
    pod
}

/// One on this node.
pub(crate) fn on(node: &str, mut pod: Value) -> Value {
    pod["spec"]["nodeName"] = json!(node);
    pod
}
