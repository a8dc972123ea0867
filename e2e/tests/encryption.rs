//! What a controller writes to its disk gives no secret away; keys come and go while it runs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_e2e::Swarm;
use hive_e2e::swarm::object;
use hive_e2e::wait::{PATIENCE, holds, until};
use http::Request;
use rustix::process::Signal;
use serde_json::{Value, json};

const MARKER: &str = "swordfish-4711-nobody-may-read-this-on-a-disk";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn write_secret(swarm: &mut Swarm, name: &str) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
        "data": { "password": BASE64.encode(MARKER) },
    });
    let request = Request::post(SECRETS)
        .header("content-type", "application/json")
        .body(secret.to_string().into_bytes())
        .unwrap();
    let client = swarm.client().await;
    client.request::<Value>(request).await.unwrap();
}

async fn read_secret(swarm: &mut Swarm, name: &str) -> String {
    let client = swarm.client().await;
    let path = format!("{SECRETS}/{name}");
    let secret = until("the secret is readable", PATIENCE, async || {
        object(&client, &path).await
    })
    .await;
    secret["data"]["password"].as_str().unwrap().to_owned()
}

fn files_below(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            // A segment or a snapshot may be gone by now.
            files.insert(path, bytes);
        }
    }
    files
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

/// What compressed streams in a file hold.
fn unpacked(bytes: &[u8]) -> Vec<u8> {
    const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let mut all = Vec::new();
    for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&ZSTD)) {
        let mut stream = zstd::Decoder::new(&bytes[at..]).unwrap().single_frame();
        // Garbage that looks like a beginning ends in an error, behind what could be read.
        let _ = std::io::copy(&mut stream, &mut all);
    }
    all
}

/// The files that give the marker away, or a private key.
fn leaks(dir: &Path) -> Vec<PathBuf> {
    let encoded = BASE64.encode(MARKER);
    let shows = |bytes: &[u8]| {
        contains(bytes, MARKER) || contains(bytes, &encoded) || contains(bytes, "PRIVATE KEY")
    };
    files_below(dir)
        .into_iter()
        .filter(|(_, bytes)| shows(bytes) || shows(&unpacked(bytes)))
        .map(|(path, _)| path)
        .collect()
}

fn all_leaks(swarm: &Swarm) -> Vec<PathBuf> {
    let dirs = swarm.controllers.iter().map(|one| one.member.dir.clone());
    dirs.flat_map(|dir| leaks(&dir)).collect()
}

fn is_of(path: &Path, part: &str) -> bool {
    path.components()
        .any(|component| component.as_os_str() == part)
}

fn key_file(swarm: &Swarm, name: &str) -> PathBuf {
    swarm.path().join(format!("{name}.keys"))
}

async fn status(swarm: &Swarm, name: &str) -> String {
    let status = swarm
        .controller_command(name, &["encryption", "status"], "")
        .await;
    status.ok().to_owned()
}

/// Waits until `encryption status` has a line with all of these parts, and nothing is left to do.
async fn settled(swarm: &Swarm, name: &str, parts: &[&str]) {
    until("all files are written anew", PATIENCE, async || {
        let status = status(swarm, name).await;
        let line = status
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)));
        holds(line && !status.contains("written anew"), status)
    })
    .await;
}

fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    let keys = text.lines().filter(|line| !line.starts_with('#'));
    keys.map(str::to_owned).collect()
}

fn set_lines(path: &Path, lines: &[&str]) {
    // The mode stays.
    std::fs::write(path, lines.join("\n")).unwrap();
}

