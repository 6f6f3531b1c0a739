//! Crashes of the controller and of agents in every phase of the cycle: the end is the same each time.
//!
//! Every phase is held by the test until the blow has fallen and the victim runs again, so nothing here is a race.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::{Api, api::PostParams};
use reboot_tests::{
    bus::Answer,
    process::Process,
    referee::{Expect, history::NodeSeen},
    sim::Reboots,
    workload::Workload,
};
use serde_json::{Value, json};

use crate::stage::{LIMIT, NAMESPACE, Stage, UPDATE, crash, last_reboot, phase_of};

/// How far a node's cycle has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its agent has answered; the quota is used.
    Asked,
    /// It has a slot in the ledger, and no grant.
    SlotTaken,
    /// The grant is on the Node, and no agent has taken it up.
    Granted,
    /// One pod is left to go.
    Draining,
    /// Past the point of no return; logind is not on the bus.
    Committed,
    /// logind has the request and does not answer: it waits for somebody, who may be waiting for the agent to end.
    Called,
    /// The machine is off.
    Down,
    /// The machine and the agent run again; kubelet has not said so.
    Booted,
    /// The agent has reported the end; the slot is not freed.
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    KillController,
    KillAgent,
    TerminateAgent,
}

use Blow::{KillAgent, KillController, TerminateAgent};
use Phase::{Asked, Booted, Called, Committed, Down, Draining, Finished, Granted, SlotTaken};

/// kubelet gives little time to those who end last when a machine goes down.
const END: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_controller_killed_in_any_phase_changes_nothing_in_the_end() {
    let phases = [Asked, SlotTaken, Granted, Draining, Committed, Called, Down, Booted, Finished];
    check(&phases.map(|phase| (phase, KillController))).await;
}

// On a machine that is down there is no agent: every cycle kills one there.
#[tokio::test]
async fn an_agent_killed_in_any_phase_changes_nothing_in_the_end() {
    let phases = [Asked, SlotTaken, Granted, Draining, Committed, Called, Booted, Finished];
    check(&phases.map(|phase| (phase, KillAgent))).await;
}

#[tokio::test]
async fn an_agent_that_is_asked_to_end_ends_well_and_the_next_one_goes_on() {
    let phases = [Asked, Draining, Committed, Called, Booted];
    check(&phases.map(|phase| (phase, TerminateAgent))).await;
}

/// The API server counts the pod of an eviction that is cut short as gone for two minutes, and deletes it not: its
/// PDB refuses every other eviction meanwhile.
#[tokio::test]
async fn an_agent_that_is_asked_to_end_cuts_no_eviction_short() {
    let stage = Stage::set(2, 1, &[Workload::new("web", 16).max_unavailable(8)]).await;
    let _controller = stage.cluster.spawn_controller("controller", &[]).unwrap();
    let machine = stage.machine("node-1");
    machine.start_agent(&[]).unwrap();
    stage.anchor("node-1").await;
    stage.update("node-1").await;
    stage.until_anchor_evicted("node-1").await;
    assert!(machine.stop_agent(LIMIT).await.unwrap().success());
    let audit = stage.cluster.control_plane().audit().unwrap();
    let evictions = audit.iter().filter(|request| request.resource == "pods/eviction");
    let answers: BTreeSet<_> = evictions.map(|request| request.code).collect();
    assert!(answers.is_subset(&BTreeSet::from([201, 429])), "{answers:?}");
    machine.start_agent(&[]).unwrap();
    stage.weigh_anchor("node-1").await;
    stage.ends(&Expect::rebooted_once(["node-1"])).await;
}

/// Takes a node of its own through each phase and blow, one after the other.
async fn check(blows: &[(Phase, Blow)]) {
    let mut play = Play::begin(blows.len()).await;
    for (index, &(phase, blow)) in blows.iter().enumerate() {
        let node = format!("node-{}", index + 1);
        let before = play.stage.machine(&node).node().boot_id();
        play.reach(phase, &node).await;
        play.strike(blow, &node).await;
        play.go_on(phase, blow, &node).await;
        let end = play.stage.until_rebooted(&node).await;
        play.stage.until_slots(&[]).await;
        assert_ne!(end.boot_id, before);
        assert_eq!(outcome(&end), sound_outcome(), "{blow:?} in {phase:?}");
        if blow != KillController && phase == Called {
            assert!(play.stage.machine(&node).logind().requests() > 1, "the next agent calls logind as well");
        }
    }
    let nodes = (1..=blows.len()).map(|index| format!("node-{index}"));
    play.stage.ends(&Expect::rebooted_once(nodes)).await;
}

