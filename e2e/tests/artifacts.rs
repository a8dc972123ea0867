//! Components on their way: to a majority of controllers, and from them to nodes, in pieces.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use hive_e2e::swarm::{ASSIGNMENTS, Agent, condition, object};
use hive_e2e::wait::{PATIENCE, holds, until};
use hive_e2e::web::get;
use hive_e2e::{Steps, Swarm, guests};
use hive_identity::CaCertificate;
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use rustix::process::Signal;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

/// To cut a download before it is over; most are caught at once.
const ATTEMPTS: usize = 20;

fn hex(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn path(digest: &str) -> String {
    format!("/apis/hive.dev/v1/artifacts/{digest}")
}

async fn send(client: &Client, method: Method, digest: &str, body: Body) -> (u16, String) {
    let request = Request::builder()
        .method(method)
        .uri(path(digest))
        .body(body)
        .unwrap();
    let response = client.send(request).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect_bytes().await.unwrap();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_are_whole_and_on_a_majority() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    let bytes = std::fs::read(guests::probe().component).unwrap();
    let digest = hex(&bytes);
    let mut steps = Steps::new();

    steps
        .run("a file that lacks its end is refused", async {
            let client = swarm.client_of(0).await;
            let half = bytes[..bytes.len() / 2].to_vec();
            let (status, message) = send(&client, Method::PUT, &digest, half.into()).await;
            assert_eq!(status, 400, "{message}");
            assert!(message.contains("was the upload cut short"), "{message}");
            nothing_of(&swarm, &client, &digest).await;
        })
        .await;
    steps
        .run("an upload that breaks off leaves nothing", async {
            let client = swarm.client_of(1).await;
            let half = &bytes[..bytes.len() / 2];
            break_off(&swarm, 1, &path(&digest), bytes.len(), half).await;
            nothing_of(&swarm, &client, &digest).await;
        })
        .await;
    steps
        .run(
            "an upload is on a majority when it is acknowledged",
            async {
                let client = swarm.client_of(2).await;
                let (status, message) =
                    send(&client, Method::PUT, &digest, bytes.clone().into()).await;
                let holders = holders(&swarm, &digest);
                assert_eq!(status, 201, "{message}");
                assert!(holders.len() >= 2, "only {holders:?} hold it");
                for path in &holders {
                    assert_eq!(hex(&std::fs::read(path).unwrap()), digest, "{path:?}");
                }
                println!("  held by {} of 3 at the acknowledgement", holders.len());
            },
        )
        .await;
    steps
        .run("the controller that missed it gets it", async {
            until("all three hold the artifact", PATIENCE, async || {
                let count = holders_of(&swarm, &digest);
                holds(count == 3, format!("{count} do"))
            })
            .await;
        })
        .await;
    steps
        .run("without a majority nothing is acknowledged", async {
            for index in [0, 1] {
                swarm.controllers[index].member.kill9().await;
            }
            let client = swarm.client_of(2).await;
            let other = std::fs::read(guests::hello().component).unwrap();
            let (status, message) = send(&client, Method::PUT, &hex(&other), other.into()).await;
            assert_eq!(status, 503, "{message}");
        })
        .await;
    steps.finish();
}

/// A PUT that announces `length` bytes, sends only `bytes`, and closes the connection.
async fn break_off(swarm: &Swarm, controller: usize, path: &str, length: usize, bytes: &[u8]) {
    let controller = &swarm.controllers[controller];
    let pem = std::fs::read_to_string(controller.member.dir.join("identity/ca.crt")).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CaCertificate::from_pem(&pem).unwrap().der().clone())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(controller.api_address()).await.unwrap();
    let name = "127.0.0.1".try_into().unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let mut connection = connector.connect(name, tcp).await.unwrap();
    let token = swarm.admin_token();
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: hive\r\nauthorization: Bearer {token}\r\n\
         content-length: {length}\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection.flush().await.unwrap();
}

/// The files of an artifact on the controllers' disks.
fn holders(swarm: &Swarm, digest: &str) -> Vec<PathBuf> {
    swarm
        .controllers
        .iter()
        .map(|controller| controller.member.dir.join("artifacts").join(digest))
        .filter(|path| path.exists())
        .collect()
}

fn holders_of(swarm: &Swarm, digest: &str) -> usize {
    holders(swarm, digest).len()
}

async fn nothing_of(swarm: &Swarm, client: &Client, digest: &str) {
    let (status, _) = send(client, Method::HEAD, digest, Body::empty()).await;
    assert_eq!(status, 404);
    until("nothing of it is left on any disk", PATIENCE, async || {
        let left: Vec<PathBuf> = swarm
            .controllers
            .iter()
            .flat_map(|controller| files(&controller.member.dir.join("artifacts")))
            .collect();
        holds(left.is_empty(), format!("{left:?}"))
    })
    .await;
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_cut_in_the_middle_goes_on_where_it_was() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    let uses = (2 * ATTEMPTS).to_string();
    let token = swarm.token(&["--uses", &uses]).await;
    // Compiles to some megabytes: long enough on its way to be cut.
    let spec = json!({ "everyNode": true });
    let manifest = swarm.manifest("js", &guests::javascript_p3(), spec);
    swarm
        .ctl(&["apply", "-f", manifest.to_str().unwrap()])
        .await
        .ok();
    let mut steps = Steps::new();
    steps
        .run("the agent is killed", async {
            let (mut agent, frozen) = frozen_in_the_middle(&mut swarm, "killed", &token).await;
            agent.member.kill9().await;
            agent.member.start();
            resumed(&mut swarm, &agent, &frozen).await;
        })
        .await;
    steps
        .run("all controllers are killed", async {
            let (mut agent, frozen) = frozen_in_the_middle(&mut swarm, "cut-off", &token).await;
            for controller in &mut swarm.controllers {
                controller.member.kill9().await;
            }
            agent.member.signal(Signal::CONT);
            for controller in &mut swarm.controllers {
                controller.member.start();
            }
            resumed(&mut swarm, &agent, &frozen).await;
            assert!(agent.member.is_running());
        })
        .await;
    steps.finish();
}

