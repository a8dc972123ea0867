//! apply, diff and delete.

use axum::http::Method;
use serde_json::json;

use crate::harness::Swarm;

const FUNCTION: &str = "/apis/hive.dev/v1/namespaces/default/functions/hello";
const CONFIG_MAP: &str = "/api/v1/namespaces/default/configmaps/settings";

fn function(extra: &str) -> String {
    format!(
        "apiVersion: hive.dev/v1\nkind: Function\nmetadata:\n  name: hello\n  labels: {{app: shop}}\nspec:\n  artifact:\n    path: hello.wasm\n{extra}"
    )
}

fn config_map(name: &str, data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels: {{app: shop}}\ndata:\n{data}"
    )
}

#[tokio::test]
async fn a_function_is_created_configured_and_left_alone() {
    let swarm = Swarm::start().await;
    swarm.file("hello.wasm", b"\0asm component");
    let file = swarm.file(
        "function.yaml",
        function("  replicas: 1\n  concurrency: 5\n"),
    );

    let run = swarm.run(&["apply", "-f", &file]).await;
    let wasm = swarm.dir.path().join("hello.wasm");
    run.expect(
        0,
        "function.hive.dev/hello created\n",
        &format!("uploading {} (14 B)\n", wasm.display()),
    );
    let stored = swarm.fake.object(FUNCTION).unwrap();
    let sha256 = stored["spec"]["artifact"]["sha256"].as_str().unwrap();
    assert_eq!(sha256.len(), 64);
    assert!(stored["spec"]["artifact"]["path"].is_null());

    // The same again: nothing is uploaded, nothing is changed.
    swarm.fake.requests();
    let run = swarm.run(&["apply", "-f", &file]).await;
    run.expect(0, "function.hive.dev/hello unchanged\n", "");
    let requests = swarm.fake.requests();
    assert_eq!(
        requests,
        [
            format!("HEAD /apis/hive.dev/v1/artifacts/{sha256}"),
            format!("GET {FUNCTION}")
        ]
    );

    // One field changed, one removed; the server's and another writer's stay.
    swarm.fake.edit(FUNCTION, |object| {
        object["metadata"]["labels"]["others"] = "1".into();
    });
    swarm.file("function.yaml", function("  replicas: 3\n"));
    let run = swarm.run(&["apply", "-f", &file]).await;
    run.expect(0, "function.hive.dev/hello configured\n", "");
    let stored = swarm.fake.object(FUNCTION).unwrap();
    assert_eq!(stored["spec"]["replicas"], 3);
    assert_eq!(stored["spec"].get("concurrency"), None);
    assert_eq!(stored["spec"]["timeout"], "30s");
    assert_eq!(
        stored["metadata"]["labels"],
        json!({"app": "shop", "others": "1"})
    );
}

#[tokio::test]
async fn documents_from_stdin_are_applied_in_the_order_they_need() {
    let swarm = Swarm::start().await;
    let input = format!(
        "{}---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: prod}}\n",
        config_map("settings", "  a: b\n").replace("  name", "  namespace: prod\n  name")
    );
    let run = swarm.run_with(&["apply", "-f", "-"], &input).await;
    run.expect(
        0,
        "namespace/prod created\nconfigmap/settings created\n",
        "",
    );
}

#[tokio::test]
async fn all_mistakes_are_shown_with_their_lines_and_nothing_is_sent() {
    let swarm = Swarm::start().await;
    let bad = swarm.file("bad.yaml", function("  replica: 3\n  concurrency: many\n"));
    let good = swarm.file("good.yaml", config_map("settings", "  a: b\n"));
    let run = swarm.run(&["apply", "-f", &good, "-f", &bad]).await;
    assert_eq!((run.code, run.out.as_str()), (1, ""));
    assert!(
        run.err.contains(&format!(
            "error: {bad}:9: spec.replica: unknown field; did you mean \"replicas\"?\n"
        )),
        "{}",
        run.err
    );
    assert!(
        run.err
            .contains(&format!("error: {bad}:10: spec.concurrency: ")),
        "{}",
        run.err
    );
    assert!(run.err.ends_with("  nothing was sent\n"), "{}", run.err);
    assert!(swarm.fake.requests().is_empty());
}

