#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

use super::*;
use crate::fixture::{declare, edit};

fn put(state: &mut State, resource: Resource, name: &str, extra: Value) {
    let namespace = if resource.namespaced() { "default" } else { "" };
    let key = Key::new(resource, namespace, name);
    declare(state, key, extra);
}

fn assign(state: &mut State, name: &str, node: &str, env: Value) {
    let extra = json!({ "spec": {
        "functionName": "hello", "functionUid": "u", "functionGeneration": 2,
        "nodeName": node, "slot": "0",
        "function": { "artifact": { "sha256": "00" }, "env": env },
        "artifact": {
            "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
            "wasmtimeVersion": "48", "description": BASE64.encode("d"), "signature": BASE64.encode("s"),
        },
    }});
    put(state, Resource::Assignment, name, extra);
}

/// One assignment, to node "pi".
fn on_pi(name: &str, env: Value) -> State {
    let mut state = State::default();
    assign(&mut state, name, "pi", env);
    state
}

fn one_variable() -> Value {
    json!([{ "name": "A", "value": "b" }])
}

fn change(state: &mut State, name: &str, change: impl FnOnce(&mut Value)) {
    let key = Key::new(Resource::Assignment, "default", name);
    edit(state, &key, change);
}

/// Its key "k" is "v".
fn put_secret(state: &mut State, name: &str) {
    let extra = json!({ "data": { "k": BASE64.encode("v") } });
    put(state, Resource::Secret, name, extra);
}

#[test]
fn a_node_gets_its_own_assignments_with_defaults_and_routes() {
    let mut state = on_pi("hello.0", one_variable());
    assign(&mut state, "hello.1", "phone", json!([]));
    let set = desired(&state, "pi");
    assert_eq!(set.problems, []);
    let [assignment] = &set.assignments[..] else {
        panic!("{set:?}");
    };
    let assignment = assignment.assignment();
    assert_eq!(assignment.name, "hello.0");
    assert_eq!(assignment.env["A"], "b");
    assert_eq!(assignment.env["HIVE_FUNCTION"], "hello");
    assert_eq!(assignment.limits.as_ref().unwrap().timeout_ms, 30_000);
    assert_eq!(assignment.routes[0].host, "hello.default.localhost");
    assert_eq!(assignment.config, BTreeMap::new());
    assert_eq!((&assignment.key_value, assignment.scratch), (&None, None));
    assert_eq!((&*assignment.revision, assignment.canary), ("", false));
}

#[test]
fn a_node_answers_no_path_that_is_reserved() {
    let mut state = on_pi("hello.0", json!([]));
    change(&mut state, "hello.0", |body| {
        let routes = json!([{ "path": "/a" }, { "path": "/a/.hive/callback" }]);
        body["spec"]["function"]["http"] = json!({ "routes": routes });
    });
    let set = desired(&state, "pi");
    let routes = set.assignments[0].assignment().routes.iter();
    let paths: Vec<&str> = routes.map(|route| &*route.path).collect();
    assert_eq!(paths, ["/a"]);
}

#[test]
fn a_copy_on_trial_says_of_what_and_has_no_route() {
    let mut state = on_pi("hello.c0", json!([]));
    change(&mut state, "hello.c0", |body| {
        body["spec"]["revision"] = json!("hello-1");
        body["spec"]["canary"] = json!(true);
    });
    let set = desired(&state, "pi");
    let assignment = set.assignments[0].assignment();
    assert_eq!(
        (&*assignment.revision, assignment.canary),
        ("hello-1", true)
    );
    assert_eq!(assignment.routes, []);
}

#[test]
fn where_a_copy_was_before_it_goes_on_as_it_is() {
    let mut state = on_pi("hello.0", one_variable());
    let before = desired(&state, "pi");
    change(&mut state, "hello.0", |body| {
        let mut previous = body["spec"].clone();
        previous["until"] = json!("2026-01-01T00:00:00Z");
        body["spec"]["previous"] = previous;
        body["spec"]["nodeName"] = json!("phone");
        body["spec"]["functionGeneration"] = json!(3);
        body["spec"]["revision"] = json!("hello-3");
        body["spec"]["artifact"]["target"] = json!("arm");
    });
    assert_eq!(desired(&state, "pi"), before);
    let now = desired(&state, "phone");
    let assignment = now.assignments[0].assignment();
    assert_eq!(
        (&*assignment.revision, assignment.function_generation),
        ("hello-3", 3)
    );
}

