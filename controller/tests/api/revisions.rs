//! What functions were: who may read and write it, and how long it stays.

use hive_controller::access::tokens::Role;
use hive_controller::state::Key;
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::harness::{CONFIG_MAPS, Server};

const REVISIONS: &str = "/apis/apps/v1/namespaces/default/controllerrevisions";

fn revision(owner: &Value) -> Value {
    let metadata = &owner["metadata"];
    json!({
        "metadata": { "name": "hello-0123456789abcdef", "ownerReferences": [{
            "apiVersion": owner["apiVersion"], "kind": owner["kind"],
            "name": metadata["name"], "uid": metadata["uid"], "controller": true,
        }] },
        "data": { "spec": { "timeout": "1s", "of a later version": [1, { "x": null }] } },
        "revision": 1,
    })
}

#[tokio::test]
async fn a_revision_keeps_its_data_and_goes_with_its_owner() {
    let server = Server::agreed().await;
    server.tend();
    let owner = server.config_map("owner", json!({})).await;
    let made = server.post(REVISIONS, revision(&owner)).await.ok();
    assert_eq!(made["apiVersion"], "apps/v1");
    let data = &made["data"]["spec"];
    assert_eq!(
        (&data["timeout"], &data["of a later version"][0]),
        (&json!("1s"), &json!(1))
    );
    let path = format!("{REVISIONS}/hello-0123456789abcdef");
    server
        .merge(&path, json!({ "data": { "spec": { "timeout": "2s" } } }))
        .await
        .fails(422, "Invalid", "data: field is immutable");
    let raised = server.merge(&path, json!({ "revision": 3 })).await.ok();
    assert_eq!(raised["revision"], 3);
    server.delete(&format!("{CONFIG_MAPS}/owner")).await.ok();
    let key = Key::new(
        Resource::ControllerRevision,
        "default",
        "hello-0123456789abcdef",
    );
    server.until(|state| state.get(&key).is_none()).await;
}

#[tokio::test]
async fn history_is_read_by_viewers_and_forged_by_nobody() {
    let server = Server::agreed().await;
    let owner = server.config_map("owner", json!({})).await;
    server.post(REVISIONS, revision(&owner)).await.ok();
    let (view, edit) = (
        server.token(Role::View, None).await,
        server.token(Role::Edit, None).await,
    );
    let list = server
        .request("GET", REVISIONS)
        .bearing(&view)
        .send()
        .await
        .ok();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    server
        .request("POST", REVISIONS)
        .bearing(&edit)
        .json(&revision(&owner))
        .send()
        .await
        .fails(403, "Forbidden", "cannot create resource");
}

#[tokio::test]
async fn there_are_none_before_all_controllers_know_them() {
    let server = Server::start().await;
    let owner = server.config_map("owner", json!({})).await;
    server.post(REVISIONS, revision(&owner)).await.fails(
        503,
        "ServiceUnavailable",
        "controllerrevisions are stored once all controllers run a version that knows of them",
    );
}
