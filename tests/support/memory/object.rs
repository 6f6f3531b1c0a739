//! What happens to objects on their way in: read, tidied, completed.

use serde_json::{Map, Value, json};

use super::{events, failure::Failure, kinds::Kind, request::Request, store::Store};

/// Reads the object in the body of a create or a replace, as it is stored.
pub(super) fn decode(request: &Request, body: &[u8]) -> Result<Value, Failure> {
    let kind = request.kind;
    let version = kind.api_version();
    let name = kind.kind;
    let unfit = |why: &str| {
        Failure::bad_request(format!("{name} in version {:?} cannot be handled as a {name}: {why}", kind.version))
    };
    let mut object: Value = serde_json::from_slice(body).map_err(|error| unfit(&error.to_string()))?;
    let Some(fields) = object.as_object_mut() else { return Err(unfit("it is no object")) };
    let found = fields.entry("kind").or_insert_with(|| json!(name)).clone();
    let found_version = fields.entry("apiVersion").or_insert_with(|| json!(version)).clone();
    if found != name || found_version != version {
        let found =
            format!("{}, Kind={}", found_version.as_str().unwrap_or_default(), found.as_str().unwrap_or_default());
        let message = format!("the object provided is unrecognized (must be of type {name}): it is {found}");
        return Err(Failure::bad_request(message));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    check_texts(&object).map_err(|why| unfit(&why))?;
    let namespace = &object["metadata"]["namespace"];
    if namespace.as_str().is_some_and(|namespace| !namespace.is_empty() && namespace != request.call.namespace) {
        let message = "the namespace of the provided object does not match the namespace sent on the request";
        return Err(Failure::bad_request(message));
    }
    if kind.namespaced {
        object["metadata"]["namespace"] = json!(request.call.namespace);
    }
    tidy(&mut object);
    Ok(events::to_stored(kind, object))
}

/// Labels and annotations are texts; the error says which one is not.
pub(super) fn check_texts(object: &Value) -> Result<(), String> {
    for map in ["labels", "annotations"] {
        let entries = object["metadata"][map].as_object().into_iter().flatten();
        let wrong = entries.filter(|(_, value)| !value.is_string() && !value.is_null());
        if let Some((_, value)) = wrong.into_iter().next() {
            let found = match value {
                Value::Bool(_) => "bool",
                Value::Number(_) => "number",
                Value::Array(_) => "array",
                _ => "object",
            };
            return Err(format!(
                "json: cannot unmarshal {found} into Go struct field ObjectMeta.metadata.{map} of type string"
            ));
        }
    }
    Ok(())
}

/// Leaves out what the API server leaves out, because it is empty.
pub(super) fn tidy(object: &mut Value) {
    drop_nulls(object);
    drop_empty(&mut object["metadata"], &["labels", "annotations", "finalizers", "ownerReferences", "managedFields"]);
    drop_empty(object, &["data", "binaryData"]);
    if let Some(spec) = object.get_mut("spec") {
        drop_empty(spec, &["taints", "tolerations", "unschedulable"]);
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn drop_empty(value: &mut Value, names: &[&str]) {
    let Some(fields) = value.as_object_mut() else { return };
    for name in names {
        let is_empty = fields.get(*name).is_some_and(|value| match value {
            Value::Object(fields) => fields.is_empty(),
            Value::Array(items) => items.is_empty(),
            other => *other == false,
        });
        if is_empty {
            fields.remove(*name);
        }
    }
}

/// Completes a new object: identity, age, and what its kind sets by itself.
pub(super) fn complete(store: &mut Store, kind: &Kind, object: &mut Value) {
    let uid = format!("00000000-0000-4000-8000-{:012x}", store.next());
    let created = store.now();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for given in ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"]
        {
            metadata.remove(given);
        }
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), created);
        metadata.remove("generation");
        if kind.generation {
            metadata.insert("generation".to_owned(), json!(1));
        }
    }
    if kind.status && !kind.born_with_status {
        object["status"] = json!({});
    }
    match kind.plural {
        "pods" => complete_pod(object),
        "nodes" => {
            default(object, "spec", json!({}));
        }
        "namespaces" => {
            object["status"] = json!({"phase": "Active"});
            object["spec"] = json!({"finalizers": ["kubernetes"]});
        }
        "poddisruptionbudgets" => {
            object["status"] = json!({
                "currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0,
            })
        }
        "deployments" | "replicasets" | "statefulsets" => {
            default(&mut object["spec"], "replicas", json!(1));
        }
        _ => {}
    }
}

fn complete_pod(pod: &mut Value) {
    pod["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    let spec = &mut pod["spec"];
    for (name, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("schedulerName", json!("default-scheduler")),
        ("securityContext", json!({})),
        ("enableServiceLinks", json!(true)),
    ] {
        default(spec, name, value);
    }
}

fn default(value: &mut Value, name: &str, to: Value) {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    if let Some(fields) = value.as_object_mut() {
        fields.entry(name).or_insert(to);
    }
}
