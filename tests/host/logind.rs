//! What becomes of a request to reboot, and what logind and systemd tell.

use std::time::Duration;

use reboot_agent::logind::{CanReboot, Logind, RebootReply};
use reboot_tests::bus::{Answer, Bus, FakeLogind, FakeSystemd, Inhibitor, RebootCall};
use reboot_tests::scratch::Scratch;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{address, scratch};

/// A bus with a fake logind, and the agent's view of it.
struct Node {
    logind: Logind,
    fake: FakeLogind,
    requests: UnboundedReceiver<RebootCall>,
    bus: Bus,
    _dir: Scratch,
}

impl Node {
    async fn start() -> Self {
        let dir = scratch();
        let bus = Bus::start(dir.path()).await.unwrap();
        let (fake, requests) = FakeLogind::start(&bus).await.unwrap();
        Self { logind: Logind::new(address(&bus)), fake, requests, bus, _dir: dir }
    }

    /// Asks for a reboot that logind refuses, and returns the name and the words.
    async fn refused(&self, name: &str, words: &str) -> (String, String) {
        self.fake.answer(Answer::Refuse(name.to_owned(), words.to_owned()));
        match self.logind.reboot().await {
            RebootReply::Refused { name, message } => (name, message),
            other => panic!("{other:?} is not a refusal"),
        }
    }
}

fn lock(what: &str, who: &str, why: &str, mode: &str) -> Inhibitor {
    Inhibitor { what: what.to_owned(), who: who.to_owned(), why: why.to_owned(), mode: mode.to_owned() }
}

fn lost(reply: RebootReply) -> String {
    match reply {
        RebootReply::Lost(why) => why,
        other => panic!("{other:?} is not lost"),
    }
}

fn unreachable(reply: RebootReply) -> String {
    match reply {
        RebootReply::Unreachable(why) => why,
        other => panic!("{other:?} is not unreachable"),
    }
}

#[tokio::test]
async fn an_accepted_reboot_honours_locks() {
    let mut node = Node::start().await;
    assert_eq!(node.logind.reboot().await, RebootReply::Accepted);
    assert_eq!(node.requests.recv().await, Some(RebootCall { flags: Some(1), goes_down: true }));
    assert!(node.requests.try_recv().is_err(), "asked twice");
}

#[tokio::test]
async fn an_old_logind_is_asked_without_flags() {
    let mut node = Node::start().await;
    node.fake.without_flags();
    assert_eq!(node.logind.reboot().await, RebootReply::Accepted);
    assert_eq!(node.requests.recv().await, Some(RebootCall { flags: None, goes_down: true }));
}

#[tokio::test]
async fn a_second_request_is_in_progress() {
    let node = Node::start().await;
    assert_eq!(node.logind.reboot().await, RebootReply::Accepted);
    assert_eq!(node.logind.reboot().await, RebootReply::InProgress);
    assert_eq!(node.fake.requests(), 2);
}

#[tokio::test]
async fn a_refusal_has_the_name_and_words_of_logind() {
    let node = Node::start().await;
    for (name, words) in [
        ("org.freedesktop.DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required."),
        ("org.freedesktop.DBus.Error.AccessDenied", "Permission denied"),
        ("org.freedesktop.DBus.Error.Failed", ""),
        ("org.freedesktop.login1.SleepVerbNotSupported", "Not \u{7}here"),
    ] {
        let words_shown = words.replace('\u{7}', "\u{fffd}");
        assert_eq!(node.refused(name, words).await, (name.to_owned(), words_shown));
    }
    assert_eq!(node.fake.requests(), 4);
}

#[tokio::test]
async fn a_refusal_for_a_lock_names_who_holds_it() {
    let node = Node::start().await;
    node.fake.inhibitors(vec![
        lock("shutdown", "kubelet", "Kubelet needs time", "delay"),
        lock("sleep:handle-lid-switch", "desktop", "user is here", "block"),
        lock("shutdown", "dpkg", "installs", "block-weak"),
    ]);
    for name in ["org.freedesktop.login1.BlockedByInhibitorLock", "org.freedesktop.DBus.Error.AccessDenied"] {
        let (_, message) = node.refused(name, "Operation denied").await;
        assert_eq!(message, "Operation denied; held by dpkg (installs)");
    }
    let (_, message) = node.refused("org.freedesktop.DBus.Error.Failed", "No").await;
    assert_eq!(message, "No");
    assert_eq!(node.logind.lock().await, None, "none of these blocks for sure");
}

/// Before systemd 257 logind lets root pass root's own locks.
#[tokio::test]
async fn a_lock_that_logind_would_let_us_pass_stops_us_too() {
    let node = Node::start().await;
    let locks = vec![lock("sleep:shutdown", "backup", "copies the disk", "block")];
    node.fake.inhibitors(locks);
    let refused = RebootReply::Refused {
        name: "org.freedesktop.login1.BlockedByInhibitorLock".to_owned(),
        message: "a lock blocks the shutdown; held by backup (copies the disk)".to_owned(),
    };
    assert_eq!(node.logind.reboot().await, refused);
    assert_eq!(node.fake.requests(), 0, "logind is not even asked");
    let words = "a lock blocks the shutdown; held by backup (copies the disk)";
    assert_eq!(node.logind.lock().await.as_deref(), Some(words), "and that is known before a drain");
}

