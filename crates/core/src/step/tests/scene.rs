//! One situation of the agent, written in short words, and a step as short words.

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::Now;
use crate::annotations::{self as key, NodePatch};
use crate::drain::{
    Attachment, Attachments, BudgetSeen, BudgetView, Budgets, Claim, Health, Nature, PodRef, PodView, Rules,
};
use crate::ids::{GrantId, Serial};
use crate::node::NodeView;
use crate::step::*;
use crate::values::{Answer, InProgress, LastReboot, Phase, Source, read_json};

pub(super) const BOOT: &str = "0f7f3d1c-1c3a-4a52-9d3b-2f6a3c5e7b90";
pub(super) const OLD: &str = "1a2b3c4d-1c3a-4a52-9d3b-2f6a3c5e7b91";

/// What [`step`] decides on, owned, so that a test can let things happen to it.
pub(super) struct Scene {
    pub(super) node: NodeView,
    pub(super) host: HostView,
    pub(super) memory: Memory,
    pub(super) policy: Policy,
    pub(super) fresh: bool,
    /// What logind says when it is asked; `None`: nothing.
    pub(super) preparing: Option<bool>,
    /// Since the scene began.
    pub(super) passed: Duration,
    /// For how long the process had run when the scene began.
    pub(super) run_for: Duration,
    /// How often the process was started anew.
    pub(super) restarts: u64,
}

/// The scene of these words, joined by a process that has run for an hour and written nothing.
pub(super) fn scene(words: &str) -> Scene {
    let policy = Policy {
        drain_timeout: Duration::from_mins(10),
        on_drain_timeout: OnDrainTimeout::GiveUp,
        on_drain_blocked: OnDrainBlocked::Drain,
        min_uptime: Duration::from_mins(2),
        drain: Rules::default(),
    };
    let host = HostView {
        boot: BOOT.parse().ok(),
        os_version: Some("4081.2.0".into()),
        uptime: Duration::from_secs(9999),
        engine: Engine::Otherwise,
        pods: None,
        budgets: Budgets(Some(Vec::new())),
        attachments: Attachments::default(),
        lock: ShutdownLock::Free,
        other_manager: None,
    };
    let mut scene = Scene {
        node: NodeView::from(&Node::default()),
        host,
        memory: Memory::default(),
        policy,
        fresh: false,
        preparing: Some(false),
        passed: Duration::ZERO,
        run_for: Duration::from_hours(1),
        restarts: 0,
    };
    scene.set(words);
    scene
}

impl Scene {
    pub(super) fn now(&self) -> Now {
        let wall: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        Now { mono: self.run_for + self.passed, wall: wall.checked_add(self.passed).unwrap() }
    }

    /// The Node changes to these words; what the host is stays, and who wrote `reboot-in-progress`.
    pub(super) fn then(mut self, words: &str) -> Self {
        self.set(words);
        self
    }

