//! The API server and etcd, taken away and brought back.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};

use super::{ControlPlane, START_LIMIT, etcd_args, flag, spawn};
use crate::call::within;

/// The flags that name the key of the tokens of `ServiceAccounts`.
const TOKEN_KEYS: [&str; 2] = ["service-account-key-file", "service-account-signing-key-file"];

impl ControlPlane {
    /// Kills the API server (SIGKILL): connections break, nothing listens.
    pub fn kill_apiserver(&self) -> Result<()> {
        lock(&self.apiserver).kill().map(drop)
    }

    /// Starts the API server again on the same port, with the same data, and waits until it is ready.
    pub async fn restart_apiserver(&self) -> Result<()> {
        self.kill_apiserver()?;
        let process = spawn(&self.dir, "kube-apiserver", &lock(&self.apiserver_args))?;
        *lock(&self.apiserver) = process;
        within(START_LIMIT, "waiting for the API server", self.ready()).await
    }

    /// Stops the API server in its tracks (SIGSTOP): connections stay, nothing answers.
    pub fn pause_apiserver(&self) -> Result<()> {
        lock(&self.apiserver).pause()
    }

    /// Lets the API server go on after [`ControlPlane::pause_apiserver`].
    pub fn resume_apiserver(&self) -> Result<()> {
        lock(&self.apiserver).resume()
    }

    /// Kills etcd (SIGKILL): the API server lives on, and can neither read nor write.
    pub fn kill_etcd(&self) -> Result<()> {
        lock(&self.etcd).kill().map(drop)
    }

    /// Starts etcd again on the same port and its data, and waits until the API server has found it.
    pub async fn restart_etcd(&self) -> Result<()> {
        self.kill_etcd()?;
        let process = spawn(&self.dir, "etcd", &etcd_args(&self.dir, self.etcd_port))?;
        *lock(&self.etcd) = process;
        within(START_LIMIT, "waiting for the API server to find etcd", self.ready()).await
    }

    /// Starts the API server again with this key (PEM) for the tokens of `ServiceAccounts`: those that were issued
    /// before are worth nothing from now on.
    pub async fn invalidate_tokens(&self, key: &str) -> Result<()> {
        let file = self.dir.join("pki/tokens.key");
        std::fs::write(&file, key).context("writing the key of the tokens")?;
        let names_key = |arg: &String| TOKEN_KEYS.iter().any(|name| arg.starts_with(&format!("--{name}=")));
        {
            let mut args = lock(&self.apiserver_args);
            args.retain(|arg| !names_key(arg));
            args.extend(TOKEN_KEYS.map(|name| flag(name, file.display())));
        }
        self.restart_apiserver().await
    }
}

pub(super) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
