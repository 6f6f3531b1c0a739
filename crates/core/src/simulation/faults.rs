//! What goes on around the operator: people, crashes, power, time; and the way back to a world without faults.

use std::time::Duration;

use super::agent::Agent;
use super::api::ApiNode;
use super::controller::Controller;
use super::world::{Failure, Late, World};
use crate::annotations as key;
use crate::audit::Actor;
use crate::quota::Quota;
use crate::step::Engine;

/// How deep things may happen within things.
const DEEPEST: usize = 2;

impl World {
    /// Something else may happen before a call of the operator goes on, and its process may end.
    pub(super) fn disturb(&mut self) -> Result<(), Failure> {
        if !self.faults || self.depth >= DEEPEST {
            return Ok(());
        }
        if self.random.once_in(5) {
            self.depth += 1;
            self.happen();
            self.depth -= 1;
        }
        if self.random.once_in(60) { Err(Failure::Crash) } else { Ok(()) }
    }

    /// One thing happens.
    pub(super) fn happen(&mut self) {
        let host = self.random.below(self.hosts.len());
        match self.random.below(40) {
            0..=8 => drop(self.run_controller(0)),
            9..=10 => drop(self.run_controller(1)),
            11..=24 => drop(self.run_agent(host)),
            25..=30 => self.time_passes(),
            31..=33 => self.person_acts(host),
            34 => self.engine_speaks(host),
            35 if self.random.once_in(4) => self.disrupt(),
            35 => self.hosts[host].machine.add_pod(),
            36 => self.late_write(),
            37 => self.crash(host),
            38 => self.rare(host),
            _ => self.person_asks(host),
        }
    }

    fn time_passes(&mut self) {
        let delay = *self.random.pick(&[1, 1, 5, 10, 20, 40, 90, 200, 700]);
        self.pass(Duration::from_secs(delay));
    }

    /// Time passes, and what is due on the machines happens.
    pub(super) fn pass(&mut self, delay: Duration) {
        self.mono += delay;
        let now = self.now();
        self.budget.elapse(now);
        for host in 0..self.hosts.len() {
            self.elapse(host);
        }
    }

    pub(super) fn person_asks(&mut self, host: usize) {
        self.annotate(host, key::NEEDED, Some("kernel"));
    }

    fn annotate(&mut self, host: usize, key: &str, value: Option<&str>) {
        self.change(Actor::Person, host, |node| {
            match value {
                Some(value) => node.annotations.insert(key.to_owned(), value.to_owned()),
                None => node.annotations.remove(key),
            };
        });
    }

    fn person_acts(&mut self, host: usize) {
        let other = self.random.below(self.hosts.len());
        let copied = self.hosts[other].api.as_ref().and_then(|node| node.annotations.get(key::REBOOT).cloned());
        match self.random.below(27) {
            0..=2 => self.annotate(host, key::NEEDED, Some("kernel")),
            3 => self.annotate(host, key::NEEDED, None),
            4 => self.annotate(host, key::NEEDED, Some("false")),
            5 => self.annotate(host, key::PAUSED, Some("maintenance")),
            6..=7 => self.annotate(host, key::PAUSED, None),
            8 => self.annotate(host, key::REBOOT, Some("now")),
            9..=10 => self.annotate(host, key::REBOOT, None),
            11 => self.annotate(host, key::REBOOT, Some("True")),
            12 => self.annotate(host, key::REBOOT, copied.as_deref()),
            13 => self.annotate(host, key::IN_PROGRESS, None),
            14 => self.annotate(host, key::IN_PROGRESS, Some("{}")),
            15 => self.annotate(host, key::REQUEST, None),
            16 => self.annotate(host, key::LAST_REBOOT, None),
            17 => self.change(Actor::Person, host, |node| node.annotations.clear()),
            18..=19 => self.change(Actor::Person, host, |node| node.cordon = None),
            20 => self.garble(host),
            // A percentage is of the nodes as the controller knows them; a number is a number.
            21 if matches!(self.plan_policy.quota, Quota::Nodes(_)) => {
                self.change(Actor::Person, host, |node| drop(node.labels.insert("role".into(), "control".into())));
            }
            22 => self.change(Actor::Person, host, |node| drop(node.labels.remove("role"))),
            23 => {
                let never = self.random.once_in(2);
                self.tell(|| format!("the budget never allows a disruption: {never}"));
                self.budget.set_never(never);
            }
            _ => self.person_cordons(host),
        }
    }

