//! The search through every order of events, by `stateright`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use reboot_core::plan;
use stateright::{Checker, HasDiscoveries, Model, Property};

use super::agent::Luck;
use super::controller::Sight;
use super::people::Act;
use super::state::{State, Work, Write};
use super::world::World;

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// An agent takes a turn, on a view of its Node that is old or not.
    Agent {
        host: usize,
        old: bool,
        luck: Luck,
    },
    /// A controller begins what it plans.
    Plans {
        controller: usize,
        action: Box<plan::Action>,
        sight: Sight,
    },
    /// A controller makes the next call.
    GoesOn {
        controller: usize,
    },
    /// A controller's write arrives later, or never.
    GivesUp {
        controller: usize,
    },
    /// A controller finds that its ledger is not the newest.
    Forgets {
        controller: usize,
    },
    /// A machine or its kubelet does the next thing.
    Machine {
        host: usize,
    },
    /// The write that is on its way arrives.
    Arrives,
    /// A view of this Node is kept, to be looked at when it is old.
    Keep {
        host: usize,
    },
    HourPasses,
    ControllerCrashes {
        controller: usize,
    },
    AgentCrashes {
        host: usize,
    },
    PowerFails {
        host: usize,
    },
    PodComes {
        host: usize,
    },
    Person {
        act: Act,
        host: usize,
    },
}

impl Model for World {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        vec![self.first()]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        if state.broken.is_some() {
            return;
        }
        for host in 0..state.hosts.len() {
            events.push(Event::Machine { host });
            events.push(Event::Agent { host, old: false, luck: Luck::Good });
        }
        for controller in 0..state.controllers.len() {
            self.controller_events(state, controller, events);
        }
        faults(state, events);
    }

    fn next_state(&self, state: &State, event: Event) -> Option<State> {
        let mut next = state.clone();
        self.happens(&mut next, &event).then(|| {
            self.settle_what_is_certain(&mut next);
            next.fingerprinted()
        })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let safe = Property::always("S1 to S6", |_, state: &State| state.broken.is_none());
        let ends = Property::always("every cycle ends", |world: &Self, state: &State| world.is_seen_to_end(state));
        if self.checks_ends { vec![safe, ends] } else { vec![safe] }
    }
}

impl World {
    fn is_seen_to_end(&self, state: &State) -> bool {
        let rounds = self.ends(state);
        self.rounds.fetch_max(*rounds.as_ref().unwrap_or(&0), Ordering::Relaxed);
        rounds.is_ok() || state.broken.is_some()
    }

    fn controller_events(&self, state: &State, controller: usize, events: &mut Vec<Event>) {
        let known = &state.controllers[controller];
        if !matches!(known.work, Work::Plan) {
            events.push(Event::GoesOn { controller });
            return;
        }
        if known.ledger.as_ref().is_some_and(|held| !Arc::ptr_eq(held, &state.map)) {
            events.push(Event::Forgets { controller });
        }
        let mut begun = Vec::new();
        for (old, long_ago) in [(false, false), (false, true), (true, false)] {
            if (old && state.old.is_none()) || (long_ago && state.hours == 0) {
                continue;
            }
            let sight = Sight { old, long_ago };
            for action in self.plans(state, controller, sight) {
                // An old view counts where it is acted on, and long waiting where a slot is judged.
                let judged = long_ago && matches!(action, plan::Action::Settle(_));
                if old || judged || !begun.contains(&action) {
                    begun.push(action.clone());
                    events.push(Event::Plans { controller, action: Box::new(action), sight });
                }
            }
        }
    }

