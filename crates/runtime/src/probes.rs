//! One HTTP listener for `/livez`, `/readyz` and `/metrics`.
//!
//! Alive means that the process's main loop turns, never that the API server answers: restarting a process does not
//! mend an API server. Ready means that everything the process needs at its start has arrived.

use std::{collections::BTreeMap, convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Bytes,
    header::{CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{
    net::{TcpListener, TcpStream},
    select,
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tracing::{debug, warn};

use crate::shutdown::Shutdown;

/// How long the main loop may leave a question unanswered. It answers between any two actions of a long row; an action is a
/// few calls, each bounded by 10 s.
pub const TURN_LIMIT: Duration = Duration::from_mins(1);

/// How many connections are served at once; more wait in the listener's backlog.
const CONNECTIONS: usize = 64;

/// How long one connection may take, its single request included.
const CONNECTION_LIMIT: Duration = Duration::from_secs(10);

/// Whether the main loop turns, found out by asking it: nothing is done while nobody probes.
#[derive(Clone, Debug)]
pub struct Liveness {
    /// Since when a question is unanswered.
    asked: watch::Sender<Option<Instant>>,
}

impl Liveness {
    /// A loop that has not been asked yet.
    pub fn new() -> Self {
        Self { asked: watch::Sender::new(None) }
    }

    /// An arm for a loop's `select!` while it waits: answers whoever asks, without ending the wait. Safe to drop and call
    /// again.
    pub async fn answer(&self) -> Infallible {
        loop {
            self.turn().await;
        }
    }

    /// Completes when a probe has asked, and answers it. Safe to drop and call again.
    pub async fn turn(&self) {
        // The error means that the sender is gone, and `self` holds one.
        let _ = self.asked.subscribe().wait_for(Option::is_some).await;
        self.turned();
    }

    /// Answers a probe that has asked, without waiting for one.
    pub fn turned(&self) {
        self.asked.send_if_modified(|asked| asked.take().is_some());
    }

    /// Asks, and says how long the oldest question has been waiting.
    fn ask(&self, now: Instant) -> Duration {
        let mut waiting = Duration::ZERO;
        self.asked.send_if_modified(|asked| {
            waiting = now.duration_since(*asked.get_or_insert(now));
            waiting.is_zero()
        });
        waiting
    }
}

impl Default for Liveness {
    fn default() -> Self {
        Self::new()
    }
}

/// What the process still waits for before it counts as ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<watch::Sender<BTreeMap<&'static str, bool>>>,
}

impl Readiness {
    /// Adds a part, by a name for people, that is not ready yet.
    pub fn handle(&self, name: &'static str) -> ReadyHandle {
        let handle = ReadyHandle { name, readiness: self.clone() };
        handle.set(false);
        handle
    }

    fn missing(&self) -> Vec<&'static str> {
        self.parts.borrow().iter().filter(|(_, ready)| !**ready).map(|(name, _)| *name).collect()
    }
}

/// One part of [`Readiness`].
#[derive(Clone, Debug)]
pub struct ReadyHandle {
    name: &'static str,
    readiness: Readiness,
}

impl ReadyHandle {
    /// Says whether the part is ready.
    pub fn set(&self, ready: bool) {
        self.readiness.parts.send_if_modified(|parts| parts.insert(self.name, ready) != Some(ready));
    }
}

/// What the listener answers from.
#[derive(Debug, Default)]
pub struct Probes {
    /// Asked by `/livez`.
    pub liveness: Liveness,
    /// Asked by `/readyz`.
    pub readiness: Readiness,
    /// Written out by `/metrics`.
    pub registry: Registry,
}

/// The bound listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
}

impl Listener {
    /// Takes the address; port 0 takes any free one.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let socket = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
        Ok(Self { socket })
    }

    /// The address that was taken.
    pub fn address(&self) -> Result<SocketAddr> {
        self.socket.local_addr().context("reading the address of the listener")
    }

    /// Answers for ever; not ready from the request of `shutdown` on.
    pub async fn serve(self, probes: Probes, shutdown: Shutdown) -> Result<()> {
        let mut connections = FuturesUnordered::new();
        loop {
            select! {
                accepted = self.socket.accept(), if connections.len() < CONNECTIONS => match accepted {
                    Ok((stream, _)) => connections.push(connection(stream, &probes, &shutdown)),
                    Err(error) => accept_failed(&error).await,
                },
                Some(()) = connections.next(), if !connections.is_empty() => {}
            }
        }
    }
}

/// Out of file descriptors, say: the connection stays in the backlog, so that trying again at once would spin.
async fn accept_failed(error: &io::Error) {
    warn!("accepting a connection to the probes: {error}");
    sleep(Duration::from_secs(1)).await;
}

