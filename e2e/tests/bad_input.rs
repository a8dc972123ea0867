//! Mistakes, through `hivectl apply` and straight at the servers: each is told in words that help,
//! and changes nothing.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_e2e::ctl::Output;
use hive_e2e::swarm::{CONFIG_MAPS, function_path, host, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::{Steps, Swarm, ctl, guests, hive, web};
use http::Request;
use kube::Client;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::process::Command;

/// A mistake is found before anything slow begins, such as a wait for copies to be ready.
const QUICKLY: Duration = Duration::from_secs(30);

const GOOD: &str = "\
apiVersion: hive.dev/v1
kind: Function
metadata:
  name: good
spec:
  artifact:
    path: probe.wasm
";

/// A component that the validator accepts and that handles no HTTP: it has nothing in it.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_told_and_change_nothing() {
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let probe = guests::probe();
    swarm.deploy("probe", &probe, json!({})).await;
    let before = everything(&mut swarm).await;
    let mut steps = Steps::new();

    for (name, manifest, says) in manifests() {
        let (swarm, before) = (&mut swarm, &before);
        steps
            .run(name, async move {
                let output = apply(swarm, &manifest).await;
                output.fails(says);
                assert!(output.took < QUICKLY, "{output}");
                assert_eq!(everything(swarm).await, *before, "something changed");
            })
            .await;
    }
    for (name, file, bytes, says) in components() {
        let (swarm, before) = (&mut swarm, &before);
        steps
            .run(name, async move {
                std::fs::write(swarm.path().join(file), bytes).unwrap();
                let output = apply(swarm, &GOOD.replace("probe.wasm", file)).await;
                output.fails(says);
                assert_eq!(everything(swarm).await, *before, "something changed");
            })
            .await;
    }
    steps
        .run("a manifest of 100 MB", huge_manifest(&mut swarm, &before))
        .await;
    steps
        .run(
            "an object over the limit, at the API",
            large_object(&mut swarm, &before),
        )
        .await;
    steps
        .run("a body over the limit, at the ingress", large_body(&swarm))
        .await;
    steps.finish();
}

/// Name, manifest, and what the message says.
fn manifests() -> Vec<(&'static str, String, &'static [&'static str])> {
    let line = |text: &str| format!("{GOOD}  {text}\n");
    vec![
        (
            "an unknown field",
            line("replica: 2"),
            &["manifest.yaml:8: spec.replica: unknown field; did you mean \"replicas\"?"],
        ),
        (
            "a wrong type",
            line("replicas: many"),
            &["manifest.yaml:8: spec.replicas: expected a whole number, found text"],
        ),
        (
            "a value out of range",
            line("timeout: 1h"),
            &["manifest.yaml:8: spec.timeout:"],
        ),
        (
            "a field twice",
            format!("{GOOD}  replicas: 1\n  replicas: 2\n"),
            &["manifest.yaml:9", "replicas"],
        ),
        (
            "an unknown kind",
            GOOD.replace("kind: Function", "kind: Funktion"),
            &["manifest.yaml:", "Funktion", "did you mean \"Function\"?"],
        ),
        (
            "two objects of one name",
            format!("{GOOD}---\n{GOOD}"),
            &["manifest.yaml:", "good"],
        ),
        (
            "text that is no YAML",
            "kind: [Function\n".to_owned(),
            &["manifest.yaml:"],
        ),
        (
            "a component that is not there",
            GOOD.replace("probe.wasm", "absent.wasm"),
            &[
                "manifest.yaml:7: spec.artifact.path:",
                "absent.wasm",
                "does not exist",
                "is the component built yet?",
            ],
        ),
        (
            "a digest that nobody uploaded",
            GOOD.replace("path: probe.wasm", &format!("sha256: {}", "ab".repeat(32))),
            &["spec.artifact", "abababab"],
        ),
    ]
}

/// Name, file, its bytes, and what the message says.
fn components() -> Vec<(&'static str, &'static str, Vec<u8>, &'static [&'static str])> {
    let probe = std::fs::read(guests::probe().component).unwrap();
    vec![
        (
            "random bytes",
            "random.wasm",
            b"\x7fELF and something more".to_vec(),
            &["spec.artifact", "not a WebAssembly component"],
        ),
        (
            "a core module",
            "module.wasm",
            CORE_MODULE.to_vec(),
            &[
                "spec.artifact",
                "core module, not a component",
                "wasm32-wasip2",
            ],
        ),
        (
            "another world",
            "world.wasm",
            EMPTY_COMPONENT.to_vec(),
            &[
                "spec.artifact",
                "handles no HTTP requests",
                "wasi:http/incoming-handler@0.2",
            ],
        ),
        (
            "a component that was cut off",
            "cut.wasm",
            probe[..probe.len() / 2].to_vec(),
            &["spec.artifact", "damaged or cut off"],
        ),
        (
            "a component that starts over its memory",
            "large.wasm",
            probe_with_memory(),
            &["spec.resources.memory"],
        ),
    ]
}

