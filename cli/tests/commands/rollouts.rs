//! Versions of a function: their history, back, held, started anew.

use serde_json::{Value, json};

use crate::harness::Swarm;

const FUNCTION: &str = "/apis/hive.dev/v1/namespaces/default/functions/hello";

async fn swarm() -> Swarm {
    let swarm = Swarm::start().await;
    swarm.fake.put(
        FUNCTION,
        json!({"apiVersion": "hive.dev/v1", "kind": "Function",
               "metadata": {"name": "hello", "namespace": "default", "generation": 3, "uid": "u",
                            "annotations": {"kubernetes.io/change-cause": "newer"}},
               "spec": {"replicas": 5, "artifact": {"sha256": "new"}, "env": [{"name": "A"}]},
               "status": {"updateRevision": "hello-c", "updatedReplicas": 1, "replicas": 5,
                    "rollout": {"phase": "Progressing", "observedGeneration": 3},
                    "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded",
                        "message": "no copy went over to revision 4 for 600 s"},
                        {"type": "Available", "status": "True", "reason": "Failing", "message": "it traps"}],
                    "observedGeneration": 3}}),
    );
    let of = |sha256: &str| json!({"artifact": {"sha256": sha256}});
    let mut newest = of("new");
    newest["env"] = json!([{"name": "A"}]);
    for (name, owner, number, spec, cause) in [
        ("a", "u", 2, of("old"), Some("older")),
        ("b", "u", 10, of("older"), None),
        ("c", "u", 11, newest, Some("newer")),
        ("d", "another function of that name", 12, of("x"), None),
    ] {
        let mut metadata = json!({
            "name": format!("hello-{name}"), "namespace": "default",
            "labels": {"hive.dev/function": "hello"}, "ownerReferences": [{"uid": owner}],
        });
        if let Some(cause) = cause {
            metadata["annotations"] = json!({"kubernetes.io/change-cause": cause});
        }
        swarm.fake.put(
            &format!("/apis/apps/v1/namespaces/default/controllerrevisions/hello-{name}"),
            json!({"apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": metadata,
                   "revision": number, "data": {"spec": spec}}),
        );
    }
    swarm
}

fn live(swarm: &Swarm) -> Value {
    swarm.fake.object(FUNCTION).unwrap()
}

#[tokio::test]
async fn history_is_listed_by_number_and_shown_in_full() {
    let swarm = swarm().await;
    let run = swarm.run(&["rollout", "history", "fn/hello"]).await;
    run.expect(
        0,
        "function.hive.dev/hello\nREVISION   CHANGE-CAUSE\n2          older\n10         <none>\n11         newer\n",
        "",
    );
    let run = swarm
        .run(&["rollout", "history", "hello", "--revision=10"])
        .await;
    run.expect(
        0,
        "function.hive.dev/hello with revision #10\nartifact:\n  sha256: older\n",
        "",
    );
    let run = swarm
        .run(&["rollout", "history", "hello", "--revision=12"])
        .await;
    run.expect(
        1,
        "",
        "error: function.hive.dev/hello has no revision 12\n  there are 2, 10, 11\n",
    );
}

