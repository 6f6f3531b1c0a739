//! The API server's store, read directly: etcd over its JSON gateway, or the memory of the API server in memory.
//!
//! A watch of the API goes through a cache that starts anew with the API server, and there is one for each kind. The
//! store has one history of everything, without gaps, and is there while the API server is not.

use std::{fmt::Debug, io, time::Duration};

use anyhow::{Context as _, Result};
use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use k8s_openapi::ByteString;
use kube::{Client, Config, api::PostParams, core::Request};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    call::within,
    memory::{self, MemoryApi},
};

/// A change of one key.
#[derive(Clone, Debug)]
pub(super) struct Change {
    /// The revision that it made; one after the other for all keys.
    pub(super) revision: u64,
    pub(super) key: String,
    /// `None`: the key was deleted.
    pub(super) value: Option<Vec<u8>>,
    /// What was there before.
    pub(super) before: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(super) enum Store {
    Etcd(Client),
    Memory(MemoryApi),
}

/// Where Nodes begin; Pods, the last kind that the referee reads, end before the other. In between are other kinds too.
const RANGE: (&str, &str) = ("/registry/minions/", "/registry/pods0");
const CALL: Duration = Duration::from_secs(10);
/// The longest that a test leaves it away.
const AWAY: Duration = Duration::from_mins(2);

impl Store {
    /// The store at this URL.
    pub(super) fn at(url: &str) -> Result<Self> {
        let mut config = Config::new(url.parse().with_context(|| format!("the URL {url}"))?);
        config.default_retry = false;
        Ok(Self::Etcd(Client::try_from(config).context("building a client for etcd")?))
    }

    /// Writes a key, and returns the revision of that.
    pub(super) async fn put(&self, key: &str) -> Result<u64> {
        match self {
            Self::Etcd(etcd) => {
                let answer: Answer = post(etcd, "/v3/kv/put", &json!({"key": bytes(key), "value": ""})).await?;
                answer.header.revision()
            }
            Self::Memory(api) => Ok(api.mark(key)),
        }
    }

    /// All that is there now, as if each had just come, in the order of the last changes; and then every change, in
    /// order. The stream ends only when the store has gone for good.
    pub(super) async fn changes(&self) -> Result<BoxStream<'static, Result<Change>>> {
        match self {
            Self::Etcd(etcd) => Ok(changes_in_etcd(etcd).await?.boxed()),
            Self::Memory(api) => {
                let (first, later) = api.history();
                let later = stream::unfold(later, async |mut later| Some((later.recv().await?, later)));
                let later = later.map(|change| remembered(&change));
                Ok(stream::iter(first).map(|change| remembered(&change)).chain(later).boxed())
            }
        }
    }
}

async fn changes_in_etcd(etcd: &Client) -> Result<impl Stream<Item = Result<Change>> + use<>> {
    let range = json!({"key": bytes(RANGE.0), "range_end": bytes(RANGE.1), "sort_target": "MOD"});
    let now: Answer = post(etcd, "/v3/kv/range", &range).await?;
    let start = now.header.revision()? + 1;
    let first: Vec<_> = now.kvs.into_iter().map(|pair| pair.change(None)).collect();
    let place = Place { etcd: etcd.clone(), range, next: start };
    let watch = Watch { lines: Some(place.lines().await?), place };
    let later = stream::try_unfold(watch, |mut watch| async move {
        let changes = watch.more().await?;
        anyhow::Ok(Some((changes, watch)))
    });
    let later = later.map_ok(|changes| stream::iter(changes.into_iter().map(Ok))).try_flatten();
    Ok(stream::iter(first).chain(later))
}

/// A watch that is begun anew where the connection broke: the store may be killed, and comes back with its history.
struct Watch {
    place: Place,
    lines: Option<Lines>,
}

/// Where a watch begins.
struct Place {
    etcd: Client,
    range: Value,
    /// The first revision: all changes of one come in one line.
    next: u64,
}

type Lines = BoxStream<'static, io::Result<String>>;

