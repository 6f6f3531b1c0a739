//! A way to the API server that can be made bad: every request goes through it, and it answers some itself, loses the
//! answers to others, or cuts what is under way.
//!
//! It listens in plain HTTP and speaks TLS to the API server, and hands on whoever asks unchanged.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, stream};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use kube::{
    Client, Config,
    client::Body,
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    /// It goes on to the API server.
    #[default]
    None,
    /// It is answered with this code, and with what an API server says to it.
    Status(u16),
    /// It is never answered.
    Hang,
    /// It goes on, and then the connection breaks: whoever wrote something does not hear whether it was written.
    LostAnswer,
}

/// How the answers end that are under way, watches above all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Properly, as the API server ends a watch after a while.
    End,
    /// In the middle, with the connection.
    Break,
    /// With the event that says that the watch's resourceVersion is too old (410).
    Expire,
}

/// The running proxy. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    fault: watch::Sender<Fault>,
    cut: watch::Sender<Option<Cut>>,
    /// By the first word of the user agent: `reboot-agent`, `reboot-controller`, `kubectl`, …
    requests: Mutex<BTreeMap<String, usize>>,
}

type Answer = Response<UnsyncBoxBody<Bytes, anyhow::Error>>;

/// How long the API server may take to begin an answer: longer than the operator waits for one.
const FORWARD: Duration = Duration::from_mins(1);

impl Proxy {
    /// Starts one before the API server that this kubeconfig names.
    pub async fn start(kubeconfig: &Path) -> Result<Self> {
        let mut file =
            Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        // Whoever asks says who that is.
        file.auth_infos.iter_mut().for_each(|user| user.auth_info = None);
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let client = Client::try_from(config).context("building the client of the proxy")?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("listening for the proxy")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            fault: watch::Sender::new(Fault::None),
            cut: watch::Sender::new(None),
            requests: Mutex::default(),
        });
        let task = tokio::spawn(listen(listener, client, shared.clone()));
        Ok(Self { port, shared, task })
    }

    /// Writes a kubeconfig beside this one for the same user through the proxy.
    pub fn kubeconfig(&self, of: &Path) -> Result<PathBuf> {
        let text = std::fs::read_to_string(of).with_context(|| format!("reading {}", of.display()))?;
        let mut file: Value = serde_json::from_str(&text).context("the testbed writes kubeconfig files as JSON")?;
        file["clusters"][0]["cluster"] = json!({"server": format!("http://127.0.0.1:{}", self.port)});
        let path = of.with_extension("proxy");
        std::fs::write(&path, file.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// From now on this becomes of every request. What hangs stays hanging.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Ends every answer that is under way.
    pub fn cut(&self, how: Cut) {
        self.shared.cut.send_replace(Some(how));
    }

    /// How many requests this program has sent so far, answered or not.
    pub fn requests(&self, program: &str) -> usize {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.get(program).copied().unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, client: Client, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((stream, _)) = listener.accept() => drop(connections.spawn(serve(stream, client.clone(), shared.clone()))),
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, client: Client, shared: Arc<Shared>) {
    let answer = service_fn(|request| answer(request, client.clone(), &shared));
    // An error is what a fault looks like from here, or a client that went away.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(request: Request<Incoming>, client: Client, shared: &Shared) -> Result<Answer> {
    shared.count(&request);
    let fault = *shared.fault.borrow();
    match fault {
        Fault::Status(code) => refuse(code),
        Fault::Hang => std::future::pending().await,
        Fault::LostAnswer if request.method() != Method::GET => {
            drop(forward(request, client, shared).await?.into_body().collect().await);
            anyhow::bail!("lost on purpose")
        }
        Fault::None | Fault::LostAnswer => forward(request, client, shared).await,
    }
}

async fn forward(request: Request<Incoming>, client: Client, shared: &Shared) -> Result<Answer> {
    let cut = shared.cut.subscribe();
    let (mut head, body) = request.into_parts();
    // The client adds its own.
    head.headers.remove(HOST);
    head.headers.remove(CONTENT_LENGTH);
    let body = body.collect().await?.to_bytes();
    let answer = tokio::time::timeout(FORWARD, client.send(Request::from_parts(head, Body::from(body)))).await??;
    Ok(answer.map(|body| until_cut(body, cut)))
}

/// The body up to its end or the next [`Cut`].
fn until_cut(body: Body, mut cut: watch::Receiver<Option<Cut>>) -> UnsyncBoxBody<Bytes, anyhow::Error> {
    cut.mark_unchanged();
    let frames = stream::unfold(Some((body.into_data_stream(), cut)), |state| async move {
        let (mut data, mut cut) = state?;
        tokio::select! {
            part = data.next() => Some((part?.map(Frame::data).map_err(anyhow::Error::from), Some((data, cut)))),
            Ok(()) = cut.changed() => {
                let how = *cut.borrow();
                match how? {
                    Cut::End => None,
                    Cut::Break => Some((Err(anyhow::anyhow!("broken on purpose")), None)),
                    Cut::Expire => {
                        let event = json!({"type": "ERROR", "object": status(410)});
                        Some((Ok(Frame::data(format!("{event}\n").into())), None))
                    }
                }
            }
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn refuse(code: u16) -> Result<Answer> {
    // The API server's throttle is the one answer in plain text.
    let (kind, text) = match code {
        429 => ("text/plain", "Too many requests, please try again later.\n".to_owned()),
        _ => ("application/json", status(code).to_string()),
    };
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    Ok(Response::builder().status(code).header(CONTENT_TYPE, kind).header("Retry-After", "1").body(body)?)
}

fn status(code: u16) -> Value {
    let (reason, message) = match code {
        410 => ("Expired", "too old resource version: 1 (2)"),
        _ => ("InternalError", "Internal error occurred: on purpose"),
    };
    let kind = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"});
    let mut status = kind;
    status["reason"] = json!(reason);
    status["message"] = json!(message);
    status["code"] = json!(code);
    status
}

impl Shared {
    fn count(&self, request: &Request<Incoming>) {
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let program = agent.split('/').next().unwrap_or_default().to_owned();
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(program).or_default() += 1;
    }
}