#[tokio::test]
async fn a_missing_component_and_a_duplicate_are_found_before_anything_is_sent() {
    let swarm = Swarm::start().await;
    let file = swarm.file("function.yaml", function(""));
    let run = swarm.run(&["apply", "-f", &file]).await;
    let wasm = swarm.dir.path().join("hello.wasm");
    run.expect(
        1,
        "",
        &format!(
            "error: {file}:8: spec.artifact.path: {} does not exist\n  paths are relative to the manifest; is the component built yet?\n  nothing was sent\n",
            wasm.display()
        ),
    );
    let twice = format!(
        "{}---\n{}",
        config_map("settings", "  a: b\n"),
        config_map("settings", "  a: c\n")
    );
    let twice = swarm.file("twice.yaml", twice);
    let run = swarm.run(&["apply", "-f", &twice]).await;
    run.expect(
        1,
        "",
        &format!(
            "error: {twice}:12: configmap/settings is declared twice: the first time at {twice}:4\n  nothing was sent\n"
        ),
    );
    assert!(swarm.fake.requests().is_empty());
}

#[tokio::test]
async fn what_is_no_manifest_is_said() {
    let swarm = Swarm::start().await;
    let component = swarm.file("c.yaml", [0x00, 0x61, 0x73, 0x6d, 0xff, 0xfe]);
    let run = swarm.run(&["apply", "-f", &component]).await;
    assert!(run.err.contains("not text"), "{}", run.err);
    let run = swarm.run(&["apply", "-f", "/does/not/exist.yaml"]).await;
    run.expect(
        1,
        "",
        "error: the path \"/does/not/exist.yaml\" does not exist\n",
    );
    let run = swarm
        .run(&["apply", "-f", "https://example.com/x.yaml"])
        .await;
    assert!(run.err.contains("is a URL"), "{}", run.err);
    let run = swarm.run(&["apply"]).await;
    assert_eq!(run.code, 2);
    let kind = swarm.file(
        "k.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n",
    );
    let run = swarm.run(&["apply", "-f", &kind]).await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains(&format!("{kind}:")), "{}", run.err);
}