/// What a cycle leaves on the Node, without what differs from cycle to cycle.
fn outcome(node: &NodeSeen) -> Value {
    let mut last = last_reboot(node);
    for volatile in ["id", "at", "seconds", "drainSeconds"] {
        last.as_object_mut().unwrap().remove(volatile).unwrap();
    }
    let keys: Vec<_> = node.notes.keys().filter(|key| *key != "reboot-fence").collect();
    json!({"annotations": keys, "last": last, "ready": node.ready, "cordoned": node.cordoned})
}

fn sound_outcome() -> Value {
    let last = json!({
        "outcome": "rebooted", "reason": "Rebooted",
        "why": format!("update_engine: a reboot completes the update to {UPDATE}"),
        "osBefore": "4081.2.0", "osAfter": UPDATE, "sameVersion": 0,
    });
    json!({"annotations": ["last-reboot"], "last": last, "ready": true, "cordoned": false})
}

struct Play {
    stage: Stage,
    controller: Option<Process>,
    controller_args: Vec<String>,
    /// A node that no blow is for.
    spare: String,
}

impl Play {
    async fn begin(nodes: usize) -> Self {
        let stage = Stage::set(nodes + 1, 1, &[Workload::new("web", 4)]).await;
        stage.cluster.start_agents(&[]).unwrap();
        let mut play =
            Self { stage, controller: None, controller_args: Vec::new(), spare: format!("node-{}", nodes + 1) };
        play.start_controller().await;
        play
    }

    /// Brings the node into the phase, and holds it there.
    async fn reach(&mut self, phase: Phase, node: &str) {
        let machine = self.stage.machine(node);
        match phase {
            Asked => {
                self.stage.cordon(&self.spare).await;
                self.stage.update(node).await;
                self.stage.until_waiting(node, "QuotaUsed").await;
            }
            SlotTaken => {
                let kubeconfig = self.reader().await;
                self.replace_controller(vec![format!("--kubeconfig={kubeconfig}")]).await;
                self.stage.update(node).await;
                self.stage.until_slots(&[node]).await;
                let asked = |seen: &NodeSeen| seen.notes.contains_key("reboot-request");
                let seen = self.stage.until_node(node, "to have asked", asked).await;
                assert!(!seen.notes.contains_key("reboot"), "it cannot have been written: {seen:?}");
            }
            Granted => {
                Box::pin(self.reach(Asked, node)).await;
                self.stage.machine(node).kill_agent().unwrap();
                self.stage.uncordon(&self.spare).await;
                self.stage.until_node(node, "to be granted", |node| node.notes.contains_key("reboot")).await;
            }
            Draining => {
                self.stage.anchor(node).await;
                self.stage.update(node).await;
                self.stage.until_at_anchor(node).await;
            }
            Committed => {
                machine.logind().answer(Answer::gone());
                self.stage.update(node).await;
                let told = |text: &String| text.contains("logind was not reached");
                let waits =
                    |node: &NodeSeen| phase_of(node).is_some() && node.notes.get("reboot-status").is_some_and(told);
                self.stage.until_node(node, "to commit", waits).await;
            }
            Called => {
                machine.logind().answer(Answer::Hang);
                self.stage.update(node).await;
                self.until_called(node).await;
            }
            Down => self.go_down(node).await,
            Booted => {
                self.go_down(node).await;
                self.boot_in_silence(node).await;
            }
            Finished => {
                self.stage.anchor(node).await;
                self.stage.update(node).await;
                self.stage.until_at_anchor(node).await;
                crash(self.controller.take().unwrap());
                self.stage.weigh_anchor(node).await;
                self.stage.until_rebooted(node).await;
                self.stage.until_slots(&[node]).await;
            }
        }
    }

