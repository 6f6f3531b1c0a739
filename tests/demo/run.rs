//! The course of the demo, from the first process to the verdict.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result};
use reboot_tests::{control_plane::binary, real::namespaces, referee::Expect};
use tokio::{
    sync::mpsc::unbounded_channel,
    time::{Instant, timeout},
};

use crate::{
    cluster::Cluster,
    line::{Line, Style, duration},
    phase::Phase,
    report::{Check, Evidence, boots, checks, table},
    screen::{Screen, TICK},
    settings::{Nodes, Settings},
    show::Show,
    stage::{Stage, VERSION, person_returns},
};

/// How long the last slot may take to be handed back, and the live view to catch up with the referee.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Said first and last where there is no Kubernetes.
pub(crate) const IN_MEMORY: &str =
    "Without Kubernetes: the API server is in memory. `make demo CLUSTER=real` has the real one (built once, 7 min).";

/// Runs the demo; returns whether every promise was kept.
///
/// With `KEEP` it does not return, unless something ends that should not.
pub(crate) async fn run(
    settings: &Settings,
    dir: &Path,
    screen: &mut Screen,
    verdict: &mut Option<bool>,
) -> Result<()> {
    greet(settings, screen)?;
    let mut stage = Box::pin(Stage::set(settings, dir, screen)).await?;
    let client = stage.cluster.client();
    let referee = stage.cluster.referee(settings.quota).await?;
    let (notes, heard) = unbounded_channel();
    let mut show = Show::new(&client, settings.quota, heard);
    let began = screen.elapsed();
    stage.begin(settings, &referee, screen).await?;

    let expect = Expect::rebooted_once(stage.cluster.names());
    let nodes = u32::try_from(settings.nodes.count).context("counting nodes")?;
    let limit = Duration::from_mins(1) + Duration::from_secs(30) * nodes;
    let person = person_returns(client, stage.cordoned.clone(), &referee, notes.clone());
    tokio::select! {
        // What is missing after the limit is part of the verdict.
        _missing = referee.settled(&expect, limit) => {}
        failed = show.run(screen) => match failed? {},
        failed = person => match failed? {},
        failed = stage.cluster.fails() => match failed? {},
    }
    catch_up(&mut show, screen).await?;
    show.draw(screen)?;
    screen.keep()?;

    let took = screen.elapsed().saturating_sub(began);
    let judged = referee.finish(&expect).await?;
    let requests = stage.cluster.requests()?;
    let quota = settings.quota;
    let evidence =
        Evidence { verdict: &judged, requests: &requests, board: &show.board, quota, cordoned: &stage.cordoned };
    let checks = checks(&evidence);
    *verdict = Some(checks.iter().all(|check| check.violations.is_empty()));
    let title = format!("{} nodes rebooted into {VERSION} in {}.", judged.reboots.len(), duration(took));
    report(&title, &show, &checks, screen)?;
    if settings.keep {
        invite(&stage, screen)?;
        tokio::select! {
            failed = show.run(screen) => match failed? {},
            failed = stage.cluster.fails() => match failed? {},
        }
    }
    Ok(())
}

fn greet(settings: &Settings, screen: &mut Screen) -> Result<()> {
    let Settings { nodes: Nodes { count, real }, quota, keep, .. } = settings;
    let keep = if *keep { ", KEEP=1" } else { "" };
    let pace = if *quota == 1 { "one at a time".to_owned() } else { format!("at most {quota} at a time") };
    if settings.is_in_memory() {
        screen.say(&Line::text(IN_MEMORY))?;
    }
    screen.say(&Line::default().and(Style::Bold, "Reboot operator: the demo"))?;
    let nodes = if *real { "real".to_owned() } else { count.to_string() };
    let text = format!("{count} nodes get an update and reboot, {pace} (NODES={nodes}, QUOTA={quota}{keep}).");
    screen.say(&Line::text(text))?;
    screen.say(&Line::text(if *real {
        "Real: Kubernetes with kubelets and containers, systemd, logind, D-Bus, the operator. Simulated: update_engine."
    } else if settings.is_in_memory() {
        "Real: D-Bus, the operator. Simulated: the API server, machines and containers."
    } else {
        "Real: the API server, D-Bus, the operator. Simulated: machines and containers (NODES=real has real ones)."
    }))?;
    Ok(screen.say(&Line::default())?)
}

/// Shows on until the live view has seen what the referee has.
async fn catch_up(show: &mut Show, screen: &mut Screen) -> Result<()> {
    let until = Instant::now() + CATCH_UP;
    let over =
        |show: &Show| show.board.slots().is_empty() && show.board.rows().all(|(_, row)| row.sight.phase == Phase::Done);
    while !over(show) && Instant::now() < until {
        if let Ok(failed) = timeout(TICK, show.run(screen)).await {
            match failed? {}
        }
    }
    Ok(())
}

fn report(title: &str, show: &Show, checks: &[Check], screen: &mut Screen) -> Result<()> {
    let mut lines = vec![Line::default(), Line::default().and(Style::Bold, title), Line::default()];
    lines.extend(table(&show.board));
    lines.push(Line::default());
    if namespaces::inside().is_some() {
        lines.extend(boots(&show.board));
        lines.push(Line::default());
    }
    lines.push(Line::text("Checked by a referee that shares no code with the operator:"));
    lines.extend(checks.iter().flat_map(Check::lines));
    lines.push(Line::default());
    lines.iter().try_for_each(|line| screen.say(line)).context("writing the summary")
}

/// What people can do with the cluster that stays up.
fn invite(stage: &Stage, screen: &mut Screen) -> Result<()> {
    let enter = match (&stage.cluster, namespaces::enter()) {
        (Cluster::Real(_), Some(enter)) => format!("\n  {enter}"),
        _ => String::new(),
    };
    let kubeconfig = stage.cluster.kubeconfig();
    let key = "reboot-operator.io";
    let path = kubectl_elsewhere().map(|folder| format!("\n  export PATH=$PATH:{}", folder.display()));
    let path = path.unwrap_or_default();
    let text = format!(
        "The cluster stays up until Ctrl-C, and the live view goes on below. In another terminal:
{enter}
  export KUBECONFIG={}{path}
  kubectl get nodes
  # ask for a reboot
  kubectl annotate node node-1 {key}/reboot-needed='new kernel'
  # force one, whatever the quota says
  kubectl annotate node node-2 {key}/reboot=now
  # stop: it asks and has to wait; then let it go on
  kubectl annotate node node-3 {key}/reboot-paused='not today'
  kubectl annotate node node-3 {key}/reboot-needed=
  kubectl annotate node node-3 {key}/reboot-paused-
  # what the operator says about a node: annotations and Events
  kubectl describe node node-3
",
        kubeconfig.display()
    );
    text.lines().try_for_each(|line| screen.say(&Line::text(line))).context("writing to the terminal")
}

/// The folder of kubectl, where that is not on PATH.
fn kubectl_elsewhere() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join("kubectl").is_file()) {
        return None;
    }
    Some(binary("kubectl").ok()?.parent()?.to_owned())
}
