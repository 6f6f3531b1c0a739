//! The client of the API server, configured as kubectl would be.

use std::{io, time::Duration};

use anyhow::{Context as _, Result, bail};
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_timeout::TimeoutConnector;
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use kube::{
    Client, Config,
    client::ConfigExt as _,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::time::timeout;
use tower::{BoxError, ServiceBuilder};

use crate::{args::ClientArgs, throttle::say_pause};

/// How long a connection may take to be made; a call as a whole has [`crate::call::TIMEOUT`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the beginning of any answer may take: the lists and watches that kube makes by itself have no limit there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be silent in the middle of an answer. Longer than the 295 s after which kube takes a silent
/// watch for dead.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(6);

/// After how long without a word the kernel asks whether the other side is there, how often it asks again, and how many
/// times. A watch only reads: a machine that died without a word, or a connection that a router has forgotten, would
/// look like a cluster in which nothing happens for those 295 s. This way it is found out in a minute.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// Makes the client that `args` describe, in this order: `--kubeconfig`, `KUBECONFIG`, `~/.kube/config`, the service
/// account of the pod. Nothing is sent yet.
///
/// The client never repeats a request by itself: kube's default would sit on the 429 with which a
/// `PodDisruptionBudget` refuses an eviction, and would hide failed renewals of a lease.
///
/// # Errors
/// When no configuration is found, or when the one that was named is unreadable; never falls through to the next.
pub async fn connect(args: &ClientArgs, user_agent: &str) -> Result<Client> {
    let mut config = config(args).await?;
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(SILENCE_TIMEOUT);
    // Else the time that a connection sat in the pool counts as silence.
    config.reset_reader_on_write = true;
    let user_agent = HeaderValue::from_str(user_agent).context("making the user agent")?;
    config.headers.push((USER_AGENT, user_agent));
    let server = config.cluster_url.clone();
    build(&config).with_context(|| format!("making a client for {server}"))
}

/// What `Client::try_from` does, with four differences. An answer must begin in time. A 429 in plain text becomes a
/// `Status` that names its pause. The socket has `TCP_NODELAY`, because with Nagle's algorithm the first request of a new
/// connection waits 40 ms for a delayed acknowledgement (seen on Linux). It is kept alive, or found dead: see
/// [`KEEPALIVE`].
fn build(config: &Config) -> Result<Client> {
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(tcp())?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_future(begin_in_time)
        .map_err(BoxError::from)
        .map_response(say_pause)
        .service(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace.clone()))
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEPALIVE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    tcp
}

/// One request, up to the head of its answer.
///
/// # Errors
/// The request's own, and that nothing was answered within 30 s.
pub async fn begin_in_time<R>(answer: impl Future<Output = Result<R, BoxError>>) -> Result<R, BoxError> {
    let begun = timeout(ANSWER_TIMEOUT, answer).await;
    begun.unwrap_or_else(|_| Err(format!("the API server has not begun to answer within {ANSWER_TIMEOUT:?}").into()))
}

async fn config(args: &ClientArgs) -> Result<Config> {
    let Some((file, origin)) = kubeconfig(args)? else {
        if let Some(context) = &args.context {
            bail!("--context {context} was given, but there is no kubeconfig to find it in");
        }
        return Config::incluster().context(
            "looking for an API server: no --kubeconfig, no KUBECONFIG, no ~/.kube/config, and not inside a pod",
        );
    };
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    Config::from_custom_kubeconfig(file, &options).await.with_context(|| format!("using {origin}"))
}

