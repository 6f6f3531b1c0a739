//! Creates, replaces and patches.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    events,
    failure::Failure,
    kinds::{
        Kind,
        Trait::{BornWithStatus, CreatedByUpdate, Generation, Global, NeedsVersion, Status},
    },
    managed::{self, Author},
    object::{begin, check_texts, complete, decode, tidy},
    patch,
    request::Request,
    store::{Key, Store},
};

/// An answer with an object in it.
pub(super) struct Reply {
    pub(super) code: u16,
    pub(super) object: Arc<Value>,
}

impl Reply {
    pub(super) fn ok(object: Arc<Value>) -> Self {
        Self { code: 200, object }
    }
}

/// `POST` of a whole object.
pub(super) fn create(store: &mut Store, request: &Request, body: &[u8]) -> Result<Reply, Failure> {
    let object = decode(request, body)?;
    create_decoded(store, request, object)
}

fn create_decoded(store: &mut Store, request: &Request, mut object: Value) -> Result<Reply, Failure> {
    let kind = request.kind;
    let name = name_it(store, kind, &mut object)?;
    let namespace = &request.call.namespace;
    if !kind.has(Global) && store.get(&namespace_key(namespace)).is_none() {
        return Err(Failure::not_found_namespace(namespace));
    }
    let key = request.key_of(&name);
    if store.get(&key).is_some() {
        return Err(Failure::exists(kind, &name));
    }
    complete(store, kind, &mut object);
    if kind.has(Status) && !kind.has(BornWithStatus) {
        object["status"] = json!({});
    }
    managed::track(&author(store, request), &Value::Null, &mut object);
    begin(kind, &mut object);
    let object = if request.is_dry(&Value::Null) { Arc::new(object) } else { store.put(key, object) };
    Ok(Reply { code: 201, object })
}

/// `PUT` of an object or of its status.
pub(super) fn replace(store: &mut Store, request: &Request, body: &[u8]) -> Result<Reply, Failure> {
    let (kind, name) = (request.kind, &request.call.name);
    let mut new = decode(request, body)?;
    let found = new["metadata"]["name"].as_str().unwrap_or(name).to_owned();
    if found != *name {
        let message = format!("the name of the object ({found}) does not match the name on the URL ({name})");
        return Err(Failure::bad_request(message));
    }
    new["metadata"]["name"] = json!(name);
    let version = new["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let Some(old) = store.get(&request.key()) else {
        return match kind.has(CreatedByUpdate) {
            true if new["metadata"]["uid"].is_string() => Err(other_uid(request, &new, &Value::Null)),
            true => create_decoded(store, request, new),
            false => Err(Failure::not_found(kind, name)),
        };
    };
    if version.is_empty() && kind.has(NeedsVersion) {
        return Err(Failure::version_needed(kind, name));
    }
    if new["metadata"]["uid"].is_string() && new["metadata"]["uid"] != old["metadata"]["uid"] {
        return Err(other_uid(request, &new, &old));
    }
    update(store, request, &old, new)
}

/// `PATCH` of an object or of its status.
pub(super) fn patch(store: &mut Store, request: &Request, body: &[u8]) -> Result<Reply, Failure> {
    let (kind, name) = (request.kind, &request.call.name);
    let old = store.get(&request.key()).ok_or_else(|| Failure::not_found(kind, name))?;
    let shown = events::from_stored(kind, &old);
    let new = events::to_stored(kind, patch::apply(&request.content_type, &shown, body)?);
    if let Err(why) = check_texts(&new) {
        return Err(Failure::undecodable_patch(&why));
    }
    for field in ["name", "namespace"] {
        if new["metadata"][field] != old["metadata"][field] {
            let message = format!("the {field} of the object does not match the {field} on the URL");
            return Err(Failure::bad_request(message));
        }
    }
    update(store, request, &old, new)
}