    /// Sets the Node anew, and of the host what is said of it; and lets the process see it.
    fn set(&mut self, words: &str) {
        let mut object = blank();
        for word in words.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            // Both know the words that are theirs alone.
            assert!(set_node(&mut object, name, value) != self.set_host(name, value), "no such word: {word:?}");
        }
        let node = NodeView::from(&serde_json::from_value::<Node>(object).unwrap());
        let before = std::mem::replace(&mut self.node, node);
        if let (Some(before), Field::Set(progress)) = (before.in_progress.get(), &mut self.node.in_progress) {
            progress.run = progress.run.take().or_else(|| before.run.clone());
        }
        self.memory.observe(&self.node, self.now());
        self.memory.observe_host(&self.host, self.now());
    }

    pub(super) fn after(self, seconds: u64) -> Self {
        self.after_millis(seconds * 1000)
    }

    /// The agent's process starts anew; its clock begins at zero again.
    pub(super) fn restarted(mut self) -> Self {
        self.restarts += 1;
        (self.memory, self.passed, self.run_for) = (Memory::seeded(self.restarts), Duration::ZERO, Duration::ZERO);
        self.memory.observe(&self.node, self.now());
        self.memory.observe_host(&self.host, self.now());
        self
    }

    pub(super) fn called(mut self, reply: LogindReply) -> Self {
        self.memory.logind_replied(reply, self.now());
        self
    }

    /// logind was asked, and prepares a shutdown.
    pub(super) fn seen_preparing(mut self) -> Self {
        self.memory.observe_fresh(Fresh { preparing_for_shutdown: Some(true) }, self.now());
        self
    }

    /// The evictions that follow from this scene are posted, and none is answered.
    pub(super) fn posts(mut self) -> Self {
        let Action::Evict(evicts) = self.step().action else { panic!("no evictions: {:?}", self.step()) };
        for evict in evicts {
            self.memory.evicting(&evict, self.now());
        }
        self
    }

    pub(super) fn answered(mut self, pod: &str, reply: EvictReply) -> Self {
        self.memory.evicted(pod, reply, self.now());
        self
    }

    /// An eviction of this pod is posted and answered, whatever follows from the scene.
    pub(super) fn evicted(mut self, pod: &str, reply: EvictReply) -> Self {
        let pod = PodRef { namespace: "default".into(), name: pod.into(), uid: pod.into() };
        let evict = Evict { pod, means: Means::Eviction, grace: None, under: Under::Unknown };
        self.memory.evicting(&evict, self.now());
        self.answered(&evict.pod.uid, reply)
    }

    pub(super) fn after_millis(mut self, millis: u64) -> Self {
        self.passed += Duration::from_millis(millis);
        self
    }

    /// This very run wrote the Node as it is.
    pub(super) fn wrote(mut self) -> Self {
        if let Field::Set(progress) = &mut self.node.in_progress {
            progress.run = Some(self.memory.run());
        }
        self.memory.wrote(&self.node, self.now());
        self
    }

    pub(super) fn situation(&self) -> Situation<'_> {
        let Self { node, host, memory, policy, .. } = self;
        let fresh = self.fresh.then_some(Fresh { preparing_for_shutdown: self.preparing });
        Situation { node, host, memory, policy, fresh, now: self.now() }
    }

    pub(super) fn step(&self) -> Step {
        step(&self.situation())
    }

    /// Whether this is a word about the host or the settings.
    fn set_host(&mut self, name: &str, value: &str) -> bool {
        let host = &mut self.host;
        match (name, value) {
            ("noboot", _) => host.boot = None,
            ("up", seconds) => host.uptime = Duration::from_secs(seconds.parse().unwrap()),
            ("engine", version) => {
                host.engine = Engine::NeedsReboot(Some(version.into()).filter(|v: &String| !v.is_empty()));
            }
            ("unheard", _) => host.engine = Engine::Unheard,
            ("version", version) => host.os_version = Some(version.into()),
            ("pods", names) => host.pods = Some(pods(names)),
            ("budgets", texts) => host.budgets = budgets(texts),
            ("no-budgets", _) => host.budgets = Budgets(None),
            ("attached", texts) => host.attachments = attachments(texts),
            ("no-volumes", _) => self.policy.drain.wait_for_volumes = Duration::ZERO,
            ("preparing", yes) => self.preparing = Some(yes == "yes"),
            ("no-logind", _) => self.preparing = None,
            ("lock", "unknown") => host.lock = ShutdownLock::Unknown,
            ("lock", held) => host.lock = ShutdownLock::Held(held.into()),
            ("locksmithd", _) => host.other_manager = Some("locksmithd.service".into()),
            ("fresh", _) => self.fresh = true,
            ("preflight", _) => self.policy.on_drain_blocked = OnDrainBlocked::GiveUp,
            ("force-on-timeout", _) => self.policy.on_drain_timeout = OnDrainTimeout::Reboot,
            _ => return false,
        }
        true
    }
}

/// When the grace period of a terminating pod ends.
pub(super) const ENDS: &str = "2026-01-01T13:00:00Z";

