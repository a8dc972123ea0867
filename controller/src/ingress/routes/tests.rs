//! Requests and what they find.

#![allow(clippy::unwrap_used)]

mod anew;
mod namespaces;
mod written;

use serde_json::{Value, json};

use super::*;
use crate::fixture::{declare, edit};
use crate::objects;
use crate::state::Command;

fn put(state: &mut State, resource: Resource, name: &str, extra: Value) {
    let key = Key::new(resource, "default", name);
    declare(state, key, extra);
}

fn function(state: &mut State, name: &str, http: Value) {
    let spec = json!({ "artifact": { "sha256": "00" }, "http": http });
    put(state, Resource::Function, name, json!({ "spec": spec }));
}

fn assignment(state: &mut State, name: &str, function: &str, node: &str, ready: &str) {
    let extra = json!({
        "spec": { "functionName": function, "nodeName": node },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    });
    put(state, Resource::Assignment, name, extra);
}

fn found<'a>(routes: &'a Routes, host: &str, path: &str) -> Option<&'a str> {
    match routes.find(host, &Method::GET, path) {
        Chosen::One((_, Backend::Function(it))) => Some(it.function.to_str().unwrap()),
        _ => None,
    }
}

#[test]
fn nobody_has_a_route_where_others_sign_in() {
    let mut state = State::default();
    function(&mut state, "site", json!({ "host": "x.org" }));
    for (name, path) in [
        ("a", "/.hive"),
        ("b", "/.hive/callback"),
        ("c", "/app/.hive/"),
    ] {
        function(&mut state, name, json!({ "host": "x.org", "path": path }));
    }
    let hivemind = json!({ "host": "x.org", "path": "/.hivemind" });
    function(&mut state, "d", hivemind);
    let routes = Routes::of(&state);
    for (path, expected) in [
        ("/.hive/callback", "site"),
        ("/app/.hive/callback", "site"),
        ("/.hivemind", "d"),
    ] {
        assert_eq!(found(&routes, "x.org", path), Some(expected), "{path}");
    }
}

fn backend_at<'a>(routes: &'a Routes, host: &str) -> Option<&'a FunctionBackend> {
    match routes.find(host, &Method::GET, "/") {
        Chosen::One((_, Backend::Function(backend))) => Some(backend),
        _ => None,
    }
}

#[test]
fn requests_find_their_function_by_host_and_longest_path() {
    let mut state = State::default();
    function(&mut state, "hello", json!({}));
    function(&mut state, "site", json!({ "host": "Example.org" }));
    function(
        &mut state,
        "api",
        json!({ "host": "example.org", "path": "/api" }),
    );
    let routes = Routes::of(&state);
    let cases = [
        ("hello.default.localhost", "/", Some("hello")),
        ("HELLO.default.localhost:8080", "/x", Some("hello")),
        ("hello.default.localhost.", "/", Some("hello")),
        ("hello.other.localhost", "/", None),
        ("example.org", "/", Some("site")),
        ("example.org", "/apix", Some("site")),
        ("example.org", "/api", Some("api")),
        ("example.org:80", "/api/v1", Some("api")),
        ("", "/", None),
    ];
    for (host, path, expected) in cases {
        assert_eq!(found(&routes, host, path), expected, "{host}{path}");
    }
}

#[test]
fn a_function_answers_at_each_of_its_routes() {
    let mut state = State::default();
    function(
        &mut state,
        "shop",
        json!({ "host": "shop.org", "routes": [
            { "path": "/cart", "methods": ["GET", "POST"] },
            { "host": "Pay.org", "path": "/pay", "pathType": "Exact" },
        ] }),
    );
    function(&mut state, "site", json!({ "host": "shop.org" }));
    function(
        &mut state,
        "bare",
        json!({ "routes": [{ "methods": ["PUT"] }] }),
    );
    let routes = Routes::of(&state);
    for (host, path, expected) in [
        ("shop.org", "/cart/1", Some("shop")),
        ("shop.org", "/", Some("site")),
        ("pay.org", "/pay", Some("shop")),
        ("pay.org", "/pay/1", None),
        // Its routes are all that it answers.
        ("shop.default.localhost", "/", None),
    ] {
        assert_eq!(found(&routes, host, path), expected, "{host}{path}");
    }
    let put = routes.find("shop.org", &Method::PUT, "/cart");
    assert!(matches!(put, Chosen::One((_, Backend::Function(it))) if it.function == "site"));
    let cart = routes.find("shop.org", &Method::GET, "/cart/1");
    assert!(matches!(cart, Chosen::One(("/cart", _))));
    let get = routes.find("bare.default.localhost", &Method::GET, "/");
    assert_eq!(get, Chosen::OtherMethods("PUT".into()));
}

