//! A service on a bus whose answers are a function of the call.
//!
//! The fakes answer by hand, not through zbus' object server: they also have to be silent, to vanish in the middle of
//! a call, to lack a method and to talk nonsense.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::{Connection, DynamicType, Message, MessageStream, message};

/// What a service does with a call.
#[derive(Debug)]
pub(super) enum Reply {
    /// It sends this.
    Message(zbus::Result<Message>),
    /// It does not answer, and stays.
    Silence,
    /// It leaves the bus without an answer.
    Vanish,
}

impl Reply {
    pub(super) fn value<B: Serialize + DynamicType>(call: &Message, body: &B) -> Self {
        Self::Message(Message::method_return(&call.header()).build(body))
    }

    pub(super) fn error(call: &Message, name: &str, words: &str) -> Self {
        Self::Message(Message::error(&call.header(), name).build(&words))
    }

    pub(super) fn unknown_method(call: &Message) -> Self {
        Self::error(call, "org.freedesktop.DBus.Error.UnknownMethod", "Unknown method")
    }
}

/// The behaviour of a service.
pub(super) trait Behaviour: Send + Sync + 'static {
    /// Its answer to a call.
    fn answer(&self, call: &Message) -> Reply;

    /// Comes when the answer has been sent, or the service has left the bus instead.
    fn answered(&self, _call: &Message) {}
}

/// A service that owns a name while it runs.
pub(super) struct Service {
    address: String,
    name: &'static str,
    behaviour: Arc<dyn Behaviour>,
    running: Mutex<Option<(Connection, JoinHandle<()>)>>,
}

impl Service {
    /// A service that is yet to be started.
    pub(super) fn new(address: String, name: &'static str, behaviour: Arc<dyn Behaviour>) -> Self {
        Self { address, name, behaviour, running: Mutex::default() }
    }

    /// Connects and takes the name, in place of an earlier connection.
    pub(super) async fn start(&self) -> Result<()> {
        self.stop().await;
        let connection = Builder::address(self.address.as_str()).build().await.context("connecting to the bus")?;
        // The stream comes before the name, so that no call is missed.
        let calls = MessageStream::from(&connection);
        let task = tokio::spawn(serve(calls, connection.clone(), self.behaviour.clone()));
        connection.request_name(self.name).await.with_context(|| format!("taking the name {}", self.name))?;
        *self.running.lock().await = Some((connection, task));
        Ok(())
    }

    /// Leaves the bus, and the name with it.
    pub(super) async fn stop(&self) {
        if let Some((connection, task)) = self.running.lock().await.take() {
            task.abort();
            // An error says that the bus has gone first.
            let _ = connection.close().await;
        }
    }

    /// Emits a signal if the service runs.
    pub(super) async fn emit<B>(&self, path: &str, interface: &str, signal: &str, body: &B) -> Result<()>
    where
        B: Serialize + DynamicType,
    {
        match &*self.running.lock().await {
            Some((connection, _)) => connection
                .emit_signal(None::<&str>, path, interface, signal, body)
                .await
                .with_context(|| format!("emitting {signal}")),
            None => Ok(()),
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some((_, task)) = self.running.get_mut() {
            task.abort();
        }
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("address", &self.address).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Answers calls until the connection closes.
async fn serve(mut calls: MessageStream, connection: Connection, behaviour: Arc<dyn Behaviour>) {
    while let Some(Ok(call)) = calls.next().await {
        if call.message_type() != message::Type::MethodCall {
            continue;
        }
        let sent = match behaviour.answer(&call) {
            Reply::Message(Ok(reply)) => connection.send(&reply).await,
            Reply::Message(Err(error)) => Err(error),
            Reply::Silence => Ok(()),
            Reply::Vanish => {
                let closed = connection.close().await;
                behaviour.answered(&call);
                return drop(closed);
            }
        };
        if sent.is_err() {
            // The caller will miss the answer, as it would with a real service that fails.
            return;
        }
        behaviour.answered(&call);
    }
}

/// The member of a call.
pub(super) fn member(call: &Message) -> String {
    call.header().member().map(ToString::to_string).unwrap_or_default()
}
