//! Calls with a limit.

use std::{fmt::Display, future::Future, time::Duration};

use anyhow::{Context as _, Result};

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
