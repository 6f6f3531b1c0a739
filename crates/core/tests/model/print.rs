//! Fingerprints under which two states are one when they differ only in the names of things.
//!
//! Every identity in the model, be it a resourceVersion, a boot, a UID, a fence, the name of a node or the serial of a
//! grant, is a number of twelve digits that is drawn once and never again. Nothing in the protocol compares identities by
//! anything but equality, so a state is told by its shape, and by which identities in it are the same.

use std::fmt::{self, Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The first identity. Shorter numbers are themselves: seconds, counts, protocol versions.
pub(crate) const FIRST: u64 = 100_000_000_000;

/// What a value looks like, and the identities in it in the order in which they occur.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Print {
    pub(crate) shape: u64,
    identities: Vec<u64>,
}

impl Print {
    pub(crate) fn of(value: &impl Debug) -> Self {
        let mut scan = Scan { hasher: DefaultHasher::new(), digits: 0, number: 0, identities: Vec::new() };
        // Writing into memory cannot fail, and every `Debug` here is derived.
        let _ = write!(scan, "{value:?}");
        scan.end_number();
        Self { shape: scan.hasher.finish(), identities: scan.identities }
    }
}

/// Takes the numbers of twelve digits out of a text, and hashes the rest.
struct Scan {
    hasher: DefaultHasher,
    digits: u32,
    number: u64,
    identities: Vec<u64>,
}

impl Scan {
    fn end_number(&mut self) {
        if self.digits > 0 {
            let is_identity = self.number >= FIRST;
            self.hasher.write_u64(if is_identity { u64::MAX } else { self.number });
            if is_identity {
                self.identities.push(self.number);
            }
        }
        (self.digits, self.number) = (0, 0);
    }
}

impl fmt::Write for Scan {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let length = rest.iter().position(u8::is_ascii_digit).unwrap_or(rest.len());
            if length > 0 {
                self.end_number();
                self.hasher.write(&rest[..length]);
            }
            rest = &rest[length..];
            let length = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
            for digit in &rest[..length] {
                self.digits += 1;
                self.number = self.number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            }
            rest = &rest[length..];
        }
        Ok(())
    }
}

/// Puts a state together: identities become the order of their first occurrence.
#[derive(Default)]
pub(crate) struct Canon {
    hasher: DefaultHasher,
    seen: Vec<u64>,
}

impl Canon {
    pub(crate) fn value(&mut self, value: impl Hash) {
        value.hash(&mut self.hasher);
    }

    pub(crate) fn identity(&mut self, identity: u64) {
        let label = self.label(identity).unwrap_or_else(|| {
            self.seen.push(identity);
            self.seen.len() - 1
        });
        self.hasher.write_usize(label);
    }

    pub(crate) fn print(&mut self, print: &Print) {
        self.hasher.write_u64(print.shape);
        print.identities.iter().for_each(|identity| self.identity(*identity));
    }

    /// The label of an identity that has occurred.
    pub(crate) fn label(&self, identity: u64) -> Option<usize> {
        self.seen.iter().position(|seen| *seen == identity)
    }

    pub(crate) fn finish(self) -> u64 {
        self.hasher.finish()
    }
}
