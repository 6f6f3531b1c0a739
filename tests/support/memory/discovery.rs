//! What there is: versions, groups and resources, as clients look it up before anything else.

use serde_json::{Value, json};

use super::kinds::{
    KINDS, Kind,
    Trait::{Global, Status},
};

/// The version of Kubernetes that is played.
const VERSION: (&str, &str, &str) = ("1", "36", "v1.36.3");

/// The answer to a path that is no resource; `None` where there is nothing.
pub(super) fn answer(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["version"] => Some(json!({
            "major": VERSION.0, "minor": VERSION.1, "gitVersion": VERSION.2, "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none", "compiler": "none", "platform": "none",
        })),
        ["api"] => Some(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => groups().contains(name).then(|| {
            let mut group = group(name);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            group
        }),
        ["api", "v1"] => resources("", "v1"),
        ["apis", group, version] => resources(group, &format!("{group}/{version}")),
        _ => None,
    }
}

fn groups() -> Vec<&'static str> {
    let mut groups: Vec<_> = KINDS.iter().map(|kind| kind.group).filter(|group| !group.is_empty()).collect();
    groups.dedup();
    groups
}

fn group(name: &str) -> Value {
    let version = json!({"groupVersion": format!("{name}/v1"), "version": "v1"});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

fn resources(group: &str, group_version: &str) -> Option<Value> {
    let kinds = KINDS.iter().filter(|kind| kind.group == group && kind.api_version() == group_version);
    let resources: Vec<Value> = kinds.flat_map(resource).collect();
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    (!resources.is_empty()).then_some(list)
}

fn resource(kind: &Kind) -> Vec<Value> {
    let plural = kind.plural;
    let mut resources = vec![json!({
        "name": plural, "singularName": kind.name.to_lowercase(), "namespaced": !kind.has(Global), "kind": kind.name,
        "shortNames": kind.short, "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
    })];
    let subresource = |name: &str, kind_name: &str, verbs: &[&str]| {
        json!({
            "name": format!("{plural}/{name}"), "singularName": "", "namespaced": !kind.has(Global), "kind": kind_name,
            "verbs": verbs,
        })
    };
    if kind.has(Status) {
        resources.push(subresource("status", kind.name, &["get", "patch", "update"]));
    }
    if plural == "pods" {
        let mut eviction = subresource("eviction", "Eviction", &["create"]);
        eviction["group"] = json!("policy");
        eviction["version"] = json!("v1");
        resources.push(eviction);
    }
    resources
}