#[tokio::test]
async fn undo_brings_back_the_version_and_leaves_the_rest() {
    let swarm = swarm().await;
    let run = swarm.run(&["rollout", "undo", "fn/hello"]).await;
    run.expect(
        0,
        "function.hive.dev/hello rolled back to revision 10\n",
        "",
    );
    let spec = json!({"replicas": 5, "artifact": {"sha256": "older"}});
    assert_eq!(live(&swarm)["spec"], spec);
    assert_eq!(live(&swarm)["metadata"]["annotations"], json!({}));
    let run = swarm
        .run(&["rollout", "undo", "hello", "--to-revision=2"])
        .await;
    run.expect(0, "function.hive.dev/hello rolled back to revision 2\n", "");
    let annotations = json!({"kubernetes.io/change-cause": "older"});
    assert_eq!(live(&swarm)["metadata"]["annotations"], annotations);
    let run = swarm
        .run(&["rollout", "undo", "hello", "--to-revision=2"])
        .await;
    run.expect(
        0,
        "function.hive.dev/hello skipped: it is as revision 2 was\n",
        "",
    );
    swarm.fake.edit(FUNCTION, |function| {
        function["status"]["updateRevision"] = json!("hello-a");
    });
    let run = swarm.run(&["rollout", "undo", "hello"]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("has no version before this one"),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn undo_of_a_change_that_is_no_version_yet_goes_back_to_the_newest() {
    let swarm = swarm().await;
    swarm.fake.edit(FUNCTION, |function| {
        function["status"]["updateRevision"] = json!("hello-b");
    });
    let run = swarm.run(&["rollout", "undo", "fn/hello"]).await;
    run.expect(
        0,
        "function.hive.dev/hello rolled back to revision 10\n",
        "",
    );
}

/// A version says what was pulled, and the function what it asked for.
#[tokio::test]
async fn undo_knows_the_version_of_an_image() {
    for (tag, goes_to) in [("1", 10), ("2", 11)] {
        let swarm = swarm().await;
        let pulled = "ghcr.io/acme/hello@sha256:00";
        let version = "/apis/apps/v1/namespaces/default/controllerrevisions/hello-c";
        swarm.fake.edit(version, |version| {
            version["data"]["spec"]["artifact"] = json!({"oci": pulled, "sha256": "new"});
        });
        swarm.fake.edit(FUNCTION, |function| {
            function["spec"]["artifact"] = json!({"oci": format!("ghcr.io/acme/hello:{tag}")});
            function["status"]["artifact"] = json!({
                "requested": "ghcr.io/acme/hello:1", "reference": pulled, "sha256": "new", "size": 1,
                "pulledAt": "2026-01-01T00:00:00Z",
            });
        });
        let run = swarm.run(&["rollout", "undo", "fn/hello"]).await;
        let done = format!("function.hive.dev/hello rolled back to revision {goes_to}\n");
        run.expect(0, &done, "");
    }
}

#[tokio::test]
async fn what_is_held_goes_on_and_starts_anew_only_then() {
    let swarm = swarm().await;
    let run = swarm.run(&["rollout", "pause", "fn/hello"]).await;
    run.expect(0, "function.hive.dev/hello paused\n", "");
    assert_eq!(live(&swarm)["spec"]["paused"], true);
    let run = swarm.run(&["rollout", "pause", "fn/hello"]).await;
    run.expect(1, "", "error: function.hive.dev/hello is already paused\n");
    for what in ["restart", "undo"] {
        let run = swarm.run(&["rollout", what, "fn/hello"]).await;
        assert_eq!(run.code, 1);
        let remedy = "`hivectl rollout resume function/hello` first";
        assert!(run.err.contains(remedy), "{}", run.err);
    }
    let run = swarm.run(&["rollout", "resume", "fn/hello"]).await;
    run.expect(0, "function.hive.dev/hello resumed\n", "");
    assert!(live(&swarm)["spec"].get("paused").is_none());
    let run = swarm.run(&["rollout", "restart", "fn/hello"]).await;
    run.expect(0, "function.hive.dev/hello restarted\n", "");
    assert!(live(&swarm)["spec"]["restartedAt"].is_string());
    let refused = swarm
        .run(&["rollout", "restart", "fn/hello", "--pull"])
        .await;
    assert!(refused.err.contains("by digest"), "{}", refused.err);
    let run = swarm.run(&["rollout", "pause", "node/pi"]).await;
    assert_eq!(run.code, 2);
}

#[tokio::test]
async fn what_is_asked_of_a_rollout_names_it() {
    let swarm = swarm().await;
    let run = swarm.run(&["rollout", "promote", "fn/hello"]).await;
    run.expect(
        1,
        "",
        "error: no version of function.hive.dev/hello is being tried\n",
    );
    let run = swarm.run(&["rollout", "retry", "fn/hello"]).await;
    run.expect(
        1,
        "",
        "error: function.hive.dev/hello was not rolled back\n",
    );

    let mut function = live(&swarm);
    let steps = json!([{"setWeight": 10}, {"pause": {}}]);
    function["spec"]["strategy"] = json!({"type": "Canary", "canary": {"steps": steps}});
    function["status"]["rollout"] = json!({
        "phase": "Progressing", "observedGeneration": 3, "startTime": "2026-01-01T00:00:00Z",
        "canary": {"step": 0, "weight": 0},
    });
    swarm.fake.put(FUNCTION, function.clone());
    let run = swarm.run(&["rollout", "promote", "fn/hello"]).await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains("its copies are starting"), "{}", run.err);

    function["status"]["rollout"]["canary"]["step"] = json!(1);
    swarm.fake.put(FUNCTION, function.clone());
    let asked = || live(&swarm)["metadata"]["annotations"].clone();
    let run = swarm.run(&["rollout", "promote", "fn/hello"]).await;
    run.expect(0, "function.hive.dev/hello promoted\n", "");
    assert_eq!(asked()["hive.dev/promote"], "2026-01-01T00:00:00Z/1");
    let run = swarm
        .run(&["rollout", "promote", "fn/hello", "--full"])
        .await;
    run.expect(0, "function.hive.dev/hello fully promoted\n", "");
    assert_eq!(asked()["hive.dev/promote"], "2026-01-01T00:00:00Z/full");

    function["status"]["rollout"] = json!({
        "phase": "RolledBack", "observedGeneration": 3, "phaseTime": "2026-01-01T00:00:09Z",
    });
    swarm.fake.put(FUNCTION, function);
    let run = swarm.run(&["rollout", "retry", "fn/hello"]).await;
    run.expect(0, "function.hive.dev/hello is rolled out once more\n", "");
    assert_eq!(asked()["hive.dev/retry"], "2026-01-01T00:00:09Z");
}

#[tokio::test]
async fn a_version_that_is_stuck_ends_the_waiting() {
    let swarm = swarm().await;
    let run = swarm.run(&["rollout", "status", "fn/hello"]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err
            .contains("the newest version of function \"hello\" does not run"),
        "{}",
        run.err
    );
    let run = swarm.run(&["describe", "fn", "hello"]).await;
    let sentence = "no copy went over to revision 4 for 600 s: 1 of 5 copies run the newest spec";
    assert!(run.out.contains(sentence), "{}", run.out);
}
