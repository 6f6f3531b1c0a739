//! The summary: what happened in which order, and whether it was as promised.

use std::time::Duration;

use reboot_tests::{control_plane::audit::Request, referee::Verdict};

use crate::{
    board::{Board, Row},
    line::{Line, Style, duration},
    phase::Phase,
};

/// A promise, and whether it was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Check {
    /// What was promised.
    pub(crate) promise: String,
    /// What speaks against it; empty when it was kept.
    pub(crate) violations: Vec<String>,
}

/// All that the checks are made from: none of it comes from the operator.
pub(crate) struct Evidence<'a> {
    /// What the referee says.
    pub(crate) verdict: &'a Verdict,
    /// What the API server logged.
    pub(crate) requests: &'a [Request],
    /// The live view.
    pub(crate) board: &'a Board,
    /// The quota.
    pub(crate) quota: usize,
    /// The node that a person has cordoned.
    pub(crate) cordoned: &'a str,
}

/// How the referee words the violations of each promise.
const QUOTA: &[&str] = &["is one too many for a quota"];
const PDB: &[&str] = &["was taken from the PDB"];
const DRAIN: &[&str] = &["was rebooted without being cordoned", "was rebooted with pods on it"];
const FOREIGN: &[&str] = &["but a person had cordoned it"];
const REBOOT: &[&str] = &["times, expected", "before it was Ready under a new boot ID"];
const FINAL: &[&str] = &[": not Ready", ": still cordoned", ": still has", "there is no such node"];

impl Check {
    /// For people.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let kept = self.violations.is_empty();
        let (style, mark) = if kept { (Style::Green, "  ✓ ") } else { (Style::Red, "  ✗ ") };
        let promise = Line::default().and(style, mark).and(Style::Plain, &self.promise);
        let violations = self.violations.iter().map(|text| Line::text("      ").and(Style::Red, text));
        std::iter::once(promise).chain(violations).collect()
    }
}

/// Every promise.
pub(crate) fn checks(evidence: &Evidence<'_>) -> Vec<Check> {
    let Evidence { verdict, board, quota, cordoned, .. } = evidence;
    let mut rest = verdict.violations.clone();
    let mut check = |words: &[&str], promise: String| {
        let (violations, others) = rest.drain(..).partition(|text| words.iter().any(|&words| text.contains(words)));
        rest = others;
        Check { promise, violations }
    };
    let nodes = if *quota == 1 { "1 node was".to_owned() } else { format!("{quota} nodes were") };
    let (evicted, refused) = evictions(evidence.requests);
    let mut checks = vec![
        check(QUOTA, format!("never more than {nodes} out of service at a time")),
        check(PDB, format!("no pod was evicted against its PDB ({evicted} evicted; {refused} refusals respected)")),
        check(DRAIN, "every node was cordoned and empty when it went down".to_owned()),
        check(FOREIGN, format!("the person's cordon on {cordoned} was left alone")),
        check(REBOOT, format!("every node rebooted exactly once: {} new boot IDs", new_boots(verdict))),
        check(FINAL, "every node is back in service: Ready, schedulable, no annotation left over".to_owned()),
    ];
    // The referee does not count a node that a person has cordoned; the live view does.
    let most = board.most_in_cycle();
    let over = (most > *quota).then(|| format!("{most} nodes were on their way through a reboot at once"));
    checks[0].violations.extend(over);
    let most = board.most_slots();
    let over = (most > *quota).then(|| format!("{most} slots were taken at once"));
    checks[0].violations.extend(over);
    let taken = board.slots().iter().map(|slot| format!("{} still holds a slot", slot.node));
    checks.push(Check { promise: "every slot was handed back".to_owned(), violations: taken.collect() });
    if !rest.is_empty() {
        checks.push(Check { promise: "nothing else went wrong".to_owned(), violations: rest });
    }
    checks
}

/// Who rebooted when, and where the time went.
pub(crate) fn table(board: &Board) -> Vec<Line> {
    let mut rows: Vec<_> = board.rows().collect();
    rows.sort_by_key(|(_, row)| row.granted.unwrap_or(Duration::MAX));
    let title = |text: &str| format!("{text:>9}");
    let titles: String =
        ["ASKING", "WAITING", "GRANTED", "DRAINING", "REBOOT", "BOOT", "IN ALL"].into_iter().map(title).collect();
    let mut lines = vec![Line::default().and(Style::Dim, format!("  ORDER  {:<7}{titles}", "NODE"))];
    for (place, (name, row)) in rows.into_iter().enumerate() {
        let times: String = times(row).into_iter().map(|time| title(&time)).collect();
        lines.push(Line::text(format!("  {:>5}  {name:<7}{times}", place + 1)));
    }
    lines
}

/// The boot IDs, for what is not simulated: that they differ is what a reboot is.
pub(crate) fn boots(board: &Board) -> Vec<Line> {
    let mut lines = vec![Line::default().and(Style::Dim, format!("         {:<7}  BOOT IDS", "NODE"))];
    for (name, row) in board.rows() {
        // The first group of a UUID tells them apart.
        let ids: Vec<_> = row.boots.iter().map(|id| id.split('-').next().unwrap_or_default()).collect();
        lines.push(Line::text(format!("         {name:<7}  {}", ids.join(" became "))));
    }
    lines
}

