//! What the real API server cannot show: the weather, the forgetting, and that every run is the same.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{AsyncBufReadExt as _, StreamExt as _, future::BoxFuture};
use hyper::Request;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::watcher,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{Call, Delivery, Fair, Fate, MemoryApi, Passage, Weather};

/// What happens to the next requests of a kind (by verb), answers and events; then all is fair.
#[derive(Clone, Default)]
struct Forecast {
    requests: Next<(Duration, Fate)>,
    answers: Next<Delivery>,
    events: Next<Passage>,
    verb: &'static str,
}

type Next<T> = Arc<Mutex<VecDeque<T>>>;

fn next<T>(list: &Next<T>) -> Option<T> {
    list.lock().unwrap().pop_front()
}

impl Weather for Forecast {
    fn request<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Fate> {
        Box::pin(async {
            let Some((delay, fate)) = (call.verb == self.verb).then(|| next(&self.requests)).flatten() else {
                return Fate::Arrives;
            };
            sleep(delay).await;
            fate
        })
    }

    fn answer<'a>(&'a self, call: &'a Call, _: u16) -> BoxFuture<'a, Delivery> {
        let fate = (call.verb == self.verb).then(|| next(&self.answers)).flatten();
        Box::pin(async move { fate.unwrap_or(Delivery::Arrives) })
    }

    fn event<'a>(&'a self, _: &'a Call) -> BoxFuture<'a, Passage> {
        Box::pin(async { next(&self.events).unwrap_or(Passage::Arrives) })
    }
}

fn expect(verb: &'static str) -> Forecast {
    Forecast { verb, ..Forecast::default() }
}