/// The kubeconfig that counts and where it is from, or none where only a pod's service account is left.
fn kubeconfig(args: &ClientArgs) -> Result<Option<(Kubeconfig, String)>> {
    if let Some(path) = &args.kubeconfig {
        let origin = format!("the kubeconfig {}", path.display());
        return match Kubeconfig::read_from(path) {
            Ok(file) => Ok(Some((file, origin))),
            Err(error) => Err(error).context(origin),
        };
    }
    if let Some(file) = Kubeconfig::from_env().context("reading the files that KUBECONFIG names")? {
        return Ok(Some((file, "the files that KUBECONFIG names".to_owned())));
    }
    match Kubeconfig::read() {
        Ok(file) => Ok(Some((file, "~/.kube/config".to_owned()))),
        Err(KubeconfigError::FindPath) => Ok(None),
        Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).context("reading ~/.kube/config"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{env, fs};

    use tower::Service as _;

    use super::*;

    const FILE: &str = r#"
apiVersion: v1
kind: Config
clusters:
- {name: here, cluster: {server: "http://127.0.0.1:1"}}
- {name: there, cluster: {server: "http://127.0.0.1:2"}}
users:
- {name: me, user: {token: secret}}
contexts:
- {name: here, context: {cluster: here, user: me, namespace: reboot-operator}}
- {name: there, context: {cluster: there, user: me}}
current-context: here
"#;

    async fn check(file: Option<&str>, context: Option<&str>, expected: Result<&str, &str>) {
        let path = env::temp_dir().join(format!("kubeconfig-{}-{:p}", std::process::id(), &raw const expected));
        if let Some(content) = file {
            fs::write(&path, content).unwrap();
        }
        let args = ClientArgs { kubeconfig: Some(path.clone()), context: context.map(str::to_owned) };
        let found = config(&args).await;
        drop(fs::remove_file(&path));
        match (found, expected) {
            (Ok(found), Ok(server)) => assert_eq!(found.cluster_url.to_string(), server),
            (Err(found), Err(words)) => assert!(format!("{found:#}").contains(words), "{found:#}"),
            (found, expected) => panic!("{found:?}, expected {expected:?}"),
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_named_is_used_or_is_an_error() {
        check(Some(FILE), None, Ok("http://127.0.0.1:1/")).await;
        check(Some(FILE), Some("there"), Ok("http://127.0.0.1:2/")).await;
        check(Some(FILE), Some("nowhere"), Err("nowhere")).await;
        check(Some("clusters: 7"), None, Err("the kubeconfig /")).await;
        check(None, None, Err("the kubeconfig /")).await;
    }

    #[tokio::test]
    async fn a_user_agent_that_no_header_can_carry_is_an_error() {
        let path = env::temp_dir().join(format!("kubeconfig-{}-agent", std::process::id()));
        fs::write(&path, FILE).unwrap();
        let args = ClientArgs { kubeconfig: Some(path.clone()), context: None };
        let (good, bad) = (connect(&args, "reboot-agent/0.1.0").await, connect(&args, "a\nb").await);
        fs::remove_file(&path).unwrap();
        assert_eq!(good.unwrap().default_namespace(), "reboot-operator");
        assert!(format!("{:#}", bad.err().unwrap()).contains("user agent"));
    }

    /// The timers of the TCP sockets that are connected to this port (`timer_active` and the clock ticks that are left,
    /// `Documentation/networking/proc_net_tcp.rst`).
    fn timers(port: u16) -> Vec<(u8, u64)> {
        let table = fs::read_to_string("/proc/net/tcp").unwrap();
        let remote = format!(":{port:04X}");
        let to_it = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let to_it = to_it.filter(|line| line[2].ends_with(&remote) && line[3] == "01");
        to_it
            .map(|line| {
                let (kind, left) = line[5].split_once(':').unwrap();
                (kind.parse().unwrap(), u64::from_str_radix(left, 16).unwrap())
            })
            .collect()
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_is_said_is_asked_whether_it_is_there() {
        const KEEPALIVE_TIMER: u8 = 2;
        const TICKS_PER_SECOND: u64 = 100;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let connected = tcp().call(format!("http://127.0.0.1:{port}").parse().unwrap()).await.unwrap();
        let found = timers(port);
        drop(connected);
        let [(KEEPALIVE_TIMER, ticks)] = found[..] else { panic!("{found:?}") };
        assert!(ticks <= KEEPALIVE.as_secs() * TICKS_PER_SECOND, "{ticks} ticks");
    }
}
