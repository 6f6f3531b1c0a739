//! The flags of the controller.

use std::time::Duration;

use clap::Parser;
use reboot_core::plan::Policy;
use reboot_core::quota::Quota;
use reboot_core::selector::Selector;
use reboot_runtime::args::{ClientArgs, LogArgs, ProbeArgs, duration};

/// The prefix of the environment variables: `--max-unavailable` is also `REBOOT_CONTROLLER_MAX_UNAVAILABLE`.
pub const ENV_PREFIX: &str = "REBOOT_CONTROLLER";

/// Grants reboots to the nodes that ask for them, within a quota of unavailable nodes
#[derive(Clone, Debug, Parser)]
#[command(name = "reboot-controller", version)]
pub struct Args {
    /// How many of the selected nodes may be unavailable at once: a number or a percentage; 0 grants nothing
    #[arg(long, default_value = "1", value_name = "NUMBER|PERCENT", allow_hyphen_values = true)]
    pub max_unavailable: Quota,

    /// Which nodes are granted reboots: a label selector as for kubectl -l [default: all]
    #[arg(long, default_value = "", value_name = "SELECTOR", hide_default_value = true)]
    pub node_selector: Selector,

    /// Namespace of the ledger and of the Lease
    #[arg(long, default_value = "reboot-operator", value_name = "NAME")]
    pub namespace: String,

    /// Node that this controller runs on; it is granted last [default: none]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// After how long a grant that no agent has taken up is withdrawn; 10s at least
    #[arg(long, value_parser = pickup_deadline, default_value = "2m", value_name = "DURATION", allow_hyphen_values = true)]
    pub pickup_deadline: Duration,

    #[command(flatten)]
    #[allow(missing_docs, reason = "a doc comment on a flattened struct would replace the help of the command")]
    pub probes: ProbeArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub log: LogArgs,

    #[command(flatten)]
    #[allow(missing_docs, reason = "as above")]
    pub client: ClientArgs,
}

/// An agent looks at its pods and budgets before it begins: with less time than that takes, grants would come and go for
/// ever.
fn pickup_deadline(text: &str) -> Result<Duration, String> {
    let deadline = duration(text)?;
    if deadline < Duration::from_secs(10) { Err("must be at least 10s".to_owned()) } else { Ok(deadline) }
}

impl Args {
    /// The settings of [`reboot_core::plan::plan`].
    pub fn policy(&self) -> Policy {
        Policy {
            quota: self.max_unavailable,
            selector: self.node_selector.clone(),
            pickup_deadline: self.pickup_deadline,
        }
    }
}

/// Parses the process's command line and environment; usage errors and `--help` end the process.
pub fn parse() -> Args {
    reboot_runtime::args::parse(ENV_PREFIX)
}
