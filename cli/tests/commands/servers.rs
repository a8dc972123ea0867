//! Reaching the swarm: dead servers, refusals, kubeconfig, versions.

use axum::http::Method;
use serde_json::json;

use crate::harness::Swarm;

/// Port 1 is nobody's: a connection is refused.
const DEAD: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn the_next_server_is_asked_when_one_is_dead() {
    let swarm = Swarm::start().await;
    let url = swarm.fake.url();
    swarm.write_kubeconfig(&[DEAD, &url]);
    let run = swarm.run(&["get", "nodes"]).await;
    run.expect(0, "", "No resources found.\n");
    let run = swarm.run(&["cluster-info"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("connection refused"), "{}", run.out);
    assert!(run.out.contains("ready\n"), "{}", run.out);
}

#[tokio::test]
async fn when_none_answers_all_are_named() {
    let swarm = Swarm::start().await;
    swarm.write_kubeconfig(&[DEAD, "http://127.0.0.1:2"]);
    let run = swarm.run(&["get", "nodes"]).await;
    run.expect(
        1,
        "",
        "error: cannot reach the swarm: http://127.0.0.1:1 (connection refused), http://127.0.0.1:2 (connection refused)\n  is the swarm running? `hive up` starts one here\n",
    );
}

#[tokio::test]
async fn a_refusal_for_now_is_tried_again() {
    let swarm = Swarm::start().await;
    for code in [503, 429] {
        swarm.fake.refuse(
            Method::GET,
            "/apis/hive.dev/v1/nodes",
            code,
            "ServiceUnavailable",
            json!({}),
        );
    }
    let run = swarm.run(&["get", "nodes"]).await;
    run.expect(0, "", "No resources found.\n");
    assert_eq!(swarm.fake.requests().len(), 3);
}

#[tokio::test]
async fn a_server_that_is_stopping_is_left_for_the_next() {
    let (swarm, other) = (Swarm::start().await, Swarm::start().await);
    let path = "/apis/hive.dev/v1/nodes";
    swarm
        .fake
        .refuse(Method::GET, path, 503, "ServiceUnavailable", json!({}));
    other.fake.put(
        "/apis/hive.dev/v1/nodes/pi",
        json!({"apiVersion": "hive.dev/v1", "kind": "Node", "metadata": {"name": "pi"}}),
    );
    swarm.write_kubeconfig(&[&swarm.fake.url(), &other.fake.url()]);
    let run = swarm.run(&["get", "nodes", "-o", "name"]).await;
    run.expect(0, "node.hive.dev/pi\n", "");
}

#[tokio::test]
async fn an_unknown_token_gets_a_hint_and_is_not_shown() {
    let swarm = Swarm::start().await;
    swarm.fake.refuse(
        Method::GET,
        "/apis/hive.dev/v1/nodes",
        401,
        "Unauthorized",
        json!({}),
    );
    let run = swarm.run(&["get", "nodes"]).await;
    assert_eq!(run.code, 1);
    assert!(
        run.err.starts_with(
            "Error from server (Unauthorized): the server refuses\n  the token of the kubeconfig"
        ),
        "{}",
        run.err
    );
    assert!(!run.err.contains("s3cret"));
}

/// A kubeconfig whose user is this, and a fake swarm that knows nobody.
async fn refused(user: serde_json::Value) -> crate::harness::Run {
    let swarm = Swarm::start().await;
    let text = std::fs::read(swarm.kubeconfig()).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    config["users"][0]["user"] = user;
    std::fs::write(swarm.kubeconfig(), config.to_string()).unwrap();
    let path = "/apis/hive.dev/v1/nodes";
    swarm
        .fake
        .refuse(Method::GET, path, 401, "Unauthorized", json!({}));
    swarm.run(&["get", "nodes"]).await
}

#[tokio::test]
async fn a_refusal_names_what_the_kubeconfig_has() {
    let printing = "printf '{\"apiVersion\":\"client.authentication.k8s.io/v1\",\"kind\":\"ExecCredential\",\"status\":{\"token\":\"t0psecret\"}}'";
    let plugin = json!({ "exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", printing],
        "interactiveMode": "Never",
    } });
    for (user, hint) in [
        (json!({}), "the kubeconfig has no credential"),
        (
            json!({ "token": "t0psecret" }),
            "the token of the kubeconfig is",
        ),
        (plugin, "the kubeconfig's plugin \"sh\""),
    ] {
        let run = refused(user).await;
        let (error, rest) = run.err.split_once('\n').unwrap();
        assert_eq!(
            error,
            "Error from server (Unauthorized): the server refuses"
        );
        assert!(
            rest.contains(hint) && rest.lines().count() == 1,
            "{}",
            run.err
        );
        assert!(!run.err.contains("t0psecret"), "{}", run.err);
    }
}

