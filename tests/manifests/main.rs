//! What the manifests, the kustomization, the Dockerfiles and the Makefile promise, checked without a cluster.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use clap::{Arg, CommandFactory};
use serde_json::{Value, json};

mod admission;
mod apply;
mod documents;

/// The files of `manifests/` in the order in which `kubectl apply -f manifests/` takes them, and what each one holds.
const FILES: [(&str, &[&str]); 5] = [
    (
        "admission.yaml",
        &[
            "ValidatingAdmissionPolicy reboot-agent-nodes",
            "ValidatingAdmissionPolicyBinding reboot-agent-nodes",
            "ValidatingAdmissionPolicy reboot-controller-nodes",
            "ValidatingAdmissionPolicyBinding reboot-controller-nodes",
            "ValidatingAdmissionPolicy reboot-agent-marked-evictions",
            "ValidatingAdmissionPolicyBinding reboot-agent-marked-evictions",
            "ValidatingAdmissionPolicy reboot-agent-evictions",
            "ValidatingAdmissionPolicyBinding reboot-agent-evictions",
            "ValidatingAdmissionPolicy reboot-agent-deletions",
            "ValidatingAdmissionPolicyBinding reboot-agent-deletions",
        ],
    ),
    (
        "cluster-role.yaml",
        &[
            "ClusterRole reboot-controller",
            "ClusterRoleBinding reboot-controller",
            "ClusterRole reboot-agent",
            "ClusterRoleBinding reboot-agent",
        ],
    ),
    ("namespace.yaml", &["Namespace reboot-operator"]),
    (
        "reboot-agent.yaml",
        &[
            "ServiceAccount reboot-operator/reboot-agent",
            "Role default/reboot-agent",
            "RoleBinding default/reboot-agent",
            "DaemonSet reboot-operator/reboot-agent",
        ],
    ),
    (
        "reboot-controller.yaml",
        &[
            "ServiceAccount reboot-operator/reboot-controller",
            "Role reboot-operator/reboot-controller",
            "RoleBinding reboot-operator/reboot-controller",
            "Role default/reboot-controller",
            "RoleBinding default/reboot-controller",
            "Deployment reboot-operator/reboot-controller",
        ],
    ),
];
const COMPONENTS: [&str; 2] = ["agent", "controller"];
const IMAGE_REPO: &str = "ghcr.io/reboot-operator";
/// The volume with the account's token.
const ACCOUNT: &str = "serviceaccount";

