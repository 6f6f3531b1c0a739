//! The flags that both binaries have, and the rule that gives each flag its environment variable.

use std::{env, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Command, Parser, ValueEnum};
use jiff::SignedDuration;

/// How and what the process logs.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Form of the log lines on stderr
    #[arg(long, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    pub log_format: LogFormat,

    /// What is logged: a level, or a list such as info,kube=debug
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_filter: String,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which API server to talk to, with kubectl's meaning of the flags.
#[derive(Args, Clone, Debug, Default)]
pub struct ClientArgs {
    /// Kubeconfig file [default: KUBECONFIG, then ~/.kube/config, then the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig [default: its current context]
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// Where the probes and the metrics are served.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// Address of /livez, /readyz and /metrics
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
}

/// Parses the process's command line and environment; usage errors and `--help` end the process, as clap has it.
///
/// Every flag can also be given as `<prefix>_<FLAG>`: with the prefix `REBOOT_AGENT`, `--node-name` is
/// `REBOOT_AGENT_NODE_NAME`. The flag wins over the variable. An argument that declares a variable itself (`env =
/// "NODE_NAME"`) has both, and the one with the prefix wins.
pub fn parse<A: Parser>(prefix: &str) -> A {
    let mut command = command::<A>(prefix);
    let mut matches = command.get_matches_mut();
    A::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut command).exit())
}

/// The command that [`parse`] parses with, for tests and for the documentation of the flags.
pub fn command<A: Parser>(prefix: &str) -> Command {
    A::command().mut_args(|arg| {
        let Some(long) = arg.get_long() else { return arg };
        let name = format!("{prefix}_{}", long.replace('-', "_").to_uppercase());
        let declared_counts = arg.get_env().is_some_and(|declared| env::var_os(declared).is_some());
        if declared_counts && env::var_os(&name).is_none() {
            return arg;
        }
        // clap wants names that live as long as the process; there is one for each flag.
        let name: &'static str = name.leak();
        arg.env(name)
    })
}

/// The longest duration that a flag accepts: far beyond any use, and small enough that adding it to a point in time
/// cannot overflow.
pub const LONGEST: Duration = Duration::from_hours(365 * 24);

/// A value parser for durations such as `10m`, `1h30m` or `90s`; also ISO 8601 (`PT10M`).
///
/// # Errors
/// Says what is wrong, for values that are not a duration, are negative, or exceed [`LONGEST`].
pub fn duration(text: &str) -> Result<Duration, String> {
    let signed: SignedDuration =
        text.trim().parse().map_err(|error| format!("not a duration such as 10m, 1h30m or 90s: {error}"))?;
    let duration = Duration::try_from(signed).map_err(|_| "a duration cannot be negative".to_owned())?;
    if duration > LONGEST {
        return Err("longer than a year".to_owned());
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::ffi::OsStr;

    use clap::FromArgMatches as _;

    use super::*;

    #[derive(Parser, Debug)]
    struct Example {
        #[command(flatten)]
        log: LogArgs,
        #[command(flatten)]
        client: ClientArgs,
        #[command(flatten)]
        probes: ProbeArgs,
        #[arg(long, env = "CARGO_PKG_NAME")]
        declared_and_set: String,
        #[arg(long, env = "REBOOT_NOBODY_SETS_THIS")]
        declared_only: Option<String>,
        #[arg(long, value_parser = duration, default_value = "10m")]
        drain_timeout: Duration,
    }

    fn check_duration(text: &str, expected: Result<u64, &str>) {
        match (duration(text), expected) {
            (Ok(found), Ok(seconds)) => assert_eq!(found, Duration::from_secs(seconds), "{text}"),
            (Err(found), Err(words)) => assert!(found.contains(words), "{text}: {found}"),
            (found, _) => panic!("{text}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn durations_are_friendly_positive_and_bounded() {
        for (text, expected) in [
            ("10m", Ok(600)),
            ("1h30m", Ok(5400)),
            ("1h 30m", Ok(5400)),
            ("90s", Ok(90)),
            (" 2m ", Ok(120)),
            ("0s", Ok(0)),
            ("PT10M", Ok(600)),
            ("-1s", Err("negative")),
            ("10m ago", Err("negative")),
            ("10", Err("such as 10m")),
            ("", Err("such as 10m")),
            ("ten minutes", Err("such as 10m")),
            ("9000h", Err("longer than a year")),
            ("9223372036854775807s", Err("longer than a year")),
        ] {
            check_duration(text, expected);
        }
    }

    #[test]
    fn every_flag_has_a_variable_named_after_it() {
        let command = command::<Example>("REBOOT_TEST");
        let name_of = |flag: &str| {
            let arg = command.get_arguments().find(|arg| arg.get_long() == Some(flag)).unwrap();
            arg.get_env().and_then(OsStr::to_str).unwrap().to_owned()
        };
        for (flag, name) in [
            ("log-format", "REBOOT_TEST_LOG_FORMAT"),
            ("log-filter", "REBOOT_TEST_LOG_FILTER"),
            ("kubeconfig", "REBOOT_TEST_KUBECONFIG"),
            ("context", "REBOOT_TEST_CONTEXT"),
            ("listen", "REBOOT_TEST_LISTEN"),
            ("drain-timeout", "REBOOT_TEST_DRAIN_TIMEOUT"),
            ("declared-only", "REBOOT_TEST_DECLARED_ONLY"),
            ("declared-and-set", "CARGO_PKG_NAME"),
        ] {
            assert_eq!(name_of(flag), name);
        }
    }

    #[test]
    fn a_declared_variable_is_read_where_the_prefixed_one_is_not_set() {
        let matches = command::<Example>("REBOOT_TEST").try_get_matches_from(["example"]).unwrap();
        let example = Example::from_arg_matches(&matches).unwrap();
        assert_eq!(example.declared_and_set, env!("CARGO_PKG_NAME"));
        assert_eq!(example.declared_only, None);
        assert_eq!(example.drain_timeout, Duration::from_mins(10));
        assert_eq!(example.log.log_format, LogFormat::Text);
        assert_eq!(example.probes.listen, SocketAddr::from(([0, 0, 0, 0], 8080)));
        assert!(example.client.kubeconfig.is_none());
    }

    #[test]
    fn the_flags_pass_claps_own_checks() {
        command::<Example>("REBOOT_TEST").debug_assert();
    }
}
