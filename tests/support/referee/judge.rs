//! The rules, applied to one event after the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use jiff::Timestamp;

use super::{
    Expect,
    history::{At, Declaration, Event, NodeSeen, PdbSeen, PodSeen},
};

/// The annotations that a finished cycle may leave on a Node.
const LEFT_BEHIND: [&str; 3] = ["last-reboot", "reboot-fence", "reboot-status"];

/// Something worth telling about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: At,
    /// The node, or the pod as `namespace/name`.
    pub subject: String,
    /// What happened, like `cordoned` or `reboot-request set`.
    pub what: String,
}

/// Applies the rules. Knows the history up to the last event; asks nobody.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    quota: usize,
    nodes: BTreeMap<String, Record>,
    pods: BTreeMap<String, PodSeen>,
    pdbs: BTreeMap<String, PdbSeen>,
    broken: BTreeSet<String>,
    forced: BTreeSet<String>,
    undrained: BTreeSet<String>,
    past_budgets: BTreeSet<String>,
    foreign_cordons: BTreeSet<String>,
    violations: Vec<String>,
    timeline: Vec<Moment>,
}

#[derive(Clone, Debug, Default)]
struct Record {
    seen: NodeSeen,
    /// It was Ready and schedulable once: from then on it counts.
    in_service: bool,
    reboots: usize,
    down: Option<Down>,
}

/// How a node was at the moment it went down; until it is Ready again.
#[derive(Clone, Debug, Default)]
struct Down {
    boot_id: String,
    cordoned: bool,
    pods: Vec<String>,
}

impl Judge {
    /// A judge of an empty history.
    pub fn new(quota: usize) -> Self {
        Self { quota, ..Self::default() }
    }

    /// Takes in the next event. Events must come in the order of their revisions.
    pub fn observe(&mut self, event: &Event, at: At) {
        match event {
            Event::Node(seen) => self.node(seen, at),
            Event::NodeGone(name) => {
                self.nodes.remove(name);
                self.tell(at, name, "deleted");
            }
            Event::Pod(seen) => {
                let before = self.pods.insert(seen.uid.clone(), seen.clone());
                if seen.terminating {
                    self.disrupted(before.as_ref(), at);
                }
            }
            Event::PodGone(uid) => {
                let before = self.pods.remove(uid);
                self.disrupted(before.as_ref(), at);
                if let Some(pod) = before {
                    self.tell(at, &pod_name(&pod), format!("gone from {}", pod.node));
                }
            }
            Event::Pdb(seen) => drop(self.pdbs.insert(seen.uid.clone(), seen.clone())),
            Event::PdbGone(uid) => drop(self.pdbs.remove(uid)),
            Event::Declared(declaration) => self.declared(declaration.clone()),
        }
    }

    /// Broken rules, in the order they were broken; each names the node or pod and the time.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// What happened, in order.
    pub fn timeline(&self) -> &[Moment] {
        &self.timeline
    }

    /// How often each node rebooted.
    pub fn reboots(&self) -> BTreeMap<String, usize> {
        self.nodes.iter().map(|(name, record)| (name.clone(), record.reboots)).collect()
    }

    /// What is missing for the state that a test expects at its end; empty when all is as it should be.
    pub fn complaints(&self, expect: &Expect) -> Vec<String> {
        let missing = expect.reboots.keys().filter(|name| !self.nodes.contains_key(*name));
        let mut complaints: Vec<_> = missing.map(|name| format!("{name}: there is no such node")).collect();
        for (name, record) in self.nodes.iter().filter(|(name, _)| !self.broken.contains(*name)) {
            let expected = expect.reboots.get(name).copied().unwrap_or_default();
            if record.reboots != expected {
                complaints.push(format!("{name}: rebooted {} times, expected {expected}", record.reboots));
            }
            if expected > 0 {
                complaints.extend(self.unfinished(record, expect).map(|what| format!("{name}: {what}")));
            }
        }
        complaints
    }

