//! Watches: what is there, what changes, bookmarks, and an end.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::{Stream, stream};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep_until},
};

use super::{
    Shared,
    failure::Failure,
    read,
    render::{Renderer, with_version},
    request::Request,
    selector::Filter,
    store::{Change, Store},
    weather::Passage,
};

/// A watch without a limit of its own ends after this.
const LIMIT: Duration = Duration::from_mins(30);

/// How often a watch that wants bookmarks gets one.
const BOOKMARKS: Duration = Duration::from_mins(1);

/// The bookmark after the initial events carries this annotation.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// What a watch tells: a word, and the object that it is about.
pub(super) type Event = (&'static str, Arc<Value>);

/// The word of an event that is about no object of its own: up to here all has been sent.
pub(super) const BOOKMARK: &str = "BOOKMARK";

/// The word of the last event of a watch that fails.
pub(super) const ERROR: &str = "ERROR";

/// A watch under way.
pub(super) struct Watch {
    shared: Arc<Shared>,
    request: Request,
    filter: Filter,
    changes: UnboundedReceiver<Arc<Change>>,
    /// What is to be sent before the changes that come.
    ready: VecDeque<Event>,
    renderer: Renderer,
    end: Instant,
    next_bookmark: Option<Instant>,
}

/// Begins a watch; with the answer's head it is decided from where on.
pub(super) fn begin(
    shared: &Arc<Shared>,
    store: &mut Store,
    request: Request,
    cached: Option<u64>,
) -> Result<Watch, Failure> {
    check(&request)?;
    let filter = request.filter()?;
    let renderer = Renderer::new(&request, store.clock());
    let mut ready = VecDeque::new();
    let initial = request.parameter("sendInitialEvents");
    match request.version()? {
        Some(from) if from > 0 && initial != "true" => match store.since(from) {
            Some(changes) => ready.extend(changes.iter().filter_map(|change| event(&filter, change))),
            None => ready.push_back(error(&too_old(from, store.revision()))),
        },
        version => {
            let at = cached.filter(|_| version == Some(0)).unwrap_or(store.revision());
            if initial != "false" {
                let objects = read::snapshot(store, &request, at)?;
                ready.extend(objects.into_values().map(|object| ("ADDED", object)));
            }
            if initial == "true" {
                ready.push_back(bookmark(&request, at, true));
            }
            let later = store.since(at).unwrap_or_default();
            ready.extend(later.iter().filter_map(|change| event(&filter, change)));
        }
    }
    let now = Instant::now();
    let limit = request.parameter("timeoutSeconds").parse().ok().map_or(LIMIT, Duration::from_secs);
    let next_bookmark = request.is_set("allowWatchBookmarks").then(|| now + BOOKMARKS);
    let changes = store.subscribe(filter.clone());
    let shared = shared.clone();
    Ok(Watch { shared, request, filter, changes, ready, renderer, end: now + limit, next_bookmark })
}

fn check(request: &Request) -> Result<(), Failure> {
    let (initial, matching) = (request.parameter("sendInitialEvents"), request.parameter("resourceVersionMatch"));
    let forbidden = |why: &str| {
        let why = format!("Forbidden: {why}");
        Err(Failure::invalid_options("resourceVersionMatch", "FieldValueForbidden", &why))
    };
    if !initial.is_empty() && matching != "NotOlderThan" {
        return forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    if initial.is_empty() && !matching.is_empty() {
        return forbidden("resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    }
    Ok(())
}

impl Watch {
    /// The body of the answer.
    pub(super) fn stream(self) -> impl Stream<Item = Result<Bytes, super::BoxError>> + Send {
        stream::unfold(Some(self), |watch| async move {
            let mut watch = watch?;
            let event = watch.next().await?;
            let shared = watch.shared.clone();
            match shared.weather.event(&watch.request.call).await {
                Passage::Arrives => {
                    let line = watch.renderer.line(&event);
                    Some((line, Some(watch).filter(|_| event.0 != ERROR)))
                }
                Passage::Breaks => Some((Err("the connection broke".into()), None)),
                Passage::Ends => None,
                Passage::Expires => {
                    let revision = shared.lock().revision();
                    Some((watch.renderer.line(&error(&too_old(revision, revision))), None))
                }
            }
        })
    }

    /// The next event, or the end.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            // In this order always: nothing here is left to chance.
            tokio::select! {
                biased;
                change = self.changes.recv() => self.ready.extend(event(&self.filter, &*change?)),
                () = sleep_until(self.end) => return None,
                () = sleep_until(self.next_bookmark.unwrap_or(self.end)) => self.mark(),
            }
        }
    }

    /// A bookmark says that everything up to it has been sent: so it comes behind what has happened already.
    fn mark(&mut self) {
        self.next_bookmark = self.next_bookmark.map(|at| at + BOOKMARKS);
        let shared = self.shared.clone();
        let store = shared.lock();
        while let Ok(change) = self.changes.try_recv() {
            self.ready.extend(event(&self.filter, &change));
        }
        self.ready.push_back(bookmark(&self.request, store.revision(), false));
    }
}

/// What a change means to a watch with this filter.
fn event(filter: &Filter, change: &Change) -> Option<Event> {
    let is_seen = |object: &&Arc<Value>| filter.matches(&change.key, object);
    match (change.before.as_ref().filter(is_seen), change.after.as_ref().filter(is_seen)) {
        (None, None) => None,
        (None, Some(now)) => Some(("ADDED", now.clone())),
        (Some(_), Some(now)) => Some(("MODIFIED", now.clone())),
        // What left the filter is told as it last was in it, and as of now.
        (Some(was), None) => Some(("DELETED", Arc::new(with_version(was, change.revision)))),
    }
}

fn bookmark(request: &Request, revision: u64, ends_initial: bool) -> Event {
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if ends_initial {
        metadata["annotations"] = json!({INITIAL_END: "true"});
    }
    let object = json!({"kind": request.kind.name, "apiVersion": request.kind.api_version(), "metadata": metadata});
    (BOOKMARK, Arc::new(object))
}

pub(super) fn too_old(asked: u64, current: u64) -> Failure {
    Failure::expired(format!("too old resource version: {asked} ({current})"))
}

/// The event by which a watch fails.
pub(super) fn error(failure: &Failure) -> Event {
    (ERROR, Arc::new(failure.status()))
}
