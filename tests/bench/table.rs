//! The table that is printed.

use std::fmt;

/// One figure: what it is, what was measured, and what the project wants it to be.
pub(crate) type Row = (String, String, String);

/// Figures in the order in which they were measured.
#[derive(Debug, Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn add(&mut self, what: impl Into<String>, measured: impl Into<String>, goal: impl Into<String>) {
        self.push((what.into(), measured.into(), goal.into()));
    }

    pub(crate) fn push(&mut self, row: Row) {
        eprintln!("{}: {}", row.0, row.1);
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | measured | goal |\n|---|---|---|")?;
        self.0.iter().try_for_each(|(what, measured, goal)| writeln!(f, "| {what} | {measured} | {goal} |"))
    }
}
