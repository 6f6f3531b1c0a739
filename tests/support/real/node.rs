//! One real node: a systemd-nspawn machine with a system bus, logind, containerd and kubelet of its own.
//!
//! The machine's power is in the test's hands: how long it is off in a reboot, whether it comes back, which OS version it
//! comes back with, and when it fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};

use super::{namespaces::run, site};
use crate::{
    boot::write_os_release,
    bus::FakeEngine,
    nodes::FIRST_OS_VERSION,
    process::{Process, output},
};

/// A node. Its methods may be called from several places at once.
#[derive(Debug)]
pub struct RealNode {
    name: String,
    /// Its place on the bridge.
    index: usize,
    dir: PathBuf,
    cgroup: PathBuf,
    engine: FakeEngine,
    state: Mutex<State>,
    power: watch::Sender<Power>,
    /// The power fails.
    failure: Notify,
}

/// How a machine reboots once logind has let it go.
#[derive(Clone, Copy, Debug)]
pub struct RealReboots {
    /// So long it is off.
    pub down: Duration,
    /// Whether it comes back by itself; if not, [`RealNode::switch_on`] does it.
    pub comes_back: bool,
    /// Whether it boots into what `update_engine` has installed, or into the old version again.
    pub takes_update: bool,
    /// So long after the boot kubelet starts.
    pub kubelet: Duration,
}

/// The state of the machine's power.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Power {
    /// Whether it runs.
    pub on: bool,
    /// Whether its system bus answers.
    pub answers: bool,
    /// How often it was booted.
    pub boots: usize,
}

#[derive(Debug)]
struct State {
    reboots: RealReboots,
    os_version: String,
    /// What `update_engine` has installed, to be booted.
    installed: Option<String>,
    /// Somebody pressed the button.
    button: bool,
}

/// What is put on the machine beside the layers that all have.
pub(super) struct Equipment {
    pub(super) index: usize,
    pub(super) api_port: u16,
    /// Who on the machine talks to the API server, and the kubeconfig of each.
    pub(super) kubeconfigs: Vec<(&'static str, String)>,
    /// Programs of the host that are bound to `/usr/local/bin` of the node. Where there is no kubelet among them,
    /// nothing of what a kubelet needs is started.
    pub(super) programs: Vec<PathBuf>,
}

/// systemd-nspawn's exit code when the machine asks for a reboot.
const ASKED_FOR_REBOOT: i32 = 133;
/// A boot takes a second; a busy machine needs much longer.
const BOOT_LIMIT: Duration = Duration::from_secs(90);
const FOREVER: Duration = Duration::from_hours(24 * 365);

impl Default for RealReboots {
    fn default() -> Self {
        Self { down: Duration::ZERO, comes_back: true, takes_update: true, kubelet: Duration::ZERO }
    }
}

impl RealNode {
    /// Builds the machine in `dir`, connects it to the bridge, and leaves it switched off.
    pub(super) fn build(
        name: &str,
        dir: &Path,
        cgroups: &Path,
        layers: &[PathBuf],
        equipment: &Equipment,
    ) -> Result<Self> {
        connect(name, equipment.index)?;
        for folder in ["upper/etc/kubernetes", "work", "root", "dbus"] {
            fs::create_dir_all(dir.join(folder)).with_context(|| format!("creating {folder} of {name}"))?;
        }
        write_os_release(&dir.join("upper/etc/os-release"), FIRST_OS_VERSION)?;
        let settings = dir.join("upper/etc/kubernetes");
        let environment = format!("NODE_IP={}\nAPI_PORT={}\n", address(equipment.index), equipment.api_port);
        fs::write(settings.join("node.env"), environment).context("writing the node's settings")?;
        for (user, kubeconfig) in &equipment.kubeconfigs {
            let file = settings.join(format!("{user}.kubeconfig"));
            fs::write(&file, kubeconfig).with_context(|| format!("writing {}", file.display()))?;
        }
        let layers: Vec<_> = layers.iter().map(|layer| layer.display().to_string()).collect();
        let dirs = dir.display();
        run(&format!(
            "mount -t overlay overlay -o lowerdir={},upperdir={dirs}/upper,workdir={dirs}/work {dirs}/root",
            layers.join(":")
        ))?;
        let mut binds = vec![format!("--bind={dirs}/dbus:/run/dbus")];
        for program in &equipment.programs {
            let file = program.file_name().unwrap_or_default().to_string_lossy();
            binds.push(format!("--bind-ro={}:/usr/local/bin/{file}", program.display()));
        }
        fs::write(dir.join("binds"), binds.join("\n")).context("writing the list of binds")?;
        let engine = FakeEngine::at(format!("unix:path={dirs}/dbus/system_bus_socket"));
        let state = State {
            reboots: RealReboots::default(),
            os_version: FIRST_OS_VERSION.to_owned(),
            installed: None,
            button: true,
        };
        Ok(Self {
            name: name.to_owned(),
            index: equipment.index,
            dir: dir.to_owned(),
            cgroup: cgroups.join(name),
            engine,
            state: Mutex::new(state),
            power: watch::Sender::default(),
            failure: Notify::new(),
        })
    }

