//! What ten thousand functions take of a controller's memory, part by part: for whoever looks for what to cut.
//!
//! `cargo test -p hive-controller --lib weight -- --ignored --nocapture`
#![allow(clippy::unwrap_used)]

use std::hint::black_box;

use hive_manifests::{FunctionSpec, Resource, apply_defaults};
use jiff::Timestamp;
use serde_json::json;

use super::schedule::Seen;
use super::status::summaries;
use crate::artifacts::usage;
use crate::fixture::{declare, put};
use crate::ingress::routes::Follower;
use crate::objects;
use crate::state::{Key, State};

const FUNCTIONS: usize = 10_000;

/// Of this process, in MB.
fn resident() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = text.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}

/// Makes something, and says how much larger that made the process.
fn weighed<T>(what: &str, make: impl FnOnce() -> T) -> T {
    let before = resident();
    let made = black_box(make());
    println!("{:8.1} MB  {what}", resident() - before);
    made
}

/// A function that runs, with its copy and what it was, as hivectl and the swarm leave them.
fn deployed(state: &mut State, number: usize) {
    let name = format!("function-{number}");
    let key = |resource, name: &str| Key::new(resource, "default", name);
    let time = "2026-01-01T00:00:00Z";
    let compiled = json!({
        "target": "x86_64-unknown-linux-gnu", "sourceSha256": "a".repeat(64), "sha256": "b".repeat(64),
        "size": 1_000_000, "wasmtimeVersion": "48.0.8", "description": "d".repeat(200), "signature": "s".repeat(88),
    });
    let spec = json!({ "spec": {
        "artifact": { "sha256": "a".repeat(64) }, "replicas": 1,
        "env": [{ "name": "GREETING", "value": "hello" }],
    } });
    let function = key(Resource::Function, &name);
    let mut body = objects::fresh(&function, json!({ "app": "weight" }), spec);
    let applied = body["spec"].to_string();
    apply_defaults(Resource::Function, &mut body);
    body["metadata"]["annotations"]["hive.dev/last-applied-configuration"] = json!(applied);
    body["metadata"]["managedFields"] = json!([{
        "manager": "hivectl", "operation": "Update", "apiVersion": "hive.dev/v1", "time": time, "fieldsType": "FieldsV1",
        "fieldsV1": { "f:metadata": { "f:annotations": { "f:hive.dev/last-applied-configuration": {} } },
            "f:spec": { "f:artifact": { "f:sha256": {} }, "f:replicas": {}, "f:env": {} } },
    }]);
    put(state, function.clone(), &body);
    let spec: FunctionSpec = serde_json::from_value(body["spec"].clone()).unwrap();
    let copy = key(Resource::Assignment, &format!("{name}.0"));
    let mut assignment = objects::fresh(
        &copy,
        json!({ "hive.dev/function": name }),
        json!({ "spec": {
            "functionName": name, "functionUid": body["metadata"]["uid"], "functionGeneration": 1,
            "nodeName": "pi", "slot": "0", "function": spec.template(), "artifact": compiled, "revision": name,
        } }),
    );
    put(state, copy.clone(), &assignment);
    let revision = key(Resource::ControllerRevision, &name);
    let data = json!({ "revision": 1, "data": { "spec": spec.template() } });
    declare(state, revision, data);
    // As they come, one after the other.
    for kind in ["Compiled", "Progressing", "Available", "Ready"] {
        body["status"]["artifacts"] = json!([compiled, compiled]);
        objects::set_condition(
            &mut body["status"],
            kind,
            "True",
            "Ready",
            "as it should be",
            std::time::SystemTime::UNIX_EPOCH,
        );
        put(state, function.clone(), &body);
    }
    assignment["status"] = json!({ "phase": "Ready", "observedGeneration": 1, "readySince": time });
    put(state, copy.clone(), &assignment);
}

#[test]
#[ignore = "takes a minute, and tells what nothing is held to"]
fn ten_thousand_functions() {
    let state = weighed("the state, with its history", || {
        let mut state = State::default();
        for number in 0..FUNCTIONS {
            deployed(&mut state, number);
        }
        state
    });
    let of = |resource| {
        state
            .list(resource, None)
            .map(|it| it.size())
            .sum::<usize>()
    };
    for resource in [
        Resource::Function,
        Resource::Assignment,
        Resource::ControllerRevision,
    ] {
        println!(
            "            of it {:.1} MB: texts of {}",
            of(resource) as f64 / 1e6,
            resource.plural()
        );
    }
    let (changes, bytes) = state.remembered();
    println!(
        "            of it {:.1} MB: {changes} changes",
        bytes as f64 / 1e6
    );
    let routes = weighed("routes", || Follower::of(&state));
    let seen = weighed("the scheduler's view and plan", || {
        let seen = Seen::default();
        seen.at(&state, Timestamp::UNIX_EPOCH, |_, _| ());
        seen
    });
    let said = weighed("what statuses say", || {
        seen.at(&state, Timestamp::UNIX_EPOCH, |view, plan| {
            summaries(&state, view, plan, &routes)
        })
    });
    weighed("a look for the artifacts in use", || usage::used(&state));
    weighed("functions and assignments, were they kept parsed", || {
        for resource in [Resource::Function, Resource::Assignment] {
            state
                .list(resource, None)
                .for_each(|it| assert!(black_box(it.body()).is_object()));
        }
    });
    drop((state, routes, seen, said));
}
