//! A machine that goes down and comes up again, its kubelet, its update_engine and its logind, and the pods on it.

use std::time::Duration;

use super::agent::Agent;
use super::api::ApiNode;
use super::budget::LABEL;
use super::random::Random;
use super::world::World;
use crate::audit::Actor;
use crate::drain::{Attachment, Attachments, Budgets, Claim, Nature, PodRef, PodView, Refusal};
use crate::ids::BootId;
use crate::step::{Engine, EvictReply, Fresh, HostView, LogindReply, ShutdownLock};

pub(super) struct Machine {
    pub(super) boot: BootId,
    booted_at: Duration,
    power: Power,
    pub(super) engine: Engine,
    os_version: u32,
    pub(super) pods: Vec<Pod>,
    kubelet: Kubelet,
    /// When the agent's pod is back, where it is gone.
    pub(super) agent_back_at: Option<Duration>,
    made: u32,
    /// The volumes of pods that went, until when they are attached.
    detaching: Vec<(Claim, Duration)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    Up,
    /// logind prepares the shutdown until then.
    Preparing(Duration),
    /// Off until then.
    Down(Duration),
}

/// When kubelet has something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kubelet {
    Steady,
    /// Silent: not Ready from then on.
    Silent(Duration),
    /// Says at that time that it is under the new boot, Ready or not yet.
    Reports(Duration, bool),
}

#[derive(Clone)]
pub(super) struct Pod {
    view: PodView,
    gone_at: Option<Duration>,
}

impl Machine {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut machine = Self {
            boot: boot_id(1 + random.below(0xFFFF) as u128 * 0x1_0000),
            booted_at: Duration::ZERO,
            power: Power::Up,
            engine: Engine::Otherwise,
            os_version: 1,
            pods: Vec::new(),
            kubelet: Kubelet::Steady,
            agent_back_at: None,
            made: 0,
            detaching: Vec::new(),
        };
        for _ in 0..random.below(3) {
            machine.add_pod();
        }
        machine
    }

    pub(super) fn add_pod(&mut self) {
        self.made += 1;
        let name = format!("pod-{}", self.made);
        let nature = if self.made.is_multiple_of(5) { Nature::DaemonSet } else { Nature::Ordinary };
        let pod = PodRef { namespace: "default".into(), uid: name.clone(), name };
        // Every other pod is under the budget.
        let (key, value) = LABEL;
        let labels = self.made.is_multiple_of(2).then(|| (key.to_owned(), value.to_owned())).into_iter().collect();
        // And every third has a volume.
        let claim = Claim { namespace: "default".into(), name: format!("data-{}", self.made) };
        let claims = self.made.is_multiple_of(3).then_some(claim).into_iter().collect();
        let view = PodView { pod, nature, labels, claims, ..PodView::default() };
        self.pods.push(Pod { view, gone_at: None });
    }

    /// Exactly these pods: some, of which the budget guards at least one, or none.
    pub(super) fn set_pods(&mut self, some: bool) {
        self.pods.clear();
        (0..if some { 2 } else { 0 }).for_each(|_| self.add_pod());
    }

    /// What is attached: the volumes of the pods, and those of pods that went a moment ago.
    pub(super) fn attachments(&self) -> Attachments {
        let used = self.pods.iter().flat_map(|pod| pod.view.claims.iter());
        let claims = used.chain(self.detaching.iter().map(|(claim, _)| claim));
        let attachment =
            |claim: &Claim| Attachment { volume: format!("pv-{}", claim.name), claim: Some(claim.clone()) };
        Attachments(Some(claims.map(attachment).collect()))
    }

    pub(super) fn pods(&self) -> Vec<PodView> {
        self.pods.iter().map(|pod| pod.view.clone()).collect()
    }

    /// What logind says when it is asked.
    pub(super) fn fresh(&self) -> Fresh {
        Fresh { preparing_for_shutdown: Some(matches!(self.power, Power::Preparing(_))) }
    }

    /// What the agent sees, with the pods, budgets and volumes that it knows.
    pub(super) fn host_view(
        &self,
        pods: Option<Vec<PodView>>,
        budgets: Budgets,
        attachments: Attachments,
        mono: Duration,
    ) -> HostView {
        HostView {
            boot: Some(self.boot),
            os_version: Some(self.os_version.to_string()),
            uptime: mono.saturating_sub(self.booted_at),
            engine: self.engine.clone(),
            pods,
            budgets,
            attachments,
            lock: ShutdownLock::Free,
            other_manager: None,
        }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.power, Power::Down(_))
    }

    /// When the machine next does something by itself.
    pub(super) fn due(&self) -> Option<Duration> {
        let power = match self.power {
            Power::Up => None,
            Power::Preparing(at) | Power::Down(at) => Some(at),
        };
        let kubelet = match self.kubelet {
            Kubelet::Steady => None,
            Kubelet::Silent(at) | Kubelet::Reports(at, _) => Some(at),
        };
        let pods = self.pods.iter().filter_map(|pod| pod.gone_at);
        let volumes = self.detaching.iter().map(|(_, at)| *at);
        pods.chain(volumes).chain(power).chain(kubelet).chain(self.agent_back_at).min()
    }
}

