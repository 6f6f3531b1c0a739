//! One side of the comparison: sends requests, and keeps a log of the answers in which nothing stands that has to
//! differ (times, UIDs, numbers of versions).

use std::time::Duration;

use futures::StreamExt as _;
use http_body_util::BodyExt as _;
use hyper::{Method, Request};
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::{sync::mpsc::UnboundedReceiver, task::JoinHandle};

pub(crate) const MERGE: &str = "application/merge-patch+json";
pub(crate) const STRATEGIC: &str = "application/strategic-merge-patch+json";
pub(crate) const JSON: &str = "application/json-patch+json";

const CALL: Duration = Duration::from_secs(15);

/// An API server under test and what it has answered.
pub(crate) struct Side {
    client: Client,
    /// The scenario's own namespace, and the beginning of the names of its Nodes.
    own: String,
    log: Vec<String>,
}

/// A watch under way.
pub(crate) struct Watch {
    events: UnboundedReceiver<Value>,
    task: JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Side {
    pub(crate) fn new(scenario: &str, client: Client) -> Self {
        let own = scenario.replace('_', "-");
        let own = own.get(..30).unwrap_or(&own).trim_end_matches('-').to_owned();
        Self { client, own, log: Vec::new() }
    }

    pub(crate) fn into_log(self) -> Vec<String> {
        self.log
    }

    /// The name of a Node of this scenario.
    pub(crate) fn node(&self, name: &str) -> String {
        format!("{}-{name}", self.own)
    }

    /// The path of a Node of this scenario.
    pub(crate) fn node_path(&self, name: &str) -> String {
        format!("/api/v1/nodes/{}", self.node(name))
    }

    /// The path of something in the scenario's namespace: `api/v1`, `pods/web`.
    pub(crate) fn path(&self, group: &str, rest: &str) -> String {
        format!("/{group}/namespaces/{}/{rest}", self.own)
    }

    /// Creates the scenario's namespace.
    pub(crate) async fn namespace(&mut self) {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.own}});
        self.post("/api/v1/namespaces", &object).await;
    }

    /// Creates a Node of this scenario.
    pub(crate) async fn create_node(&mut self, name: &str, spec: Value) -> Value {
        let metadata = json!({"name": self.node(name), "labels": {"of": self.own}});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec});
        self.post("/api/v1/nodes?fieldManager=creator", &node).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Value {
        self.send(Method::GET, path, "", &Value::Null).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Value {
        self.send(Method::POST, path, "application/json", body).await
    }

    pub(crate) async fn put(&mut self, path: &str, body: &Value) -> Value {
        self.send(Method::PUT, path, "application/json", body).await
    }

    pub(crate) async fn patch(&mut self, path: &str, content_type: &str, body: &Value) -> Value {
        self.send(Method::PATCH, path, content_type, body).await
    }

    pub(crate) async fn delete(&mut self, path: &str, body: &Value) -> Value {
        self.send(Method::DELETE, path, "application/json", body).await
    }

    /// Sends a request and logs what came of it.
    pub(crate) async fn send(&mut self, method: Method, path: &str, content_type: &str, body: &Value) -> Value {
        let (code, answer) = self.exchange(&method, path, content_type, "application/json", body).await;
        let mut line = format!("{method} {} -> {code}", blur(path));
        if answer["kind"] == "Status" {
            let details = without_identity(&answer["details"]);
            line = format!(
                "{line} {} {} {}",
                answer["reason"],
                blur(answer["message"].as_str().unwrap_or_default()),
                blur(&details.to_string())
            );
        }
        self.log.push(line);
        answer
    }

    /// Sends without a word in the log.
    pub(crate) async fn exchange(
        &self,
        method: &Method,
        path: &str,
        content_type: &str,
        accept: &str,
        body: &Value,
    ) -> (u16, Value) {
        let bytes = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = tokio::time::timeout(CALL, self.client.send(request(method, path, content_type, accept, bytes)));
        let answer = answer.await.expect("an answer in time").expect("an answer");
        let code = answer.status().as_u16();
        let body = tokio::time::timeout(CALL, answer.into_body().collect()).await.expect("a body in time").unwrap();
        let text = body.to_bytes();
        (code, serde_json::from_slice(&text).unwrap_or_else(|_| json!(String::from_utf8_lossy(&text))))
    }

    /// Reads something whose path is not the same on both sides.
    pub(crate) async fn quiet_get(&self, path: &str) -> (u16, Value) {
        self.exchange(&Method::GET, path, "", "application/json", &Value::Null).await
    }

    /// Patches something whose path is not the same on both sides.
    pub(crate) async fn quiet_patch(&self, path: &str, patch: &Value) -> (u16, Value) {
        self.exchange(&Method::PATCH, path, MERGE, "application/json", patch).await
    }

    /// The code and the reason of a patch whose message is the patching library's.
    pub(crate) async fn exchange_code(&self, path: &str, content_type: &str, patch: &Value) -> String {
        let (code, answer) = self.exchange(&Method::PATCH, path, content_type, "application/json", patch).await;
        format!("{code} {}", answer["reason"])
    }

    /// Logs parts of an answer.
    pub(crate) fn show(&mut self, answer: &Value, pointers: &[&str]) {
        for pointer in pointers {
            let part = answer.pointer(pointer).cloned().unwrap_or_default();
            self.log.push(format!("  {pointer} = {}", without_times(part)));
        }
    }

    /// Logs something about the answers that is true or not.
    pub(crate) fn note(&mut self, what: &str, value: impl std::fmt::Display) {
        self.log.push(format!("  {what}: {value}"));
    }

    /// Sends a request and logs whether it raised the resourceVersion of what it is about.
    pub(crate) async fn patch_compared(
        &mut self,
        path: &str,
        content_type: &str,
        body: &Value,
        before: &Value,
    ) -> Value {
        let after = self.patch(path, content_type, body).await;
        let same = version(&after) == version(before);
        self.note("the version stays", same);
        after
    }

    /// Waits until an object fulfils something, without a word in the log: for what controllers do in their own time.
    pub(crate) async fn until(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + CALL;
        loop {
            let (_, found) = self.exchange(&Method::GET, path, "", "application/json", &Value::Null).await;
            if holds(&found) {
                return found;
            }
            assert!(tokio::time::Instant::now() < deadline, "{path} is still {found}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Begins a watch; what is no stream is logged as the answer that it is.
    pub(crate) async fn watch(&mut self, path: &str, accept: &str) -> Option<Watch> {
        let answer = self.client.send(request(&Method::GET, path, "", accept, Vec::new())).await.expect("an answer");
        let code = answer.status().as_u16();
        self.log.push(format!("WATCH {} -> {code}", blur(path)));
        if code != 200 {
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            let status: Value = serde_json::from_slice(&body).unwrap();
            let details = without_identity(&status["details"]);
            self.log.push(format!(
                "  {} {} {}",
                status["reason"],
                blur(status["message"].as_str().unwrap()),
                blur(&details.to_string())
            ));
            return None;
        }
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let mut data = answer.into_body().into_data_stream();
        let task = tokio::spawn(async move {
            let mut buffer = Vec::new();
            while let Some(Ok(chunk)) = data.next().await {
                buffer.extend_from_slice(&chunk);
                while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = buffer.drain(..=end).collect();
                    let event = serde_json::from_slice(&line).expect("an event is JSON");
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            }
        });
        Some(Watch { events, task })
    }

    /// Logs so many events of a watch with parts of their objects; returns them.
    pub(crate) async fn events(&mut self, watch: &mut Watch, count: usize, pointers: &[&str]) -> Vec<Value> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let next = tokio::time::timeout(CALL, watch.events.recv()).await.expect("an event in time");
            let Some(event) = next else {
                self.log.push("  the watch ends".to_owned());
                break;
            };
            let object = &event["object"];
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let reason = object["reason"].as_str().unwrap_or_default();
            self.log.push(format!("  {} {name}{reason}", event["type"]));
            self.show(object, pointers);
            seen.push(event);
        }
        seen
    }
}

fn request(method: &Method, path: &str, content_type: &str, accept: &str, body: Vec<u8>) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("accept", accept);
    request = request.header("user-agent", "conformance/1.0");
    if !content_type.is_empty() {
        request = request.header("content-type", content_type);
    }
    request.body(Body::from(body)).unwrap()
}

