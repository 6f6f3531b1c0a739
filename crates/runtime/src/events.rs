//! Kubernetes Events, written in a task of their own: whoever has something to tell never waits for the API server.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use anyhow::Result;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::warn;

use crate::call::call;

/// How many Events may wait to be written; more are dropped, and counted.
const QUEUE: usize = 256;

/// The API server refuses a longer note (`NoteLengthLimit` of its validation), in bytes.
const NOTE_LIMIT: usize = 1024;

/// The API server refuses a longer reporting instance, in bytes; the name of a pod can be longer.
const INSTANCE_LIMIT: usize = 128;

/// Something to tell about an object.
#[derive(Clone, Debug)]
pub struct EventNote {
    /// What it is about. Events of objects without a namespace, such as Nodes, go to the namespace `default`.
    pub object: ObjectReference,
    /// Whether somebody should look.
    pub warning: bool,
    /// Why, as one CamelCase word.
    pub reason: String,
    /// What was done or tried, as one CamelCase word; the API server wants it.
    pub action: String,
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
    /// The hand-in and the task that writes. The task ends when the last clone of the hand-in is dropped and everything
    /// in the queue has been tried.
    ///
    /// Each Event is tried once: it repeats what annotations and logs say. Equal ones within six minutes become a series.
    pub fn new(
        client: Client,
        controller: &str,
        instance: &str,
    ) -> (Self, impl Future<Output = Result<()>> + Send + 'static) {
        let (queue, notes) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let instance = Some(cut(instance, INSTANCE_LIMIT).to_owned());
        let recorder = Recorder::new(client, Reporter { controller: controller.to_owned(), instance });
        (Self { queue, dropped: dropped.clone() }, write(recorder, notes, dropped))
    }

    /// Hands in an Event; never waits. With a full queue it is dropped, which is counted and logged.
    pub fn publish(&self, note: EventNote) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write(recorder: Recorder, mut notes: Receiver<EventNote>, dropped: Arc<AtomicU64>) -> Result<()> {
    while let Some(note) = notes.recv().await {
        let event = Event {
            type_: if note.warning { EventType::Warning } else { EventType::Normal },
            reason: note.reason,
            note: Some(shorten(note.note)),
            action: note.action,
            secondary: None,
        };
        if let Err(error) = call("writing an Event", recorder.publish(&event, &note.object)).await {
            warn!(reason = event.reason, "{error}");
        }
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            warn!(dropped, "Events were dropped: the API server takes them too slowly");
        }
    }
    Ok(())
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
    use std::sync::Mutex;

    use hyper::{Request, Response};
    use kube::client::Body;
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

    fn note(reason: &str) -> EventNote {
        EventNote {
            object: ObjectReference { name: Some("node-1".to_owned()), ..ObjectReference::default() },
            warning: true,
            reason: reason.to_owned(),
            action: "Wait".to_owned(),
            note: "because".to_owned(),
        }
    }

    /// A client whose API server notes the requests and refuses them all.
    fn refusing(seen: &Arc<Mutex<Vec<String>>>) -> Client {
        let seen = seen.clone();
        let service = move |request: Request<Body>| {
            let line = format!("{} {}", request.method(), request.uri().path());
            if let Ok(mut seen) = seen.lock() {
                seen.push(line);
            }
            async { Response::builder().status(403).body(Body::empty()) }
        };
        Client::new(service_fn(service), "default")
    }

    #[tokio::test]
    async fn what_is_queued_is_tried_and_what_is_too_much_is_counted() {
        let seen = Arc::default();
        let (events, task) = Events::new(refusing(&seen), "reboot-agent", &"i".repeat(200));
        for number in 0..=QUEUE {
            events.publish(note(&format!("Reason{number}")));
        }
        assert_eq!(events.dropped.load(Ordering::Relaxed), 1);
        drop(events);
        assert!(task.await.is_ok());
        let seen = seen.lock().map(|seen| seen.clone()).unwrap_or_default();
        assert_eq!(seen.len(), QUEUE);
        assert!(seen.iter().all(|line| line == "POST /apis/events.k8s.io/v1/namespaces/default/events"));
    }
}
