//! What people get wrong, and exactly what they are told.
#![allow(clippy::unwrap_used)]

mod kinds;
mod limits;
mod network;
mod placement;
mod rollouts;
mod settings;
mod shape;

use hive_manifests::{
    MAX_OBJECT_BYTES, Reason, Resource, apply_defaults, resource_of, validate, validate_stored,
};
use serde_json::{Value, json};

fn messages(resource: Resource, value: &Value) -> Vec<String> {
    validate(resource, value)
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// A good function whose spec has `changes` merged into it; null takes a field away.
fn function(changes: Value) -> Value {
    let mut value = json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Function",
        "metadata": {"name": "hello"},
        "spec": {"artifact": {"path": "hello.wasm"}},
    });
    let spec = value["spec"].as_object_mut().unwrap();
    for (name, change) in changes.as_object().unwrap() {
        spec.insert(name.clone(), change.clone());
    }
    value
}

/// Fails unless one thing is said of each of these specs: what stands beside it.
#[track_caller]
fn are_refused<const N: usize>(cases: [(Value, &str); N]) {
    for (spec, expected) in cases {
        let value = function(spec);
        assert_eq!(messages(Resource::Function, &value), [expected], "{value}");
    }
}

#[test]
fn functions_that_are_good() {
    let digest = "ab".repeat(32);
    for spec in [
        json!({}),
        json!({"artifact": {"sha256": digest}}),
        json!({"artifact": {"sha256": format!("sha256:{digest}")}}),
        json!({"replicas": 0}),
        json!({"everyNode": true}),
        json!({"everyNode": false, "replicas": 2}),
        json!({"replicas": null, "env": null, "http": null}),
        json!({"nodeSelector": {"hive.dev/arch": "aarch64", "empty": ""}}),
        json!({"tolerations": [{"operator": "Exists"}]}),
        json!({"tolerations": [{"key": "a/b", "value": "c", "effect": "NoExecute", "tolerationSeconds": 5}]}),
        json!({"resources": {"memory": "64Mi", "cpu": 1}}),
        json!({"resources": {"cpu": 0.5}}),
        json!({"timeout": "1m30s", "concurrency": 10000}),
        json!({"timeout": "1s", "queueTimeout": "0s"}),
        json!({"limits": {"cpuTime": "100ms", "responseSize": "1Gi", "handles": 64}}),
        json!({"env": [{"name": "A"}, {"name": "B", "value": ""},
            {"name": "C", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}}]}),
        json!({"config": [{"name": "greeting"}, {"name": "db.url-1_a", "value": "x"},
            {"name": "token", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}),
        json!({"keyValue": {}}),
        json!({"scratch": {}}),
        json!({"scratch": {"sizeLimit": "64Ki"}}),
        json!({"keyValue": {"stores": ["default", "sessions.v1"], "sizeLimit": "1Gi"}}),
        json!({"http": {"host": "api.example.com", "path": "/v1/"}}),
        json!({"http": {"host": "a.example", "routes": [{"path": "/v1", "methods": ["GET", "HEAD"]},
            {"host": "b.example", "pathType": "Exact"}]}}),
        json!({"schedules": [{"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin",
            "startingDeadlineSeconds": 0, "path": "/nightly?full=1", "suspend": true},
            {"name": "often", "schedule": "@hourly"}]}),
        json!({"readinessProbe": {"httpGet": {}}}),
        json!({"readinessProbe": {"httpGet": {"path": "/healthz?full=1"}, "timeoutSeconds": 2, "periodSeconds": 1,
            "failureThreshold": 1}}),
        json!({"affinity": {}}),
        json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}, {"key": "cores", "operator": "Gt", "values": ["4"]}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["pi"]}]}]},
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}}}),
        json!({"affinity": {"functionAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"app": "a"}}, "topologyKey": "kubernetes.io/hostname"}],
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "functionAffinityTerm": {"labelSelector": {}, "topologyKey": "zone"}}]}}}),
        json!({"topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
            {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "a"}}}]}),
        json!({"allowedHosts": ["*", "a.example", "a.example:443", "*.example.com", "10.0.0.1:80"]}),
        json!({"egress": {}}),
        json!({"egress": {"maxConnections": 1, "connectTimeout": "10ms", "firstByteTimeout": "1m", "idleTimeout": "15m"}}),
        json!({"allowedHosts": ["*:443", "a.example:*", "*.a.example:80", "localhost:81", "[::1]",
            "[::1]:80", "10.0.0.0/8", "10.0.0.0/8:*", "0.0.0.0/0", "[fd00::/8]:443", "[::/0]"]}),
    ] {
        let value = function(spec);
        assert_eq!(messages(Resource::Function, &value), [""; 0], "{value}");
    }
}

#[test]
fn an_object_over_the_limit_is_refused_with_its_size() {
    let mut value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}});
    value["data"] = json!({"a": "x".repeat(MAX_OBJECT_BYTES)});
    let found = messages(Resource::ConfigMap, &value);
    assert_eq!(
        found,
        ["the object takes 1048654 bytes as JSON; at most 1048576 are stored"]
    );
}

#[test]
fn an_object_wrong_everywhere_gives_a_short_answer() {
    let env: Vec<Value> = (0..10_000).map(|i| json!({ format!("x{i}"): i })).collect();
    let found = validate(Resource::Function, &function(json!({"env": env})));
    assert_eq!(found.len(), 64);
}

#[test]
fn a_controller_accepts_digests_only() {
    let errors = validate_stored(Resource::Function, &function(json!({})));
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0].reason, Reason::Forbidden);
    assert_eq!(errors[0].path.to_string(), "spec.artifact.path");
    let stored = function(json!({"artifact": {"sha256": "0".repeat(64)}}));
    assert_eq!(validate_stored(Resource::Function, &stored), []);
}

#[test]
fn the_kind_of_a_manifest_is_found_or_suggested() {
    let of = |api_version: &str, kind: &str| {
        resource_of(&json!({"apiVersion": api_version, "kind": kind})).map_err(|e| e.to_string())
    };
    assert_eq!(of("hive.dev/v1", "Function"), Ok(Resource::Function));
    assert_eq!(of("v1", "Secret"), Ok(Resource::Secret));
    for (api_version, kind, expected) in [
        (
            "hive.dev/v1",
            "Functoin",
            "kind: unknown kind \"Functoin\"; did you mean \"Function\"?",
        ),
        ("apps/v1", "Deployment", "kind: unknown kind \"Deployment\""),
        (
            "hive.dev/v1beta1",
            "Function",
            "apiVersion: \"hive.dev/v1beta1\" has no kind Function; did you mean \"hive.dev/v1\"?",
        ),
    ] {
        assert_eq!(of(api_version, kind), Err(expected.to_owned()));
    }
    let missing = resource_of(&json!({"apiVersion": "v1"})).unwrap_err();
    assert_eq!(missing.to_string(), "kind: required, but missing");
}

#[test]
fn a_good_function_stays_good_when_completed() {
    let mut value = function(json!({"everyNode": true}));
    apply_defaults(Resource::Function, &mut value);
    assert_eq!(messages(Resource::Function, &value), [""; 0]);
}