fn api(weather: impl Weather) -> MemoryApi {
    let start = Instant::now();
    let api = MemoryApi::new(move || Timestamp::UNIX_EPOCH + start.elapsed(), weather);
    api.create("test", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"}})).unwrap();
    api
}

fn label(api: &MemoryApi, value: &str) {
    api.patch("test", "nodes", "", "a", &json!({"metadata": {"labels": {"x": value}}})).unwrap();
}

fn labels(api: &MemoryApi) -> Value {
    api.get("nodes", "", "a").unwrap()["metadata"]["labels"].clone()
}

async fn patch(client: &Client, value: &str) -> kube::Result<Node> {
    let nodes: Api<Node> = Api::all(client.clone());
    nodes.patch("a", &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": {"x": value}}}))).await
}

/// So many events of a watch, as their types and labels, or fewer where it ends.
async fn told(client: &Client, query: &str, count: usize) -> Vec<String> {
    let request = Request::get(format!("/api/v1/nodes?watch=true&{query}")).body(Vec::new()).unwrap();
    let lines = client.request_stream(request).await.unwrap().lines();
    let events = lines.take(count).map(|line| {
        let Ok(line) = line else { return "BROKEN".to_owned() };
        let event: Value = serde_json::from_str(&line).unwrap();
        let object = &event["object"];
        let what = [&object["metadata"]["labels"]["x"], &object["code"]].into_iter().find(|value| !value.is_null());
        let what = what.unwrap_or(&Value::Null);
        format!("{} {what}", event["type"].as_str().unwrap_or_default())
    });
    events.collect().await
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_arrives_even_if_its_sender_gave_up() {
    let weather = expect("patch");
    weather.requests.lock().unwrap().push_back((Duration::from_secs(30), Fate::Arrives));
    let api = api(weather);
    let client = api.client("agent");
    timeout(Duration::from_secs(10), patch(&client, "late")).await.unwrap_err();
    assert_eq!(labels(&api), Value::Null);
    sleep(Duration::from_secs(25)).await;
    assert_eq!(labels(&api), json!({"x": "late"}));
}

#[tokio::test(start_paused = true)]
async fn a_request_can_fail_on_its_way_there_and_on_its_way_back() {
    let weather = expect("patch");
    let api = api(weather.clone());
    let client = api.client("agent");
    for (fate, code) in [(Fate::Breaks, None), (Fate::Fails(503), Some(503)), (Fate::Fails(429), Some(429))] {
        weather.requests.lock().unwrap().push_back((Duration::ZERO, fate));
        let error = patch(&client, "there").await.unwrap_err();
        let found = if let kube::Error::Api(status) = &error { Some(status.code) } else { None };
        assert_eq!(found, code, "{error}");
        assert_eq!(labels(&api), Value::Null, "{fate:?}");
    }
    weather.requests.lock().unwrap().push_back((Duration::ZERO, Fate::IsLost));
    timeout(Duration::from_hours(1), patch(&client, "there")).await.unwrap_err();
    assert_eq!(labels(&api), Value::Null);
    for (delivery, value) in [(Delivery::Breaks, "1"), (Delivery::Fails(504), "2"), (Delivery::IsLost, "3")] {
        weather.answers.lock().unwrap().push_back(delivery);
        let answer = timeout(Duration::from_hours(1), patch(&client, value)).await;
        assert!(!matches!(answer, Ok(Ok(_))), "{delivery:?}");
        assert_eq!(labels(&api), json!({"x": value}), "the write happened");
    }
    patch(&client, "4").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_watch_can_break_end_and_expire() {
    for (passage, end) in
        [(Passage::Breaks, Some("BROKEN")), (Passage::Ends, None), (Passage::Expires, Some("ERROR 410"))]
    {
        let weather = expect("watch");
        weather.events.lock().unwrap().extend([Passage::Arrives, passage]);
        let api = api(weather);
        let from = format!("resourceVersion={}", api.revision());
        label(&api, "1");
        label(&api, "2");
        let expected: Vec<_> = ["MODIFIED \"1\""].into_iter().chain(end).collect();
        assert_eq!(told(&api.client("agent"), &from, 9).await, expected, "{passage:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_over_everything_that_happens_to_its_watch() {
    let weather = expect("watch");
    let api = api(weather.clone());
    let mut events = watcher(Api::<Node>::all(api.client("agent")), watcher::Config::default()).boxed();
    for passage in [Passage::Breaks, Passage::Ends, Passage::Expires] {
        weather.events.lock().unwrap().push_back(passage);
        label(&api, &format!("{passage:?}"));
        loop {
            let event = timeout(Duration::from_mins(10), events.next()).await.unwrap().unwrap();
            let seen = match event {
                Ok(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => node.metadata.labels,
                _ => None,
            };
            if seen.is_some_and(|labels| labels.get("x") == Some(&format!("{passage:?}"))) {
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_forgotten_is_gone() {
    let api = api(Fair);
    let client = api.client("agent");
    let old = api.revision();
    label(&api, "1");
    assert_eq!(told(&client, &format!("resourceVersion={old}"), 1).await, ["MODIFIED \"1\""]);
    api.forget_history();
    assert_eq!(told(&client, &format!("resourceVersion={old}"), 9).await, ["ERROR 410"]);
    let (newest, path) = (api.revision(), format!("/api/v1/nodes?limit=1&continue={old}//a"));
    let gone = api.request("test", hyper::Method::GET, &path, &Value::Null).unwrap_err();
    assert_eq!((gone.code, gone.reason), (410, "Expired"));
    label(&api, "2");
    assert_eq!(told(&client, &format!("resourceVersion={newest}"), 1).await, ["MODIFIED \"2\""]);
}

#[tokio::test(start_paused = true)]
async fn what_happened_is_remembered_for_five_minutes_and_forgotten_after_ten() {
    let api = api(Fair);
    let client = api.client("agent");
    let old = format!("resourceVersion={}", api.revision());
    for (minutes, value, expected) in [(0, "1", "MODIFIED \"1\""), (6, "2", "MODIFIED \"1\""), (5, "3", "ERROR 410")] {
        sleep(Duration::from_mins(minutes)).await;
        label(&api, value);
        assert_eq!(told(&client, &old, 1).await, [expected], "{minutes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cache_may_lag_behind_and_then_catches_up() {
    let weather = expect("watch");
    let api = api(weather.clone());
    label(&api, "old");
    let old = api.revision();
    label(&api, "new");
    weather.requests.lock().unwrap().push_back((Duration::ZERO, Fate::ArrivesAtCache(old)));
    let told = told(&api.client("agent"), "resourceVersion=0", 2).await;
    assert_eq!(told, ["ADDED \"old\"", "MODIFIED \"new\""]);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_come_every_minute_and_a_watch_ends_after_its_limit() {
    let api = api(Fair);
    let (begun, query) = (Instant::now(), "allowWatchBookmarks=true&timeoutSeconds=290");
    let told = told(&api.client("agent"), query, 99).await;
    assert_eq!(told, ["ADDED null", "BOOKMARK null", "BOOKMARK null", "BOOKMARK null", "BOOKMARK null"]);
    assert_eq!(begun.elapsed().as_secs(), 290);
}

/// Many clients at once, each with a watch, and all they wrote.
async fn crowd() -> Vec<String> {
    let api = api(Fair);
    let mut changes = api.changes();
    let clients = (0..20).map(|number| {
        let client = api.client(&format!("agent-{number}"));
        async move {
            let seen = told(&client, "resourceVersion=0", 1).await;
            patch(&client, &format!("{number}-{seen:?}")).await.unwrap();
        }
    });
    let all: Vec<_> = clients.map(tokio::spawn).collect();
    for task in all {
        task.await.unwrap();
    }
    let mut story = Vec::new();
    while let Ok(change) = changes.try_recv() {
        story.push(format!("{} {:?} {:?}", change.revision, change.key, change.after));
    }
    story
}

#[tokio::test(start_paused = true)]
async fn every_run_is_the_same() {
    let first = crowd().await;
    assert_eq!(first.len(), 20);
    assert_eq!(first, crowd().await);
}
