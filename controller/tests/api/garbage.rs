//! What is owned goes with its owner, or before it, or stays, as whoever deletes it says.

use hive_controller::state::{Key, State};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server};

fn exists(state: &State, name: &str) -> bool {
    let key = Key::new(Resource::ConfigMap, "default", name);
    state.get(&key).is_some()
}

async fn owned(server: &Server, name: &str, owner: &Value) -> Value {
    let metadata = &owner["metadata"];
    let reference = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "name": metadata["name"], "uid": metadata["uid"],
        "blockOwnerDeletion": true,
    });
    server
        .post(
            CONFIG_MAPS,
            json!({ "metadata": { "name": name, "ownerReferences": [reference] } }),
        )
        .await
        .ok()
}

async fn family() -> Server {
    let server = Server::start().await;
    server.tend();
    let owner = server.config_map("owner", json!({})).await;
    owned(&server, "child", &owner).await;
    server
}

async fn delete(server: &Server, options: Value) -> Value {
    let path = format!("{CONFIG_MAPS}/owner");
    let answer = server.request("DELETE", &path).json(&options).send().await;
    answer.ok()
}

#[tokio::test]
async fn in_the_background_by_default() {
    let server = family().await;
    let answer = server.delete(&format!("{CONFIG_MAPS}/owner")).await.ok();
    assert_eq!(answer["kind"], "Status");
    server.until(|state| !exists(state, "child")).await;
}

#[tokio::test]
async fn in_the_foreground_the_owner_waits() {
    let server = family().await;
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    server
        .merge(&format!("{CONFIG_MAPS}/child"), held)
        .await
        .ok();
    let mut watcher = server
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=0"))
        .await;
    let marked = delete(&server, json!({ "propagationPolicy": "Foreground" })).await;
    assert_eq!(
        marked["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
    let child = Key::new(Resource::ConfigMap, "default", "child");
    let child_is_marked = |state: &State| {
        let child = state.get(&child);
        child.is_some_and(|child| child.is_being_deleted())
    };
    server.until(child_is_marked).await;
    assert!(exists(&server.replica.state(), "owner"));
    let freed = json!({ "metadata": { "finalizers": null } });
    server
        .merge(&format!("{CONFIG_MAPS}/child"), freed)
        .await
        .ok();
    // Who watches sees the child go first.
    let mut gone = Vec::new();
    while gone.len() < 2 {
        let event = watcher.next().await;
        if let Some(name) = event.strip_prefix("DELETED ") {
            gone.push(name.to_owned());
        }
    }
    assert_eq!(gone, ["child", "owner"]);
}

#[tokio::test]
async fn orphans_stay() {
    for options in [
        json!({ "propagationPolicy": "Orphan" }),
        json!({ "orphanDependents": true }),
    ] {
        let server = family().await;
        delete(&server, options).await;
        server.until(|state| !exists(state, "owner")).await;
        let child = server.stored(Resource::ConfigMap, "default", "child");
        assert!(child.unwrap()["metadata"].get("ownerReferences").is_none());
    }
}

#[tokio::test]
async fn a_deletion_under_way_can_change_its_ways() {
    // Nothing collects here: the owner stays marked until it is told otherwise.
    let server = Server::start().await;
    server.config_map("owner", json!({})).await;
    delete(&server, json!({ "propagationPolicy": "Foreground" })).await;
    let orphan = json!({ "propagationPolicy": "Orphan", "dryRun": ["All"] });
    let imagined = delete(&server, orphan).await;
    assert_eq!(imagined["metadata"]["finalizers"], json!(["orphan"]));
    delete(&server, json!({ "orphanDependents": false })).await;
    assert!(!exists(&server.replica.state(), "owner"));
    server
        .request("DELETE", &format!("{CONFIG_MAPS}/x"))
        .json(&json!({ "propagationPolicy": "Orphan", "orphanDependents": true }))
        .send()
        .await
        .fails(422, "Invalid", "cannot be both set");
}

#[tokio::test]
async fn a_collection_is_deleted_with_a_policy() {
    let server = family().await;
    server
        .delete(&format!(
            "{CONFIG_MAPS}?fieldSelector=metadata.name%3Downer&orphanDependents=true"
        ))
        .await
        .ok();
    server.until(|state| !exists(state, "owner")).await;
    assert!(exists(&server.replica.state(), "child"));
}

#[tokio::test]
async fn an_owner_is_named_wholly() {
    let server = Server::start().await;
    let create = async |references: Value| {
        let metadata = json!({ "name": "c", "ownerReferences": references });
        let body = json!({ "metadata": metadata });
        server.post(CONFIG_MAPS, body).await
    };
    let owner = |name: &str| json!({ "apiVersion": "v1", "kind": "Secret", "name": name, "uid": name, "controller": true });
    create(json!([{ "apiVersion": "v1", "kind": "Secret", "name": "s" }]))
        .await
        .fails(422, "Invalid", "metadata.ownerReferences[0].uid");
    create(json!([owner("a"), owner("b")])).await.fails(
        422,
        "Invalid",
        "metadata.ownerReferences[1].controller: only one owner can be the controller, and \"a\" is already",
    );
}

#[tokio::test]
async fn a_namespace_is_emptied_and_says_what_it_waits_for() {
    let server = Server::start().await;
    server.tend();
    let team = json!({ "metadata": { "name": "team" } });
    server.post("/api/v1/namespaces", team).await.ok();
    let account = Key::new(Resource::ServiceAccount, "team", "default");
    server.until(|state| state.get(&account).is_some()).await;
    let path = "/api/v1/namespaces/team/configmaps";
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/a"] } });
    server.post(path, held).await.ok();
    server.delete("/api/v1/namespaces/team").await.ok();
    let key = Key::new(Resource::Namespace, "", "team");
    let says_so = |state: &State| {
        let body = state.get(&key).unwrap().body();
        let conditions = body["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|condition| {
            condition["type"] == "NamespaceFinalizersRemaining" && condition["status"] == "True"
        })
    };
    server.until(says_so).await;
    server.until(|state| state.get(&account).is_none()).await;
    let freed = json!({ "metadata": { "finalizers": null } });
    server.merge(&format!("{path}/held"), freed).await.ok();
    server.until(|state| state.get(&key).is_none()).await;
}
