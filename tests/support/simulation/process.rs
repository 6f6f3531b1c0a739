//! A process of the operator: its tasks, polled in an order that the seed decides, until it ends or crashes.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::Result;
use futures::future::BoxFuture;
use reboot_runtime::shutdown::Shutdown;
use tokio::time::{Sleep, sleep};

use super::world::World;

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
    world: Arc<World>,
    /// How often tasks are polled until it crashes: so a crash can come at any await of any task.
    polls_left: Option<usize>,
    /// Until when it does not get on, as after a SIGSTOP or on a machine that swaps.
    frozen: Option<Pin<Box<Sleep>>>,
}

impl Process {
    /// A process of these tasks.
    pub fn new(
        tasks: Vec<BoxFuture<'static, Result<()>>>,
        services: Vec<BoxFuture<'static, Result<()>>>,
        shutdown: Shutdown,
        world: &Arc<World>,
    ) -> Self {
        Self {
            tasks: tasks.into_iter().map(Some).collect(),
            services,
            shutdown,
            world: world.clone(),
            polls_left: world.polls_to_live(),
            frozen: None,
        }
    }

    fn crashes_now(&mut self) -> bool {
        let Some(left) = &mut self.polls_left else { return false };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Whether it does not get on at present.
    fn is_frozen(&mut self, context: &mut Context<'_>) -> bool {
        if self.frozen.is_none() && self.world.fault("process frozen", |faults| faults.frozen) {
            self.frozen = Some(Box::pin(sleep(self.world.random.seconds(180))));
        }
        let Some(sleep) = &mut self.frozen else { return false };
        let still = sleep.as_mut().poll(context).is_pending();
        if !still {
            self.frozen = None;
        }
        still
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
        if self.is_frozen(context) {
            return Poll::Pending;
        }
        let count = self.tasks.len() + self.services.len();
        let first = self.world.random.below(count);
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
