//! Patches of every kind that is supported, and the refusal of the others.

use serde_json::{Value, json};

use crate::harness::{Answer, CONFIG_MAPS, Server, all};

async fn patch(server: &Server, kind: &str, body: Value) -> Answer {
    server
        .request("PATCH", &format!("{CONFIG_MAPS}/c"))
        .header("content-type", kind)
        .body(body.to_string())
        .send()
        .await
}

#[tokio::test]
async fn patches_change_what_they_name() {
    let server = Server::start().await;
    server.config_map("c", json!({ "app": "x" })).await;
    let merge = "application/merge-patch+json";
    let merged = patch(&server, merge, json!({ "data": { "a": "1", "b": "2" } }))
        .await
        .ok();
    assert_eq!(merged["data"], json!({ "a": "1", "b": "2" }));
    assert_eq!(merged["metadata"]["labels"]["app"], "x");

    let operations = json!([
        { "op": "test", "path": "/data/a", "value": "1" },
        { "op": "remove", "path": "/data/a" },
    ]);
    let json_patch = "application/json-patch+json";
    let patched = patch(&server, json_patch, operations.clone()).await.ok();
    assert_eq!(patched["data"], json!({ "b": "2" }));
    patch(&server, json_patch, operations)
        .await
        .fails(422, "Invalid", "operation 0 (/data/a)");
    patch(&server, json_patch, json!({}))
        .await
        .fails(400, "BadRequest", "the patch can't be read");

    let strategic = "application/strategic-merge-patch+json";
    let patched = patch(&server, strategic, json!({ "data": { "c": "3" } }))
        .await
        .ok();
    assert_eq!(patched["data"], json!({ "b": "2", "c": "3" }));
    let owner =
        |name: &str| json!({ "uid": "u", "apiVersion": "v1", "kind": "ConfigMap", "name": name });
    for (finalizer, owner) in [("a/b", owner("x")), ("c/d", owner("y"))] {
        let added =
            json!({ "metadata": { "finalizers": [finalizer], "ownerReferences": [owner] } });
        patch(&server, strategic, added).await.ok();
    }
    let removed = json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["a/b"] } });
    let patched = patch(&server, strategic, removed).await.ok();
    assert_eq!(patched["metadata"]["finalizers"], json!(["c/d"]));
    assert_eq!(patched["metadata"]["ownerReferences"], json!([owner("y")]));
    patch(&server, strategic, json!({ "data": { "$patch": "drop" } }))
        .await
        .fails(422, "Invalid", "$patch: must be merge, replace or delete");
    server
        .request("PATCH", "/apis/hive.dev/v1/nodes/n")
        .header("content-type", strategic)
        .body("{}")
        .send()
        .await
        .fails(415, "UnsupportedMediaType", "application/merge-patch+json");
    patch(&server, "application/apply-patch+cbor", json!({}))
        .await
        .fails(415, "UnsupportedMediaType", "application/apply-patch+yaml");
    patch(&server, "text/plain", json!({})).await.fails(
        415,
        "UnsupportedMediaType",
        "application/json-patch+json",
    );
}

#[tokio::test]
async fn a_patch_cannot_rename_or_move() {
    let server = Server::start().await;
    server.config_map("c", json!({})).await;
    let merge = "application/merge-patch+json";
    patch(&server, merge, json!({ "metadata": { "name": "d" } }))
        .await
        .fails(400, "BadRequest", "the name in the body");
    patch(&server, merge, json!({ "kind": "Secret" }))
        .await
        .fails(400, "BadRequest", "the kind in the body");
    patch(
        &server,
        merge,
        json!({ "metadata": { "resourceVersion": "1" } }),
    )
    .await
    .fails(409, "Conflict", "the object has been modified");
}

#[tokio::test]
async fn concurrent_patches_all_take_effect() {
    let server = Server::start().await;
    server.config_map("c", json!({})).await;
    let path = format!("{CONFIG_MAPS}/c");
    let patches = (0..6).map(|n| {
        let (server, path) = (&server, &path);
        async move {
            let patch = json!({ "data": { format!("k{n}"): "v" } });
            server.merge(path, patch).await.ok();
        }
    });
    all(patches).await;
    let data = server.get(&path).await.ok()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 6, "{data}");
}