    /// The name of the machine and of its Node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address, which its pods have as well where the API server sees them.
    pub fn address(&self) -> String {
        address(self.index)
    }

    /// Its `update_engine`.
    pub fn engine(&self) -> &FakeEngine {
        &self.engine
    }

    /// The state of its power, to be read or watched.
    pub fn power(&self) -> watch::Receiver<Power> {
        self.power.subscribe()
    }

    /// From now on it reboots like this.
    pub fn set_reboots(&self, reboots: RealReboots) {
        self.state().reboots = reboots;
    }

    /// `update_engine` has installed this version and announces that it needs a reboot.
    pub async fn announce_update(&self, version: &str) -> Result<()> {
        self.state().installed = Some(version.to_owned());
        self.engine.set(FakeEngine::NEED_REBOOT, version).await
    }

    /// The power fails: everything on the machine ends at once. It stays off until it is switched on.
    pub async fn fail_power(&self) -> Result<()> {
        self.state().button = false;
        self.failure.notify_one();
        self.until_power("to be off", |power| !power.on).await
    }

    /// Somebody presses the button of a machine that is off, or will be when its reboot has come so far.
    pub fn switch_on(&self) {
        self.state().button = true;
        self.power.send_modify(|_| {});
    }

    /// Waits until it has been booted so often.
    pub async fn until_boots(&self, boots: usize) -> Result<()> {
        self.until_power(&format!("to boot for the {boots}th time"), |power| power.on && power.boots >= boots).await
    }

    /// The version of the operating system that it has booted.
    pub fn os_version(&self) -> String {
        self.state().os_version.clone()
    }

    /// The boot ID as the processes on the machine see it.
    ///
    /// # Errors
    /// It is off.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self.execute(&["cat", "/proc/sys/kernel/random/boot_id"])?.trim().to_owned())
    }

    /// Runs a command on the machine as root and returns what it printed.
    ///
    /// # Errors
    /// The machine is off, or the command fails.
    pub fn execute(&self, command: &[&str]) -> Result<String> {
        let init = self.cgroup.join("payload/init.scope/cgroup.procs");
        let pids = fs::read_to_string(&init).with_context(|| format!("{} is off", self.name))?;
        let pid = pids.lines().next().with_context(|| format!("{} is off", self.name))?;
        let enter = ["-t", pid, "-m", "-u", "-i", "-p", "-n", "-C", "-r", "-w"];
        output("nsenter", &[&enter[..], command].concat())
    }

    /// Kills every process on the machine whose name is this (SIGKILL); returns how many there were.
    pub fn kill(&self, program: &str) -> Result<usize> {
        // The node's own pid namespace holds the processes of its containers, too, and nobody else's.
        let script = format!("pids=$(pidof {program}) || exit 0; kill -KILL $pids; echo $pids");
        Ok(self.execute(&["/bin/busybox", "sh", "-c", &script])?.split_whitespace().count())
    }

    /// Pulls its network cable: nothing leaves it or comes in, and nobody is told. It stays out when the machine reboots.
    pub fn unplug(&self) -> Result<()> {
        run(&format!("ip link set port-{} down", self.index)).map(drop)
    }

    /// Puts its network cable back.
    pub fn plug(&self) -> Result<()> {
        run(&format!("ip link set port-{} up", self.index)).map(drop)
    }

    /// The ids of the processes with this name, in the machine's own count.
    pub fn processes(&self, program: &str) -> Result<Vec<u32>> {
        let script = format!("pidof {program} || exit 0");
        let pids = self.execute(&["/bin/busybox", "sh", "-c", &script])?;
        pids.split_whitespace().map(|pid| pid.parse().with_context(|| format!("no process id: {pid}"))).collect()
    }

    /// How many lines the containers with this name have written on this machine, as far as kubelet keeps them.
    pub fn log_lines(&self, container: &str) -> Result<usize> {
        let script = format!("cat /var/log/pods/*/{container}/*.log | wc -l");
        let lines = self.execute(&["/bin/busybox", "sh", "-c", &script])?;
        lines.trim().parse().with_context(|| format!("no number: {lines}"))
    }

