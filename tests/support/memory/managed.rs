//! Who owns which field: `metadata.managedFields`, as far as writes without server-side apply make them.
//!
//! The rules are those of structured-merge-diff: who changes a field owns it, alone; whoever only repeats it does not;
//! a field that is removed is nobody's. Lists count as one field here, where Kubernetes looks into some of them.

use serde_json::{Map, Value, json};

use super::kinds::Kind;

/// Who writes, and what.
pub(super) struct Author<'a> {
    pub(super) manager: &'a str,
    pub(super) kind: &'a Kind,
    pub(super) subresource: &'a str,
    /// Now.
    pub(super) time: Value,
}

/// More managers than this are merged, the oldest first.
const MOST_MANAGERS: usize = 10;

/// The manager that owns what has been merged.
const ANCIENT: &str = "ancient-changes";

/// What nobody owns.
const UNOWNED: [&str; 9] = [
    "f:apiVersion",
    "f:kind",
    "f:metadata/f:creationTimestamp",
    "f:metadata/f:generation",
    "f:metadata/f:managedFields",
    "f:metadata/f:name",
    "f:metadata/f:namespace",
    "f:metadata/f:resourceVersion",
    "f:metadata/f:uid",
];

/// Maps that are owned as such beside what is in them, by who made them.
const OWNED_MAPS: [&str; 4] = ["f:metadata/f:annotations", "f:metadata/f:labels", "f:data", "f:metadata/f:finalizers"];

type Path = Vec<String>;

#[derive(Default)]
struct Difference {
    written: Vec<Path>,
    removed: Vec<Path>,
}

/// Sets the managedFields of `new`, which replaces `old`; nothing changes where nothing else has.
pub(super) fn track(author: &Author<'_>, old: &Value, new: &mut Value) {
    let mut entries = old["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    // Once they are lost they are not begun anew.
    let is_tracked = !entries.is_empty() || old.is_null();
    let blank = json!({"spec": {}, "status": {}});
    let mut difference = Difference::default();
    compare(&mut Vec::new(), Some(if old.is_null() { &blank } else { old }), Some(new), &mut difference);
    if is_tracked && !(difference.written.is_empty() && difference.removed.is_empty()) {
        settle(author, &mut entries, &difference);
    }
    let Some(metadata) = new["metadata"].as_object_mut() else { return };
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), Value::Array(entries));
    }
}

fn settle(author: &Author<'_>, entries: &mut Vec<Value>, Difference { written, removed }: &Difference) {
    for entry in entries.iter_mut() {
        let lost = if author.is_of(entry) { &[] } else { written.as_slice() };
        for path in lost.iter().chain(removed) {
            disown(&mut entry["fieldsV1"], path);
        }
    }
    if !written.is_empty() {
        let at = entries.iter().position(|entry| author.is_of(entry)).unwrap_or_else(|| {
            entries.push(author.entry());
            entries.len() - 1
        });
        if let Some(entry) = entries.get_mut(at) {
            for path in written {
                own(&mut entry["fieldsV1"], path);
            }
            entry["time"] = author.time.clone();
        }
    }
    entries.retain(|entry| entry["fieldsV1"].as_object().is_some_and(|fields| !fields.is_empty()));
    merge_oldest(entries);
    sort(entries);
}

