//! Commands that change or follow objects: scale, label, wait, drain, rollout status, logs, invoke.

use serde_json::json;

use crate::harness::Swarm;

const FUNCTION: &str = "/apis/hive.dev/v1/namespaces/default/functions/hello";
const NODE: &str = "/apis/hive.dev/v1/nodes/pi";

/// Of what never comes: long enough to be looked for once, where a machine is held up meanwhile.
const LATER: &str = "--timeout=5s";

async fn swarm() -> Swarm {
    let swarm = Swarm::start().await;
    swarm.fake.put(
        FUNCTION,
        json!({"apiVersion": "hive.dev/v1", "kind": "Function",
               "metadata": {"name": "hello", "namespace": "default", "generation": 1},
               "spec": {"replicas": 2}}),
    );
    swarm.fake.put(
        NODE,
        json!({"apiVersion": "hive.dev/v1", "kind": "Node", "metadata": {"name": "pi"}, "spec": {"key": "k"}}),
    );
    swarm
}

#[tokio::test]
async fn scale_changes_replicas_if_they_are_as_expected() {
    let swarm = swarm().await;
    let run = swarm.run(&["scale", "fn/hello", "--replicas=5"]).await;
    run.expect(0, "function.hive.dev/hello scaled\n", "");
    assert_eq!(swarm.fake.object(FUNCTION).unwrap()["spec"]["replicas"], 5);
    let run = swarm
        .run(&["scale", "hello", "--current-replicas=2", "--replicas=7"])
        .await;
    assert_eq!(run.code, 1);
    assert!(
        run.err.contains("asks for 5 replicas, not for 2"),
        "{}",
        run.err
    );
    let run = swarm.run(&["scale", "node/pi", "--replicas=5"]).await;
    assert_eq!(run.code, 2);
}

#[tokio::test]
async fn a_function_that_scales_by_itself_is_held_and_released() {
    let swarm = swarm().await;
    let run = swarm.run(&["scale", "fn/hello", "--release"]).await;
    run.expect(
        1,
        "",
        "error: function.hive.dev/hello has no spec.autoscaling to be released to: say how many with --replicas\n",
    );
    swarm.fake.put(
        FUNCTION,
        json!({"apiVersion": "hive.dev/v1", "kind": "Function",
        "metadata": {"name": "hello", "namespace": "default", "generation": 1},
        "spec": {"autoscaling": {"minReplicas": 2, "maxReplicas": 4}},
        "status": {"replicas": 4, "conditions": [
            {"type": "ScalingActive", "status": "True", "message": "it scales"},
            {"type": "ScalingLimited", "status": "True", "message": "all four are busy"},
        ]}}),
    );
    let run = swarm
        .run(&["scale", "fn/hello", "--current-replicas=4", "--replicas=5"])
        .await;
    run.expect(0, "function.hive.dev/hello scaled\n", "");
    assert_eq!(swarm.fake.object(FUNCTION).unwrap()["spec"]["replicas"], 5);
    let run = swarm.run(&["scale", "fn/hello", "--release"]).await;
    run.expect(0, "function.hive.dev/hello released\n", "");
    let spec = swarm.fake.object(FUNCTION).unwrap()["spec"].clone();
    assert_eq!(spec.get("replicas"), None, "{spec}");
    let run = swarm.run(&["describe", "fn", "hello"]).await;
    assert!(run.out.contains("4 wanted"), "{}", run.out);
    let scaling = "2 to 4 copies: all four are busy";
    assert!(run.out.contains(scaling), "{}", run.out);
    for usage in [&["--release", "--replicas=1"][..], &[]] {
        let run = swarm.run(&[&["scale", "fn/hello"], usage].concat()).await;
        assert_eq!(run.code, 2, "{usage:?}");
    }
}

#[tokio::test]
async fn labels_and_annotations_are_set_and_removed() {
    let swarm = swarm().await;
    let run = swarm
        .run(&["label", "node", "pi", "zone=attic", "old-"])
        .await;
    run.expect(0, "node.hive.dev/pi labeled\n", "");
    let run = swarm.run(&["label", "no/pi", "zone=cellar"]).await;
    run.expect(
        1,
        "",
        "error: node.hive.dev/pi: zone is \"attic\" already; --overwrite replaces it by \"cellar\"\n",
    );
    let run = swarm
        .run(&["label", "no", "--all", "zone=cellar", "--overwrite"])
        .await;
    run.expect(0, "node.hive.dev/pi labeled\n", "");
    let run = swarm.run(&["label", "no", "pi", "zone-"]).await;
    run.expect(0, "node.hive.dev/pi labeled\n", "");
    assert_eq!(
        swarm.fake.object(NODE).unwrap()["metadata"]["labels"],
        json!({})
    );
    let run = swarm.run(&["annotate", "fn", "hello", "team=web"]).await;
    run.expect(0, "function.hive.dev/hello annotated\n", "");
}

