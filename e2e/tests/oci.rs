//! Components from registries: pushed, pulled once, pinned, and refused where they must not come from.
#![allow(clippy::unwrap_used)]

use std::fs;

use hive_e2e::registry::{self, Registry};
use hive_e2e::swarm::{condition, function_path, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Guest, Steps, Swarm, guests};
use kube::Client;
use serde_json::{Value, json};

const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const SPIN_LAYER: &str = "application/vnd.wasm.content.layer.v1+wasm";
const SPIN_APPLICATION: &str = "application/vnd.fermyon.spin.application.v1+config";
const SPIN_ASSET: &str = "application/vnd.wasm.content.layer.v1+data";
const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
const WASMCLOUD_CONFIG: &str = "application/vnd.wasmcloud.actor.archive.config";
const WASMCLOUD_LAYER: &str = "application/vnd.module.wasm.content.layer.v1+wasm";

fn bytes(guest: &Guest) -> Vec<u8> {
    fs::read(&guest.component).unwrap()
}

async fn apply(swarm: &Swarm, name: &str, image: &str, more: Value) {
    let mut spec = json!({ "artifact": { "oci": image } });
    spec.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let manifest = json!({
        "apiVersion": "hive.dev/v1", "kind": "Function", "metadata": { "name": name }, "spec": spec,
    });
    let path = swarm.path().join(format!("{name}.json"));
    fs::write(&path, manifest.to_string()).unwrap();
    swarm
        .ctl(&["apply", "-f", path.to_str().unwrap()])
        .await
        .ok();
}

