//! The tasks of a process: the first one that ends, ends all of them, so that no half of a process lives on.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, Error, Result, anyhow, bail};
use tokio::{
    select,
    task::{Id, JoinSet},
    time::timeout,
};
use tracing::{error, info};

use crate::shutdown::{Shutdown, Signals};

/// Named tasks that live and end together.
#[derive(Debug)]
pub struct Tasks {
    shutdown: Shutdown,
    grace: Duration,
    running: Group,
    services: Group,
}

#[derive(Debug, Default)]
struct Group {
    set: JoinSet<Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// No tasks yet; [`Tasks::run`] makes the request on `shutdown` when a signal comes or a task ends. From then on the
    /// tasks have `grace` to end: less than the pod's `terminationGracePeriodSeconds`, after which it is killed.
    pub fn new(shutdown: Shutdown, grace: Duration) -> Self {
        Self { shutdown, grace, running: Group::default(), services: Group::default() }
    }

    /// Starts a task that must run until the process is asked to end, and must then end by itself.
    pub fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.running.spawn(name, task);
    }

    /// Starts a task that serves the others until they have all ended, and is then dropped wherever it is: the
    /// listener of the probes, say.
    pub fn spawn_service(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        self.services.spawn(name, task);
    }

    /// Runs until a signal, a request, or the end of a task; then asks all to end, and gives them their grace.
    ///
    /// # Errors
    /// The error of the task that ended first; or that one ended unasked, or not in time, or that a second signal cut
    /// the ending short.
    pub async fn run(mut self, mut signals: Signals) -> Result<()> {
        let shutdown = self.shutdown.clone();
        let cause = select! {
            ended = self.next() => ended,
            signal = signals.next() => { info!(signal, "ending"); Ok(()) }
            () = shutdown.requested() => Ok(()),
        };
        if let Err(cause) = &cause {
            error!("ending because of an error: {cause:#}");
        }
        shutdown.request();
        let ended = select! {
            ended = timeout(self.grace, self.drain()) => ended.unwrap_or_else(|_| Err(self.stuck())),
            signal = signals.next() => bail!("ended at once by a second signal, {signal}"),
        };
        cause.and(ended)
    }

    /// Waits for the end of any task, and says why it is an error.
    async fn next(&mut self) -> Result<()> {
        let (name, outcome) = select! {
            Some(ended) = self.running.next() => ended,
            Some(ended) = self.services.next() => ended,
            else => bail!("the process has no tasks"),
        };
        outcome.with_context(|| format!("task {name} failed"))?;
        // The request and the end that it led to may be seen in either order.
        if self.shutdown.is_requested() { Ok(()) } else { bail!("task {name} ended") }
    }

    /// Waits for the ordinary tasks alone, and returns the first error.
    async fn drain(&mut self) -> Result<()> {
        let mut first = Ok(());
        while let Some((name, outcome)) = self.running.next().await {
            first = first.and(outcome.with_context(|| format!("task {name} failed")));
        }
        first
    }

    fn stuck(&self) -> Error {
        let names: Vec<_> = self.running.names.values().copied().collect();
        anyhow!("still running {:?} after the request to end: {}", self.grace, names.join(", "))
    }
}

impl Group {
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = Result<()>> + Send + 'static) {
        let id = self.set.spawn(task).id();
        self.names.insert(id, name);
    }

    /// The next task that ends, and how; none when the group is empty. A panic is an error. Safe to drop and call again.
    async fn next(&mut self) -> Option<(&'static str, Result<()>)> {
        let (id, outcome) = match self.set.join_next_with_id().await? {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(error.into())),
        };
        Some((self.names.remove(&id).unwrap_or("unnamed"), outcome))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::future::{pending, ready};

    use super::*;

    async fn check(build: impl FnOnce(&mut Tasks, &Shutdown), expected: Result<(), &str>) {
        let shutdown = Shutdown::new();
        let mut tasks = Tasks::new(shutdown.clone(), Duration::from_secs(10));
        build(&mut tasks, &shutdown);
        let outcome = tasks.run(Signals::listen().unwrap()).await;
        assert!(shutdown.is_requested());
        match (outcome, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(words)) => assert_eq!(format!("{found:#}"), words),
            (found, _) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    /// A task that ends when it is asked to.
    async fn polite(shutdown: Shutdown) -> Result<()> {
        shutdown.requested().await;
        Ok(())
    }

    #[tokio::test]
    async fn the_error_of_a_task_ends_the_others() {
        let build = |tasks: &mut Tasks, shutdown: &Shutdown| {
            tasks.spawn("polite", polite(shutdown.clone()));
            tasks.spawn("bus", ready(Err(anyhow!("no bus"))));
        };
        check(build, Err("task bus failed: no bus")).await;
    }

    #[tokio::test]
    async fn a_task_that_ends_unasked_is_an_error() {
        let build = |tasks: &mut Tasks, _: &Shutdown| tasks.spawn("watch", ready(Ok(())));
        check(build, Err("task watch ended")).await;
        let build = |tasks: &mut Tasks, shutdown: &Shutdown| {
            tasks.spawn("polite", polite(shutdown.clone()));
            tasks.spawn_service("probes", ready(Ok(())));
        };
        check(build, Err("task probes ended")).await;
    }

    #[tokio::test]
    async fn a_request_ends_all_and_drops_the_services() {
        let build = |tasks: &mut Tasks, shutdown: &Shutdown| {
            tasks.spawn("polite", polite(shutdown.clone()));
            tasks.spawn_service("probes", pending());
            shutdown.request();
        };
        check(build, Ok(())).await;
    }

    #[tokio::test]
    async fn an_error_while_ending_is_kept() {
        let build = |tasks: &mut Tasks, shutdown: &Shutdown| {
            let asked = shutdown.clone();
            tasks.spawn("lease", async move {
                asked.requested().await;
                bail!("not released")
            });
            shutdown.request();
        };
        check(build, Err("task lease failed: not released")).await;
    }

    #[tokio::test]
    async fn a_task_that_does_not_end_is_named_and_left() {
        let build = |tasks: &mut Tasks, shutdown: &Shutdown| {
            tasks.grace = Duration::from_millis(1);
            tasks.spawn("stubborn", pending());
            shutdown.request();
        };
        check(build, Err("still running 1ms after the request to end: stubborn")).await;
    }

    #[tokio::test]
    async fn no_tasks_are_an_error() {
        check(|_, _| {}, Err("the process has no tasks")).await;
    }
}
