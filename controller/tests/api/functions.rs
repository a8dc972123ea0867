//! Functions: what is admitted, defaults, scale, log and proxy.

use hive_controller::access::tokens::Role;
use hive_controller::artifacts::Digest;
use hive_controller::state::{Command, Key, level};
use hive_manifests::Resource;
use serde_json::{Value, json};

use crate::artifacts::upload;
use crate::harness::{FUNCTIONS, Server};

pub const COMPONENT: &[u8] = include_bytes!("../../../functions/tests/fixtures/rust-hello-p2.wasm");

fn function(name: &str, digest: &Digest) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": { "artifact": { "sha256": digest.hex() } },
    })
}

/// Puts the function on a node, as the scheduler does.
fn assignment() -> Command {
    Command::Create {
        key: Key::new(Resource::Assignment, "default", "hello-0"),
        body: json!({
            "metadata": { "name": "hello-0", "namespace": "default" },
            "spec": { "functionName": "hello", "nodeName": "pi" },
        })
        .into(),
    }
}

pub async fn hello(server: &Server) -> Value {
    let digest = upload(server, COMPONENT).await;
    server
        .post(FUNCTIONS, function("hello", &digest))
        .await
        .ok()
}

#[tokio::test]
async fn a_function_is_stored_with_its_defaults() {
    let server = Server::start().await;
    let created = hello(&server).await;
    assert_eq!(created["apiVersion"], "hive.dev/v1");
    assert_eq!(created["spec"]["replicas"], 1);
    assert_eq!(created["spec"]["timeout"], "30s");
    assert_eq!(created["spec"]["resources"]["memory"], "128Mi");
    assert_eq!(created["metadata"]["generation"], 1);
}

