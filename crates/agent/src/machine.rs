//! What the agent knows of its machine, put together for a decision.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use futures::future::BoxFuture;
use reboot_core::drain::{Attachments, Budgets, PodView};
use reboot_core::ids::BootId;
use reboot_core::step::{Engine, Fresh, HostView, LogindReply, ShutdownLock};
use tokio::sync::watch;
use tracing::warn;

use crate::host;
use crate::logind::{Logind, RebootReply};
use crate::update_engine::{EngineState, Operation, UpdateEngine};

/// How often the boot ID is looked for while there is none: files under /proc cannot be watched.
const BOOT_ID_RETRY: Duration = Duration::from_secs(10);

/// What update_engine and logind (`PreparingForShutdown`) said when they were asked.
pub type Asked = (EngineState, Option<bool>);

/// What the agent asks of the host that it runs on; simulations have hosts of their own.
pub trait Host: Send + Sync {
    /// The ID of the running boot, as text.
    fn boot_id(&self) -> Result<String>;
    /// The time since the boot.
    fn uptime(&self) -> Result<Duration>;
    /// Asks update_engine and logind as of now. What update_engine says is shown in `heard` as well.
    fn ask<'a>(&'a self, heard: &'a watch::Sender<EngineState>) -> BoxFuture<'a, Asked>;
    /// Asks logind who holds a lock that blocks shutdowns, in words; `None`: nobody, or logind does not say.
    fn lock(&self) -> BoxFuture<'static, Option<String>> {
        Box::pin(std::future::ready(None))
    }
    /// Asks logind to reboot the machine.
    fn reboot(&self) -> BoxFuture<'_, RebootReply>;
}

/// The host with these files and services.
pub struct RealHost {
    /// Where the kernel keeps the boot ID.
    pub boot_id_file: PathBuf,
    /// Its update_engine.
    pub engine: UpdateEngine,
    /// Its logind.
    pub logind: Logind,
}

impl Host for RealHost {
    fn boot_id(&self) -> Result<String> {
        host::boot_id(&self.boot_id_file)
    }

    fn uptime(&self) -> Result<Duration> {
        host::uptime()
    }

    fn ask<'a>(&'a self, heard: &'a watch::Sender<EngineState>) -> BoxFuture<'a, Asked> {
        Box::pin(async { tokio::join!(self.engine.ask_into(heard), self.logind.preparing_for_shutdown()) })
    }

    fn lock(&self) -> BoxFuture<'static, Option<String>> {
        let logind = self.logind.clone();
        Box::pin(async move { logind.lock().await })
    }

    fn reboot(&self) -> BoxFuture<'_, RebootReply> {
        Box::pin(self.logind.reboot())
    }
}

/// The machine under the agent.
pub struct Machine {
    host: Box<dyn Host>,
    boot: Option<BootId>,
    /// Why there is none, as last said.
    no_boot: Option<String>,
    os_version: Option<String>,
    engine: watch::Receiver<EngineState>,
    heard: watch::Sender<EngineState>,
    other_manager: Option<String>,
}

/// The pods, budgets and volumes that a drain deals with, as far as they are known, and who holds the reboot up.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The pods on it; `None` while they are not known.
    pub pods: Option<Vec<PodView>>,
    /// The budgets over them.
    pub budgets: Budgets,
    /// The volumes attached to it.
    pub attachments: Attachments,
    /// Whether a lock blocks shutdowns.
    pub lock: ShutdownLock,
}

impl Machine {
    /// The machine that is this host; `heard` is kept up to date with what its update_engine says.
    pub fn new(host: Box<dyn Host>, os_version: Option<String>, heard: watch::Sender<EngineState>) -> Self {
        let engine = heard.subscribe();
        Self { host, boot: None, no_boot: None, os_version, engine, heard, other_manager: None }
    }

    /// Notes another reboot manager that is active on the machine.
    pub fn set_other_manager(&mut self, other: Option<String>) {
        self.other_manager = other;
    }

    /// Waits until update_engine has said something new. Safe to drop and call again.
    pub async fn engine_changed(&mut self) {
        if self.engine.changed().await.is_err() {
            // Every sender is gone, and one is ours.
            std::future::pending::<()>().await;
        }
    }

    /// Whether update_engine is heard.
    pub fn engine_is_heard(&self) -> bool {
        matches!(*self.engine.borrow(), EngineState::Status { .. })
    }

    /// After how long to look at it again though nothing has changed; `None`: all is known.
    pub fn look_again_in(&self) -> Option<Duration> {
        self.boot.is_none().then_some(BOOT_ID_RETRY)
    }

    /// The machine as the watches know it.
    pub fn view(&mut self, workload: Workload) -> HostView {
        let engine = sort_engine(&self.engine.borrow_and_update());
        self.view_with(engine, workload)
    }

    /// The machine with update_engine and logind asked just now.
    pub fn fresh_view(&mut self, (engine, preparing): &Asked, workload: Workload) -> (HostView, Fresh) {
        let fresh = Fresh { preparing_for_shutdown: *preparing };
        (self.view_with(sort_engine(engine), workload), fresh)
    }

    /// Asks logind for locks, for [`Workload::lock`].
    pub fn lock(&self) -> BoxFuture<'static, Option<String>> {
        self.host.lock()
    }

    /// Asks update_engine and logind, for [`Machine::fresh_view`].
    pub async fn ask(&self) -> Asked {
        self.host.ask(&self.heard).await
    }

    /// Asks logind to reboot the machine.
    pub async fn reboot(&self) -> LogindReply {
        let reply = self.host.reboot().await;
        warn!(?reply, "called logind to reboot");
        match reply {
            RebootReply::Accepted | RebootReply::InProgress | RebootReply::Lost(_) => LogindReply::MayHappen,
            RebootReply::Unreachable(why) => LogindReply::NotSent(why),
            RebootReply::Refused { name, message } => LogindReply::Refused(format!("{message} ({name})")),
        }
    }

    fn view_with(&mut self, engine: Engine, workload: Workload) -> HostView {
        HostView {
            boot: self.boot(),
            os_version: self.os_version.clone(),
            uptime: self.host.uptime().unwrap_or_default(),
            engine,
            pods: workload.pods,
            budgets: workload.budgets,
            attachments: workload.attachments,
            lock: workload.lock,
            other_manager: self.other_manager.clone(),
        }
    }

    /// The running boot. It does not change under a process, so it is read until it is known and never again.
    fn boot(&mut self) -> Option<BootId> {
        if self.boot.is_none() {
            match self.host.boot_id().and_then(|text| Ok(text.parse()?)) {
                Ok(boot) => self.boot = Some(boot),
                Err(error) => self.say_no_boot(format!("{error:#}")),
            }
        }
        self.boot
    }

    fn say_no_boot(&mut self, why: String) {
        if self.no_boot.as_ref() != Some(&why) {
            warn!("the boot ID is unknown: {why}");
            self.no_boot = Some(why);
        }
    }
}

fn sort_engine(state: &EngineState) -> Engine {
    match state {
        EngineState::Unknown(_) | EngineState::Absent => Engine::Unheard,
        EngineState::Status { operation: Operation::UpdatedNeedReboot, new_version } => {
            Engine::NeedsReboot(Some(new_version.clone()).filter(|version| !version.is_empty()))
        }
        EngineState::Status { .. } => Engine::Otherwise,
    }
}