    /// The victim dies and starts again.
    async fn strike(&mut self, blow: Blow, node: &str) {
        let machine = self.stage.machine(node);
        match blow {
            KillController => self.replace_controller(self.controller_args.clone()).await,
            KillAgent => machine.restart_agent().unwrap(),
            TerminateAgent => {
                let ended = machine.stop_agent(END).await.unwrap();
                assert!(ended.success(), "{ended}");
                machine.start_agent(&[]).unwrap();
            }
        }
    }

    /// Ends what held the node in the phase.
    async fn go_on(&mut self, phase: Phase, blow: Blow, node: &str) {
        let machine = self.stage.machine(node);
        match phase {
            Asked => self.stage.uncordon(&self.spare).await,
            SlotTaken => self.replace_controller(Vec::new()).await,
            Granted if blow == KillController => machine.restart_agent().unwrap(),
            Draining => self.stage.weigh_anchor(node).await,
            Committed | Called => {
                machine.logind().answer(Answer::Accept);
                machine.restart_agent().unwrap();
            }
            Down => {
                machine.set_reboots(Reboots::default());
                machine.bring_back().await.unwrap();
            }
            Booted => machine.node().report().await.unwrap(),
            Finished if self.controller.is_none() => self.replace_controller(Vec::new()).await,
            Granted | Finished => {}
        }
    }

    /// Polled: of a call without an answer nothing can be watched.
    async fn until_called(&self, node: &str) {
        let logind = self.stage.machine(node).logind();
        let called = async {
            while logind.requests() == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, called).await.unwrap();
    }

    async fn go_down(&self, node: &str) {
        let reboots = Reboots { comes_back: false, kubelet: Duration::MAX, ..Reboots::default() };
        self.stage.machine(node).set_reboots(reboots);
        self.stage.update(node).await;
        self.stage.until_node(node, "to go down", |node| !node.ready).await;
    }

    /// Boots, until the agent says what it waits for: kubelet.
    async fn boot_in_silence(&self, node: &str) {
        let waits = |node: &NodeSeen| node.notes.get("reboot-status").is_some_and(|text| text.starts_with("Rebooted:"));
        tokio::select! {
            ended = self.stage.machine(node).bring_back() => panic!("kubelet was heard: {ended:?}"),
            _ = self.stage.until_node(node, "to wait for kubelet", waits) => {}
        }
    }

    /// Kills the controller, if it runs, and starts it with these arguments.
    async fn replace_controller(&mut self, args: Vec<String>) {
        if let Some(controller) = self.controller.take() {
            crash(controller);
        }
        self.controller_args = args;
        self.stage.forget_leader().await;
        self.start_controller().await;
    }

    async fn start_controller(&mut self) {
        let args: Vec<_> = self.controller_args.iter().map(String::as_str).collect();
        self.controller = Some(self.stage.cluster.spawn_controller("controller", &args).unwrap());
        self.stage.until_led(None).await;
    }

    /// The kubeconfig of an account that may do all that the controller does, except that it may not write Nodes: a
    /// controller under it gets as far as the slot.
    async fn reader(&self) -> String {
        let control_plane = self.stage.cluster.control_plane();
        let metadata = json!({"name": "reader"});
        let role = json!({"metadata": metadata, "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
            {"apiGroups": ["", "coordination.k8s.io"], "resources": ["configmaps", "leases"], "verbs": ["*"]},
        ]});
        let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"});
        let subject = json!({"kind": "ServiceAccount", "name": "default", "namespace": NAMESPACE});
        let binding = json!({"metadata": metadata, "roleRef": reference, "subjects": [subject]});
        let parameters = PostParams::default();
        let roles = Api::<ClusterRole>::all(self.stage.client());
        roles.create(&parameters, &serde_json::from_value(role).unwrap()).await.unwrap();
        let bindings = Api::<ClusterRoleBinding>::all(self.stage.client());
        bindings.create(&parameters, &serde_json::from_value(binding).unwrap()).await.unwrap();
        let token = control_plane.token_for("default", NAMESPACE, None).await.unwrap();
        control_plane.kubeconfig_for_token("reader", &token).unwrap().display().to_string()
    }
}