impl Author<'_> {
    fn is_of(&self, entry: &Value) -> bool {
        text(entry, "manager") == self.manager
            && text(entry, "subresource") == self.subresource
            && text(entry, "operation") == "Update"
            && text(entry, "apiVersion") == self.kind.api_version()
    }

    fn entry(&self) -> Value {
        let mut entry = json!({
            "manager": self.manager, "operation": "Update", "apiVersion": self.kind.api_version(),
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": {},
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }
}

/// Collects what differs between two values that are not the same, field by field; lists and empty maps are fields.
fn compare(path: &mut Path, old: Option<&Value>, new: Option<&Value>, found: &mut Difference) {
    let joined = path.join("/");
    if UNOWNED.contains(&joined.as_str()) {
        return;
    }
    let (old_map, new_map) = (fields(old), fields(new));
    if OWNED_MAPS.contains(&joined.as_str()) && old_map.is_some() != new_map.is_some() {
        if new_map.is_some() { found.written.push(path.clone()) } else { found.removed.push(path.clone()) }
    }
    match (old_map, new_map) {
        (None, None) if new.is_some() => found.written.push(path.clone()),
        (None, None) => found.removed.push(path.clone()),
        (old_map, new_map) => {
            // Where one of both is no map, what it was is gone or what it is has come.
            if old_map.is_none() && old.is_some_and(|old| !old.is_object()) {
                found.removed.push(path.clone());
            }
            let has = |name: &String| old_map.is_some_and(|old| old.contains_key(name));
            let new_names = new_map.into_iter().flat_map(Map::keys).filter(|name| !has(name));
            for name in old_map.into_iter().flat_map(Map::keys).chain(new_names) {
                let (old, new) = (old_map.and_then(|old| old.get(name)), new_map.and_then(|new| new.get(name)));
                if old != new {
                    path.push(format!("f:{name}"));
                    compare(path, old, new, found);
                    path.pop();
                }
            }
        }
    }
}

/// What is in a map that is not empty.
fn fields(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value?.as_object().filter(|map| !map.is_empty())
}

/// Adds a path. What has nothing below it is a field that is owned; where something below it is owned as well, the word
/// for the field itself is `.`.
fn own(fields: &mut Value, path: &[String]) {
    let Some((step, rest)) = path.split_first() else { return };
    let below = &mut fields[step.as_str()];
    let is_new = below.is_null();
    if is_new {
        *below = json!({});
    } else if rest.is_empty() != is_empty(below) {
        below["."] = json!({});
    }
    own(below, rest);
}

/// Takes a path out, and whatever is empty without it.
fn disown(fields: &mut Value, path: &[String]) {
    let (Some((step, rest)), Some(map)) = (path.split_first(), fields.as_object_mut()) else { return };
    let Some(below) = map.get_mut(step) else { return };
    if rest.is_empty() {
        let Some(below) = below.as_object_mut().filter(|below| !below.is_empty()) else {
            map.remove(step);
            return;
        };
        below.remove(".");
    } else if !is_empty(below) {
        disown(below, rest);
        if is_empty(below) {
            map.remove(step);
        } else if *below == json!({".": {}}) {
            *below = json!({});
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_object().is_none_or(Map::is_empty)
}

/// Merges the oldest managers of one API version into one until there are not too many.
fn merge_oldest(entries: &mut Vec<Value>) {
    sort(entries);
    let mut oldest: Option<Value> = None;
    let mut merged: Option<Value> = None;
    while entries.len() + usize::from(oldest.is_some() || merged.is_some()) > MOST_MANAGERS {
        let entry = entries.remove(0);
        match (merged.take(), oldest.take()) {
            (None, None) => oldest = Some(entry),
            (bucket, first) => {
                let mut bucket = bucket.or(first).unwrap_or_default();
                unite(&mut bucket["fieldsV1"], &entry["fieldsV1"]);
                bucket["time"] = entry["time"].clone();
                bucket["manager"] = json!(ANCIENT);
                if let Some(bucket) = bucket.as_object_mut() {
                    bucket.remove("subresource");
                }
                merged = Some(bucket);
            }
        }
    }
    entries.extend(merged.or(oldest));
}

fn unite(fields: &mut Value, more: &Value) {
    for (step, below) in more.as_object().into_iter().flatten() {
        let here = &mut fields[step.as_str()];
        if here.is_null() {
            *here = below.clone();
            continue;
        }
        if is_empty(here) != is_empty(below) {
            here["."] = json!({});
        }
        unite(here, below);
    }
}

/// The oldest first.
fn sort(entries: &mut [Value]) {
    entries.sort_by(|one, other| place(one).cmp(&place(other)));
}

fn place(entry: &Value) -> [&str; 3] {
    ["time", "manager", "subresource"].map(|name| text(entry, name))
}

fn text<'a>(entry: &'a Value, name: &str) -> &'a str {
    entry[name].as_str().unwrap_or_default()
}
