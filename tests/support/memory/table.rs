//! Rows for people: what `kubectl get` shows of each kind.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::Kind;

/// The columns of a kind; those with priority 1 are for `-o wide`.
pub(super) fn columns(kind: &Kind) -> Value {
    let columns: &[(&str, u8)] = match kind.plural {
        "nodes" => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        "pods" => &[("Name", 0), ("Ready", 0), ("Status", 0), ("Restarts", 0), ("Age", 0), ("IP", 1), ("Node", 1)],
        "poddisruptionbudgets" => {
            &[("Name", 0), ("Min Available", 0), ("Max Unavailable", 0), ("Allowed Disruptions", 0), ("Age", 0)]
        }
        "daemonsets" => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Node Selector", 0),
            ("Age", 0),
        ],
        "deployments" => &[("Name", 0), ("Ready", 0), ("Up-to-date", 0), ("Available", 0), ("Age", 0)],
        "events" => &[("Last Seen", 0), ("Type", 0), ("Reason", 0), ("Object", 0), ("Message", 0)],
        "leases" => &[("Name", 0), ("Holder", 0), ("Age", 0)],
        "configmaps" => &[("Name", 0), ("Data", 0), ("Age", 0)],
        "namespaces" => &[("Name", 0), ("Status", 0), ("Age", 0)],
        _ => &[("Name", 0), ("Age", 0)],
    };
    let column = |(index, (name, priority)): (usize, &(&str, u8))| {
        let format = if index == 0 && *name == "Name" { "name" } else { "" };
        let kind = if ["Allowed Disruptions", "Data"].contains(name) { "integer" } else { "string" };
        json!({"name": name, "type": kind, "format": format, "description": name, "priority": priority})
    };
    Value::Array(columns.iter().enumerate().map(column).collect())
}

/// The cells of an object, one for each column.
pub(super) fn cells(kind: &Kind, object: &Value, now: Timestamp) -> Vec<Value> {
    let name = &object["metadata"]["name"];
    let age = json!(age(&object["metadata"]["creationTimestamp"], now));
    let (spec, status) = (&object["spec"], &object["status"]);
    match kind.plural {
        "nodes" => {
            [vec![name.clone(), json!(node_status(object)), json!(roles(object)), age], machine(status)].concat()
        }
        "pods" => {
            let (ready, all, restarts) = containers(object);
            let place = |value: &Value| json!(value.as_str().unwrap_or("<none>"));
            let ready = json!(format!("{ready}/{all}"));
            let (ip, node) = (place(&status["podIP"]), place(&spec["nodeName"]));
            vec![name.clone(), ready, json!(pod_status(object)), json!(restarts.to_string()), age, ip, node]
        }
        "poddisruptionbudgets" => {
            let limit = |name: &str| match &spec[name] {
                Value::Null => json!("N/A"),
                Value::String(text) => json!(text),
                number => json!(number.to_string()),
            };
            vec![
                name.clone(),
                limit("minAvailable"),
                limit("maxUnavailable"),
                status["disruptionsAllowed"].clone(),
                age,
            ]
        }
        "daemonsets" => [vec![name.clone()], daemon_counts(status), vec![json!("<none>"), age]].concat(),
        "deployments" => {
            let ready = format!("{}/{}", count(status, "readyReplicas"), count(spec, "replicas"));
            let (updated, available) = (count(status, "updatedReplicas"), count(status, "availableReplicas"));
            vec![name.clone(), json!(ready), json!(updated), json!(available), age]
        }
        "events" => {
            let about = &object["involvedObject"];
            let kind = about["kind"].as_str().unwrap_or_default().to_lowercase();
            let about = json!(format!("{kind}/{}", about["name"].as_str().unwrap_or_default()));
            let seen = [&object["series"]["lastObservedTime"], &object["lastTimestamp"], &object["eventTime"]];
            let seen = seen.into_iter().find(|time| time.is_string()).unwrap_or(&Value::Null);
            let seen = json!(self::age(seen, now));
            vec![seen, object["type"].clone(), object["reason"].clone(), about, object["message"].clone()]
        }
        "leases" => vec![name.clone(), json!(spec["holderIdentity"].as_str().unwrap_or_default()), age],
        "configmaps" => {
            let size = |part: &Value| part.as_object().map_or(0, serde_json::Map::len);
            vec![name.clone(), json!(size(&object["data"]) + size(&object["binaryData"])), age]
        }
        "namespaces" => vec![name.clone(), status["phase"].clone(), age],
        _ => vec![name.clone(), age],
    }
}

