//! What the API shows of the whole run, kept up to date event by event. Time is an argument.

use std::{collections::BTreeMap, time::Duration};

use kube::runtime::watcher::Event;
use reboot_tests::referee::history::{NodeSeen, PdbSeen, PodSeen};

use crate::phase::{Cordon, Phase, Sight};

/// An event of one of the watches: objects by their UIDs.
#[derive(Debug)]
pub(crate) enum Happened {
    /// Of the Nodes.
    Node(Event<(String, NodeSeen)>),
    /// Of the Pods.
    Pod(Event<(String, PodSeen)>),
    /// Of the PDBs, each with the number of pods that it lets go now.
    Pdb(Event<(String, (PdbSeen, i32))>),
    /// Of the ledger: its slots.
    Slots(Event<(String, Vec<Slot>)>),
}

/// A slot of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The node that holds it.
    pub(crate) node: String,
    /// A person forced it: the quota has no say, and does not count it.
    pub(crate) forced: bool,
}

/// The nodes, how long each has been in each phase, and the slots of the ledger.
#[derive(Debug, Default)]
pub(crate) struct Board {
    nodes: Living<NodeSeen>,
    pods: Living<PodSeen>,
    pdbs: Living<(PdbSeen, i32)>,
    ledger: Living<Vec<Slot>>,
    rows: BTreeMap<(usize, String), Row>,
    slots: Vec<Slot>,
    most_slots: usize,
    most_in_cycle: usize,
    quota: usize,
}

/// One node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Row {
    /// How it looks now.
    pub(crate) sight: Sight,
    /// Since when it is in its phase.
    pub(crate) since: Duration,
    /// When it began to ask, the last time that it did.
    pub(crate) asked: Option<Duration>,
    /// When it got the permission, the last time that it did.
    pub(crate) granted: Option<Duration>,
    /// How long it was in each phase, since it began to ask.
    pub(crate) spent: BTreeMap<Phase, Duration>,
    /// Every boot ID that was seen, in order.
    pub(crate) boots: Vec<String>,
}

impl Board {
    /// An empty one; this is the quota of the run.
    pub(crate) fn new(quota: usize) -> Self {
        Self { quota, ..Self::default() }
    }

    /// Takes in an event that came at this time; returns what has changed, for people.
    pub(crate) fn happened(&mut self, happened: Happened, at: Duration) -> Vec<String> {
        match happened {
            Happened::Node(event) => self.nodes.take_in(event),
            Happened::Pod(event) => self.pods.take_in(event),
            Happened::Pdb(event) => self.pdbs.take_in(event),
            Happened::Slots(event) => self.ledger.take_in(event),
        }
        let mut changes = self.update_rows(at);
        if self.update_slots() {
            changes.push(format!("{:<8} in use: {}", "slots", self.slots_in_words()));
        }
        changes
    }

    /// The nodes in the order of their numbers.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &Row)> {
        self.rows.iter().map(|((_, name), row)| (name.as_str(), row))
    }

    /// The slots that are taken.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots in words, those that count towards the quota first: `1 of 2 (node-1), forced: node-3`.
    pub(crate) fn slots_in_words(&self) -> String {
        let names = |forced| {
            let slots = self.slots.iter().filter(|slot| slot.forced == forced);
            slots.map(|slot| slot.node.as_str()).collect::<Vec<_>>()
        };
        let (granted, forced) = (names(false), names(true));
        let of = |names: &[&str], before: &str, after: &str| match names {
            [] => String::new(),
            names => format!("{before}{}{after}", names.join(", ")),
        };
        format!("{} of {}{}{}", granted.len(), self.quota, of(&granted, " (", ")"), of(&forced, ", forced: ", ""))
    }

    /// The most slots that ever counted towards the quota at a time.
    pub(crate) fn most_slots(&self) -> usize {
        self.most_slots
    }

    /// The most nodes that were ever between permission and return at a time.
    pub(crate) fn most_in_cycle(&self) -> usize {
        self.most_in_cycle
    }

    fn update_rows(&mut self, at: Duration) -> Vec<String> {
        let mut changes = Vec::new();
        let seen: BTreeMap<_, _> = self.nodes.now.values().map(|node| (order(&node.name), node)).collect();
        let spent: Vec<_> = self.pdbs.now.values().filter(|(_, allowed)| *allowed == 0).map(|(pdb, _)| pdb).collect();
        self.rows.retain(|key, _| seen.contains_key(key));
        for (key, node) in seen {
            let evictable = |pod: &&PodSeen| pod.evictable && pod.node == node.name;
            let pods: Vec<_> = self.pods.now.values().filter(evictable).collect();
            let sight = Sight::of(node, &pods, &spent);
            let known = self.rows.contains_key(&key);
            let row = self.rows.entry(key).or_insert_with(|| Row { since: at, ..Row::default() });
            if known && (&row.sight.words, row.sight.cordon) != (&sight.words, sight.cordon) {
                changes.push(change(&node.name, row.sight.cordon, &sight));
            }
            row.see(sight, at);
            if row.boots.last() != Some(&node.boot_id) {
                row.boots.push(node.boot_id.clone());
            }
        }
        let in_cycle = |row: &&Row| (Phase::Granted..=Phase::Booting).contains(&row.sight.phase);
        self.most_in_cycle = self.most_in_cycle.max(self.rows.values().filter(in_cycle).count());
        changes
    }

    /// Whether the slots have changed.
    fn update_slots(&mut self) -> bool {
        let slots: Vec<_> = self.ledger.now.values().flatten().cloned().collect();
        let changed = slots != self.slots;
        self.slots = slots;
        self.most_slots = self.most_slots.max(self.slots.iter().filter(|slot| !slot.forced).count());
        changed
    }
}

