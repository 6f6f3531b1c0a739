//! Watches that begin with as few requests as the API server allows.

use std::fmt::Debug;

use futures::stream::{self, BoxStream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// The events of a watch.
pub type WatchEvents<K> = BoxStream<'static, watcher::Result<Event<K>>>;

/// Begins to watch. A watch that breaks is begun anew, with backoff; the stream has no end.
///
/// The first list comes through the watch itself where the API server can do that
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>): one request instead of two. Before
/// Kubernetes 1.32 it cannot, as a rule, and is then asked for a list. What comes through the watch may be a little old.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> WatchEvents<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let streamed = begin(&api, config.clone().streaming_lists());
    let listed = Some((api, config));
    stream::unfold((streamed, listed), |(mut events, mut listed)| async move {
        loop {
            let event = events.next().await?;
            match listed.take() {
                Some((api, config)) if cannot_stream(&event) => events = begin(&api, config),
                kept => return Some((event, (events, kept))),
            }
        }
    })
    .boxed()
}

fn begin<K>(api: &Api<K>, config: watcher::Config) -> WatchEvents<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    watcher(api.clone(), config).default_backoff().boxed()
}

fn cannot_stream<K>(event: &watcher::Result<Event<K>>) -> bool {
    matches!(event, Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if matches!(status.code, 400 | 422))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use futures::future::{BoxFuture, FutureExt as _, pending, ready};
    use hyper::{Request, Response};
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// A client of an API server that lists one object, and through a watch only where it `streams`.
    fn client(streams: bool) -> Client {
        let answer = move |request: Request<Body>| -> BoxFuture<'static, Result<Response<Body>, hyper::Error>> {
            let asks = |word: &str| request.uri().query().is_some_and(|query| query.contains(word));
            let metadata = json!({"name": "here", "resourceVersion": "7"});
            let (status, body) = if asks("sendInitialEvents") && streams {
                let end = json!({"k8s.io/initial-events-end": "true"});
                let end = json!({"apiVersion": "v1", "kind": "ConfigMap",
                                 "metadata": {"resourceVersion": "7", "annotations": end}});
                let first = json!({"type": "ADDED", "object": {"kind": "ConfigMap", "metadata": metadata}});
                (200, format!("{first}\n{}\n", json!({"type": "BOOKMARK", "object": end})))
            } else if asks("sendInitialEvents") {
                (422, json!({"kind": "Status", "status": "Failure", "reason": "Invalid", "code": 422}).to_string())
            } else if asks("watch") {
                return pending().boxed();
            } else {
                (200, json!({"metadata": {"resourceVersion": "7"}, "items": [{"metadata": metadata}]}).to_string())
            };
            let response = Response::builder().status(status).body(Body::from(body.into_bytes()));
            ready(Ok(response.unwrap())).boxed()
        };
        Client::new(service_fn(answer), "default")
    }

    async fn check(streams: bool) {
        let mut events = watch(Api::<ConfigMap>::default_namespaced(client(streams)), watcher::Config::default());
        assert!(matches!(events.next().await, Some(Ok(Event::Init))), "streams: {streams}");
        let listed = events.next().await;
        assert!(matches!(listed, Some(Ok(Event::InitApply(_)))), "streams: {streams}: {listed:?}");
        assert!(matches!(events.next().await, Some(Ok(Event::InitDone))), "streams: {streams}");
    }

    #[tokio::test]
    async fn objects_are_listed_through_the_watch_or_by_a_list_where_that_is_not_to_be_had() {
        check(true).await;
        check(false).await;
    }
}
