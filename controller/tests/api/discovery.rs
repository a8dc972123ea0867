//! Discovery, OpenAPI, and the `kube` client that relies on them.

use axum::body::Body;
use http_body_util::BodyExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Discovery};
use serde_json::json;

use crate::harness::Server;

#[tokio::test]
async fn every_kind_is_discovered() {
    let server = Server::start().await;
    let groups = server.get("/apis").await.ok();
    assert_eq!(groups["kind"], "APIGroupList");
    assert_eq!(groups["groups"][0]["name"], "hive.dev");
    assert_eq!(server.get("/api").await.ok()["versions"], json!(["v1"]));
    let resources = server.get("/apis/hive.dev/v1").await.ok();
    let names: Vec<&str> = resources["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "nodes",
            "nodes/status",
            "functions",
            "functions/status",
            "functions/scale",
            "functions/log",
            "functions/proxy",
            "assignments",
            "assignments/status",
        ]
    );
    assert_eq!(resources["resources"][2]["shortNames"], json!(["fn"]));
    for group in groups["groups"].as_array().unwrap() {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let list = server.get(&format!("/apis/{version}")).await.ok();
        assert_eq!(list["groupVersion"], version);
    }
    server.get("/apis/apps/v1").await.fails(404, "NotFound", "");
}

#[tokio::test]
async fn schemas_are_published() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/hive.dev/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = server.get(url).await.ok();
    let function = &document["components"]["schemas"]["dev.hive.v1.Function"];
    assert_eq!(
        function["x-kubernetes-group-version-kind"][0]["kind"],
        "Function"
    );
    assert!(function["properties"]["spec"]["properties"]["replicas"]["description"].is_string());
}

#[tokio::test]
async fn the_kube_client_works_unchanged() {
    let server = Server::start().await;
    let router = server.router();
    let token = format!("Bearer {}", server.admin());
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (router, token) = (router.clone(), token.clone());
        async move {
            let mut request = request.map(Body::new);
            let headers = request.headers_mut();
            headers.insert("authorization", token.parse().unwrap());
            let response = tower::ServiceExt::oneshot(router, request).await?;
            Ok::<_, std::convert::Infallible>(response.map(|body| body.boxed_unsync()))
        }
    });
    let client = Client::new(service, "default");

    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    assert!(discovery.has_group("hive.dev"));

    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let wanted: ConfigMap =
        serde_json::from_value(json!({ "metadata": { "name": "c" }, "data": { "a": "1" } }))
            .unwrap();
    maps.create(&PostParams::default(), &wanted).await.unwrap();
    let exists = maps
        .create(&PostParams::default(), &wanted)
        .await
        .unwrap_err();
    assert!(matches!(exists, kube::Error::Api(status) if status.is_already_exists()));
    let patch = Patch::Merge(json!({ "data": { "b": "2" } }));
    let patched = maps
        .patch("c", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    let list = maps.list(&ListParams::default().limit(10)).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let deleted = maps.delete("c", &DeleteParams::default()).await.unwrap();
    assert!(deleted.right().unwrap().is_success());
    assert!(maps.get_opt("c").await.unwrap().is_none());
}

#[tokio::test]
async fn a_controller_without_a_leader_lives_but_is_not_ready() {
    let server = Server::leaderless().await;
    let probe = async |path| server.request("GET", path).anonymous().send().await;
    assert_eq!(probe("/livez").await.status, 200);
    let ready = probe("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.body.starts_with(b"no leader"));
}