async fn put_new_key_first(file: &Path) {
    let mut generate = tokio::process::Command::new(hive_e2e::program::hive());
    generate.args(["controller", "encryption", "generate-key", "--first-in"]);
    generate.arg(file);
    hive_e2e::ctl::run(generate, "").await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_on_a_disk_and_keys_are_changed_while_it_runs() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    write_secret(&mut swarm, "first").await;
    assert_eq!(all_leaks(&swarm), Vec::<PathBuf>::new());
    let name = swarm.controllers[1].member.name.clone();
    let file = key_file(&swarm, &name);
    let old = lines(&file);
    assert_eq!(old.len(), 1);
    settled(&swarm, &name, &["seals what is written"]).await;

    // A new key comes first. Everything is written anew without a restart.
    put_new_key_first(&file).await;
    let path = file.display().to_string();
    let both = lines(&file);
    assert_eq!(both[1..], old);
    swarm.controllers[1].member.signal(Signal::HUP);
    settled(&swarm, &name, &["can be removed"]).await;
    write_secret(&mut swarm, "second").await;
    assert_eq!(all_leaks(&swarm), Vec::<PathBuf>::new());

    // So the old one is not needed any more; the new one is.
    swarm.controllers[1].member.stop().await;
    let before = files_below(&swarm.controllers[1].member.dir);
    set_lines(&file, &[&old[0]]);
    let wrong = swarm.controller_command(&name, &["run"], "").await;
    wrong.fails(&["--encryption-key-file", &path, "does not hold"]);
    std::fs::rename(&file, swarm.path().join("elsewhere")).unwrap();
    for command in ["run", "leave"] {
        let missing = swarm.controller_command(&name, &[command], "").await;
        missing.fails(&["--encryption-key-file", &path]);
    }
    assert_eq!(
        files_below(&swarm.controllers[1].member.dir),
        before,
        "nothing was changed"
    );
    std::fs::rename(swarm.path().join("elsewhere"), &file).unwrap();
    set_lines(&file, &[&both[0]]);
    swarm.controllers[1].member.start();
    swarm.controller_ready(1).await;
    for written in ["first", "second"] {
        assert_eq!(
            read_secret(&mut swarm, written).await,
            BASE64.encode(MARKER)
        );
    }

    // A key file that cannot be used, or lacks a key in use, changes nothing in one that runs.
    set_lines(&file, &[&old[0]]);
    swarm.controllers[1].member.signal(Signal::HUP);
    let member = &swarm.controllers[1].member;
    until("it says that it goes on", PATIENCE, async || {
        let log = member.log_of_this_run();
        holds(
            log.contains("goes on with the encryption keys from before"),
            log,
        )
    })
    .await;
    write_secret(&mut swarm, "third").await;

    // Back to no encryption: this is what the searches above would have found.
    set_lines(&file, &["identity", &both[0]]);
    swarm.controllers[1].member.signal(Signal::HUP);
    settled(&swarm, &name, &["none", "not encrypted"]).await;
    write_secret(&mut swarm, "fourth").await;
    let dir = swarm.controllers[1].member.dir.clone();
    for part in ["log", "snapshots", "identity"] {
        until(&format!("{part} shows"), PATIENCE, async || {
            let found = leaks(&dir);
            holds(
                found.iter().any(|path| is_of(path, part)),
                format!("{found:?}"),
            )
        })
        .await;
    }
    assert_eq!(
        leaks(&swarm.controllers[0].member.dir),
        Vec::<PathBuf>::new()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_from_before_is_encrypted_when_it_is_given_keys() {
    let mut swarm = Swarm::builder()
        .agents(0)
        .controllers(1)
        .make_flag("--no-encryption")
        .start()
        .await;
    write_secret(&mut swarm, "plain").await;
    let name = swarm.controllers[0].member.name.clone();
    let dir = swarm.controllers[0].member.dir.clone();
    assert!(leaks(&dir).iter().any(|path| is_of(path, "log")));
    assert!(status(&swarm, &name).await.contains("nothing is encrypted"));
    swarm.controllers[0].member.stop().await;

    let inside = dir.join("keys").display().to_string();
    let refused = ["run", "--encryption-key-file", &inside];
    let refused = swarm.controller_command(&name, &refused, "").await;
    refused.fails(&["protects nothing"]);

    let file = swarm.path().join("apart/keys");
    std::fs::create_dir(swarm.path().join("apart")).unwrap();
    put_new_key_first(&file).await;
    let path = file.display().to_string();
    let member = &mut swarm.controllers[0].member;
    member.variable("HIVE_ENCRYPTION_KEY_FILE", &path);
    member.start();
    swarm.controller_ready(0).await;
    // The file was noted, so that no other command needs to be told.
    settled(&swarm, &name, &["seals what is written"]).await;
    assert_eq!(leaks(&dir), Vec::<PathBuf>::new());
    assert_eq!(
        read_secret(&mut swarm, "plain").await,
        BASE64.encode(MARKER)
    );
    swarm.controllers[0].member.stop().await;
    std::fs::remove_file(&file).unwrap();
    let missing = swarm.controller_command(&name, &["run"], "").await;
    missing.fails(&["--encryption-key-file", &path]);
}
