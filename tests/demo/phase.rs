//! What a Node shows of its reboot: read from what stands on the Node and from the pods that are on it, by the rules
//! that the README gives to people.

use reboot_tests::referee::history::{NodeSeen, PdbSeen, PodSeen};
use serde_json::Value;

/// Where a node stands, in the order of a cycle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nothing is asked of it.
    #[default]
    Idle,
    /// It asks for a reboot, and nobody has said anything yet.
    Asks,
    /// The controller says why it has to wait.
    Waiting,
    /// It may reboot; its agent has not begun.
    Granted,
    /// It takes no new pods, and those that it has are on their way out.
    Draining,
    /// The reboot was decided; the machine goes down.
    Rebooting,
    /// The machine runs again, and is not back in service.
    Booting,
    /// It has rebooted and is back in service.
    Done,
}

/// One look at one Node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// Where it stands.
    pub(crate) phase: Phase,
    /// The phase in words, with what belongs to it: `draining 3 pods`.
    pub(crate) words: String,
    /// What has to happen next; empty when nothing has to.
    pub(crate) waits_for: String,
    /// Who has cordoned it.
    pub(crate) cordon: Cordon,
}

/// Who has cordoned a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Cordon {
    /// Nobody.
    #[default]
    None,
    /// The node's agent, for the reboot.
    Agent,
    /// Somebody else.
    Person,
}

impl Sight {
    /// A look at a Node with the pods on it that a drain has to remove, and the PDBs that let no pod go now.
    pub(crate) fn of(node: &NodeSeen, pods: &[&PodSeen], spent: &[&PdbSeen]) -> Self {
        let progress = json(node, "reboot-in-progress");
        let phase = phase(node, progress.as_ref());
        let waiting = json(node, "reboot-waiting").unwrap_or_default();
        let words = match (phase, pods.len()) {
            (Phase::Idle, _) => "idle".to_owned(),
            (Phase::Asks, _) => "asks".to_owned(),
            (Phase::Waiting, _) => format!("waiting: {}", waiting["reason"].as_str().unwrap_or("unknown")),
            (Phase::Granted, _) => "granted".to_owned(),
            (Phase::Draining, 0) => "drained".to_owned(),
            (Phase::Draining, 1) => "draining 1 pod".to_owned(),
            (Phase::Draining, pods) => format!("draining {pods} pods"),
            (Phase::Rebooting, _) => "rebooting".to_owned(),
            (Phase::Booting, _) => "booting".to_owned(),
            (Phase::Done, _) => "done".to_owned(),
        };
        let waits_for = match phase {
            Phase::Waiting => waiting["message"].as_str().unwrap_or_default().to_owned(),
            Phase::Draining => held_up(pods, spent).or_else(|| refused(node, pods)).unwrap_or_else(|| ending(pods)),
            phase => next(phase, node).to_owned(),
        };
        let cordon = match progress {
            _ if !node.cordoned => Cordon::None,
            Some(progress) if progress["cordoned"] == true => Cordon::Agent,
            _ => Cordon::Person,
        };
        Self { phase, words, waits_for, cordon }
    }
}

impl Cordon {
    /// Who, in one word.
    pub(crate) fn who(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Agent => "agent",
            Self::Person => "person",
        }
    }
}

fn phase(node: &NodeSeen, progress: Option<&Value>) -> Phase {
    let is_set = |key| node.notes.get(key).is_some_and(|value| value != "false");
    if let Some(progress) = progress {
        let rebooting = progress["phase"] == "rebooting";
        // A cycle is named after the boot under which it was granted.
        let boot = progress["id"].as_str().and_then(|id| id.split('.').next()).unwrap_or_default();
        return match (rebooting, boot == node.boot_id) {
            (false, _) => Phase::Draining,
            (true, true) => Phase::Rebooting,
            (true, false) => Phase::Booting,
        };
    }
    let rebooted = || json(node, "last-reboot").is_some_and(|last| last["outcome"] != "gave-back");
    if node.notes.contains_key("reboot-waiting") {
        Phase::Waiting
    } else if is_set("reboot") {
        Phase::Granted
    } else if is_set("reboot-needed") || is_set("reboot-request") {
        Phase::Asks
    } else if rebooted() {
        Phase::Done
    } else {
        Phase::Idle
    }
}

/// What comes next, where it follows from the phase.
fn next(phase: Phase, node: &NodeSeen) -> &'static str {
    match phase {
        Phase::Asks if node.notes.contains_key("reboot-request") => "the controller to decide",
        Phase::Asks => "its agent to answer",
        Phase::Granted => "its agent to begin",
        Phase::Rebooting if node.ready => "the machine to go down",
        Phase::Rebooting => "the machine to boot",
        Phase::Booting if node.ready => "its agent to finish",
        Phase::Booting => "the node to be Ready",
        _ if !node.ready => "the node to be Ready",
        _ => "",
    }
}

/// The PDB that keeps the drain waiting.
fn held_up(pods: &[&PodSeen], spent: &[&PdbSeen]) -> Option<String> {
    let staying = || pods.iter().filter(|pod| !pod.terminating);
    let pdb = spent.iter().find(|pdb| staying().any(|pod| pdb.protects(pod)))?;
    Some(format!("PodDisruptionBudget {}: not now", pdb.name))
}

fn ending(pods: &[&PodSeen]) -> String {
    let text = if pods.is_empty() { "its agent to go on" } else { "its pods to end" };
    text.to_owned()
}

