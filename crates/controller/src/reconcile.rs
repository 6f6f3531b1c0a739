//! The controller's loop: look, plan ([`reboot_core::plan`]), carry the plan out, and again.

use std::time::Duration;

use anyhow::Result;
use reboot_core::backoff;
use reboot_core::node::NodeView;
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

/// How often the ages among the metrics are brought up to date while nothing else happens: alerts rest on them. It costs a
/// plan, and no request.
const SHOW_AGES: Duration = Duration::from_mins(1);

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

/// What the actions of a plan came to, one after the other.
#[derive(Default)]
struct Row {
    changed: bool,
    wake: Option<Duration>,
    /// The first refusal.
    refused: Option<CallError>,
}

impl Row {
    /// Takes in what an action came to.
    ///
    /// # Errors
    /// What ends the row: an unknown outcome, or a server that asks for a pause, which means all of us.
    fn take(&mut self, applied: Result<Applied, CallError>) -> Result<(), CallError> {
        match applied {
            Ok(Applied::Changed) => self.changed = true,
            Ok(Applied::Nothing) => {}
            Ok(Applied::Overtaken) => self.wake = earlier(self.wake, Some(backoff::SOON)),
            Err(error @ (CallError::Unknown(_) | CallError::Throttled { .. })) => return Err(error),
            // The API server's own no concerns this action; the others must not starve for it.
            Err(error) => {
                self.refused.get_or_insert(error);
            }
        }
        Ok(())
    }

    fn outcome(self) -> Result<Outcome, CallError> {
        match self.refused {
            Some(error) => Err(error),
            None if self.changed => Ok(Outcome::Changed),
            None => Ok(Outcome::Idle(self.wake)),
        }
    }
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
            () = wait_listed(&self.executor.nodes, &self.executor.liveness) => {}
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
        self.executor.liveness.turned();
        !shutdown.is_requested() && *self.leadership.borrow() == Leadership::Leader
    }

    /// Looks, plans, and carries the plan out on the views on which it was made: what has changed since wins, by its
    /// resourceVersion.
    async fn plan_and_apply(&mut self, state: &mut State, shutdown: &Shutdown) -> Result<Outcome, CallError> {
        let (plan, views) = self.plan(&mut state.memory).await?;
        let is_explanation = |action: &&Action| matches!(action, Action::Explain(..));
        let (explanations, actions): (Vec<_>, Vec<_>) = plan.actions.iter().partition(is_explanation);
        let mut row = Row { wake: earlier(plan.wake, ages_change(&plan)), ..Row::default() };
        for action in actions {
            if !self.may_go_on(shutdown) {
                break;
            }
            let applied = self.executor.apply(action, &views, &mut state.memory, now(&self.clock)).await;
            // A ledger that is whole again, or has room again, makes another plan.
            if matches!((action, &applied), (Action::Rebuild | Action::Settle(_), Ok(Applied::Changed))) {
                return Ok(Outcome::Changed);
            }
            row.take(applied)?;
        }
        // Whatever was to be granted is granted: a slot that was freed goes to nobody now.
        self.executor.write_back().await?;
        // An action that was refused, such as a rebuild, may itself have changed the Nodes.
        let views = if row.refused.is_some() { self.executor.nodes.views() } else { views };
        for explanation in explanations.into_iter().take(EXPLAIN_AT_ONCE) {
            if !self.may_go_on(shutdown) {
                break;
            }
            row.take(self.executor.apply(explanation, &views, &mut state.memory, now(&self.clock)).await)?;
        }
        row.outcome()
    }

    /// The plan of this moment, and the views that it was made on.
    async fn plan(&mut self, memory: &mut Memory) -> Result<(Plan, Vec<NodeView>), CallError> {
        let ledger = self.executor.slots.state().await?;
        let views = self.executor.nodes.views();
        let view = ClusterView { nodes: &views, ledger, home: self.home.as_deref() };
        let now = now(&self.clock);
        memory.observe(&view, now);
        let plan = plan(&view, &self.executor.policy, memory, now);
        self.executor.metrics.show(&plan, now);
        Ok((plan, views))
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
            never = self.executor.liveness.answer() => match never {},
            () = self.executor.nodes.changed(), if !patient => {}
            () = self.executor.slots.changed(), if !patient => {}
            () = leadership => {}
            () = after(delay) => {}
        }
    }
}

/// After how long the metrics are to be shown again, where they have ages.
fn ages_change(plan: &Plan) -> Option<Duration> {
    plan.census.oldest_slot.or(plan.census.oldest_request).map(|_| SHOW_AGES)
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