    fn unfinished(&self, record: &Record, expect: &Expect) -> impl Iterator<Item = String> {
        let seen = &record.seen;
        let foreign = self.foreign_cordons.contains(&seen.name);
        let allowed = |key: &&String| LEFT_BEHIND.contains(&key.as_str()) || expect.may_stay.contains(*key);
        let state = [
            (!seen.ready).then(|| "not Ready".to_owned()),
            (seen.cordoned && !foreign).then(|| "still cordoned".to_owned()),
        ];
        let notes: Vec<_> =
            seen.notes.keys().filter(|key| !allowed(key)).map(|key| format!("still has {key}")).collect();
        state.into_iter().flatten().chain(notes)
    }

    fn declared(&mut self, declaration: Declaration) {
        match declaration {
            Declaration::Broken(name) => drop(self.broken.insert(name)),
            Declaration::Forced(name) => drop(self.forced.insert(name)),
            Declaration::Undrained(name) => drop(self.undrained.insert(name)),
            Declaration::PastBudgets(name) => drop(self.past_budgets.insert(name)),
            Declaration::ForeignCordon(name) => drop(self.foreign_cordons.insert(name)),
            Declaration::ForeignCordonEnds(name) => drop(self.foreign_cordons.remove(&name)),
            Declaration::Quota(quota) => self.quota = quota,
        }
    }

    fn node(&mut self, seen: &NodeSeen, at: At) {
        let known = self.nodes.get(&seen.name).filter(|record| record.seen.uid == seen.uid).cloned();
        let Some(before) = known else {
            let in_service = seen.ready && !seen.cordoned;
            self.nodes.insert(seen.name.clone(), Record { seen: seen.clone(), in_service, ..Record::default() });
            return;
        };
        let unavailable_before = self.counts_as_unavailable(&before);
        let mut record = before.clone();
        record.seen = seen.clone();
        record.in_service |= seen.ready && !seen.cordoned;
        self.tell_changes(&before.seen, seen, at);
        self.went_down(&before.seen, &mut record);
        self.rebooted(&before.seen, &mut record, at);
        self.uncordoned(&before.seen, &record, at);
        if seen.ready {
            record.down = None;
        }
        let unavailable = self.counts_as_unavailable(&record);
        self.nodes.insert(seen.name.clone(), record);
        if unavailable && !unavailable_before {
            self.quota_kept(&seen.name, at);
        }
    }

    /// A node goes down when it stops being Ready, or, if nobody noticed, at the latest when its boot ID changes.
    fn went_down(&self, before: &NodeSeen, record: &mut Record) {
        let seen = &record.seen;
        let noticed = before.ready && !seen.ready;
        let unnoticed = record.down.is_none() && before.boot_id != seen.boot_id;
        if noticed || unnoticed {
            let here = self.pods.values().filter(|pod| pod.evictable && pod.node == seen.name);
            record.down = Some(Down {
                boot_id: before.boot_id.clone(),
                cordoned: before.cordoned,
                pods: here.map(pod_name).collect(),
            });
        }
    }

    /// Every reboot is of a cordoned node from which the pods are gone.
    fn rebooted(&mut self, before: &NodeSeen, record: &mut Record, at: At) {
        let name = &record.seen.name;
        if before.boot_id == record.seen.boot_id {
            return;
        }
        record.reboots += 1;
        let Some(down) = &record.down else { return };
        if self.broken.contains(name) {
            return;
        }
        if !down.cordoned {
            self.violate(at, &format!("{name} was rebooted without being cordoned"));
        }
        if !down.pods.is_empty() && !self.undrained.contains(name) {
            self.violate(at, &format!("{name} was rebooted with pods on it: {}", down.pods.join(", ")));
        }
    }