#[tokio::test]
async fn a_spec_without_its_defaults_is_the_same_spec() {
    let server = Server::start().await;
    let created = hello(&server).await;
    let digest = created["spec"]["artifact"]["sha256"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let path = format!("{FUNCTIONS}/hello");
    let again = server.put(&path, function("hello", &digest)).await.ok();
    assert_eq!(again, created);
}

#[tokio::test]
async fn mistakes_are_named_by_field() {
    let server = Server::start().await;
    let component = upload(&server, COMPONENT).await;
    let core_module = upload(&server, &b"\0asm\x01\0\0\0"[..]).await;
    let garbage = upload(&server, "not wasm").await;
    let truncated = upload(&server, &COMPONENT[..COMPONENT.len() / 2]).await;
    let absent = Digest::of(b"nowhere");
    let with = |field: &str, value: Value| {
        let mut function = function("f", &component);
        function["spec"][field] = value;
        function
    };
    let table = [
        (
            with("replicas", json!("2")),
            "spec.replicas",
            "expected a whole number",
        ),
        (with("timeout", json!("1h")), "spec.timeout", "15m"),
        (
            with("resources", json!({ "memory": "1Mi" })),
            "spec.resources.memory",
            "the component starts with",
        ),
        (
            with("artifact", json!({ "path": "hello.wasm" })),
            "spec.artifact.path",
            "hivectl apply",
        ),
        (
            function("f", &absent),
            "spec.artifact.sha256",
            "is not on the controllers: upload it first (hivectl apply does)",
        ),
        (
            function("f", &core_module),
            "spec.artifact.sha256",
            "core module",
        ),
        (
            function("f", &garbage),
            "spec.artifact.sha256",
            "not a WebAssembly component",
        ),
        (
            function("f", &truncated),
            "spec.artifact.sha256",
            "damaged or cut off",
        ),
    ];
    for (body, field, message) in table {
        let failed = server
            .post(FUNCTIONS, body)
            .await
            .fails(422, "Invalid", message);
        let causes = failed["details"]["causes"].as_array().unwrap();
        assert!(
            causes.iter().any(|cause| cause["field"] == field),
            "{failed}"
        );
    }
}

#[tokio::test]
async fn all_mistakes_are_told_at_once() {
    let server = Server::start().await;
    let digest = upload(&server, COMPONENT).await;
    let mut body = function("f", &digest);
    body["spec"]["replicas"] = json!("1");
    body["spec"]["timeout"] = json!("soon");
    let failed = server.post(FUNCTIONS, body).await.fails(
        422,
        "Invalid",
        "Function.hive.dev \"f\" is invalid: [",
    );
    assert_eq!(
        failed["details"]["causes"].as_array().unwrap().len(),
        2,
        "{failed}"
    );
}

#[tokio::test]
async fn a_function_may_name_config_that_comes_later() {
    let server = Server::start().await;
    let digest = upload(&server, COMPONENT).await;
    let mut body = function("f", &digest);
    body["spec"]["env"] = json!([{
        "name": "A",
        "valueFrom": { "secretKeyRef": { "name": "later", "key": "a" } },
    }]);
    server.post(FUNCTIONS, body).await.ok();
}

#[tokio::test]
async fn a_function_scales_by_itself_unless_a_number_holds_it() {
    let server = Server::start().await;
    hello(&server).await;
    let path = format!("{FUNCTIONS}/hello");
    let spec = async || server.get(&path).await.ok()["spec"].clone();
    assert_eq!(spec().await["replicas"], 1);
    // The one copy was there by default only.
    let scaling = json!({ "spec": { "autoscaling": { "maxReplicas": 4 } } });
    server.merge(&path, scaling.clone()).await.fails(
        503,
        "ServiceUnavailable",
        "once all controllers",
    );
    let raised = Command::RaiseLevel { to: level::OWN };
    server.propose(raised).await;
    let scaled = server.merge(&path, scaling.clone()).await.ok();
    assert_eq!(scaled["spec"].get("replicas"), None);
    assert_eq!(
        scaled["spec"]["autoscaling"],
        json!({ "minReplicas": 1, "maxReplicas": 4, "window": "1m", "scaleToZeroDelay": "1m" })
    );
    let scale = format!("{path}/scale");
    let held = json!({ "spec": { "replicas": 3 } });
    assert_eq!(server.merge(&scale, held).await.ok()["spec"]["replicas"], 3);
    // A manifest that says nothing about the number leaves it held.
    server.merge(&path, scaling).await.ok();
    assert_eq!(spec().await["replicas"], 3);
    let released = json!({ "spec": { "replicas": null } });
    server.merge(&path, released).await.ok();
    assert_eq!(spec().await.get("replicas"), None);
    // As many as the status says are wanted, once it does.
    assert_eq!(server.get(&scale).await.ok()["spec"]["replicas"], 0);
    server
        .merge(
            &format!("{path}/status"),
            json!({ "status": { "replicas": 2 } }),
        )
        .await
        .ok();
    assert_eq!(server.get(&scale).await.ok()["spec"]["replicas"], 2);
}

#[tokio::test]
async fn scale_is_a_view_of_replicas() {
    let server = Server::start().await;
    hello(&server).await;
    let path = format!("{FUNCTIONS}/hello/scale");
    let mut scale = server.get(&path).await.ok();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(scale["apiVersion"], "autoscaling/v1");
    assert_eq!(scale["spec"]["replicas"], 1);

    let stale = scale.clone();
    scale["spec"]["replicas"] = json!(3);
    assert_eq!(server.put(&path, scale).await.ok()["spec"]["replicas"], 3);
    server
        .put(&path, stale)
        .await
        .fails(409, "Conflict", "modified");
    let patched = server
        .merge(&path, json!({ "spec": { "replicas": 0 } }))
        .await
        .ok();
    assert_eq!(patched["spec"]["replicas"], 0);
    server
        .merge(&path, json!({ "spec": { "replicas": 5000 } }))
        .await
        .fails(422, "Invalid", "spec.replicas");
    let function = server.get(&format!("{FUNCTIONS}/hello")).await.ok();
    assert_eq!(function["spec"]["replicas"], 0);
    assert_eq!(function["metadata"]["generation"], 3);

    server
        .merge(
            &format!("{FUNCTIONS}/hello"),
            json!({ "spec": { "everyNode": true, "replicas": null } }),
        )
        .await
        .ok();
    server
        .merge(&path, json!({ "spec": { "replicas": 1 } }))
        .await
        .fails(422, "Invalid", "it has no number of replicas to set");
}

#[tokio::test]
async fn a_log_is_asked_of_the_nodes_that_run_the_function() {
    let server = Server::start().await;
    hello(&server).await;
    let path = format!("{FUNCTIONS}/hello/log");
    let empty = server.get(&path).await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    server.propose(assignment()).await;
    server
        .get(&path)
        .await
        .fails(503, "ServiceUnavailable", "node \"pi\" has no link");
    server.get(&format!("{FUNCTIONS}/missing/log")).await.fails(
        404,
        "NotFound",
        "functions.hive.dev \"missing\" not found",
    );
}

#[tokio::test]
async fn a_followed_log_waits_for_nodes_and_ends_with_the_function() {
    let server = Server::start().await;
    hello(&server).await;
    let mut log = server
        .watch(&format!("{FUNCTIONS}/hello/log?follow=true"))
        .await;
    server.propose(assignment()).await;
    assert_eq!(
        log.line().await.unwrap(),
        "[hive] the log of node pi is incomplete: node \"pi\" has no link to this controller: \
         it is off, cut off, or just starting"
    );
    server.delete(&format!("{FUNCTIONS}/hello")).await.ok();
    assert_eq!(log.line().await, None);
}

#[tokio::test]
async fn a_followed_log_ends_with_its_reader_s_token() {
    let server = Server::start().await;
    hello(&server).await;
    let token = server.token(Role::View, None).await;
    let path = format!("{FUNCTIONS}/hello/log?follow=true");
    let mut log = server.request("GET", &path).bearing(&token).watch().await;
    let id = token.strip_prefix("hivetok.").unwrap();
    let id = id.split('-').next().unwrap();
    let secret = format!("/api/v1/namespaces/hive-system/secrets/token-{id}");
    server.delete(&secret).await.ok();
    assert_eq!(log.line().await, None);
}

#[tokio::test]
async fn a_function_that_runs_nowhere_answers_503_through_the_proxy() {
    let server = Server::start().await;
    hello(&server).await;
    let answer = server
        .get(&format!("{FUNCTIONS}/hello/proxy/a?watch=maybe"))
        .await;
    assert_eq!(answer.status, 503);
    server
        .get(&format!("{FUNCTIONS}/missing/proxy/"))
        .await
        .fails(404, "NotFound", "functions.hive.dev \"missing\" not found");
}

#[tokio::test]
async fn metrics_of_functions_and_nodes_are_lists() {
    let server = Server::start().await;
    hello(&server).await;
    let path = "/apis/metrics.hive.dev/v1/namespaces/default/functions";
    let list = server.get(path).await.ok();
    assert_eq!(list["items"][0]["metadata"]["name"], "hello");
    assert_eq!(list["items"][0]["requests"], 0);
    let one = server.get(&format!("{path}/hello")).await.ok();
    assert_eq!(one["kind"], "FunctionMetrics");
    assert_eq!(
        (&one["requestsPerSecond"], &one["window"]),
        (&json!(0.0), &json!("1m"))
    );
    server
        .get(&format!("{path}/missing"))
        .await
        .fails(404, "NotFound", "missing");
    let nodes = server.get("/apis/metrics.k8s.io/v1beta1/nodes").await.ok();
    assert_eq!(nodes["kind"], "NodeMetricsList");
    server
        .get("/apis/metrics.k8s.io/v1beta1/nodes/pi")
        .await
        .fails(404, "NotFound", "no controller has heard from this node");
}