    /// Lets it happen; whether that makes a difference.
    pub(crate) fn happens(&self, state: &mut State, event: &Event) -> bool {
        match event {
            Event::Agent { host, old, luck } => self.agent_event(state, *host, *old, *luck),
            Event::Plans { controller, action, sight } => {
                self.controller_turns(state, *controller, Some((action, *sight)))
            }
            Event::GoesOn { controller } => self.controller_turns(state, *controller, None),
            Event::GivesUp { controller } => gives_up(state, *controller),
            Event::Forgets { controller } | Event::ControllerCrashes { controller } => {
                let crashes = matches!(event, Event::ControllerCrashes { .. });
                state.left.crashes -= u8::from(crashes);
                let known = &mut state.controllers[*controller];
                // Whoever has nothing under way loses only what it reads again.
                let loses = !crashes || !matches!(known.work, Work::Plan);
                (known.ledger, known.work) = (None, Work::Plan);
                loses
            }
            Event::Machine { host } => state.machine_goes_on(*host),
            Event::Arrives => self.arrives(state),
            Event::Keep { host } => {
                state.left.stale -= 1;
                state.old = state.node(*host).map(|seen| (*host, Arc::clone(seen)));
                state.old.is_some()
            }
            Event::HourPasses => {
                (state.left.hours, state.hours) = (state.left.hours - 1, state.hours + 1);
                true
            }
            Event::AgentCrashes { host } => {
                state.left.crashes -= 1;
                let before = Arc::clone(&state.hosts[*host].memory);
                state.restart_agent(*host);
                state.hosts[*host].memory.print != before.print
            }
            Event::PowerFails { host } => {
                state.left.crashes -= 1;
                state.reboot(*host);
                true
            }
            Event::PodComes { host } => {
                state.left.pods -= 1;
                let pod = state.draw();
                state.hosts[*host].machine.pod.replace(pod).is_none()
            }
            Event::Person { act, host } => {
                state.left.acts -= 1;
                state.person_acts(*act, *host)
            }
        }
    }

    fn agent_event(&self, state: &mut State, host: usize, old: bool, luck: Luck) -> bool {
        let seen = if old { state.old.as_ref().map(|(_, seen)| seen) } else { state.node(host) };
        let Some(seen) = seen.cloned() else { return false };
        match luck {
            Luck::Good => {}
            Luck::Late => state.left.late -= 1,
            Luck::Refused | Luck::NothingHappens => state.left.refusals -= 1,
        }
        self.agent_turns(state, host, &seen, luck)
    }

    fn arrives(&self, state: &mut State) -> bool {
        let Some(late) = state.late.take() else { return false };
        match &late.value {
            Write::Node(write) => drop(self.send(state, write.actor, write.host, &write.seen, &write.patch)),
            Write::Ledger(ledger, _) => drop(self.replace(state, ledger)),
        }
        true
    }

    /// What can only fail, fails now: nobody sees the difference, and there are fewer states.
    fn settle_what_is_certain(&self, state: &mut State) {
        if self.mutation.is_some() {
            return;
        }
        if state.late.as_ref().is_some_and(|late| state.is_doomed(&late.value)) {
            state.late = None;
        }
        for number in 0..state.controllers.len() {
            let Work::Write(write) = &state.controllers[number].work else { continue };
            if state.is_doomed(&write.value) {
                let controller = &mut state.controllers[number];
                (controller.ledger, controller.work) = (None, Work::Plan);
            }
        }
    }
}

/// What else can happen, as often as that is left.
fn faults(state: &State, events: &mut Vec<Event>) {
    let left = &state.left;
    let hosts = 0..state.hosts.len();
    if let Some((host, _)) = &state.old {
        events.push(Event::Agent { host: *host, old: true, luck: Luck::Good });
    }
    if state.late.is_some() {
        events.push(Event::Arrives);
    }
    if left.late > 0 {
        events.extend(hosts.clone().map(|host| Event::Agent { host, old: false, luck: Luck::Late }));
        events.extend((0..state.controllers.len()).map(|controller| Event::GivesUp { controller }));
    }
    if left.refusals > 0 {
        for luck in [Luck::Refused, Luck::NothingHappens] {
            events.extend(hosts.clone().map(|host| Event::Agent { host, old: false, luck }));
        }
    }
    if left.crashes > 0 {
        events.extend((0..state.controllers.len()).map(|controller| Event::ControllerCrashes { controller }));
        events.extend(hosts.clone().map(|host| Event::AgentCrashes { host }));
        events.extend(hosts.clone().map(|host| Event::PowerFails { host }));
    }
    if left.stale > 0 {
        events.extend(hosts.clone().map(|host| Event::Keep { host }));
    }
    if left.hours > 0 {
        events.push(Event::HourPasses);
    }
    if left.pods > 0 {
        events.extend(hosts.clone().map(|host| Event::PodComes { host }));
    }
    if left.acts > 0 {
        events.extend(hosts.flat_map(|host| Act::TO_NODES.map(|act| Event::Person { act, host })));
        events.extend(Act::TO_LEDGER.map(|act| Event::Person { act, host: 0 }));
    }
}