impl Row {
    fn see(&mut self, sight: Sight, at: Duration) {
        let (from, to) = (self.sight.phase, sight.phase);
        self.sight = sight;
        if from == to {
            return;
        }
        if matches!(from, Phase::Idle | Phase::Done) {
            self.spent.clear();
            self.asked = Some(at);
        } else {
            *self.spent.entry(from).or_default() += at.saturating_sub(self.since);
        }
        let before_grant = |phase| phase < Phase::Granted || phase == Phase::Done;
        if before_grant(from) && !before_grant(to) {
            self.granted = Some(at);
        }
        self.since = at;
    }
}

/// The living objects of one watch, as far as they matter.
#[derive(Debug)]
struct Living<T> {
    now: BTreeMap<String, T>,
    /// While the watch starts over, what it has listed so far.
    listed: BTreeMap<String, T>,
}

impl<T> Default for Living<T> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), listed: BTreeMap::new() }
    }
}

impl<T> Living<T> {
    fn take_in(&mut self, event: Event<(String, T)>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitApply((uid, object)) => drop(self.listed.insert(uid, object)),
            Event::InitDone => self.now = std::mem::take(&mut self.listed),
            Event::Apply((uid, object)) => drop(self.now.insert(uid, object)),
            Event::Delete((uid, _)) => drop(self.now.remove(&uid)),
        }
    }
}