fn times(row: &Row) -> Vec<String> {
    let phases =
        [Phase::Asks, Phase::Waiting, Phase::Granted, Phase::Draining, Phase::Rebooting, Phase::Booting].into_iter();
    let mut times: Vec<_> = phases.map(|phase| row.spent.get(&phase).copied()).collect();
    let done = row.sight.phase == Phase::Done;
    times.push(row.asked.filter(|_| done).map(|asked| row.since.saturating_sub(asked)));
    times.into_iter().map(|time| time.map_or_else(|| "-".to_owned(), duration)).collect()
}

fn new_boots(verdict: &Verdict) -> usize {
    verdict.reboots.values().sum()
}

/// How many evictions the API server has granted and refused.
fn evictions(requests: &[Request]) -> (usize, usize) {
    let count = |code| requests.iter().filter(|one| one.resource == "pods/eviction" && one.code == code).count();
    (count(201), count(429))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use reboot_tests::referee::{
        Declaration, Expect,
        history::{At, Event, NodeSeen, PdbSeen, PodSeen},
        judge::Judge,
    };

    use super::*;

    const LAST: &str = "every slot was handed back";

    fn judged(quota: usize, events: impl IntoIterator<Item = Event>, expect: &Expect) -> Vec<String> {
        let mut judge = Judge::new(quota);
        for (revision, event) in (1..).zip(events) {
            judge.observe(&event, At { revision, time: Timestamp::UNIX_EPOCH });
        }
        judge.violations().iter().cloned().chain(judge.complaints(expect)).collect()
    }

    fn node(words: &str, notes: &[&str]) -> Event {
        let mut node =
            NodeSeen { name: "node-1".to_owned(), boot_id: "a".to_owned(), ready: true, ..NodeSeen::default() };
        for word in words.split_whitespace() {
            match word {
                "down" => node.ready = false,
                "cordoned" => node.cordoned = true,
                boot => boot.clone_into(&mut node.boot_id),
            }
        }
        node.notes = notes.iter().map(|key| ((*key).to_owned(), String::new())).collect();
        Event::Node(node)
    }

    fn pod(terminating: bool) -> Event {
        let pod = PodSeen { uid: "p".to_owned(), node: "node-1".to_owned(), ..PodSeen::default() };
        Event::Pod(PodSeen { terminating, available: !terminating, evictable: true, ..pod })
    }

    /// The promises that are shown as broken for these violations, by their first words.
    fn check(violations: Vec<String>, broken: &str) {
        let verdict = Verdict { violations, timeline: Vec::new(), reboots: [("node-1".to_owned(), 1)].into() };
        let board = Board::default();
        let evidence = Evidence { verdict: &verdict, requests: &[], board: &board, quota: 1, cordoned: "node-1" };
        let checks = checks(&evidence);
        assert!(checks.iter().any(|check| check.promise == LAST));
        let told: Vec<_> = checks.iter().flat_map(|check| &check.violations).collect();
        assert_eq!(told.len(), verdict.violations.len(), "each violation is told once");
        let promises = checks.iter().filter(|check| !check.violations.is_empty()).map(|check| check.promise.as_str());
        assert_eq!(promises.collect::<Vec<_>>().join(" | "), broken, "{:?}", verdict.violations);
    }

    #[test]
    fn every_violation_stands_under_the_promise_that_it_breaks() {
        let once = Expect::rebooted_once(["node-1"]);
        let none = Expect::default();
        let up = || node("", &[]);
        let foreign = || Event::Declared(Declaration::ForeignCordon("node-1".to_owned()));
        let pdb = || Event::Pdb(PdbSeen { bound: 1, ..PdbSeen::default() });
        check(judged(1, [], &none), "");
        check(judged(0, [up(), node("cordoned", &[])], &none), "never more than 1 node was out of service at a time");
        check(
            judged(1, [pdb(), pod(false), pod(true)], &none),
            "no pod was evicted against its PDB (0 evicted; 0 refusals respected)",
        );
        let drain = "every node was cordoned and empty when it went down";
        check(judged(1, [up(), node("down", &[]), node("b", &[])], &once), drain);
        let full = [up(), pod(false), node("cordoned", &[]), node("cordoned b", &[]), node("b", &[])];
        check(judged(1, full, &once), drain);
        let person = "the person's cordon on node-1 was left alone";
        check(judged(1, [foreign(), node("cordoned", &[]), up()], &none), person);
        let reboots = "every node rebooted exactly once: 1 new boot IDs";
        check(judged(1, [up()], &once), reboots);
        let early = [up(), node("cordoned", &[]), node("cordoned down", &[]), node("down", &[]), node("b", &[])];
        check(judged(1, early, &once), reboots);
        let done = "every node is back in service: Ready, schedulable, no annotation left over";
        let never = || Expect::default().rebooted("node-1", 1);
        let left = [up(), node("cordoned", &[]), node("cordoned b", &[]), node("down cordoned b", &["reboot"])];
        check(judged(1, left, &never()), done);
        check(vec!["what nobody has thought of".to_owned()], "nothing else went wrong");
    }
}