/// Stands for a component whose memories have 2 GiB at their start: the probe, and a core module
/// beside it that nothing instantiates.
fn probe_with_memory() -> Vec<u8> {
    // (module (memory 32768)), as a section of the component (id 1).
    const MODULE: [u8; 15] = [
        0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x05, 0x05, 0x01, 0x00, 0x80, 0x80, 0x02,
    ];
    let mut bytes = std::fs::read(guests::probe().component).unwrap();
    bytes.push(1);
    bytes.push(u8::try_from(MODULE.len()).unwrap());
    bytes.extend(MODULE);
    bytes
}

async fn apply(swarm: &Swarm, manifest: &str) -> Output {
    let path: PathBuf = swarm.path().join("manifest.yaml");
    std::fs::write(&path, manifest).unwrap();
    swarm.ctl(&["apply", "-f", path.to_str().unwrap()]).await
}

/// What is declared, without what changes by itself.
async fn everything(swarm: &mut Swarm) -> Vec<(String, Value)> {
    let client = swarm.client().await;
    let functions = function_path("");
    let mut all = Vec::new();
    for path in [functions.trim_end_matches('/'), CONFIG_MAPS] {
        let list = object(&client, path).await.unwrap();
        for item in list["items"].as_array().unwrap() {
            let name = format!("{path}/{}", item["metadata"]["name"].as_str().unwrap());
            all.push((name, item["spec"].clone()));
        }
    }
    all
}

async fn huge_manifest(swarm: &mut Swarm, before: &[(String, Value)]) {
    let line =
        "# nothing that matters, a hundred million times over, in a manifest by mistake .....\n";
    let manifest = format!("{GOOD}{}", line.repeat(100_000_000 / line.len()));
    let output = apply(swarm, &manifest).await;
    output.fails(&["manifest.yaml", "larger than 16 MiB", "spec.artifact.path"]);
    assert!(output.took < QUICKLY, "{output}");
    println!("  refused after {:.2} s", output.took.as_secs_f64());
    assert_eq!(everything(swarm).await, before);
    std::fs::remove_file(swarm.path().join("manifest.yaml")).unwrap();
}

async fn large_object(swarm: &mut Swarm, before: &[(String, Value)]) {
    let client = swarm.client().await;
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": "large" },
        "data": { "text": "x".repeat(4 << 20) },
    });
    let request = Request::post(CONFIG_MAPS)
        .header("content-type", "application/json")
        .body(body.to_string().into_bytes())
        .unwrap();
    match client.request::<Value>(request).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 413, "{status:?}");
            assert!(status.message.contains("3 MiB"), "{status:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(everything(swarm).await, before);
}

async fn large_body(swarm: &Swarm) {
    let address = swarm.controllers[0].ingress_address();
    let body = Bytes::from(vec![b'x'; 33 << 20]);
    let answer = web::post(&address, &host("probe"), "/echo", body)
        .await
        .unwrap();
    assert_eq!(answer.status, 413, "{}", answer.text());
    assert_eq!(answer.header("x-hive-reason"), "BodyTooLarge");
    assert!(
        answer.text().contains("33554432 bytes"),
        "{}",
        answer.text()
    );
}

/// Of a manifest that hivectl has not enough address space to hold. The file is sparse.
const MANIFEST_BYTES: u64 = 8 << 30;

