#![allow(clippy::unwrap_used)]
mod why;

use hive_manifests::{FunctionSpec, Resource};

use super::*;
use crate::fixture::edit;
use crate::reconcile::schedule::{View, plan};
use crate::state::{Command, Member};

fn put(state: &mut State, resource: Resource, name: &str, uid: &str, extra: Value) {
    let namespace = if resource.namespaced() { "default" } else { "" };
    let key = Key::new(resource, namespace, name);
    let mut body = objects::fresh(&key, json!({}), extra);
    body["metadata"]["uid"] = json!(uid);
    state
        .apply(Command::Create {
            key,
            body: body.into(),
        })
        .unwrap();
}

fn node(state: &mut State, name: &str, ready: &str) {
    put(
        state,
        Resource::Node,
        name,
        name,
        json!({
            "spec": { "key": "" },
            "status": {
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": "", "message": "",
                    "lastTransitionTime": "2020-01-01T00:00:00Z",
                }],
                "allocatable": { "memory": "1Gi", "cpu": "4" },
                "nodeInfo": { "wasmtimeVersion": "48" },
            },
        }),
    );
}

fn assignment(state: &mut State, slot: &str, node: &str, phase: &str, message: &str) {
    let mut status = json!({ "phase": phase, "observedGeneration": 1 });
    if !message.is_empty() {
        status["message"] = json!(message);
    }
    put(
        state,
        Resource::Assignment,
        &format!("hello.{slot}"),
        slot,
        json!({
            "spec": {
                "functionName": "hello", "functionUid": "f", "functionGeneration": 1,
                "nodeName": node, "slot": slot,
                "function": template_json(),
                "artifact": { "target": "t", "sourceSha256": "00", "sha256": "11", "size": 1,
                    "wasmtimeVersion": "48", "description": "", "signature": "" },
            },
            "status": status,
        }),
    );
}

fn spec() -> Value {
    json!({ "artifact": { "sha256": "a".repeat(64) }, "replicas": 2 })
}

fn template_json() -> Value {
    let spec: FunctionSpec = serde_json::from_value(spec()).unwrap();
    json!(spec.template())
}

fn swarm() -> State {
    let mut state = State::default();
    let member = Member {
        link: String::new(),
        api: String::new(),
        ingress: "127.0.0.1:8080".into(),
        ingress_tls: None,
    };
    state.apply(Command::AdmitController { member }).unwrap();
    put(
        &mut state,
        Resource::Function,
        "hello",
        "f",
        json!({
            "spec": spec(),
            "status": { "artifacts": [{ "target": "", "sourceSha256": "a".repeat(64), "sha256": "11", "size": 1,
                "wasmtimeVersion": "48", "description": "", "signature": "" }] },
        }),
    );
    state
}

fn all(state: &State) -> BTreeMap<Key, Summary> {
    let view = View::of(state);
    let plan = plan(&view, Timestamp::UNIX_EPOCH);
    summaries(state, &view, &plan, &Follower::of(state))
}

fn summary(state: &State) -> Summary {
    all(state).into_values().next().unwrap()
}

#[test]
fn copies_on_lost_nodes_are_never_counted() {
    let mut state = swarm();
    node(&mut state, "a", "True");
    node(&mut state, "b", "Unknown");
    assignment(&mut state, "0", "a", "Ready", "");
    assignment(&mut state, "1", "b", "Ready", "");
    let summary = summary(&state);
    assert_eq!((summary.ready, summary.replicas), (1, 2));
    assert!(summary.available);
    assert_eq!(summary.url, "http://hello.default.localhost:8080/");
}

#[test]
fn the_address_is_that_of_the_version_that_is_served() {
    let mut state = swarm();
    let mut newer = spec();
    newer["http"] = json!({ "host": "new.org" });
    for (name, spec) in [("hello-1", spec()), ("hello-2", newer.clone())] {
        let data = json!({ "data": { "spec": spec } });
        put(&mut state, Resource::ControllerRevision, name, name, data);
    }
    let time = "2026-01-01T00:00:00Z";
    for (phase, expected) in [
        ("Progressing", "http://new.org:8080/"),
        ("RolledBack", "http://hello.default.localhost:8080/"),
    ] {
        edit(&mut state, &hello(), |body| {
            body["spec"] = newer.clone();
            body["status"]["currentRevision"] = json!("hello-1");
            body["status"]["updateRevision"] = json!("hello-2");
            body["status"]["rollout"] = json!({
                "observedGeneration": 1, "phase": phase, "startTime": time, "phaseTime": time,
            });
        });
        assert_eq!(summary(&state).url, expected, "{phase}");
    }
}

