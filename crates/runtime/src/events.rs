//! Kubernetes Events, written in a task of their own: whoever has something to tell never waits for the API server.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::warn;

use crate::call::call;

/// How many Events may wait to be written; more are dropped, and counted.
const QUEUE: usize = 256;

/// The API server refuses a longer note (`NoteLengthLimit` of its validation), in bytes.
const NOTE_LIMIT: usize = 1024;

/// The API server refuses a longer reporting instance, in bytes; the name of a pod can be longer.
const INSTANCE_LIMIT: usize = 128;

/// The API server refuses a longer name of an object, in bytes.
const NAME_LIMIT: usize = 253;

/// Where Events about objects without a namespace belong.
const DEFAULT_NAMESPACE: &str = "default";

/// Something to tell about an object.
#[derive(Clone, Debug)]
pub struct EventNote {
    /// What it is about. Events of objects without a namespace, such as Nodes, go to the namespace `default`.
    pub object: ObjectReference,
    /// Whether somebody should look.
    pub warning: bool,
    /// Why, as one CamelCase word.
    pub reason: &'static str,
    /// What was done or tried, as one CamelCase word; the API server wants it.
    pub action: &'static str,
    /// The sentence for people; cut at 1,024 bytes.
    pub note: String,
}

/// The reference to a Node by which `kubectl describe node` finds its Events.
pub fn node_reference(name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// Where Events are handed in. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Events {
    queue: Sender<EventNote>,
    dropped: Arc<AtomicU64>,
}

impl Events {
    /// The handle that publishes Events, and the task that writes them. The task ends when the last clone of the handle
    /// is dropped and everything in the queue has been tried.
    ///
    /// Each Event is tried once: it repeats what annotations and logs say. Every one is an object of its own and none is
    /// ever changed: what was said at one time stays as it was said, whatever is said later under the same reason.
    pub fn new(
        client: Client,
        controller: &str,
        instance: &str,
    ) -> (Self, impl Future<Output = Result<()>> + Send + 'static) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let instance = cut(instance, INSTANCE_LIMIT).to_owned();
        let writer = Writer { client, controller: controller.to_owned(), instance };
        (Self { queue, dropped: dropped.clone() }, writer.run(notes, dropped))
    }

    /// Hands in an Event; never waits. With a full queue it is dropped, which is counted and logged.
    pub fn publish(&self, note: EventNote) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Who reports, and to whom.
struct Writer {
    client: Client,
    controller: String,
    instance: String,
}

impl Writer {
    async fn run(self, mut notes: Receiver<EventNote>, dropped: Arc<AtomicU64>) -> Result<()> {
        while let Some(note) = notes.recv().await {
            let namespace = note.object.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            let event = self.event(note, Timestamp::now());
            if let Err(error) = call("writing an Event", api.create(&PostParams::default(), &event)).await {
                warn!(reason = event.reason, "{error}");
            }
            let dropped = dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                warn!(dropped, "Events were dropped: the API server takes them too slowly");
            }
        }
        Ok(())
    }

