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
            "tunnels",
            "tunnels/status",
            "assignments",
            "assignments/status",
            "controllers",
        ]
    );
    assert_eq!(resources["resources"][2]["shortNames"], json!(["fn"]));
    for group in groups["groups"].as_array().unwrap() {
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap();
        let list = server.get(&format!("/apis/{version}")).await.ok();
        assert_eq!(list["groupVersion"], version);
    }
    server
        .get("/apis/batch/v1")
        .await
        .fails(404, "NotFound", "");
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
    let text = String::from_utf8(ready.body.to_vec()).unwrap();
    assert!(text.contains("[-]raft-leader failed: no leader"), "{text}");
    assert!(text.contains("[+]log-disk ok"), "{text}");
    assert!(text.ends_with("readyz check failed\n"), "{text}");
    assert_eq!(probe("/readyz/raft-leader").await.status, 503);
    assert_eq!(probe("/readyz/log-disk").await.status, 200);
    assert_eq!(
        probe("/readyz?exclude=raft-leader&exclude=raft-applied")
            .await
            .status,
        200
    );
    assert_eq!(probe("/readyz/nonsense").await.status, 404);
}

#[tokio::test]
async fn everything_is_discovered_in_two_requests() {
    let server = Server::start().await;
    let ask = async |path: &str, version: &str| {
        let accept = format!(
            "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList,application/json"
        );
        let answer = server.request("GET", path).header("accept", &accept).send();
        answer.await
    };
    for version in ["v2", "v2beta1"] {
        let answer = ask("/apis", version).await;
        assert_eq!(
            answer.headers["content-type"],
            format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList")
        );
        let list = answer.ok();
        assert_eq!(list["kind"], "APIGroupDiscoveryList");
        let hive = &list["items"][0];
        assert_eq!(hive["metadata"]["name"], "hive.dev");
        let resources = hive["versions"][0]["resources"].as_array().unwrap();
        let function = resources
            .iter()
            .find(|resource| resource["resource"] == "functions")
            .unwrap();
        assert_eq!(function["scope"], "Namespaced");
        assert_eq!(function["shortNames"], json!(["fn"]));
        let subresources: Vec<&str> = function["subresources"]
            .as_array()
            .unwrap()
            .iter()
            .map(|subresource| subresource["subresource"].as_str().unwrap())
            .collect();
        assert_eq!(subresources, ["status", "scale", "log", "proxy"]);
        assert_eq!(
            function["subresources"][1]["responseKind"]["group"],
            "autoscaling"
        );
    }
    let core = ask("/api", "v2").await.ok();
    assert_eq!(core["items"][0]["metadata"]["name"], "");
    assert_eq!(core["items"][0]["versions"][0]["version"], "v1");
    // A version that nobody speaks: the plain list, which the client takes too.
    assert_eq!(ask("/apis", "v9").await.ok()["kind"], "APIGroupList");

    let etag = ask("/apis", "v2").await.headers["etag"].clone();
    let again = server
        .request("GET", "/apis")
        .header(
            "accept",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        )
        .header("if-none-match", etag.to_str().unwrap())
        .send()
        .await;
    assert_eq!(again.status, 304);
    assert!(again.body.is_empty());
}

#[tokio::test]
async fn version_2_has_every_kind_in_both_forms() {
    let server = Server::start().await;
    let document = server.get("/openapi/v2").await.ok();
    assert_eq!(document["swagger"], "2.0");
    let definitions = document["definitions"].as_object().unwrap();
    for name in [
        "dev.hive.v1.Function",
        "io.k8s.api.core.v1.Secret",
        "io.k8s.api.rbac.v1.Role",
        "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    ] {
        assert!(definitions.contains_key(name), "{name}");
    }
    let resources = &definitions["dev.hive.v1.Function"]["properties"]["spec"]["properties"]["resources"]
        ["properties"];
    assert_eq!(resources["memory"]["type"], "string", "{resources}");
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let answer = server
        .request("GET", "/openapi/v2")
        .header("accept", protobuf)
        .send()
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], protobuf.replace('@', "."));
    assert!(
        answer.body.starts_with(b"\x0a\x032.0"),
        "the swagger field first"
    );
    server
        .request("GET", "/openapi/v2")
        .header("accept", "text/html")
        .send()
        .await
        .fails(406, "NotAcceptable", "");
    // The index names each document by its content.
    let index = server.get("/openapi/v3").await.ok();
    for (_, path) in index["paths"].as_object().unwrap() {
        let url = path["serverRelativeURL"].as_str().unwrap();
        let answer = server.get(url).await;
        let etag = answer.headers["etag"]
            .to_str()
            .unwrap()
            .trim_matches('"')
            .to_owned();
        assert!(url.ends_with(&format!("?hash={etag}")), "{url}");
        assert_eq!(answer.ok()["openapi"], "3.0.0");
    }
}

