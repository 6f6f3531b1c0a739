//! Each rule catches its violation in a history made by hand, and has nothing to say to a clean one.

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::LabelSelector};
use serde_json::json;

use super::{
    Expect,
    history::{At, Declaration, Event, NodeSeen, PdbSeen, PodSeen},
    judge::Judge,
};

/// A cluster of three Ready nodes under boot ID `1`, written down event by event.
struct Story {
    events: Vec<(At, Event)>,
    nodes: Vec<NodeSeen>,
}

impl Story {
    fn new() -> Self {
        let node = |name: &str| NodeSeen {
            name: name.to_owned(),
            uid: format!("uid of {name}"),
            boot_id: "1".to_owned(),
            ready: true,
            ..NodeSeen::default()
        };
        let nodes = vec![node("a"), node("b"), node("c")];
        let mut story = Self { events: Vec::new(), nodes: nodes.clone() };
        for node in nodes {
            story.push(Event::Node(node));
        }
        story
    }

    fn push(&mut self, event: Event) {
        let revision = self.events.len() as u64 + 1;
        self.events.push((At { revision, time: Timestamp::UNIX_EPOCH }, event));
    }

    fn node(mut self, name: &str, change: impl FnOnce(&mut NodeSeen)) -> Self {
        let node = self.nodes.iter_mut().find(|node| node.name == name).expect("a node of the story");
        change(node);
        let event = Event::Node(node.clone());
        self.push(event);
        self
    }

    fn cordon(self, name: &str) -> Self {
        self.node(name, |node| node.cordoned = true)
    }

    fn uncordon(self, name: &str) -> Self {
        self.node(name, |node| node.cordoned = false)
    }

    fn down(self, name: &str) -> Self {
        self.node(name, |node| node.ready = false)
    }

    fn up(self, name: &str, boot_id: &str) -> Self {
        self.node(name, |node| {
            node.ready = true;
            boot_id.clone_into(&mut node.boot_id);
        })
    }

    /// As the operator should do it.
    fn cycle(self, name: &str) -> Self {
        self.cordon(name).down(name).up(name, "2").uncordon(name)
    }

    fn note(self, name: &str, key: &str) -> Self {
        self.node(name, |node| drop(node.notes.insert(key.to_owned(), "…".to_owned())))
    }

    fn pod(mut self, name: &str, node: &str, change: impl FnOnce(&mut PodSeen)) -> Self {
        let mut pod = PodSeen {
            uid: name.to_owned(),
            namespace: "default".to_owned(),
            name: name.to_owned(),
            node: node.to_owned(),
            labels: [("app".to_owned(), "web".to_owned())].into(),
            available: true,
            terminating: false,
            evictable: true,
        };
        change(&mut pod);
        self.push(Event::Pod(pod));
        self
    }

    fn pod_gone(mut self, name: &str) -> Self {
        self.push(Event::PodGone(name.to_owned()));
        self
    }

    /// A PDB that demands two available pods of `app: web`.
    fn pdb(mut self) -> Self {
        let match_labels = Some([("app".to_owned(), "web".to_owned())].into());
        let selector = LabelSelector { match_labels, ..LabelSelector::default() };
        let (uid, namespace, name) = ("pdb".to_owned(), "default".to_owned(), "web".to_owned());
        self.push(Event::Pdb(PdbSeen { uid, namespace, name, selector, bound: 2 }));
        self
    }

    fn declare(mut self, declaration: Declaration) -> Self {
        self.push(Event::Declared(declaration));
        self
    }

    fn judge(&self) -> Judge {
        let mut judge = Judge::new(1);
        for (at, event) in &self.events {
            judge.observe(event, *at);
        }
        judge
    }
}

fn alive(_: &mut PodSeen) {}

fn terminating(pod: &mut PodSeen) {
    (pod.available, pod.terminating) = (false, true);
}

/// The violations of the story are exactly those, each recognised by some words of it.
fn check(story: &Story, expected: &[&str]) {
    let judge = story.judge();
    let found = judge.violations();
    let alike = found.len() == expected.len() && found.iter().zip(expected).all(|(text, words)| text.contains(words));
    assert!(alike, "found {found:#?}, expected {expected:#?}, in\n{}", telling(&judge));
}

fn check_end(story: &Story, expect: &Expect, expected: &[&str]) {
    let complaints = story.judge().complaints(expect);
    assert_eq!(complaints, expected, "{}", telling(&story.judge()));
}

