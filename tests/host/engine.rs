//! What `update_engine` says reaches the agent, and nothing else does.

use std::time::Duration;

use reboot_agent::update_engine::{EngineState, Operation, UpdateEngine};
use reboot_tests::bus::{Bus, Caller, FakeEngine, Manner};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use zbus::connection::Builder;
use zbus::fdo::DBusProxy;

use crate::{address, scratch};

const DOWNLOADING: &str = "UPDATE_STATUS_DOWNLOADING";

/// The agent's watch of a bus, running.
struct Watch {
    state: watch::Receiver<EngineState>,
    task: JoinHandle<()>,
}

impl Watch {
    fn of(bus: &Bus) -> Self {
        let (sender, state) = watch::channel(EngineState::default());
        let engine = UpdateEngine::new(address(bus));
        let task = tokio::spawn(async move { match engine.watch(&sender).await {} });
        Self { state, task }
    }

    /// The first state from now on that `is` so.
    async fn until(&mut self, is: impl FnMut(&EngineState) -> bool) -> EngineState {
        let found = tokio::time::timeout(Duration::from_secs(10), self.state.wait_for(is)).await;
        found.expect("such a state within 10 s").expect("a watch that goes on").clone()
    }

    async fn until_status(&mut self, operation: &str, new_version: &str) {
        let expected = status(operation, new_version);
        self.until(|state| *state == expected).await;
    }

    async fn until_unknown(&mut self) -> String {
        let told = |state: &EngineState| matches!(state, EngineState::Unknown(_)) && *state != EngineState::default();
        why(self.until(told).await)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn status(operation: &str, new_version: &str) -> EngineState {
    EngineState::Status { operation: Operation::from(operation), new_version: new_version.to_owned() }
}

fn why(state: EngineState) -> String {
    match state {
        EngineState::Unknown(why) => why,
        known => panic!("{known:?} is not unknown"),
    }
}

#[tokio::test]
async fn a_reboot_that_was_needed_before_the_agent_came_is_seen() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    engine.set_silently(FakeEngine::NEED_REBOOT, "0.0.0");
    let mut watch = Watch::of(&bus);
    watch.until_status(FakeEngine::NEED_REBOOT, "0.0.0").await;
    assert!(watch.state.borrow().needs_reboot());
}

#[tokio::test]
async fn a_signal_changes_the_status() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    watch.until_status(FakeEngine::IDLE, "").await;
    for (operation, version) in [(DOWNLOADING, "2.0.0"), (FakeEngine::NEED_REBOOT, "2.0.0"), (FakeEngine::IDLE, "")] {
        engine.set(operation, version).await.unwrap();
        watch.until_status(operation, version).await;
    }
}

#[tokio::test]
async fn a_silent_reset_is_seen_by_those_who_ask() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    engine.set(FakeEngine::NEED_REBOOT, "2.0.0").await.unwrap();
    watch.until_status(FakeEngine::NEED_REBOOT, "2.0.0").await;
    engine.reset();
    assert_eq!(UpdateEngine::new(address(&bus)).ask().await, status(FakeEngine::IDLE, ""));
    assert!(watch.state.borrow().needs_reboot(), "the reset made a noise");
}

#[tokio::test]
async fn a_forged_signal_is_ignored() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    watch.until_status(FakeEngine::IDLE, "").await;

    let forger = Builder::address(bus.address().as_str()).build().await.unwrap();
    let forgery = (0_i64, 0.0_f64, FakeEngine::NEED_REBOOT, "6.6.6", 0_i64);
    let path = "/com/coreos/update1";
    forger.emit_signal(None::<&str>, path, "com.coreos.update1.Manager", "StatusUpdate", &forgery).await.unwrap();
    // The bus handles a connection's messages in order: once it answers, it has sent the signal to everybody.
    DBusProxy::new(&forger).await.unwrap().get_id().await.unwrap();

    engine.set(DOWNLOADING, "2.0.0").await.unwrap();
    let next = watch.until(|state| *state != status(FakeEngine::IDLE, "")).await;
    assert_eq!(next, status(DOWNLOADING, "2.0.0"));
}

#[tokio::test]
async fn a_stopped_engine_is_absent_until_it_is_back() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    engine.set(FakeEngine::NEED_REBOOT, "2.0.0").await.unwrap();
    watch.until_status(FakeEngine::NEED_REBOOT, "2.0.0").await;

    engine.stop().await;
    watch.until(|state| *state == EngineState::Absent).await;
    assert_eq!(UpdateEngine::new(address(&bus)).ask().await, EngineState::Absent);

    engine.set_silently(FakeEngine::NEED_REBOOT, "0.0.0");
    engine.resume().await.unwrap();
    watch.until_status(FakeEngine::NEED_REBOOT, "0.0.0").await;
    engine.set(FakeEngine::IDLE, "").await.unwrap();
    watch.until_status(FakeEngine::IDLE, "").await;
}

