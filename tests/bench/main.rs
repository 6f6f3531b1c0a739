//! `make bench`: how fast, how small and how quiet the operator is, measured on real parts and printed as one table.
//!
//! Nothing here passes or fails: a machine's speed is no test. Where a figure can be a count or a ratio, it is one.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a table on stdout and progress on stderr are what it is for"
)]

mod cycle;
mod drain;
mod fleet;
mod idle;
mod real;
mod table;

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Parser, ValueEnum};
use reboot_tests::real::namespaces;
use reboot_tests::scratch::Scratch;
use reboot_tests::sim::program;
use table::Table;

/// What is measured, and how much of it
#[derive(Debug, Parser)]
struct Args {
    /// Nodes in the controller's store
    #[arg(long, env = "BENCH_NODES", default_value_t = 5000)]
    nodes: usize,
    /// Grants whose latency is measured
    #[arg(long, env = "BENCH_GRANTS", default_value_t = 200)]
    grants: usize,
    /// Seconds for which an idle agent is watched
    #[arg(long, env = "BENCH_IDLE_SECONDS", default_value_t = 600)]
    idle_seconds: u64,
    /// How often each content of a node is drained by each
    #[arg(long, env = "BENCH_DRAIN_ROUNDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    drain_rounds: u32,
    /// Only these parts [default: all]
    #[arg(long, env = "BENCH", value_enum, value_delimiter = ',')]
    only: Vec<Part>,
}

/// A part of what is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Binaries,
    Idle,
    Cycle,
    Fleet,
    Real,
    Drain,
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("starting the runtime")?;
    let args = Args::parse();
    // Inside of namespaces this is one part's own second run.
    match namespaces::inside() {
        Some(_) if args.wants(Part::Drain) => runtime.block_on(drain::measure_inside(args.drain_rounds)),
        Some(_) => runtime.block_on(real::measure_inside()),
        None => runtime.block_on(measure(args)),
    }
}

impl Args {
    fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }
}

async fn measure(args: Args) -> Result<()> {
    let scratch = Scratch::new("bench")?;
    let mut table = Table::default();
    if args.wants(Part::Binaries) {
        binaries(&mut table)?;
    }
    // An idle agent takes time and little else, so it sits beside the other measurements.
    let (idle_dir, idle_seconds) = (scratch.path().join("i"), args.idle_seconds);
    std::fs::create_dir_all(&idle_dir).context("making a folder")?;
    let idle =
        args.wants(Part::Idle).then(|| tokio::spawn(async move { idle::measure(&idle_dir, idle_seconds).await }));
    if args.wants(Part::Cycle) {
        cycle::measure(&scratch.path().join("c"), &mut table).await?;
    }
    if args.wants(Part::Fleet) {
        fleet::measure(&scratch.path().join("f"), args.nodes, args.grants, &mut table).await?;
    }
    if let Some(idle) = idle {
        eprintln!("waiting until the idle agent has been watched for {idle_seconds} s");
        idle.await.context("the idle agent")??.into_iter().for_each(|row| table.push(row));
    }
    if args.wants(Part::Real) {
        real::measure()?.into_iter().for_each(|row| table.push(row));
    }
    if args.wants(Part::Drain) {
        drain::measure(args.drain_rounds)?.into_iter().for_each(|row| table.push(row));
    }
    println!("{table}");
    Ok(())
}

fn binaries(table: &mut Table) -> Result<()> {
    for (name, variable) in [("reboot-agent", "REBOOT_AGENT_BIN"), ("reboot-controller", "REBOOT_CONTROLLER_BIN")] {
        let path = program(name, variable)?;
        table.add(format!("size of {name}"), megabytes(size(&path)?), "under 6 MB");
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64> {
    Ok(std::fs::metadata(path).with_context(|| format!("looking at {}", path.display()))?.len())
}

/// Bytes as decimal megabytes, as file sizes are told.
#[allow(clippy::cast_precision_loss, reason = "a size for people")]
fn megabytes(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// Bytes as MiB, as memory is told.
#[allow(clippy::cast_precision_loss, reason = "a size for people")]
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
