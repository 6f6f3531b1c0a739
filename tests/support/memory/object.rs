//! What happens to objects on their way in: read, tidied, completed.

use serde_json::{Value, json};

use super::{
    events,
    failure::Failure,
    kinds::{
        Kind,
        Trait::{BornWithStatus, Generation, Global, Status},
    },
    request::Request,
    store::Store,
};

/// Reads the object in the body of a create or a replace, as it is stored.
pub(super) fn decode(request: &Request, body: &[u8]) -> Result<Value, Failure> {
    let kind = request.kind;
    let version = kind.api_version();
    let name = kind.name;
    let unfit = |why: &str| {
        Failure::bad_request(format!("{name} in version {:?} cannot be handled as a {name}: {why}", kind.version))
    };
    let mut object: Value = serde_json::from_slice(body).map_err(|error| unfit(&error.to_string()))?;
    let Some(fields) = object.as_object_mut() else { return Err(unfit("it is no object")) };
    let found = fields.entry("kind").or_insert_with(|| json!(name)).clone();
    let found_version = fields.entry("apiVersion").or_insert_with(|| json!(version)).clone();
    if found != name || found_version != version {
        let found = found.as_str().unwrap_or_default();
        let why = format!("{found} in version {found_version} cannot be handled as a {name}");
        return Err(Failure::bad_request(why));
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
    if !kind.has(Global) {
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

/// Completes a new object: identity, age, and what is set where its author was silent.
pub(super) fn complete(store: &mut Store, kind: &Kind, object: &mut Value) {
    let uid = format!("00000000-0000-4000-8000-{:012x}", store.next());
    let created = store.now();
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for given in
            ["resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "managedFields"]
        {
            metadata.remove(given);
        }
        metadata.insert("uid".to_owned(), json!(uid));
        metadata.insert("creationTimestamp".to_owned(), created);
    }
    let usual = match kind.plural {
        "pods" => json!({
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler", "securityContext": {}, "enableServiceLinks": true,
        }),
        "deployments" | "replicasets" | "statefulsets" => json!({"replicas": 1}),
        "nodes" => json!({}),
        _ => return,
    };
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    if let (Some(spec), Value::Object(usual)) = (object["spec"].as_object_mut(), usual) {
        for (name, value) in usual {
            spec.entry(name).or_insert(value);
        }
    }
}

/// Sets what a new object begins with, whatever its author says.
pub(super) fn begin(kind: &Kind, object: &mut Value) {
    if kind.has(Generation) {
        object["metadata"]["generation"] = json!(1);
    }
    if !kind.has(Status) || kind.has(BornWithStatus) {
        return;
    }
    object["status"] = match kind.plural {
        "pods" => json!({"phase": "Pending", "qosClass": "BestEffort"}),
        "namespaces" => {
            object["spec"] = json!({"finalizers": ["kubernetes"]});
            json!({"phase": "Active"})
        }
        "poddisruptionbudgets" => {
            json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
        }
        _ => json!({}),
    };
}
