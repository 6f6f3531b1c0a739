//! One machine of the simulated cluster: its Node, its system bus with the fakes on it, its agent, and its reboots.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use tokio::sync::{mpsc::UnboundedReceiver, watch};

use super::{Reboots, program};
use crate::{
    bus::{Bus, FakeEngine, FakeLogind, FakeSystemd, RebootCall},
    nodes::SimNode,
    process::Process,
};

/// A machine. Its methods may be called from several places at once.
#[derive(Debug)]
pub struct Machine {
    node: SimNode,
    bus: tokio::sync::Mutex<Bus>,
    address: String,
    engine: FakeEngine,
    logind: FakeLogind,
    systemd: FakeSystemd,
    state: Mutex<State>,
    /// Whether it is off, and everything that its end has to do with is done.
    off: watch::Sender<bool>,
    log: PathBuf,
}

#[derive(Debug)]
struct State {
    reboots: Reboots,
    /// Between boot and reboot.
    up: bool,
    /// What `update_engine` has installed, to be booted.
    installed: Option<String>,
    kubeconfig: PathBuf,
    /// What runs as the agent, where it is not the agent.
    agent_program: Option<PathBuf>,
    /// The agent's arguments, once it was started; a boot starts it again.
    agent_args: Option<Vec<String>>,
    agent: Option<Process>,
    failures: Vec<String>,
}

/// So long the bus may deliver logind's answer before the machine is gone.
const LAST_WORDS: Duration = Duration::from_millis(20);

impl Machine {
    pub(super) async fn start(
        node: SimNode,
        dir: &Path,
        kubeconfig: PathBuf,
        reboots: Reboots,
    ) -> Result<(Self, UnboundedReceiver<RebootCall>)> {
        let bus = Bus::start(&dir.join("bus")).await?;
        let engine = FakeEngine::start(&bus).await?;
        let (logind, calls) = FakeLogind::start(&bus).await?;
        let systemd = FakeSystemd::start(&bus).await?;
        let state = State {
            reboots,
            up: true,
            installed: None,
            kubeconfig,
            agent_program: None,
            agent_args: None,
            agent: None,
            failures: Vec::new(),
        };
        let address = bus.address();
        let bus = tokio::sync::Mutex::new(bus);
        let log = dir.join("agent.log");
        let (state, off) = (Mutex::new(state), watch::Sender::new(false));
        Ok((Self { node, bus, address, engine, logind, systemd, state, off, log }, calls))
    }

    /// Its Node.
    pub fn node(&self) -> &SimNode {
        &self.node
    }

    /// Its `update_engine`.
    pub fn engine(&self) -> &FakeEngine {
        &self.engine
    }

    /// Its logind.
    pub fn logind(&self) -> &FakeLogind {
        &self.logind
    }

    /// Its systemd.
    pub fn systemd(&self) -> &FakeSystemd {
        &self.systemd
    }

    /// The address of its bus.
    pub fn bus_address(&self) -> &str {
        &self.address
    }

    /// What all its agents wrote, one after the other.
    pub fn agent_log(&self) -> &Path {
        &self.log
    }

    /// From now on it reboots like this.
    pub fn set_reboots(&self, reboots: Reboots) {
        self.state().reboots = reboots;
    }

    /// Whether it is between boot and reboot.
    pub fn is_up(&self) -> bool {
        self.state().up
    }

    /// `update_engine` has installed this version and announces that it needs a reboot.
    pub async fn announce_update(&self, version: &str) -> Result<()> {
        self.state().installed = Some(version.to_owned());
        self.engine.set(FakeEngine::NEED_REBOOT, version).await
    }

    /// From now on this program is started as its agent, in the agent's environment.
    pub fn replace_agent(&self, program: PathBuf) {
        self.state().agent_program = Some(program);
    }

    /// Starts its agent with these arguments (after the boot, when the machine is down), and again after every boot.
    ///
    /// The machine says who and where it is through the environment (`REBOOT_AGENT_*`), so `args` win over it. `--min-uptime`
    /// is 0 here: the machine's uptime is not simulated.
    pub fn start_agent(&self, args: &[&str]) -> Result<()> {
        let mut state = self.state();
        state.agent_args = Some(args.iter().map(|&arg| arg.to_owned()).collect());
        state.agent = None;
        if state.up { self.launch(&mut state) } else { Ok(()) }
    }

    /// Kills its agent (SIGKILL), as a crash does; no error when none runs.
    pub fn kill_agent(&self) -> Result<()> {
        self.state().agent.take().map_or(Ok(()), |mut agent| agent.kill().map(drop))
    }

    /// Kills its agent and starts it again at once, with the same arguments.
    pub fn restart_agent(&self) -> Result<()> {
        self.kill_agent()?;
        let mut state = self.state();
        if state.up { self.launch(&mut state) } else { Ok(()) }
    }

    /// Asks its agent to end (SIGTERM) and waits until it has; it is not started again after a boot.
    pub async fn stop_agent(&self, limit: Duration) -> Result<std::process::ExitStatus> {
        let agent = {
            let mut state = self.state();
            state.agent_args = None;
            state.agent.take()
        };
        let mut agent = agent.with_context(|| format!("no agent runs on {}", self.node.name()))?;
        agent.terminate()?;
        agent.wait(limit).await
    }