/// The write of a controller is on its way; the controller reads everything anew.
fn gives_up(state: &mut State, number: usize) -> bool {
    let controller = &mut state.controllers[number];
    let Work::Write(write) = &controller.work else { return false };
    if state.late.is_some() {
        return false;
    }
    state.late = Some(Arc::clone(write));
    (controller.ledger, controller.work) = (None, Work::Plan);
    state.left.late -= 1;
    true
}

/// What came of a search.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    pub(crate) seconds: f64,
    /// The most rounds that a state took to its end, where that was looked at.
    pub(crate) rounds: usize,
    /// Whether there was nothing left to search.
    pub(crate) is_whole: bool,
    /// The events that lead to a broken promise, if one was found.
    pub(crate) counterexample: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, depth, seconds, rounds, is_whole, counterexample } = self;
        write!(
            f,
            "{states:>10} states, depth {depth:>3}, {seconds:>6.1} s, {}",
            usize::from(counterexample.is_some())
        )?;
        f.write_str(" violations")?;
        if *rounds > 0 {
            write!(f, ", every state ends in {rounds} rounds")?;
        }
        if !is_whole && counterexample.is_none() {
            f.write_str(", NOT WHOLE: stopped by time")?;
        }
        counterexample.as_ref().map_or(Ok(()), |counterexample| write!(f, "\n{counterexample}"))
    }
}

/// A state and what happens in it, for people.
fn told(state: &State, event: Option<&Event>) -> String {
    let ledger: Vec<String> =
        state.map.state.known().iter().flat_map(|ledger| ledger.slots()).map(ToString::to_string).collect();
    let mut lines = vec![format!("    ledger {ledger:?}, lost: {}", state.map.state.known().is_none())];
    for host in &state.hosts {
        let seen =
            host.node.as_ref().map(|node| (&node.api.version, &node.api.boot, node.api.ready, &node.api.annotations));
        lines.push(format!("    {} {seen:?} {:?}", host.name, host.machine));
    }
    lines.extend(event.map(|event| format!("{event:?}")));
    lines.join("\n").replace("reboot-operator.io/", "").replace("aaaaaaaa-aaaa-aaaa-aaaa-", "")
}

/// Searches every state, or until `longest` has passed.
pub(crate) fn search(world: World, longest: Option<Duration>) -> Found {
    #[expect(clippy::disallowed_methods, reason = "how long a search takes decides nothing")]
    let begun = Instant::now();
    let checker = world.checker().threads(2).finish_when(HasDiscoveries::Any);
    let checker = if let Some(longest) = longest { checker.timeout(longest) } else { checker };
    let checker = checker.spawn_dfs().join();
    let seconds = begun.elapsed().as_secs_f64();
    let counterexample = checker.discoveries().into_values().next().map(|path| {
        let last = path.last_state();
        let broken = last.broken.as_ref().map(ToString::to_string);
        let last = broken.or_else(|| checker.model().ends(last).err()).unwrap_or_default();
        let steps: Vec<String> = path.into_vec().iter().map(|(state, event)| told(state, event.as_ref())).collect();
        format!("{last}\n{}", steps.join("\n"))
    });
    Found {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        seconds,
        rounds: checker.model().rounds.load(Ordering::Relaxed),
        is_whole: counterexample.is_none() && longest.is_none_or(|longest| seconds < longest.as_secs_f64()),
        counterexample,
    }
}
