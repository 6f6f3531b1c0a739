//! Log lines on stderr, as text for people or as JSON for machines.

use std::io;

use anyhow::{Context as _, Result};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, registry};

use crate::args::{LogArgs, LogFormat};

/// Sets up logging for the whole process; called once, first of all.
///
/// # Errors
/// When the filter does not parse, or when logging was set up before.
pub fn init(args: &LogArgs) -> Result<()> {
    let filter = filter(&args.log_filter)?;
    let lines = fmt::layer().with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => registry().with(lines.with_filter(filter)).try_init(),
        LogFormat::Json => registry().with(lines.json().flatten_event(true).with_filter(filter)).try_init(),
    }
    .context("setting up the logs")
}

/// Levels by target are all that is needed here; filters by span and field would cost each agent a regex engine.
fn filter(text: &str) -> Result<Targets> {
    text.parse().with_context(|| format!("reading the log filter {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_does_not_parse_is_an_error_that_names_it() {
        for (text, accepted) in
            [("info", true), ("", true), ("warn,kube=debug", true), ("kube=loud", false), ("info,a=b=c", false)]
        {
            match filter(text) {
                Ok(_) => assert!(accepted, "{text}"),
                Err(error) => assert!(!accepted && format!("{error:#}").contains(text), "{text}: {error:#}"),
            }
        }
    }
}
