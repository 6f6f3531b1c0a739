//! Plays many seeds, or tells the story of one.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use clap::Parser;
use reboot_tests::simulation::figures::Figures;
use reboot_tests::simulation::{play, play_in, random::Random, setup::Setup};

/// Simulates the operator with everything that can go wrong
#[derive(Debug, Parser)]
struct Args {
    /// How many seeds to play
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Tell the story of this seed instead
    #[arg(long)]
    seed: Option<u64>,
    /// How many nodes the fleet has that is rebooted before the seeds
    #[arg(long, default_value_t = 100)]
    fleet: usize,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let good = match args.seed {
        Some(seed) => tell(seed),
        None => fleet(args.fleet) & many(args.from, args.seeds),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[expect(clippy::print_stdout, reason = "this is what the program is for")]
fn tell(seed: u64) -> bool {
    let played = play(seed, true);
    println!("{}\n{}", played.story.join("\n"), played.figures);
    println!("seed {seed}: {:?}", played.outcome);
    played.outcome.is_ok()
}

/// Plays so many nodes without any fault, to see how fast it is.
#[expect(clippy::print_stdout, reason = "as above")]
fn fleet(nodes: usize) -> bool {
    let begin = Instant::now();
    let played = play_in(Setup::fleet(nodes, 10), Random::new(0), false);
    let simulated = played.figures.simulated.as_secs() / 60;
    println!("a fleet of {nodes} nodes, {simulated} simulated minutes, took {:.2?}", begin.elapsed());
    if let Err(why) = &played.outcome {
        println!("{why}");
    }
    played.outcome.is_ok()
}

#[expect(clippy::print_stdout, reason = "as above")]
fn many(from: u64, seeds: u64) -> bool {
    let (next, begin) = (AtomicU64::new(from), Instant::now());
    let total = Mutex::new((Figures::default(), Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return;
            }
            let played = play(seed, false);
            let (figures, failed) = &mut *total.lock().unwrap_or_else(PoisonError::into_inner);
            figures.add(&played.figures);
            if let Err(why) = played.outcome {
                println!("seed {seed}: {why}\n  its story: make simulate SEED={seed}");
                failed.push(seed);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (figures, failed) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    let seconds = begin.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "nobody counts that far")]
    let cycles = (figures.rebooted + figures.given_back) as f64 / seconds;
    print!("{figures}");
    println!("{seconds:.0} s, {cycles:.0} simulated cycles per second");
    println!("violations: {}", failed.len());
    failed.is_empty()
}