fn boot_id(number: u128) -> BootId {
    let text = format!("{number:032x}");
    let groups = [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]];
    groups.join("-").parse().unwrap()
}

fn seconds(random: &mut Random, most: usize) -> Duration {
    Duration::from_secs(random.below(most) as u64 + 1)
}

impl World {
    /// Lets everything happen on this host that is due.
    pub(super) fn elapse(&mut self, host: usize) {
        let now = self.mono;
        // Some volumes take longer than anybody waits.
        let detached_at = now + *self.random.pick(&[Duration::ZERO, Duration::from_secs(9), Duration::from_hours(1)]);
        let machine = &mut self.hosts[host].machine;
        machine.detaching.retain(|(_, at)| *at > now);
        for pod in machine.pods.extract_if(.., |pod| pod.gone_at.is_some_and(|at| at <= now)) {
            machine.detaching.extend(pod.view.claims.into_iter().map(|claim| (claim, detached_at)));
        }
        match self.hosts[host].machine.power {
            Power::Preparing(at) if at <= now => self.power_off(host),
            Power::Down(at) if at <= now => self.boots(host),
            _ => {}
        }
        if self.hosts[host].machine.agent_back_at.is_some_and(|at| at <= now) {
            let machine = &mut self.hosts[host].machine;
            machine.agent_back_at = None;
            let back = (!machine.is_down()).then(|| Agent::started_at(now, machine.boot));
            self.hosts[host].agent = back;
        }
        match self.hosts[host].machine.kubelet {
            Kubelet::Silent(at) if at <= now => {
                self.hosts[host].machine.kubelet = Kubelet::Steady;
                self.change(Actor::Machine, host, |node| node.ready = false);
            }
            Kubelet::Reports(at, ready) if at <= now => self.kubelet_reports(host, ready),
            _ => {}
        }
    }

    fn kubelet_reports(&mut self, host: usize, ready: bool) {
        let later = self.mono + seconds(&mut self.random, 20);
        self.hosts[host].machine.kubelet = if ready { Kubelet::Steady } else { Kubelet::Reports(later, true) };
        let boot = self.hosts[host].machine.boot.to_string();
        match self.hosts[host].api {
            None => self.register(host),
            Some(_) => self.change(Actor::Machine, host, |node: &mut ApiNode| (node.boot, node.ready) = (boot, ready)),
        }
    }

    /// The machine goes down, and everything on it.
    pub(super) fn power_off(&mut self, host: usize) {
        let name = self.hosts[host].name.clone();
        self.tell(|| format!("{name} goes down"));
        let (up_at, silent_at) =
            (self.mono + seconds(&mut self.random, 120), self.mono + seconds(&mut self.random, 60));
        self.hosts[host].agent = None;
        self.hosts[host].machine.power = Power::Down(up_at);
        self.hosts[host].machine.kubelet = Kubelet::Silent(silent_at);
    }