/// kube would show its arguments and all that it printed.
#[tokio::test]
async fn a_plugin_that_fails_is_quoted_and_nothing_else_is() {
    let swarm = Swarm::start().await;
    let text = std::fs::read(swarm.kubeconfig()).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for (script, expected) in [
        (
            "echo t0psecret; echo 'error: nobody is here' >&2; exit 3",
            "nobody is here\n",
        ),
        ("echo t0psecret; exit 3", "it ended with exit status: 3\n"),
        (
            "echo '{t0psecret'",
            "what it printed is no ExecCredential\n",
        ),
    ] {
        config["users"][0]["user"] = json!({ "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
            "args": ["-c", script, "--secret=t0psecret"], "interactiveMode": "Never",
        } });
        std::fs::write(swarm.kubeconfig(), config.to_string()).unwrap();
        let run = swarm.run(&["get", "nodes"]).await;
        let error = format!("error: the kubeconfig's plugin gave no credential: {expected}");
        run.expect(1, "", &error);
    }
}

#[tokio::test]
async fn the_kubeconfig_is_shown_without_secrets_and_changed() {
    let swarm = Swarm::start().await;
    let run = swarm.run(&["config", "view"]).await;
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(
        !run.out.contains("s3cret") && run.out.contains("REDACTED"),
        "{}",
        run.out
    );
    let run = swarm
        .run(&["config", "view", "--without-users", "-o", "json"])
        .await;
    let whole: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(whole["users"], json!([]));
    assert_eq!(
        whole["contexts"][0]["context"],
        json!({"cluster": "test", "user": ""})
    );
    let cluster = &whole["clusters"][0]["cluster"];
    assert_eq!(cluster["server"], swarm.fake.url());
    assert!(
        cluster["certificate-authority-data"]
            .as_str()
            .unwrap()
            .len()
            > 100
    );
    assert_eq!(cluster["extensions"][0]["name"], "hive.dev/servers");
    assert!(!run.out.contains("s3cret"), "{}", run.out);
    swarm
        .run(&["config", "current-context"])
        .await
        .expect(0, "test\n", "");
    swarm
        .run(&["config", "set-context", "--current", "--namespace=prod"])
        .await
        .expect(0, "Context \"test\" modified.\n", "");
    swarm.run(&["config", "get-contexts"]).await.expect(
        0,
        "CURRENT   NAME   CLUSTER   AUTHINFO   NAMESPACE\n*         test   test      admin      prod\n",
        "",
    );
    swarm
        .run(&["get", "secrets"])
        .await
        .expect(0, "", "No resources found in prod namespace.\n");
    swarm.run(&["config", "use-context", "tset"]).await.expect(
        1,
        "",
        "error: the kubeconfig has no context \"tset\"; did you mean \"test\"?\n  `hivectl config get-contexts` lists them\n",
    );
    let file = std::fs::read_to_string(swarm.kubeconfig()).unwrap();
    assert!(file.contains("s3cret"), "credentials must survive a change");
}

#[tokio::test]
async fn without_a_kubeconfig_it_says_how_to_get_one() {
    let swarm = Swarm::start().await;
    std::fs::remove_file(swarm.kubeconfig()).unwrap();
    let run = swarm.run(&["get", "nodes"]).await;
    run.expect(
        1,
        "",
        &format!(
            "error: there is no kubeconfig: looked at {}\n  `hive up` starts a swarm here and writes one; or name yours with --kubeconfig\n",
            swarm.kubeconfig().display()
        ),
    );
}

#[tokio::test]
async fn versions_resources_and_permissions() {
    let swarm = Swarm::start().await;
    let own = env!("CARGO_PKG_VERSION");
    swarm.run(&["version"]).await.expect(
        0,
        &format!("Client Version: {own}\nServer Version: v1.34.0+hive.0.1.0\n"),
        "",
    );
    swarm
        .run(&["api-versions"])
        .await
        .expect(0, "hive.dev/v1\nv1\n", "");
    swarm.run(&["api-resources"]).await.expect(
        0,
        "NAME        SHORTNAMES   APIVERSION    NAMESPACED   KIND\nsecrets                  v1            true         Secret\nfunctions   fn           hive.dev/v1   true         Function\nnodes       no           hive.dev/v1   false        Node\n",
        "",
    );
    swarm
        .run(&["auth", "can-i", "get", "fn"])
        .await
        .expect(0, "yes\n", "");
    swarm
        .run(&["auth", "can-i", "delete", "fn/hello"])
        .await
        .expect(1, "no - role \"view\"\n", "");
    swarm.run(&["auth", "can-i", "--list"]).await.expect(
        0,
        "Resources                  Non-Resource URLs   Resource Names   Verbs\n\
         \u{20}                          [/metrics]          []               [get]\n\
         configmaps                 []                  [mine]           [get list]\n\
         functions.hive.dev/scale   []                  []               [update]\n",
        "",
    );
    let run = swarm.run(&["auth", "can-i", "gte", "fn"]).await;
    assert_eq!(run.code, 2);
    assert!(run.err.contains("did you mean \"get\"?"), "{}", run.err);
}

#[tokio::test]
async fn completion_scripts_and_help_need_no_server() {
    let swarm = Swarm::start().await;
    swarm.write_kubeconfig(&[DEAD]);
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let run = swarm.run(&["completion", shell]).await;
        assert_eq!(run.code, 0, "{shell}");
        assert!(run.out.contains("hivectl"), "{shell}");
    }
    let run = swarm.run(&["apply", "--help"]).await;
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    assert!(
        run.out.contains("hivectl apply -f function.yaml"),
        "{}",
        run.out
    );
    let run = swarm.run(&["aply"]).await;
    assert_eq!(run.code, 2);
    assert!(run.err.contains("apply"), "{}", run.err);
}
