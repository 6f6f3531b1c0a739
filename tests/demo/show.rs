//! The live view: watches the API and draws what it says.

use std::{convert::Infallible, future::pending, time::Duration};

use anyhow::{Context as _, Result};
use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{BoxStream, select_all},
};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Node, Pod},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, Client, Resource,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use reboot_tests::referee::history::PdbSeen;
use serde_json::Value;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::UnboundedReceiver,
    time::interval,
};

use crate::{
    board::{Board, Happened, Row, Slot},
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
}

impl Show {
    /// Starts to watch; `notes` are lines to show in between.
    pub(crate) fn new(client: &Client, quota: usize, notes: UnboundedReceiver<String>) -> Self {
        Self { board: Board::new(quota), events: events(client), notes }
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
        let picture = picture(&self.board, screen.elapsed());
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
    let pdbs = watcher(Api::all(client.clone()), everything()).default_backoff();
    let (namespace, name) = LEDGER;
    let ledger = everything().fields(&format!("metadata.name={name}"));
    let ledger = watcher(Api::namespaced(client.clone(), namespace), ledger).default_backoff();
    let all = select_all([
        nodes.map_ok(|event| Happened::Node(seen(event, |node: &Node| node.into()))).boxed(),
        pods.map_ok(|event| Happened::Pod(seen(event, |pod: &Pod| pod.into()))).boxed(),
        pdbs.map_ok(|event| Happened::Pdb(seen(event, budget))).boxed(),
        ledger.map_ok(|event| Happened::Slots(seen(event, slots))).boxed(),
    ]);
    all.filter_map(async |event| event.ok()).boxed()
}

/// What matters of the objects of an event.
fn seen<K: Resource, T>(event: Event<K>, see: impl Fn(&K) -> T) -> Event<(String, T)> {
    let see = |object: &K| (object.meta().uid.clone().unwrap_or_default(), see(object));
    match event {
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(see(&object)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(see(&object)),
        Event::Delete(object) => Event::Delete(see(&object)),
    }
}

/// A PDB and how many pods it lets go now.
fn budget(pdb: &PodDisruptionBudget) -> (PdbSeen, i32) {
    (pdb.into(), pdb.status.as_ref().map_or(0, |status| status.disruptions_allowed))
}

/// The slots of the ledger; one that cannot be read shows none.
fn slots(map: &ConfigMap) -> Vec<Slot> {
    let text = map.data.as_ref().and_then(|data| data.get("ledger"));
    let ledger: Value = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let slots = ledger["slots"].as_array().into_iter().flatten();
    let slot = |slot: &Value| {
        let forced = slot["id"].as_str().is_some_and(|id| id.contains(".now-"));
        Some(Slot { node: slot["node"].as_str()?.to_owned(), forced })
    };
    slots.filter_map(slot).collect()
}

fn picture(board: &Board, now: Duration) -> Vec<Line> {
    let done = board.rows().filter(|(_, row)| row.sight.phase == Phase::Done).count();
    let header = format!("slots in use: {}", board.slots_in_words());
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn ledger(text: &str) -> ConfigMap {
        let data = BTreeMap::from([("ledger".to_owned(), text.to_owned())]);
        ConfigMap { data: Some(data), ..ConfigMap::default() }
    }

    #[test]
    fn the_slots_are_read_from_the_ledger() {
        let slot = |node: &str, forced| Slot { node: node.to_owned(), forced };
        let text = r#"{"slots":[{"node":"node-2","id":"a.7"},{"node":"node-1","id":"b.now-8"},{"node":"node-3"}]}"#;
        assert_eq!(slots(&ledger(text)), [slot("node-2", false), slot("node-1", true), slot("node-3", false)]);
        assert_eq!(slots(&ledger("{")), []);
        assert_eq!(slots(&ConfigMap::default()), []);
    }

    #[test]
    fn columns_are_aligned_and_fit_a_terminal_of_80() {
        let mut board = Board::new(1);
        let waiting = r#"{"reason":"QuotaUsed","message":"the quota of 1 is used; its turn will come"}"#;
        for (name, notes) in [("node-1", vec![]), ("node-10", vec![("reboot-waiting", waiting)])] {
            let notes = notes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
            let node = reboot_tests::referee::history::NodeSeen {
                name: name.to_owned(),
                ready: true,
                notes,
                ..Default::default()
            };
            let event = Event::Apply((name.to_owned(), node));
            board.happened(Happened::Node(event), Duration::from_secs(1));
        }
        let picture = picture(&board, Duration::from_secs(3));
        let text: Vec<_> = picture.iter().map(|line| line.render(79, false)).collect();
        let expected = [
            "",
            "  slots in use: 0 of 1   done: 0 of 2   elapsed: 3.0s",
            "",
            "  NODE     PHASE                  FOR  CORDON  WAITS FOR",
            "  node-1   idle                  2.0s  -",
            "  node-10  waiting: QuotaUsed    2.0s  -       the quota of 1 is used; its tur…",
        ];
        assert_eq!(text, expected);
    }
}
