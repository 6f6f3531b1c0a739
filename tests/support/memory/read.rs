//! Reads: single objects and lists, page by page where that is asked for.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    failure::Failure,
    request::Request,
    store::{Key, Store},
    write::Reply,
};

/// A list before it is given a form.
pub(super) struct Listing {
    /// `metadata` of the list.
    pub(super) metadata: Value,
    pub(super) items: Vec<Arc<Value>>,
}

/// `GET` of one object. `cached` is the revision that a cache is at, where one may answer.
pub(super) fn get(store: &Store, request: &Request, cached: Option<u64>) -> Result<Reply, Failure> {
    let key = request.key();
    let found = match (request.version()?, cached) {
        (Some(0), Some(revision)) => {
            let objects = store.scan_at(key.resource, &key.namespace, revision, |found, _| *found == key);
            objects.and_then(|mut objects| objects.remove(&key))
        }
        (Some(asked), _) if asked > store.revision() => {
            return Err(Failure::too_large_version(asked, store.revision()));
        }
        _ => store.get(&key),
    };
    found.map(Reply::ok).ok_or_else(|| Failure::not_found(request.kind, &key.name))
}

/// `GET` of many.
pub(super) fn list(store: &Store, request: &Request, cached: Option<u64>) -> Result<Listing, Failure> {
    let filter = request.filter()?;
    let (revision, after) = start(store, request, cached)?;
    let namespace = &request.call.namespace;
    let is_meant =
        |key: &Key, object: &Value| after.as_ref().is_none_or(|after| key > after) && filter.matches(key, object);
    let mut found: Vec<(Key, Arc<Value>)> = match revision {
        None => {
            let meant = store.scan(request.kind.plural, namespace).filter(|(key, object)| is_meant(key, object));
            meant.map(|(key, object)| (key.clone(), object.clone())).collect()
        }
        Some(revision) => {
            let objects = store.scan_at(request.kind.plural, namespace, revision, is_meant);
            objects.ok_or_else(|| too_old(after.is_some(), revision, store.revision()))?.into_iter().collect()
        }
    };
    let revision = revision.unwrap_or(store.revision());
    let limit = request.parameter("limit").parse().unwrap_or(0_usize);
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if limit > 0 && found.len() > limit {
        let left = found.len() - limit;
        found.truncate(limit);
        if let Some((last, _)) = found.last() {
            metadata["continue"] = json!(format!("{revision}/{}/{}", last.namespace, last.name));
        }
        if filter.is_plain() {
            metadata["remainingItemCount"] = json!(left);
        }
    }
    Ok(Listing { metadata, items: found.into_iter().map(|(_, object)| object).collect() })
}

/// As of which revision (`None`: now) and after which key.
fn start(store: &Store, request: &Request, cached: Option<u64>) -> Result<(Option<u64>, Option<Key>), Failure> {
    let token = request.parameter("continue");
    if !token.is_empty() {
        let parts: Vec<&str> = token.split('/').collect();
        let [revision, namespace, name] = parts.as_slice() else { return Err(no_token()) };
        let revision = revision.parse().map_err(|_| no_token())?;
        let key = Key { resource: request.kind.plural, namespace: (*namespace).to_owned(), name: (*name).to_owned() };
        return Ok((Some(revision), Some(key)));
    }
    let is_exact = request.parameter("resourceVersionMatch") == "Exact";
    match request.version()? {
        Some(asked) if asked > store.revision() => Err(Failure::too_large_version(asked, store.revision())),
        Some(0) => Ok((cached, None)),
        Some(asked) if is_exact => Ok((Some(asked), None)),
        _ => Ok((None, None)),
    }
}

fn no_token() -> Failure {
    Failure::bad_request("continue key is not valid")
}

fn too_old(continues: bool, asked: u64, current: u64) -> Failure {
    Failure::expired(if continues {
        "The provided continue parameter is too old to display a consistent list result.".to_owned()
    } else {
        format!("too old resource version: {asked} ({current})")
    })
}

/// The objects of a snapshot that a filter means.
pub(super) fn snapshot(store: &Store, request: &Request, revision: u64) -> Result<BTreeMap<Key, Arc<Value>>, Failure> {
    let filter = request.filter()?;
    let is_meant = |key: &Key, object: &Value| filter.matches(key, object);
    let objects = store.scan_at(request.kind.plural, &request.call.namespace, revision, is_meant);
    objects.ok_or_else(|| too_old(false, revision, store.revision()))
}
