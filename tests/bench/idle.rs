//! What an agent costs that has nothing to do: memory, processor time, API requests.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use reboot_tests::sim::{SimCluster, SimOptions};

use crate::mebibytes;
use crate::table::Row;

pub(crate) async fn measure(dir: &Path, seconds: u64) -> Result<Vec<Row>> {
    let mut cluster = SimCluster::start(dir, SimOptions { nodes: 1, ..SimOptions::default() }).await?;
    cluster.install(Path::new("manifests")).await?;
    let machine = cluster.machine("node-1")?;
    machine.start_agent(&[])?;
    let settled = Duration::from_secs(5);
    tokio::time::sleep(settled).await;
    let (requests, ticks) = (requests(&cluster)?, machine.agent_cpu()?);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let made = self::requests(&cluster)?.saturating_sub(requests);
    let used = machine.agent_cpu()?.saturating_sub(ticks);
    let an_hour = u64::try_from(made)?.saturating_mul(3600) / seconds.max(1);
    Ok(vec![
        ("memory of an idle agent (RSS)".into(), mebibytes(machine.agent_memory()?), "under 6 MiB".into()),
        (format!("processor time of an idle agent in {seconds} s"), format!("{} ms", used.as_millis()), "none".into()),
        (
            "API requests of an idle agent, an hour".into(),
            format!("{an_hour} ({made} in {seconds} s)"),
            "at most 15".into(),
        ),
    ])
}

fn requests(cluster: &SimCluster) -> Result<usize> {
    let audit = cluster.control_plane().audit().context("reading the audit log")?;
    Ok(audit.iter().filter(|request| request.user.ends_with(":reboot-agent")).count())
}
