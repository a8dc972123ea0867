//! get, describe, events, explain and top.

use serde_json::json;

use crate::harness::Swarm;

async fn swarm() -> Swarm {
    let swarm = Swarm::start().await;
    for (namespace, name, replicas) in [
        ("default", "hello", 2),
        ("default", "aux", 10),
        ("prod", "shop", 1),
    ] {
        swarm.fake.put(
            &format!("/apis/hive.dev/v1/namespaces/{namespace}/functions/{name}"),
            json!({"apiVersion": "hive.dev/v1", "kind": "Function",
                   "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
                   "spec": {"replicas": replicas, "artifact": {"sha256": "ab"}},
                   "status": {"ready": format!("1/{replicas}"), "url": format!("http://{name}"), "conditions": [
                       {"type": "Available", "status": "True", "reason": "Ready", "message": "all copies are ready"}]}}),
        );
    }
    swarm.fake.put(
        "/apis/hive.dev/v1/nodes/pi",
        json!({"apiVersion": "hive.dev/v1", "kind": "Node", "metadata": {"name": "pi"},
               "spec": {"key": "k"}, "status": {"ready": "True", "allocatable": {"cpu": "1000m", "memory": "512Mi"}}}),
    );
    swarm
}

#[tokio::test]
async fn tables_read_as_kubectls() {
    let swarm = swarm().await;
    let table = [
        (
            &["get", "functions"][..],
            "NAME    READY   AGE\naux     1/10    5m12s\nhello   1/2     5m12s\n",
        ),
        (
            &["get", "fn", "hello", "-o", "wide", "--no-headers"],
            "hello   1/2   http://hello   5m12s\n",
        ),
        (
            &["get", "fn", "-A"],
            "NAMESPACE   NAME    READY   AGE\ndefault     aux     1/10    5m12s\ndefault     hello   1/2     5m12s\nprod        shop    1/1     5m12s\n",
        ),
        (
            &["get", "fn", "-l", "app=aux", "--show-labels"],
            "NAME   READY   AGE     LABELS\naux    1/10    5m12s   app=aux\n",
        ),
        (
            &["get", "fn/hello", "no/pi"],
            "NAME                      READY   AGE\nfunction.hive.dev/hello   1/2     5m12s\n\nNAME               READY   AGE\nnode.hive.dev/pi   True    5m12s\n",
        ),
        (
            &["get", "fn", "--sort-by=.spec.replicas"],
            "NAME    READY   AGE\nhello   1/2     5m12s\naux     1/10    5m12s\n",
        ),
        (
            &["get", "fn", "-o", "name"],
            "function.hive.dev/aux\nfunction.hive.dev/hello\n",
        ),
        (
            &[
                "get",
                "fn",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}={.spec.replicas}{\"\\n\"}{end}",
            ],
            "aux=10\nhello=2\n",
        ),
        (
            &["get", "fn", "hello", "-o", "jsonpath={.status.url}"],
            "http://hello",
        ),
        (
            &[
                "get",
                "fn",
                "-o",
                "custom-columns=NAME:.metadata.name,N:.spec.replicas",
            ],
            "NAME    N\naux     10\nhello   2\n",
        ),
        (
            &["get", "all", "-n", "prod"],
            "NAME                     READY   AGE\nfunction.hive.dev/shop   1/1     5m12s\n",
        ),
    ];
    for (arguments, expected) in table {
        let run = swarm.run(arguments).await;
        assert_eq!(
            (run.code, run.out.as_str()),
            (0, expected),
            "{arguments:?}: {}",
            run.err
        );
    }
    let run = swarm.run(&["get", "fn", "hello", "-o", "yaml"]).await;
    assert!(
        run.out
            .starts_with("apiVersion: hive.dev/v1\nkind: Function\n"),
        "{}",
        run.out
    );
    let run = swarm.run(&["get", "fn", "-o", "json"]).await;
    let list: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (&list["kind"], list["items"].as_array().unwrap().len()),
        (&json!("List"), 2)
    );
}