impl Watch {
    /// The next changes, however long they take to come.
    async fn more(&mut self) -> Result<Vec<Change>> {
        loop {
            let mut lines = match self.lines.take() {
                Some(lines) => lines,
                None => within(AWAY, "waiting for etcd", self.place.again()).await?,
            };
            let Some(Ok(line)) = lines.next().await else { continue };
            self.lines = Some(lines);
            let changes = changes_of(&line)?;
            if let Some(last) = changes.last() {
                self.place.next = last.revision + 1;
                return Ok(changes);
            }
        }
    }
}

impl Place {
    /// Polled: while etcd is away there is nothing to wait for.
    async fn again(&self) -> Result<Lines> {
        loop {
            match self.lines().await {
                Ok(lines) => return Ok(lines),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn lines(&self) -> Result<Lines> {
        let (key, end) = (&self.range["key"], &self.range["range_end"]);
        let create = json!({"key": key, "range_end": end, "start_revision": self.next, "prev_kv": true});
        let body = json!({"create_request": create}).to_string().into_bytes();
        let request = Request::new("/v3/watch").create(&PostParams::default(), body)?;
        Ok(within(CALL, "watching etcd", self.etcd.request_stream(request)).await?.lines().boxed())
    }
}

async fn post<T: DeserializeOwned>(etcd: &Client, path: &str, body: &Value) -> Result<T> {
    let request = Request::new(path).create(&PostParams::default(), body.to_string().into_bytes())?;
    within(CALL, format!("asking etcd ({path})"), etcd.request(request)).await
}

/// A change in memory as etcd would have it.
fn remembered(change: &memory::Change) -> Result<Change> {
    let key = match change.key.resource {
        "nodes" => format!("/registry/minions/{}", change.key.name),
        // Marks have whole keys for names.
        "marks" => change.key.name.clone(),
        resource => format!("/registry/{resource}/{}/{}", change.key.namespace, change.key.name),
    };
    let bytes = |object: &Option<_>| object.as_deref().map(serde_json::to_vec).transpose();
    Ok(Change { revision: change.revision, key, value: bytes(&change.after)?, before: bytes(&change.before)? })
}

/// An answer to a write or a read.
#[derive(Deserialize)]
struct Answer {
    header: Header,
    #[serde(default)]
    kvs: Vec<Pair>,
}

/// A line of a watch.
#[derive(Deserialize)]
struct Line {
    result: Batch,
}

#[derive(Deserialize)]
struct Batch {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    /// `DELETE`, or nothing: then it is a write.
    #[serde(default)]
    r#type: String,
    kv: Pair,
    prev_kv: Option<Pair>,
}

/// etcd writes 64-bit numbers as text.
#[derive(Deserialize)]
struct Header {
    revision: String,
}

#[derive(Deserialize)]
struct Pair {
    key: ByteString,
    mod_revision: String,
    #[serde(default)]
    value: ByteString,
}

impl Header {
    fn revision(&self) -> Result<u64> {
        number(&self.revision)
    }
}

impl Pair {
    fn change(self, before: Option<Self>) -> Result<Change> {
        Ok(Change {
            revision: number(&self.mod_revision)?,
            key: String::from_utf8(self.key.0).context("a key is not UTF-8")?,
            value: Some(self.value.0),
            before: before.map(|pair| pair.value.0),
        })
    }
}

fn changes_of(line: &str) -> Result<Vec<Change>> {
    let line: Line = serde_json::from_str(line).with_context(|| format!("a line of etcd's watch: {line}"))?;
    let change = |event: Event| {
        let mut change = event.kv.change(event.prev_kv)?;
        if event.r#type == "DELETE" {
            change.value = None;
        }
        Ok(change)
    };
    line.result.events.into_iter().map(change).collect()
}

fn bytes(text: &str) -> Value {
    json!(ByteString(text.as_bytes().to_vec()))
}

fn number(text: &str) -> Result<u64> {
    text.parse().with_context(|| format!("not a revision: {text}"))
}
