//! The evictions under way.

use std::collections::VecDeque;
use std::pin::pin;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use reboot_core::step::{Evict, EvictReply};

use crate::pods::Pods;

/// What came of an eviction.
type Answered = (Evict, EvictReply);

/// The evictions that were posted and whose answers were not yet taken.
///
/// They have no task of their own: they are sent and answered while somebody waits here. So the loop awaits nothing but
/// in here while an eviction may be under way; else it would be sent when what it was decided on is no longer true.
#[derive(Default)]
pub(crate) struct Evictions {
    under_way: FuturesUnordered<BoxFuture<'static, Answered>>,
    answered: VecDeque<Answered>,
}

impl Evictions {
    /// Begins an eviction at once: it goes out before whatever the loop sends next.
    pub(crate) fn post(&mut self, pods: Pods, evict: Evict) {
        let mut call = async move {
            let reply = pods.evict(&evict).await;
            (evict, reply)
        }
        .boxed();
        match (&mut call).now_or_never() {
            Some(answered) => self.answered.push_back(answered),
            None => self.under_way.push(call),
        }
    }

    /// Awaits a call, and the evictions beside it.
    pub(crate) async fn beside<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        loop {
            tokio::select! {
                biased;
                Some(answered) = self.under_way.next() => self.answered.push_back(answered),
                done = &mut call => return done,
            }
        }
    }

    /// Awaits the next answer; `None` where no eviction is under way. Safe to drop and call again.
    pub(crate) async fn next(&mut self) -> Option<Answered> {
        match self.answered.pop_front() {
            Some(answered) => Some(answered),
            None => self.under_way.next().await,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};

    use futures::future::pending;
    use hyper::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use reboot_core::drain::PodRef;
    use reboot_core::step::{Means, Under};
    use serde_json::json;
    use tower::service_fn;

    use super::*;

    /// What an API server was sent, in that order.
    type Sent = Arc<Mutex<Vec<String>>>;

    /// The pods of a node; evictions of some of them are never answered.
    fn pods(sent: &Sent) -> Pods {
        let sent = sent.clone();
        let service = move |request: Request<Body>| {
            let sent = sent.clone();
            async move {
                let path = request.uri().path().to_owned();
                sent.lock().unwrap().push(format!("{} {path}", request.method()));
                if path.contains("silent") {
                    pending::<()>().await;
                }
                let list = json!({"metadata": {"resourceVersion": "7"}, "items": []});
                let status = json!({"kind": "Status", "status": "Success", "code": 201});
                let body = if path.ends_with("eviction") { status } else { list };
                Response::builder().body(Body::from(body.to_string().into_bytes()))
            }
        };
        Pods::new(Client::new(service_fn(service), "default"), "node-1")
    }

    fn evict(name: &str) -> Evict {
        let pod = PodRef { namespace: "default".to_owned(), name: name.to_owned(), uid: name.to_owned() };
        Evict { pod, means: Means::Eviction, grace: None, under: Under::Unknown }
    }

    #[tokio::test]
    async fn an_eviction_is_sent_before_what_the_loop_sends_next() {
        let sent = Sent::default();
        let (pods, mut evictions) = (pods(&sent), Evictions::default());
        evictions.post(pods.clone(), evict("silent"));
        assert!(evictions.beside(pods.list()).await.is_ok());
        let expected = ["POST /api/v1/namespaces/default/pods/silent/eviction", "GET /api/v1/pods"];
        assert_eq!(*sent.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn an_eviction_is_begun_when_it_is_posted() {
        let begun = Arc::new(AtomicUsize::new(0));
        let counted = begun.clone();
        let service = move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            pending::<Result<Response<Body>, hyper::Error>>()
        };
        let pods = Pods::new(Client::new(service_fn(service), "default"), "node-1");
        let mut evictions = Evictions::default();
        evictions.post(pods, evict("web-0"));
        tokio::task::yield_now().await;
        assert_eq!(begun.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn an_answer_that_comes_beside_something_else_is_kept() {
        let sent = Sent::default();
        let (pods, mut evictions) = (pods(&sent), Evictions::default());
        for name in ["web-0", "silent", "web-1"] {
            evictions.post(pods.clone(), evict(name));
        }
        for _ in 0..3 {
            assert!(evictions.beside(pods.list()).await.is_ok());
        }
        assert_eq!(evictions.next().now_or_never(), Some(Some((evict("web-0"), EvictReply::Accepted))));
        assert_eq!(evictions.next().now_or_never(), Some(Some((evict("web-1"), EvictReply::Accepted))));
        assert_eq!(evictions.next().now_or_never(), None);
    }
}
