//! The same API server on a loopback port, in plain HTTP: for kubectl and for programs.

use std::path::Path;

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper::{Request, body::Incoming, header::AUTHORIZATION, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use super::{BoxError, MemoryApi, serve};

/// The open port. Dropping it closes every connection.
#[derive(Debug)]
pub struct Listening {
    port: u16,
    task: JoinHandle<()>,
}

impl Listening {
    pub(super) async fn start(api: MemoryApi) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for the API server in memory")?;
        let port = listener.local_addr()?.port();
        Ok(Self { port, task: tokio::spawn(accept(listener, api)) })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Writes a kubeconfig for this user. Nobody checks who it is; the token is the name.
    pub fn write_kubeconfig(&self, path: &Path, user: &str) -> Result<()> {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "memory",
            "clusters": [{"name": "memory", "cluster": {"server": self.url()}}],
            "users": [{"name": user, "user": {"token": user}}],
            "contexts": [{"name": "memory", "context": {"cluster": "memory", "user": user}}],
        });
        std::fs::write(path, format!("{text:#}\n")).with_context(|| format!("writing {}", path.display()))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, api: MemoryApi) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => drop(connections.spawn(converse(stream, api.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn converse(stream: TcpStream, api: MemoryApi) {
    let answer = service_fn(|request| answer(request, api.clone()));
    // An error is a client that went away, or bad weather.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(request: Request<Incoming>, api: MemoryApi) -> Result<serve::Answer, BoxError> {
    let (head, body) = request.into_parts();
    let user = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let user = user.unwrap_or("anonymous").to_owned();
    let body = body.collect().await?.to_bytes();
    serve::serve(api.shared.clone(), &user, head, body).await
}
