//! Flags that make no sense: the process ends at once, not with 0, and says what is allowed.

use std::{net::TcpListener, path::Path, time::Duration};

use reboot_tests::{scratch::Scratch, sim::program};

const AGENT: &str = "reboot-agent";
const CONTROLLER: &str = "reboot-controller";
const LIMIT: Duration = Duration::from_secs(30);

/// A kubeconfig that leads nowhere.
const NOWHERE: &str = r#"{"apiVersion": "v1", "kind": "Config", "current-context": "here",
    "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    "users": [{"name": "me", "user": {}}]}"#;

/// Runs a program to its end with nothing in its environment; the words must be in what it says.
async fn check(name: &str, args: &[&str], words: &[&str]) {
    let variable = format!("{}_BIN", name.replace('-', "_").to_uppercase());
    let mut command = tokio::process::Command::new(program(name, &variable).unwrap());
    command.args(args).env_clear().kill_on_drop(true);
    let output = tokio::time::timeout(LIMIT, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} {args:?} goes on")).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "{name} {args:?}: {}: {said}", output.status);
    for words in words {
        assert!(said.contains(words), "{name} {args:?} does not say {words:?}: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[tokio::test]
async fn a_quota_is_a_number_or_a_percentage() {
    for quota in ["-1", "101%", "x", "", "1.5"] {
        check(CONTROLLER, &["--max-unavailable", quota], &["--max-unavailable", "a percentage from 0% to 100%"]).await;
    }
}

#[tokio::test]
async fn a_duration_is_not_negative_and_has_a_unit() {
    for (program, flag, more) in [
        (AGENT, "--drain-timeout", vec!["--node-name", "node-1"]),
        (AGENT, "--min-uptime", vec!["--node-name", "node-1"]),
        (CONTROLLER, "--pickup-deadline", vec![]),
    ] {
        for (value, words) in [("-5m", "cannot be negative"), ("abc", "such as 10m"), ("5", "such as 10m")] {
            let args: Vec<_> = [flag, value].into_iter().chain(more.iter().copied()).collect();
            check(program, &args, &[flag, words]).await;
        }
    }
}

#[tokio::test]
async fn an_agent_has_the_time_to_take_a_grant_up() {
    for value in ["0s", "9s"] {
        check(CONTROLLER, &["--pickup-deadline", value], &["--pickup-deadline", "at least 10s"]).await;
    }
}

#[tokio::test]
async fn what_is_missing_or_unknown_is_named() {
    check(AGENT, &[], &["--node-name"]).await;
    check(AGENT, &["--node-name", "a", "--on-drain-timeout", "hope"], &["give-up", "reboot"]).await;
    check(AGENT, &["--node-name", "a", "--log-format", "xml"], &["text", "json"]).await;
    check(CONTROLLER, &["--node-selector", "a in (b"], &["--node-selector"]).await;
    check(CONTROLLER, &["--listen", "8080"], &["--listen"]).await;
    check(CONTROLLER, &["--max-unavailabel", "1"], &["--max-unavailabel"]).await;
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_named() {
    let dir = Scratch::new("flags").unwrap();
    let garbled = dir.path().join("garbled");
    std::fs::write(&garbled, "clusters: 7").unwrap();
    let missing = dir.path().join("missing");
    for path in [&missing, &garbled] {
        let path = path.to_str().unwrap();
        check(AGENT, &["--node-name", "a", "--kubeconfig", path], &[path]).await;
        check(CONTROLLER, &["--kubeconfig", path], &[path]).await;
    }
    let nowhere = nowhere(dir.path());
    check(CONTROLLER, &["--kubeconfig", &nowhere, "--context", "elsewhere"], &["elsewhere"]).await;
    check(CONTROLLER, &[], &["no --kubeconfig"]).await;
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let dir = Scratch::new("flags").unwrap();
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let (address, nowhere) = (taken.local_addr().unwrap().to_string(), nowhere(dir.path()));
    let args = ["--kubeconfig", &nowhere, "--listen", &address];
    check(CONTROLLER, &args, &[&address, "in use"]).await;
    check(AGENT, &[&args[..], &["--node-name", "a"]].concat(), &[&address, "in use"]).await;
}

#[tokio::test]
async fn a_log_filter_that_does_not_parse_is_named() {
    check(CONTROLLER, &["--log-filter", "kube=loud"], &["kube=loud"]).await;
}

fn nowhere(dir: &Path) -> String {
    let path = dir.join("nowhere");
    std::fs::write(&path, NOWHERE).unwrap();
    path.to_str().unwrap().to_owned()
}
