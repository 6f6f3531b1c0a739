//! The course of one request: through the weather, to the store, and back through the weather.

use std::{future::pending, sync::Arc};

use futures::StreamExt as _;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Response,
    body::{Bytes, Frame},
    header::{CONTENT_TYPE, RETRY_AFTER},
    http::request::Parts,
};
use serde_json::Value;

use super::{
    BoxError, Shared, budgets, delete, discovery, evict,
    failure::Failure,
    kinds::Trait::{Global, Status},
    read,
    render::Renderer,
    request::Request,
    store::Store,
    watch::{self, Watch},
    weather::{Delivery, Fate},
    write,
};

/// What goes back over the wire.
pub(super) type Answer = Response<UnsyncBoxBody<Bytes, BoxError>>;

/// What a request comes to, before it is sent.
enum Outcome {
    Body(u16, Arc<Value>),
    Watch(Box<Watch>),
}

/// Serves a request of this user; an error is a connection that breaks.
pub(super) async fn serve(shared: Arc<Shared>, user: &str, head: Parts, body: Bytes) -> Result<Answer, BoxError> {
    let request = match Request::read(user, &head.method, &head.uri, &head.headers) {
        Some(Ok(request)) => request,
        Some(Err(failure)) => return refusal(&failure),
        // Whoever asks what there is gets an answer in any weather.
        None => {
            return match head.uri.path() {
                "/livez" | "/readyz" | "/healthz" => text(200, "ok"),
                path => discovery::answer(path)
                    .map_or_else(|| text(404, "404 page not found\n"), |found| whole(200, &found)),
            };
        }
    };
    let call = request.call.clone();
    let cached = match shared.weather.request(&call).await {
        Fate::ArrivesAtCache(revision) => Some(revision),
        Fate::Breaks => return Err("the connection broke before the request was read".into()),
        Fate::IsLost => return pending().await,
        Fate::Fails(code) => return refusal(&Failure::made_up(code)),
        Fate::Expires if call.verb == "watch" => {
            let revision = shared.lock().revision();
            return refusal(&watch::too_old(revision, revision));
        }
        Fate::Arrives | Fate::Expires => None,
    };
    let outcome = execute(&shared, request, &body, cached);
    let code = match &outcome {
        Ok(Outcome::Body(code, _)) => *code,
        Ok(Outcome::Watch(_)) => 200,
        Err(failure) => failure.code,
    };
    match shared.weather.answer(&call, code).await {
        Delivery::Arrives => match outcome {
            Ok(Outcome::Body(code, body)) => whole(code, &body),
            Ok(Outcome::Watch(watch)) => streamed(*watch),
            Err(failure) => refusal(&failure),
        },
        Delivery::Breaks => Err("the connection broke before the answer was read".into()),
        Delivery::IsLost => pending().await,
        Delivery::Fails(code) => refusal(&Failure::made_up(code)),
    }
}

/// What the API server does, in any weather.
pub(super) fn execute_now(shared: &Arc<Shared>, request: Request, body: &[u8]) -> Result<(u16, Arc<Value>), Failure> {
    match execute(shared, request, body, None)? {
        Outcome::Body(code, body) => Ok((code, body)),
        Outcome::Watch(_) => Err(Failure::method_not_allowed()),
    }
}

fn execute(shared: &Arc<Shared>, request: Request, body: &[u8], cached: Option<u64>) -> Result<Outcome, Failure> {
    let mut guard = shared.lock();
    let store = &mut *guard;
    let renderer = Renderer::new(&request, store.clock());
    let before = store.revision();
    let cached = cached.map(|revision| store.remembered(revision));
    let reply = match (request.call.verb, request.subresource.as_str()) {
        ("watch", "") => return Ok(Outcome::Watch(Box::new(watch::begin(shared, store, request, cached)?))),
        ("list", "") => {
            let listing = read::list(store, &request, cached)?;
            return Ok(Outcome::Body(200, Arc::new(renderer.list(&listing))));
        }
        ("get", "status") if !request.kind.has(Status) => Err(Failure::no_such_path()),
        ("get", "" | "status") => read::get(store, &request, cached),
        (verb, subresource) => write(store, &request, verb, subresource, body),
    };
    if store.keeps_budgets {
        budgets::keep(store, before);
    }
    reply.map(|reply| Outcome::Body(reply.code, renderer.object(reply.object)))
}

fn write(
    store: &mut Store,
    request: &Request,
    verb: &str,
    subresource: &str,
    body: &[u8],
) -> Result<write::Reply, Failure> {
    if subresource == "status" && !request.kind.has(Status) {
        return Err(Failure::no_such_path());
    }
    match (verb, subresource) {
        ("create", "") if request.kind.has(Global) == request.call.namespace.is_empty() => {
            write::create(store, request, body)
        }
        ("create", "eviction") if request.kind.plural == "pods" => evict::evict(store, request, body),
        ("update", "" | "status") => write::replace(store, request, body),
        ("patch", "" | "status") => write::patch(store, request, body),
        ("delete", "") => delete::delete(store, request, body),
        (_, "" | "status" | "eviction") => Err(Failure::method_not_allowed()),
        _ => Err(Failure::no_such_path()),
    }
}

fn whole(code: u16, body: &Value) -> Result<Answer, BoxError> {
    let answer = Response::builder().status(code).header(CONTENT_TYPE, "application/json");
    Ok(answer.body(full(serde_json::to_vec(body)?))?)
}

fn text(code: u16, body: &'static str) -> Result<Answer, BoxError> {
    Ok(Response::builder().status(code).header(CONTENT_TYPE, "text/plain").body(full(body))?)
}

fn refusal(failure: &Failure) -> Result<Answer, BoxError> {
    let mut answer = Response::builder().status(failure.code).header(CONTENT_TYPE, "application/json");
    if let Some(seconds) = failure.retry_after() {
        answer = answer.header(RETRY_AFTER, seconds);
    }
    Ok(answer.body(full(serde_json::to_vec(&failure.status())?))?)
}

fn full(body: impl Into<Bytes>) -> UnsyncBoxBody<Bytes, BoxError> {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

fn streamed(watch: Watch) -> Result<Answer, BoxError> {
    let frames = watch.stream().map(|line| line.map(Frame::data));
    let body = StreamBody::new(frames).boxed_unsync();
    Ok(Response::builder().status(200).header(CONTENT_TYPE, "application/json").body(body)?)
}