/// `a+b`: pods to evict; `a!`: terminating, until [`ENDS`]; `a@`: of a DaemonSet; `a?`: not Ready; `a^`: critical; `a=`:
/// with an emptyDir; `a.`: has ended; `a~`: tolerates the cordon; `web/a`: of the controller `web`, with its label;
/// `a:data`: with the claim `data`.
/// Empty: none.
fn pods(names: &str) -> Vec<PodView> {
    let pod = |text: &str| {
        let name = text.trim_end_matches(['!', '@', '?', '^', '=', '.', '~']);
        let (name, claims) = name.split_once(':').unwrap_or((name, ""));
        let controller = name.split_once('/').map(|(controller, _)| controller.to_owned());
        PodView {
            pod: PodRef { namespace: "default".into(), name: name.into(), uid: name.into() },
            nature: match text.chars().last() {
                Some('@') => Nature::DaemonSet,
                Some('.') => Nature::Finished,
                _ => Nature::Ordinary,
            },
            claims: claims.split(',').filter(|name| !name.is_empty()).map(claim).collect(),
            critical: text.ends_with('^'),
            empty_dir: text.ends_with('='),
            ends_at: text.ends_with('!').then(|| ENDS.parse().unwrap()),
            tolerates_cordon: text.ends_with('~'),
            labels: controller.iter().map(|controller| ("app".to_owned(), controller.clone())).collect(),
            controller,
            health: if text.ends_with('?') { Health::NotReady } else { Health::Ready },
        }
    };
    names.split('+').filter(|name| !name.is_empty()).map(pod).collect()
}

fn claim(name: &str) -> Claim {
    Claim { namespace: "default".into(), name: name.into() }
}

/// `pv-1:data`: the volume `pv-1` of the claim `data` is attached; `pv-1`: nobody knows of which claim. Empty: none is.
fn attachments(texts: &str) -> Attachments {
    let attachment = |text: &str| {
        let (volume, name) = text.split_once(':').unwrap_or((text, ""));
        Attachment { volume: volume.into(), claim: Some(claim(name)).filter(|claim| !claim.name.is_empty()) }
    };
    Attachments(Some(texts.split('+').filter(|text| !text.is_empty()).map(attachment).collect()))
}

/// `web:1:7`: the budget of the app `web` allows 1 and is at version 7; `web:0:7:60`: it allows none, and has for 60 s.
/// Instead of the number: `stale`; `never`, whatever happens; `short`, of a healthy pod; `healthy`: it allows none, and
/// lets pods go that are not Ready. Empty: there are none.
fn budgets(texts: &str) -> Budgets {
    let budget = |text: &str| {
        let (name, allowed, version, closed) = match text.split(':').collect::<Vec<_>>()[..] {
            [name, allowed, version] => (name, allowed, version, None),
            [name, allowed, version, seconds] => (name, allowed, version, Some(seconds)),
            _ => panic!("{text}"),
        };
        let begin: jiff::Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let ago = |seconds: &str| begin.checked_sub(Duration::from_secs(seconds.parse().unwrap())).unwrap();
        let stale = allowed == "stale";
        BudgetView {
            namespace: "default".into(),
            name: name.into(),
            seen: BudgetSeen { uid: name.into(), version: version.into() },
            selector: format!("app={}", name.trim_end_matches('*')).parse().ok(),
            stale,
            allowed: match allowed {
                "stale" => 9,
                "never" | "short" | "healthy" => 0,
                number => number.parse().unwrap(),
            },
            lets_unready_go: allowed == "healthy",
            closed_since: closed.map(ago),
            desired: if allowed == "never" { 3 } else { 2 },
            healthy: if allowed == "short" { 1 } else { 2 },
            expected: 3,
        }
    };
    Budgets(Some(texts.split('+').filter(|text| !text.is_empty()).map(budget).collect()))
}

/// A Node of which nothing is known but that it is there and Ready.
fn blank() -> Value {
    json!({
        "metadata": { "name": "n1", "uid": "u1", "resourceVersion": "50", "annotations": {}, "managedFields": [] },
        "spec": {},
        "status": { "conditions": [{ "type": "Ready", "status": "True" }],
                    "nodeInfo": { "bootID": BOOT, "architecture": "", "containerRuntimeVersion": "", "kernelVersion": "",
                                  "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "",
                                  "osImage": "", "systemUUID": "" } },
    })
}

