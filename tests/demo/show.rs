//! The live view: watches the API and draws what it says.

use std::{convert::Infallible, future::pending, time::Duration};

use anyhow::{Context as _, Result};
use futures::{
    StreamExt as _,
    stream::{BoxStream, select_all},
};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    time::interval,
};

use crate::{
    board::{Board, Happened, Row},
    line::{Line, Style, duration},
    phase::{Cordon, Phase},
    screen::{Screen, TICK},
};

/// The ConfigMap that holds the slots, as the README names it.
const LEDGER: (&str, &str) = ("reboot-operator", "reboot-slots");

/// The live view.
pub(crate) struct Show {
    /// What the API says.
    pub(crate) board: Board,
    events: BoxStream<'static, Happened>,
    notes: UnboundedReceiver<String>,
    quota: usize,
}

impl Show {
    /// Starts to watch; `notes` are lines to show in between.
    pub(crate) fn new(client: &Client, quota: usize, notes: UnboundedReceiver<String>) -> Self {
        Self { board: Board::default(), events: events(client), notes, quota }
    }

    /// Shows what happens, for as long as it is polled.
    pub(crate) async fn run(&mut self, screen: &mut Screen) -> Result<Infallible> {
        let mut resized = signal(SignalKind::window_change()).context("listening for SIGWINCH")?;
        let mut tick = interval(TICK);
        loop {
            tokio::select! {
                Some(happened) = self.events.next() => {
                    for change in self.board.happened(happened, screen.elapsed()) {
                        screen.log(&change)?;
                    }
                }
                Some(note) = self.notes.recv() => self.note(screen, &note)?,
                Some(()) = resized.recv() => screen.measure().await,
                _ = tick.tick() => self.draw(screen)?,
                else => pending().await,
            }
        }
    }

    /// Draws the state once more.
    pub(crate) fn draw(&self, screen: &mut Screen) -> Result<()> {
        let picture = picture(&self.board, self.quota, screen.elapsed());
        screen.draw(&picture).context("writing to the terminal")
    }

    fn note(&self, screen: &mut Screen, note: &str) -> Result<()> {
        if screen.is_terminal() {
            screen.say(&Line::default().and(Style::Yellow, "  > ").and(Style::Plain, note))?;
            return self.draw(screen);
        }
        screen.log(note).context("writing to the standard output")
    }
}

/// Everything that the board wants to know. A watch that fails is tried again with kube's backoff.
fn events(client: &Client) -> BoxStream<'static, Happened> {
    let everything = watcher::Config::default;
    let nodes = watcher(Api::all(client.clone()), everything()).default_backoff();
    let pods = watcher(Api::all(client.clone()), everything()).default_backoff();
    let (namespace, name) = LEDGER;
    let ledger = everything().fields(&format!("metadata.name={name}"));
    let ledger = watcher(Api::namespaced(client.clone(), namespace), ledger).default_backoff();
    let all = select_all([
        nodes.map(|event| event.map(Happened::Node)).boxed(),
        pods.map(|event| event.map(Happened::Pod)).boxed(),
        ledger.map(|event| event.map(Happened::Slots)).boxed(),
    ]);
    all.filter_map(async |event| event.ok()).boxed()
}

fn picture(board: &Board, quota: usize, now: Duration) -> Vec<Line> {
    let done = board.rows().filter(|(_, row)| row.sight.phase == Phase::Done).count();
    let slots = board.slots();
    let holders = if slots.is_empty() { String::new() } else { format!(" ({})", slots.join(", ")) };
    let header = format!("slots in use: {} of {quota}{holders}", slots.len());
    let rest = format!("   done: {done} of {}   elapsed: {}", board.rows().count(), duration(now));
    let width = board.rows().map(|(_, row)| row.sight.words.len()).fold(18, usize::max);
    let titles = format!("  {:<7}  {:<width$}  {:>6}  {:<6}  WAITS FOR", "NODE", "PHASE", "FOR", "CORDON");
    let mut lines = vec![
        Line::default(),
        Line::text("  ").and(Style::Bold, header).and(Style::Plain, rest),
        Line::default(),
        Line::default().and(Style::Dim, titles),
    ];
    lines.extend(board.rows().map(|(name, row)| line(name, row, width, now)));
    lines.push(Line::default());
    lines
}

fn line(name: &str, row: &Row, width: usize, now: Duration) -> Line {
    let sight = &row.sight;
    let style = match sight.phase {
        Phase::Idle => Style::Dim,
        Phase::Asks | Phase::Waiting => Style::Yellow,
        Phase::Granted | Phase::Draining | Phase::Rebooting | Phase::Booting => Style::Cyan,
        Phase::Done => Style::Green,
    };
    let cordon = if sight.cordon == Cordon::None { Style::Dim } else { Style::Bold };
    let time = duration(now.saturating_sub(row.since));
    Line::text(format!("  {name:<7}  "))
        .and(style, format!("{:<width$}", sight.words))
        .and(Style::Plain, format!("  {time:>6}  "))
        .and(cordon, format!("{:<6}", sight.cordon.who()))
        .and(Style::Plain, format!("  {}", sight.waits_for))
}