    /// Nobody removes a person's cordon, or the cordon of a node that is on its way through a reboot.
    fn uncordoned(&mut self, before: &NodeSeen, record: &Record, at: At) {
        let seen = &record.seen;
        if !before.cordoned || seen.cordoned {
            return;
        }
        if self.foreign_cordons.contains(&seen.name) {
            self.violate(at, &format!("{} was uncordoned, but a person had cordoned it", seen.name));
        }
        let back = |down: &Down| seen.ready && seen.boot_id != down.boot_id;
        if record.down.as_ref().is_some_and(|down| !back(down)) && !self.broken.contains(&seen.name) {
            let text = format!("{} was uncordoned before it was Ready under a new boot ID", seen.name);
            self.violate(at, &text);
        }
    }

    /// No more nodes out of service at a time than the quota, those apart that the test took out.
    fn quota_kept(&mut self, newcomer: &str, at: At) {
        let out: Vec<_> = self.nodes.values().filter(|record| self.counts_as_unavailable(record)).collect();
        if out.len() > self.quota {
            let names: Vec<_> = out.iter().map(|record| record.seen.name.as_str()).collect();
            let text = format!("{newcomer} is one too many for a quota of {}: {}", self.quota, names.join(", "));
            self.violate(at, &text);
        }
    }

    fn counts_as_unavailable(&self, record: &Record) -> bool {
        let name = &record.seen.name;
        let excused = [&self.broken, &self.forced, &self.foreign_cordons].iter().any(|set| set.contains(name));
        record.in_service && !excused && (record.seen.cordoned || !record.seen.ready)
    }

    /// An available pod that is deleted must not leave fewer available pods than its PDB demands.
    fn disrupted(&mut self, before: Option<&PodSeen>, at: At) {
        let Some(pod) = before.filter(|pod| pod.available) else { return };
        let mut texts = Vec::new();
        let protected = !self.past_budgets.contains(&pod.node);
        for pdb in self.pdbs.values().filter(|pdb| protected && pdb.protects(pod)) {
            let left = self.pods.values().filter(|other| other.available && pdb.protects(other)).count();
            if left < pdb.bound {
                let (pod, pdb, bound) = (pod_name(pod), &pdb.name, pdb.bound);
                texts.push(format!(
                    "{pod} was taken from the PDB {pdb}: {left} available pods are left, it demands {bound}"
                ));
            }
        }
        for text in texts {
            self.violate(at, &text);
        }
        self.tell(at, &pod_name(pod), format!("deleted on {}", pod.node));
    }

    fn tell_changes(&mut self, before: &NodeSeen, now: &NodeSeen, at: At) {
        let name = &now.name;
        let flips = [
            (before.cordoned, now.cordoned, "cordoned", "uncordoned"),
            (before.ready, now.ready, "Ready", "not Ready"),
        ];
        for (was, is, on, off) in flips {
            if was != is {
                self.tell(at, name, if is { on } else { off });
            }
        }
        if before.boot_id != now.boot_id {
            self.tell(at, name, format!("boot ID {}", now.boot_id));
        }
        let keys: BTreeSet<_> = before.notes.keys().chain(now.notes.keys()).collect();
        for key in keys {
            match (before.notes.get(key), now.notes.get(key)) {
                (was, Some(value)) if was != Some(value) => self.tell(at, name, format!("{key} = {value}")),
                (Some(_), None) => self.tell(at, name, format!("{key} removed")),
                _ => {}
            }
        }
    }

    fn tell(&mut self, at: At, subject: &str, what: impl Into<String>) {
        self.timeline.push(Moment { at, subject: subject.to_owned(), what: what.into() });
    }

    fn violate(&mut self, at: At, text: &str) {
        self.violations.push(format!("{} (revision {}): {text}", clock(at.time), at.revision));
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:>7} {}: {}", clock(self.at.time), self.at.revision, self.subject, self.what)
    }
}

fn pod_name(pod: &PodSeen) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

fn clock(time: Timestamp) -> String {
    time.strftime("%H:%M:%S%.3f").to_string()
}