/// What a replace and a patch have in common: `new` takes the place of `old`.
fn update(store: &mut Store, request: &Request, old: &Arc<Value>, mut new: Value) -> Result<Reply, Failure> {
    let (kind, name) = (request.kind, &request.call.name);
    let version = &new["metadata"]["resourceVersion"];
    if version.as_str().is_some_and(|version| !version.is_empty()) && *version != old["metadata"]["resourceVersion"] {
        return Err(Failure::modified(kind, name));
    }
    let uid = &new["metadata"]["uid"];
    if uid.is_string() && *uid != old["metadata"]["uid"] {
        return Err(Failure::other_uid(kind, name, uid));
    }
    keep(request, old, &mut new);
    tidy(&mut new);
    managed::track(&author(store, request), old, &mut new);
    if new == **old {
        return Ok(Reply::ok(old.clone()));
    }
    if request.is_dry(&Value::Null) {
        return Ok(Reply::ok(Arc::new(new)));
    }
    let key = request.key();
    let is_over = is_deleted_without(&new);
    let stored = store.put(key.clone(), new);
    if is_over {
        store.remove(&key);
    }
    Ok(Reply::ok(stored))
}

/// Puts back what this write may not change.
fn keep(request: &Request, old: &Value, new: &mut Value) {
    let kind = request.kind;
    if request.subresource == "status" {
        let (metadata, status) = (new["metadata"].take(), new["status"].take());
        *new = old.clone();
        new["metadata"] = metadata;
        new["status"] = status;
        new["metadata"]["ownerReferences"] = old["metadata"]["ownerReferences"].clone();
    } else if kind.has(Status) {
        new["status"] = old["status"].clone();
    }
    for field in [
        "uid",
        "name",
        "namespace",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ] {
        new["metadata"][field] = old["metadata"][field].clone();
    }
    if kind.has(Generation) && new["spec"] != old["spec"] {
        let generation = old["metadata"]["generation"].as_u64().unwrap_or_default();
        new["metadata"]["generation"] = json!(generation + 1);
    }
}

/// Whether nothing holds up the end of an object any more.
fn is_deleted_without(object: &Value) -> bool {
    let metadata = &object["metadata"];
    !metadata["deletionTimestamp"].is_null()
        && metadata["finalizers"].is_null()
        && metadata["deletionGracePeriodSeconds"].as_u64().unwrap_or_default() == 0
}

fn name_it(store: &mut Store, kind: &Kind, object: &mut Value) -> Result<String, Failure> {
    let metadata = &mut object["metadata"];
    if let Some(name) = metadata["name"].as_str().filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let Some(prefix) = metadata["generateName"].as_str().filter(|prefix| !prefix.is_empty()) else {
        let why = "Required value: name or generateName is required";
        return Err(Failure::invalid(kind, "", "metadata.name", "FieldValueRequired", why));
    };
    let name = format!("{prefix}{:05x}", store.next());
    metadata["name"] = json!(name);
    Ok(name)
}

fn namespace_key(name: &str) -> Key {
    Key { resource: "namespaces", namespace: String::new(), name: name.to_owned() }
}

fn author<'a>(store: &Store, request: &'a Request) -> Author<'a> {
    let Request { manager, kind, subresource, .. } = request;
    Author { manager, kind, subresource, time: store.now() }
}

/// A replace is meant for an object of another UID, or for one that is gone.
fn other_uid(request: &Request, new: &Value, old: &Value) -> Failure {
    let uid = |object: &Value| object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let Key { resource, namespace, name } = request.key();
    let key =
        [resource, &namespace, &name].map(|part| if part.is_empty() { String::new() } else { format!("/{part}") });
    let why = format!(
        "StorageError: invalid object, Code: 4, Key: /registry{}, ResourceVersion: 0, AdditionalErrorMsg: \
         Precondition failed: UID in precondition: {}, UID in object meta: {}",
        key.concat(),
        uid(new),
        uid(old)
    );
    Failure::conflict(request.kind, &name, &why)
}