    fn garble(&mut self, host: usize) {
        let key = *self.random.pick(&[key::REQUEST, key::WAITING, key::LAST_REBOOT]);
        let value = *self.random.pick(&["", "{}", r#"{"protocol":2}"#, "\u{0}"]);
        self.annotate(host, key, Some(value));
    }

    fn person_cordons(&mut self, host: usize) {
        let is_cordoned = self.hosts[host].api.as_ref().is_some_and(|node| node.cordon.is_some());
        if !is_cordoned {
            self.change(Actor::Person, host, |node| node.cordon = Some(vec!["kubectl-cordon".into()]));
        }
    }

    fn engine_speaks(&mut self, host: usize) {
        let engines =
            [Engine::NeedsReboot(Some("2".into())), Engine::NeedsReboot(None), Engine::Otherwise, Engine::Unheard];
        let engine = self.random.pick(&engines).clone();
        let name = self.hosts[host].name.clone();
        self.tell(|| format!("update_engine of {name}: {engine:?}"));
        self.hosts[host].machine.engine = engine;
    }

    fn late_write(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let index = self.random.below(self.late.len());
        match self.late.swap_remove(index) {
            Late::Node(actor, host, body) => {
                self.tell(|| "a delayed write arrives".into());
                drop(self.apply(actor, host, &body));
            }
            Late::Ledger(ledger) => {
                self.tell(|| "a delayed write of the ledger arrives".into());
                drop(self.apply_ledger(&ledger));
            }
        }
    }

    fn crash(&mut self, host: usize) {
        let controller = self.random.below(4);
        if let Some(Some(running)) = self.controllers.get_mut(controller) {
            *running = Controller::default();
            self.tell(|| format!("controller {controller} crashed"));
        } else if self.hosts[host].agent.is_some() {
            let name = self.hosts[host].name.clone();
            self.tell(|| format!("the agent of {name} crashed"));
            self.hosts[host].agent = Some(Agent::started_at(self.mono, self.hosts[host].machine.boot));
        }
    }

    fn rare(&mut self, host: usize) {
        match self.random.below(11) {
            0..=1 if !self.hosts[host].machine.is_down() => self.power_off(host),
            2 => self.kubelet_fails(host),
            3 => self.harm_ledger(true),
            4 => self.harm_ledger(false),
            5 => self.clock_steps(),
            6 if !self.hosts[host].machine.is_down() => {
                self.set_node(Actor::Machine, host, None);
                self.register(host);
            }
            7 => self.forget_managers(host),
            8 if self.hosts[host].agent.is_some() => {
                let name = self.hosts[host].name.clone();
                self.tell(|| format!("the agent of {name} is gone for a while"));
                self.hosts[host].agent = None;
                self.hosts[host].machine.agent_back_at = Some(self.mono + Duration::from_mins(5));
            }
            _ => {}
        }
    }

    fn clock_steps(&mut self) {
        let seconds: i64 = *self.random.pick(&[-3000, -100, 100, 3000]);
        self.tell(|| format!("the clock steps by {seconds} seconds"));
        self.wall_offset += seconds;
        self.skipped += Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    }

    /// The API server merges the managers of a Node that has more than ten.
    fn forget_managers(&mut self, host: usize) {
        let in_progress =
            self.view(host).is_some_and(|node| node.in_progress.get().is_some_and(|progress| progress.cordoned));
        let ours = |node: &ApiNode| node.cordon.as_deref() == Some(&["reboot-agent".to_owned()]);
        if in_progress && self.hosts[host].api.as_ref().is_some_and(ours) {
            self.change(Actor::Machine, host, |node| node.cordon = Some(vec!["ancient-changes".into()]));
        }
    }

    /// People put away what only people can put away, and nothing fails any more.
    pub(super) fn heal(&mut self) {
        self.faults = false;
        self.late.clear();
        self.budget.set_never(false);
        self.controllers.truncate(1);
        self.controllers.iter_mut().flatten().for_each(Controller::elected);
        for host in 0..self.hosts.len() {
            self.power_on(host);
            let Some(view) = self.view(host).cloned() else { continue };
            for (key, _) in view.malformed().filter(|(key, _)| *key != key::WAITING) {
                self.annotate(host, key, None);
            }
            self.change(Actor::Person, host, |node| drop(node.labels.remove("role")));
            if view.paused.is_some() {
                self.annotate(host, key::PAUSED, None);
            }
            let ours = |node: &ApiNode| node.cordon.as_deref().is_none_or(|owners| owners == ["reboot-agent"]);
            if !self.hosts[host].api.as_ref().is_some_and(ours) {
                self.change(Actor::Person, host, |node| node.cordon = None);
            }
        }
    }
}