#[tokio::test]
async fn a_namespace_must_not_be_contradicted() {
    let swarm = Swarm::start().await;
    let text = config_map("settings", "  a: b\n").replace("  name", "  namespace: prod\n  name");
    let file = swarm.file("c.yaml", text);
    let run = swarm.run(&["apply", "-f", &file, "-n", "test"]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err
            .starts_with(&format!("error: {file}:4: metadata.namespace: ")),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn a_conflict_is_tried_again_and_given_up_in_the_end() {
    let swarm = Swarm::start().await;
    let file = swarm.file("c.yaml", config_map("settings", "  a: b\n"));
    swarm.run(&["apply", "-f", &file]).await;
    swarm.file("c.yaml", config_map("settings", "  a: c\n"));
    for _ in 0..4 {
        swarm
            .fake
            .refuse(Method::PATCH, CONFIG_MAP, 409, "Conflict", json!({}));
    }
    let run = swarm.run(&["apply", "-f", &file]).await;
    run.expect(0, "configmap/settings configured\n", "");
    swarm.file("c.yaml", config_map("settings", "  a: d\n"));
    for _ in 0..5 {
        swarm
            .fake
            .refuse(Method::PATCH, CONFIG_MAP, 409, "Conflict", json!({}));
    }
    let run = swarm.run(&["apply", "-f", &file]).await;
    run.expect(
        1,
        "",
        &format!("Error from server (Conflict): {file}:1: the server refuses\n"),
    );
}

#[tokio::test]
async fn what_the_server_refuses_is_shown_at_its_line() {
    let swarm = Swarm::start().await;
    swarm.file("hello.wasm", "not a component");
    let file = swarm.file(
        "function.yaml",
        function("  env:\n  - name: A\n    value: b\n"),
    );
    swarm.fake.refuse(
        Method::POST,
        "/apis/hive.dev/v1/namespaces/default/functions",
        422,
        "Invalid",
        json!({"causes": [
            {"field": "spec.artifact.sha256", "message": "this is no component", "reason": "FieldValueInvalid"},
            {"field": "spec.env[0].name", "message": "is taken", "reason": "FieldValueInvalid"}]}),
    );
    let run = swarm.run(&["apply", "-f", &file]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err.ends_with(&format!(
            "error: {file}:8: spec.artifact.sha256: this is no component\nerror: {file}:10: spec.env[0].name: is taken\n"
        )),
        "{}",
        run.err
    );
}

#[tokio::test]
async fn dry_runs_change_nothing() {
    let swarm = Swarm::start().await;
    let file = swarm.file("c.yaml", config_map("settings", "  a: b\n"));
    let run = swarm.run(&["apply", "-f", &file, "--dry-run=client"]).await;
    run.expect(0, "configmap/settings created (dry run)\n", "");
    let run = swarm.run(&["apply", "-f", &file, "--dry-run=server"]).await;
    run.expect(0, "configmap/settings created (server dry run)\n", "");
    assert_eq!(swarm.fake.object(CONFIG_MAP), None);
}

#[tokio::test]
async fn prune_deletes_only_what_was_applied_and_left_the_manifests() {
    let swarm = Swarm::start().await;
    let both = format!(
        "{}---\n{}",
        config_map("settings", "  a: b\n"),
        config_map("old", "  a: b\n")
    );
    let file = swarm.file("c.yaml", both);
    swarm.run(&["apply", "-f", &file]).await;
    // Somebody else's, with the same label.
    swarm.fake.put(
        "/api/v1/namespaces/default/configmaps/others",
        json!({"metadata": {"name": "others", "namespace": "default", "labels": {"app": "shop"}}}),
    );
    swarm.file("c.yaml", config_map("settings", "  a: b\n"));
    // As a controller of a release before answers.
    let tunnels = "/apis/hive.dev/v1/namespaces/default/tunnels";
    swarm
        .fake
        .refuse(Method::GET, tunnels, 404, "NotFound", json!({}));
    let run = swarm
        .run(&["apply", "-f", &file, "--prune", "-l", "app=shop"])
        .await;
    run.expect(
        0,
        "configmap/settings unchanged\nconfigmap/old pruned\n",
        "",
    );
    let there = |name: &str| {
        let path = format!("/api/v1/namespaces/default/configmaps/{name}");
        swarm.fake.object(&path).is_some()
    };
    assert!(there("settings") && there("others") && !there("old"));
    let run = swarm.run(&["apply", "-f", &file, "--prune"]).await;
    assert_eq!(run.code, 2, "without a selector all would go: {}", run.err);
}

#[tokio::test]
async fn apply_waits_until_all_copies_run_the_change() {
    let swarm = Swarm::start().await;
    swarm.file("hello.wasm", "component");
    let file = swarm.file("function.yaml", function(""));
    let running = swarm.begin(&["apply", "-f", &file, "--wait"], "");
    running.out.contains("created").await;
    let status = |reason: &str| {
        json!({"observedGeneration": 1, "url": "http://hello.default.localhost",
               "conditions": [{"type": "Available", "status": "True", "reason": reason}]})
    };
    swarm
        .fake
        .edit(FUNCTION, |object| object["status"] = status("Progressing"));
    swarm
        .fake
        .edit(FUNCTION, |object| object["status"] = status("Ready"));
    let run = running.end().await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(
        run.out,
        "function.hive.dev/hello created\nfunction.hive.dev/hello available at http://hello.default.localhost\n"
    );
}

#[tokio::test]
async fn diff_says_by_its_exit_code_whether_something_would_change() {
    let swarm = Swarm::start().await;
    let file = swarm.file("c.yaml", config_map("settings", "  a: b\n"));
    swarm.run(&["apply", "-f", &file]).await;
    swarm.run(&["diff", "-f", &file]).await.expect(0, "", "");
    swarm.file("c.yaml", config_map("settings", "  a: c\n"));
    let run = swarm.run(&["diff", "-f", &file]).await;
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    assert!(
        run.out.starts_with(
            "--- live/default/configmap/settings\n+++ manifest/default/configmap/settings\n"
        ),
        "{}",
        run.out
    );
    assert!(run.out.contains("\n-  a: b\n+  a: c\n"), "{}", run.out);
    assert_eq!(swarm.fake.object(CONFIG_MAP).unwrap()["data"]["a"], "b");
    let run = swarm.run(&["diff", "-f", "/does/not/exist"]).await;
    assert_eq!(run.code, 2);
}

#[tokio::test]
async fn delete_waits_until_the_objects_are_gone() {
    let swarm = Swarm::start().await;
    let file = swarm.file("c.yaml", config_map("settings", "  a: b\n"));
    swarm.run(&["apply", "-f", &file]).await;
    swarm.fake.edit(CONFIG_MAP, |object| {
        object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    });
    let running = swarm.begin(&["delete", "cm/settings"], "");
    running.out.contains("deleted").await;
    swarm.fake.remove(CONFIG_MAP);
    running
        .end()
        .await
        .expect(0, "configmap \"settings\" deleted\n", "");

    let run = swarm.run(&["delete", "-f", &file]).await;
    run.expect(
        1,
        "",
        "Error from server (NotFound): configmaps \"settings\" not found\n",
    );
    let run = swarm
        .run(&["delete", "-f", &file, "--ignore-not-found"])
        .await;
    run.expect(0, "", "");
}

#[tokio::test]
async fn delete_takes_names_labels_or_all_but_never_guesses() {
    let swarm = Swarm::start().await;
    for name in ["a", "b", "c"] {
        let file = swarm.file("c.yaml", config_map(name, "  a: b\n"));
        swarm.run(&["apply", "-f", &file]).await;
    }
    let run = swarm.run(&["delete", "cm"]).await;
    assert_eq!(run.code, 2, "{}", run.err);
    let run = swarm.run(&["delete", "cm", "a", "-l", "app=shop"]).await;
    assert_eq!(run.code, 2, "{}", run.err);
    let run = swarm.run(&["delete", "cm", "a"]).await;
    run.expect(0, "configmap \"a\" deleted\n", "");
    let run = swarm.run(&["delete", "cm", "-l", "app=shop"]).await;
    run.expect(0, "configmap \"b\" deleted\nconfigmap \"c\" deleted\n", "");
}

#[tokio::test]
async fn one_file_is_applied_in_silence_for_other_programs() {
    let swarm = Swarm::start().await;
    let file = swarm.file("c.yaml", config_map("settings", "  a: b\n"));
    hive_cli::apply_file(&swarm.kubeconfig(), file.as_ref())
        .await
        .unwrap();
    assert!(swarm.fake.object(CONFIG_MAP).is_some());
    swarm.file("c.yaml", config_map("settings", "  a: {}\n"));
    let error = hive_cli::apply_file(&swarm.kubeconfig(), file.as_ref())
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("{file}:7: data.a: ")),
        "{error}"
    );
}

