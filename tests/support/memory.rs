//! An API server in memory: what a real kube-apiserver answers, as far as the operator and kubectl ask.
//!
//! A simulation runs many processes over it in one thread of virtual time, and decides by [`Weather`] what happens to
//! every request, answer and event. Nothing in here is left to chance: no clock but the one that is handed in, names and
//! UIDs from a counter, and the same order every time. What it answers is compared with the real API server in
//! `tests/conformance`.
//!
//! Left out: authorization, admission, validation by schema, server-side apply, garbage collection, and all controllers
//! but the one that keeps the status of `PodDisruptionBudgets`.

mod budgets;
mod delete;
mod discovery;
mod events;
mod evict;
mod failure;
mod kinds;
mod life;
mod listen;
mod managed;
mod object;
mod patch;
mod read;
mod render;
mod request;
mod selector;
mod serve;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod watch;
mod weather;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use http_body_util::BodyExt as _;
use hyper::{Method, Uri, header::HeaderMap};
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio::sync::mpsc::UnboundedReceiver;

pub use failure::Failure;
pub use life::live;
pub use listen::Listening;
pub use request::Call;
pub use store::{Change, Key};
pub use weather::{Delivery, Fair, Fate, Passage, Weather};

use kinds::{Kind, Trait::Global};
use selector::Filter;
use store::Store;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The API server. Clones are the same one.
#[derive(Clone)]
pub struct MemoryApi {
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    weather: Arc<dyn Weather>,
}

/// The namespaces that are always there.
const NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

impl MemoryApi {
    /// An empty one, with the usual namespaces. `clock` tells the wall clock's time.
    pub fn new(clock: impl Fn() -> Timestamp + Send + Sync + 'static, weather: impl Weather) -> Self {
        let store = Mutex::new(Store::new(Arc::new(clock)));
        let this = Self { shared: Arc::new(Shared { store, weather: Arc::new(weather) }) };
        for name in NAMESPACES {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let created = this.create("kube-apiserver", &namespace);
            debug_assert!(created.is_ok(), "{created:?}");
        }
        this
    }

    /// A client of this user, in the weather.
    ///
    /// What has been sent is under way whether or not the caller still waits for an answer. Needs a tokio runtime.
    pub fn client(&self, user: &str) -> Client {
        let (shared, user) = (self.shared.clone(), user.to_owned());
        let service = tower::service_fn(move |request: hyper::Request<Body>| {
            let (shared, user) = (shared.clone(), user.clone());
            let (head, body) = request.into_parts();
            let served = tokio::spawn(async move {
                let body = body.collect().await?.to_bytes();
                serve::serve(shared, &user, head, body).await
            });
            async { served.await? }
        });
        Client::new(service, "default")
    }

    /// Listens on a loopback port of the system's choice.
    pub async fn listen(&self) -> Result<Listening> {
        Listening::start(self.clone()).await
    }

    /// Serves one request of this user at once, whatever the weather: what a person does, or another program. Patches
    /// are merge patches. `path` includes the query.
    ///
    /// # Errors
    /// What the API server refuses.
    pub fn request(&self, user: &str, method: Method, path: &str, body: &Value) -> Result<Arc<Value>, Failure> {
        let patch = "application/merge-patch+json";
        self.request_as(user, method, path, patch, body)
    }

    /// The same with another content type, for other patches.
    ///
    /// # Errors
    /// What the API server refuses.
    pub fn request_as(
        &self,
        user: &str,
        method: Method,
        path: &str,
        content_type: &str,
        body: &Value,
    ) -> Result<Arc<Value>, Failure> {
        let uri: Uri = path.parse().map_err(|_| Failure::no_such_path())?;
        let mut headers = HeaderMap::new();
        for (name, value) in [("content-type", content_type), ("user-agent", user)] {
            if let Ok(value) = value.parse() {
                headers.insert(name, value);
            }
        }
        let request = request::Request::read(user, &method, &uri, &headers).ok_or_else(Failure::no_such_path)??;
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        serve::execute_now(&self.shared, request, &body).map(|(_, answer)| answer)
    }