/// Of hivectl's address space: with what threads reserve and never touch, more than it takes.
const ADDRESS_SPACE_KB: u64 = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_not_written() {
    let mut swarm = Swarm::builder().controllers(1).agents(0).start().await;
    let client = swarm.client().await;
    let bytes = std::fs::read(guests::probe().component).unwrap();
    let digest = hex(&bytes);
    let path = format!("/apis/hive.dev/v1/artifacts/{digest}");
    // The manifests below name it.
    swarm.manifest("good", &guests::probe(), json!({}));
    let before = revision_at_rest(&client).await;
    let mut steps = Steps::new();

    for (name, manifest, says) in manifests() {
        let (swarm, client, before) = (&swarm, &client, &before);
        steps
            .run(name, async move {
                let output = apply(swarm, &manifest).await;
                output.fails(says);
                assert_eq!(output.code, 1, "{output}");
                assert_eq!(revision(client).await, *before, "something was written");
            })
            .await;
    }
    steps
        .run("bytes of another digest", async {
            let mut wrong = bytes.clone();
            wrong[100] ^= 1;
            let message = refused(&client, &path, wrong, 400).await;
            assert!(message.contains(&digest), "{message}");
            assert!(message.contains("was the upload cut short"), "{message}");
        })
        .await;
    steps
        .run("a digest that is none", async {
            let message = refused(
                &client,
                "/apis/hive.dev/v1/artifacts/abc",
                b"x".to_vec(),
                400,
            )
            .await;
            assert!(message.contains("64 hexadecimal digits"), "{message}");
        })
        .await;
    steps
        .run("nothing of them is kept", async {
            match client
                .request::<Value>(Request::get(&path).body(Vec::new()).unwrap())
                .await
            {
                Err(kube::Error::Api(status)) => {
                    assert_eq!(status.code, 404, "{status:?}");
                    assert!(
                        status.message.contains("is not on the controllers"),
                        "{status:?}"
                    );
                }
                other => panic!("{other:?}"),
            }
            let artifacts = swarm.controllers[0].member.dir.join("artifacts");
            until("no file of them is left", PATIENCE, async || {
                let left = files(&artifacts);
                holds(left.is_empty(), format!("{left:?}"))
            })
            .await;
            assert_eq!(revision(&client).await, before, "something changed");
        })
        .await;
    steps
        .run("a manifest larger than the memory", async {
            let manifest = swarm.path().join("large.yaml");
            let file = std::fs::File::create(&manifest).unwrap();
            file.set_len(MANIFEST_BYTES).unwrap();
            // With so little, reading the file would not end in this message.
            let mut command = Command::new("sh");
            command
                .args([
                    "-c",
                    &format!("ulimit -v {ADDRESS_SPACE_KB} && exec \"$@\""),
                    "sh",
                ])
                .arg(hive())
                .args(["ctl", "--kubeconfig"])
                .arg(&swarm.ctl.kubeconfig)
                .args(["apply", "-f"])
                .arg(&manifest);
            let output = ctl::run(command, "").await;
            output.fails(&["large.yaml", "larger than 16 MiB"]);
            assert_eq!(output.code, 1, "{output}");
            let text = " ".repeat(100_000_000);
            let output = swarm.ctl.run_with_input(&["apply", "-f", "-"], &text).await;
            output.fails(&["larger than 16 MiB"]);
            assert_eq!(output.code, 1, "{output}");
            assert_eq!(revision(&client).await, before, "something changed");
        })
        .await;
    steps.finish();
}

/// What a PUT is refused with.
async fn refused(client: &Client, path: &str, bytes: Vec<u8>, code: u16) -> String {
    let request = Request::put(path)
        .header("content-type", "application/wasm")
        .body(bytes)
        .unwrap();
    match client.request::<Value>(request).await {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, code, "{status:?}");
            status.message.clone()
        }
        other => panic!("{other:?}"),
    }
}

/// Of the whole store: every write raises it.
async fn revision(client: &Client) -> String {
    let functions = function_path("");
    let list = object(client, functions.trim_end_matches('/'))
        .await
        .unwrap();
    assert!(list["items"].as_array().unwrap().is_empty(), "{list}");
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A controller that has just started writes its roles and accounts: the revision after which nothing
/// comes for a second.
async fn revision_at_rest(client: &Client) -> String {
    let mut last = (revision(client).await, Instant::now());
    until("the new controller rests", PATIENCE, async || {
        let now = revision(client).await;
        if now != last.0 {
            last = (now, Instant::now());
        }
        match last.1.elapsed() > Duration::from_secs(1) {
            true => Ok(last.0.clone()),
            false => Err(format!("at {} it still writes", last.0)),
        }
    })
    .await
}

fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