#[tokio::test]
async fn nothing_and_wrong_names_are_said() {
    let swarm = swarm().await;
    swarm.run(&["get", "secrets"]).await.expect(
        0,
        "",
        "No resources found in default namespace.\n",
    );
    swarm.run(&["get", "fn", "helo", "aux"]).await.expect(
        1,
        "NAME   READY   AGE\naux    1/10    5m12s\n",
        "Error from server (NotFound): functions.hive.dev \"helo\" not found\n  did you mean \"hello\"?\n",
    );
    swarm.run(&["get", "functons"]).await.expect(
        2,
        "",
        "error: the server doesn't have a resource type \"functons\"; did you mean \"functions\"?\n",
    );
    swarm
        .run(&["get", "fn", "nothere", "--ignore-not-found"])
        .await
        .expect(0, "", "");
    let run = swarm.run(&["get", "fn", "-o", "yml"]).await;
    assert_eq!(run.code, 2);
    assert!(run.err.contains("did you mean \"yaml\"?"), "{}", run.err);
    let run = swarm.run(&["get", "fn", "--no-header"]).await;
    assert_eq!(run.code, 2);
    assert!(run.err.contains("--no-headers"), "{}", run.err);
}

#[tokio::test]
async fn a_watch_prints_rows_as_they_change() {
    let swarm = swarm().await;
    let running = swarm.begin(&["get", "fn", "-w"], "");
    running.out.contains("hello   1/2     5m12s\n").await;
    let path = "/apis/hive.dev/v1/namespaces/default/functions/hello";
    swarm
        .fake
        .edit(path, |object| object["status"]["ready"] = "2/2".into());
    running.out.contains("hello   2/2     5m12s\n").await;
    running.interrupt();

    let running = swarm.begin(
        &["get", "fn", "hello", "-w", "-o", "jsonpath={.status.ready}"],
        "",
    );
    running.out.contains("2/2").await;
    swarm
        .fake
        .edit(path, |object| object["status"]["ready"] = "0/2".into());
    running.out.contains("0/2").await;
    running.interrupt();
}

