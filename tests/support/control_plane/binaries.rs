//! Where the control plane's programs are; `tests/control-plane/control-plane.sh` puts them there by the same rule.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

/// The path of one of the programs that `make control-plane` provides (`etcd`, `kube-apiserver`, `kwok`, …).
///
/// Looked for in `KUBEBUILDER_ASSETS` (the convention of the envtest tools), then in `CONTROL_PLANE_DIR` or, where that
/// is not set, in the user's cache, in the folder of the versions that the tests are made for.
///
/// # Errors
/// When it is in neither; the text says what to do.
pub fn binary(program: &str) -> Result<PathBuf> {
    let own = set("CONTROL_PLANE_DIR").map_or_else(cached, Ok)?;
    let candidates = set("KUBEBUILDER_ASSETS").into_iter().chain([own.clone()]).map(|folder| folder.join(program));
    match candidates.into_iter().find(|path| path.is_file()) {
        // Programs are started in other folders than this one.
        Some(path) => path.canonicalize().with_context(|| format!("resolving {}", path.display())),
        None => bail!("there is no {program} in {}: run `make control-plane`", own.display()),
    }
}

fn cached() -> Result<PathBuf> {
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let cache = cache.context("none of CONTROL_PLANE_DIR, XDG_CACHE_HOME and HOME is set")?;
    let pin = |module| required(module).with_context(|| format!("go.mod does not require {module}"));
    let (kubernetes, etcd) = (pin("k8s.io/kubernetes")?, pin("go.etcd.io/etcd/server/v3")?);
    let versions = format!("kubernetes-{kubernetes}_etcd-{etcd}_kwok-{}", pin("sigs.k8s.io/kwok")?);
    Ok(cache.join("reboot-operator/control-plane").join(versions))
}

/// The version of a module that the control plane is built from.
fn required(module: &str) -> Option<&'static str> {
    let lines = include_str!("../../control-plane/go.mod").lines();
    let mut pairs = lines.filter_map(|line| line.trim().split_once(' '));
    pairs.find(|(name, _)| *name == module).map(|(_, version)| version)
}

fn set(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
