//! The way to the node's message bus: where it is, and how long to wait for an answer.
//!
//! A connection that has broken never heals, so nothing here keeps one: whoever asks something connects anew (a few
//! milliseconds on a local socket), and so does whoever listens, after a pause.

use std::future::Future;
use std::io;
use std::time::Duration;

use zbus::connection::Builder;
use zbus::proxy::CacheProperties;
use zbus::{Connection, Proxy, fdo};

/// A message bus, by its address.
#[derive(Clone, Debug)]
pub struct Bus {
    address: Option<String>,
    limit: Duration,
}

impl Bus {
    /// The bus at a D-Bus address such as `unix:path=/run/dbus/system_bus_socket`, or the system bus.
    ///
    /// Nothing is connected yet; a malformed address shows as an error of the first call.
    pub fn new(address: Option<String>) -> Self {
        Self { address, limit: Duration::from_secs(10) }
    }

    /// The same bus, with another limit to the time that one call may take (10 s unless set).
    #[must_use]
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    pub(crate) async fn connect(&self) -> zbus::Result<Connection> {
        let builder = match &self.address {
            Some(address) => Builder::address(address.as_str()),
            None => Builder::system(),
        };
        self.within(builder.build()).await
    }

    /// Bounds `call`; the time limit looks like any other loss of the connection.
    pub(crate) async fn within<T>(&self, call: impl Future<Output = zbus::Result<T>>) -> zbus::Result<T> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {:?}", self.limit));
        tokio::time::timeout(self.limit, call).await.unwrap_or_else(|_| Err(late().into()))
    }
}

/// An object on the bus, without the library's cache of properties, whose updates nobody here would read.
pub(crate) async fn object(
    connection: &Connection,
    service: &'static str,
    path: &str,
    interface: &'static str,
) -> zbus::Result<Proxy<'static>> {
    zbus::proxy::Builder::new(connection)
        .destination(service)
        .path(path.to_owned())
        .interface(interface)
        .cache_properties(CacheProperties::No)
        .build()
        .await
}

/// Whether the bus says that nobody owns the name that was called.
pub(crate) fn nobody_there(error: &zbus::Error) -> bool {
    matches!(error, zbus::Error::FDO(error)
        if matches!(**error, fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_)))
}
