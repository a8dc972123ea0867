//! Why a function is not as it should be.

use super::*;
use crate::reconcile::schedule::Step;

#[test]
fn what_is_not_compiled_says_whether_it_will_be() {
    for (condition, shown) in [
        ("Compiling", "Compiling"),
        ("CompileFailed", "CompileFailed"),
        ("CompilerMemory", "CompileFailed"),
    ] {
        let mut state = swarm();
        node(&mut state, "a", "True");
        let key = Key::new(Resource::Function, "default", "hello");
        let mut body = state.get(&key).unwrap().body().clone();
        let compiled = body["status"]["artifacts"].take();
        objects::set_condition(
            &mut body["status"],
            "Compiled",
            "False",
            condition,
            "for arm",
            SystemTime::UNIX_EPOCH,
        );
        let put = |state: &mut State, body: &Value| {
            let (key, body, expect) = (key.clone(), body.clone().into(), None);
            state.apply(Command::Replace { key, body, expect }).unwrap();
            let summary = summary(state);
            (summary.reason, summary.message)
        };
        body["status"]["artifacts"] = json!([]);
        assert_eq!(put(&mut state, &body), (shown, "for arm".to_owned()));
        // What is compiled for some kind of machine may run there.
        body["status"]["artifacts"] = compiled;
        assert_eq!(put(&mut state, &body).0, "Progressing");
    }
}

#[test]
fn a_paused_function_is_not_ready_while_a_version_waits() {
    let mut state = swarm();
    node(&mut state, "a", "True");
    assignment(&mut state, "0", "a", "Ready", "");
    assignment(&mut state, "1", "a", "Ready", "");
    set_spec(&mut state, json!({ "paused": true }));
    assert_eq!(ready(&state), is("True", "Ready"));
    assert_eq!(summary(&state).updated, 2);
    set_spec(&mut state, json!({ "concurrency": 7 }));
    assert_eq!(ready(&state), is("False", "Paused"));
    assert_eq!(summary(&state).updated, 0);
}

#[test]
fn a_version_that_no_node_can_be_sent_says_what_is_missing() {
    let mut state = swarm();
    node(&mut state, "a", "True");
    assignment(&mut state, "0", "a", "Ready", "");
    assignment(&mut state, "1", "a", "Ready", "");
    let from = json!({ "secretKeyRef": { "name": "none", "key": "k" } });
    let asks = json!({ "config": [{ "name": "A", "valueFrom": from }] });
    set_spec(&mut state, asks);
    let now = summary(&state);
    assert_eq!(
        (now.available, now.ready, now.reason),
        (true, 2, "MissingReference")
    );
    let why = "spec.config[0].valueFrom: secret \"none\" does not exist; create it, or mark the reference optional";
    assert_eq!(now.message, why);
    let secret = json!({ "data": { "k": "dg==" } });
    put(&mut state, Resource::Secret, "none", "s", secret);
    assert_eq!(summary(&state).reason, "RollingUpdate");
}

#[test]
fn one_sentence_says_why_it_is_not_ready() {
    let mut state = swarm();
    let none = summary(&state);
    assert_eq!((none.available, none.reason), (false, "Unschedulable"));
    assert_eq!(none.message, "the swarm has no nodes yet");
    node(&mut state, "a", "True");
    assignment(&mut state, "0", "a", "Failed", "the disk is full");
    let failing = summary(&state);
    assert_eq!(
        (failing.reason, &*failing.message),
        ("Failing", "hello.0 on a: the disk is full")
    );
}

#[test]
fn it_names_the_copy_and_the_node_that_are_waited_for() {
    let told = |state: &State| {
        let summary = summary(state);
        (summary.reason, summary.message)
    };
    let mut state = swarm();
    node(&mut state, "a", "True");
    node(&mut state, "b", "True");
    assignment(&mut state, "0", "a", "Ready", "");
    assignment(&mut state, "1", "b", "Fetching", "");
    let fetching = "1 of 2 copies is ready, hello.1 on b is being fetched";
    assert_eq!(told(&state), ("Progressing", fetching.to_owned()));
    set_phase(&mut state, "hello.1", "Pending");
    let pending = "1 of 2 copies is ready, hello.1 on b was not taken up yet";
    assert_eq!(told(&state), ("Progressing", pending.to_owned()));

    set_phase(&mut state, "hello.1", "Ready");
    set_ready(&mut state, "b", "Unknown");
    let moving = "1 of 2 copies is ready: nothing was heard of node b since 2020-01-01T00:00:00Z";
    assert_eq!(told(&state), ("NodeLost", moving.to_owned()));
    set_ready(&mut state, "a", "Unknown");
    let (reason, message) = told(&state);
    assert_eq!(reason, "NodeLost");
    assert!(
        message.starts_with("0 of 2 copies are ready: nothing was heard of node a since ")
            && message.contains(", and no other takes its copy: "),
        "{message}"
    );
    // What a person did comes before what the swarm does.
    edit(&mut state, &hello(), |body| {
        body["metadata"]["deletionTimestamp"] = json!("2020-01-01T00:00:00Z");
        body["metadata"]["finalizers"] = json!(["example.org/bill", "example.org/mail"]);
    });
    let deleting =
        "it is being deleted, which waits for its finalizers: example.org/bill, example.org/mail";
    assert_eq!(told(&state), ("Deleting", deleting.to_owned()));
}

#[test]
fn an_image_that_is_not_here_yet_is_why_and_what_ran_runs_on() {
    let mut state = swarm();
    node(&mut state, "a", "True");
    assignment(&mut state, "0", "a", "Ready", "");
    assignment(&mut state, "1", "a", "Ready", "");
    assert_eq!(ready(&state), is("True", "Ready"));
    set_spec(
        &mut state,
        json!({ "artifact": { "oci": "ghcr.io/a/b:1" } }),
    );
    let summary_now = summary(&state);
    assert_eq!((summary_now.ready, summary_now.reason), (2, "Pulling"));
    let steps = |state: &State| plan(&View::of(state), Timestamp::now()).steps;
    assert!(steps(&state).is_empty());

    let key = Key::new(Resource::Function, "default", "hello");
    edit(&mut state, &key, |body| {
        body["status"]["conditions"] = json!([{
            "type": "Pulled", "status": "False", "reason": "Unauthorized", "message": "who is it",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
    });
    let refused = summary(&state);
    assert_eq!(
        (refused.available, refused.reason, &*refused.message),
        (true, "Unauthorized", "who is it")
    );

    // The same component by another name: its copies are told, one after the other.
    edit(&mut state, &key, |body| {
        body["status"]["artifact"] = json!({
            "requested": "ghcr.io/a/b:1", "reference": "ghcr.io/a/b@sha256:0",
            "sha256": "a".repeat(64), "size": 1, "pulledAt": "2026-01-01T00:00:00Z",
        });
    });
    assert_eq!(ready(&state), is("False", "RollingUpdate"));
    let steps = steps(&state);
    let [Step::Update { spec, .. }] = &steps[..] else {
        panic!("{steps:?}");
    };
    let artifact = &spec.function.artifact;
    assert_eq!(artifact.oci.as_deref(), Some("ghcr.io/a/b@sha256:0"));
    assert_eq!(artifact.sha256, Some("a".repeat(64)));
}
