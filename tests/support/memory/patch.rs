//! The three kinds of patches.

use serde_json::{Map, Value};

use super::failure::Failure;

/// The object that a patch of this content type makes of `object`.
pub(super) fn apply(content_type: &str, object: &Value, body: &[u8]) -> Result<Value, Failure> {
    let mut patched = object.clone();
    match content_type {
        "application/merge-patch+json" => json_patch::merge(&mut patched, &read(body)?),
        "application/strategic-merge-patch+json" => merge_strategically(&mut patched, read(body)?),
        "application/json-patch+json" => {
            let patch: json_patch::Patch =
                serde_json::from_slice(body).map_err(|error| Failure::bad_request(error.to_string()))?;
            json_patch::patch(&mut patched, &patch).map_err(|error| Failure::unpatchable(&error.to_string()))?;
        }
        _ => return Err(Failure::unsupported_media_type()),
    }
    Ok(patched)
}

fn read(body: &[u8]) -> Result<Value, Failure> {
    match serde_json::from_slice(body) {
        Ok(patch @ Value::Object(_)) => Ok(patch),
        Ok(other) => Err(Failure::bad_request(format!("a patch is an object, not {other}"))),
        Err(error) => Err(Failure::bad_request(error.to_string())),
    }
}

/// By which field the items of a list are told apart; lists that are not here are replaced as a whole.
///
/// In Kubernetes this stands in the schema of each type. Here the name of the list must do.
const MERGE_KEYS: [(&str, &str); 8] = [
    ("addresses", "type"),
    ("conditions", "type"),
    ("containers", "name"),
    ("env", "name"),
    ("initContainers", "name"),
    ("ownerReferences", "uid"),
    ("volumes", "name"),
    ("ports", "containerPort"),
];

/// Lists of plain values that a patch adds to.
const MERGED_PLAINLY: [&str; 1] = ["finalizers"];

fn merge_strategically(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if patch.get("$patch").is_some_and(|word| word == "replace") {
        *target = Value::Object(without_directives(patch));
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            let gone = value.as_array().cloned().unwrap_or_default();
            if let Some(items) = fields.get_mut(list).and_then(Value::as_array_mut) {
                items.retain(|item| !gone.contains(item));
            }
        } else if name.starts_with('$') {
            // What is left are orders of lists, which nothing here depends on.
        } else if value.is_null() || value.get("$patch").is_some_and(|word| word == "delete") {
            fields.remove(&name);
        } else {
            merge_field(fields, name, value);
        }
    }
}

fn merge_field(fields: &mut Map<String, Value>, name: String, value: Value) {
    let key = MERGE_KEYS.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
    let plainly = MERGED_PLAINLY.contains(&name.as_str());
    let target = fields.entry(name).or_insert(Value::Null);
    match (value, key) {
        (Value::Array(items), Some(key)) => merge_items(target, items, key),
        (Value::Array(items), None) if plainly => {
            let mut all = target.as_array().cloned().unwrap_or_default();
            all.extend(items.into_iter().filter(|item| !target.as_array().is_some_and(|all| all.contains(item))));
            *target = Value::Array(all);
        }
        (value, _) => merge_strategically(target, value),
    }
}

fn merge_items(target: &mut Value, patch: Vec<Value>, key: &str) {
    let mut left = match target.take() {
        Value::Array(all) => all,
        _ => Vec::new(),
    };
    let order: Vec<Value> = left.iter().map(|item| item[key].clone()).collect();
    let mut merged = Vec::new();
    for item in patch {
        let mut now = match left.iter().position(|other| other[key] == item[key]) {
            Some(at) => left.remove(at),
            None => Value::Null,
        };
        match item["$patch"].as_str() {
            Some("replace") => left.clear(),
            Some("delete") => {}
            _ => {
                merge_strategically(&mut now, item);
                merged.push(now);
            }
        }
    }
    *target = Value::Array(weave(left, merged, |item| order.iter().position(|other| *other == item[key])));
}

/// What the patch does not name keeps its place before those that were behind it; what is new comes as early as it can.
fn weave(left: Vec<Value>, merged: Vec<Value>, place: impl Fn(&Value) -> Option<usize>) -> Vec<Value> {
    let mut woven = Vec::new();
    let mut left = left.into_iter().peekable();
    for item in merged {
        while let Some(first) = left.next_if(|first| place(&item).is_some_and(|at| place(first) < Some(at))) {
            woven.push(first);
        }
        woven.push(item);
    }
    woven.extend(left);
    woven
}

fn without_directives(mut patch: Map<String, Value>) -> Map<String, Value> {
    patch.retain(|name, _| !name.starts_with('$'));
    patch
}