#[tokio::test]
async fn a_well_controller_says_so_and_what_it_did() {
    let server = Server::start().await;
    assert_eq!(server.get("/readyz").await.body, "ok");
    let verbose = server.get("/readyz?verbose").await;
    let text = String::from_utf8(verbose.body.to_vec()).unwrap();
    assert!(text.starts_with("[+]ping ok\n"), "{text}");
    assert!(text.ends_with("readyz check passed\n"), "{text}");

    server.config_map("a", json!({})).await;
    server.get("/api/v1/namespaces/default/configmaps/b").await;
    let metrics = server.get("/metrics").await;
    assert_eq!(
        metrics.headers["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let text = String::from_utf8(metrics.body.to_vec()).unwrap();
    for line in [
        "apiserver_request_total{verb=\"POST\",resource=\"configmaps\",code=\"201\"} 1",
        "apiserver_request_total{verb=\"GET\",resource=\"configmaps\",code=\"404\"} 1",
        "apiserver_storage_objects{resource=\"configmaps\"} 1",
        "hive_raft_is_leader 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(
        text.contains("hive_raft_log_sync_duration_seconds_count"),
        "{text}"
    );
    // Every line is a comment, or a name with labels and a number.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{line}");
    }
    let functions = server.get("/metrics/functions").await;
    let text = String::from_utf8(functions.body.to_vec()).unwrap();
    assert!(text.contains("# TYPE hive_function_requests_total counter"));
    for path in ["/metrics", "/metrics/functions"] {
        let anonymous = server.request("GET", path).anonymous().send().await;
        assert!(
            matches!(anonymous.status, 401 | 403),
            "{path}: {}",
            anonymous.status
        );
    }
}

/// What people know of Kubernetes and there is none of: they are told where to look.
#[tokio::test]
async fn who_asks_for_pods_is_told_where_to_look() {
    let server = Server::start().await;
    let core = server.get("/api/v1").await.ok();
    let resources = core["resources"].as_array().unwrap();
    let verbs = |name: &str| {
        let found = resources.iter().find(|resource| resource["name"] == name);
        found.map(|found| found["verbs"].clone())
    };
    assert_eq!(verbs("pods"), Some(json!(["get"])));
    assert_eq!(verbs("services"), Some(json!(["list"])));
    // Those of hive.dev must be found by the name.
    assert_eq!(verbs("nodes"), None);
    for (path, advice) in [
        (
            "/api/v1/namespaces/default/pods/hello",
            "hivectl logs function/NAME",
        ),
        (
            "/api/v1/namespaces/default/pods",
            "hivectl invoke function/NAME",
        ),
        ("/api/v1/namespaces/default/pods/hello/log", "hivectl logs"),
        ("/api/v1/nodes", "hivectl top nodes"),
        (
            "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods",
            "hivectl top functions",
        ),
        ("/api/v1/namespaces/default/services/hello", "status.url"),
    ] {
        server.get(path).await.fails(404, "NotFound", advice);
    }
    let services = "/api/v1/namespaces/default/services";
    let list = server.get(services).await.ok();
    assert_eq!(list["kind"], "ServiceList");
    assert_eq!(list["items"], json!([]));
    server
        .post(services, json!({ "metadata": { "name": "a" } }))
        .await
        .fails(404, "NotFound", "there are no services");
    let unknown = server.request("GET", services).anonymous().send().await;
    unknown.fails(401, "Unauthorized", "");
}
