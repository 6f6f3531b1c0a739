//! Static users, their tokens and kubeconfig files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::json;

use crate::boot::random_uuid;

/// Who gets a token at the start, all in `system:masters`: one user per party, to tell them apart in the audit log.
const USERS: [&str; 6] =
    ["admin", "kubectl", "kubelet", "kwok", "system:kube-controller-manager", "system:kube-scheduler"];

#[derive(Debug)]
pub(super) struct Credentials {
    dir: PathBuf,
    port: u16,
    tokens: BTreeMap<String, String>,
}

/// The name by which the node authorizer knows a kubelet.
pub(super) fn node_user(node: &str) -> String {
    format!("system:node:{node}")
}

impl Credentials {
    /// Writes `tokens.csv` and a kubeconfig per user below `dir`; nodes get a token each, and write their own.
    pub(super) fn create<'a>(dir: &Path, port: u16, nodes: impl Iterator<Item = &'a String>) -> Result<Self> {
        let mut this = Self { dir: dir.to_owned(), port, tokens: BTreeMap::new() };
        let mut table = Vec::new();
        let masters = USERS.map(|user| (user.to_owned(), "system:masters"));
        for (user, group) in masters.into_iter().chain(nodes.map(|node| (node_user(node), "system:nodes"))) {
            let token = random_uuid()?;
            table.push(format!("{token},{user},{user},{group}\n"));
            this.tokens.insert(user, token);
        }
        for user in USERS {
            this.write_kubeconfig(user, &this.token(user)?)?;
        }
        std::fs::write(dir.join("tokens.csv"), table.concat()).context("writing the static tokens")?;
        Ok(this)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn token(&self, user: &str) -> Result<String> {
        self.tokens.get(user).cloned().with_context(|| format!("{user} is not a user of the control plane"))
    }

    /// The certificate that the API server writes at its first start; it vouches for itself.
    pub(super) fn ca(&self) -> PathBuf {
        self.dir.join("pki/apiserver.crt")
    }

    pub(super) fn kubeconfig_path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("kubeconfig/{}", name.replace([':', '/'], "-")))
    }

    /// JSON is YAML, so kubectl reads it as well.
    pub(super) fn write_kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let path = self.kubeconfig_path(name);
        let server = format!("https://127.0.0.1:{}", self.port);
        let cluster = json!({"server": server, "certificate-authority": self.ca(), "tls-server-name": "kubernetes"});
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "testbed",
            "clusters": [{"name": "testbed", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name}}],
        });
        std::fs::write(&path, format!("{text:#}\n")).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// A client of whoever the kubeconfig names. It reports every answer as it is: kube's own retries would hide a PDB's
/// refusal.
pub async fn client_from(kubeconfig: &Path) -> Result<Client> {
    let file = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("loading {}", kubeconfig.display()))?;
    config.default_retry = false;
    Client::try_from(config).context("building a client")
}