fn telling(judge: &Judge) -> String {
    judge.timeline().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_clean_run_has_no_violations() {
    let story = Story::new().pdb().pod("w1", "a", alive).pod("w2", "b", alive).pod("w3", "c", alive);
    let story = story.cordon("a").pod("w1", "a", terminating).pod_gone("w1").pod("w4", "b", alive);
    let story = story.down("a").up("a", "2").uncordon("a");
    let story = story.cordon("c").pod("w3", "c", terminating).pod("w5", "a", alive).pod_gone("w3");
    let story = story.node("c", |node| node.boot_id = "2".to_owned()).uncordon("c");
    check(&story, &[]);
    check_end(&story, &Expect::rebooted_once(["a", "c"]), &[]);
}

#[test]
fn a_node_beyond_the_quota_is_caught() {
    check(&Story::new().cordon("a").cordon("b"), &["b is one too many for a quota of 1: a, b"]);
    check(&Story::new().down("a").cordon("b"), &["b is one too many"]);
    check(&Story::new().cordon("a").cordon("b").cordon("c"), &["b is one too many", "c is one too many"]);
    check(&Story::new().cordon("a").uncordon("a").cordon("b"), &[]);
}

#[test]
fn nodes_that_the_test_took_out_do_not_count() {
    let name = || "a".to_owned();
    for declaration in [Declaration::Broken(name()), Declaration::Forced(name()), Declaration::ForeignCordon(name())] {
        check(&Story::new().declare(declaration).cordon("a").cordon("b"), &[]);
    }
    check(&Story::new().declare(Declaration::Quota(2)).cordon("a").cordon("b"), &[]);
}

#[test]
fn a_quota_that_shrinks_accuses_nobody_before_the_next_node() {
    let story = Story::new().declare(Declaration::Quota(2)).cordon("a").cordon("b").declare(Declaration::Quota(1));
    check(&story, &[]);
    check(&story.cordon("c"), &["c is one too many for a quota of 1"]);
}

#[test]
fn a_reboot_with_pods_on_the_node_is_caught() {
    let story = || Story::new().pod("w1", "a", alive).cordon("a");
    check(&story().down("a").up("a", "2"), &["a was rebooted with pods on it: default/w1"]);
    check(&story().up("a", "2"), &["a was rebooted with pods on it"]);
    check(&story().pod("w1", "a", terminating).down("a").up("a", "2"), &["a was rebooted with pods on it"]);
    // Too late: it was there when the node went down.
    check(&story().down("a").pod_gone("w1").up("a", "2"), &["a was rebooted with pods on it"]);
    check(&story().pod_gone("w1").down("a").pod("w2", "a", alive).up("a", "2"), &[]);
    check(&story().declare(Declaration::Undrained("a".to_owned())).down("a").up("a", "2"), &[]);
}

#[test]
fn pods_that_no_drain_removes_may_stay() {
    let story = Story::new().pod("d1", "a", |pod| pod.evictable = false).pod("w1", "b", alive);
    check(&story.cycle("a"), &[]);
    for (pod, evictable) in [
        (json!({"metadata": {"ownerReferences": [owner("DaemonSet")]}}), false),
        (json!({"metadata": {"ownerReferences": [owner("ReplicaSet")]}}), true),
        (json!({"metadata": {"annotations": {"kubernetes.io/config.mirror": "x"}}}), false),
        (json!({"metadata": {}, "status": {"phase": "Succeeded"}}), false),
        (json!({"metadata": {}, "status": {"phase": "Failed"}}), false),
        (json!({"metadata": {}, "status": {"phase": "Running"}}), true),
    ] {
        let parsed: Pod = serde_json::from_value(pod.clone()).expect("a pod");
        assert_eq!(PodSeen::from(&parsed).evictable, evictable, "{pod}");
    }
}

fn owner(kind: &str) -> serde_json::Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "name": "x", "uid": "x", "controller": true})
}

#[test]
fn a_reboot_without_a_cordon_is_caught() {
    check(&Story::new().down("a").up("a", "2"), &["a was rebooted without being cordoned"]);
    check(&Story::new().up("a", "2"), &["a was rebooted without being cordoned"]);
    check(&Story::new().down("a").cordon("a").up("a", "2"), &["a was rebooted without being cordoned"]);
    check(&Story::new().declare(Declaration::Broken("a".to_owned())).down("a").up("a", "2"), &[]);
}

#[test]
fn an_uncordon_in_the_middle_of_a_reboot_is_caught() {
    let down = || Story::new().cordon("a").down("a");
    let words = "a was uncordoned before it was Ready under a new boot ID";
    check(&down().uncordon("a").up("a", "2"), &[words]);
    let booting = down().node("a", |node| node.boot_id = "2".to_owned());
    check(&booting.uncordon("a"), &[words]);
    // Nobody noticed that it went down: then it was rebooted without a cordon.
    check(&Story::new().cordon("a").uncordon("a").up("a", "2"), &["a was rebooted without being cordoned"]);
}