#[tokio::test]
async fn the_server_merges_what_the_manifest_says() {
    let swarm = Swarm::start().await;
    let file = swarm.file("map.yaml", config_map("settings", "  a: one\n"));
    swarm.run(&["apply", "-f", &file]).await;
    swarm.fake.requests();
    swarm.fake.bodies();

    let run = swarm
        .run(&["apply", "-f", &file, "--server-side", "--field-manager=ci"])
        .await;
    run.expect(0, "configmap/settings serverside-applied\n", "");
    assert_eq!(
        swarm.fake.requests(),
        [format!(
            "PATCH {CONFIG_MAP}?fieldValidation=Strict&fieldManager=ci"
        )]
    );
    // The server remembers what was applied: nothing of it stands in an annotation.
    assert_eq!(
        swarm.fake.bodies(),
        [json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "one"},
            "metadata": {"name": "settings", "namespace": "default", "labels": {"app": "shop"}},
        })]
    );

    let causes = json!({"causes": [{
        "reason": "FieldManagerConflict", "field": ".data.a", "message": "conflict with \"ann\"",
    }]});
    swarm
        .fake
        .refuse(Method::PATCH, CONFIG_MAP, 409, "Conflict", causes);
    let run = swarm.run(&["apply", "-f", &file, "--server-side"]).await;
    assert_eq!(run.code, 1);
    for part in ["map.yaml:7", "conflict with \"ann\"", "--force-conflicts"] {
        assert!(run.err.contains(part), "{part}: {}", run.err);
    }
    let run = swarm
        .run(&["apply", "-f", &file, "--server-side", "--dry-run=client"])
        .await;
    assert_eq!(run.code, 2);
    let run = swarm
        .run(&["apply", "-f", &file, "--force-conflicts"])
        .await;
    assert_eq!(run.code, 2);
}
