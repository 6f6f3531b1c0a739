//! Log lines on stderr, as text for people or as JSON for machines.

use std::io;

use anyhow::{Context as _, Result, anyhow};
use tracing_subscriber::EnvFilter;

use crate::args::{LogArgs, LogFormat};

/// Sets up logging for the whole process; called once, first of all.
///
/// # Errors
/// When the filter does not parse, or when logging was set up before.
pub fn init(args: &LogArgs) -> Result<()> {
    let lines = tracing_subscriber::fmt().with_env_filter(filter(&args.log_filter)?).with_writer(io::stderr);
    match args.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    }
    .map_err(|error| anyhow!(error).context("setting up the logs"))
}

fn filter(text: &str) -> Result<EnvFilter> {
    // Not `EnvFilter::new`: it drops what it does not understand.
    EnvFilter::builder().parse(text).with_context(|| format!("reading the log filter {text:?}"))
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