/// The resourceVersion of an object.
pub(crate) fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned()
}

/// A text without numbers and UIDs.
fn blur(text: &str) -> String {
    let mut blurred = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let word: usize = rest.chars().take_while(|letter| letter.is_ascii_hexdigit() || *letter == '-').count();
        if word == 36 && rest[..36].matches('-').count() == 4 {
            blurred.push_str("<uid>");
            rest = &rest[36..];
        } else if first.is_ascii_digit() {
            let digits = rest.chars().take_while(char::is_ascii_digit).count();
            blurred.push('#');
            rest = &rest[digits..];
        } else {
            let letters = word.max(first.len_utf8());
            let cut = rest[..letters].find(|letter: char| letter.is_ascii_digit()).unwrap_or(letters);
            blurred.push_str(&rest[..cut]);
            rest = &rest[cut..];
        }
    }
    blurred
}

fn without_identity(details: &Value) -> Value {
    let mut details = details.clone();
    if let Some(fields) = details.as_object_mut() {
        fields.remove("uid");
    }
    details
}

/// The value with placeholders where times, UIDs and versions are.
fn without_times(mut value: Value) -> Value {
    const DIFFERENT: [&str; 7] = [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "time",
        "lastTransitionTime",
        "deletionTimestamp",
        "disruptedPods",
    ];
    match &mut value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                *field = if DIFFERENT.contains(&name.as_str()) { json!("…") } else { without_times(field.take()) };
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_times(item.take())),
        _ => {}
    }
    value
}
