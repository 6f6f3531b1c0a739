//! What the README says of flags and metrics, against the programs.

use clap::{Command, CommandFactory as _};
use prometheus_client::registry::Registry;

use super::read;

/// The flags of the tables under one of these headings: name and default.
fn documented(headings: &[&str]) -> Vec<(String, String)> {
    let (readme, mut rows, mut wanted) = (read("README.md"), Vec::new(), false);
    for line in readme.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells[..] {
            [heading, "default", _] => wanted = headings.contains(&heading),
            [flags, default, ..] if wanted && flags.starts_with("`--") => rows.extend(
                flags
                    .split(", ")
                    .map(|flag| (flag.trim_matches(['`', '-']).to_owned(), default.trim_matches('`').to_owned())),
            ),
            _ if line.is_empty() => wanted = false,
            _ => {}
        }
    }
    rows.sort();
    rows
}

#[track_caller]
fn check(command: &Command, headings: &[&str]) {
    let mut flags: Vec<(String, Option<String>)> = command
        .get_arguments()
        .filter_map(|arg| {
            let long = arg.get_long().filter(|long| !matches!(*long, "help" | "version"))?;
            let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
            Some((long.to_owned(), default.filter(|default| !default.is_empty())))
        })
        .collect();
    flags.sort();
    let documented = documented(headings);
    let names = |rows: Vec<&String>| rows.into_iter().cloned().collect::<Vec<_>>();
    assert_eq!(
        names(documented.iter().map(|(flag, _)| flag).collect()),
        names(flags.iter().map(|(flag, _)| flag).collect())
    );
    for ((flag, says), (_, default)) in documented.iter().zip(&flags) {
        if let Some(default) = default {
            assert_eq!(says, default, "--{flag}");
        }
    }
}

#[test]
fn the_readme_has_every_flag_of_the_controller_with_its_default() {
    check(&reboot_controller::args::Args::command(), &["reboot-controller", "both"]);
}

#[test]
fn the_readme_has_every_flag_of_the_agent_with_its_default() {
    check(&reboot_agent::args::Args::command(), &["reboot-agent", "both"]);
}

#[test]
fn the_readme_has_every_metric_by_its_exposed_name() {
    let mut registry = Registry::default();
    reboot_controller::metrics::Metrics::register(&mut registry);
    reboot_agent::metrics::Metrics::register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let mut exposed: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap().to_owned())
        .map(|name| ["_bucket", "_sum", "_count"].iter().fold(name, |name, end| name.trim_end_matches(end).to_owned()))
        .collect();
    exposed.sort();
    exposed.dedup();
    let readme = read("README.md");
    let mut documented: Vec<String> = readme
        .lines()
        .filter(|line| line.starts_with("| `reboot_"))
        .flat_map(|line| line.split('|').nth(1).unwrap().split(',').map(str::trim).collect::<Vec<_>>())
        .map(|name| name.trim_matches('`').split('{').next().unwrap().to_owned())
        .collect();
    documented.sort();
    assert_eq!(documented, exposed);
}

#[test]
fn the_readme_stays_short() {
    let lines = read("README.md").lines().count();
    assert!(lines < 150, "{lines} lines");
}
