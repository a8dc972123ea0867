//! Watchers that list and watch, stores that follow them, finalizers, conditions that are waited for.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::finalizer::{Event as Step, finalizer};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{Controller, WatchStreamExt};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::watch;

use crate::SPACE;

/// What takes longer has failed, on the slowest machine that builds this in debug.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many failed.
pub async fn cases(client: Client) -> usize {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
    let lists = watcher::Config::default().page_size(2);
    let streams = watcher::Config::default().streaming_lists();
    let mut running = Vec::new();
    for (label, config) in [("listed", lists), ("streamed", streams)] {
        let (some, config_of_some) = (maps.clone(), config.clone());
        let watched = async move { watched(&some, label, config_of_some).await };
        running.push(("watched", label, tokio::spawn(watched)));
        let some = maps.clone();
        let resumed = async move { resumed(&some, label, config).await };
        running.push(("resumed", label, tokio::spawn(resumed)));
    }
    let some = maps.clone();
    let stored = async move { stored(&some).await };
    running.push(("stored", "", tokio::spawn(stored)));
    let waited_for = async move { waited_for(&maps).await };
    running.push(("waited for", "", tokio::spawn(waited_for)));
    running.push(("controlled", "", tokio::spawn(controlled(client))));
    // All at once: each has its own objects.
    let mut failed = 0;
    for (name, label, case) in running {
        let is_ok = case.await.is_ok();
        println!(
            "  {}  {name} {label}",
            if is_ok { "ok    " } else { "FAILED" }
        );
        failed += usize::from(!is_ok);
    }
    failed
}

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        data: Some([("n".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

async fn make(maps: &Api<ConfigMap>, name: &str, label: &str) {
    let mut made = map(name, "0");
    made.labels_mut()
        .insert("watched".to_owned(), label.to_owned());
    maps.create(&PostParams::default(), &made).await.unwrap();
}

async fn set(maps: &Api<ConfigMap>, name: &str, value: &str) {
    let patch = Patch::Merge(json!({ "data": { "n": value } }));
    maps.patch(name, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn told(event: Event<ConfigMap>) -> String {
    let n = |map: &ConfigMap| map.data.clone().unwrap_or_default()["n"].clone();
    match event {
        Event::Init => "init".to_owned(),
        Event::InitApply(map) => format!("was {} {}", map.name_any(), n(&map)),
        Event::InitDone => "that is all".to_owned(),
        Event::Apply(map) => format!("{} {}", map.name_any(), n(&map)),
        Event::Delete(map) => format!("no {}", map.name_any()),
    }
}

/// The next event is this one.
async fn expect(
    events: &mut (impl Stream<Item = watcher::Result<Event<ConfigMap>>> + Unpin),
    expected: &str,
) {
    let event = soon(expected, events.try_next()).await;
    assert_eq!(told(event.unwrap().unwrap()), expected);
}

/// What there is comes first, in pages or as events; then every change.
async fn watched(maps: &Api<ConfigMap>, label: &str, config: watcher::Config) {
    let name = |number: u32| format!("{label}-{number}");
    for number in 0..3 {
        make(maps, &name(number), label).await;
    }
    let config = config.labels(&format!("watched={label}"));
    let mut events = pin!(watcher(maps.clone(), config));
    for expected in [
        "init".to_owned(),
        format!("was {} 0", name(0)),
        format!("was {} 0", name(1)),
        format!("was {} 0", name(2)),
        "that is all".to_owned(),
    ] {
        expect(&mut events, &expected).await;
    }
    set(maps, &name(1), "1").await;
    expect(&mut events, &format!("{} 1", name(1))).await;
    // Out of the selection is gone, for who watches it.
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "watched": "elsewhere" } } }));
    maps.patch(&name(2), &PatchParams::default(), &patch)
        .await
        .unwrap();
    expect(&mut events, &format!("no {}", name(2))).await;
    for number in 0..3 {
        maps.delete(&name(number), &DeleteParams::default())
            .await
            .unwrap();
    }
    expect(&mut events, &format!("no {}", name(0))).await;
    expect(&mut events, &format!("no {}", name(1))).await;
}

/// Watches end after a second here, and go on where they were: nothing is lost or told twice.
async fn resumed(maps: &Api<ConfigMap>, label: &str, config: watcher::Config) {
    const SEVERAL_WATCHES: Duration = Duration::from_millis(2500);
    let name = format!("{label}-resumed");
    make(maps, &name, "resumed").await;
    let config = config.fields(&format!("metadata.name={name}")).timeout(1);
    let mut events = pin!(watcher(maps.clone(), config));
    let first = format!("was {name} 0");
    for expected in ["init", &first, "that is all"] {
        expect(&mut events, expected).await;
    }
    let began = Instant::now();
    let mut number = 0;
    while began.elapsed() < SEVERAL_WATCHES {
        number += 1;
        set(maps, &name, &number.to_string()).await;
        expect(&mut events, &format!("{name} {number}")).await;
    }
    maps.delete(&name, &DeleteParams::default()).await.unwrap();
    expect(&mut events, &format!("no {name}")).await;
}

