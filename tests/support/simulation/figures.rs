//! What happened, counted, to be printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Counts of one simulation, or of many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Simulations.
    pub seeds: u64,
    /// Simulated time.
    pub simulated: Duration,
    /// Cycles that ended in a reboot.
    pub rebooted: u64,
    /// Cycles that were given back.
    pub given_back: u64,
    /// Requests to the API server.
    pub requests: u64,
    /// Faults and acts of people, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Figures {
    /// Counts one of this kind.
    pub fn count(&mut self, fault: &'static str) {
        *self.faults.entry(fault).or_default() += 1;
    }

    /// Adds the counts of others.
    pub fn add(&mut self, others: &Self) {
        self.seeds += others.seeds;
        self.simulated += others.simulated;
        self.rebooted += others.rebooted;
        self.given_back += others.given_back;
        self.requests += others.requests;
        for (fault, count) in &others.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        writeln!(f, "{} seeds, {hours:.0} simulated hours, {} requests", self.seeds, self.requests)?;
        writeln!(f, "{} reboots, {} cycles given back", self.rebooted, self.given_back)?;
        writeln!(f, "faults: {}", self.faults.values().sum::<u64>())?;
        self.faults.iter().try_for_each(|(fault, count)| writeln!(f, "  {count:>9} {fault}"))
    }
}
