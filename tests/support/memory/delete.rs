//! Deletes: at once, after a grace period, or when the last finalizer is gone.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    failure::Failure,
    kinds::{Kind, Trait::ReturnedWhenDeleted},
    request::Request,
    store::{Key, Store},
    write::Reply,
};

/// What a delete is asked to do.
#[derive(Clone, Debug, Default)]
pub(super) struct Options {
    /// In seconds.
    pub(super) grace: Option<i64>,
    pub(super) uid: Option<String>,
    pub(super) version: Option<String>,
    pub(super) dry: bool,
}

impl Options {
    /// Reads the options of a request; `body` is a `DeleteOptions`, or `null`.
    pub(super) fn read(request: &Request, body: &Value) -> Self {
        let text = |name: &str| body["preconditions"][name].as_str().map(str::to_owned);
        let grace = body["gracePeriodSeconds"].as_i64();
        Self {
            grace: grace.or_else(|| request.parameter("gracePeriodSeconds").parse().ok()),
            uid: text("uid"),
            version: text("resourceVersion"),
            dry: request.is_dry(body),
        }
    }

    /// A conflict where a precondition does not hold.
    pub(super) fn check(&self, kind: &Kind, object: &Value) -> Result<(), Failure> {
        let metadata = &object["metadata"];
        let checks = [
            (&self.uid, "uid", "UID", "have been deleted and then recreated"),
            (&self.version, "resourceVersion", "ResourceVersion", "have been modified"),
        ];
        for (asked, field, word, guess) in checks {
            let is = metadata[field].as_str().unwrap_or_default();
            if let Some(asked) = asked.as_deref().filter(|asked| *asked != is) {
                let why = format!(
                    "the {word} in the precondition ({asked}) does not match the {word} in record ({is}). \
                     The object might {guess}"
                );
                return Err(Failure::conflict_of_kind(kind, metadata["name"].as_str().unwrap_or_default(), &why));
            }
        }
        Ok(())
    }
}

/// `DELETE` of an object.
pub(super) fn delete(store: &mut Store, request: &Request, body: &[u8]) -> Result<Reply, Failure> {
    let body = match body {
        [] => Value::Null,
        body => serde_json::from_slice(body).map_err(|error| Failure::bad_request(error.to_string()))?,
    };
    let options = Options::read(request, &body);
    let (kind, key) = (request.kind, request.key());
    let object = remove(store, kind, &key, &options)?;
    if kind.has(ReturnedWhenDeleted) || is_held(&object) {
        return Ok(Reply::ok(object));
    }
    let mut details = json!({"name": key.name, "kind": kind.plural, "uid": object["metadata"]["uid"]});
    if !kind.group.is_empty() {
        details["group"] = json!(kind.group);
    }
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
    Ok(Reply::ok(Arc::new(status)))
}

fn is_held(object: &Value) -> bool {
    !object["metadata"]["finalizers"].is_null()
}

/// Deletes an object as far as it can be: whoever holds it up (kubelet, a finalizer) does the rest. Returns what became
/// of it.
pub(super) fn remove(store: &mut Store, kind: &Kind, key: &Key, options: &Options) -> Result<Arc<Value>, Failure> {
    let object = store.get(key).ok_or_else(|| Failure::not_found(kind, &key.name))?;
    options.check(kind, &object)?;
    let grace = match grace(kind, &object, options) {
        Grace::AsItIs => return Ok(object),
        Grace::None => None,
        Grace::Seconds(seconds) => Some(seconds),
    };
    if options.dry {
        return Ok(object);
    }
    if grace.is_none() && !is_held(&object) {
        store.remove(key);
        return Ok(object);
    }
    let mut ending = (*object).clone();
    let seconds = grace.unwrap_or_default();
    let begun = begun(&object).unwrap_or_else(|| store.time());
    let at = begun.checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap_or(begun);
    let metadata = &mut ending["metadata"];
    if metadata["deletionTimestamp"].is_null()
        && let Some(generation) = metadata["generation"].as_u64()
    {
        metadata["generation"] = json!(generation + 1);
    }
    metadata["deletionTimestamp"] = json!(format!("{at:.0}"));
    metadata["deletionGracePeriodSeconds"] = json!(seconds);
    let ending = if *object == ending { object } else { store.put(key.clone(), ending) };
    if seconds == 0 && !is_held(&ending) {
        store.remove(key);
    }
    Ok(ending)
}

enum Grace {
    /// The deletion is under way and does not become faster by this.
    AsItIs,
    /// The kind has no grace period.
    None,
    Seconds(i64),
}

fn grace(kind: &Kind, object: &Value, options: &Options) -> Grace {
    if begun(object).is_some() {
        let was = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
        return match options.grace {
            Some(asked) if asked < was => Grace::Seconds(asked.max(0)),
            _ => Grace::AsItIs,
        };
    }
    if kind.plural != "pods" {
        return Grace::None;
    }
    let is_over = matches!(object["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
    let is_placed = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let asked = options.grace.or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or_default();
    // Negative ones were allowed once, and mean as fast as possible.
    let seconds = if asked < 0 { 1 } else { asked };
    Grace::Seconds(if is_over || !is_placed { 0 } else { seconds })
}

/// When the deletion began, if it has.
fn begun(object: &Value) -> Option<jiff::Timestamp> {
    let metadata = &object["metadata"];
    let end: jiff::Timestamp = metadata["deletionTimestamp"].as_str()?.parse().ok()?;
    let grace = metadata["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    end.checked_sub(jiff::SignedDuration::from_secs(grace)).ok()
}
