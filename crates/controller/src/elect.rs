//! Leader election over a Lease: one task that watches it, writes it, and publishes who leads.
//!
//! Every decision is [`lease::Elector`]'s. Verbs needed on `leases` in the operator's namespace: `create`; and on the one
//! named [`lease::NAME`]: `list`, `watch`, `update`.

use std::{future::pending, time::Duration};

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::PostParams,
    runtime::{WatchStreamExt as _, watcher},
};
use reboot_core::{
    Now,
    lease::{self, Decision, Elector, Terms},
};
use reboot_runtime::{
    call::{CallError, call_within, explain},
    clock::Clock,
    shutdown::Shutdown,
    watches::{self, WatchEvents},
};
use tokio::{
    select,
    sync::{oneshot, watch},
};
use tracing::{debug, info, warn};

/// How long one write of the Lease may take: several fit between a renewal and the moment of giving up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this process may do the controller's work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// It may not.
    Standby {
        /// Who may, as far as is known.
        holder: Option<String>,
    },
    /// It may, until this changes.
    Leader,
}

/// This process as a candidate.
pub(crate) struct Candidate {
    leases: Api<Lease>,
    elector: Elector,
    events: WatchEvents<Lease>,
    /// Whether the list that is being read has held the Lease.
    listed: bool,
    /// Whether the last write failed, so that a row of failures is warned of once.
    failing: bool,
    leadership: watch::Sender<Leadership>,
    clock: Clock,
}

impl Candidate {
    /// A candidate under `identity`, which must be unique to this process, and where it publishes its part.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        identity: &str,
        terms: Terms,
        clock: Clock,
    ) -> (Self, watch::Receiver<Leadership>) {
        let leases = Api::namespaced(client, namespace);
        let (leadership, published) = watch::channel(Leadership::Standby { holder: None });
        let candidate = Self {
            events: watches::watch(leases.clone(), the_lease()),
            leases,
            elector: Elector::new(identity, terms),
            listed: false,
            failing: false,
            leadership,
            clock,
        };
        (candidate, published)
    }

    /// Takes part until the end of the process. A lost Lease means standby, and a candidate again.
    ///
    /// On `shutdown` a standby leaves at once. A leader renews until `stopped` is sent or dropped, which says that no
    /// work is under way any more; then it releases the Lease, and another takes over at once.
    ///
    /// # Errors
    /// When the watch ends, which kube's does not. Everything else is tried again.
    pub(crate) async fn run(mut self, shutdown: Shutdown, mut stopped: oneshot::Receiver<()>) -> Result<()> {
        loop {
            let decision = self.elector.decide(self.now());
            self.publish();
            let leads = self.elector.leads();
            if shutdown.is_requested() && !leads {
                break;
            }
            let wake = match decision {
                Decision::Lost => {
                    warn!("lost the lease");
                    continue;
                }
                Decision::Acquire(lease) | Decision::Renew(lease) => {
                    self.write(lease).await;
                    continue;
                }
                Decision::Lead { until } => Some(until),
                Decision::Follow { until } => until,
            };
            let clock = self.clock.clone();
            select! {
                biased;
                event = self.events.next() => self.observe(event)?,
                () = reached(&clock, wake) => {}
                _ = &mut stopped => break,
                () = shutdown.requested(), if !leads => {}
            }
        }
        self.release().await;
        Ok(())
    }

    /// Makes one write, and tells the elector how it went.
    async fn write(&mut self, lease: Lease) {
        let sent = self.now().mono;
        let limit = self.elector.time_left(sent).map_or(WRITE_TIMEOUT, |left| left.min(WRITE_TIMEOUT));
        match send(&self.leases, &lease, limit).await {
            Ok(lease) => {
                self.failing = false;
                self.elector.written(lease, sent);
            }
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&mut self, error: &CallError) {
        let mono = self.now().mono;
        if matches!(error, CallError::Conflict(_)) {
            debug!("{error}; somebody else was faster");
        } else if self.failing {
            debug!("{error}");
        } else {
            warn!("{error}; trying again");
            self.failing = true;
        }
        if matches!(error, CallError::Conflict(_) | CallError::Gone(_)) {
            self.elector.conflicted(mono);
            self.events = watch_anew(&self.leases);
        } else {
            self.elector.failed(mono);
        }
    }

    fn observe(&mut self, event: Option<watcher::Result<watcher::Event<Lease>>>) -> Result<()> {
        let mono = self.now().mono;
        match event {
            Some(Ok(watcher::Event::Init)) => self.listed = false,
            Some(Ok(watcher::Event::InitApply(lease))) => {
                self.listed = true;
                self.elector.observe(lease, mono);
            }
            Some(Ok(watcher::Event::InitDone)) if self.listed => {}
            Some(Ok(watcher::Event::InitDone)) => self.elector.observe_absent(),
            Some(Ok(watcher::Event::Apply(lease))) => self.elector.observe(lease, mono),
            // The news may be old: a fresh read tells.
            Some(Ok(watcher::Event::Delete(_))) => self.events = watch_anew(&self.leases),
            Some(Err(error)) => warn!("watching the lease: {}", explain(&error)),
            None => bail!("the watch of the lease ended"),
        }
        Ok(())
    }

    fn publish(&self) {
        let leadership = if self.elector.leads() {
            Leadership::Leader
        } else {
            Leadership::Standby { holder: self.elector.holder().map(str::to_owned) }
        };
        self.leadership.send_if_modified(|published| {
            let changed = *published != leadership;
            if changed {
                match &leadership {
                    Leadership::Leader => info!("leading"),
                    Leadership::Standby { holder } => info!(holder, "standing by"),
                }
                *published = leadership;
            }
            changed
        });
    }

    /// Gives the Lease back where it is held. Tried once: when it fails, the others wait for as long as after a crash.
    async fn release(mut self) {
        let Some(lease) = self.elector.release(self.now()) else { return };
        self.publish();
        match send(&self.leases, &lease, WRITE_TIMEOUT).await {
            Ok(_) => info!("released the lease"),
            Err(error) => warn!("releasing: {error}"),
        }
    }

    fn now(&self) -> Now {
        Now { mono: self.clock.mono(), wall: self.clock.wall() }
    }
}

/// The Lease alone, by its name: the rights of the controller reach no further. The first watch may begin with what is
/// old; that costs a conflict, and no more.
fn the_lease() -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={}", lease::NAME))
}

/// Watches anew after a sign that what was seen is old: begins with a list, which never is.
fn watch_anew(leases: &Api<Lease>) -> WatchEvents<Lease> {
    watcher(leases.clone(), the_lease()).default_backoff().boxed()
}

async fn send(leases: &Api<Lease>, lease: &Lease, limit: Duration) -> Result<Lease, CallError> {
    let params = PostParams::default();
    if lease.metadata.resource_version.is_none() {
        call_within(limit, "creating the lease", leases.create(&params, lease)).await
    } else {
        call_within(limit, "writing the lease", leases.replace(lease::NAME, &params, lease)).await
    }
}

async fn reached(clock: &Clock, mono: Option<Duration>) {
    match mono {
        Some(mono) => clock.reaches(mono).await,
        None => pending().await,
    }
}
