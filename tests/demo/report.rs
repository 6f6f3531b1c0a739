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
        let (violations, others) =
            rest.drain(..).partition(|text| words.iter().any(|&words| text.contains(words)));
        rest = others;
        Check { promise, violations }
    };
    let nodes = if *quota == 1 { "1 node was".to_owned() } else { format!("{quota} nodes were") };
    let (evicted, refused) = evictions(evidence.requests);
    let mut checks = vec![
        check(QUOTA, format!("never more than {nodes} out of service at a time")),
        check(PDB, format!("no pod was evicted against its PodDisruptionBudget ({evicted} evicted, {refused} refusals respected)")),
        check(DRAIN, "every node was cordoned and empty when it went down".to_owned()),
        check(FOREIGN, format!("the person's cordon on {cordoned} was left alone")),
        check(REBOOT, format!("every node rebooted exactly once: {} new boot IDs", new_boots(verdict))),
        check(FINAL, "every node is back in service: Ready, schedulable, no annotation left over".to_owned()),
    ];
    let most = board.most_slots();
    let over = (most > *quota).then(|| format!("{most} slots were taken at once"));
    checks[0].violations.extend(over);
    let taken = board.slots().iter().map(|node| format!("{node} still holds a slot"));
    checks.push(Check { promise: "every slot was handed back".to_owned(), violations: taken.collect() });
    if verdict.gaps > 0 {
        rest.push(format!("the referee lost sight of the cluster {} times", verdict.gaps));
    }
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
