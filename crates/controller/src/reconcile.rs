//! The controller's loop: look, plan ([`reboot_core::plan`]), carry the plan out, and again.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use reboot_core::backoff;
use reboot_core::plan::{Action, ClusterView, Memory, Plan, plan};
use reboot_core::{Now, earlier};
use reboot_runtime::call::CallError;
use reboot_runtime::clock::{Clock, after};
use reboot_runtime::probes::Liveness;
use reboot_runtime::shutdown::Shutdown;
use tokio::sync::{oneshot, watch};
use tracing::{info, warn};

use crate::apply::{Applied, Executor};
use crate::elect::Leadership;
use crate::nodes::Nodes;

/// How many reasons are written before the loop looks again whether somebody can be granted.
const EXPLAIN_AT_ONCE: usize = 10;

/// What the loop works with.
pub(crate) struct Reconciler {
    /// Carries plans out.
    pub(crate) executor: Executor,
    /// The time.
    pub(crate) clock: Clock,
    /// The node that this controller runs on.
    pub(crate) home: Option<String>,
    /// Whether this process may write.
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Asked whether the loop turns.
    pub(crate) liveness: Liveness,
    /// Dropped with the loop, when no work is under way any more.
    pub(crate) _stopped: oneshot::Sender<()>,
}

#[derive(Default)]
struct State {
    memory: Memory,
    failures: u32,
    led: bool,
    /// Whether the delay after a failure is waited out, whatever changes meanwhile.
    patient: bool,
}

/// What carrying out a plan came to.
enum Outcome {
    /// Something changed: plan anew.
    Changed,
    /// Nothing is left to do at once; after how long to look again.
    Idle(Option<Duration>),
}

