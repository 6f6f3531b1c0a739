//! Claims that leave each other alone share a cluster: all are put to the test at the same time.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt as _, future::LocalBoxFuture};

/// A claim by its name: what is done, and what must come of it.
pub type Claim<'a, T> = (&'static str, LocalBoxFuture<'a, T>);

/// Puts every claim to the test, for at most `limit`, and returns what came of each.
///
/// # Panics
/// When a claim does not hold; all that do not are named.
pub async fn hold<T>(limit: Duration, claims: Vec<Claim<'_, T>>) -> Vec<T> {
    let held = claims.into_iter().map(|(name, claim)| {
        let claim = AssertUnwindSafe(tokio::time::timeout(limit, claim)).catch_unwind();
        claim.map(move |outcome| match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) => Err(format!("{name}: not done within {limit:?}")),
            Err(panic) => Err(format!("{name}: {}", words(&*panic))),
        })
    });
    let outcomes = futures::future::join_all(held).await;
    let broken: Vec<_> = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).cloned().collect();
    assert!(broken.is_empty(), "{} of {} claims do not hold:\n{}", broken.len(), outcomes.len(), broken.join("\n"));
    outcomes.into_iter().flatten().collect()
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied()).unwrap_or("panicked")
}
