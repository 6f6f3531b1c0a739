//! The agent's loop: look, decide ([`reboot_core::step`]), do the one thing that was decided, and again.

use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use reboot_core::annotations::NodePatch;
use reboot_core::backoff;
use reboot_core::drain::{BudgetView, Budgets, PodView};
use reboot_core::node::NodeView;
use reboot_core::step::{Action, Fresh, HostView, Memory, Note, Policy, ShutdownLock, Situation, Step, step, watches};
use reboot_core::{Now, earlier};
use reboot_runtime::call::CallError;
use reboot_runtime::clock::{Clock, after};
use reboot_runtime::events::{EventNote, Events, node_reference};
use reboot_runtime::probes::{Liveness, ReadyHandle};
use reboot_runtime::shutdown::Shutdown;
use tracing::{info, warn};

use crate::evictions::Evictions;
use crate::machine::{Asked, Machine, Workload};
use crate::metrics::{EvictionLabels, Metrics};
use crate::own_node::OwnNode;
use crate::pods::Pods;
use crate::volumes::Volumes;
use crate::watched::Watched;

/// How long evictions under way are waited for at the end of the process. The API server counts the pod of an eviction
/// that is cut short as disrupted, without deleting it, until the disruption controller gives it up after 2 minutes
/// (`DeletionTimeout`); meanwhile its budget refuses other evictions.
const LAST_EVICTIONS: Duration = Duration::from_secs(5);

/// What the loop works with.
pub struct Reconciler {
    /// The agent's own Node.
    pub(crate) node: OwnNode,
    /// Access to the pods of the node.
    pub(crate) pods: Pods,
    /// The machine.
    pub(crate) machine: Machine,
    /// The settings.
    pub(crate) policy: Policy,
    /// The time.
    pub(crate) clock: Clock,
    /// Tells this run from every other run on the node (`run` in `reboot-in-progress`), and spreads its pauses.
    pub(crate) seed: u64,
    /// Where Events go.
    pub(crate) events: Events,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// Asked whether the loop turns.
    pub(crate) liveness: Liveness,
    /// Set once the Node has been seen.
    pub(crate) ready: ReadyHandle,
}

/// The state between two turns of the loop. Losing it in a restart costs time, never safety.
struct State {
    memory: Memory,
    watched: Watching,
    evictions: Evictions,
    failures: u32,
    /// Whether the delay after a failure is waited out, whatever changes meanwhile.
    patient: bool,
    /// How many writes in a row came too late.
    conflicts: u32,
    said: Option<String>,
}

/// What is watched at present.
#[derive(Default)]
struct Watching {
    pods: Option<(Watched<Pod, PodView>, Watched<PodDisruptionBudget, BudgetView>)>,
    volumes: Option<Volumes>,
    lock: Option<Lock>,
}