impl Reconciler {
    /// Runs until the process is asked to end.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let mut state = State::default();
        tokio::select! {
            biased;
            () = shutdown.requested() => return Ok(()),
            () = wait_listed(&self.executor.nodes, &self.liveness) => {}
        }
        while !shutdown.is_requested() {
            let delay = if self.leads(&mut state) { self.turn(&mut state, &shutdown).await } else { None };
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = self.wait_for_news(delay, state.patient) => {}
            }
        }
        Ok(())
    }

    /// Whether this process leads; a new leader believes nothing that it knew before.
    fn leads(&mut self, state: &mut State) -> bool {
        let leads = *self.leadership.borrow_and_update() == Leadership::Leader;
        self.executor.metrics.leader.set(i64::from(leads));
        if state.led && !leads {
            // What it counted while it led would stand still, and alarm for ever.
            self.executor.metrics.show(&Plan::default(), now(&self.clock));
        }
        if leads && !state.led {
            self.executor.forget();
            state.memory = Memory::default();
        }
        state.led = leads;
        leads
    }

    /// Plans and acts until there is nothing left to do at once; returns after how long to look again.
    async fn turn(&mut self, state: &mut State, shutdown: &Shutdown) -> Option<Duration> {
        while self.may_go_on(shutdown) {
            state.patient = false;
            match self.plan_and_apply(state, shutdown).await {
                // A slot that is free only in memory is no success yet: its write may be what fails each time.
                Ok(Outcome::Changed) if self.executor.slots.unwritten().is_some() => {}
                Ok(Outcome::Changed) => state.failures = 0,
                Ok(Outcome::Idle(wake)) => {
                    state.failures = 0;
                    return wake;
                }
                Err(error) => {
                    self.executor.slots.forget();
                    state.failures = state.failures.saturating_add(1);
                    let repeated = state.failures > 1;
                    let asked_for = error.retry_after();
                    if let CallError::Conflict(answer) = error {
                        // Somebody else got on, such as kubelet with a heartbeat. Deciding again needs no pause, once.
                        info!("{answer}: deciding again");
                        if !repeated {
                            continue;
                        }
                    } else {
                        warn!("{error}");
                        // The change that is seen next may be our own: a write whose answer was lost, or one that was
                        // made before the one that failed. Whoever hurries because of it fails again, without end.
                        state.patient = repeated || asked_for.is_some();
                    }
                    return Some(backoff::after_answer(state.failures, asked_for));
                }
            }
            tokio::task::yield_now().await;
        }
        None
    }

    /// Whether more may be written. Answers probes as well: a long row of actions is no standstill.
    fn may_go_on(&self, shutdown: &Shutdown) -> bool {
        let _ = self.liveness.turn().now_or_never();
        !shutdown.is_requested() && *self.leadership.borrow() == Leadership::Leader
    }

    /// Plans, and carries the plan out on the views on which it was made: what has changed since wins, by its
    /// resourceVersion. Only what a node waits for is said on newer views where there are some, because an action before
    /// that was refused, such as a rebuild, may itself have changed the Nodes.
    async fn plan_and_apply(&mut self, state: &mut State, shutdown: &Shutdown) -> Result<Outcome, CallError> {
        let ledger = self.executor.slots.state().await?;
        let (views, mut newer) = (self.executor.nodes.views(), None);
        let view = ClusterView { nodes: &views, ledger, home: self.home.as_deref() };
        let planned_at = now(&self.clock);
        state.memory.observe(&view, planned_at);
        let plan = plan(&view, &self.executor.policy, &state.memory, planned_at);
        self.executor.metrics.show(&plan, planned_at);
        let (mut changed, mut wake, mut explained, mut refused) = (false, plan.wake, 0, None);
        for action in &plan.actions {
            if matches!(action, Action::Explain(..)) {
                // Whatever was to be granted is granted: a slot that was freed goes to nobody now.
                self.executor.write_back().await?;
                explained += 1;
            }
            if explained > EXPLAIN_AT_ONCE || !self.may_go_on(shutdown) {
                break;
            }
            let views = newer.as_ref().filter(|_| matches!(action, Action::Explain(..))).unwrap_or(&views);
            match self.executor.apply(action, views, &mut state.memory, now(&self.clock)).await {
                // A ledger that is whole again, or has room again, makes another plan.
                Ok(Applied::Changed) if matches!(action, Action::Rebuild | Action::Settle(_)) => {
                    return Ok(Outcome::Changed);
                }
                Ok(Applied::Changed) => changed = true,
                Ok(Applied::Nothing) => {}
                Ok(Applied::Overtaken) => wake = earlier(wake, Some(backoff::SOON)),
                Err(error) if error.is_unknown() => return Err(error),
                // The API server's own no concerns this action; the others must not starve for it.
                Err(error) => {
                    newer = Some(self.executor.nodes.views());
                    refused.get_or_insert(error);
                }
            }
        }
        self.executor.write_back().await?;
        match refused {
            Some(error) => Err(error),
            None if changed => Ok(Outcome::Changed),
            None => Ok(Outcome::Idle(wake)),
        }
    }

    /// Waits until there is something new to plan for.
    async fn wait_for_news(&mut self, delay: Option<Duration>, patient: bool) {
        let leadership = async {
            if self.leadership.changed().await.is_err() {
                // The election has ended, which ends the process.
                std::future::pending::<()>().await;
            }
        };
        // In this order, here and elsewhere: without chance in it, a run can be repeated.
        tokio::select! {
            biased;
            never = self.liveness.answer() => match never {},
            () = self.executor.nodes.changed(), if !patient => {}
            () = self.executor.slots.changed(), if !patient => {}
            () = leadership => {}
            () = after(delay) => {}
        }
    }
}

fn now(clock: &Clock) -> Now {
    Now { mono: clock.mono(), wall: clock.wall() }
}

/// Waits for the first list of the Nodes, answering probes meanwhile.
async fn wait_listed(nodes: &Nodes, liveness: &Liveness) {
    tokio::select! {
        biased;
        () = nodes.listed() => {}
        never = liveness.answer() => match never {},
    }
}
