//! The controller's loop: look, plan ([`reboot_core::plan`]), carry the plan out, and again.

use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use reboot_core::Now;
use reboot_core::backoff;
use reboot_core::plan::{Action, ClusterView, Memory, plan};
use reboot_runtime::call::CallError;
use reboot_runtime::clock::Clock;
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
pub struct Reconciler {
    /// Carries plans out.
    pub executor: Executor,
    /// The time.
    pub clock: Clock,
    /// The node that this controller runs on.
    pub home: Option<String>,
    /// Whether this process may write.
    pub leadership: watch::Receiver<Leadership>,
    /// Asked whether the loop turns.
    pub liveness: Liveness,
    /// Sent, by being dropped with the loop, when no work is under way any more.
    pub stopped: oneshot::Sender<()>,
}

struct State {
    memory: Memory,
    failures: u32,
    clock: Clock,
    led: bool,
    /// Whether the delay after a failure is waited out, whatever changes meanwhile.
    patient: bool,
}

impl State {
    fn now(&self) -> Now {
        Now { mono: self.clock.mono(), wall: self.clock.wall() }
    }
}

impl Reconciler {
    /// Runs until the process is asked to end.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let clock = self.clock.clone();
        let mut state = State { memory: Memory::default(), failures: 0, clock, led: false, patient: false };
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
                () = self.something(delay, state.patient) => {}
            }
        }
        Ok(())
    }

    /// Whether this process leads; a new leader believes nothing that it knew before.
    fn leads(&mut self, state: &mut State) -> bool {
        let leads = *self.leadership.borrow_and_update() == Leadership::Leader;
        self.executor.metrics.leader.set(i64::from(leads));
        if leads && !state.led {
            info!("leading");
            self.executor.slots.forget();
            state.memory = Memory::default();
        }
        state.led = leads;
        leads
    }

    /// Plans and acts until there is nothing left to do at once; returns after how long to look again.
    async fn turn(&mut self, state: &mut State, shutdown: &Shutdown) -> Option<Duration> {
        loop {
            state.patient = false;
            match self.plan_and_apply(state).await {
                Ok((Applied::Changed, _)) => state.failures = 0,
                Ok((Applied::Nothing | Applied::Overtaken, wake)) => {
                    state.failures = 0;
                    return wake;
                }
                Err(error) => {
                    self.executor.slots.forget();
                    state.failures = state.failures.saturating_add(1);
                    // The change that is seen next may be our own: a write whose answer was lost, or one that was made
                    // before the one that failed. Whoever hurries because of it fails again, without end.
                    state.patient = !matches!(error, CallError::Conflict(_)) && state.failures > 1;
                    let Some(delay) = Self::after(&error, state) else { continue };
                    return Some(delay);
                }
            }
            // A long row of actions is no standstill.
            let _ = self.liveness.turn().now_or_never();
            tokio::task::yield_now().await;
            if shutdown.is_requested() || *self.leadership.borrow() != Leadership::Leader {
                return None;
            }
        }
    }

    /// After how long to look again after a call that failed; `None`: at once.
    fn after(error: &CallError, state: &State) -> Option<Duration> {
        if let CallError::Conflict(answer) = error {
            // Somebody else got on, such as kubelet with a heartbeat. Deciding again needs no pause, once.
            info!("{answer}: deciding again");
            return (state.failures > 1).then(|| backoff::after_failures(state.failures));
        }
        warn!("{error}");
        Some(backoff::after_failures(state.failures))
    }

    async fn plan_and_apply(&mut self, state: &mut State) -> Result<(Applied, Option<Duration>), CallError> {
        let ledger = self.executor.slots.state().await?;
        let mut views = self.executor.nodes.views();
        let view = ClusterView { nodes: &views, ledger: &ledger, home: self.home.as_deref() };
        let now = state.now();
        state.memory.observe(&view, now);
        let plan = plan(&view, &self.executor.policy, &state.memory, now);
        self.executor.metrics.show(&plan, now);
        let (mut applied, mut wake, mut explained, mut refused) = (Applied::Nothing, plan.wake, 0, None);
        for action in &plan.actions {
            if matches!(action, Action::Explain(..)) {
                // Whatever was to be granted is granted: a slot that was freed goes to nobody now.
                self.executor.slots.write_back().await?;
                explained += 1;
            }
            if explained > EXPLAIN_AT_ONCE {
                break;
            }
            let now = state.now();
            match self.executor.apply(action, &views, &mut state.memory, now).await {
                // A ledger that is whole again, or has room again, makes another plan.
                Ok(Applied::Changed) if matches!(action, Action::Rebuild | Action::Settle(_)) => {
                    return Ok((Applied::Changed, None));
                }
                Ok(Applied::Changed) => applied = Applied::Changed,
                Ok(Applied::Nothing) => {}
                Ok(Applied::Overtaken) => wake = Some(wake.map_or(backoff::SOON, |wake| wake.min(backoff::SOON))),
                Err(error) if error.is_unknown() => return Err(error),
                // The API server's own no concerns this action; the others must not starve for it.
                Err(error) => {
                    views = self.executor.nodes.views();
                    refused.get_or_insert(error);
                }
            }
        }
        self.executor.slots.write_back().await?;
        refused.map_or(Ok((applied, wake)), Err)
    }

    /// Waits until there is something new to plan for.
    async fn something(&mut self, delay: Option<Duration>, patient: bool) {
        let later = async {
            match delay {
                Some(delay) => tokio::time::sleep(delay).await,
                None => std::future::pending().await,
            }
        };
        let leadership = async {
            if self.leadership.changed().await.is_err() {
                // The election has ended, which ends the process.
                std::future::pending::<()>().await;
            }
        };
        // In this order, here and elsewhere: without chance in it, a run can be repeated.
        tokio::select! {
            biased;
            () = self.liveness.turn() => {}
            () = self.executor.nodes.changed(), if !patient => {}
            () = self.executor.slots.changed(), if !patient => {}
            () = leadership => {}
            () = later => {}
        }
    }
}

/// Waits for the first list of the Nodes, answering probes meanwhile.
async fn wait_listed(nodes: &Nodes, liveness: &Liveness) {
    let answering = async {
        loop {
            liveness.turn().await;
        }
    };
    tokio::select! {
        biased;
        () = nodes.listed() => {}
        () = answering => {}
    }
}