/// logind's word on locks: asked for once.
enum Lock {
    Asking(BoxFuture<'static, Option<String>>),
    Answered(Option<String>),
}

impl Reconciler {
    /// Runs until the process is asked to end. A cycle under way stays as it is on the Node, and goes on from there.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        let mut state = State {
            memory: Memory::seeded(self.seed),
            watched: Watching::default(),
            evictions: Evictions::default(),
            failures: 0,
            patient: false,
            conflicts: 0,
            said: None,
        };
        while !shutdown.is_requested() {
            let round = async {
                let delay = self.turn(&mut state).await;
                self.wait_for_news(&mut state, delay).await;
            };
            // A call under way is not waited for: logind may answer only when this process has ended, because kubelet
            // holds its lock until the pods are gone. What came of the call, the next agent finds out, as after a crash.
            tokio::select! {
                biased;
                () = shutdown.requested() => {}
                () = round => {}
            }
        }
        let last = async { while state.evictions.next().await.is_some() {} };
        if tokio::time::timeout(LAST_EVICTIONS, last).await.is_err() {
            warn!("ended before every eviction was answered: their budgets may refuse others for 2 minutes");
        }
        Ok(())
    }

    /// Decides and acts until there is nothing left to do at once; returns after how long to look again.
    async fn turn(&mut self, state: &mut State) -> Option<Duration> {
        loop {
            // A long row of actions is no standstill.
            self.liveness.turned();
            state.patient = false;
            let Some(node) = self.node.view().cloned() else {
                state.watched = Watching::default();
                return None;
            };
            self.ready.set(true);
            self.observe(&node, state);
            let host = self.machine.view(state.watched.workload());
            state.memory.observe_host(&host, self.now());
            self.watch(&node, &host, state);
            let decided = self.decide(&node, &host, state, None);
            let done = match decided.action {
                Action::Refresh => self.act_on_fresh_view(state).await,
                action => self.act(action, decided.notes, &node, state).await,
            };
            match done {
                Done::Again => state.failures = 0,
                Done::Wait => return earlier(decided.wake, self.machine.look_again_in()),
                Done::WaitFor(delay) => return Some(delay),
                Done::Failed { retry_after } => {
                    state.failures = state.failures.saturating_add(1);
                    // Whoever hurries because of what changes, a pod of the drain for instance, only fails again.
                    state.patient = state.failures > 1 || retry_after.is_some();
                    return Some(backoff::after_answer(state.failures, retry_after));
                }
            }
        }
    }

    fn observe(&mut self, node: &NodeView, state: &mut State) {
        state.memory.observe(node, self.now());
        let malformed = i64::try_from(node.malformed().count()).unwrap_or(i64::MAX);
        self.metrics.malformed.set(malformed);
        self.metrics.update_engine_connected.set(i64::from(self.machine.engine_is_heard()));
    }

    /// Begins and ends watches, as the decisions need them.
    fn watch(&self, node: &NodeView, host: &HostView, state: &mut State) {
        let (memory, policy, now) = (&state.memory, &self.policy, self.now());
        let wanted = watches(&Situation { node, host, memory, policy, fresh: None, now });
        let Watching { pods, volumes, lock } = &mut state.watched;
        if wanted.pods {
            pods.get_or_insert_with(|| (self.pods.watch(), self.pods.watch_budgets()));
        } else {
            *pods = None;
        }
        if wanted.volumes {
            volumes.get_or_insert_with(|| self.pods.watch_volumes());
        } else {
            *volumes = None;
        }
        if wanted.lock {
            lock.get_or_insert_with(|| Lock::Asking(self.machine.lock()));
        } else {
            *lock = None;
        }
    }

    fn decide(&self, node: &NodeView, host: &HostView, state: &mut State, fresh: Option<Fresh>) -> Step {
        let (memory, policy, now) = (&state.memory, &self.policy, self.now());
        let step = step(&Situation { node, host, memory, policy, fresh, now });
        if step.status.is_some() && step.status != state.said {
            info!(status = step.status.as_deref(), "{}", node.name);
        }
        state.said.clone_from(&step.status);
        step
    }

    /// Asks update_engine and logind and lists the pods, as [`Action::Refresh`] says, and acts on what follows from
    /// exactly that; past the point of no return the Node is read as well.
    async fn act_on_fresh_view(&mut self, state: &mut State) -> Done {
        let committed = state.memory.is_committed();
        let node = async { if committed { self.node.refresh().await } else { Ok(()) } };
        let read = async { tokio::join!(node, self.pods.list(), self.machine.ask()) };
        let (node, pods, asked) = state.evictions.beside(read.boxed()).await;
        let pods = match node.and(pods) {
            Ok(pods) => pods,
            Err(error) => return failed(&error),
        };
        let done = self.act_on(&asked, pods.clone(), state).await;
        // The write that is the point of no return rests on this very reading, and so does the call that follows it.
        if matches!(done, Done::Again) && state.memory.is_committed() && !committed {
            return self.act_on(&asked, pods, state).await;
        }
        done
    }

    /// Acts on what was just read; the Node is that of the latest reading or write.
    async fn act_on(&mut self, asked: &Asked, pods: Vec<PodView>, state: &mut State) -> Done {
        let Some(node) = self.node.view().cloned() else { return Done::Again };
        state.memory.observe(&node, self.now());
        let workload = Workload { pods: Some(pods), ..state.watched.workload() };
        let (host, fresh) = self.machine.fresh_view(asked, workload);
        state.memory.observe_fresh(fresh, self.now());
        let decided = self.decide(&node, &host, state, Some(fresh));
        match decided.action {
            // A decision on a fresh view that waits must not be asked for again at once.
            Action::Wait | Action::Refresh => Done::WaitFor(decided.wake.unwrap_or(backoff::LATE)),
            action => self.act(action, decided.notes, &node, state).await,
        }
    }

    async fn act(&mut self, action: Action, notes: Vec<Note>, node: &NodeView, state: &mut State) -> Done {
        match action {
            Action::Wait | Action::Refresh => Done::Wait,
            Action::Write(patch, note) => self.write(&patch, note, node, state).await,
            Action::Evict(evictions) => {
                for evict in evictions {
                    state.memory.evicting(&evict, self.now());
                    state.evictions.post(self.pods.clone(), evict);
                }
                for note in &notes {
                    self.tell(node, note);
                }
                Done::Again
            }
            Action::Reboot => {
                let reply = state.evictions.beside(self.machine.reboot()).await;
                state.memory.logind_replied(reply, self.now());
                Done::Again
            }
        }
    }

    async fn write(&mut self, patch: &NodePatch, note: Option<Note>, before: &NodeView, state: &mut State) -> Done {
        if let Err(error) = state.evictions.beside(self.node.patch(before, patch)).await {
            let done = failed(&error);
            if let CallError::Conflict(_) = error {
                state.conflicts = state.conflicts.saturating_add(1);
                let first = state.conflicts == 1;
                // A watch cannot keep up with somebody who writes all the time.
                let newer = async { if first { self.node.catch_up().await } else { self.node.refresh().await } };
                return state.evictions.beside(newer).await.map_or(done, |()| Done::Again);
            }
            // Whether it was written or not is on the Node. Where that cannot be read now, the next turn goes by the watch.
            let _ = state.evictions.beside(self.node.refresh()).await;
            return done;
        }
        state.conflicts = 0;
        if let Some(node) = self.node.view() {
            state.memory.wrote(node, self.now());
        }
        if let Some(note) = note {
            self.tell(before, &note);
        }
        Done::Again
    }

    /// Says to people what was done.
    fn tell(&self, before: &NodeView, note: &Note) {
        info!(reason = note.reason.code(), "{}", note.text);
        self.events.publish(EventNote {
            object: node_reference(&before.name, &before.uid),
            warning: note.warning,
            reason: note.reason.code(),
            action: "Reboot",
            note: note.text.clone(),
        });
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.mono(), wall: self.clock.wall() }
    }

    /// Waits until there is something new to decide on, and after failures at least for as long as they ask for.
    async fn wait_for_news(&mut self, state: &mut State, delay: Option<Duration>) {
        let mut later = pin!(after(delay));
        let hurries = !state.patient;
        loop {
            // In this order, here and elsewhere: without chance in it, a run can be repeated.
            tokio::select! {
                biased;
                never = self.liveness.answer() => match never {},
                () = self.node.changed(), if hurries => return,
                () = self.machine.engine_changed(), if hurries => return,
                () = state.watched.changed(), if hurries => return,
                Some((evict, reply)) = state.evictions.next() => {
                    self.metrics.evictions.get_or_create(&EvictionLabels::of(evict.means, &reply)).inc();
                    state.memory.evicted(&evict.pod.uid, reply, self.now());
                    if hurries {
                        return;
                    }
                }
                () = &mut later => return,
            }
        }
    }
}

