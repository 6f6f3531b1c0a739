//! Calls and waits with a limit.

use std::{
    fmt::{Debug, Display},
    future::Future,
    time::Duration,
};

use anyhow::{Context as _, Result};
use kube::{
    Api, Resource,
    runtime::wait::{Condition, await_condition},
};
use serde::de::DeserializeOwned;

/// Awaits a call that may fail, for at most `limit`; the error says `what` was being done.
pub async fn within<T, E>(limit: Duration, what: impl Display, call: impl Future<Output = Result<T, E>>) -> Result<T>
where
    Result<T, E>: anyhow::Context<T, E>,
{
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.with_context(|| what.to_string()),
        Err(_) => anyhow::bail!("{what}: not done after {limit:?}"),
    }
}

/// Watches an object until the condition holds for it, for at most `limit`; returns it (`None`: it does not exist, and
/// the condition is content with that). The error says `what` was waited for.
pub async fn until<K>(
    limit: Duration,
    what: impl Display,
    objects: Api<K>,
    name: &str,
    holds: impl Condition<K>,
) -> Result<Option<K>>
where
    K: Resource + Clone + Debug + Send + DeserializeOwned + 'static,
{
    // Boxed: the future of a watch is large.
    within(limit, what, Box::pin(await_condition(objects, name, holds))).await
}
