//! A private message bus, and fakes of the services that the agent knows from a node's system bus.
//!
//! Each fake answers for itself over its own connection and keeps its state while it is off the bus, so that a
//! simulated node can go down and come back: stop the fakes, stop the bus, start the bus, start the fakes.

mod engine;
mod logind;
mod service;
mod systemd;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::net::UnixStream;
use tokio::time;

use crate::process::Process;

pub use engine::{FakeEngine, Manner};
pub use logind::{Answer, FakeLogind, Inhibitor, RebootCall};
pub use systemd::FakeSystemd;

/// As whom the bus treats those who call `update_engine`; its access rules let root alone do that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// As root: everything is allowed.
    Root,
    /// As anybody else: receive, but not send.
    Stranger,
}

/// A dbus-daemon of its own, which dies with this value.
#[derive(Debug)]
pub struct Bus {
    dir: PathBuf,
    daemon: Option<Process>,
}

impl Bus {
    /// Starts a bus whose socket, configuration and log are in `dir`, which is created if need be.
    ///
    /// The path of a socket has at most 107 bytes, so `dir` must be short.
    ///
    /// # Errors
    /// There is no dbus-daemon, or it does not start; the end of its log is in the error. (A user whose ID has no name
    /// in the system's list of users is let in by no dbus-daemon.)
    pub async fn start(dir: &Path) -> Result<Self> {
        Self::start_for(Caller::Root, dir).await
    }

    /// Starts a bus that treats everybody as `caller`.
    ///
    /// # Errors
    /// As [`Bus::start`].
    pub async fn start_for(caller: Caller, dir: &Path) -> Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).context("creating the folder of the bus")?;
        let mut bus = Self { dir: dir.to_owned(), daemon: None };
        let uid = fs::metadata(dir).context("reading our user ID")?.uid();
        fs::write(dir.join("bus.conf"), configuration(&bus.socket(), uid, caller)).context("configuring the bus")?;
        bus.resume().await?;
        Ok(bus)
    }

    /// The address, in the form that the agent's `--bus-address` takes. It stays the same over restarts.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.socket().display())
    }

    /// Kills the bus, as if by accident: every connection breaks, and the address leads nowhere.
    ///
    /// # Errors
    /// The daemon cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), |mut daemon| daemon.kill().map(drop))
    }

    /// Starts the bus again after [`Bus::kill`], and returns when it listens.
    ///
    /// # Errors
    /// As [`Bus::start`].
    pub async fn resume(&mut self) -> Result<()> {
        self.kill()?;
        let mut command = Command::new("dbus-daemon");
        command.args(["--nofork", "--nopidfile", "--nosyslog"]);
        command.arg(format!("--config-file={}", self.dir.join("bus.conf").display()));
        let mut daemon = Process::spawn("dbus-daemon", command, &self.dir.join("bus.log"))?;
        let listening = self.listening(&mut daemon);
        time::timeout(Duration::from_secs(10), listening).await.context("waiting for dbus-daemon")??;
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Waits until the daemon listens. It can tell nobody but whoever tries, as its output goes to its log.
    async fn listening(&self, daemon: &mut Process) -> Result<()> {
        let mut pause = time::interval(Duration::from_millis(2));
        while UnixStream::connect(self.socket()).await.is_err() {
            ensure!(daemon.ended()?.is_none(), "dbus-daemon ended: {}", daemon.log_tail(5));
            pause.tick().await;
        }
        Ok(())
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("bus")
    }
}

/// The rules of a system bus: signals and answers flow, while a name or a method call needs permission. Then those of
/// the three services, of which `update_engine`'s are the strict ones.
fn configuration(socket: &Path, uid: u32, caller: Caller) -> String {
    let call_engine = match caller {
        Caller::Root => r#"<allow send_destination="com.coreos.update1"/>"#,
        Caller::Stranger => "",
    };
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <deny own="*"/>
    <deny send_type="method_call"/>
    <allow send_type="signal"/>
    <allow send_requested_reply="true" send_type="method_return"/>
    <allow send_requested_reply="true" send_type="error"/>
    <allow receive_type="method_call"/>
    <allow receive_type="method_return"/>
    <allow receive_type="error"/>
    <allow receive_type="signal"/>
    <allow send_destination="org.freedesktop.DBus"/>
    <allow send_destination="org.freedesktop.login1"/>
    <allow send_destination="org.freedesktop.systemd1"/>
    <deny send_destination="com.coreos.update1"/>
    <allow receive_sender="com.coreos.update1"/>
  </policy>
  <policy user="{uid}">
    <allow own="org.freedesktop.login1"/>
    <allow own="org.freedesktop.systemd1"/>
    <allow own="com.coreos.update1"/>
    {call_engine}
  </policy>
</busconfig>
"#,
        socket = socket.display(),
    )
}
