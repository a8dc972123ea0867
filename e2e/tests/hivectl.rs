//! hivectl on a live swarm: what a person does in a day, from apply to delete.
#![allow(clippy::unwrap_used)]

use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, guests};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::test(flavor = "multi_thread")]
async fn a_day_with_hivectl() {
    let mut swarm = Swarm::builder().controllers(1).agents(2).start().await;
    let mut steps = Steps::new();
    steps
        .run("apply, again, and with a change", apply(&mut swarm))
        .await;
    steps.run("get and describe", get(&swarm)).await;
    steps.run("diff and dry run", diff(&swarm)).await;
    steps
        .run("scale, wait and rollout", scale(&mut swarm))
        .await;
    steps.run("invoke and top", top(&swarm)).await;
    steps.run("logs, followed", logs(&swarm)).await;
    steps.run("label and annotate", label(&swarm)).await;
    steps.run("prune", prune(&swarm)).await;
    steps
        .run("a mistake suggests the nearest name", mistakes(&swarm))
        .await;
    steps.run("delete", delete(&swarm)).await;
    steps.finish();
}

async fn apply(swarm: &mut Swarm) {
    let spec = json!({ "replicas": 1, "env": [{ "name": "GREETING", "value": "Good day" }] });
    let path = swarm.manifest("hello", &guests::hello(), spec);
    let path = path.to_str().unwrap();
    let first = swarm.ctl(&["apply", "-f", path, "--wait"]).await;
    assert!(
        first.ok().contains("function.hive.dev/hello created"),
        "{first}"
    );
    swarm.function_ready("hello").await;
    assert!(
        swarm
            .invoke("hello", "/")
            .await
            .text()
            .starts_with("Good day from hello")
    );

    let again = swarm.ctl(&["apply", "-f", path]).await;
    assert!(again.ok().contains("unchanged"), "{again}");
    assert!(
        !again.stderr.contains("uploading"),
        "uploaded twice: {again}"
    );

    let spec = json!({ "replicas": 1, "env": [{ "name": "GREETING", "value": "Good night" }] });
    swarm.manifest("hello", &guests::hello(), spec);
    let input = std::fs::read_to_string(path).unwrap();
    let changed = swarm.ctl(&["apply", "-f", path]).await;
    assert!(changed.ok().contains("configured"), "{changed}");
    until("the change is served", PATIENCE, async || {
        let text = swarm.invoke("hello", "/").await.text();
        holds(text.starts_with("Good night from hello"), text)
    })
    .await;

    // From standard input there is no directory: a path would be of nothing.
    let digest: Value =
        serde_json::from_str(swarm.ctl(&["get", "fn", "hello", "-o", "json"]).await.ok()).unwrap();
    let piped = input
        .replace(
            r#""path":"hello.wasm""#,
            &format!(r#""sha256":{}"#, digest["spec"]["artifact"]["sha256"]),
        )
        .replace(r#""name":"hello""#, r#""name":"piped""#);
    let output = swarm
        .ctl
        .run_with_input(&["apply", "-f", "-"], &piped)
        .await;
    assert!(
        output.ok().contains("function.hive.dev/piped created"),
        "{output}"
    );
    swarm.function_ready("piped").await;
}

async fn get(swarm: &Swarm) {
    let table = swarm.ctl(&["get", "functions,nodes"]).await;
    for part in [
        "READY",
        "URL",
        "function.hive.dev/hello",
        "1/1",
        "node.hive.dev/node-1",
        "Ready",
    ] {
        assert!(table.ok().contains(part), "{part}: {table}");
    }
    let wide = swarm.ctl(&["get", "fn", "-o", "wide"]).await;
    assert!(wide.ok().contains("ARTIFACT"), "{wide}");
    let names = swarm.ctl(&["get", "fn", "-o", "name"]).await;
    assert_eq!(
        names.ok(),
        "function.hive.dev/hello\nfunction.hive.dev/piped\n"
    );
    let path = swarm
        .ctl(&["get", "fn", "hello", "-o", "jsonpath={.status.ready}"])
        .await;
    assert_eq!(path.ok(), "1/1");
    let yaml = swarm.ctl(&["get", "fn", "hello", "-o", "yaml"]).await;
    assert!(yaml.ok().contains("kind: Function"), "{yaml}");
    // What is served is told of a moment later, and events after that.
    until("all is told of it", PATIENCE, async || {
        let described = swarm.ctl(&["describe", "function", "hello"]).await;
        let parts = [
            "Name:",
            "Status:          Ready: all copies are ready\n",
            "Conditions:",
            "Assignments:",
            "hello.0",
            "Events:",
            "Serving",
        ];
        let missing = parts.iter().find(|part| !described.ok().contains(**part));
        holds(missing.is_none(), format!("{missing:?}: {described}"))
    })
    .await;
    let all = swarm.ctl(&["get", "cm", "-A"]).await;
    assert!(all.ok().contains("hive-system"), "{all}");
}

async fn diff(swarm: &Swarm) {
    let path = swarm.path().join("hello.yaml");
    let path = path.to_str().unwrap();
    let same = swarm.ctl(&["diff", "-f", path]).await;
    assert_eq!((same.ok(), same.code), ("", 0), "{same}");
    let changed = std::fs::read_to_string(path)
        .unwrap()
        .replace("Good night", "Good morning");
    std::fs::write(path, changed).unwrap();
    let different = swarm.ctl(&["diff", "-f", path]).await;
    assert_eq!(different.code, 1, "{different}");
    assert!(
        different.stdout.contains("Good night") && different.stdout.contains("Good morning"),
        "{different}"
    );
    let dry = swarm.ctl(&["apply", "-f", path, "--dry-run=server"]).await;
    assert!(dry.ok().contains("dry run"), "{dry}");
    assert!(
        swarm
            .invoke("hello", "/")
            .await
            .text()
            .starts_with("Good night")
    );
}

async fn scale(swarm: &mut Swarm) {
    swarm
        .ctl(&["scale", "function/hello", "--replicas=2"])
        .await
        .ok();
    swarm
        .ctl(&[
            "wait",
            "function/hello",
            "--for=jsonpath={.status.readyReplicas}=2",
            "--timeout=180s",
        ])
        .await
        .ok();
    let nodes = swarm
        .ctl(&["get", "assignments", "-l", "hive.dev/function=hello"])
        .await;
    assert!(
        nodes.ok().contains("node-1") && nodes.stdout.contains("node-2"),
        "{nodes}"
    );
    let available = swarm
        .ctl(&[
            "wait",
            "function/hello",
            "--for=condition=Available",
            "--timeout=180s",
        ])
        .await;
    assert!(available.ok().contains("condition met"), "{available}");
    swarm
        .ctl(&["rollout", "status", "function/hello"])
        .await
        .ok();
    swarm
        .ctl(&["scale", "function/piped", "--replicas=0"])
        .await
        .ok();
    swarm
        .ctl(&[
            "wait",
            "assignment/piped.0",
            "--for=delete",
            "--timeout=180s",
        ])
        .await
        .ok();
    let never = swarm
        .ctl(&[
            "wait",
            "function/hello",
            "--for=condition=Sleeping",
            "--timeout=1s",
        ])
        .await;
    never.fails(&["timed out"]);
}

async fn top(swarm: &Swarm) {
    let output = swarm.ctl(&["invoke", "hello"]).await;
    assert!(output.ok().contains("from hello"), "{output}");
    until("top has heard of the nodes", PATIENCE, async || {
        let nodes = swarm.ctl(&["top", "nodes"]).await;
        holds(nodes.code == 0 && nodes.stdout.contains("node-2"), nodes)
    })
    .await;
    // A node tells of its functions four times a minute: what it told last may be from before this one.
    until("top has heard of the function", PATIENCE, async || {
        let functions = swarm.ctl(&["top", "functions"]).await;
        holds(functions.ok().contains("hello"), functions)
    })
    .await;
}

async fn logs(swarm: &Swarm) {
    let mut follow = swarm
        .ctl
        .spawn(&["logs", "-f", "function/hello", "--prefix"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let reading = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("/followed") {
                return line;
            }
        }
        panic!("the log ended");
    };
    let asking = async {
        until("the request is in the log", PATIENCE, async || {
            swarm.invoke("hello", "/followed").await;
            Err::<(), _>("not yet")
        })
        .await
    };
    let line = tokio::select! {
        line = reading => line,
        () = asking => unreachable!("it never ends well"),
    };
    assert!(line.starts_with("[hello."), "no copy before {line:?}");
    follow.kill().await.unwrap();
    let last = swarm.ctl(&["logs", "function/hello", "--tail=1"]).await;
    // One line of each of two nodes at most.
    assert!((1..=2).contains(&last.ok().lines().count()), "{last}");
}

async fn label(swarm: &Swarm) {
    swarm
        .ctl(&["label", "node", "node-1", "disk=ssd"])
        .await
        .ok();
    let labelled = swarm
        .ctl(&["get", "nodes", "-l", "disk=ssd", "-o", "name"])
        .await;
    assert_eq!(labelled.ok(), "node.hive.dev/node-1\n");
    swarm
        .ctl(&["annotate", "function", "hello", "note=by hand"])
        .await
        .ok();
    let note = swarm
        .ctl(&[
            "get",
            "fn",
            "hello",
            "-o",
            "jsonpath={.metadata.annotations.note}",
        ])
        .await;
    assert_eq!(note.ok(), "by hand");
}

async fn prune(swarm: &Swarm) {
    let map = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": { "name": name, "labels": { "app": "shop" } },
            "data": { "a": "b" },
        })
    };
    let dir = swarm.path().join("shop");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("one.json"), map("one").to_string()).unwrap();
    std::fs::write(dir.join("two.json"), map("two").to_string()).unwrap();
    let dir_text = dir.to_str().unwrap();
    swarm.ctl(&["apply", "-f", dir_text]).await.ok();
    std::fs::remove_file(dir.join("two.json")).unwrap();
    let pruned = swarm
        .ctl(&["apply", "-f", dir_text, "--prune", "-l", "app=shop"])
        .await;
    assert!(pruned.ok().contains("configmap/two pruned"), "{pruned}");
    let left = swarm
        .ctl(&["get", "cm", "-l", "app=shop", "-o", "name"])
        .await;
    assert_eq!(left.ok(), "configmap/one\n");
}

async fn mistakes(swarm: &Swarm) {
    swarm
        .ctl(&["get", "functoins"])
        .await
        .fails(&["functoins", "functions"]);
    swarm
        .ctl(&["get", "fn", "absent"])
        .await
        .fails(&["absent", "not found"]);
    swarm.ctl(&["scael", "fn/hello"]).await.fails(&["scale"]);
}

async fn delete(swarm: &Swarm) {
    let deleted = swarm.ctl(&["delete", "function", "hello", "piped"]).await;
    assert!(
        deleted.ok().contains("hello") && deleted.stdout.contains("deleted"),
        "{deleted}"
    );
    swarm
        .ctl(&["get", "fn", "hello"])
        .await
        .fails(&["not found"]);
    until("nothing answers any more", PATIENCE, async || {
        let status = swarm.invoke("hello", "/").await.status;
        holds(status == 404, status)
    })
    .await;
    // The ingress needs the function for its answer; the scheduler takes its copies back after that.
    until("no copy of it is left", PATIENCE, async || {
        let left = swarm.ctl(&["get", "assignments"]).await;
        holds(!left.ok().contains("hello"), left)
    })
    .await;
}