/// Whether this is a word about the Node. In a text `_` is a space.
fn set_node(node: &mut Value, name: &str, value: &str) -> bool {
    let text = || value.replace('_', " ");
    let mut set = |key: &str, value: String| node["metadata"]["annotations"][key] = Value::String(value);
    match name {
        "asks" => {
            set(key::NEEDED, "kernel".into());
            set(key::REQUEST, request(BOOT, "person", value));
        }
        "own" => {
            set(key::NEEDED, "update_engine: a reboot completes an update".into());
            set(key::REQUEST, request(BOOT, "engine", value));
        }
        "both" => {
            set(key::NEEDED, "kernel".into());
            set(key::REQUEST, request(BOOT, "engine+person", value));
        }
        "needed" => set(key::NEEDED, text()),
        "own-words" => set(key::NEEDED, "update_engine: a reboot completes an update".into()),
        "request" => set(key::REQUEST, text()),
        "request-of" => set(key::REQUEST, request(BOOT, value, "")),
        "old-request" => set(key::REQUEST, request(OLD, value, "")),
        "granted" => set(key::REBOOT, format!("{BOOT}.{value}")),
        "spent" => set(key::REBOOT, format!("{OLD}.{value}")),
        "now" => set(key::REBOOT, "now".into()),
        "reboot" => set(key::REBOOT, text()),
        "draining" | "rebooting" => set(key::IN_PROGRESS, in_progress(name, BOOT, value)),
        "was-draining" | "was-rebooting" => set(key::IN_PROGRESS, in_progress(&name[4..], OLD, value)),
        "in-progress" => set(key::IN_PROGRESS, text()),
        "paused" => set(key::PAUSED, text()),
        "lapsed" | "lapsed-before" => {
            let boot = if name == "lapsed" { BOOT } else { OLD };
            let lapsed = format!("{boot}.{value}");
            let since = "2026-01-01T11:00:00Z";
            set(
                key::WAITING,
                json!({ "reason": "NoAgent", "since": since, "lapsed": lapsed, "message": "" }).to_string(),
            );
        }
        "status" => set(key::STATUS, text()),
        "last" => set(key::LAST_REBOOT, last_reboot(value)),
        "cordon" => {
            node["spec"]["unschedulable"] = json!(true);
            let owner = |manager| json!({ "manager": manager, "fieldsV1": { "f:spec": { "f:unschedulable": {} } } });
            node["metadata"]["managedFields"] = value.split('+').map(owner).collect();
        }
        "uid" => node["metadata"]["uid"] = json!(value),
        "kubelet-old" => node["status"]["nodeInfo"]["bootID"] = json!(OLD),
        "down" => node["status"]["conditions"][0]["status"] = json!("Unknown"),
        _ => return false,
    }
    true
}

/// `details`: more fields as `field:number`, or `notBefore:HH` for that hour of the day of the tests.
fn request(boot: &str, sources: &str, details: &str) -> String {
    let sources: Vec<_> = sources.split('+').map(|who| who.replace("engine", "update_engine")).collect();
    let mut value = json!({ "protocol": 1, "bootID": boot, "since": "2026-01-01T11:00:00Z", "sources": sources,
                            "osVersion": "4081.2.0" });
    for (field, number) in details.split('+').filter_map(|detail| detail.split_once(':')) {
        value[field] = match field {
            "notBefore" => json!(format!("2026-01-01T{number}:00:00Z")),
            _ => json!(number.parse::<u64>().unwrap()),
        };
    }
    value.to_string()
}

/// `value`: the serial, then `/` and the seconds spent, then `!` where the cordon is not of this cycle.
fn in_progress(phase: &str, boot: &str, value: &str) -> String {
    let (serial, spent) = value.trim_end_matches('!').split_once('/').unwrap_or((value.trim_end_matches('!'), "0"));
    let spent: u64 = spent.parse().unwrap();
    json!({ "phase": phase, "id": format!("{boot}.{serial}"), "since": "2026-01-01T11:59:00Z", "spentSeconds": spent,
            "osVersion": "4081.2.0", "cordoned": !value.ends_with('!') })
    .to_string()
}

/// `value`: the serial of a cycle that gave back, `!` unless for a pause, then `/` and how often in a row the version
/// stayed the same.
fn last_reboot(value: &str) -> String {
    let (serial, same) = value.split_once('/').unwrap_or((value, "0"));
    let reason = if serial.ends_with('!') { "GrantRemoved" } else { "Paused" };
    let id = format!("{BOOT}.{}", serial.trim_end_matches('!'));
    json!({ "id": id, "outcome": "gave-back", "reason": reason, "at": "2026-01-01T12:00:00Z", "why": "kernel",
            "seconds": 1, "sameVersion": same.parse::<u32>().unwrap() })
    .to_string()
}