#[tokio::test]
async fn a_description_shows_what_belongs_to_the_object() {
    let swarm = swarm().await;
    swarm.fake.put(
        "/apis/hive.dev/v1/namespaces/default/assignments/hello-0",
        json!({"metadata": {"name": "hello-0", "namespace": "default"},
               "spec": {"functionName": "hello", "nodeName": "pi", "functionGeneration": 1},
               "status": {"phase": "Ready"}}),
    );
    swarm.fake.put(
        "/api/v1/namespaces/default/events/e1",
        json!({"metadata": {"name": "e1", "namespace": "default"}, "type": "Warning", "reason": "Trap",
               "message": "unreachable\u{1b}[2J", "lastTimestamp": "2026-01-01T00:00:00Z",
               "involvedObject": {"kind": "Function", "name": "hello", "namespace": "default"}}),
    );
    let run = swarm.run(&["describe", "fn", "hello"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    for part in [
        "Name:            hello\n",
        "Status:          Not ready: the controllers have not looked at it yet\n",
        "URL:             http://hello\n",
        "  Available   True",
        "  hello-0   pi     1            Ready",
        "Warning   Trap",
        "unreachable\\u{1b}[2J",
    ] {
        assert!(
            run.out.contains(part),
            "{part:?} is missing in\n{}",
            run.out
        );
    }
    assert!(!run.out.contains("Schedules"), "{}", run.out);

    swarm.fake.put(
        "/apis/hive.dev/v1/namespaces/default/functions/clock",
        json!({"apiVersion": "hive.dev/v1", "kind": "Function",
               "metadata": {"name": "clock", "namespace": "default"},
               "spec": {"artifact": {"sha256": "ab"}, "queueTimeout": "0s",
                        "limits": {"cpuTime": "2s"},
                        "instances": {"reuse": "Serial", "maxRequests": 64},
                        "schedules": [
                            {"name": "nightly", "schedule": "0 3 * * *", "timeZone": "Europe/Berlin"},
                            {"name": "held", "schedule": "@daily", "timeZone": "UTC", "suspend": true}]},
               "status": {"schedules": [
                   {"name": "nightly", "lastScheduleTime": "2026-01-02T02:00:00Z",
                    "lastSuccessfulTime": "2026-01-01T02:00:00Z"}]}}),
    );
    let run = swarm.run(&["describe", "fn", "clock"]).await;
    for part in [
        "Queue Timeout:   0s\n",
        "Cpu Time: 2s\n",
        "Instances:\n",
        "Reuse: Serial\n",
        "Max Requests: 64\n",
        "  nightly   0 3 * * *            Europe/Berlin   2026-01-02T02:00:00Z   2026-01-01T02:00:00Z",
        "  held      @daily (suspended)   UTC",
    ] {
        assert!(
            run.out.contains(part),
            "{part:?} is missing in\n{}",
            run.out
        );
    }

    let run = swarm.run(&["describe", "node/pi"]).await;
    assert!(
        run.out.contains("  default     hello      Ready"),
        "{}",
        run.out
    );
    let run = swarm
        .run(&["events", "--for", "fn/hello", "--types=warning"])
        .await;
    assert!(run.out.contains("function/hello"), "{}", run.out);
    let run = swarm.run(&["events", "--types=Normal"]).await;
    run.expect(0, "", "No events found in default namespace.\n");
}

#[tokio::test]
async fn explain_needs_no_server() {
    let swarm = Swarm::start().await;
    swarm.write_kubeconfig(&["http://127.0.0.1:1"]);
    let run = swarm.run(&["explain", "fn.spec.replicas"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("KIND:       Function\n"), "{}", run.out);
    assert!(
        run.out.contains("FIELD: replicas <integer>\n"),
        "{}",
        run.out
    );
    let run = swarm
        .run(&["explain", "function.spec", "--recursive"])
        .await;
    assert!(run.out.contains("secretKeyRef"), "{}", run.out);
    let run = swarm.run(&["explain", "function.spec.replica"]).await;
    assert_eq!(run.code, 2);
    assert!(
        run.err.starts_with(
            "error: function.spec has no field \"replica\"; did you mean \"replicas\"?\n"
        ),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn top_shows_what_is_used() {
    let swarm = swarm().await;
    swarm.run(&["top", "nodes"]).await.expect(
        0,
        "NAME   CPU(cores)   CPU%   MEMORY(bytes)   MEMORY%\npi     250m         25%    128Mi           25%\n",
        "",
    );
    swarm.run(&["top", "functions"]).await.expect(
        0,
        "NAME    NODES   REQ/S   ERR/S   P50     P99     CPU   MEMORY   HIGH   COLD\n\
         aux     1       0       0       -       -       0m    0Mi      0Mi    0\n\
         hello   2       1.50    0.25    870us   245ms   20m   64Mi     10Mi   2\n",
        "",
    );
    let sorted = [
        "top",
        "functions",
        "--totals",
        "--no-headers",
        "--sort-by=requests",
    ];
    swarm.run(&sorted).await.expect(
        0,
        "hello   2     10    1     3     1.2s   64Mi\n\
         aux     1     0     0     0     0.0s   0Mi\n",
        "",
    );
}

#[tokio::test]
async fn usage_is_shown_as_the_server_lays_it_out() {
    let swarm = swarm().await;
    swarm.run(&["usage", "functions", "-A"]).await.expect(
        0,
        "NAMESPACE   NAME    REQUESTS\ndefault     hello   10\n",
        "",
    );
    let one = ["usage", "ns", "default", "-o", "jsonpath={.gbSeconds}"];
    swarm.run(&one).await.expect(0, "2.5", "");
}

#[tokio::test]
async fn who_owns_which_field_is_shown_when_asked_for() {
    let swarm = Swarm::start().await;
    swarm.fake.put(
        "/api/v1/namespaces/default/configmaps/c",
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "c", "namespace": "default", "managedFields": [{"manager": "ann"}]},
        }),
    );
    let run = swarm.run(&["get", "configmap/c", "-o", "yaml"]).await;
    assert!(!run.out.contains("managedFields"), "{}", run.out);
    let run = swarm.run(&["get", "configmaps", "-o", "json"]).await;
    assert!(!run.out.contains("managedFields"), "{}", run.out);
    let run = swarm
        .run(&["get", "configmap/c", "-o", "yaml", "--show-managed-fields"])
        .await;
    assert!(run.out.contains("manager: ann"), "{}", run.out);
}