/// How many pods of a `DaemonSet` there should be, are, are ready, are of the newest template, and are available.
fn daemon_counts(status: &Value) -> Vec<Value> {
    let names = [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ];
    names.map(|name| json!(count(status, name))).into()
}

/// A number that is 0 where it is left out.
fn count(of: &Value, name: &str) -> u64 {
    of[name].as_u64().unwrap_or_default()
}

fn node_status(node: &Value) -> String {
    let conditions = node["status"]["conditions"].as_array();
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition["type"] == "Ready"));
    let mut status = match ready {
        Some(condition) if condition["status"] == "True" => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(node: &Value) -> String {
    let labels = node["metadata"]["labels"].as_object().into_iter().flatten();
    let mut roles: Vec<&str> = labels
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn machine(status: &Value) -> Vec<Value> {
    let info = &status["nodeInfo"];
    let known = |name: &str| json!(info[name].as_str().filter(|text| !text.is_empty()).unwrap_or("<unknown>"));
    let kernel = match (known("kernelVersion").as_str(), info["architecture"].as_str()) {
        (Some(version), Some(architecture)) => json!(format!("{version} ({architecture})")),
        (version, _) => json!(version),
    };
    let address = |kind: &str| {
        let mut all = status["addresses"].as_array().into_iter().flatten();
        json!(
            all.find(|address| address["type"] == kind).and_then(|found| found["address"].as_str()).unwrap_or("<none>")
        )
    };
    vec![
        json!(info["kubeletVersion"].as_str().unwrap_or_default()),
        address("InternalIP"),
        address("ExternalIP"),
        known("osImage"),
        kernel,
        known("containerRuntimeVersion"),
    ]
}

/// How many containers are ready, how many there are, and how often they were restarted.
fn containers(pod: &Value) -> (usize, usize, u64) {
    let statuses = pod["status"]["containerStatuses"].as_array().cloned().unwrap_or_default();
    let ready = statuses.iter().filter(|status| status["ready"] == true).count();
    let restarts = statuses.iter().filter_map(|status| status["restartCount"].as_u64()).sum();
    (ready, pod["spec"]["containers"].as_array().map_or(0, Vec::len), restarts)
}

fn pod_status(pod: &Value) -> &str {
    let phase = pod["status"]["phase"].as_str().unwrap_or_default();
    let is_over = matches!(phase, "Succeeded" | "Failed");
    match pod["status"]["reason"].as_str() {
        _ if !pod["metadata"]["deletionTimestamp"].is_null() && !is_over => "Terminating",
        Some(reason) if !reason.is_empty() => reason,
        _ if phase == "Succeeded" => "Completed",
        _ if phase == "Failed" => "Error",
        _ => phase,
    }
}

/// As kubectl writes ages: two units at most, fewer the longer it is.
fn age(since: &Value, now: Timestamp) -> String {
    let Some(since) = since.as_str().and_then(|since| since.parse::<Timestamp>().ok()) else {
        return "<unknown>".to_owned();
    };
    let seconds = now.duration_since(since).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |whole: i64, unit: char, rest: i64, small: char| match rest {
        0 => format!("{whole}{unit}"),
        rest => format!("{whole}{unit}{rest}{small}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        _ => format!("{days}d"),
    }
}
