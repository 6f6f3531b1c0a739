//! Arbitrary command lines, one argument a line; the first line is the program. What is accepted is as documented.
#![no_main]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Command, Parser};
use libfuzzer_sys::fuzz_target;
use reboot_agent::args::{self as agent, Args as Agent};
use reboot_controller::args::{self as controller, Args as Controller};
use reboot_core::quota::Quota;
use reboot_core::selector::Selector;
use reboot_core::step::OnDrainTimeout;
use reboot_runtime::args::{LONGEST, command, duration};

thread_local! {
    /// As [`reboot_runtime::args::parse`] makes them, but once: each leaks the names of its variables.
    static COMMANDS: RefCell<(Command, Command)> =
        RefCell::new((command::<Agent>(agent::ENV_PREFIX), command::<Controller>(controller::ENV_PREFIX)));
}

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let line: Vec<&str> = text.split('\n').collect();
    COMMANDS.with_borrow_mut(|(agent, controller)| match line[0] {
        "agent" => accepted::<Agent>(agent, &line).iter().for_each(check_agent),
        "controller" => accepted::<Controller>(controller, &line).iter().for_each(check_controller),
        _ => check_values(&text),
    });
});

/// What the line means, if it means anything; what it does not is refused in words.
fn accepted<A: Parser>(command: &mut Command, line: &[&str]) -> Option<A> {
    let parsed = command.try_get_matches_from_mut(line).and_then(|matches| A::from_arg_matches(&matches));
    parsed.map_err(|error| assert!(!error.to_string().is_empty())).ok()
}

fn check_agent(args: &Agent) {
    let policy = args.policy();
    let rules = &policy.drain;
    let second = Duration::from_secs(1);
    let within = |found: Option<Duration>, longest| found.is_none_or(|found| (second..=longest).contains(&found));
    let (hour, day) = (Duration::from_hours(1), Duration::from_hours(24));
    assert!(policy.drain_timeout <= LONGEST && policy.min_uptime <= LONGEST);
    assert!(within(rules.grace, hour), "--drain-grace-period {:?}", rules.grace);
    assert!(within(rules.skip_stuck_after, day) && within(rules.shorten_after, day) && within(rules.delete_after, day));
    assert!(within(Some(rules.wait_for_volumes).filter(|wait| !wait.is_zero()), day));
    assert!((1..=100).contains(&rules.concurrency), "--drain-concurrency {}", rules.concurrency);
    if let Some(words) = args.contradiction() {
        assert!(words.starts_with("--"), "{words:?} names no flag");
        return;
    }
    let ends = !policy.drain_timeout.is_zero() || policy.on_drain_timeout == OnDrainTimeout::Reboot;
    assert!(ends, "a drain that cannot end");
    let in_time = |after: Option<Duration>| after.is_none_or(|after| after < policy.drain_timeout);
    assert!(in_time(rules.shorten_after) && in_time(rules.delete_after), "a step that never comes");
    assert!(!(rules.delete && rules.delete_after.is_some()), "a step that means nothing");
}

fn check_controller(args: &Controller) {
    let policy = args.policy();
    assert!((Duration::from_secs(10)..=LONGEST).contains(&policy.pickup_deadline));
    check_quota(policy.quota);
}

fn check_quota(quota: Quota) {
    assert_eq!(quota.to_string().parse(), Ok(quota), "printed and parsed back");
    for selected in [0, 1, 99, usize::MAX] {
        let limit = quota.limit(selected);
        match quota {
            Quota::Nodes(nodes) => assert_eq!(limit, nodes),
            Quota::Percent(0) => assert_eq!(limit, 0),
            Quota::Percent(percent) => assert!(percent <= 100 && (1..=selected.max(1)).contains(&limit)),
        }
    }
}

/// The parsers of single values, which a whole command line reaches too seldom.
fn check_values(text: &str) {
    if let Ok(found) = duration(text) {
        assert!(found <= LONGEST);
    }
    if let Ok(quota) = text.parse() {
        check_quota(quota);
    }
    let (left, right) = text.split_once('\n').unwrap_or((text, ""));
    if let (Ok(both), Ok(left), Ok(right)) =
        (format!("{left},{right}").parse::<Selector>(), left.parse::<Selector>(), right.parse::<Selector>())
    {
        for labels in [vec![], vec![("a", "1")], vec![("a", "2"), ("b", "")], vec![("b", "1"), ("c.io/d", "x")]] {
            let labels: BTreeMap<_, _> = labels.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
            let each = left.matches(&labels) && right.matches(&labels);
            assert_eq!(both.matches(&labels), each, "a comma joins requirements: {text:?} for {labels:?}");
        }
    }
}