/// What a turn of the loop came to.
enum Done {
    /// Something was done: decide again at once.
    Again,
    /// Nothing is to be done until something changes.
    Wait,
    /// The same, but look again after this long.
    WaitFor(Duration),
    /// A call failed: look again after a while.
    Failed {
        /// The pause that the API server asked for.
        retry_after: Option<Duration>,
    },
}

fn failed(error: &CallError) -> Done {
    warn!("{error}");
    Done::Failed { retry_after: error.retry_after() }
}

impl Watching {
    fn workload(&self) -> Workload {
        let (pods, budgets) = self.pods.as_ref().map(|(pods, budgets)| (pods.values(), budgets.values())).unzip();
        Workload {
            pods: pods.flatten(),
            budgets: Budgets(budgets.flatten()),
            attachments: self.volumes.as_ref().map(Volumes::values).unwrap_or_default(),
            lock: match &self.lock {
                Some(Lock::Answered(Some(words))) => ShutdownLock::Held(words.clone()),
                Some(Lock::Answered(None)) => ShutdownLock::Free,
                Some(Lock::Asking(_)) | None => ShutdownLock::Unknown,
            },
        }
    }

    /// Waits until one of them shows something new. Safe to drop and call again.
    async fn changed(&mut self) {
        let Self { pods, volumes, lock } = self;
        let pods_or_budgets = async {
            match pods {
                Some((pods, budgets)) => tokio::select! {
                    biased;
                    () = pods.changed() => {}
                    () = budgets.changed() => {}
                },
                None => std::future::pending().await,
            }
        };
        let volumes = async {
            match volumes {
                Some(volumes) => volumes.changed().await,
                None => std::future::pending().await,
            }
        };
        let answered = async {
            match lock {
                Some(Lock::Asking(asking)) => {
                    let words = asking.await;
                    *lock = Some(Lock::Answered(words));
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = pods_or_budgets => {}
            () = volumes => {}
            () = answered => {}
        }
    }
}