    /// Resident memory of the process with this name, in bytes.
    ///
    /// # Errors
    /// There is none.
    pub fn memory_of(&self, program: &str) -> Result<u64> {
        let script = format!("set -- $(pidof {program}); grep VmRSS /proc/$1/status");
        let line = self.execute(&["/bin/busybox", "sh", "-c", &script])?;
        let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no {program} runs on {}", self.name))? * 1024)
    }

    /// Boots, and boots again, as the machine's power allows. Ends with an error when the machine cannot be started.
    pub(super) async fn live(self: Arc<Self>) -> Result<()> {
        loop {
            self.until_button().await?;
            let mut machine = self.boot()?;
            self.power.send_modify(|power| *power = Power { on: true, answers: false, boots: power.boots + 1 });
            let rebooting = tokio::select! {
                status = self.run(&mut machine) => status?.code() == Some(ASKED_FOR_REBOOT),
                () = self.failure.notified() => false,
            };
            // Where the power failed there is much to end; after an orderly end there is nothing left.
            let _no_cgroup_yet = fs::write(self.cgroup.join("cgroup.kill"), "1");
            machine.kill()?;
            self.engine.stop().await;
            self.engine.set_silently(FakeEngine::IDLE, "");
            self.power.send_modify(|power| (power.on, power.answers) = (false, false));
            if rebooting {
                let RealReboots { down, comes_back, .. } = self.state().reboots;
                sleep(down).await;
                self.state().button |= comes_back;
            }
        }
    }

    /// From power-on to the end of the boot.
    async fn run(&self, machine: &mut Process) -> Result<ExitStatus> {
        tokio::select! {
            status = machine.wait(FOREVER) => return status,
            heard = self.resume_engine() => heard?,
        }
        self.power.send_modify(|power| power.answers = true);
        machine.wait(FOREVER).await
    }

    /// Waits until the machine may run.
    async fn until_button(&self) -> Result<()> {
        let mut power = self.power.subscribe();
        loop {
            if std::mem::take(&mut self.state().button) {
                return Ok(());
            }
            power.changed().await.context("the machine was dropped")?;
        }
    }

    fn boot(&self) -> Result<Process> {
        let (reboots, installed) = {
            let mut state = self.state();
            let reboots = state.reboots;
            (reboots, state.installed.take_if(|_| reboots.takes_update))
        };
        if let Some(version) = installed {
            write_os_release(&self.dir.join("root/etc/os-release"), &version)?;
            self.state().os_version = version;
        }
        let delay = format!("KUBELET_DELAY={}\n", reboots.kubelet.as_secs());
        fs::write(self.dir.join("root/etc/kubernetes/boot.env"), delay).context("writing the boot's settings")?;
        let mut command = Command::new(site::tools().join("boot.sh"));
        command.arg(&self.name).arg(self.dir.join("root")).arg(&self.cgroup);
        let binds = fs::read_to_string(self.dir.join("binds")).context("reading the list of binds")?;
        command.args(binds.lines());
        Process::spawn(&self.name, command, &self.dir.join("console.log"))
    }

    /// Puts `update_engine` on the bus as soon as there is one. Tried again and again: the socket of the boot before may
    /// lie there still, and says nothing when it comes alive.
    async fn resume_engine(&self) -> Result<()> {
        let attempts = async {
            while self.engine.resume().await.is_err() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(BOOT_LIMIT, attempts).await {
            Ok(()) => Ok(()),
            Err(_) => bail!("{} has no system bus {BOOT_LIMIT:?} after its start", self.name),
        }
    }

    async fn until_power(&self, what: &str, holds: impl Fn(Power) -> bool) -> Result<()> {
        let mut power = self.power.subscribe();
        let wait = power.wait_for(|power| holds(*power));
        crate::call::within(BOOT_LIMIT, format!("waiting for {} {what}", self.name), wait).await.map(drop)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node's address on the bridge.
fn address(index: usize) -> String {
    format!("10.88.1.{index}")
}

/// Makes the network namespace of a node: one interface, on the bridge.
fn connect(name: &str, index: usize) -> Result<()> {
    let bridge = super::namespaces::BRIDGE;
    for words in [
        format!("ip netns add {name}"),
        format!("ip link add port-{index} type veth peer name eth0 netns {name}"),
        format!("ip link set port-{index} master bridge up"),
        format!("ip -n {name} link set lo up"),
        format!("ip -n {name} addr add {}/16 dev eth0", address(index)),
        format!("ip -n {name} link set eth0 up"),
        format!("ip -n {name} route add default via {bridge}"),
    ] {
        run(&words)?;
    }
    // Pods are behind the node. In the node itself these settings are read-only.
    let forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
    output("ip", &["netns", "exec", name, "sh", "-c", forward]).map(drop)
}
