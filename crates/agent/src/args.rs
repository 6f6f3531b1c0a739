//! The flags of the agent.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser, ValueEnum};
use reboot_core::step::{OnDrainBlocked, OnDrainTimeout, Policy};
use reboot_runtime::args::{ClientArgs, LogArgs, ProbeArgs, duration};

use crate::drain_args::DrainArgs;
use crate::host::{BOOT_ID_FILE, OS_RELEASE_FILE};

/// The prefix of the environment variables: `--drain-timeout` is also `REBOOT_AGENT_DRAIN_TIMEOUT`.
pub const ENV_PREFIX: &str = "REBOOT_AGENT";

/// Drains and reboots the node that it runs on, when it is permitted to
#[derive(Clone, Debug, Parser)]
#[command(name = "reboot-agent", version)]
pub struct Args {
    /// Name of the Node that this agent is for
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub node_name: String,

    /// D-Bus address of the host's system bus [default: the standard socket]
    #[arg(long, value_name = "ADDRESS")]
    pub bus_address: Option<String>,

    /// How long a drain may take
    #[arg(long, value_parser = duration, default_value = "10m", value_name = "DURATION", allow_hyphen_values = true)]
    pub drain_timeout: Duration,

    /// What happens when a drain takes longer
    #[arg(long, value_enum, default_value_t = TimedOut::GiveUp, value_name = "ACTION")]
    pub on_drain_timeout: TimedOut,

    /// What happens when, before the cordon, something is in the way: a budget, a pod that is to stay, or a lock on shutdowns
    #[arg(long, value_enum, default_value_t = Blocked::GiveUp, value_name = "ACTION")]
    pub on_drain_blocked: Blocked,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment on a flattened struct would replace the help of the command")]
    pub drain: DrainArgs,

    /// No reboot is asked for earlier than this after the boot
    #[arg(long, value_parser = duration, default_value = "2m", value_name = "DURATION", allow_hyphen_values = true)]
    pub min_uptime: Duration,

    /// File that holds the boot ID of the machine
    #[arg(long, default_value = BOOT_ID_FILE, value_name = "FILE")]
    pub boot_id_file: PathBuf,

    /// File that tells the operating system version of the machine
    #[arg(long, default_value = OS_RELEASE_FILE, value_name = "FILE")]
    pub os_release_file: PathBuf,

    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub probes: ProbeArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub log: LogArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub client: ClientArgs,
}

/// `--on-drain-timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TimedOut {
    /// Uncordon and hand the slot back; the other nodes go first
    GiveUp,
    /// Reboot with the pods that are left
    Reboot,
}

/// `--on-drain-blocked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Blocked {
    /// Hand the slot back without a cordon; the other nodes go first
    GiveUp,
    /// Cordon and drain all the same
    Drain,
}

impl Args {
    /// The settings of [`reboot_core::step::step`].
    pub fn policy(&self) -> Policy {
        Policy {
            drain_timeout: self.drain_timeout,
            on_drain_timeout: match self.on_drain_timeout {
                TimedOut::GiveUp => OnDrainTimeout::GiveUp,
                TimedOut::Reboot => OnDrainTimeout::Reboot,
            },
            on_drain_blocked: match self.on_drain_blocked {
                Blocked::GiveUp => OnDrainBlocked::GiveUp,
                Blocked::Drain => OnDrainBlocked::Drain,
            },
            min_uptime: self.min_uptime,
            drain: self.drain.rules(),
        }
    }

    /// Flags that contradict each other, in words.
    pub fn contradiction(&self) -> Option<String> {
        let never = self.drain_timeout.is_zero() && self.on_drain_timeout == TimedOut::GiveUp;
        let never = never.then_some("--drain-timeout is 0: with --on-drain-timeout=give-up no drain would ever end");
        never.map(str::to_owned).or_else(|| self.drain.contradiction(self.drain_timeout))
    }
}

/// Parses the process's command line and environment; usage errors and `--help` end the process.
pub fn parse() -> Args {
    let args: Args = reboot_runtime::args::parse(ENV_PREFIX);
    if let Some(words) = args.contradiction() {
        Args::command().error(ErrorKind::ArgumentConflict, words).exit();
    }
    args
}