    /// How its agent ended by itself; `None` while it runs, or when it was killed or never started.
    pub fn agent_ended(&self) -> Result<Option<std::process::ExitStatus>> {
        self.state().agent.as_mut().map_or(Ok(None), Process::ended)
    }

    /// The resident memory of its agent in bytes.
    pub fn agent_memory(&self) -> Result<u64> {
        let state = self.state();
        state.agent.as_ref().with_context(|| format!("no agent runs on {}", self.node.name()))?.rss()
    }

    /// The processor time that its agent has used since it was started.
    pub fn agent_cpu(&self) -> Result<Duration> {
        let state = self.state();
        state.agent.as_ref().with_context(|| format!("no agent runs on {}", self.node.name()))?.cpu()
    }

    /// Reboots without anybody having asked logind: a power cut, or a person at the console.
    pub async fn power_cycle(&self) -> Result<()> {
        let reboots = self.state().reboots;
        self.go_down(reboots).await?;
        if reboots.comes_back {
            tokio::time::sleep(reboots.down).await;
            self.bring_back().await?;
        }
        Ok(())
    }

    /// Waits until it is off and kubelet's last words were answered; its Node may show before that that it goes down.
    ///
    /// # Errors
    /// When it is still on after this long.
    pub async fn until_off(&self, limit: Duration) -> Result<()> {
        let mut off = self.off.subscribe();
        let off = tokio::time::timeout(limit, off.wait_for(|off| *off)).await;
        off.map(drop).with_context(|| format!("{} is still on after {limit:?}", self.node.name()))
    }

    /// Boots a machine that is down.
    pub async fn bring_back(&self) -> Result<()> {
        let (reboots, installed) = {
            let mut state = self.state();
            (state.reboots, state.installed.take())
        };
        let version = installed.filter(|_| reboots.takes_update).unwrap_or_else(|| self.node.os_version());
        self.off.send_replace(false);
        self.node.boot_machine(&version)?;
        self.engine.reset();
        self.restart_bus().await?;
        {
            let mut state = self.state();
            state.up = true;
            self.launch(&mut state)?;
        }
        tokio::time::sleep(reboots.kubelet).await;
        if !reboots.settling.is_zero() {
            self.node.report_not_ready().await?;
            tokio::time::sleep(reboots.settling).await;
        }
        self.node.report().await
    }

    /// Kills its bus, as if by accident; the services on it lose their connections for good.
    pub async fn kill_bus(&self) -> Result<()> {
        self.bus.lock().await.kill()
    }

    /// Starts its bus again after [`Machine::kill_bus`], and the services on it, which know what they knew.
    pub async fn restart_bus(&self) -> Result<()> {
        self.bus.lock().await.resume().await?;
        self.systemd.resume().await?;
        self.logind.resume().await?;
        self.engine.resume().await
    }

    /// What went wrong in the simulation of this machine.
    pub fn failures(&self) -> Vec<String> {
        self.state().failures.clone()
    }

    /// Reboots whenever logind accepted a request.
    pub(super) async fn serve(self: std::sync::Arc<Self>, mut calls: UnboundedReceiver<RebootCall>) {
        while let Some(call) = calls.recv().await {
            if !call.goes_down {
                continue;
            }
            tokio::time::sleep(LAST_WORDS).await;
            if let Err(error) = self.power_cycle().await {
                self.state().failures.push(format!("{}: {error:#}", self.node.name()));
            }
        }
    }

    async fn go_down(&self, reboots: Reboots) -> Result<()> {
        self.state().up = false;
        self.kill_agent()?;
        self.engine.stop().await;
        self.logind.stop().await;
        self.systemd.stop().await;
        self.bus.lock().await.kill()?;
        self.node.go_down(reboots.farewell).await?;
        self.off.send_replace(true);
        Ok(())
    }

    fn launch(&self, state: &mut State) -> Result<()> {
        let Some(args) = &state.agent_args else { return Ok(()) };
        let program = state.agent_program.clone().map_or_else(|| program("reboot-agent", "REBOOT_AGENT_BIN"), Ok)?;
        let mut command = Command::new(program);
        command
            .env("REBOOT_AGENT_KUBECONFIG", &state.kubeconfig)
            .env("REBOOT_AGENT_NODE_NAME", self.node.name())
            .env("REBOOT_AGENT_BUS_ADDRESS", &self.address)
            .env("REBOOT_AGENT_BOOT_ID_FILE", self.node.files().boot_id())
            .env("REBOOT_AGENT_OS_RELEASE_FILE", self.node.files().os_release())
            .env("REBOOT_AGENT_MIN_UPTIME", "0s")
            .env("REBOOT_AGENT_LISTEN", "127.0.0.1:0")
            .args(args);
        let name = format!("agent of {}", self.node.name());
        state.agent = Some(Process::spawn(&name, command, &self.log)?);
        Ok(())
    }

    pub(super) fn run_agent_as(&self, kubeconfig: PathBuf) {
        self.state().kubeconfig = kubeconfig;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