/// A store holds what its reflector saw.
async fn stored(maps: &Api<ConfigMap>) {
    make(maps, "stored", "stored").await;
    let (reader, writer) = reflector::store();
    let config = watcher::Config::default().labels("watched=stored");
    let objects = watcher(maps.clone(), config)
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    let (seen, mut changes) = watch::channel(());
    let following = tokio::spawn(objects.for_each(move |_| {
        seen.send_replace(());
        std::future::ready(())
    }));
    soon("the store", reader.wait_until_ready()).await.unwrap();
    let stored = ObjectRef::<ConfigMap>::new("stored").within(SPACE);
    assert!(reader.get(&stored).is_some());
    set(maps, "stored", "1").await;
    let mut holds = async |wanted: Option<&str>| {
        soon("what the store holds", async {
            loop {
                let found = reader.get(&stored);
                let n = found.and_then(|map| map.data.as_ref()?.get("n").cloned());
                if n.as_deref() == wanted {
                    return;
                }
                changes.changed().await.unwrap();
            }
        })
        .await;
    };
    holds(Some("1")).await;
    maps.delete("stored", &DeleteParams::default())
        .await
        .unwrap();
    holds(None).await;
    following.abort();
}

async fn waited_for(maps: &Api<ConfigMap>) {
    let created = await_condition(maps.clone(), "awaited", conditions::is_created());
    let (created, ()) = tokio::join!(created, make(maps, "awaited", "awaited"));
    let uid = created.unwrap().unwrap().uid().unwrap();
    let is_set = |map: Option<&ConfigMap>| {
        map.is_some_and(|map| map.data.as_ref().is_some_and(|data| data["n"] == "1"))
    };
    let changed = await_condition(maps.clone(), "awaited", is_set);
    let (changed, ()) = soon("a change", async {
        tokio::join!(changed, set(maps, "awaited", "1"))
    })
    .await;
    assert!(changed.unwrap().is_some());
    let gone = await_condition(maps.clone(), "awaited", conditions::is_deleted(&uid));
    let options = DeleteParams::default();
    let (gone, deleted) = soon("a deletion", async {
        tokio::join!(gone, maps.delete("awaited", &options))
    })
    .await;
    deleted.unwrap();
    assert!(gone.unwrap().is_none());
}

/// A controller, as people write them: each ConfigMap of its own gets a Secret, and leaves a note
/// when it goes.
async fn controlled(client: Client) {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), SPACE);
    let ours = || watcher::Config::default().labels("watched=controlled");
    let controller = Controller::new(maps.clone(), ours())
        .owns(secrets.clone(), watcher::Config::default())
        .run(
            reconcile,
            |_, error, _| {
                println!("reconciled again after: {error}");
                Action::requeue(Duration::from_millis(100))
            },
            Arc::new(client),
        );
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));

    make(&maps, "controlled", "controlled").await;
    let value_is = |wanted: &'static str| {
        move |secret: Option<&Secret>| {
            let data = secret.and_then(|secret| secret.data.as_ref());
            data.and_then(|data| data.get("n"))
                .is_some_and(|value| value.0 == wanted.as_bytes())
        }
    };
    let until = async |wanted| {
        let reached = await_condition(secrets.clone(), "controlled", value_is(wanted));
        soon("the Secret", reached).await.unwrap().unwrap()
    };
    let secret = until("0").await;
    assert_eq!(secret.owner_references()[0].name, "controlled");
    set(&maps, "controlled", "1").await;
    until("1").await;
    // What it owns is made again.
    secrets
        .delete("controlled", &DeleteParams::default())
        .await
        .unwrap();
    let again = until("1").await;
    assert_ne!(again.uid(), secret.uid());

    let map = maps.get("controlled").await.unwrap();
    assert_eq!(map.finalizers(), [FINALIZER]);
    maps.delete("controlled", &DeleteParams::default())
        .await
        .unwrap();
    let uid = map.uid().unwrap();
    let gone = await_condition(maps.clone(), "controlled", conditions::is_deleted(&uid));
    soon("the cleanup", gone).await.unwrap();
    let note = maps.get("note").await.unwrap();
    assert_eq!(note.data.unwrap()["left"], "controlled");
    // Its Secret goes with its owner.
    let uid = again.uid().unwrap();
    let collected = await_condition(secrets, "controlled", conditions::is_deleted(&uid));
    soon("the collection", collected).await.unwrap();
    running.abort();
}

const FINALIZER: &str = "example.com/note";

type Failure = kube::runtime::finalizer::Error<kube::Error>;

async fn reconcile(owner: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, Failure> {
    let client = Client::clone(&client);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
    finalizer(&maps, FINALIZER, owner, |step| async {
        let own = PatchParams::apply("controller").force();
        match step {
            Step::Apply(map) => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: map.metadata.name.clone(),
                        owner_references: Some(map.controller_owner_ref(&()).into_iter().collect()),
                        ..Default::default()
                    },
                    string_data: map.data.clone(),
                    ..Default::default()
                };
                let secrets: Api<Secret> = Api::namespaced(client, SPACE);
                secrets
                    .patch(&map.name_any(), &own, &Patch::Apply(&secret))
                    .await?;
            }
            Step::Cleanup(leaving) => {
                let mut note = map("note", "0");
                note.data = Some(BTreeMap::from([("left".to_owned(), leaving.name_any())]));
                let maps: Api<ConfigMap> = Api::namespaced(client, SPACE);
                maps.patch("note", &own, &Patch::Apply(&note)).await?;
            }
        }
        Ok::<_, kube::Error>(Action::await_change())
    })
    .await
}
