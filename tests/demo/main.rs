//! `make demo`: nodes take an update and reboot, live, and a referee judges.
//!
//! It knows of the operator what a person with kubectl can see: nothing here is read from the operator's processes.

mod board;
mod cluster;
mod inside;
mod line;
mod phase;
mod report;
mod run;
mod screen;
mod settings;
mod show;
mod stage;

use std::process::ExitCode;

use anyhow::{Context as _, Result};
use reboot_tests::{real::namespaces, scratch::Scratch};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};

use line::{Line, Style};
use screen::Screen;
use settings::Settings;

/// How the demo ended, and the error if there was one.
enum End {
    Over(Result<()>),
    Interrupted,
}

fn main() -> ExitCode {
    let settings = settings::parse();
    let outside = settings.nodes.real && namespaces::inside().is_none();
    let ended = if outside { inside::rerun() } else { demo(&settings) };
    ended.unwrap_or_else(|error| {
        let _nowhere_to_say = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("demo: {error:#}\n"));
        ExitCode::FAILURE
    })
}

fn demo(settings: &Settings) -> Result<ExitCode> {
    let scratch = Scratch::new("demo")?;
    let runtime = Runtime::new().context("starting the runtime")?;
    let mut screen = runtime.block_on(Screen::new());
    let mut verdict = None;
    let end = runtime.block_on(async {
        tokio::select! {
            signal = interrupted() => signal.map_or_else(|error| End::Over(Err(error)), |()| End::Interrupted),
            result = run::run(settings, scratch.path(), &mut screen, &mut verdict) => End::Over(result),
        }
    });
    screen.keep()?;
    if matches!(end, End::Interrupted) {
        screen.say(&Line::default())?;
        screen.say(&Line::text("Interrupted: ending all processes of the demo."))?;
    }
    // Ends every process that is left.
    drop(runtime);
    let code = conclude(&end, verdict, &mut screen)?;
    match (&end, verdict) {
        (End::Interrupted, None | Some(true)) | (End::Over(Ok(())), Some(true)) => drop(scratch),
        _ => {
            let dir = scratch.path().display();
            screen.say(&Line::text(format!("The logs are in {dir}: *.log, node-*/*.log, cp/log/")))?;
            // The folder stays.
            std::mem::forget(scratch);
        }
    }
    Ok(code)
}

/// The last words, and the exit code. What was judged before an interrupt counts: with `KEEP` that is the way out.
fn conclude(end: &End, verdict: Option<bool>, screen: &mut Screen) -> Result<ExitCode> {
    let (style, text, code) = match (end, verdict) {
        (End::Over(Err(error)), _) => (Style::Red, format!("The demo failed: {error:#}"), ExitCode::FAILURE),
        (End::Interrupted, None) => (Style::Plain, "All of them have ended.".to_owned(), ExitCode::from(130)),
        (End::Interrupted, Some(true)) => (Style::Plain, "All of them have ended.".to_owned(), ExitCode::SUCCESS),
        (End::Over(Ok(())), Some(true)) => (Style::Green, "All is well.".to_owned(), ExitCode::SUCCESS),
        (_, _) => (Style::Red, "The operator did not keep its promises: see above.".to_owned(), ExitCode::FAILURE),
    };
    screen.say(&Line::default().and(style, text))?;
    Ok(code)
}

/// Returns when the demo shall end early: Ctrl-C, a termination, or a terminal that was closed.
async fn interrupted() -> Result<()> {
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut int, mut term) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let mut hup = listen(SignalKind::hangup())?;
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
        _ = hup.recv() => {}
    }
    Ok(())
}
