//! Namespaces in which a program of ours owns everything: network, mounts and processes.
//!
//! A program that wants real nodes runs itself again in there ([`rerun`]). Nothing of what it does reaches the machine's
//! own network or mounts, two of them cannot meet, and when it ends, in whatever way, every process in there is gone.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use super::site;
use crate::{control_plane::binary, process::output, scratch::Scratch};

/// Names the directory in which nodes make their cgroups; being set, it says that we are inside.
const INSIDE: &str = "REAL_NODES_CGROUP";
/// Names the process outside that waits for this one.
const OUTSIDE: &str = "REAL_NODES_OUTSIDE";
/// What nodes take of the machine, beside root: these programs, of util-linux, iproute2 and systemd-container.
const PROGRAMS: [&str; 6] = ["setpriv", "unshare", "nsenter", "mount", "ip", "systemd-nspawn"];
/// The address of the bridge, and so of the API server for the nodes.
pub(super) const BRIDGE: &str = "10.88.0.1";
/// Each node has seven inotify instances; the usual limit of 128 for a user is gone at twenty nodes.
const INOTIFY_INSTANCES: &str = "1024";

/// The directory for cgroups, when this process is inside.
pub fn inside() -> Option<PathBuf> {
    std::env::var_os(INSIDE).map(PathBuf::from)
}

/// What this machine lacks for real nodes, in words; empty when they can be had.
pub fn missing() -> Vec<String> {
    let mut missing = Vec::new();
    if !matches!(output("id", &["-u"]), Ok(uid) if uid.trim() == "0") {
        missing.push("root (the nodes are systemd-nspawn machines)".to_owned());
    }
    for program in PROGRAMS {
        if output("sh", &["-c", &format!("command -v {program}")]).is_err() {
            missing.push(format!("{program}: run `make nodes`"));
        }
    }
    missing.extend([binary("kubelet").map(drop), site::root_file_system().map(drop)].into_iter().filter_map(|found| {
        match found {
            Ok(()) => None,
            Err(error) => Some(format!("{error:#}")),
        }
    }));
    if missing.is_empty()
        && let Err(error) = output("unshare", &["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"])
    {
        missing.push(format!("the right to make namespaces: {error:#}"));
    }
    missing
}

/// The command that runs this program again, inside, with these arguments. The returned place is for its files and
/// cgroups and must outlive the process.
///
/// # Errors
/// The machine has no cgroups of version 2, or they may not be written.
pub fn rerun(arguments: &[&str]) -> Result<(Command, Place)> {
    let place = Place { cgroup: Cgroup::create()?, files: Some(Scratch::new("real")?) };
    let mut command = Command::new("setpriv");
    // With the thread that started it the command dies, with unshare its child, with the child the pid namespace.
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.args(["--mount-proc", "--propagation", "private"]);
    command.arg(std::env::current_exe().context("asking for the path of this program")?);
    command.args(arguments).env(INSIDE, &place.cgroup.0).env(OUTSIDE, std::process::id().to_string());
    // Inside, files are mounted, and cannot be removed before all has ended.
    command.envs(place.files.iter().map(|files| ("TMPDIR", files.path())));
    Ok((command, place))
}

/// The command that takes a person inside, where the addresses of the cluster mean something; `None` outside.
pub fn enter() -> Option<String> {
    // Inside, this program is the first process. Outside it is the child of the child of the program that started it.
    let outside = std::env::var(OUTSIDE).ok()?;
    Some(format!("nsenter -n -m -t $(pgrep -P $(pgrep -P {outside}))"))
}

/// What a program that runs inside leaves outside: its files and its cgroups. Both go with this value.
#[derive(Debug)]
pub struct Place {
    cgroup: Cgroup,
    files: Option<Scratch>,
}

impl Place {
    /// Leaves the files where they are, for whoever looks into a failure, and says where that is.
    pub fn keep_files(&mut self) -> PathBuf {
        let Some(files) = self.files.take() else { return PathBuf::new() };
        let path = files.path().to_owned();
        std::mem::forget(files);
        path
    }
}

/// Makes the place habitable: once, before anything else is done inside.
pub(super) fn furnish() -> Result<()> {
    // Network namespaces have their names below /run, and nspawn its machines: neither shall be seen outside.
    for words in [
        "mount -t tmpfs tmpfs /run",
        "mkdir -p /run/netns",
        "ip link set lo up",
        "ip link add bridge type bridge",
        &format!("ip addr add {BRIDGE}/16 dev bridge"),
        "ip link set bridge up",
    ] {
        run(words)?;
    }
    // A limit per user, so namespaces do not help; it is only ever raised.
    let limit = Path::new("/proc/sys/fs/inotify/max_user_instances");
    let now = fs::read_to_string(limit).context("reading the limit of inotify instances")?;
    if now.trim().parse::<u32>().is_ok_and(|now| now < 1024) {
        fs::write(limit, INOTIFY_INSTANCES).context("raising the limit of inotify instances")?;
    }
    Ok(())
}

/// Runs a command whose words have no spaces in them.
pub(super) fn run(words: &str) -> Result<String> {
    let mut words = words.split_whitespace();
    let program = words.next().unwrap_or_default();
    output(program, &words.collect::<Vec<_>>())
}

/// A directory of the cgroup file system, removed with this value.
#[derive(Debug)]
struct Cgroup(PathBuf);

/// Followed by the pid of whoever made it.
const PREFIX: &str = "reboot-operator-";

impl Cgroup {
    fn create() -> Result<Self> {
        // Version 2 is mounted beside version 1 on some machines.
        let candidates = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = candidates.into_iter().find(|root| root.join("cgroup.procs").is_file());
        let root = root.context("this machine has no cgroups of version 2")?;
        Self::sweep(root);
        let unique = crate::boot::random_uuid()?;
        let short = unique.get(..8).unwrap_or_default();
        let path = root.join(format!("{PREFIX}{}-{short}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(path))
    }

    /// Removes what programs left that were killed.
    fn sweep(root: &Path) {
        for entry in fs::read_dir(root).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next());
            if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
                // Whatever is still in use cannot be removed.
                let _ = remove(&entry.path());
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Left over, it is swept up by the next one.
        let _ = remove(&self.0);
    }
}

/// Removes a cgroup and those below it; the files in there go with their directories.
fn remove(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).with_context(|| format!("reading {}", path.display()))? {
        let entry = entry.context("reading a directory")?;
        if entry.file_type().context("reading a directory")?.is_dir() {
            remove(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Fails unless we are inside.
pub(super) fn require() -> Result<PathBuf> {
    let cgroup = inside();
    ensure!(cgroup.is_some(), "real nodes need namespaces of their own: see `rerun`");
    cgroup.context("checked above")
}
