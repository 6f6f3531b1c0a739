//! The `PodDisruptionBudget`s of the namespaces where one has refused an eviction: watched while a drain goes on.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{FutureExt as _, select_all};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::runtime::watcher;
use kube::{Api, Client};
use reboot_core::drain::{BudgetView, Budgets};

use crate::watched::Watched;

/// One watch for each namespace.
pub struct WatchedBudgets {
    client: Client,
    watched: BTreeMap<String, Watched<PodDisruptionBudget, BudgetView>>,
}

impl WatchedBudgets {
    /// Watches nothing yet.
    pub fn new(client: Client) -> Self {
        Self { client, watched: BTreeMap::new() }
    }

    /// Watches exactly these namespaces from now on; what is watched already goes on.
    pub fn watch(&mut self, namespaces: BTreeSet<String>) {
        self.watched.retain(|namespace, _| namespaces.contains(namespace));
        for namespace in namespaces {
            self.watched.entry(namespace).or_insert_with_key(|namespace| {
                let api = Api::namespaced(self.client.clone(), namespace);
                Watched::new(api, watcher::Config::default(), |budget| BudgetView::from(budget))
            });
        }
    }

    /// The budgets of the namespaces that have been listed.
    pub fn view(&self) -> Budgets {
        let mut budgets = Budgets::default();
        for (namespace, watched) in &self.watched {
            if let Some(current) = watched.current() {
                budgets.insert(namespace.clone(), current.values().cloned().collect());
            }
        }
        budgets
    }

    /// Waits until [`WatchedBudgets::view`] has changed; for ever where nothing is watched. Safe to drop and call again.
    pub async fn changed(&mut self) {
        if self.watched.is_empty() {
            std::future::pending::<()>().await;
        }
        select_all(self.watched.values_mut().map(|watched| watched.changed().boxed())).await;
    }
}