#[test]
fn only_what_is_said_of_instances_is_sent() {
    let sent = |said: Value| instances(serde_json::from_value(said).unwrap());
    assert_eq!(sent(json!({})), None);
    let said = json!({ "reuse": "Serial", "idleTimeout": "1m" });
    let expected = v1::Instances {
        reuse: v1::Reuse::Serial.into(),
        idle_ms: Some(60_000),
        ..v1::Instances::default()
    };
    assert_eq!(sent(said), Some(expected));
}

#[test]
fn limits_that_agents_assume_are_not_sent() {
    let sent = |more: Value| {
        let mut spec = json!({ "artifact": { "sha256": "00" } });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        limits(&serde_json::from_value(spec).unwrap())
    };
    let unsaid = v1::Limits {
        memory_bytes: 128 << 20,
        timeout_ms: 30_000,
        concurrency: 100,
        ..v1::Limits::default()
    };
    assert_eq!(sent(json!({})), unsaid);
    let said = json!({
        "queueTimeout": "10s",
        "limits": { "cpuTime": "10s", "responseSize": "64Mi", "handles": 1000 },
    });
    assert_eq!(sent(said), unsaid);
    let other = json!({
        "queueTimeout": "0s",
        "limits": { "cpuTime": "1s", "responseSize": "1Mi", "handles": 64 },
    });
    let expected = v1::Limits {
        queue_ms: Some(0),
        cpu_ms: 1000,
        response_bytes: 1 << 20,
        handles: 64,
        ..unsaid
    };
    assert_eq!(sent(other), expected);

    assert_eq!(egress(&Egress::default()), None);
    let more = json!({ "maxConnections": 1, "connectTimeout": "1s", "idleTimeout": "2s" });
    let sent = egress(&serde_json::from_value(more).unwrap()).unwrap();
    assert_eq!(sent.max_connections, Some(1));
    assert_eq!(sent.connect_ms, Some(1000));
    assert_eq!((sent.first_byte_ms, sent.idle_ms), (None, Some(2000)));
}

#[test]
fn references_are_resolved_and_missing_ones_named() {
    let mut state = State::default();
    put_secret(&mut state, "s");
    put(
        &mut state,
        Resource::ConfigMap,
        "c",
        json!({ "data": { "k": "w" } }),
    );
    let reference = |kind: &str, name: &str, optional: bool| {
        json!({
            "name": kind, "valueFrom": { kind: { "name": name, "key": "k", "optional": optional } },
        })
    };
    let good = json!([
        reference("secretKeyRef", "s", false),
        reference("configMapKeyRef", "c", false),
    ]);
    assign(&mut state, "good.0", "pi", good);
    assign(
        &mut state,
        "optional.0",
        "pi",
        json!([reference("secretKeyRef", "none", true)]),
    );
    assign(
        &mut state,
        "bad.0",
        "pi",
        json!([reference("secretKeyRef", "none", false)]),
    );
    let set = desired(&state, "pi");
    let by_name = |name: &str| {
        let mut all = set.assignments.iter().map(EncodedAssignment::assignment);
        all.find(|a| a.name == name)
    };
    assert_eq!(by_name("good.0").unwrap().env["secretKeyRef"], "v");
    assert_eq!(by_name("good.0").unwrap().env["configMapKeyRef"], "w");
    assert!(
        !by_name("optional.0")
            .unwrap()
            .env
            .contains_key("secretKeyRef")
    );
    assert_eq!(
        set.problems[0].message,
        "spec.env[0].valueFrom: secret \"none\" does not exist; create it, or mark the reference optional"
    );
}

#[test]
fn settings_are_no_environment_and_the_environment_is_no_setting() {
    let mut state = State::default();
    put_secret(&mut state, "s");
    let config: Vec<ConfigValue> = serde_json::from_value(json!([
        { "name": "plain", "value": "1" },
        { "name": "secret", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
    ]))
    .unwrap();
    let values = configuration(&state, "default", &config).unwrap();
    let expected = [("plain", "1"), ("secret", "v")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(values, expected.into());

    let missing = configuration(&state, "other", &config).unwrap_err();
    let message = missing.to_string();
    assert!(message.starts_with("spec.config[1].valueFrom: secret \"s\""));
}