#[test]
fn giving_back_is_no_violation() {
    check(&Story::new().cordon("a").uncordon("a").cordon("b"), &[]);
    // Not Ready for a moment, and not because of a reboot.
    check(&Story::new().cordon("a").down("a").up("a", "1").uncordon("a"), &[]);
}

#[test]
fn a_cordon_of_a_person_that_goes_is_caught() {
    let story = || Story::new().declare(Declaration::ForeignCordon("a".to_owned())).cordon("a");
    check(&story().uncordon("a"), &["a was uncordoned, but a person had cordoned it"]);
    check(&story().down("a").up("a", "2").uncordon("a"), &["but a person had cordoned it"]);
    check(&story().declare(Declaration::ForeignCordonEnds("a".to_owned())).uncordon("a"), &[]);
}

#[test]
fn a_pod_that_is_taken_from_its_pdb_is_caught() {
    let two = || Story::new().pdb().pod("w1", "a", alive).pod("w2", "b", alive);
    let words = "default/w1 was taken from the PDB web: 1 available pods are left, it demands 2";
    check(&two().pod("w1", "a", terminating), &[words]);
    check(&two().pod("w1", "a", terminating).pod_gone("w1"), &[words]);
    check(&two().pod_gone("w1"), &[words]);
    check(&two().pod("w3", "c", alive).pod_gone("w1"), &[]);
    // A pod that fails by itself is nobody's eviction, and one that is not available costs nothing.
    check(&two().pod("w1", "a", |pod| pod.available = false).pod_gone("w1"), &[]);
    check(&two().pod("x", "a", |pod| pod.labels.clear()).pod_gone("x"), &[]);
    check(&two().pod("x", "a", |pod| pod.namespace.push('2')).pod_gone("x"), &[]);
}

#[test]
fn selectors_with_expressions_select_as_in_kubernetes() {
    let pod = |story: Story| story.pod("w1", "a", alive);
    for (operator, values, protects) in [
        ("In", Some(vec!["web"]), true),
        ("In", Some(vec!["db"]), false),
        ("NotIn", Some(vec!["web"]), false),
        ("NotIn", Some(vec!["db"]), true),
        ("Exists", None, true),
        ("DoesNotExist", None, false),
        ("Sometimes", None, false),
    ] {
        let selector = json!({"matchExpressions": [{"key": "app", "operator": operator, "values": values}]});
        let selector = serde_json::from_value(selector).expect("a selector");
        let pdb = PdbSeen { namespace: "default".to_owned(), selector, bound: 1, ..PdbSeen::default() };
        let mut story = Story::new();
        story.push(Event::Pdb(pdb));
        let expected: &[&str] = if protects { &["w1 was taken"] } else { &[] };
        check(&pod(story).pod_gone("w1"), expected);
    }
}

#[test]
fn what_is_missing_at_the_end_is_named() {
    let once = Expect::rebooted_once(["a"]);
    check_end(&Story::new().cycle("a"), &once, &[]);
    check_end(&Story::new(), &once, &["a: rebooted 0 times, expected 1"]);
    check_end(
        &Story::new().cycle("a").cordon("a").up("a", "3").uncordon("a"),
        &once,
        &["a: rebooted 2 times, expected 1"],
    );
    check_end(&Story::new().cycle("a").cycle("b"), &once, &["b: rebooted 1 times, expected 0"]);
    check_end(&Story::new().cycle("a").cordon("a"), &once, &["a: still cordoned"]);
    check_end(&Story::new().cycle("a").down("a"), &once, &["a: not Ready"]);
    check_end(&Story::new().cycle("a"), &Expect::rebooted_once(["a", "z"]), &["z: there is no such node"]);
    let kept = Story::new().cycle("a").note("a", "last-reboot").note("a", "reboot-fence").note("a", "reboot-status");
    check_end(&kept, &once, &[]);
    let left = Story::new().cycle("a").note("a", "reboot-request");
    check_end(&left, &once, &["a: still has reboot-request"]);
    check_end(&left, &once.clone().may_keep("reboot-request"), &[]);
    let cordoned = Story::new().declare(Declaration::ForeignCordon("a".to_owned())).cordon("a").up("a", "2");
    check_end(&cordoned, &once, &[]);
    check_end(
        &Story::new().cycle("a").cordon("a").up("a", "3"),
        &Expect::default().rebooted("a", 2),
        &["a: still cordoned"],
    );
}

#[test]
fn another_node_of_the_same_name_is_another_node() {
    let replaced = Story::new().node("a", |node| {
        node.uid.push('2');
        node.boot_id = "2".to_owned();
    });
    check(&replaced, &[]);
    check_end(&replaced, &Expect::default(), &[]);
}