/// Waits until the condition Ready says so and tells why; its message.
async fn is_not_ready(client: &Client, name: &str, reason: &str) -> String {
    until(&format!("{name} is {reason}"), PATIENCE, async || {
        let function = object(client, &function_path(name)).await?;
        let conditions = function["status"]["conditions"].as_array().cloned();
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|c| c["type"] == "Ready");
        let ready = ready.unwrap_or_default();
        // Who looks late sees that it was tried again.
        let again = reason == "ErrImagePull" && ready["reason"] == "ImagePullBackOff";
        let is_it = ready["reason"] == reason || again;
        holds(ready["status"] == "False" && is_it, &ready)?;
        Ok::<_, String>(ready["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Waits until it is Ready and runs the component of this image.
async fn runs(swarm: &mut Swarm, client: &Client, name: &str, reference: &str) {
    until(&format!("{name} runs {reference}"), PATIENCE, async || {
        let function = object(client, &function_path(name)).await?;
        let pulled = &function["status"]["artifact"]["reference"];
        let is_ready = condition(&function, "Ready") == "True";
        holds(is_ready && *pulled == *reference, &function["status"])
    })
    .await;
    swarm.function_ready(name).await;
    assert_eq!(swarm.invoke(name, "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_run_images() {
    let registry = Registry::start().await;
    let mut swarm = Swarm::builder()
        .controllers(1)
        .agents(1)
        .run_flag("--registry-allow", "127.0.0.1")
        .start()
        .await;
    let client = swarm.client_of(0).await;
    let mut steps = Steps::new();
    let host = registry.host();
    let hello = guests::hello();
    let file = hello.component.to_str().unwrap().to_owned();
    let mut pushed = String::new();

    steps
        .run("what is pushed is run, by its digest", async {
            let image = format!("oci://{host}/acme/hello:1");
            let output = swarm.ctl(&["push", &file, &image]).await;
            pushed = output.ok().trim().to_owned();
            assert!(
                pushed.starts_with(&format!("{host}/acme/hello@sha256:")),
                "{output}"
            );
            registry.asked();
            // Pushed again, it is the same image, and nothing of it is sent.
            assert_eq!(
                swarm.ctl(&["push", &file, &image]).await.ok().trim(),
                pushed
            );
            let asked = registry.asked();
            assert!(
                asked.iter().all(|ask| !ask.contains("uploads")),
                "{asked:?}"
            );
            apply(&swarm, "hello", &image, json!({})).await;
            runs(&mut swarm, &client, "hello", &pushed).await;
        })
        .await;
    steps
        .run(
            "a tag that moves moves nothing, until that is asked for",
            async {
                let moved = registry.put(
                    "acme/hello",
                    "1",
                    OCI_CONFIG,
                    "application/wasm",
                    &bytes(&guests::rust_p2()),
                );
                registry.asked();
                apply(
                    &swarm,
                    "hello",
                    &format!("oci://{host}/acme/hello:1"),
                    json!({ "replicas": 2 }),
                )
                .await;
                swarm.function_ready("hello").await;
                runs(&mut swarm, &client, "hello", &pushed).await;
                assert_eq!(registry.asked(), [""; 0]);
                let again = ["rollout", "restart", "hello", "--pull"];
                swarm.ctl(&again).await.ok();
                let moved = format!("{host}/acme/hello@{moved}");
                runs(&mut swarm, &client, "hello", &moved).await;
            },
        )
        .await;
    steps
        .run("layouts of Spin and wasmCloud", async {
            let (web, jobs) = (bytes(&guests::rust_p2()), bytes(&hello));
            let asset = b"not for the function".as_slice();
            // As `spin registry push` leaves it: what it would grant is the manifest's to say here.
            let application = json!({
                "spin_lock_version": 1,
                "metadata": { "name": "shop", "version": "1.0.0", "trigger": { "type": "http" } },
                "triggers": [
                    { "id": "often", "trigger_type": "redis", "trigger_config": { "component": "jobs", "channel": "jobs" } },
                    { "id": "web", "trigger_type": "http", "trigger_config": { "component": "web", "route": "/..." } },
                ],
                "components": [
                    {
                        "id": "jobs",
                        "source": { "content_type": "application/wasm", "digest": registry::digest(&jobs) },
                    },
                    {
                        "id": "web",
                        "metadata": { "allowed_outbound_hosts": ["*://*:*"], "key_value_stores": ["default"] },
                        "source": { "content_type": "application/wasm", "digest": registry::digest(&web) },
                        "env": { "GRANTED": "no" },
                        "files": [{ "digest": registry::digest(asset), "path": "asset.txt" }],
                    },
                ],
            })
            .to_string();
            let blob = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": registry::digest(bytes), "size": bytes.len() });
            let manifest = json!({ "schemaVersion": 2, "config": blob(OCI_CONFIG, b"{}"), "layers": [
                blob(SPIN_LAYER, &jobs), blob(SPIN_LAYER, &web), blob(SPIN_ASSET, asset),
                blob(SPIN_APPLICATION, application.as_bytes()),
            ]});
            let blobs = [web.as_slice(), &jobs, asset, application.as_bytes()];
            let spin = registry.put_manifest("acme/spin", "1", &manifest, &blobs);
            let actor = registry.put("acme/actor", "1", WASMCLOUD_CONFIG, WASMCLOUD_LAYER, &web);
            // What wasmCloud's `wash` writes now is what `wkg` writes.
            let cloud = registry.put("acme/cloud", "1", WASM_CONFIG, "application/wasm", &web);
            for (name, digest) in [("spin", spin), ("actor", actor), ("cloud", cloud)] {
                apply(&swarm, name, &format!("{host}/acme/{name}:1"), json!({})).await;
                runs(&mut swarm, &client, name, &format!("{host}/acme/{name}@{digest}")).await;
                let function = object(&client, &function_path(name)).await.unwrap();
                let digest = format!("sha256:{}", function["status"]["artifact"]["sha256"].as_str().unwrap());
                assert_eq!(digest, registry::digest(&web));
            }
            // The only component that is there is not the one that answers.
            let manifest = json!({ "schemaVersion": 2, "config": blob(OCI_CONFIG, b"{}"), "layers": [
                blob(SPIN_LAYER, &jobs), blob(SPIN_APPLICATION, application.as_bytes()),
            ]});
            registry.put_manifest("acme/jobs", "1", &manifest, &[jobs.as_slice(), application.as_bytes()]);
            apply(&swarm, "jobs", &format!("{host}/acme/jobs:1"), json!({})).await;
            let message = is_not_ready(&client, "jobs", "ErrImagePull").await;
            assert!(message.contains("trigger_config.component names \"web\""), "{message}");
            // Else it is tried again, and a later step finds that the registry was asked.
            swarm.ctl(&["delete", "function", "jobs"]).await.ok();
        })
        .await;
    steps
        .run(
            "who has no right to it hears so, and a secret mends it",
            async {
                registry.want_login(Some(("me", "secret")));
                let image = format!("{host}/acme/hello:1");
                let wants = json!({ "imagePullSecrets": [{ "name": "mine" }] });
                apply(&swarm, "guarded", &image, wants).await;
                let message = is_not_ready(&client, "guarded", "Unauthorized").await;
                assert!(
                    message.contains("imagePullSecrets are missing: mine"),
                    "{message}"
                );
                let server = format!("--docker-server={host}");
                let create = [
                    "create",
                    "secret",
                    "docker-registry",
                    "mine",
                    &server,
                    "--docker-username=me",
                    "--docker-password-file=/dev/stdin",
                ];
                swarm.ctl.run_with_input(&create, "wrong\n").await.ok();
                until("the wrong password is refused", PATIENCE, async || {
                    let message = is_not_ready(&client, "guarded", "Unauthorized").await;
                    holds(message.contains("with credentials"), message)
                })
                .await;
                swarm.ctl(&["delete", "secret", "mine"]).await.ok();
                swarm.ctl.run_with_input(&create, "secret\n").await.ok();
                swarm.function_ready("guarded").await;
                // A push is asked for the same, and says what to do.
                let refused = swarm.ctl(&["push", &file, &image]).await;
                refused.fails(&["refuses", "docker login"]);
                let login = ["push", &file, &image, "--username=me", "--password-stdin"];
                swarm.ctl.run_with_input(&login, "secret\n").await.ok();
                registry.want_login(None);
            },
        )
        .await;
    steps
        .run(
            "bytes that are not what the image names are not taken",
            async {
                let probe = bytes(&guests::probe());
                registry.put("acme/probe", "1", OCI_CONFIG, "application/wasm", &probe);
                registry.lie(true);
                apply(&swarm, "lied", &format!("{host}/acme/probe:1"), json!({})).await;
                let message = is_not_ready(&client, "lied", "ErrImagePull").await;
                assert!(
                    message.contains("the registry's bytes are not those that the image names"),
                    "{message}"
                );
                registry.lie(false);
                swarm.function_ready("lied").await;
            },
        )
        .await;
    steps
        .run("what is no component, or nowhere, says so", async {
            registry.put(
                "acme/text",
                "1",
                OCI_CONFIG,
                "application/wasm",
                b"\0asm not really",
            );
            registry.put(
                "acme/docker",
                "1",
                OCI_CONFIG,
                "application/vnd.oci.image.layer.v1.tar+gzip",
                b"tar",
            );
            for (name, reason, words) in [
                ("text", "InvalidComponent", "@sha256:"),
                (
                    "docker",
                    "ErrImagePull",
                    "the image holds no component, but a container image",
                ),
                ("nothing", "ErrImagePull", "does not have it"),
            ] {
                apply(&swarm, name, &format!("{host}/acme/{name}:1"), json!({})).await;
                let message = is_not_ready(&client, name, reason).await;
                assert!(message.contains(words), "{message}");
                swarm.ctl(&["delete", "function", name]).await.ok();
            }
        })
        .await;
    steps
        .run("addresses that are not allowed are not asked", async {
            registry.asked();
            let port = host.rsplit_once(':').unwrap().1;
            for inner in ["127.0.0.2", "169.254.169.254", "10.0.0.1"] {
                let image = format!("{inner}:{port}/acme/hello:1");
                apply(&swarm, "inner", &image, json!({})).await;
                let reached = until("it is refused", PATIENCE, async || {
                    let message = is_not_ready(&client, "inner", "ErrImagePull").await;
                    holds(message.contains(inner), &message)?;
                    Ok::<_, String>(message)
                })
                .await;
                assert!(reached.contains("--registry-allow"), "{reached}");
            }
            assert_eq!(registry.asked(), [""; 0]);
        })
        .await;
    steps
        .run("with the registry down, a digest that was pulled once runs", async {
            registry.fail(true);
            let function = object(&client, &function_path("hello")).await.unwrap();
            let pulled = &function["status"]["artifact"];
            let spec = json!({ "artifact": { "oci": pulled["reference"], "sha256": pulled["sha256"] } });
            let manifest = json!({
                "apiVersion": "hive.dev/v1", "kind": "Function", "metadata": { "name": "again" }, "spec": spec,
            });
            let path = swarm.path().join("again.json");
            fs::write(&path, manifest.to_string()).unwrap();
            swarm.ctl(&["apply", "-f", path.to_str().unwrap()]).await.ok();
            swarm.function_ready("again").await;
            // A name that was not pulled waits for the registry.
            apply(&swarm, "waits", &format!("{host}/acme/hello:1"), json!({})).await;
            let message = is_not_ready(&client, "waits", "ErrImagePull").await;
            assert!(message.contains("status 503"), "{message}");
            registry.fail(false);
            swarm.function_ready("waits").await;
        })
        .await;
    assert_eq!(
        registry.leaked(),
        [""; 0],
        "secrets went along with redirects"
    );
    steps.finish();
}