/// The pod that is refused and by what, from the agent's `reboot-status`; that text may be a few seconds old, so it
/// counts only while the pod is there.
fn refused(node: &NodeSeen, pods: &[&PodSeen]) -> Option<String> {
    let status = node.notes.get("reboot-status")?;
    let (_, refusal) = status.split_once("; ")?;
    let there = |pod: &&&PodSeen| !pod.terminating && refusal.contains(&format!("{}/{}", pod.namespace, pod.name));
    pods.iter().any(|pod| there(&pod)).then(|| refusal.to_owned())
}

fn json(node: &NodeSeen, key: &str) -> Option<Value> {
    // What does not parse is there all the same.
    node.notes.get(key).map(|text| serde_json::from_str(text).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRANTED: &str = r#"{"phase":"draining","id":"boot-1.7","cordoned":true}"#;
    const GONE: &str = r#"{"phase":"rebooting","id":"boot-1.7","cordoned":true}"#;
    const QUOTA: &str = r#"{"reason":"QuotaUsed","message":"the quota of 1 is used"}"#;

    fn node(words: &str, notes: &[(&str, &str)]) -> NodeSeen {
        let mut node = NodeSeen { ready: true, boot_id: "boot-1".to_owned(), ..NodeSeen::default() };
        for word in words.split_whitespace() {
            match word {
                "down" => node.ready = false,
                "cordoned" => node.cordoned = true,
                boot => boot.clone_into(&mut node.boot_id),
            }
        }
        node.notes = notes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        node
    }

    fn check(words: &str, notes: &[(&str, &str)], expected: &str) {
        let pod = PodSeen { namespace: "default".to_owned(), name: "web-1".to_owned(), ..PodSeen::default() };
        let Sight { words: phase, waits_for, cordon, .. } = Sight::of(&node(words, notes), &[&pod], &[]);
        assert_eq!(format!("{phase} | {waits_for} | {}", cordon.who()), expected, "{words} {notes:?}");
    }

    #[test]
    fn a_node_that_asks_shows_whose_turn_it_is() {
        check("", &[], "idle |  | -");
        check("down", &[], "idle | the node to be Ready | -");
        check("", &[("reboot-needed", "false")], "idle |  | -");
        check("", &[("reboot-needed", "")], "asks | its agent to answer | -");
        check("", &[("reboot-needed", "x"), ("reboot-request", "{}")], "asks | the controller to decide | -");
        check(
            "",
            &[("reboot-needed", "x"), ("reboot-waiting", QUOTA)],
            "waiting: QuotaUsed | the quota of 1 is used | -",
        );
        check("", &[("reboot-waiting", "{")], "waiting: unknown |  | -");
        check("", &[("reboot-needed", "x"), ("reboot", "boot-1.7")], "granted | its agent to begin | -");
        check("", &[("reboot", "now")], "granted | its agent to begin | -");
    }

    #[test]
    fn a_cycle_shows_how_far_it_is() {
        check("cordoned", &[("reboot-in-progress", GRANTED)], "draining 1 pod | its pods to end | agent");
        check("cordoned", &[("reboot-in-progress", GONE)], "rebooting | the machine to go down | agent");
        check("cordoned down", &[("reboot-in-progress", GONE)], "rebooting | the machine to boot | agent");
        check("cordoned down boot-2", &[("reboot-in-progress", GONE)], "booting | the node to be Ready | agent");
        check("cordoned boot-2", &[("reboot-in-progress", GONE)], "booting | its agent to finish | agent");
        check("boot-2", &[("last-reboot", r#"{"outcome":"rebooted"}"#)], "done |  | -");
        check("", &[("last-reboot", r#"{"outcome":"gave-back"}"#)], "idle |  | -");
        check(
            "",
            &[("last-reboot", r#"{"outcome":"rebooted"}"#), ("reboot-needed", "x")],
            "asks | its agent to answer | -",
        );
    }

    #[test]
    fn a_cordon_is_the_agents_only_where_the_cycle_says_so() {
        check("cordoned", &[], "idle |  | person");
        let foreign = r#"{"phase":"draining","id":"boot-1.7","cordoned":false}"#;
        check("cordoned", &[("reboot-in-progress", foreign)], "draining 1 pod | its pods to end | person");
    }

    #[test]
    fn a_refused_pod_is_named_while_it_is_there() {
        let status = |pod: &str| format!("Draining: 3 pods left; default/{pod} is refused: PDB web");
        let (here, gone) = (status("web-1"), status("web-2"));
        let draining = ("reboot-in-progress", GRANTED);
        let shown = "draining 1 pod | default/web-1 is refused: PDB web | -";
        check("", &[draining, ("reboot-status", &here)], shown);
        check("", &[draining, ("reboot-status", &gone)], "draining 1 pod | its pods to end | -");
    }

    #[test]
    fn a_budget_that_is_spent_is_named_before_anything_else() {
        let node = node("cordoned", &[("reboot-in-progress", GRANTED)]);
        let check = |pod: &PodSeen, pdb: &PdbSeen, expected: &str| {
            assert_eq!(Sight::of(&node, &[pod], &[pdb]).waits_for, expected);
        };
        let pod = PodSeen { namespace: "default".to_owned(), ..PodSeen::default() };
        let pdb = PdbSeen { namespace: "default".to_owned(), name: "web".to_owned(), ..PdbSeen::default() };
        let elsewhere = PdbSeen { namespace: "other".to_owned(), ..pdb.clone() };
        check(&pod, &pdb, "PodDisruptionBudget web: not now");
        check(&pod, &elsewhere, "its pods to end");
        check(&PodSeen { terminating: true, ..pod.clone() }, &pdb, "its pods to end");
        assert_eq!(Sight::of(&node, &[], &[&pdb]).waits_for, "its agent to go on");
    }
}