fn joining(swarm: &mut Swarm, name: &str, token: &str) -> Agent {
    let mut agent = swarm.new_agent(name, token);
    agent.member.variable("HIVE_LOG", "info,hive_agent=debug");
    agent
}

/// What had come when the agent was stopped in its tracks.
struct Frozen {
    digest: String,
    received: u64,
}

/// An agent that is stopped after the first bytes of an artifact and long before the last ones: what was sent to it
/// and not read yet must not be all the rest. On loopback a download is a matter of milliseconds: an agent that was
/// faster than this test makes room for another.
async fn frozen_in_the_middle(swarm: &mut Swarm, name: &str, token: &str) -> (Agent, Frozen) {
    for attempt in 1..=ATTEMPTS {
        let mut agent = joining(swarm, &format!("{name}-{attempt}"), token);
        agent.member.start();
        if let Some(frozen) = freeze(&agent).await
            && frozen.received < whole_size(swarm, &frozen.digest) / 2
        {
            return (agent, frozen);
        }
        println!("  {} was faster than this test", agent.member.name);
        agent.member.kill9().await;
    }
    panic!("{ATTEMPTS} downloads were over before they could be cut");
}

/// Of an artifact that controllers hold.
fn whole_size(swarm: &Swarm, digest: &str) -> u64 {
    let held = holders(swarm, digest).into_iter().next();
    let held = held.expect("who was asked for it holds it");
    held.metadata().unwrap().len()
}

/// `None` if the download was over before.
async fn freeze(agent: &Agent) -> Option<Frozen> {
    let dir = agent.member.dir.join("artifacts");
    let part = tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            for path in files(&dir) {
                let is_part = path.extension().is_some_and(|suffix| suffix == "part");
                match path.metadata() {
                    Ok(_) if !is_part => return None,
                    Ok(found) if found.len() > 0 => return Some(path),
                    _ => {}
                }
            }
            std::thread::yield_now();
        }
        panic!("no download began");
    })
    .await
    .unwrap()?;
    agent.member.signal(Signal::STOP);
    let received = part.metadata().ok()?.len();
    let digest = part.file_stem().unwrap().to_str().unwrap().to_owned();
    Some(Frozen { digest, received })
}

/// Waits until the function is loaded, and checks from where the rest was asked for.
async fn resumed(swarm: &mut Swarm, agent: &Agent, frozen: &Frozen) {
    let client = swarm.client().await;
    let path = format!("{ASSIGNMENTS}/js.{}", agent.member.name);
    until("the function is ready", PATIENCE, async || {
        let assignment = object(&client, &path).await?;
        holds(
            condition(&assignment, "Ready") == "True",
            &assignment["status"],
        )
    })
    .await;
    let log = agent.member.log();
    let offsets: Vec<u64> = log
        .lines()
        .filter(|line| line.contains("fetching") && line.contains(&frozen.digest))
        .filter_map(|line| {
            line.split_once(" offset=")?
                .1
                .split(' ')
                .next()?
                .parse()
                .ok()
        })
        .collect();
    println!(
        "  frozen at {} bytes; asked from {offsets:?}",
        frozen.received
    );
    let (first, rest) = offsets.split_first().expect("a download began");
    assert_eq!(*first, 0);
    assert!(
        !rest.is_empty(),
        "the download was never cut: the fault did not happen"
    );
    assert!(
        rest.iter().all(|offset| *offset >= frozen.received),
        "bytes were asked for twice"
    );
    let whole = agent.member.dir.join("artifacts").join(&frozen.digest);
    assert_eq!(hex(&std::fs::read(whole).unwrap()), frozen.digest);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_code_of_an_idle_function_may_rot_and_comes_again() {
    let mut swarm = Swarm::builder().agents(0).start().await;
    let token = swarm.token(&[]).await;
    let mut agent = swarm.new_agent("pi", &token);
    agent.member.variable("HIVE_IDLE_AFTER", "1s");
    agent.member.start();
    let dir = agent.member.dir.join("artifacts");
    swarm.agents.push(agent);
    swarm.deploy("hello", &guests::hello(), json!({})).await;
    swarm.function_ready("hello").await;
    let is_artifact = |path: &PathBuf| path.extension().is_none();
    let file = files(&dir).into_iter().find(is_artifact).unwrap();
    let digest = file.file_name().unwrap().to_str().unwrap().to_owned();

    let maps = format!("/proc/{}/maps", swarm.agents[0].member.pid());
    until("its code is given back", PATIENCE, async || {
        let maps = std::fs::read_to_string(&maps).unwrap();
        holds(!maps.contains(&digest), "it is mapped")
    })
    .await;
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, &bytes).unwrap();

    let address = swarm.agents[0].address();
    let refused = get(&address, "hello.default.localhost", "/").await.unwrap();
    assert_eq!(refused.status, 503, "{}", refused.text());
    until("it answers again", PATIENCE, async || {
        let answer = get(&address, "hello.default.localhost", "/").await;
        answer.map_err(|error| error.to_string())?.ok()
    })
    .await;
    assert_eq!(hex(&std::fs::read(&file).unwrap()), digest);
}
