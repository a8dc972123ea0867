//! Deletion: at once, after finalizers, under conditions, of many, and of namespaces.

use hive_manifests::Resource;
use serde_json::json;

use crate::harness::{CONFIG_MAPS, Server};

#[tokio::test]
async fn what_is_deleted_is_gone() {
    let server = Server::start().await;
    let created = server.config_map("c", json!({})).await;
    let path = format!("{CONFIG_MAPS}/c");
    let status = server.delete(&path).await.ok();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["status"], "Success");
    assert_eq!(status["details"]["uid"], created["metadata"]["uid"]);
    server
        .get(&path)
        .await
        .fails(404, "NotFound", "configmaps \"c\" not found");
    server
        .delete(&path)
        .await
        .fails(404, "NotFound", "configmaps \"c\" not found");
}

#[tokio::test]
async fn an_object_with_finalizers_waits_for_them() {
    let server = Server::start().await;
    server
        .post(
            CONFIG_MAPS,
            json!({ "metadata": { "name": "c", "finalizers": ["example.com/a"] } }),
        )
        .await
        .ok();
    let path = format!("{CONFIG_MAPS}/c");
    let marked = server.delete(&path).await.ok();
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    // Again is no error, and changes nothing.
    assert_eq!(server.delete(&path).await.ok(), marked);
    server
        .merge(
            &path,
            json!({ "metadata": { "finalizers": ["example.com/a", "example.com/b"] } }),
        )
        .await
        .fails(422, "Invalid", "no new finalizers");
    server
        .merge(&path, json!({ "metadata": { "finalizers": null } }))
        .await
        .ok();
    assert_eq!(server.stored(Resource::ConfigMap, "default", "c"), None);
}

#[tokio::test]
async fn a_deletion_can_be_about_one_version_of_one_object() {
    let server = Server::start().await;
    let created = server.config_map("c", json!({})).await;
    let path = format!("{CONFIG_MAPS}/c");
    let delete = async |preconditions| {
        let options =
            json!({ "kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions });
        server.request("DELETE", &path).json(&options).send().await
    };
    delete(json!({ "uid": "another" })).await.fails(
        409,
        "Conflict",
        "UID in precondition: another",
    );
    delete(json!({ "resourceVersion": "1" })).await.fails(
        409,
        "Conflict",
        "ResourceVersion in precondition: 1",
    );
    server
        .delete(&format!("{path}?propagationPolicy=Sideways"))
        .await
        .fails(
            422,
            "Invalid",
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\"",
        );
    delete(json!({
        "uid": created["metadata"]["uid"],
        "resourceVersion": created["metadata"]["resourceVersion"],
    }))
    .await
    .ok();
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        server.config_map(name, json!({ "app": app })).await;
    }
    let deleted = server
        .delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx"))
        .await
        .ok();
    assert_eq!(deleted["items"].as_array().unwrap().len(), 2);
    let left = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
    assert_eq!(left["items"][0]["metadata"]["name"], "b");
    server
        .delete("/api/v1/namespaces")
        .await
        .fails(405, "MethodNotAllowed", "");
}

#[tokio::test]
async fn a_namespace_ends_by_being_emptied() {
    let server = Server::start().await;
    let created = server
        .post(
            "/api/v1/namespaces",
            json!({ "metadata": { "name": "team" } }),
        )
        .await
        .ok();
    assert_eq!(created["status"]["phase"], "Active");
    let marked = server.delete("/api/v1/namespaces/team").await.ok();
    assert_eq!(marked["status"]["phase"], "Terminating");
    server
        .post(
            "/api/v1/namespaces/team/configmaps",
            json!({ "metadata": { "name": "c" } }),
        )
        .await
        .fails(
            403,
            "Forbidden",
            "configmaps \"c\" is forbidden: unable to create new content in namespace team because it is being terminated",
        );
    for protected in ["default", "hive-system"] {
        server
            .delete(&format!("/api/v1/namespaces/{protected}"))
            .await
            .fails(403, "Forbidden", "this namespace may not be deleted");
    }
}
