//! Folders for the files of one test.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::boot::random_uuid;

/// A folder that goes with this value, unless its thread panics: then its logs may tell why.
///
/// It is in the system's folder for such things: the path of a socket must be short.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new folder; `name` is part of its name.
    pub fn new(name: &str) -> Result<Self> {
        // A process id would not do: in pid namespaces many processes have the same one.
        let unique = random_uuid()?;
        let path = std::env::temp_dir().join(format!("{name}-{}", unique.get(..8).unwrap_or_default()));
        std::fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    #[expect(clippy::print_stderr, reason = "a failed test says where its logs are")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the files of the failed test are in {}", self.0.display());
        } else {
            // What cannot be removed is left to the system, which clears its folder for such things.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}
