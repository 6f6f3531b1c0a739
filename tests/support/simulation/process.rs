//! A process of the operator: its tasks, polled in an order that the seed decides, until it ends or crashes.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Result;
use futures::future::BoxFuture;
use reboot_runtime::shutdown::Shutdown;

use super::random::Random;

/// How the process ended.
#[derive(Debug)]
pub enum Ending {
    /// In the middle of whatever it did.
    Crashed,
    /// Because one of its tasks did, which ends all of them.
    Ended(Result<()>),
}

/// The tasks of one process. Dropping it is `kill -9`.
pub struct Process {
    tasks: Vec<Option<BoxFuture<'static, Result<()>>>>,
    /// Tasks that serve the others until those have ended.
    services: Vec<BoxFuture<'static, Result<()>>>,
    shutdown: Shutdown,
    random: Random,
    /// How often tasks are polled until it crashes: so a crash can come at any await of any task.
    polls_left: Option<usize>,
}

impl Process {
    /// A process of these tasks. It crashes after so many polls, if at all.
    pub fn new(
        tasks: Vec<BoxFuture<'static, Result<()>>>,
        services: Vec<BoxFuture<'static, Result<()>>>,
        shutdown: Shutdown,
        random: Random,
        polls_left: Option<usize>,
    ) -> Self {
        Self { tasks: tasks.into_iter().map(Some).collect(), services, shutdown, random, polls_left }
    }

    fn crashes_now(&mut self) -> bool {
        let Some(left) = &mut self.polls_left else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Polls the task in this place; `Some` when the process ends by it.
    fn poll_task(&mut self, place: usize, context: &mut Context<'_>) -> Option<Result<()>> {
        let Some(service) = place.checked_sub(self.tasks.len()) else {
            let Poll::Ready(outcome) = self.tasks[place].as_mut()?.as_mut().poll(context) else { return None };
            self.tasks[place] = None;
            let over = outcome.is_err() || !self.shutdown.is_requested();
            return (over || self.tasks.iter().all(Option::is_none)).then_some(outcome);
        };
        match self.services[service].as_mut().poll(context) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }
}

impl Future for Process {
    type Output = Ending;

    /// Whichever task was woken, all are polled: the order in which tokio wakes them is not the seed's.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ending> {
        let count = self.tasks.len() + self.services.len();
        let first = self.random.below(count);
        for place in (0..count).map(|place| (first + place) % count) {
            if self.crashes_now() {
                return Poll::Ready(Ending::Crashed);
            }
            if let Some(outcome) = self.poll_task(place, context) {
                return Poll::Ready(Ending::Ended(outcome));
            }
        }
        Poll::Pending
    }
}
