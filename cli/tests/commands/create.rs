//! create: from flags, and from manifests what isn't there yet.

use serde_json::json;

use crate::harness::Swarm;

const MAP: &str = "/api/v1/namespaces/default/configmaps/settings";

#[tokio::test]
async fn small_objects_are_made_from_flags() {
    let swarm = Swarm::start().await;
    let run = swarm.run(&["create", "ns", "shop"]).await;
    run.expect(0, "namespace/shop created\n", "");

    let page = swarm.file("pages/index.html", "<h1>");
    let binary = swarm.file("pages/icon", [0xff, 0xfe]);
    let environment = swarm.file("settings.env", "# how\nmode=fast\n\n color=a=b\n");
    let literals = ["create", "cm", "settings", "--from-literal", "empty="];
    let files = ["--from-file", &page, "--from-file", &format!("i={binary}")];
    let lines = ["--from-env-file", &environment];
    let run = swarm.run(&[&literals[..], &files, &lines].concat()).await;
    run.expect(0, "configmap/settings created\n", "");
    let made = swarm.fake.object(MAP).unwrap();
    assert_eq!(
        made["data"],
        json!({ "empty": "", "index.html": "<h1>", "mode": "fast", "color": "a=b" })
    );
    assert_eq!(made["binaryData"], json!({ "i": "//4=" }));

    // A directory: its files.
    let directory = page.trim_end_matches("/index.html");
    let flags = ["--from-file", directory, "-o", "json", "--dry-run=client"];
    let arguments = [&["create", "secret", "generic", "pages"][..], &flags].concat();
    let run = swarm.run(&arguments).await;
    let secret: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        secret["data"],
        json!({ "index.html": "PGgxPg==", "icon": "//4=" })
    );
    assert_eq!(secret["type"], "Opaque");

    let tls = [
        "create",
        "secret",
        "tls",
        "front",
        "--dry-run=client",
        "-o=json",
    ];
    let pair = ["--cert", &page, "--key", &binary];
    let run = swarm.run(&[&tls[..], &pair].concat()).await;
    let secret: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/tls");
    assert_eq!(secret["data"]["tls.key"], "//4=");
}

#[tokio::test]
async fn mistakes_in_flags_are_named_and_nothing_is_made() {
    let swarm = Swarm::start().await;
    let large = swarm.file("large", vec![b'x'; (1 << 20) + 1]);
    let lines = swarm.file("settings.env", "a=1\nb\n");
    for (flags, message) in [
        (
            ["--from-literal", "a"],
            "--from-literal \"a\" is not KEY=VALUE",
        ),
        (
            ["--from-literal=a=1", "--from-literal=a=2"],
            "the key \"a\" is named twice",
        ),
        (
            ["--from-file", &large],
            "large is larger than an object may be (1024 KiB)",
        ),
        (
            ["--from-file", "/no/such"],
            "cannot read /no/such: No such file",
        ),
        (["--from-env-file", &lines], "settings.env:2: not KEY=VALUE"),
    ] {
        let run = swarm
            .run(&[&["create", "cm", "settings"][..], &flags].concat())
            .await;
        assert_ne!(run.code, 0, "{flags:?}");
        assert!(run.err.contains(message), "{flags:?}: {}", run.err);
    }
    assert!(swarm.fake.requests().is_empty());
}

#[tokio::test]
async fn manifests_are_made_once() {
    let swarm = Swarm::start().await;
    let file = swarm.file(
        "map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\ndata: { a: b }\n",
    );
    let run = swarm.run(&["create", "-f", &file]).await;
    run.expect(0, "configmap/settings created\n", "");
    // As declared: nothing is remembered for an apply.
    let made = swarm.fake.object(MAP).unwrap();
    assert!(made["metadata"]["annotations"].is_null(), "{made}");
    let run = swarm.run(&["create", "-f", &file]).await;
    assert_eq!(run.code, 1);
    assert!(run.err.contains("AlreadyExists"), "{}", run.err);
    assert!(run.err.contains("hivectl apply"), "{}", run.err);

    // The server names it: nothing that can be applied again.
    let unnamed = "apiVersion: v1\nkind: ConfigMap\nmetadata: { generateName: run- }\n";
    let run = swarm.run_with(&["apply", "-f", "-"], unnamed).await;
    assert!(run.err.contains("hivectl create -f"), "{}", run.err);
    let run = swarm
        .run_with(
            &["create", "-f", "-", "--dry-run=client", "-o=name"],
            unnamed,
        )
        .await;
    assert_eq!(run.code, 0, "{}", run.err);

    let run = swarm.run(&["create"]).await;
    assert_eq!(run.code, 2);
    assert!(run.err.contains("-f FILE"), "{}", run.err);
}
