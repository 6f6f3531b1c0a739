//! Who may change what of a Node, and make which pod go (S8): the admission policies, on a real API server.
//!
//! Every request is a dry run: it is admitted or refused like any other, and leaves everything as it was.

use std::time::Duration;

use hyper::{Method, Request};
use kube::{Client, Error};
use reboot_core::annotations::{
    ALL, EVICTION_LABEL, FENCE, IN_PROGRESS, LAST_REBOOT, NEEDED, PAUSED, REBOOT, REQUEST, STATUS, WAITING,
};
use reboot_tests::{
    call::within,
    control_plane::{ControlPlane, client_from},
};
use serde_json::{Value, json};

use super::{
    apply::{empty_cluster, kubectl},
    documents, objects,
};

/// Who asks, in the order of the answers in the tables.
const PARTIES: [&str; 5] =
    ["the agent of node-1", "the agent of node-2", "an agent's token without a node", "the controller", "a person"];
/// A policy is in force some moments after it was created.
const LIMIT: Duration = Duration::from_mins(1);
const CALL: Duration = Duration::from_secs(30);
const APPLY: &str = "application/apply-patch+yaml";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// A request by its name, and the answer to each party: `yes`, `no` from a policy, `other` from a policy in the words by
/// which an agent hears that a pod's name belongs to another one, `right` where the right is missing already. Nobody
/// asks where it says `-`.
type Row = (String, Call, &'static str);

/// One request.
#[derive(Clone)]
struct Call {
    method: Method,
    path: String,
    format: &'static str,
    body: Value,
}

#[tokio::test]
async fn the_api_server_holds_each_account_to_what_is_its_own() {
    let stage = Stage::set().await;
    let tables = [keys(), permissions(), rest_of_the_node(), evictions(&stage).await, deletions()];
    let mut wrong = Vec::new();
    for (what, call, answers) in tables.into_iter().flatten() {
        wrong.extend(stage.check(&what, &call, answers).await);
    }
    assert!(wrong.is_empty(), "{} answers are not as the tables have them:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_policy_refuses_by_itself_what_it_cannot_judge() {
    for pair in documents("manifests/admission.yaml").chunks(2) {
        let [policy, binding] = pair else { panic!("a policy without its binding") };
        let name = &policy["metadata"]["name"];
        assert_eq!((&binding["metadata"]["name"], &binding["spec"]["policyName"]), (name, name));
        assert_eq!(binding["spec"]["validationActions"], json!(["Deny"]), "{name}");
        assert_eq!(policy["spec"]["failurePolicy"], "Fail", "{name}");
        for validation in policy["spec"]["validations"].as_array().unwrap() {
            // Without it the answer would be a 422, as if the request were malformed.
            assert_eq!(validation["reason"], "Forbidden", "{name}");
        }
    }
}

/// Every annotation of the protocol set and removed on node-1, where it has another value.
fn keys() -> Vec<Row> {
    let agent = "yes no no no yes";
    let controller = "no no no yes yes";
    let table = [
        (NEEDED, agent, agent),
        (REQUEST, agent, "yes no no yes yes"),
        // The value is `now`, which only people write.
        (REBOOT, "no no no no yes", "yes no no yes yes"),
        (IN_PROGRESS, agent, agent),
        (WAITING, controller, controller),
        (STATUS, agent, agent),
        (PAUSED, "no no no no yes", "no no no no yes"),
        (LAST_REBOOT, agent, agent),
        (FENCE, controller, controller),
    ];
    assert_eq!(table.map(|(key, _, _)| key), ALL);
    let rows = table.into_iter().flat_map(|(key, set, removed)| {
        let [value, none] = [json!("now"), Value::Null].map(|value| annotate("node-1", key, &value));
        [(format!("set {key}"), value, set), (format!("remove {key}"), none, removed)]
    });
    rows.collect()
}

/// The controller grants, and only people force. On the Node `forced` stands a person's `now`, on `new` nothing.
fn permissions() -> Vec<Row> {
    let controller = "no no no yes yes";
    let [now, other, none] = [json!("now"), json!("x"), Value::Null];
    let grant = json!("0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90.81734");
    let rows = [
        ("a grant", annotate("node-1", REBOOT, &grant), controller),
        ("a grant in place of `now`", annotate("forced", REBOOT, &grant), controller),
        ("another annotation beside `now`", annotate("forced", WAITING, &other), controller),
        ("an end of `now`", annotate("forced", REBOOT, &none), controller),
        ("`now` where nothing stands", annotate("new", REBOOT, &now), "no no no no yes"),
    ];
    rows.map(|(what, call, answers)| (what.to_owned(), call, answers)).into()
}

/// Whatever else a Node has. node-1 is bare; node-2 is cordoned, and has one of everything.
fn rest_of_the_node() -> Vec<Row> {
    let nobody = "no no no no yes";
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": "u1"}]);
    let other_taint = json!([{"key": "other", "effect": "NoExecute"}]);
    let both = json!({"metadata": {"annotations": {(IN_PROGRESS): "{}"}}, "spec": {"unschedulable": true}});
    let status = json!({"status": {"phase": "Running"}});
    let applied =
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1", "labels": {"applied": ""}}});
    let node_3 = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-3"}});
    let metadata = |node: &str, field: &str, value: Value| patch(node, json!({"metadata": {field: value}}));
    let spec = |node: &str, field: &str, value: Value| patch(node, json!({"spec": {field: value}}));
    let rows = [
        ("nothing", patch("node-1", json!({})), "yes no no yes yes"),
        ("a cordon", spec("node-1", "unschedulable", json!(true)), "yes no no no yes"),
        ("an end of the cordon", spec("node-2", "unschedulable", Value::Null), "no yes no no yes"),
        ("a cordon with an annotation", patch("node-1", both), "yes no no no yes"),
        ("a key that is not of the protocol", annotate("node-1", "reboot-operator.io/x", &json!("x")), nobody),
        ("a foreign annotation", annotate("node-1", "x", &json!("x")), nobody),
        ("another value of a foreign annotation", annotate("node-2", "foreign", &json!("x")), nobody),
        ("no foreign annotation", annotate("node-2", "foreign", &Value::Null), nobody),
        ("no annotations", metadata("node-2", "annotations", Value::Null), nobody),
        ("a label", metadata("node-1", "labels", json!({"x": "x"})), nobody),
        ("a label by server-side apply", call(Method::PATCH, "/api/v1/nodes/node-1", APPLY, applied), nobody),
        ("another value of a label", metadata("node-2", "labels", json!({"pool": "x"})), nobody),
        ("no labels", metadata("node-2", "labels", Value::Null), nobody),
        ("a finalizer", metadata("node-1", "finalizers", json!(["x.example/x"])), nobody),
        ("no finalizers", metadata("node-2", "finalizers", Value::Null), nobody),
        ("an owner", metadata("node-1", "ownerReferences", owner), nobody),
        ("a taint", spec("node-1", "taints", other_taint.clone()), nobody),
        ("other taints", spec("node-2", "taints", other_taint), nobody),
        ("no taints", spec("node-2", "taints", Value::Null), nobody),
        ("a provider's ID", spec("node-1", "providerID", json!("x")), nobody),
        ("a status", call(Method::PATCH, "/api/v1/nodes/node-1/status", MERGE, status), "right right right right yes"),
        ("another Node", call(Method::POST, "/api/v1/nodes", JSON, node_3), "right right right right yes"),
        ("no Node", delete("/api/v1/nodes/node-1".to_owned()), "right right right right yes"),
    ];
    rows.map(|(what, call, answers)| (format!("{what} on a Node"), call, answers)).into()
}

/// Pods on both nodes, and one that is on none.
async fn evictions(stage: &Stage) -> Vec<Row> {
    let (key, value) = EVICTION_LABEL;
    let marked = json!({key: value});
    let uids = [stage.uid("pod-1").await, stage.uid("pod-2").await, stage.uid("pending").await];
    let [one, two, none] = uids.map(|uid| json!({"preconditions": {"uid": uid}}));
    let rows = [
        ("a pod of node-1", evict("pod-1", &marked, &one), "yes no no right yes"),
        ("a pod of node-2", evict("pod-2", &marked, &two), "no yes no right yes"),
        ("a pod of no node", evict("pending", &marked, &none), "no no no right yes"),
        ("a pod, not marked", evict("pod-1", &Value::Null, &one), "no no no right yes"),
        ("a pod, marked otherwise", evict("pod-1", &json!({key: "false"}), &one), "no no no right yes"),
        ("a pod without a UID", evict("pod-1", &marked, &Value::Null), "other other other right yes"),
        // A person would wait for ten seconds.
        ("a pod with the UID of another", evict("pod-1", &marked, &two), "other other other right -"),
        ("a pod of node-2 with the UID of another", evict("pod-2", &marked, &one), "other other other right -"),
    ];
    rows.map(|(what, call, answers)| (format!("eviction of {what}"), call, answers)).into()
}

/// The agents have the right that `cluster-role.yaml` has as a comment.
fn deletions() -> Vec<Row> {
    let rows = [
        ("/pod-1", "yes no no right yes"),
        ("/pod-2", "no yes no right yes"),
        ("/pending", "no no no right yes"),
        ("", "right right right right yes"),
    ];
    let path = |pod: &str| format!("/api/v1/namespaces/default/pods{pod}");
    rows.map(|(pod, answers)| (format!("deletion of pods{pod}"), delete(path(pod)), answers)).into()
}

fn call(method: Method, path: &str, format: &'static str, body: Value) -> Call {
    Call { method, path: path.to_owned(), format, body }
}

fn patch(node: &str, body: Value) -> Call {
    call(Method::PATCH, &format!("/api/v1/nodes/{node}"), MERGE, body)
}

fn annotate(node: &str, key: &str, value: &Value) -> Call {
    patch(node, json!({"metadata": {"annotations": {key: value}}}))
}

fn evict(pod: &str, labels: &Value, options: &Value) -> Call {
    let metadata = json!({"name": pod, "namespace": "default", "labels": labels});
    let body = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, "deleteOptions": options});
    call(Method::POST, &format!("/api/v1/namespaces/default/pods/{pod}/eviction"), JSON, body)
}

