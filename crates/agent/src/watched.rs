//! A small set of objects, kept up to date by one watch.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::stream::{BoxStream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tracing::warn;

/// The objects that a watch is for, as values of type `V` by UID.
pub struct Watched<K, V> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    view: fn(&K) -> V,
    listing: BTreeMap<String, V>,
    current: Option<BTreeMap<String, V>>,
}

impl<K, V> Watched<K, V>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// Begins to watch. A watch that breaks is begun anew, with backoff.
    pub fn new(api: Api<K>, config: watcher::Config, view: fn(&K) -> V) -> Self {
        let events = watcher(api, config).default_backoff().boxed();
        Self { events, view, listing: BTreeMap::new(), current: None }
    }

    /// The objects; `None` until they have been listed once.
    pub fn current(&self) -> Option<&BTreeMap<String, V>> {
        self.current.as_ref()
    }

    /// Waits until [`Watched::current`] has changed. Safe to drop and call again.
    pub async fn changed(&mut self) {
        while let Some(event) = self.events.next().await {
            match event {
                Ok(event) => {
                    if self.apply(&event) {
                        return;
                    }
                }
                Err(error) => warn!(kind = %K::kind(&()), "watching: {error}"),
            }
        }
        // The watcher's stream has no end; were it to end, nothing would change any more.
        std::future::pending::<()>().await;
    }

    fn apply(&mut self, event: &Event<K>) -> bool {
        match event {
            Event::Init => {
                self.listing.clear();
                return false;
            }
            Event::InitApply(object) => {
                self.listing.insert(uid(object), (self.view)(object));
                return false;
            }
            Event::InitDone => self.current = Some(std::mem::take(&mut self.listing)),
            Event::Apply(object) => {
                self.current.get_or_insert_default().insert(uid(object), (self.view)(object));
            }
            Event::Delete(object) => {
                self.current.get_or_insert_default().remove(&uid(object));
            }
        }
        true
    }
}

fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}
