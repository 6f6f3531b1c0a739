//! What all nodes of a cluster boot from: Debian's packages, our files over them, and the images of the pods.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{process::output, workload::POD_IMAGE};

/// The directory beside this package's manifest with what is needed to make nodes.
pub(super) fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("node")
}

/// The directory of the root file system that `make nodes` has made.
///
/// # Errors
/// When it is not there.
pub(super) fn root_file_system() -> Result<PathBuf> {
    let script = tools().join("root-file-system.sh");
    let dir = PathBuf::from(output(&script.to_string_lossy(), &["--print-dir"])?.trim());
    ensure!(dir.is_dir(), "there is no root file system in {}: run `make nodes`", dir.display());
    Ok(dir)
}

/// What the pods of the tests run: it sleeps, and ends when it is told to. Their image is named in containerd's
/// configuration too: sandboxes need nothing else.
const POD_COMMAND: [&str; 3] = ["sh", "-c", "trap exit TERM; while :; do sleep 3600 & wait; done"];

/// Settings of every kubelet, over those of `node/files`.
#[derive(Clone, Debug)]
pub struct KubeletSettings {
    /// How often it reports the node's status. The default of Kubernetes is 10 s: so long a fast reboot goes unseen.
    pub status_seconds: u32,
    /// `shutdownGracePeriod`: so long it delays a shutdown to end pods in peace. Zero, and it does not.
    pub shutdown_grace_seconds: u32,
}

impl Default for KubeletSettings {
    fn default() -> Self {
        Self { status_seconds: 1, shutdown_grace_seconds: 0 }
    }
}

/// Lays out the files of a cluster in `dir` and returns the layers that nodes boot from, uppermost first.
pub(super) fn lay_out(dir: &Path, kubelet: &KubeletSettings) -> Result<Vec<PathBuf>> {
    let files = tools().join("files");
    // A copy, so that everything belongs to root whoever checked it out.
    let copied = Command::new("cp").args(["-r", "--no-preserve=ownership", "--"]).arg(&files).arg(dir).status();
    ensure!(copied.context("starting cp")?.success(), "copying {} failed", files.display());
    let mut settings = fs::File::options().append(true).open(dir.join("etc/kubernetes/kubelet.yaml"))?;
    settings.write_all(kubelet_settings(kubelet).as_bytes()).context("configuring kubelet")?;

    let images = dir.join("opt/images");
    fs::create_dir_all(&images).context("creating a directory")?;
    let base = root_file_system()?;
    pack(POD_IMAGE, &base.join("bin/busybox"), &images.join("pod.tar"), &POD_COMMAND)?;
    Ok(vec![dir.to_owned(), base])
}

/// Adds the images of the operator, under the names that the manifests have for them: those that `REBOOT_IMAGES` holds
/// as archives, or else the programs of `make all`, packed as the Dockerfiles pack them.
pub(super) fn add_operator(dir: &Path) -> Result<()> {
    for component in ["agent", "controller"] {
        let name = format!("reboot-{component}");
        let archive = dir.join(format!("opt/images/{name}.tar"));
        if let Some(built) = std::env::var_os("REBOOT_IMAGES").filter(|folder| !folder.is_empty()) {
            let built = PathBuf::from(built).join(format!("{name}.tar"));
            fs::copy(&built, &archive).with_context(|| format!("copying {}", built.display()))?;
            continue;
        }
        pack(&image_in_manifest(&name)?, &built(&name)?, &archive, &[])?;
    }
    Ok(())
}

/// A program of the operator as `make all` builds it.
///
/// # Errors
/// When it is not there.
pub(super) fn built(name: &str) -> Result<PathBuf> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin").join(name);
    ensure!(program.is_file(), "{} is not there: run `make all`", program.display());
    // Bound into nodes, it must not depend on where we are.
    program.canonicalize().with_context(|| format!("looking at {}", program.display()))
}

fn pack(tag: &str, program: &Path, archive: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(tools().join("image.sh"));
    let output = command.arg(tag).arg(program).arg(archive).args(arguments).output().context("starting image.sh")?;
    let words = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "packing {} failed: {words}", program.display());
    Ok(())
}

/// The image that the manifest of this program names.
fn image_in_manifest(name: &str) -> Result<String> {
    let path = manifests().join(format!("{name}.yaml"));
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let image = text.lines().find_map(|line| line.trim().trim_start_matches("- ").strip_prefix("image: "));
    image.map(str::to_owned).with_context(|| format!("{} names no image", path.display()))
}

/// The directory of the project's manifests.
pub(super) fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

fn kubelet_settings(settings: &KubeletSettings) -> String {
    let status = format!("nodeStatusUpdateFrequency: {}s\n", settings.status_seconds);
    let grace = settings.shutdown_grace_seconds;
    if grace == 0 {
        return status;
    }
    // A third of it for system-critical pods, as in the documentation's example.
    format!("{status}shutdownGracePeriod: {grace}s\nshutdownGracePeriodCriticalPods: {}s\n", grace / 3)
}