/// `node-10` comes after `node-9`.
fn order(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

fn change(node: &str, before: Cordon, sight: &Sight) -> String {
    let waits_for = if sight.phase == Phase::Waiting { format!(": {}", sight.waits_for) } else { String::new() };
    let cordon = match sight.cordon {
        now if now == before => "",
        Cordon::None => ", uncordoned",
        Cordon::Agent => ", cordoned by its agent",
        Cordon::Person => ", cordoned by a person",
    };
    format!("{node:<8} {}{waits_for}{cordon}", sight.words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTED: (&str, &str) = ("reboot", "a.7");
    const DRAINING: (&str, &str) = ("reboot-in-progress", r#"{"phase":"draining","id":"a.7","cordoned":true}"#);
    const REBOOTING: (&str, &str) = ("reboot-in-progress", r#"{"phase":"rebooting","id":"a.7","cordoned":true}"#);
    const NEEDED: (&str, &str) = ("reboot-needed", "x");
    const DONE: (&str, &str) = ("last-reboot", r#"{"outcome":"rebooted"}"#);

    fn node(name: &str, boot: &str, notes: &[(&str, &str)]) -> (String, NodeSeen) {
        let notes = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (name, boot_id) = (name.to_owned(), boot.to_owned());
        (name.clone(), NodeSeen { name, boot_id, ready: true, notes, ..NodeSeen::default() })
    }

    fn seen(board: &mut Board, second: u64, boot: &str, notes: &[(&str, &str)]) -> Vec<String> {
        let event = Event::Apply(node("node-2", boot, notes));
        board.happened(Happened::Node(event), Duration::from_secs(second))
    }

    fn row<'a>(board: &'a Board, wanted: &str) -> &'a Row {
        board.rows().find(|(name, _)| *name == wanted).map(|(_, row)| row).unwrap()
    }

    #[test]
    fn the_time_in_each_phase_adds_up_to_the_whole_cycle() {
        let mut board = Board::default();
        assert_eq!(seen(&mut board, 0, "a", &[]), [""; 0], "what was there before is no change");
        assert_eq!(seen(&mut board, 1, "a", &[NEEDED]), ["node-2   asks"]);
        assert_eq!(seen(&mut board, 3, "a", &[NEEDED, GRANTED]), ["node-2   granted"]);
        assert_eq!(seen(&mut board, 4, "a", &[NEEDED, GRANTED, DRAINING]), ["node-2   drained"]);
        assert_eq!(seen(&mut board, 5, "a", &[NEEDED, GRANTED, DRAINING]), [""; 0]);
        seen(&mut board, 9, "a", &[NEEDED, GRANTED, REBOOTING]);
        seen(&mut board, 14, "b", &[NEEDED, GRANTED, REBOOTING]);
        assert_eq!(seen(&mut board, 20, "b", &[DONE]), ["node-2   done"]);
        let Row { asked, granted, since, spent, boots, .. } = row(&board, "node-2");
        assert_eq!(boots, &["a", "b"]);
        let second = Duration::from_secs;
        assert_eq!((*asked, *granted, *since), (Some(second(1)), Some(second(3)), second(20)));
        assert_eq!(spent.values().copied().collect::<Vec<_>>(), [2, 1, 5, 5, 6].map(second));

        assert_eq!(board.most_in_cycle(), 1);

        seen(&mut board, 30, "b", &[DONE, NEEDED]);
        let Row { asked, spent, .. } = row(&board, "node-2");
        assert!(spent.is_empty() && *asked == Some(second(30)), "the next cycle starts anew");
    }

    #[test]
    fn a_drain_counts_the_pods_that_have_to_go() {
        let mut board = Board::default();
        seen(&mut board, 0, "a", &[DRAINING]);
        let mut pod = |uid: &str, node: &str, evictable, gone| {
            let pod = PodSeen { node: node.to_owned(), evictable, ..PodSeen::default() };
            let pod = (uid.to_owned(), pod);
            let event = if gone { Event::Delete(pod) } else { Event::Apply(pod) };
            board.happened(Happened::Pod(event), Duration::from_secs(1))
        };
        assert_eq!(pod("1", "node-2", true, false), ["node-2   draining 1 pod"]);
        assert_eq!(pod("2", "node-2", false, false), [""; 0], "of a DaemonSet");
        assert_eq!(pod("3", "node-1", true, false), [""; 0], "elsewhere");
        assert_eq!(pod("1", "node-2", true, true), ["node-2   drained"]);
    }

    #[test]
    fn slots_are_told_and_the_highest_number_of_granted_ones_is_kept() {
        let mut board = Board::new(2);
        let mut slots = |slots: &[(&str, bool)]| {
            let slots = slots.iter().map(|&(node, forced)| Slot { node: node.to_owned(), forced }).collect();
            board.happened(Happened::Slots(Event::Apply(("ledger".to_owned(), slots))), Duration::ZERO)
        };
        assert_eq!(slots(&[]), [""; 0]);
        assert_eq!(slots(&[("node-1", false)]), ["slots    in use: 1 of 2 (node-1)"]);
        let three = [("node-1", false), ("node-3", true), ("node-2", false)];
        assert_eq!(slots(&three), ["slots    in use: 2 of 2 (node-1, node-2), forced: node-3"]);
        assert_eq!(slots(&three), [""; 0]);
        assert_eq!(slots(&[]), ["slots    in use: 0 of 2"]);
        assert_eq!((board.most_slots(), board.slots()), (2, &[][..]));
    }

    #[test]
    fn a_watch_that_starts_over_forgets_what_is_no_longer_listed() {
        let mut board = Board::default();
        let names = |board: &Board| board.rows().map(|(name, _)| name.to_owned()).collect::<Vec<_>>();
        let mut happened = |event| drop(board.happened(Happened::Node(event), Duration::ZERO));
        for name in ["node-10", "node-9"] {
            happened(Event::Apply(node(name, "a", &[])));
        }
        assert_eq!(names(&board), ["node-9", "node-10"]);
        let mut happened = |event| drop(board.happened(Happened::Node(event), Duration::ZERO));
        happened(Event::Init);
        happened(Event::InitApply(node("node-9", "a", &[])));
        happened(Event::InitDone);
        assert_eq!(names(&board), ["node-9"]);
    }
}