    fn boots(&mut self, host: usize) {
        let takes = !self.faults || self.random.once_in(2);
        let report_at = self.mono + seconds(&mut self.random, 60);
        let ready = self.random.once_in(2);
        let machine = &mut self.hosts[host].machine;
        let next: u128 = u128::from_str_radix(&machine.boot.to_string().replace('-', ""), 16).unwrap() + 1;
        (machine.boot, machine.booted_at, machine.power) = (boot_id(next), self.mono, Power::Up);
        machine.agent_back_at = None;
        machine.detaching.clear();
        machine.kubelet = Kubelet::Reports(report_at, ready);
        let installed = matches!(machine.engine, Engine::NeedsReboot(_));
        machine.os_version += u32::from(installed && takes);
        machine.engine = Engine::Otherwise;
        let (boot, name) = (machine.boot, self.hosts[host].name.clone());
        self.hosts[host].agent = Some(Agent::started_at(self.mono, boot));
        self.tell(|| format!("{name} boots as {boot}"));
        self.audit.booted(&name, boot);
    }

    /// kubelet stops for a while.
    pub(super) fn kubelet_fails(&mut self, host: usize) {
        let machine = &mut self.hosts[host].machine;
        if machine.power == Power::Up && machine.kubelet == Kubelet::Steady {
            machine.kubelet = Kubelet::Reports(self.mono + seconds(&mut self.random, 300), true);
            self.change(Actor::Machine, host, |node| node.ready = false);
        }
    }

    /// Everybody is well again, in so far as nobody has to come for it.
    pub(super) fn power_on(&mut self, host: usize) {
        let mono = self.mono;
        let machine = &mut self.hosts[host].machine;
        if let Power::Down(at) = &mut machine.power {
            *at = (*at).min(mono);
        }
        if machine.engine == Engine::Unheard {
            machine.engine = Engine::Otherwise;
        }
    }

    /// logind is called. The reply need not say what happened.
    pub(super) fn call_logind(&mut self, host: usize) -> LogindReply {
        let reply = if self.faults { self.random.below(6) } else { 0 };
        let down_at = self.mono + seconds(&mut self.random, 90);
        let name = self.hosts[host].name.clone();
        self.tell(|| format!("logind of {name} is called, case {reply}"));
        let machine = &mut self.hosts[host].machine;
        match reply {
            // Accepted, but nothing comes of it; or the call was lost.
            1 => LogindReply::MayHappen,
            2 => LogindReply::NotSent("the bus is away".into()),
            // Once it has begun it refuses nothing.
            3 if machine.power == Power::Up => LogindReply::Refused("blocked by an inhibitor".into()),
            _ => {
                if machine.power == Power::Up {
                    machine.power = Power::Preparing(down_at);
                    self.audit.going_down(&name);
                }
                LogindReply::MayHappen
            }
        }
    }

    /// An eviction reaches the API server.
    pub(super) fn evict(&mut self, host: usize, uid: &str) -> EvictReply {
        let gone_at = self.mono + seconds(&mut self.random, 60);
        let ends_at = self.now().wall + gone_at.saturating_sub(self.mono);
        let replaced_at = self.mono + seconds(&mut self.random, 60);
        if self.faults && self.random.once_in(5) {
            return EvictReply::Refused(Refusal::Throttled(None));
        }
        let Self { hosts, budget, .. } = self;
        let guarded = |pod: &Pod| pod.view.labels.contains_key(LABEL.0);
        for pod in hosts[host].machine.pods.iter_mut().filter(|pod| pod.view.pod.uid == uid && pod.gone_at.is_none()) {
            if let Some(refusal) = guarded(pod).then(|| budget.take(replaced_at).err()).flatten() {
                return EvictReply::Refused(refusal);
            }
            (pod.gone_at, pod.view.ends_at) = (Some(gone_at), Some(ends_at));
        }
        if self.faults && self.random.once_in(10) {
            return EvictReply::Refused(Refusal::NoAnswer("timeout".into()));
        }
        EvictReply::Accepted
    }
}