#[test]
fn every_file_holds_its_objects_and_there_is_no_other_file() {
    let mut found: Vec<_> = fs::read_dir(path("manifests")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    found.sort();
    assert_eq!(found, FILES.map(|(file, _)| file));
    for (file, expected) in FILES {
        let names: Vec<String> = objects(file).iter().map(name).collect();
        assert_eq!(names, expected, "{file}");
    }
}

#[test]
fn an_object_comes_after_its_namespace_in_both_documented_orders() {
    let by_name = FILES.map(|(file, _)| file);
    let by_hand =
        ["namespace.yaml", "admission.yaml", "cluster-role.yaml", "reboot-controller.yaml", "reboot-agent.yaml"];
    for order in [by_name, by_hand] {
        let mut namespaces = BTreeSet::from(["default".to_owned()]);
        for object in order.into_iter().flat_map(objects) {
            if let Some(namespace) = object["metadata"]["namespace"].as_str() {
                assert!(namespaces.contains(namespace), "{} comes before its namespace: {order:?}", name(&object));
            }
            if object["kind"] == "Namespace" {
                namespaces.insert(object["metadata"]["name"].as_str().unwrap().to_owned());
            }
        }
    }
}

#[test]
fn the_kustomization_lists_every_manifest() {
    let kustomization = &documents("kustomization.yaml")[0];
    let listed: Vec<&str> = strings(&kustomization["resources"]).collect();
    assert_eq!(listed, FILES.map(|(file, _)| format!("manifests/{file}")));
}

#[test]
fn every_binding_names_a_role_and_an_account_that_exist() {
    let all: Vec<Value> = FILES.iter().flat_map(|(file, _)| objects(file)).collect();
    let names: BTreeSet<String> = all.iter().map(name).collect();
    for binding in all.iter().filter(|object| object["kind"].as_str().unwrap().ends_with("RoleBinding")) {
        let role = &binding["roleRef"];
        let wanted = qualified(&role["kind"], &binding["metadata"]["namespace"], &role["name"]);
        assert!(names.contains(&wanted), "{} names {wanted}", name(binding));
        for subject in binding["subjects"].as_array().unwrap() {
            let wanted = qualified(&subject["kind"], &subject["namespace"], &subject["name"]);
            assert!(names.contains(&wanted), "{} names {wanted}", name(binding));
        }
    }
}

#[test]
fn the_images_carry_the_version_of_the_workspace() {
    for component in COMPONENTS {
        let expected = format!("{IMAGE_REPO}/reboot-{component}:v{}", env!("CARGO_PKG_VERSION"));
        assert_eq!(container(&workload(component))["image"], expected);
    }
}

#[test]
fn rendering_changes_the_images_and_nothing_else() {
    let rendered = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rendered-manifests");
    let args = ["make", "manifests", "IMAGE_REPO=registry.example:5000/team", "VERSION=v9"];
    // An outer `make test VERSION=...` would pass its own variables on.
    let status = Command::new("timeout")
        .arg("60")
        .args(args)
        .arg(format!("RENDERED={}", rendered.display()))
        .current_dir(root())
        .env_remove("MAKEFLAGS")
        .env_remove("MAKEOVERRIDES")
        .status();
    assert!(status.unwrap().success());
    for (file, _) in FILES {
        let expected = read(&format!("manifests/{file}"))
            .replace(&format!("{IMAGE_REPO}/"), "registry.example:5000/team/")
            .replace(concat!(":v", env!("CARGO_PKG_VERSION")), ":v9");
        assert_eq!(fs::read_to_string(rendered.join(file)).unwrap(), expected, "{file}");
    }
    fs::remove_dir_all(rendered).unwrap();
}

#[test]
fn no_path_of_the_host_is_writable_and_only_the_agent_has_any() {
    let mut paths = Vec::new();
    for component in COMPONENTS {
        let pod = pod(&workload(component));
        for volume in list(&pod["volumes"]).filter(|volume| volume["name"] != ACCOUNT) {
            let path = volume["hostPath"]["path"].as_str().expect("a volume that is no hostPath");
            assert!(volume["hostPath"]["type"].is_string(), "{path}: without a type a runtime would create it");
            paths.push((component, path.to_owned()));
            for container in list(&pod["containers"]) {
                let mounts = list(&container["volumeMounts"]).filter(|mount| mount["name"] == volume["name"]);
                mounts.for_each(|mount| assert_eq!(mount["readOnly"], true, "{path}"));
            }
        }
    }
    assert_eq!(paths, [("agent", "/run/dbus".to_owned()), ("agent", "/etc/os-release".to_owned())]);
}

#[test]
fn the_tokens_live_for_an_hour() {
    // 3607 seconds, as in the usual volume, are the one number that the API server takes for a year.
    let token = json!({"path": "token", "expirationSeconds": 3600});
    let certificate = json!({"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]});
    let namespace = json!({"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}});
    let sources = json!([
        {"serviceAccountToken": token},
        {"configMap": certificate},
        {"downwardAPI": {"items": [namespace]}},
    ]);
    let projected = json!({"defaultMode": 0o444, "sources": sources});
    let path = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mount = json!({"name": ACCOUNT, "mountPath": path, "readOnly": true});
    for component in COMPONENTS {
        let workload = workload(component);
        let (pod, container) = (pod(&workload), container(&workload));
        assert_eq!(pod["automountServiceAccountToken"], false, "{component}");
        let volume = list(&pod["volumes"]).find(|volume| volume["name"] == ACCOUNT);
        assert_eq!(volume.map(|volume| &volume["projected"]), Some(&projected), "{component}");
        assert!(list(&container["volumeMounts"]).any(|found| *found == mount), "{component}");
    }
}

#[test]
fn the_containers_have_no_privileges_beyond_the_agents_user_id() {
    for component in COMPONENTS {
        let pod = pod(&workload(component));
        for shared in ["hostNetwork", "hostPID", "hostIPC"] {
            assert_eq!(pod[shared], Value::Null, "{component}: {shared}");
        }
        let context = &container(&workload(component))["securityContext"];
        let effective = |key: &str| if context[key].is_null() { &pod["securityContext"][key] } else { &context[key] };
        assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{component}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{component}");
        assert_eq!(context["readOnlyRootFilesystem"], true, "{component}");
        assert_ne!(context["privileged"], true, "{component}");
        assert_eq!(effective("seccompProfile")["type"], "RuntimeDefault", "{component}");
        let user = effective("runAsUser").as_u64();
        assert_eq!(user, Some(if component == "agent" { 0 } else { 65532 }));
        let dockerfile = read(&format!("Dockerfile.{component}"));
        assert!(dockerfile.contains(&format!("\nUSER {0}:{0}\n", user.unwrap())), "{component}: image and pod differ");
    }
}

#[test]
fn probes_and_scrapes_go_to_the_port_that_is_listened_on() {
    for component in COMPONENTS {
        let workload = workload(component);
        let container = container(&workload);
        let listen = strings(&container["args"]).find_map(|arg| arg.strip_prefix("--listen=0.0.0.0:")).unwrap();
        assert_eq!(container["ports"][0]["containerPort"].to_string(), listen, "{component}");
        let annotations = &workload["spec"]["template"]["metadata"]["annotations"];
        assert_eq!(annotations["prometheus.io/port"], listen, "{component}");
        for (probe, path) in [("livenessProbe", "/livez"), ("readinessProbe", "/readyz")] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["path"], &get["port"]), (&path.into(), &container["ports"][0]["name"]), "{component}");
        }
    }
}

#[test]
fn the_agents_settings_are_flags_that_it_has() {
    check_settings::<reboot_agent::args::Args>("agent");
}

#[test]
fn the_controllers_settings_are_flags_that_it_has() {
    check_settings::<reboot_controller::args::Args>("controller");
}

#[test]
fn the_images_are_built_with_the_compiler_of_the_workspace_and_differ_only_in_what_they_hold() {
    let toolchain = read("rust-toolchain.toml");
    let channel = toolchain.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let builds = COMPONENTS.map(|component| {
        let dockerfile = read(&format!("Dockerfile.{component}"));
        assert!(dockerfile.contains(&format!("BUILDER_IMAGE=docker.io/library/rust:{channel}-")), "{component}");
        let build = dockerfile.split("\nFROM scratch\n").next().unwrap();
        build.replace(&format!("reboot-{component}"), "reboot-X")
    });
    assert_eq!(builds[0], builds[1]);
}

/// Every argument and variable of the pod must be a flag of the program, with a value that the flag takes.
fn check_settings<A: CommandFactory>(component: &str) {
    let container = container(&workload(component));
    let command = A::command();
    let mut line = vec![format!("reboot-{component}")];
    line.extend(strings(&container["args"]).map(str::to_owned));
    for variable in list(&container["env"]) {
        let name = variable["name"].as_str().unwrap();
        let is_named = |arg: &&Arg| {
            let flag = arg.get_long().unwrap_or_default().replace('-', "_").to_uppercase();
            name == format!("REBOOT_{}_{flag}", component.to_uppercase())
                || arg.get_env().is_some_and(|env| env == name)
        };
        let arg = command.get_arguments().find(is_named).unwrap_or_else(|| panic!("no flag has the variable {name}"));
        let value = variable["value"].as_str().unwrap_or("a-field-of-the-pod");
        line.push(format!("--{}={value}", arg.get_long().unwrap()));
    }
    command.try_get_matches_from(line).unwrap();
}

/// The root of the project.
fn root() -> &'static str {
    concat!(env!("CARGO_MANIFEST_DIR"), "/..")
}

fn path(file: &str) -> PathBuf {
    Path::new(root()).join(file)
}

fn read(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn documents(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The objects of one of the files in `manifests/`.
fn objects(file: &str) -> Vec<Value> {
    documents(&format!("manifests/{file}"))
}

fn name(object: &Value) -> String {
    qualified(&object["kind"], &object["metadata"]["namespace"], &object["metadata"]["name"])
}

fn qualified(kind: &Value, namespace: &Value, name: &Value) -> String {
    let prefix = namespace.as_str().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    // Cluster-scoped roles are named from bindings that may have a namespace themselves.
    let prefix = if kind.as_str().unwrap().starts_with("Cluster") { String::new() } else { prefix };
    format!("{} {prefix}{}", kind.as_str().unwrap(), name.as_str().unwrap())
}

/// The `DaemonSet` or Deployment of a component.
fn workload(component: &str) -> Value {
    let objects = objects(&format!("reboot-{component}.yaml"));
    objects.into_iter().find(|object| !object["spec"]["template"].is_null()).unwrap()
}

fn pod(workload: &Value) -> Value {
    workload["spec"]["template"]["spec"].clone()
}

fn container(workload: &Value) -> Value {
    let containers = pod(workload)["containers"].as_array().unwrap().clone();
    assert_eq!(containers.len(), 1);
    containers.into_iter().next().unwrap()
}

/// The elements of a list that may be missing.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn strings(value: &Value) -> impl Iterator<Item = &str> {
    list(value).map(|element| element.as_str().unwrap())
}