fn delete(path: String) -> Call {
    Call { method: Method::DELETE, path, format: JSON, body: Value::Null }
}

/// A cluster with the operator's manifests, two Nodes with pods, and two without.
struct Stage {
    cluster: ControlPlane,
    /// One for each party.
    clients: Vec<Client>,
}

impl Stage {
    async fn set() -> Self {
        let cluster = empty_cluster("admission").await;
        let mut this = Self { clients: vec![cluster.client()], cluster };
        let everything = ALL.into_iter().chain(["foreign"]).map(|key| (key.to_owned(), json!("old")));
        let annotations: Value = everything.collect::<serde_json::Map<_, _>>().into();
        let taints = json!([{"key": "old", "effect": "NoSchedule"}]);
        let bare = json!({"name": "node-1", "annotations": annotations});
        let full = json!({"name": "node-2", "annotations": annotations, "labels": {"pool": "old"},
                          "finalizers": ["old.example/old"]});
        this.create("nodes", json!({"metadata": bare})).await;
        this.create("nodes", json!({"metadata": full, "spec": {"unschedulable": true, "taints": taints}})).await;
        this.create("nodes", json!({"metadata": {"name": "forced", "annotations": {(REBOOT): "now"}}})).await;
        this.create("nodes", json!({"metadata": {"name": "new"}})).await;
        this.create("namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
        for (pod, node) in [("pod-1", json!("node-1")), ("pod-2", json!("node-2")), ("pending", Value::Null)] {
            this.create_pod("default", pod, "default", &node).await;
        }
        kubectl(&this.cluster, "apply -f manifests/");
        kubectl(&this.cluster, "create clusterrole deletes-pods --verb=delete --resource=pods");
        let account = "--serviceaccount=reboot-operator:reboot-agent";
        kubectl(&this.cluster, &format!("create clusterrolebinding deletes-pods --clusterrole=deletes-pods {account}"));
        for node in ["node-1", "node-2"] {
            this.create_pod("reboot-operator", &format!("agent-of-{node}"), "reboot-agent", &json!(node)).await;
        }
        let people = this.clients.remove(0);
        for (account, pod) in [
            ("reboot-agent", Some("agent-of-node-1")),
            ("reboot-agent", Some("agent-of-node-2")),
            ("reboot-agent", None),
            ("reboot-controller", None),
        ] {
            this.clients.push(this.client_of(account, pod).await);
        }
        this.clients.push(people);
        within(LIMIT, "waiting for the policies to be in force", this.in_force()).await.unwrap();
        this
    }

    /// Returns once the last of the policies refuses: the API server hears of them in the order of the file. Polled, for
    /// it does not say when it goes by them.
    async fn in_force(&self) -> Result<(), Error> {
        assert_eq!(objects("admission.yaml").last().unwrap()["metadata"]["name"], "reboot-agent-deletions");
        let probe = delete("/api/v1/namespaces/default/pods/pending".to_owned());
        while self.ask(0, &probe).await != "no" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Lets every party ask, and says which answers are not as expected.
    async fn check(&self, what: &str, call: &Call, answers: &str) -> Vec<String> {
        let answers: Vec<&str> = answers.split(' ').collect();
        assert_eq!(answers.len(), PARTIES.len(), "{what}");
        let mut wrong = Vec::new();
        for (index, expected) in answers.into_iter().enumerate().filter(|(_, expected)| *expected != "-") {
            let answer = self.ask(index, call).await;
            if answer != expected {
                wrong.push(format!("{}: {what}: {answer}, not {expected}", PARTIES[index]));
            }
        }
        wrong
    }

    async fn ask(&self, party: usize, call: &Call) -> String {
        match self.send(party, call, "?dryRun=All&fieldManager=test").await {
            Ok(_) => "yes".to_owned(),
            Err(Error::Api(status)) if status.code == 403 && status.message.contains("ValidatingAdmissionPolicy") => {
                let other = status.message.contains("the UID in the precondition");
                if other { "other" } else { "no" }.to_owned()
            }
            Err(Error::Api(status)) if status.code == 403 && status.message.contains(" cannot ") => "right".to_owned(),
            Err(other) => other.to_string(),
        }
    }

    async fn send(&self, party: usize, call: &Call, query: &str) -> Result<Value, Error> {
        let request = Request::builder().method(&call.method).uri(format!("{}{query}", call.path));
        // A deletion goes by its query only where it has no body.
        let body = if call.body.is_null() { Vec::new() } else { call.body.to_string().into_bytes() };
        let request = request.header("content-type", call.format).body(body).unwrap();
        tokio::time::timeout(CALL, self.clients[party].request(request)).await.expect("an answer in time")
    }

    async fn create(&self, path: &str, object: Value) {
        self.send(0, &call(Method::POST, &format!("/api/v1/{path}"), JSON, object), "").await.unwrap();
    }

    async fn create_pod(&self, namespace: &str, name: &str, account: &str, node: &Value) {
        let containers = json!([{"name": "main", "image": "test"}]);
        let spec = json!({"nodeName": node, "serviceAccountName": account, "containers": containers});
        self.create(&format!("namespaces/{namespace}/pods"), json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    async fn uid(&self, pod: &str) -> Value {
        let get = call(Method::GET, &format!("/api/v1/namespaces/default/pods/{pod}"), JSON, Value::Null);
        let people = PARTIES.len() - 1;
        self.send(people, &get, "").await.unwrap()["metadata"]["uid"].clone()
    }

    async fn client_of(&self, account: &str, pod: Option<&str>) -> Client {
        let token = self.cluster.token_for(account, "reboot-operator", pod).await.unwrap();
        let name = format!("{account}-{}", pod.unwrap_or("of-no-node"));
        client_from(&self.cluster.kubeconfig_for_token(&name, &token).unwrap()).await.unwrap()
    }
}