#[tokio::test]
async fn wait_returns_when_it_is_so_or_says_what_is() {
    let swarm = swarm().await;
    let running = swarm.begin(&["wait", "--for=condition=Available", "fn/hello"], "");
    swarm.fake.edit(FUNCTION, |object| {
        object["status"]["conditions"] =
            json!([{"type": "Available", "status": "True", "reason": "Ready"}]);
    });
    running
        .end()
        .await
        .expect(0, "function.hive.dev/hello condition met\n", "");

    let run = swarm
        .run(&["wait", "--for=condition=Avialable", "fn/hello", LATER])
        .await;
    run.expect(
        1,
        "",
        "error: timed out waiting for the condition on functions/hello\n  its conditions are: Available=True\n  did you mean condition=Available?\n",
    );

    let running = swarm.begin(&["wait", "--for=delete", "fn", "hello"], "");
    swarm.fake.remove(FUNCTION);
    running
        .end()
        .await
        .expect(0, "function.hive.dev/hello condition met\n", "");
    let run = swarm
        .run(&["wait", "--for=condition=Ready", "fn/hello"])
        .await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains("not found"), "{}", run.err);
}

#[tokio::test]
async fn a_rollout_is_followed_to_its_end() {
    let swarm = swarm().await;
    let running = swarm.begin(&["rollout", "status", "fn/hello"], "");
    running.out.contains("not been seen").await;
    for (reason, message) in [("RollingUpdate", "1 of 2 copies"), ("Ready", "all")] {
        swarm.fake.edit(FUNCTION, |object| {
            object["status"] = json!({"observedGeneration": 1, "conditions": [
                {"type": "Available", "status": "True", "reason": reason, "message": message}]});
        });
    }
    let run = running.end().await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out
            .ends_with("function \"hello\" successfully rolled out\n"),
        "{}",
        run.out
    );
}

#[tokio::test]
async fn a_drain_waits_until_the_work_is_gone_and_uncordon_takes_it_back() {
    let swarm = swarm().await;
    swarm.fake.edit(NODE, |node| {
        node["spec"]["taints"] = json!([{"key": "mine", "effect": "NoSchedule"}]);
    });
    let assignment = "/apis/hive.dev/v1/namespaces/default/assignments/hello-0";
    swarm.fake.put(
        assignment,
        json!({"metadata": {"name": "hello-0", "namespace": "default"},
               "spec": {"nodeName": "pi", "functionName": "hello"}}),
    );
    let running = swarm.begin(&["drain", "pi"], "");
    running.out.contains("cordoned").await;
    swarm.fake.remove(assignment);
    let run = running.end().await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        run.out
            .ends_with("copy default/hello-0 leaves\nnode.hive.dev/pi drained: 1 copy ended\n"),
        "{}",
        run.out
    );
    let spec = swarm.fake.object(NODE).unwrap()["spec"].clone();
    assert_eq!(spec["unschedulable"], true);
    assert_eq!(
        spec["taints"],
        json!([{"key": "mine", "effect": "NoSchedule"}, {"key": "node.hive.dev/drain", "effect": "NoExecute"}])
    );
    let run = swarm.run(&["uncordon", "pi"]).await;
    run.expect(0, "node.hive.dev/pi uncordoned\n", "");
    let spec = swarm.fake.object(NODE).unwrap()["spec"].clone();
    assert_eq!(spec.get("unschedulable"), None);
    assert_eq!(
        spec["taints"],
        json!([{"key": "mine", "effect": "NoSchedule"}])
    );
    let run = swarm.run(&["uncordon", "node/pi"]).await;
    run.expect(0, "node.hive.dev/pi already uncordoned\n", "");
}