#[tokio::test]
async fn an_engine_that_is_not_there_yet_is_absent() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let mut watch = Watch::of(&bus);
    watch.until(|state| *state == EngineState::Absent).await;
    let _engine = FakeEngine::start(&bus).await.unwrap();
    watch.until_status(FakeEngine::IDLE, "").await;
}

#[tokio::test]
async fn the_death_of_the_bus_is_survived() {
    let dir = scratch();
    let mut bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    watch.until_status(FakeEngine::IDLE, "").await;

    bus.kill().unwrap();
    let why = watch.until_unknown().await;
    assert!(why.contains("connection"), "{why}");

    engine.set_silently(FakeEngine::NEED_REBOOT, "2.0.0");
    bus.resume().await.unwrap();
    engine.resume().await.unwrap();
    watch.until_status(FakeEngine::NEED_REBOOT, "2.0.0").await;
}

#[tokio::test]
async fn a_bus_that_is_not_there_yet_is_waited_for() {
    let dir = scratch();
    let mut bus = Bus::start(dir.path()).await.unwrap();
    bus.kill().unwrap();
    let mut watch = Watch::of(&bus);
    let why = watch.until_unknown().await;
    assert!(why.starts_with("connecting to the bus: "), "{why}");
    bus.resume().await.unwrap();
    watch.until(|state| *state == EngineState::Absent).await;
}

#[tokio::test]
async fn a_signal_that_makes_no_sense_is_shown_and_survived() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    watch.until_status(FakeEngine::IDLE, "").await;

    engine.broadcast(&"boo").await.unwrap();
    let why = watch.until_unknown().await;
    assert!(why.starts_with("reading update_engine's signal: "), "{why}");
    watch.until_status(FakeEngine::IDLE, "").await;
    engine.set(FakeEngine::NEED_REBOOT, "2.0.0").await.unwrap();
    watch.until_status(FakeEngine::NEED_REBOOT, "2.0.0").await;
}

#[tokio::test]
async fn a_word_that_is_not_known_is_shown_as_it_is() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    let mut watch = Watch::of(&bus);
    engine.set("unknown\nstatus", "\u{7}").await.unwrap();
    let other = Operation::Other("unknown\u{fffd}status".to_owned());
    let expected = EngineState::Status { operation: other, new_version: "\u{fffd}".to_owned() };
    watch.until(|state| *state == expected).await;
    engine.set(FakeEngine::IDLE, "").await.unwrap();
    watch.until_status(FakeEngine::IDLE, "").await;
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_unknown() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    engine.answer(Manner::Nonsense);
    let expected = "reading update_engine's status: ";
    let asked = why(UpdateEngine::new(address(&bus)).ask().await);
    assert!(asked.starts_with(expected), "{asked}");
    let mut watch = Watch::of(&bus);
    let watched = watch.until_unknown().await;
    assert!(watched.starts_with(expected), "{watched}");
    engine.answer(Manner::Sense);
    watch.until_status(FakeEngine::IDLE, "").await;
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_unknown() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    engine.answer(Manner::Silence);
    let impatient = address(&bus).with_limit(Duration::from_millis(50));
    let why = why(UpdateEngine::new(impatient).ask().await);
    assert!(why.starts_with("asking update_engine for its status: "), "{why}");
    assert!(why.ends_with("no answer within 50ms"), "{why}");
}

#[tokio::test]
async fn signals_are_followed_while_an_answer_does_not_come() {
    let dir = scratch();
    let bus = Bus::start(dir.path()).await.unwrap();
    let engine = FakeEngine::start(&bus).await.unwrap();
    engine.answer(Manner::Silence);
    let mut watch = Watch::of(&bus);
    // The first ones may be sent before the agent listens.
    while *watch.state.borrow() == EngineState::default() {
        engine.set(DOWNLOADING, "2.0.0").await.unwrap();
        tokio::task::yield_now().await;
    }
    // Many times as many as the queues of a connection hold.
    for n in 0..1000 {
        engine.set(DOWNLOADING, &n.to_string()).await.unwrap();
    }
    engine.set(FakeEngine::NEED_REBOOT, "2.0.0").await.unwrap();
    watch.until_status(FakeEngine::NEED_REBOOT, "2.0.0").await;
}

#[tokio::test]
async fn a_denied_question_is_unknown_in_the_words_of_the_bus() {
    let dir = scratch();
    let bus = Bus::start_for(Caller::Stranger, dir.path()).await.unwrap();
    let _engine = FakeEngine::start(&bus).await.unwrap();
    let words = "asking update_engine for its status: org.freedesktop.DBus.Error.AccessDenied: Rejected send message";
    let asked = why(UpdateEngine::new(address(&bus)).ask().await);
    assert!(asked.starts_with(words), "{asked}");
    let watched = Watch::of(&bus).until_unknown().await;
    assert!(watched.starts_with(words), "{watched}");
}
