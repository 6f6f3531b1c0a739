//! What can happen to requests and answers on their way.

use std::future::ready;

use futures::future::BoxFuture;

use super::request::Call;

/// Decides what becomes of every request, of every answer and of every event of a watch.
///
/// Each method may take its time: until it is done, what it decides about is under way. Requests wait independently of
/// each other and of who sent them: a caller who gives up does not take back what he sent. The default lets everything
/// through at once.
pub trait Weather: Send + Sync + 'static {
    /// A request is on its way to the API server.
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        let _ = call;
        Box::pin(ready(Fate::Arrives))
    }

    /// A request has been served with this code, and the answer is on its way back. For a watch: its head.
    fn answer<'a>(&'a self, call: &'a Call, code: u16) -> BoxFuture<'a, Delivery> {
        let _ = (call, code);
        Box::pin(ready(Delivery::Arrives))
    }

    /// An event of a watch is on its way; the events after it wait.
    fn event<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Passage> {
        let _ = call;
        Box::pin(ready(Passage::Arrives))
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It reaches the API server.
    Arrives,
    /// It reaches an API server whose cache ends at this resourceVersion: a read or a watch that a cache may answer
    /// (`resourceVersion=0`) is answered from there.
    ArrivesAtCache(u64),
    /// The connection breaks before the API server has seen it.
    Breaks,
    /// It is lost, and nobody ever answers.
    IsLost,
    /// The API server answers with this code (429, 500, 503, …) and does nothing.
    Fails(u16),
    /// A watch is answered with 410 Gone. Any other request arrives.
    Expires,
}

/// What becomes of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The caller gets it.
    Arrives,
    /// The connection breaks: what was written is written, and the caller does not know.
    Breaks,
    /// The caller waits for it for ever.
    IsLost,
    /// The caller gets this code instead, as from a gateway that has run out of patience.
    Fails(u16),
}

/// What becomes of an event of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// The caller gets it.
    Arrives,
    /// The connection breaks before it.
    Breaks,
    /// The watch ends before it, as the API server ends a watch after a while.
    Ends,
    /// Instead of it comes the event that says that the resourceVersion is too old (410), and the watch ends.
    Expires,
}

/// Every request is answered at once.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fair;

impl Weather for Fair {}
