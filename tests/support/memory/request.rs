//! What a request asks for, read from its method, path, query and headers.

use std::collections::BTreeMap;

use hyper::{Method, Uri, header::HeaderMap};
use serde_json::Value;

use super::{
    failure::Failure,
    kinds::Kind,
    selector::{Filter, parse_fields, parse_labels},
    store::Key,
};

/// A request, as the weather and the log of requests see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Who asks.
    pub user: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: &'static str,
    /// The resource and, where there is one, its subresource: `nodes`, `pods/eviction`.
    pub resource: String,
    /// Empty where there is none.
    pub namespace: String,
    /// Empty for lists, watches and creates of whole objects.
    pub name: String,
}

/// A request for a resource, with all that decides how it is answered.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) call: Call,
    pub(super) kind: &'static Kind,
    pub(super) subresource: String,
    /// What has been asked for behind the question mark.
    pub(super) query: BTreeMap<String, String>,
    pub(super) content_type: String,
    pub(super) form: Form,
    /// Who owns the fields that it writes.
    pub(super) manager: String,
}

/// In what form objects are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Full,
    /// The metadata alone.
    Metadata,
    /// Rows for people.
    Table,
}

/// The longest name of a manager.
const MANAGER_LIMIT: usize = 128;

impl Request {
    /// Reads a request; `None` where the path leads to no resource (discovery, say).
    pub(super) fn read(user: &str, method: &Method, uri: &Uri, headers: &HeaderMap) -> Option<Result<Self, Failure>> {
        let path: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
        let (group, version, rest) = match path.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            [] => return None,
            // Subresources of namespaces look like resources in them.
            ["namespaces", namespace, resource, rest @ ..] if !["status", "finalize"].contains(resource) => {
                (*namespace, [&[*resource], rest].concat())
            }
            rest => ("", rest.to_vec()),
        };
        if !Kind::is_served(group, version) {
            return None;
        }
        let Some(kind) = rest.first().and_then(|plural| Kind::at(group, version, plural)) else {
            return Some(Err(Failure::no_such_path()));
        };
        let name = rest.get(1).copied().unwrap_or_default();
        let subresource = rest.get(2).copied().unwrap_or_default();
        let query = query(uri);
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        Some(verb(method, name, &query).map(|verb| Self {
            call: Call {
                user: user.to_owned(),
                verb,
                group: kind.group,
                resource: [kind.plural, subresource].join("/").trim_end_matches('/').to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            kind,
            subresource: subresource.to_owned(),
            content_type: header("content-type").split(';').next().unwrap_or_default().trim().to_owned(),
            form: form(header("accept")),
            manager: manager(query.get("fieldManager"), header("user-agent")),
            query,
        }))
    }

    /// One parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    pub(super) fn is_set(&self, name: &str) -> bool {
        matches!(self.parameter(name), "1" | "true")
    }

    /// Where the object of the request is.
    pub(super) fn key(&self) -> Key {
        self.key_of(&self.call.name)
    }

    /// Where an object of this name would be.
    pub(super) fn key_of(&self, name: &str) -> Key {
        Key { resource: self.kind.plural, namespace: self.call.namespace.clone(), name: name.to_owned() }
    }

    /// What a list or a watch is about.
    pub(super) fn filter(&self) -> Result<Filter, Failure> {
        let mut fields = parse_fields(self.kind.plural, self.parameter("fieldSelector"))?;
        if !self.call.name.is_empty() {
            fields.extend(parse_fields(self.kind.plural, &format!("metadata.name={}", self.call.name))?);
        }
        let labels = parse_labels(self.parameter("labelSelector"))?;
        Ok(Filter { resource: Some(self.kind.plural), namespace: self.call.namespace.clone(), fields, labels })
    }

    /// A resourceVersion of the query; `None` where there is none.
    pub(super) fn version(&self) -> Result<Option<u64>, Failure> {
        match self.parameter("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| Failure::no_version(text)),
        }
    }

    /// Whether nothing may be stored, by the query or by the options in the body of a delete.
    pub(super) fn is_dry(&self, options: &Value) -> bool {
        !self.parameter("dryRun").is_empty() || options["dryRun"].as_array().is_some_and(|all| !all.is_empty())
    }
}

fn verb(method: &Method, name: &str, query: &BTreeMap<String, String>) -> Result<&'static str, Failure> {
    let watches = query.get("watch").is_some_and(|value| value == "1" || value == "true");
    match (method.as_str(), name) {
        ("GET", _) if watches => Ok("watch"),
        ("GET", "") => Ok("list"),
        ("GET", _) => Ok("get"),
        ("POST", _) => Ok("create"),
        (_, "") => Err(Failure::method_not_allowed()),
        ("PUT", _) => Ok("update"),
        ("PATCH", _) => Ok("patch"),
        ("DELETE", _) => Ok("delete"),
        _ => Err(Failure::method_not_allowed()),
    }
}

fn query(uri: &Uri) -> BTreeMap<String, String> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

/// The first form of the `Accept` header that is known here.
fn form(accept: &str) -> Form {
    let named = accept.split(',').find_map(|kind| {
        let mut parameters = kind.split(';').map(str::trim);
        parameters.find_map(|parameter| match parameter {
            "as=Table" => Some(Form::Table),
            "as=PartialObjectMetadata" | "as=PartialObjectMetadataList" => Some(Form::Metadata),
            _ => None,
        })
    });
    named.unwrap_or(Form::Full)
}

/// Whoever names no manager is known by the first word of the user agent.
fn manager(named: Option<&String>, user_agent: &str) -> String {
    let agent = || user_agent.split('/').next().unwrap_or_default().chars().take(MANAGER_LIMIT).collect();
    let manager: String = named.filter(|name| !name.is_empty()).cloned().unwrap_or_else(agent);
    if manager.is_empty() { "unknown".to_owned() } else { manager }
}