async fn connection(stream: TcpStream, probes: &Probes, shutdown: &Shutdown) {
    let service = service_fn(async |request: Request<_>| {
        Ok::<_, Infallible>(answer(request.method(), request.uri().path(), probes, shutdown))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(CONNECTION_LIMIT)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("serving a probe: {error}"),
        Err(_) => debug!("serving a probe took too long"),
    }
}

fn answer(method: &Method, path: &str, probes: &Probes, shutdown: &Shutdown) -> Response<Full<Bytes>> {
    if !matches!(path, "/livez" | "/readyz" | "/metrics") {
        return text(StatusCode::NOT_FOUND, "only /livez, /readyz and /metrics are here\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served\n");
    }
    match path {
        "/livez" => livez(&probes.liveness, Instant::now()),
        "/readyz" => readyz(&probes.readiness, shutdown),
        _ => metrics(&probes.registry),
    }
}

fn livez(liveness: &Liveness, now: Instant) -> Response<Full<Bytes>> {
    let waiting = liveness.ask(now);
    if waiting > TURN_LIMIT {
        return text(StatusCode::SERVICE_UNAVAILABLE, format!("the main loop has not turned for {waiting:.0?}\n"));
    }
    text(StatusCode::OK, "the main loop turns\n")
}

fn readyz(readiness: &Readiness, shutdown: &Shutdown) -> Response<Full<Bytes>> {
    if shutdown.is_requested() {
        return text(StatusCode::SERVICE_UNAVAILABLE, "ending\n");
    }
    let missing = readiness.missing();
    if missing.is_empty() {
        return text(StatusCode::OK, "ready\n");
    }
    text(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for: {}\n", missing.join(", ")))
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut written = String::new();
    if let Err(error) = encode(&mut written, registry) {
        return text(StatusCode::INTERNAL_SERVER_ERROR, format!("writing the metrics: {error}\n"));
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    reply(StatusCode::OK, kind, written)
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use futures::FutureExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tokio::task::spawn_blocking;

    use super::*;

    /// One request over a real socket; the whole answer as text.
    async fn ask(address: SocketAddr, request: &str) -> String {
        let request = format!("{request} HTTP/1.1\r\nhost: here\r\n\r\n");
        let blocking = move || {
            let mut stream = std::net::TcpStream::connect(address)?;
            stream.write_all(request.as_bytes())?;
            io::read_to_string(stream)
        };
        spawn_blocking(blocking).await.unwrap().unwrap()
    }

    async fn check(address: SocketAddr, request: &str, expected: &[&str]) {
        let answer = ask(address, request).await;
        for words in expected {
            assert!(answer.contains(words), "{request}: {answer}");
        }
    }

    /// Serves `probes` while `questions` runs.
    async fn serving(probes: Probes, shutdown: &Shutdown, questions: impl AsyncFnOnce(SocketAddr)) {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.address().unwrap();
        select! {
            served = listener.serve(probes, shutdown.clone()) => panic!("{served:?}"),
            () = questions(address) => {}
        }
    }

    #[tokio::test]
    async fn the_process_is_ready_when_every_part_is_and_not_while_ending() {
        let (readiness, shutdown) = (Readiness::default(), Shutdown::new());
        let (nodes, ledger) = (readiness.handle("nodes"), readiness.handle("ledger"));
        let probes = Probes { readiness, ..Probes::default() };
        serving(probes, &shutdown, async |address| {
            check(address, "GET /readyz", &["503", "waiting for: ledger, nodes\n"]).await;
            nodes.set(true);
            check(address, "GET /readyz", &["503", "waiting for: ledger\n"]).await;
            ledger.set(true);
            check(address, "GET /readyz", &["200 OK", "ready\n"]).await;
            nodes.set(false);
            check(address, "GET /readyz", &["503", "waiting for: nodes\n"]).await;
            nodes.set(true);
            shutdown.request();
            check(address, "GET /readyz", &["503", "ending\n"]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn metrics_are_openmetrics_and_other_paths_are_not_there() {
        let mut probes = Probes::default();
        let evicted = Counter::<u64>::default();
        evicted.inc_by(3);
        probes.registry.register("evicted", "Pods evicted", evicted);
        serving(probes, &Shutdown::new(), async |address| {
            let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
            check(address, "GET /metrics", &["200 OK", kind, "evicted_total 3\n", "# EOF\n"]).await;
            check(address, "GET /", &["404"]).await;
            check(address, "GET /metrics/", &["404"]).await;
            check(address, "POST /livez", &["405"]).await;
            check(address, "nonsense", &["400"]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn connections_that_say_nothing_do_not_lock_others_out_below_the_limit() {
        serving(Probes::default(), &Shutdown::new(), async |address| {
            let mut silent = Vec::new();
            for _ in 1..CONNECTIONS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            check(address, "GET /readyz", &["200 OK"]).await;
        })
        .await;
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_that_names_it() {
        let first = Listener::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = first.address().unwrap();
        let error = Listener::bind(address).await.unwrap_err();
        assert!(format!("{error:#}").contains(&address.to_string()), "{error:#}");
    }

    #[tokio::test]
    async fn a_loop_is_alive_until_it_leaves_a_question_unanswered_for_too_long() {
        let (liveness, start) = (Liveness::new(), Instant::now());
        let status_at = |after| livez(&liveness, start + after).status();
        let first = TURN_LIMIT * 10;
        assert!(liveness.turn().now_or_never().is_none(), "nobody has asked");
        assert_eq!(status_at(first), StatusCode::OK, "an idle loop is alive");
        liveness.turn().await;
        let second = first + TURN_LIMIT * 10;
        assert_eq!(status_at(second), StatusCode::OK);
        assert_eq!(status_at(second + TURN_LIMIT), StatusCode::OK);
        assert_eq!(status_at(second + TURN_LIMIT + Duration::from_millis(1)), StatusCode::SERVICE_UNAVAILABLE);
        liveness.turn().await;
        assert_eq!(status_at(second + TURN_LIMIT * 3), StatusCode::OK, "it turned again");
    }
}