#[test]
fn only_ready_assignments_receive_requests() {
    let mut state = State::default();
    function(&mut state, "hello", json!({}));
    assignment(&mut state, "hello.0", "hello", "pi", "True");
    assignment(&mut state, "hello.1", "hello", "phone", "Unknown");
    assignment(&mut state, "hello.2", "hello", "laptop", "True");
    let routes = Routes::of(&state);
    let backend = backend_at(&routes, "hello.default.localhost").unwrap();
    assert_eq!(backend.stable.nodes, ["laptop", "pi"]);
    assert_eq!(backend.canary, None);
}

#[test]
fn a_copy_that_moves_is_asked_where_it_was_until_it_answers() {
    let mut state = State::default();
    function(&mut state, "hello", json!({}));
    assignment(&mut state, "hello.0", "hello", "pi", "True");
    let mut follower = Follower::of(&state);
    let mut nodes = |change: &dyn Fn(&mut Value)| {
        let key = Key::new(Resource::Assignment, "default", "hello.0");
        edit(&mut state, &key, change);
        follower.follow(&state);
        let routes = follower.routes();
        assert_eq!(routes, Routes::of(&state));
        let backend = backend_at(&routes, "hello.default.localhost").unwrap();
        backend.stable.nodes.clone()
    };
    let ready = |body: &mut Value, ready: &str| {
        body["status"]["conditions"][0]["status"] = json!(ready);
    };
    let moved = nodes(&|body| {
        body["spec"]["previous"] = json!({ "nodeName": "pi" });
        body["spec"]["nodeName"] = json!("phone");
        ready(body, "False");
    });
    assert_eq!(moved, ["pi"]);
    assert_eq!(nodes(&|body| ready(body, "True")), ["phone"]);
    let settled = nodes(&|body| drop(body["spec"]["previous"].take()));
    assert_eq!(settled, ["phone"]);
}