#[tokio::test]
async fn a_logind_that_leaves_without_an_answer_may_be_rebooting() {
    let mut node = Node::start().await;
    node.fake.answer(Answer::Vanish);
    let why = lost(node.logind.reboot().await);
    assert!(why.starts_with("org.freedesktop.DBus.Error.NoReply: "), "{why}");
    assert_eq!(node.requests.recv().await, Some(RebootCall { flags: Some(1), goes_down: true }));
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_lost() {
    let mut node = Node::start().await;
    node.fake.answer(Answer::Hang);
    let impatient = Logind::new(address(&node.bus).with_limit(Duration::from_millis(50)));
    let why = lost(impatient.reboot().await);
    assert!(why.ends_with("no answer within 50ms"), "{why}");
    assert_eq!(node.requests.recv().await, Some(RebootCall { flags: Some(1), goes_down: false }));
    assert_eq!(node.fake.requests(), 1);
}

#[tokio::test]
async fn a_bus_that_dies_before_the_answer_loses_it() {
    let mut node = Node::start().await;
    node.fake.answer(Answer::Hang);
    let kill_when_asked = async {
        node.requests.recv().await.unwrap();
        node.bus.kill().unwrap();
    };
    let (reply, ()) = tokio::join!(node.logind.reboot(), kill_when_asked);
    lost(reply);
}

#[tokio::test]
async fn a_request_that_reaches_nobody_is_unreachable() {
    let mut node = Node::start().await;
    node.fake.stop().await;
    let why = unreachable(node.logind.reboot().await);
    assert!(why.starts_with("org.freedesktop.DBus.Error.ServiceUnknown: "), "{why}");
    node.bus.kill().unwrap();
    let why = unreachable(node.logind.reboot().await);
    assert!(why.starts_with("connecting to the bus: "), "{why}");
    assert_eq!(node.logind.lock().await, None);
    let nowhere = Logind::new(reboot_agent::bus::Bus::new(Some("nonsense".to_owned())));
    let why = unreachable(nowhere.reboot().await);
    assert!(why.starts_with("connecting to the bus: "), "{why}");
}

#[tokio::test]
async fn a_bus_that_restarts_between_two_calls_is_no_matter() {
    let mut node = Node::start().await;
    assert_eq!(node.logind.can_reboot().await.unwrap(), CanReboot::Yes);
    node.bus.kill().unwrap();
    node.bus.resume().await.unwrap();
    node.fake.resume().await.unwrap();
    assert_eq!(node.logind.can_reboot().await.unwrap(), CanReboot::Yes);
    assert_eq!(node.logind.reboot().await, RebootReply::Accepted);
}

#[tokio::test]
async fn permission_to_reboot_is_told_in_the_words_of_logind() {
    let node = Node::start().await;
    let inhibited = |word: &str| CanReboot::Inhibited(word.to_owned());
    let no = |word: &str| CanReboot::No(word.to_owned());
    for (word, expected) in [
        ("yes", CanReboot::Yes),
        ("inhibited", inhibited("inhibited")),
        ("inhibitor-blocked", inhibited("inhibitor-blocked")),
        ("no", no("no")),
        ("na", no("na")),
        ("challenge", no("challenge")),
        ("challenge-inhibitor-blocked", no("challenge-inhibitor-blocked")),
        ("", no("")),
        ("Yes", no("Yes")),
    ] {
        node.fake.can_reboot(word);
        assert_eq!(node.logind.can_reboot().await.unwrap(), expected);
    }
    node.fake.stop().await;
    let error = format!("{:#}", node.logind.can_reboot().await.unwrap_err());
    assert!(error.starts_with("asking logind for CanReboot: org.freedesktop.DBus.Error.ServiceUnknown"), "{error}");
    assert_eq!(node.fake.requests(), 0);
}

#[tokio::test]
async fn preparing_for_shutdown_is_known_or_not() {
    let node = Node::start().await;
    assert_eq!(node.logind.preparing_for_shutdown().await, Some(false));
    assert_eq!(node.logind.reboot().await, RebootReply::Accepted);
    assert_eq!(node.logind.preparing_for_shutdown().await, Some(true));
    node.fake.stop().await;
    assert_eq!(node.logind.preparing_for_shutdown().await, None);
    node.fake.resume().await.unwrap();
    assert_eq!(node.logind.preparing_for_shutdown().await, Some(false));
}

#[tokio::test]
async fn an_active_locksmithd_is_another_reboot_manager() {
    let node = Node::start().await;
    assert_eq!(node.logind.active_reboot_manager().await, None, "without a systemd");
    let systemd = FakeSystemd::start(&node.bus).await.unwrap();
    systemd.set("sshd.service", "active");
    assert_eq!(node.logind.active_reboot_manager().await, None, "without such a unit");
    for (state, expected) in [
        ("active", Some("locksmithd.service")),
        ("reloading", Some("locksmithd.service")),
        ("inactive", None),
        ("failed", None),
        ("deactivating", None),
    ] {
        systemd.set("locksmithd.service", state);
        assert_eq!(node.logind.active_reboot_manager().await.as_deref(), expected, "when it is {state}");
    }
}