    /// Creates an object; its `apiVersion`, `kind` and `metadata` say where.
    ///
    /// # Errors
    /// What the API server refuses; a kind that it does not know is "not found".
    pub fn create(&self, user: &str, object: &Value) -> Result<Arc<Value>, Failure> {
        let kind = Kind::of(object).ok_or_else(Failure::no_such_path)?;
        let path = path(kind, object["metadata"]["namespace"].as_str().unwrap_or_default(), "");
        self.request(user, Method::POST, &path, object)
    }

    /// Changes an object by a merge patch; `resource` may have a subresource (`nodes/status`).
    ///
    /// # Errors
    /// What the API server refuses.
    pub fn patch(
        &self,
        user: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        patch: &Value,
    ) -> Result<Arc<Value>, Failure> {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let kind = Kind::stored(plural).ok_or_else(Failure::no_such_path)?;
        let path = [&path(kind, namespace, name), subresource].join("/");
        self.request(user, Method::PATCH, path.trim_end_matches('/'), patch)
    }

    /// Deletes an object; a pod after its grace period, or after `grace` seconds.
    ///
    /// # Errors
    /// What the API server refuses.
    pub fn delete(
        &self,
        user: &str,
        resource: &str,
        namespace: &str,
        name: &str,
        grace: Option<u32>,
    ) -> Result<Arc<Value>, Failure> {
        let kind = Kind::stored(resource).ok_or_else(Failure::no_such_path)?;
        let options = grace.map_or(Value::Null, |seconds| json!({"gracePeriodSeconds": seconds}));
        self.request(user, Method::DELETE, &path(kind, namespace, name), &options)
    }

    /// An object as it is now.
    pub fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let resource = Kind::stored(resource)?.plural;
        self.shared.lock().get(&Key { resource, namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// The objects of a resource as they are now, by namespace and name; of one namespace or (where it is empty) of all.
    pub fn list(&self, resource: &str, namespace: &str) -> Vec<Arc<Value>> {
        let Some(kind) = Kind::stored(resource) else { return Vec::new() };
        self.shared.lock().scan(kind.plural, namespace).map(|(_, object)| object.clone()).collect()
    }

    /// Everything there is now, as the changes that it last came with, and every change from now on.
    pub(crate) fn history(&self) -> (Vec<Change>, UnboundedReceiver<Arc<Change>>) {
        let mut store = self.shared.lock();
        (store.all(), store.subscribe(Filter::default()))
    }

    /// Puts a mark of this name into the history, which is no object; returns its revision.
    pub(crate) fn mark(&self, name: &str) -> u64 {
        let key = Key { resource: "marks", namespace: String::new(), name: name.to_owned() };
        let mut store = self.shared.lock();
        store.put(key.clone(), json!({"metadata": {"name": name}}));
        store.revision()
    }

    /// The newest resourceVersion.
    pub fn revision(&self) -> u64 {
        self.shared.lock().revision()
    }

    /// Every change from now on, in order.
    pub fn changes(&self) -> UnboundedReceiver<Arc<Change>> {
        self.shared.lock().subscribe(Filter::default())
    }

    /// Forgets all history: a watch or a list from an earlier resourceVersion gets 410 Gone.
    pub fn forget_history(&self) {
        self.shared.lock().forget();
    }

    /// Whether the status of `PodDisruptionBudgets` follows every change at once (as at the start), or only when
    /// [`MemoryApi::update_budgets`] is called: the disruption controller can be slow.
    pub fn keep_budgets(&self, at_once: bool) {
        self.shared.lock().keeps_budgets = at_once;
    }

    /// Brings the status of every `PodDisruptionBudget` up to date. Needed after time has passed, too: an evicted pod
    /// that is still there after 2 minutes counts again.
    pub fn update_budgets(&self) {
        budgets::keep_all(&mut self.shared.lock());
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn path(kind: &Kind, namespace: &str, name: &str) -> String {
    let group = if kind.group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{}", kind.api_version()) };
    let namespace = if kind.has(Global) { String::new() } else { format!("/namespaces/{namespace}") };
    let path = format!("{group}{namespace}/{}/{name}", kind.plural);
    path.trim_end_matches('/').to_owned()
}
