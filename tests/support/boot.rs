//! What a machine's boot leaves in files: the boot ID and os-release.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The files that an agent reads on a machine, in a folder that stands for the machine.
#[derive(Clone, Debug)]
pub struct BootFiles {
    dir: PathBuf,
}

impl BootFiles {
    /// Files in `dir`, which is created; nothing is written yet.
    pub fn new(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The file with the boot ID, in the form of `/proc/sys/kernel/random/boot_id`.
    pub fn boot_id(&self) -> PathBuf {
        self.dir.join("boot_id")
    }

    /// The os-release file.
    pub fn os_release(&self) -> PathBuf {
        self.dir.join("os-release")
    }

    /// Writes both, as a boot into this OS version does.
    pub fn write(&self, boot_id: &str, os_version: &str) -> Result<()> {
        write_os_release(&self.os_release(), os_version)?;
        replace(&self.boot_id(), &format!("{boot_id}\n"))
    }
}

/// Writes the os-release file of this OS version.
pub fn write_os_release(path: &Path, os_version: &str) -> Result<()> {
    let text = format!(
        "NAME=\"Flatcar Container Linux by Kinvolk\"\nID=flatcar\nVERSION={os_version}\n\
         VERSION_ID={os_version}\nPRETTY_NAME=\"{}\"\n",
        os_image(os_version)
    );
    replace(path, &text)
}

/// How kubelet reports the OS (`nodeInfo.osImage`): os-release's `PRETTY_NAME`.
pub fn os_image(os_version: &str) -> String {
    format!("Flatcar Container Linux by Kinvolk {os_version} (Testbed)")
}

/// A new UUID from the kernel, the same source as a boot ID's.
pub fn random_uuid() -> Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").context("asking the kernel for a UUID")?;
    Ok(text.trim().to_owned())
}

/// Readers see the old content or the new one, never half of it.
fn replace(path: &Path, text: &str) -> Result<()> {
    let fresh = path.with_extension("new");
    std::fs::write(&fresh, text).with_context(|| format!("writing {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("replacing {}", path.display()))
}
