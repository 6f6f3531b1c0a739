//! A way to the API server that can be made bad: every request goes through it, and it answers some itself, loses the
//! answers to others, or cuts what is under way.
//!
//! It listens in plain HTTP and speaks TLS to the API server, and hands on whoever asks unchanged.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
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

use crate::call::within;

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
    /// It waits until something else is to become of it.
    Hold,
    /// It is answered as by an API server that has too much to do, which asks for a pause of so many seconds.
    Throttle(u8),
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

/// What becomes of the requests whose path ends in this.
#[derive(Clone, Copy, Debug)]
struct Rule {
    end: &'static str,
    fault: Fault,
}

/// A request that met a fault.
#[derive(Clone, Copy, Debug)]
struct Met {
    at: Instant,
    answered: bool,
}

/// The running proxy. Dropping it closes every connection.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    rule: watch::Sender<Rule>,
    met: watch::Sender<Vec<Met>>,
    cut: watch::Sender<Option<Cut>>,
    /// By the first word of the user agent: `reboot-agent`, `reboot-controller`, `kubectl`, …
    requests: Mutex<BTreeMap<String, usize>>,
}

type Answer = Response<UnsyncBoxBody<Bytes, anyhow::Error>>;

/// How long the API server may take to begin an answer: longer than the operator waits for one.
const FORWARD: Duration = Duration::from_mins(1);
/// The longest wait for a request: an idle machine needs seconds, a busy one may need much longer.
const LIMIT: Duration = Duration::from_mins(2);

impl Proxy {
    /// Starts one before the API server that this kubeconfig names, on loopback.
    pub async fn start(kubeconfig: &Path) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, kubeconfig).await
    }

    /// Starts one at this address of the machine.
    pub async fn start_at(address: Ipv4Addr, kubeconfig: &Path) -> Result<Self> {
        let mut file =
            Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
        // Whoever asks says who that is.
        file.auth_infos.iter_mut().for_each(|user| user.auth_info = None);
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.default_retry = false;
        let client = Client::try_from(config).context("building the client of the proxy")?;
        let listener = TcpListener::bind((address, 0)).await.context("listening for the proxy")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            rule: watch::Sender::new(Rule { end: "", fault: Fault::None }),
            met: watch::Sender::default(),
            cut: watch::Sender::new(None),
            requests: Mutex::default(),
        });
        let task = tokio::spawn(listen(listener, client, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// What it is to clients.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig beside this one for the same user through the proxy.
    pub fn kubeconfig(&self, of: &Path) -> Result<PathBuf> {
        let text = std::fs::read_to_string(of).with_context(|| format!("reading {}", of.display()))?;
        let mut file: Value = serde_json::from_str(&text).context("the testbed writes kubeconfig files as JSON")?;
        file["clusters"][0]["cluster"] = json!({"server": self.url()});
        let path = of.with_extension("proxy");
        std::fs::write(&path, file.to_string()).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// From now on this becomes of every request. What hangs stays hanging.
    pub fn set(&self, fault: Fault) {
        self.set_for("", fault);
    }

    /// From now on this becomes of every request whose path ends like that (`/eviction`); all others go on.
    pub fn set_for(&self, end: &'static str, fault: Fault) {
        self.shared.rule.send_replace(Rule { end, fault });
    }

    /// When each request came that met a fault, in their order.
    pub fn met(&self) -> Vec<Instant> {
        self.shared.met.borrow().iter().map(|met| met.at).collect()
    }

    /// Waits until so many requests have met a fault.
    pub async fn until_met(&self, requests: usize) -> Result<()> {
        self.until(&format!("{requests} requests"), |met| met.len() >= requests).await
    }

    /// Waits until so many of the requests that met a fault have been answered.
    pub async fn until_answered(&self, requests: usize) -> Result<()> {
        let answered = |met: &[Met]| met.iter().filter(|met| met.answered).count() >= requests;
        self.until(&format!("the answers to {requests} requests"), answered).await
    }

    async fn until(&self, what: &str, holds: impl Fn(&[Met]) -> bool) -> Result<()> {
        let mut met = self.shared.met.subscribe();
        let wait = met.wait_for(|met| holds(met));
        within(LIMIT, format!("waiting for {what} at the proxy"), wait).await.map(drop)
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
    let mut rules = shared.rule.subscribe();
    let rule = *rules.borrow_and_update();
    if rule.fault == Fault::None || !request.uri().path().ends_with(rule.end) {
        return forward(request, client, shared).await;
    }
    let number = shared.meet();
    let rule = *rules.wait_for(|rule| rule.fault != Fault::Hold).await?;
    let answer = match rule.fault {
        Fault::Status(code) => refuse(code, 1),
        Fault::Throttle(seconds) => refuse(429, seconds),
        Fault::Hang => std::future::pending().await,
        Fault::LostAnswer if request.method() != Method::GET => {
            drop(forward(request, client, shared).await?.into_body().collect().await);
            anyhow::bail!("lost on purpose")
        }
        Fault::None | Fault::LostAnswer | Fault::Hold => forward(request, client, shared).await,
    };
    shared.met.send_modify(|met| met[number].answered = true);
    answer
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

fn refuse(code: u16, pause: u8) -> Result<Answer> {
    // The API server's throttle is the one answer in plain text.
    let (kind, text) = match code {
        429 => ("text/plain", "Too many requests, please try again later.\n".to_owned()),
        _ => ("application/json", status(code).to_string()),
    };
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    Ok(Response::builder()
        .status(code)
        .header(CONTENT_TYPE, kind)
        .header("Retry-After", u16::from(pause))
        .body(body)?)
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
    /// Notes a request that meets a fault, and returns its number.
    fn meet(&self) -> usize {
        let mut number = 0;
        self.met.send_modify(|met| {
            number = met.len();
            met.push(Met { at: Instant::now(), answered: false });
        });
        number
    }

    fn count(&self, request: &Request<Incoming>) {
        let agent = request.headers().get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let program = agent.split('/').next().unwrap_or_default().to_owned();
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry(program).or_default() += 1;
    }
}