#[test]
fn a_copy_that_serves_an_older_version_since_the_newest_fails_says_so() {
    let mut state = swarm();
    node(&mut state, "a", "True");
    assignment(
        &mut state,
        "0",
        "a",
        "Ready",
        "it traps at once; generation 0 serves on",
    );
    let key = Key::new(Resource::Assignment, "default", "hello.0");
    edit(&mut state, &key, |body| {
        body["status"]["observedGeneration"] = json!(0);
    });
    let summary = summary(&state);
    assert_eq!(
        (summary.available, summary.ready, summary.reason),
        (true, 1, "Failing")
    );
}

fn ready(state: &State) -> (String, String) {
    let (key, summary) = all(state).pop_first().unwrap();
    let mut body = json!({});
    assert!(set(&mut body["status"], &summary, &key, level::REVISIONS));
    let conditions = body["status"]["conditions"].as_array().unwrap();
    let ready = conditions.iter().find(|c| c["type"] == "Ready").unwrap();
    let text = |field: &str| ready[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn ready_is_when_all_wanted_copies_answer() {
    let mut state = swarm();
    node(&mut state, "a", "True");
    assignment(&mut state, "0", "a", "Ready", "");
    assignment(&mut state, "1", "a", "Fetching", "");
    assert_eq!(ready(&state), is("False", "Progressing"));
    assert!(summary(&state).available);
    set_phase(&mut state, "hello.1", "Ready");
    assert_eq!(ready(&state), is("True", "Ready"));
    set_spec(&mut state, json!({ "replicas": 0 }));
    assert_eq!(ready(&state), is("True", "ScaledToZero"));
    assert_eq!(summary(&state).message, "no copies are wanted");
    edit(&mut state, &hello(), |body| {
        body["spec"]["replicas"].take();
        body["spec"]["autoscaling"] = json!({ "minReplicas": 0, "maxReplicas": 2 });
        body["status"]["autoscaling"] = json!({ "replicas": 0 });
    });
    assert_eq!(ready(&state), is("True", "ScaledToZero"));
    let sleeps = "nobody asks for it: the next request brings a copy";
    assert_eq!(summary(&state).message, sleeps);
}

#[test]
fn one_on_every_node_is_ready_when_it_is_on_every_node() {
    let mut state = swarm();
    set_spec(&mut state, json!({ "everyNode": true, "replicas": null }));
    assert_eq!(ready(&state), is("False", "NoNodes"));
    assert!(!summary(&state).available);
    // Before the scheduler wrote anything: it is wanted there all the same.
    node(&mut state, "a", "True");
    assert_eq!(ready(&state), is("False", "Progressing"));
    assert_eq!(summary(&state).replicas, 1);
}

fn set_phase(state: &mut State, name: &str, phase: &str) {
    let key = Key::new(Resource::Assignment, "default", name);
    edit(state, &key, |body| body["status"]["phase"] = json!(phase));
}

fn set_ready(state: &mut State, node: &str, ready: &str) {
    edit(state, &objects::node_key(node), |body| {
        body["status"]["conditions"][0]["status"] = json!(ready);
    });
}

fn hello() -> Key {
    Key::new(Resource::Function, "default", "hello")
}

fn set_spec(state: &mut State, fields: Value) {
    edit(state, &hello(), |body| {
        for (field, value) in fields.as_object().unwrap() {
            body["spec"][field] = value.clone();
        }
    });
}

#[test]
fn a_function_whose_route_an_older_one_has_says_so() {
    let mut state = swarm();
    edit(&mut state, &hello(), |body| {
        body["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        body["spec"]["http"] = json!({ "host": "x.org" });
    });
    let conditions = |state: &State, status: &mut Value| {
        let summary = all(state).remove(&hello()).unwrap();
        let is_news = route_lost(status, &summary).is_some();
        set(status, &summary, &hello(), level::OWN);
        let told = status["conditions"].as_array().unwrap().iter();
        let mut told = told.filter(|it| it["type"] == ROUTES_ACCEPTED);
        let told = told
            .next()
            .map(|it| (it["reason"].clone(), it["message"].clone()));
        let told = told.map(|(reason, message)| format!("{reason} {message}"));
        (told, is_news)
    };
    let mut status = json!({});
    assert_eq!(conditions(&state, &mut status), (None, false));
    let older = json!({ "spec": { "artifact": { "sha256": "00" }, "http": { "host": "x.org" } } });
    put(&mut state, Resource::Function, "older", "o", older);
    let key = Key::new(Resource::Function, "default", "older");
    edit(&mut state, &key, |body| {
        body["metadata"]["creationTimestamp"] = json!("2025-01-01T00:00:00Z");
    });
    let why = r#""RouteConflict" "x.org/ is answered by function default/older, which is older: choose another host or path""#;
    for is_news in [true, false] {
        let told = (Some(why.to_owned()), is_news);
        assert_eq!(conditions(&state, &mut status), told);
    }
    let (expect, uid) = (None, None);
    state.apply(Command::Delete { key, expect, uid }).unwrap();
    let own = r#""Accepted" "all its routes are its own""#;
    let told = (Some(own.to_owned()), false);
    assert_eq!(conditions(&state, &mut status), told);
}
