//! The flags that the programs are started with.

use std::{fmt::Display, net::Ipv4Addr, path::Path, time::Duration};

use super::{Kubelets, Options};

/// So long nobody misses a kubelet that never was.
const NO_KUBELETS: Duration = Duration::from_hours(24);

pub(super) fn flag(name: &str, value: impl Display) -> String {
    format!("--{name}={value}")
}

pub(super) fn etcd_url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

pub(super) fn etcd_args(dir: &Path, port: u16) -> Vec<String> {
    let url = etcd_url(port);
    vec![
        flag("data-dir", dir.join("etcd").display()),
        flag("listen-client-urls", &url),
        flag("advertise-client-urls", &url),
        flag("listen-peer-urls", "http://127.0.0.1:0"),
        "--unsafe-no-fsync".to_owned(),
    ]
}

pub(super) fn apiserver_args(dir: &Path, etcd_port: u16, port: u16, options: &Options) -> Vec<String> {
    let pki = dir.join("pki");
    // The advertised address may not be a loopback address. Without kubelets nobody uses it, and it is one of the
    // documentation network.
    let (bind, advertise) = match &options.kubelets {
        Some(kubelets) => ("0.0.0.0", kubelets.address),
        None => ("127.0.0.1", Ipv4Addr::new(192, 0, 2, 1)),
    };
    // The API server makes this key for its own certificate, before it reads the key that signs tokens: one will do.
    let key = pki.join("apiserver.key");
    let mut args = vec![
        flag("etcd-servers", etcd_url(etcd_port)),
        // For the referee, who reads the store.
        flag("storage-media-type", "application/json"),
        flag("bind-address", bind),
        flag("secure-port", port),
        flag("advertise-address", advertise),
        flag("endpoint-reconciler-type", "none"),
        flag("cert-dir", pki.display()),
        flag("service-account-key-file", key.display()),
        flag("service-account-signing-key-file", key.display()),
        flag("service-account-issuer", "https://kubernetes.default.svc"),
        flag("service-cluster-ip-range", "10.96.0.0/16"),
        flag("token-auth-file", dir.join("tokens.csv").display()),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
        flag("audit-policy-file", dir.join("audit-policy.json").display()),
        flag("audit-log-path", dir.join("log/audit.log").display()),
        // One file however long the run: tests count what is in it.
        flag("audit-log-maxsize", 4096),
        // History stays, so that no watch is told that it fell behind before it did.
        flag("etcd-compaction-interval", "0"),
        flag("allow-privileged", true),
    ];
    args.extend_from_slice(&options.apiserver_args);
    args
}

pub(super) fn controller_manager_args(dir: &Path, controllers: &str, kubelets: Option<&Kubelets>) -> Vec<String> {
    let grace = kubelets.map_or(NO_KUBELETS, |kubelets| kubelets.grace);
    vec![
        flag("controllers", controllers),
        flag("node-monitor-grace-period", format!("{}s", grace.as_secs())),
        flag("root-ca-file", dir.join("pki/apiserver.crt").display()),
    ]
}
