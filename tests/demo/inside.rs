//! Real nodes need namespaces of their own: the demo runs itself again in there.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use reboot_tests::real::namespaces;
use tokio::{process::Command, runtime::Runtime};

/// Runs the demo inside, and ends as it ends.
pub(crate) fn rerun() -> Result<ExitCode> {
    let missing = namespaces::missing();
    if !missing.is_empty() {
        bail!("real nodes are not to be had here: {}", missing.join("; "));
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (command, mut place) = namespaces::rerun(&arguments)?;
    let status = Runtime::new().context("starting the runtime")?.block_on(async {
        let mut demo = Command::from(command).spawn().context("starting the demo in namespaces")?;
        loop {
            tokio::select! {
                status = demo.wait() => return status.context("waiting for the demo"),
                // A terminal tells both of us. The one inside ends what it has started, and we stay until it has.
                _ = tokio::signal::ctrl_c() => {}
            }
        }
    })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    if !matches!(code, 0 | 130) {
        // Named in its last words.
        drop(place.keep_files());
    }
    Ok(ExitCode::from(code))
}
