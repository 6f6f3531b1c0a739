//! Where the operator's programs are.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The path of one of the operator's programs: what the variable names, else what cargo built beside this program.
///
/// # Errors
/// When it is not there. cargo does not build the programs of other packages for a test: `make test` does.
pub fn program(name: &str, variable: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(path) => PathBuf::from(path),
        None => beside_us()?.join(name),
    };
    ensure!(path.is_file(), "{} does not exist: run `cargo build -p {name}` or set {variable}", path.display());
    Ok(path)
}

/// `target/<profile>`; tests run from `target/<profile>/deps`.
fn beside_us() -> Result<PathBuf> {
    let us = std::env::current_exe().context("asking for the path of this program")?;
    let folder = us.parent().context("this program is in no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}