/// The action in short words; `node` is what it was decided on.
pub(super) fn in_words(action: &Action, node: &NodeView) -> String {
    match action {
        Action::Wait => "wait".into(),
        Action::Refresh => "refresh".into(),
        Action::Reboot => "reboot".into(),
        Action::Evict(pods) => {
            let names: Vec<String> = pods.iter().map(evict_in_words).collect();
            format!("evict {}", names.join(","))
        }
        Action::Write(patch, _) => format!("write {}", patch_in_words(patch, node)).trim_end().into(),
    }
}

/// The name; `x` before it: by deletion; `/seconds` after it: the grace period, where it is not the pod's own.
fn evict_in_words(evict: &Evict) -> String {
    let means = if evict.means == Means::Deletion { "x" } else { "" };
    let grace = evict.grace.map(|grace| format!("/{}", grace.as_secs())).unwrap_or_default();
    format!("{means}{}{grace}", evict.pod.name)
}

/// Every key that is touched is in the words, `reboot-status` apart: what is set first, then what is removed.
fn patch_in_words(patch: &NodePatch, node: &NodeView) -> String {
    let mut words: Vec<String> = Vec::new();
    words.extend(match patch.unschedulable() {
        Some(true) => Some("cordon".into()),
        Some(false) => Some("uncordon".into()),
        None => None,
    });
    let mut removed = Vec::new();
    for (key, value) in patch.annotations().filter(|(key, _)| *key != key::STATUS) {
        let short = key.trim_start_matches(key::PREFIX);
        match value {
            None => removed.push(format!("-{}", short.trim_start_matches("reboot-"))),
            Some(value) => words.push(match key {
                key::REQUEST => request_in_words(value),
                key::IN_PROGRESS => in_progress_in_words(value, node),
                key::LAST_REBOOT => last_in_words(value),
                key::NEEDED => format!("needed={value:?}"),
                _ => format!("set:{short}"),
            }),
        }
    }
    words.sort_unstable_by_key(|word| (word.starts_with("request"), word.clone()));
    [words, removed].concat().join(" ")
}

fn request_in_words(text: &str) -> String {
    let Field::Set(Answer::Compatible(request)) = Answer::read(Some(text)) else { return text.into() };
    let name = |source: &Source| if *source == Source::Person { "person" } else { "engine" };
    let sources: Vec<&str> = request.sources.iter().map(name).collect();
    let until = request.not_before.map(|at| format!("@{at}").replace("2026-01-", "").replace(":00Z", ""));
    format!("request:{}{}", sources.join("+"), until.unwrap_or_default())
}

fn in_progress_in_words(text: &str, node: &NodeView) -> String {
    let Field::Set::<InProgress>(progress) = read_json(Some(text)) else { return text.into() };
    let verb = match (&node.in_progress, progress.phase) {
        (Field::Absent, Phase::Draining) => "start",
        (Field::Set(before), Phase::Draining) if before.phase == Phase::Draining => {
            return format!("spent:{}", progress.spent_seconds);
        }
        (Field::Set(before), Phase::Rebooting) if before.phase == Phase::Rebooting => {
            return "resume".to_owned();
        }
        (Field::Set(_), Phase::Rebooting) => "commit",
        (Field::Absent, Phase::Rebooting) => "restore",
        _ => "unexpected",
    };
    format!("{verb}:{}{}", serial(progress.id), if progress.cordoned { "" } else { "!" })
}

fn serial(id: GrantId) -> String {
    match id.serial {
        Serial::Granted(number) => number.to_string(),
        Serial::Forced(number) => format!("now-{number}"),
    }
}

fn last_in_words(text: &str) -> String {
    let Field::Set::<LastReboot>(last) = read_json(Some(text)) else { return text.into() };
    let same = if last.same_version > 0 { format!("same={}", last.same_version) } else { String::new() };
    match last.outcome {
        crate::values::Outcome::Rebooted => format!("Rebooted{same}"),
        crate::values::Outcome::FoundRebooted => format!("FoundRebooted{same}"),
        crate::values::Outcome::GaveBack => {
            let id = last.id.map(serial).unwrap_or_default();
            format!("GaveBack:{id}:{}", last.reason.code())
        }
    }
}
