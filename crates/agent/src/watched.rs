//! A small set of objects, kept up to date by one watch.

use std::collections::BTreeMap;
use std::fmt::Debug;

use futures::stream::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource};
use reboot_runtime::watches::{WatchEvents, watch};
use serde::de::DeserializeOwned;
use tracing::warn;

/// The objects that a watch is for, as values of type `V` by UID.
pub(crate) struct Watched<K, V> {
    events: WatchEvents<K>,
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
    /// Begins to watch. Objects of which `view` makes nothing are dropped.
    pub(crate) fn new(api: Api<K>, config: watcher::Config, view: impl Fn(&K) -> Option<V> + Send + 'static) -> Self {
        Self { events: watch(api, config), view: Box::new(view), listing: BTreeMap::new(), current: None }
    }

    /// The objects; `None` until they have been listed once.
    pub(crate) fn values(&self) -> Option<Vec<V>>
    where
        V: Clone,
    {
        self.current.as_ref().map(|current| current.values().cloned().collect())
    }

    /// Waits until [`Watched::values`] has changed. Safe to drop and call again.
    pub(crate) async fn changed(&mut self) {
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

fn uid<K: Resource>(object: &K) -> String {
    object.meta().uid.clone().unwrap_or_default()
}