#[test]
fn a_version_that_is_tried_gets_its_share_and_moves_no_route() {
    let mut state = State::default();
    let key = |resource, name: &str| Key::new(resource, "default", name);
    let body = |resource, name: &str, extra| objects::fresh(&key(resource, name), json!({}), extra);
    let before = json!({ "artifact": { "sha256": "00" }, "http": { "host": "old.org" } });
    let steps = json!([{ "setWeight": 10 }, { "pause": {} }]);
    let headers = json!([{ "name": "x-canary", "value": "yes" }]);
    let time = "2026-01-01T00:00:00Z";
    let rollout = json!({
        "observedGeneration": 2, "phase": "Progressing", "startTime": time, "phaseTime": time,
        "canary": { "step": 1, "weight": 10, "stepTime": time },
    });
    let function = json!({
        "spec": {
            "artifact": { "sha256": "11" }, "http": { "host": "new.org" }, "timeout": "1s",
            "strategy": { "type": "Canary", "canary": { "steps": steps, "match": { "headers": headers } } },
        },
        "status": { "currentRevision": "hello-1", "updateRevision": "hello-2", "rollout": rollout },
    });
    put(
        &mut state,
        Resource::ControllerRevision,
        "hello-1",
        json!({ "data": { "spec": before } }),
    );
    put(&mut state, Resource::Function, "hello", function.clone());
    assignment(&mut state, "hello.0", "hello", "pi", "True");
    let mut follower = Follower::of(&state);
    let trial = json!({
        "spec": { "functionName": "hello", "nodeName": "pi", "canary": true, "revision": "hello-2" },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    put(&mut state, Resource::Assignment, "hello.c0", trial);
    assert!(follower.follow(&state));
    let routes = follower.routes();
    let backend = backend_at(&routes, "old.org").unwrap();
    assert_eq!(backend.stable.nodes, ["pi"]);
    assert_eq!(backend.timeout, Duration::from_secs(30));
    let canary = backend.canary.as_ref().unwrap();
    assert_eq!(
        (&canary.share.nodes[..], canary.weight),
        (&["pi".to_owned()][..], 10)
    );
    assert_eq!(canary.share.revision.as_ref().unwrap(), "hello-2");
    assert_eq!(canary.headers[0].0, "x-canary");
    assert!(backend_at(&routes, "new.org").is_none());
    // Nobody comes in between who would lose the host then.
    let has_both = |follower: &Follower| {
        for host in ["old.org", "new.org"] {
            let lost = follower.held_elsewhere(host, "other");
            assert_eq!(lost.map(|lost| lost.reason()), Some("HostTaken"), "{host}");
        }
    };
    has_both(&follower);

    // Nor after it was rolled back: it can be rolled out once more, as it is declared still.
    edit(&mut state, &key(Resource::Function, "hello"), |body| {
        body["status"]["rollout"]["phase"] = json!("RolledBack");
        body["status"]["rollout"]["canary"] = json!(null);
    });
    assert!(follower.follow(&state));
    let routes = follower.routes();
    assert!(backend_at(&routes, "old.org").unwrap().canary.is_none());
    assert!(backend_at(&routes, "new.org").is_none());
    has_both(&follower);

    // All steps are done.
    let mut over = body(Resource::Function, "hello", function);
    over["status"]["rollout"]["canary"]["step"] = json!(2);
    let command = Command::Replace {
        key: key(Resource::Function, "hello"),
        body: over.into(),
        expect: None,
    };
    state.apply(command).unwrap();
    assert!(follower.follow(&state));
    let routes = follower.routes();
    assert!(backend_at(&routes, "new.org").unwrap().canary.is_some());
    assert_eq!(routes, Routes::of(&state));
}

#[test]
fn of_two_functions_with_one_route_the_older_keeps_it() {
    let mut state = State::default();
    for (name, created) in [
        ("b-old", "2020-01-01T00:00:00Z"),
        ("a-new", "2024-01-01T00:00:00Z"),
    ] {
        let key = Key::new(Resource::Function, "default", name);
        let extra =
            json!({ "spec": { "artifact": { "sha256": "00" }, "http": { "host": "x.org" } } });
        let mut body = objects::fresh(&key, json!({}), extra);
        body["metadata"]["creationTimestamp"] = json!(created);
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }
    let mut follower = Follower::of(&state);
    assert_eq!(found(&follower.routes(), "x.org", "/"), Some("b-old"));
    let [old, new] = ["b-old", "a-new"].map(|it| Key::new(Resource::Function, "default", it));
    assert_eq!(follower.lost(&old), None);
    let why =
        "x.org/ is answered by function default/b-old, which is older: choose another host or path";
    assert_eq!(follower.lost(&new).unwrap().to_string(), why);
    let (expect, uid) = (None, None);
    let key = old;
    state.apply(Command::Delete { key, expect, uid }).unwrap();
    assert!(follower.follow(&state));
    assert_eq!(follower.lost(&new), None);
}

#[test]
fn only_what_moves_a_route_makes_another_table() {
    let mut state = State::default();
    function(&mut state, "hello", json!({}));
    assignment(&mut state, "hello.0", "hello", "pi", "False");
    let mut follower = Follower::of(&state);
    let mut change = |resource, name: &str, path: &str, value: Value| {
        let key = Key::new(resource, "default", name);
        edit(&mut state, &key, |body| {
            *body.pointer_mut(path).unwrap() = value;
        });
        let any = follower.follow(&state);
        assert_eq!(follower.routes(), Routes::of(&state));
        any
    };
    let conditions = |ready: &str, message: &str| json!([{ "type": "Ready", "status": ready, "message": message }]);
    let (f, a) = (Resource::Function, Resource::Assignment);
    assert!(change(f, "hello", "/spec/http", json!({ "host": "a.b" })));
    assert!(!change(f, "hello", "/metadata/uid", json!("other")));
    let path = "/status/conditions";
    assert!(!change(a, "hello.0", path, conditions("False", "x")));
    assert!(change(a, "hello.0", path, conditions("True", "")));
    assert!(!change(a, "hello.0", path, conditions("True", "x")));
    assert!(change(a, "hello.0", "/spec/nodeName", json!("phone")));
}

#[test]
fn the_domain_is_a_setting_of_the_swarm() {
    let mut state = State::default();
    function(&mut state, "hello", json!({}));
    let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
    let body = objects::fresh(
        &key,
        json!({}),
        json!({ "data": { "domain": "swarm.example" } }),
    );
    state
        .apply(Command::Create {
            key,
            body: body.into(),
        })
        .unwrap();
    let routes = Routes::of(&state);
    assert_eq!(
        found(&routes, "hello.default.swarm.example", "/"),
        Some("hello")
    );
}
