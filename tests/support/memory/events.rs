//! Events have two APIs and one store: what is stored has the words of the older one.

use std::sync::Arc;

use serde_json::Value;

use super::kinds::Kind;

/// The newer API's words, and the older ones.
const WORDS: [(&str, &str); 7] = [
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

fn is_newer(kind: &Kind) -> bool {
    kind.group == "events.k8s.io"
}

/// An object as it is stored.
pub(super) fn to_stored(kind: &Kind, mut object: Value) -> Value {
    if is_newer(kind) {
        for (newer, older) in WORDS {
            rename(&mut object, newer, older);
        }
        object["apiVersion"] = "v1".into();
    }
    object
}

/// A stored object as this API has it.
pub(super) fn from_stored(kind: &Kind, object: &Arc<Value>) -> Arc<Value> {
    if !is_newer(kind) {
        return object.clone();
    }
    let mut object = (**object).clone();
    for (newer, older) in WORDS {
        rename(&mut object, older, newer);
    }
    object["apiVersion"] = kind.api_version().into();
    Arc::new(object)
}

fn rename(object: &mut Value, from: &str, to: &str) {
    if let Some(fields) = object.as_object_mut()
        && let Some(value) = fields.remove(from)
    {
        fields.insert(to.to_owned(), value);
    }
}
