//! kube, the Rust client for Kubernetes: discovery, typed and dynamic objects, optimistic changes,
//! pages and watches, and server-side apply. What controllers are written with is in `clients/rust`.

#[path = "kube_rs/apply.rs"]
mod apply;

use std::pin::pin;

use futures::TryStreamExt;
use hive_e2e::wait::PATIENCE;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::core::{DynamicObject, GroupVersionKind, ObjectMeta};
use kube::discovery::{Discovery, Scope};
use kube::{Api, Client, Error, ResourceExt};
use serde_json::json;

const SPACE: &str = "kube-rs";

pub async fn suite(client: Client, artifact: &str) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let space = Namespace {
        metadata: named(SPACE),
        ..Default::default()
    };
    namespaces
        .create(&PostParams::default(), &space)
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), SPACE);
    changes(&maps).await;
    pages(&maps).await;
    watches(&maps).await;
    apply::cases(&maps).await;
    discovered(client, artifact).await;
    namespaces
        .delete(SPACE, &DeleteParams::default())
        .await
        .unwrap();
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..Default::default()
    }
}

fn map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: named(name),
        data: Some([("n".to_owned(), value.to_owned())].into()),
        ..Default::default()
    }
}

/// The code of what a call was refused with.
fn refused<T: std::fmt::Debug>(answer: Result<T, Error>) -> (u16, String) {
    match answer.unwrap_err() {
        Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("not an answer of the API: {other}"),
    }
}

async fn changes(maps: &Api<ConfigMap>) {
    let post = PostParams::default();
    let made = maps.create(&post, &map("plain", "0")).await.unwrap();
    assert_eq!(
        refused(maps.create(&post, &made).await),
        (409, "AlreadyExists".to_owned())
    );
    let patch = Patch::Merge(json!({ "data": { "n": "1" } }));
    let changed = maps
        .patch("plain", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(changed.data.unwrap()["n"], "1");
    // `made` is of the past.
    assert_eq!(
        refused(maps.replace("plain", &post, &made).await),
        (409, "Conflict".to_owned())
    );
    // An entry reads, changes and writes back.
    let mut entry = maps
        .entry("plain")
        .await
        .unwrap()
        .and_modify(|object| {
            object
                .labels_mut()
                .insert("by".to_owned(), "entry".to_owned());
        })
        .or_insert(|| map("plain", "2"));
    entry.commit(&post).await.unwrap();
    let labelled = maps.get_metadata("plain").await.unwrap();
    assert_eq!(labelled.labels()["by"], "entry");
    assert!(maps.get_opt("nothing").await.unwrap().is_none());
}

async fn pages(maps: &Api<ConfigMap>) {
    for number in 0..5 {
        let mut page = map(&format!("page-{number}"), "0");
        page.labels_mut()
            .insert("book".to_owned(), "yes".to_owned());
        maps.create(&PostParams::default(), &page).await.unwrap();
    }
    let mut query = ListParams::default().labels("book=yes").limit(2);
    let mut names = Vec::new();
    loop {
        let list = maps.list_metadata(&query).await.unwrap();
        names.extend(list.items.iter().map(ResourceExt::name_any));
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => query = query.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(names, ["page-0", "page-1", "page-2", "page-3", "page-4"]);
    let all = ListParams::default().labels("book");
    maps.delete_collection(&DeleteParams::default(), &all)
        .await
        .unwrap();
    assert!(maps.list(&all).await.unwrap().items.is_empty());
}

async fn watches(maps: &Api<ConfigMap>) {
    let start = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    maps.create(&PostParams::default(), &map("watched", "0"))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({ "data": { "n": "1" } }));
    maps.patch("watched", &PatchParams::default(), &patch)
        .await
        .unwrap();
    maps.delete("watched", &DeleteParams::default())
        .await
        .unwrap();
    let query = WatchParams::default().fields("metadata.name=watched");
    let (mut seen, mut revision) = (Vec::new(), start);
    // Each watch is left after one event, and the next goes on where it was.
    while seen.last() != Some(&("deleted", "1".to_owned())) {
        let mut events = pin!(maps.watch(&query, &revision).await.unwrap());
        let next = tokio::time::timeout(PATIENCE, events.try_next()).await;
        let (kind, object) = match next.expect("an event in time").unwrap().unwrap() {
            WatchEvent::Added(object) => ("added", object),
            WatchEvent::Modified(object) => ("modified", object),
            WatchEvent::Deleted(object) => ("deleted", object),
            other => panic!("{other:?}"),
        };
        seen.push((kind, object.data.clone().unwrap()["n"].clone()));
        revision = object.resource_version().unwrap();
    }
    let kinds: Vec<&str> = seen.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["added", "modified", "deleted"]);
}

/// A kind that the program was not built with.
async fn discovered(client: Client, artifact: &str) {
    let kind = GroupVersionKind::gvk("hive.dev", "v1", "Function");
    let one_by_one = Discovery::new(client.clone()).run().await.unwrap();
    let at_once = Discovery::new(client.clone())
        .run_aggregated()
        .await
        .unwrap();
    for found in [&one_by_one, &at_once] {
        let (resource, capabilities) = found.resolve_gvk(&kind).unwrap();
        assert_eq!(resource.plural, "functions");
        assert_eq!(capabilities.scope, Scope::Namespaced);
    }
    let (resource, _) = at_once.resolve_gvk(&kind).unwrap();
    let functions: Api<DynamicObject> = Api::namespaced_with(client, SPACE, &resource);
    let function = DynamicObject::new("greeter", &resource)
        .data(json!({ "spec": { "replicas": 1, "artifact": { "sha256": artifact } } }));
    functions
        .create(&PostParams::default(), &function)
        .await
        .unwrap();
    let patch = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    let scale = functions
        .patch_scale("greeter", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(2));
    let status = functions.get_status("greeter").await.unwrap();
    assert_eq!(status.data["spec"]["replicas"], 2);
    functions
        .delete("greeter", &DeleteParams::default())
        .await
        .unwrap();
}
