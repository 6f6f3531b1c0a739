//! The API server's audit log: who asked for what, and the answer.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::Deserialize;

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The user's name, `system:serviceaccount:<namespace>:<name>` for a `ServiceAccount`.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `patch`, …
    pub verb: String,
    /// The API group; empty for the core group and for what is not a resource (`/readyz`).
    pub group: String,
    /// The resource with its subresource, like `nodes` or `pods/eviction`; empty for what is not a resource.
    pub resource: String,
    /// The object's namespace; empty for cluster-scoped ones.
    pub namespace: String,
    /// The object's name; empty for lists, watches and generated names.
    pub name: String,
    /// The HTTP status code; 0 while unanswered (a watch has its 200 from the start).
    pub code: u16,
    /// When the API server received it.
    pub at: Timestamp,
}

/// How many requests of each kind there were: by account, verb, resource and answer.
pub fn tally<'a>(requests: impl IntoIterator<Item = &'a Request>) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for Request { user, verb, resource, code, .. } in requests {
        let who = user.rsplit(':').next().unwrap_or_default();
        *tally.entry(format!("{who} {verb} {resource} {code}")).or_default() += 1;
    }
    tally
}

/// Reads the log. A request that is logged at more than one stage (a watch at its start and end) comes once, as last
/// logged, in the order of arrival; a last line that is still being written is left out.
///
/// # Errors
/// When the file cannot be read or a full line is not an audit event.
pub fn read(path: &Path) -> Result<Vec<Request>> {
    let mut requests: Vec<_> = events(path)?.into_values().map(Request::from).collect();
    requests.sort_by_key(|request| request.at);
    Ok(requests)
}

/// The addresses from which requests came whose user could not be authenticated.
pub(super) fn unauthenticated(path: &Path) -> Result<Vec<String>> {
    let refused = events(path)?.into_values().filter(|event| event.response_status.code == 401);
    Ok(refused.filter_map(|event| event.source_ips.into_iter().next()).collect())
}

/// The last word on each request, by its ID.
fn events(path: &Path) -> Result<BTreeMap<String, Event>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let full = text.rfind('\n').map_or("", |end| &text[..end]);
    let event = |line: &str| {
        let event: Event = serde_json::from_str(line).with_context(|| format!("an audit event: {line}"))?;
        Ok((event.audit_id.clone(), event))
    };
    full.lines().map(event).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    #[serde(rename = "auditID")]
    audit_id: String,
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
    #[serde(default, rename = "sourceIPs")]
    source_ips: Vec<String>,
    request_received_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    /// Empty for whoever could not be authenticated.
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Event> for Request {
    fn from(event: Event) -> Self {
        let object = event.object_ref;
        let resource = match object.subresource.as_str() {
            "" => object.resource,
            sub => format!("{}/{sub}", object.resource),
        };
        Self {
            user: event.user.username,
            verb: event.verb,
            group: object.api_group,
            resource,
            namespace: object.namespace,
            name: object.name,
            code: event.response_status.code,
            at: event.request_received_timestamp,
        }
    }
}
