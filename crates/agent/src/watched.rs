//! A small set of objects, kept up to date by one watch.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::stream::{BoxStream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, InitialListStrategy, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

/// The objects that a watch is for, as values of type `V` by UID.
pub struct Watched<K, V> {
    api: Api<K>,
    config: watcher::Config,
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    view: View<K, V>,
    listing: BTreeMap<String, V>,
    current: Option<BTreeMap<String, V>>,
}

/// What is made of an object; `None` drops it.
type View<K, V> = Box<dyn Fn(&K) -> Option<V> + Send>;

impl<K, V> Watched<K, V>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Begins to watch. A watch that breaks is begun anew, with backoff. Objects of which `view` makes nothing are dropped.
    ///
    /// The first list comes through the watch itself where the API server can do that
    /// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>): one request instead of two.
    pub fn new(api: Api<K>, config: watcher::Config, view: impl Fn(&K) -> Option<V> + Send + 'static) -> Self {
        let config = config.streaming_lists();
        let events = begin(&api, &config);
        Self { api, config, events, view: Box::new(view), listing: BTreeMap::new(), current: None }
    }

    /// The objects; `None` until they have been listed once.
    pub fn values(&self) -> Option<Vec<V>>
    where
        V: Clone,
    {
        self.current.as_ref().map(|current| current.values().cloned().collect())
    }

    /// Waits until [`Watched::values`] has changed. Safe to drop and call again.
    pub async fn changed(&mut self) {
        while let Some(event) = self.events.next().await {
            match event {
                Ok(event) => {
                    if self.apply(&event) {
                        return;
                    }
                }
                Err(watcher::Error::WatchStartFailed(error)) if self.cannot_stream(&error) => {
                    self.config.initial_list_strategy = InitialListStrategy::ListWatch;
                    self.events = begin(&self.api, &self.config);
                }
                Err(error) => warn!(kind = %K::kind(&()), "watching: {error}"),
            }
        }
        // The watcher's stream has no end; were it to end, nothing would change any more.
        std::future::pending::<()>().await;
    }

    /// Whether the API server refused because it cannot list through a watch (before Kubernetes 1.32, as a rule).
    fn cannot_stream(&self, error: &kube::Error) -> bool {
        let streams = self.config.initial_list_strategy == InitialListStrategy::StreamingList;
        streams && matches!(error, kube::Error::Api(status) if matches!(status.code, 400 | 422))
    }

    /// Takes in an event; whether the objects have changed by it.
    fn apply(&mut self, event: &Event<K>) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                false
            }
            Event::InitApply(object) => {
                self.listing.extend((self.view)(object).map(|value| (uid(object), value)));
                false
            }
            Event::InitDone => {
                self.current = Some(std::mem::take(&mut self.listing));
                true
            }
            Event::Apply(object) => match (self.view)(object) {
                Some(value) => {
                    self.current.get_or_insert_default().insert(uid(object), value);
                    true
                }
                None => self.current.get_or_insert_default().remove(&uid(object)).is_some(),
            },
            Event::Delete(object) => self.current.get_or_insert_default().remove(&uid(object)).is_some(),
        }
    }
}

fn begin<K>(api: &Api<K>, config: &watcher::Config) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    watcher(api.clone(), config.clone()).default_backoff().boxed()
}

fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}
