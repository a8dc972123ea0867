//! `hivectl push`, as far as it comes without a registry; with one, see e2e/tests/oci.rs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::harness::Swarm;

const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

#[tokio::test]
async fn what_cannot_be_pushed_is_said_before_anybody_is_asked() {
    let swarm = Swarm::start().await;
    let component = swarm.file("hello.wasm", COMPONENT);
    let module = swarm.file("core.wasm", b"\0asm\x01\0\0\0");
    let text = swarm.file("hello.txt", b"hello");
    let pinned = format!("ghcr.io/a/b@sha256:{}", "0".repeat(64));
    for (file, image, message) in [
        (
            &component,
            "https://ghcr.io/a",
            "is not an image: https:// is not oci://",
        ),
        (&component, "ghcr.io/A", "is not a repository"),
        (
            &component,
            &*pinned,
            "names a digest, and what is pushed has its own: name a tag",
        ),
        (
            &module,
            "ghcr.io/a/b",
            "core.wasm: it is a core module, not a component",
        ),
        (
            &text,
            "ghcr.io/a/b",
            "hello.txt: it is no WebAssembly component",
        ),
        (
            &"/no/such".to_owned(),
            "ghcr.io/a/b",
            "cannot read /no/such: No such file",
        ),
    ] {
        let run = swarm.run(&["push", file, image]).await;
        assert_ne!(run.code, 0, "{run:?}");
        assert!(run.err.contains(message), "{run:?}");
    }
    let run = swarm
        .run(&["push", &component, "ghcr.io/a/b", "--username", "me"])
        .await;
    assert!(run.err.contains("--password-stdin"), "{run:?}");
}

#[tokio::test]
async fn credentials_for_a_registry_become_a_secret() {
    let swarm = Swarm::start().await;
    let password = swarm.file("token", "pass:word\n");
    let make = [
        "create",
        "secret",
        "docker-registry",
        "ghcr",
        "--docker-server=ghcr.io",
        "--docker-username=me",
        "--dry-run=client",
        "-o=json",
    ];
    let from_file = ["--docker-password-file", &password];
    let run = swarm.run(&[&make[..], &from_file].concat()).await;
    let secret: Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(secret["type"], "kubernetes.io/dockerconfigjson");
    let config = BASE64
        .decode(secret["data"][".dockerconfigjson"].as_str().unwrap())
        .unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let auth = BASE64.encode("me:pass:word");
    let expected = json!({ "auths": { "ghcr.io": { "username": "me", "password": "pass:word", "auth": auth } } });
    assert_eq!(config, expected);

    let run = swarm.run(&make).await;
    assert!(run.err.contains("--docker-password"), "{run:?}");
}