#[tokio::test]
async fn a_drain_that_cannot_end_says_what_is_left() {
    let swarm = swarm().await;
    swarm.fake.put(
        "/apis/hive.dev/v1/namespaces/default/assignments/hello-0",
        json!({"metadata": {"name": "hello-0", "namespace": "default"},
               "spec": {"nodeName": "pi", "functionName": "hello"}}),
    );
    let run = swarm.run(&["drain", "pi", LATER]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err.starts_with(
            "error: timed out draining node.hive.dev/pi: still there: default/hello\n"
        ),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn of_several_nodes_that_are_drained_each_is_looked_at() {
    let swarm = swarm().await;
    swarm.fake.put(
        "/apis/hive.dev/v1/nodes/spare",
        json!({"apiVersion": "hive.dev/v1", "kind": "Node", "metadata": {"name": "spare"}, "spec": {"key": "k"}}),
    );
    swarm.fake.put(
        "/apis/hive.dev/v1/namespaces/default/assignments/hello-0",
        json!({"metadata": {"name": "hello-0", "namespace": "default"},
               "spec": {"nodeName": "pi", "functionName": "hello"}}),
    );
    // The first one takes all the time.
    let run = swarm.run(&["drain", "pi", "spare", "--timeout=1s"]).await;
    assert_eq!(run.code, 1);
    let left = "timed out draining node.hive.dev/pi: still there: default/hello\n";
    assert!(run.err.contains(left), "{}", run.err);
    assert!(!run.err.contains("spare"), "{}", run.err);
    let done = "node.hive.dev/spare drained: nothing was there to move\n";
    assert!(run.out.ends_with(done), "{}", run.out);
}

#[tokio::test]
async fn a_drain_tells_what_stays_and_what_keeps_it_waiting() {
    let swarm = swarm().await;
    let copy = |name: &str, function: &str| {
        let path = format!("/apis/hive.dev/v1/namespaces/default/assignments/{name}");
        let object = json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": "pi", "functionName": function}});
        swarm.fake.put(&path, object);
        path
    };
    let waits = copy("hello-0", "hello");
    copy("log-pi", "log");
    swarm.fake.put(
        "/apis/hive.dev/v1/namespaces/default/functions/log",
        json!({"metadata": {"name": "log", "namespace": "default"},
               "spec": {"artifact": {"sha256": "00"}, "tolerations": [{"operator": "Exists"}]}}),
    );
    swarm.fake.edit(FUNCTION, |object| {
        object["status"] = json!({"conditions": [{"type": "Ready", "status": "False",
            "reason": "Unschedulable", "message": "0/1 nodes fit: 1 cordoned"}]});
    });
    let running = swarm.begin(&["drain", "pi", "--force"], "");
    running.out.contains("no node can take").await;
    swarm
        .fake
        .edit(&waits, |copy| copy["spec"]["nodeName"] = json!("other"));
    let run = running.end().await;
    run.expect(
        0,
        "node.hive.dev/pi cordoned\n\
         function default/log stays: it tolerates the drain\n\
         no node can take default/hello: 0/1 nodes fit: 1 cordoned\n\
         copy default/hello-0 leaves\n\
         node.hive.dev/pi drained: 1 copy moved\n",
        "",
    );
    assert_eq!(
        swarm.fake.object(NODE).unwrap()["spec"]["taints"],
        json!([{"key": "node.hive.dev/drain", "value": "force", "effect": "NoExecute"}])
    );
}

#[tokio::test]
async fn logs_ask_for_what_was_asked() {
    let swarm = swarm().await;
    let run = swarm
        .run(&[
            "logs",
            "hello",
            "--tail=5",
            "--since=1500ms",
            "--timestamps",
            "--prefix",
        ])
        .await;
    run.expect(
        0,
        "the log {\"prefix\": \"true\", \"sinceSeconds\": \"2\", \"tailLines\": \"5\", \"timestamps\": \"true\"}\n",
        "",
    );
    let run = swarm
        .run(&[
            "logs",
            "hello",
            "-p",
            "--request-id=a-1",
            "--since-time=2026-01-31T19:00:00+01:00",
            "--request-ids",
        ])
        .await;
    run.expect(
        0,
        "the log {\"previous\": \"true\", \"requestId\": \"a-1\", \"requestIds\": \"true\", \
         \"sinceTime\": \"2026-01-31T18:00:00Z\"}\n",
        "",
    );
    for refused in [
        &["logs", "node/pi"][..],
        &["logs", "hello", "-p", "-f"],
        &[
            "logs",
            "hello",
            "--since=1s",
            "--since-time=2026-01-31T18:00:00Z",
        ],
        &["logs", "hello", "--since-time=yesterday"],
    ] {
        assert_eq!(swarm.run(refused).await.code, 2, "{refused:?}");
    }
}

#[tokio::test]
async fn invoke_sends_a_request_through_the_api() {
    let swarm = swarm().await;
    let run = swarm.run(&["invoke", "hello", "--path", "/greet"]).await;
    run.expect(0, "GET /greet \n", "");
    let run = swarm
        .run_with(&["invoke", "fn/hello", "--data", "@-"], "body")
        .await;
    run.expect(0, "POST / body\n", "");
    let run = swarm
        .run(&["invoke", "hello", "--path", "/fail", "-i"])
        .await;
    assert_eq!(run.code, 1);
    assert!(
        run.out.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{}",
        run.out
    );
    let run = swarm.run(&["invoke", "helo"]).await;
    run.expect(
        1,
        "",
        "Error from server (NotFound): functions.hive.dev \"helo\" not found\n  did you mean \"hello\"?\n",
    );
    let run = swarm
        .run(&["invoke", "hello", "-H", "authorization: x"])
        .await;
    assert_eq!(run.code, 2);
}

#[cfg(unix)]
#[tokio::test]
async fn edit_sends_what_was_changed_in_the_editor() {
    let swarm = swarm().await;
    let config = "/api/v1/namespaces/default/configmaps/settings";
    swarm.fake.put(
        config,
        json!({"apiVersion": "v1", "kind": "ConfigMap",
               "metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "b"}}),
    );
    // Read by a shell: a file that another thread's child may have open for writing still is not run.
    let editor = swarm.file("editor", "sed -i 's/a: b/a: c/' \"$1\"\n");
    let editor = format!("sh {editor}");
    let run = swarm.run_edit(&editor, &["edit", "cm/settings"]).await;
    run.expect(0, "configmap/settings edited\n", "");
    assert_eq!(swarm.fake.object(config).unwrap()["data"]["a"], "c");
    let run = swarm.run_edit("true", &["edit", "cm/settings"]).await;
    run.expect(0, "", "Edit cancelled, no changes made.\n");
}