    fn event(&self, note: EventNote, now: Timestamp) -> Event {
        Event {
            metadata: ObjectMeta {
                name: Some(name(note.object.name.as_deref().unwrap_or(&self.controller), now)),
                namespace: note.object.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            regarding: Some(note.object),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            reason: Some(note.reason.to_owned()),
            action: Some(note.action.to_owned()),
            note: Some(shorten(note.note)),
            reporting_controller: Some(self.controller.clone()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        }
    }
}

/// A name of its own for every Event about an object, by the time in nanoseconds, as client-go does it.
fn name(object: &str, now: Timestamp) -> String {
    let time = format!("{:x}", now.as_nanosecond());
    let room = NAME_LIMIT.saturating_sub(time.len().saturating_add(1));
    format!("{}.{time}", cut(object, room).trim_end_matches(['.', '-']))
}

fn shorten(note: String) -> String {
    const MARK: &str = "...";
    if note.len() <= NOTE_LIMIT {
        return note;
    }
    format!("{}{MARK}", cut(&note, NOTE_LIMIT - MARK.len()))
}

/// The longest beginning of `text` with at most `limit` bytes that does not split a character.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{collections::BTreeSet, sync::Mutex};

    use http_body_util::BodyExt as _;
    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::Value;
    use tower::service_fn;

    use super::*;

    #[test]
    fn a_note_is_cut_between_characters() {
        for (note, length, cut) in [
            ("short".to_owned(), 5, false),
            ("a".repeat(1024), 1024, false),
            ("a".repeat(1025), 1024, true),
            ("é".repeat(600), 1023, true),
            ("🦀".repeat(300), 1023, true),
        ] {
            let short = shorten(note);
            assert_eq!((short.len(), short.ends_with("...")), (length, cut), "{short}");
        }
    }

    fn note(reason: &'static str, words: &str) -> EventNote {
        EventNote {
            object: node_reference("node-1", "uid-1"),
            warning: true,
            reason,
            action: "Wait",
            note: words.to_owned(),
        }
    }

    /// What an API server was sent: method and path, and the body.
    type Seen = Arc<Mutex<Vec<(String, Value)>>>;

    /// A client whose API server notes the requests, and answers them with this code.
    fn client(code: u16, seen: &Seen) -> Client {
        let seen = seen.clone();
        let service = move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let line = format!("{} {}", request.method(), request.uri().path());
                let body = request.into_body().collect().await?.to_bytes();
                seen.lock().unwrap().push((line, serde_json::from_slice(&body).unwrap()));
                Ok::<_, kube::Error>(Response::builder().status(code).body(Body::from(body.to_vec())).unwrap())
            }
        };
        Client::new(service_fn(service), "default")
    }

    /// What reaches an API server that answers with this code.
    async fn published(code: u16, instance: &str, notes: impl IntoIterator<Item = EventNote>) -> Vec<(String, Value)> {
        let seen = Seen::default();
        let (events, task) = Events::new(client(code, &seen), "reboot-agent", instance);
        notes.into_iter().for_each(|note| events.publish(note));
        drop(events);
        assert!(task.await.is_ok());
        let seen = seen.lock().unwrap().clone();
        assert!(
            seen.iter().all(|(line, _)| line == "POST /apis/events.k8s.io/v1/namespaces/default/events"),
            "{seen:?}"
        );
        seen
    }

    #[tokio::test]
    async fn what_is_queued_is_tried_and_what_is_too_much_is_counted() {
        let seen = Seen::default();
        let (events, task) = Events::new(client(403, &seen), "reboot-agent", "i");
        for number in 0..=QUEUE {
            events.publish(note("RebootWaiting", &format!("because of {number}")));
        }
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
        drop(events);
        assert!(task.await.is_ok());
        assert_eq!(seen.lock().unwrap().len(), QUEUE);
    }

    #[tokio::test]
    async fn what_is_said_under_one_reason_is_all_shown_in_its_own_words() {
        let words = ["QuotaUsed: node-2 drains", "Paused: not now", "QuotaUsed: node-2 drains"];
        let seen = published(201, "node-1", words.map(|words| note("RebootWaiting", words))).await;
        let shown: Vec<_> = seen.iter().map(|(_, event)| event["note"].as_str().unwrap()).collect();
        assert_eq!(shown, words);
        let names: BTreeSet<_> = seen.iter().map(|(_, event)| event["metadata"]["name"].as_str().unwrap()).collect();
        assert_eq!(names.len(), words.len());
    }

    #[tokio::test]
    async fn an_event_is_one_that_the_api_server_accepts() {
        let long = EventNote { object: node_reference(&"n".repeat(253), "uid-1"), ..note("RebootWaiting", "because") };
        let seen = published(201, &"i".repeat(200), [note("RebootWaiting", &"a".repeat(2000)), long]).await;
        let [(_, event), (_, long)] = &*seen else { panic!("{seen:?}") };
        let text = |event: &Value, path: &str| event.pointer(path).and_then(Value::as_str).unwrap().to_owned();
        assert!(text(event, "/metadata/name").starts_with("node-1."), "{event}");
        assert_eq!(text(long, "/metadata/name").len(), 253);
        assert_eq!(text(event, "/note").len(), 1024);
        assert_eq!(text(event, "/reportingInstance").len(), 128);
        for (path, expected) in [
            ("/type", "Warning"),
            ("/reason", "RebootWaiting"),
            ("/action", "Wait"),
            ("/reportingController", "reboot-agent"),
            ("/regarding/name", "node-1"),
            ("/regarding/uid", "uid-1"),
        ] {
            assert_eq!(text(event, path), expected);
        }
        assert!(text(event, "/eventTime").parse::<Timestamp>().is_ok(), "{event}");
    }

    #[test]
    fn a_name_that_is_cut_is_still_one() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let object = format!("{}.-{}", "n".repeat(234), "m".repeat(17));
        assert_eq!(name(&object, now), format!("{}.{:x}", "n".repeat(234), now.as_nanosecond()));
    }
}
