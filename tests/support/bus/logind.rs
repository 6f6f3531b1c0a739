//! A fake logind: it reboots nothing, and tells who asked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use zbus::{Message, Variant};

use super::Bus;
use super::service::{Behaviour, Reply, Service, member};

const NAME: &str = "org.freedesktop.login1";

/// What the fake does when it is asked to reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It says yes. From then on it prepares for shutdown, and answers the next request with `OperationInProgress`.
    Accept,
    /// It says no, by this D-Bus error name and in these words.
    Refuse(String, String),
    /// It never answers.
    Hang,
    /// It takes the request and leaves the bus without an answer, as a machine does that goes down at once.
    Vanish,
}

impl Answer {
    /// What the bus says in its place when it has gone: the request reaches nobody, while all else is answered.
    pub fn gone() -> Self {
        let words = "The name org.freedesktop.login1 was not provided by any .service files";
        Self::Refuse("org.freedesktop.DBus.Error.ServiceUnknown".to_owned(), words.to_owned())
    }
}

/// A lock as `ListInhibitors` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhibitor {
    /// What is locked: `shutdown`, `sleep`, ..., joined by colons.
    pub what: String,
    /// Who holds it.
    pub who: String,
    /// Why.
    pub why: String,
    /// How: `block`, `block-weak` or `delay`.
    pub mode: String,
}

/// A request to reboot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebootCall {
    /// The flags of `RebootWithFlags`; `None`: it was `Reboot`.
    pub flags: Option<u64>,
    /// Whether a real machine would go down now.
    pub goes_down: bool,
}

/// Owns `org.freedesktop.login1`.
#[derive(Debug)]
pub struct FakeLogind {
    service: Service,
    machine: Arc<Machine>,
}

#[derive(Debug)]
struct Machine {
    state: Mutex<State>,
    calls: UnboundedSender<RebootCall>,
}

#[derive(Debug)]
struct State {
    answer: Answer,
    can_reboot: String,
    with_flags: bool,
    inhibitors: Vec<Inhibitor>,
    preparing: bool,
    /// The request that is being answered.
    call: Option<RebootCall>,
    requests: usize,
}

impl FakeLogind {
    /// A logind on `bus`, already running, that accepts every request.
    ///
    /// The receiver hears of each request to reboot, after its answer was sent. A simulated machine that shall go
    /// down should leave the bus a moment to deliver the answer.
    ///
    /// # Errors
    /// The bus cannot be reached, or has another logind.
    pub async fn start(bus: &Bus) -> Result<(Self, UnboundedReceiver<RebootCall>)> {
        let (calls, requests) = unbounded_channel();
        let state = State {
            answer: Answer::Accept,
            can_reboot: "yes".to_owned(),
            with_flags: true,
            inhibitors: Vec::new(),
            preparing: false,
            call: None,
            requests: 0,
        };
        let machine = Arc::new(Machine { state: Mutex::new(state), calls });
        let logind = Self { service: Service::new(bus.address(), NAME, machine.clone()), machine };
        logind.resume().await?;
        Ok((logind, requests))
    }

    /// Sets what it does with requests to reboot from now on.
    pub fn answer(&self, answer: Answer) {
        self.machine.lock().answer = answer;
    }

    /// Sets its answer to `CanReboot`.
    pub fn can_reboot(&self, word: &str) {
        word.clone_into(&mut self.machine.lock().can_reboot);
    }

    /// Makes it one from before systemd 246, which does not know `RebootWithFlags`.
    pub fn without_flags(&self) {
        self.machine.lock().with_flags = false;
    }

    /// Sets the locks that it lists. They block nothing here: the answer is set by [`FakeLogind::answer`].
    pub fn inhibitors(&self, inhibitors: Vec<Inhibitor>) {
        self.machine.lock().inhibitors = inhibitors;
    }

    /// How often it was asked to reboot.
    pub fn requests(&self) -> usize {
        self.machine.lock().requests
    }

    /// Leaves the bus.
    pub async fn stop(&self) {
        self.service.stop().await;
    }

    /// Runs again, as after a boot: no longer preparing for shutdown; also over a bus that was restarted.
    ///
    /// # Errors
    /// The bus cannot be reached, or has another logind.
    pub async fn resume(&self) -> Result<()> {
        self.machine.lock().preparing = false;
        self.service.start().await
    }
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reboot(&mut self, call: &Message, flags: Option<u64>) -> Reply {
        self.requests += 1;
        let pending = self.preparing;
        let goes_down = !pending && matches!(self.answer, Answer::Accept | Answer::Vanish);
        self.preparing |= goes_down;
        self.call = Some(RebootCall { flags, goes_down });
        match &self.answer {
            _ if pending => {
                let words = "There's already a shutdown or sleep operation in progress";
                Reply::error(call, "org.freedesktop.login1.OperationInProgress", words)
            }
            Answer::Accept => Reply::value(call, &()),
            Answer::Refuse(name, words) => Reply::error(call, name, words),
            Answer::Hang => Reply::Silence,
            Answer::Vanish => Reply::Vanish,
        }
    }
}

impl Behaviour for Machine {
    fn answer(&self, call: &Message) -> Reply {
        let mut state = self.lock();
        match member(call).as_str() {
            "RebootWithFlags" if state.with_flags => state.reboot(call, call.body().deserialize().ok()),
            "Reboot" => state.reboot(call, None),
            "CanReboot" => Reply::value(call, &state.can_reboot),
            "ListInhibitors" => {
                let row = |lock: &Inhibitor| {
                    let Inhibitor { what, who, why, mode } = lock.clone();
                    (what, who, why, mode, 0_u32, 1_u32)
                };
                Reply::value(call, &state.inhibitors.iter().map(row).collect::<Vec<_>>())
            }
            "Get" => match call.body().deserialize() {
                Ok((_, "PreparingForShutdown")) => Reply::value(call, &Variant::from(state.preparing)),
                Ok::<(&str, &str), _>(_) => {
                    Reply::error(call, "org.freedesktop.DBus.Error.UnknownProperty", "Unknown property")
                }
                Err(error) => Reply::Message(Err(error)),
            },
            _ => Reply::unknown_method(call),
        }
    }

    fn answered(&self, _call: &Message) {
        if let Some(call) = self.lock().call.take() {
            // Nobody needs to listen.
            let _ = self.calls.send(call);
        }
    }
}
