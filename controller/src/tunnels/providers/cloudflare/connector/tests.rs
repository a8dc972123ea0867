//! Connectors whose cloudflared is a script, and whose connections to Cloudflare are counted by this process.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use hive_manifests::Resource;
use hive_manifests::tunnel::Provider as Kind;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::*;
use crate::tunnels::providers::Launcher;

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(180);

struct World {
    dir: TempDir,
    standings: Standings,
    stop: CancellationToken,
    ending: TaskTracker,
}

fn key() -> Key {
    Key::new(Resource::Tunnel, "default", "photos")
}

/// Answers at `/ready` as cloudflared does.
async fn answering(connections: Arc<AtomicU32>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let count = connections.load(Ordering::Relaxed);
            let (status, reason) = match count {
                0 => (503, "Service Unavailable"),
                _ => (200, "OK"),
            };
            let body =
                format!(r#"{{"status":{status},"readyConnections":{count},"connectorId":""}}"#);
            let length = body.len();
            let mut lines = BufReader::new(&mut stream).lines();
            while lines
                .next_line()
                .await
                .is_ok_and(|line| line.is_some_and(|it| !it.is_empty()))
            {}
            let answer = format!(
                "HTTP/1.1 {status} {reason}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
            );
            // Whoever asked may be gone.
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    at
}

impl World {
    /// One whose cloudflared does what the script says.
    ///
    /// A process that another test starts while the script is written has it open for a moment more, and the system
    /// runs no file that is open for writing, whatever its name. Then the connector says that it failed, and tries
    /// again: tests wait for what comes after that.
    fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("cloudflared");
        let text = format!("#!/bin/sh\ncd {}\n{script}\n", dir.path().display());
        fs::write(&program, text).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let world = Self {
            dir,
            standings: Standings::default(),
            stop: CancellationToken::new(),
            ending: TaskTracker::new(),
        };
        world.start(program);
        world
    }

    fn start(&self, program: PathBuf) {
        let cloudflared = Cloudflared {
            launcher: Launcher::direct(),
            program,
            ingress: "127.0.0.1:8080".parse().unwrap(),
        };
        let connector = Connector {
            tunnel: key(),
            token: Token::new("eyJhIjoi"),
            cloudflared: Arc::new(cloudflared),
            standings: self.standings.clone(),
            stop: self.stop.clone(),
        };
        connector.start(self.ending.token()).unwrap();
    }

    fn trouble(&self) -> String {
        match self.standings.of(&key(), Kind::Cloudflare).trouble {
            None => "well".to_owned(),
            Some(Trouble { reason, message }) => format!("{reason}: {message}"),
        }
    }

    /// Waits until what is told begins with that.
    async fn says(&self, expected: &str) -> String {
        let waiting = async {
            loop {
                let told = self.trouble();
                if told.starts_with(expected) {
                    return told;
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(DEADLINE, waiting).await {
            Ok(told) => told,
            Err(_) => panic!("expected {expected}, and it says {}", self.trouble()),
        }
    }

    async fn file(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        let waiting = async {
            loop {
                match fs::read_to_string(&path) {
                    Ok(text) if text.ends_with('\n') => return text,
                    _ => sleep(Duration::from_millis(10)).await,
                }
            }
        };
        tokio::time::timeout(DEADLINE, waiting).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.ending.close();
        tokio::time::timeout(DEADLINE, self.ending.wait())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn a_connector_is_well_while_it_has_connections() {
    let connections = Arc::new(AtomicU32::new(0));
    let at = answering(connections.clone()).await;
    let script = format!(
        "echo $$ > pid; echo \"$@\" > arguments; echo $TUNNEL_TOKEN > token; env > environment
         echo '2026-01-01T00:00:00Z ERR no route, token eyJhIjoi' >&2
         echo '2026-01-01T00:00:00Z ERR Configuration file /dev/null was empty' >&2
         echo '2026-01-01T00:00:00Z INF Starting metrics server on {at}/metrics' >&2
         exec sleep 1000"
    );
    let world = World::new(&script);
    let told = world.says("NotConnected").await;
    assert!(
        told.ends_with("it said: ERR no route, token [token]"),
        "{told}"
    );
    connections.store(4, Ordering::Relaxed);
    world.says("well").await;
    connections.store(0, Ordering::Relaxed);
    world.says("NotConnected").await;
    // All may see the command line.
    assert_eq!(
        world.file("arguments").await,
        "tunnel --config /dev/null --no-autoupdate run\n"
    );
    assert_eq!(world.file("token").await, "eyJhIjoi\n");
    let environment = world.file("environment").await;
    assert!(!environment.contains("CARGO"), "{environment}");
    let process = world.file("pid").await;
    let process = format!("/proc/{}/stat", process.trim());
    let is_there = Path::new(&process).exists();
    world.end().await;
    if cfg!(target_os = "linux") {
        assert!(is_there && !Path::new(&process).exists());
    }
}

#[tokio::test]
async fn one_that_ends_is_started_anew_and_says_why() {
    let connections = Arc::new(AtomicU32::new(1));
    let at = answering(connections).await;
    let script = format!(
        "if [ ! -e first ]; then
           touch first
           echo '2026-01-01T00:00:00Z ERR Provided Tunnel token is not valid.' >&2
           exit 3
         fi
         echo 'INF Starting metrics server on {at}/metrics' >&2
         exec sleep 1000"
    );
    let world = World::new(&script);
    let told = world.says("CloudflaredEnded").await;
    assert!(
        told.contains("exit status: 3")
            && told.ends_with("it said: ERR Provided Tunnel token is not valid."),
        "{told}"
    );
    world.says("well").await;
    world.end().await;
}

#[tokio::test]
async fn one_that_does_not_heed_the_wish_to_end_is_ended() {
    let world = World::new("trap '' TERM; echo $$ > pid; while true; do sleep 0.1; done");
    let process = world.file("pid").await;
    let process = format!("/proc/{}/stat", process.trim());
    world.end().await;
    assert!(!Path::new(&process).exists());
}

#[tokio::test]
async fn a_program_that_is_missing_is_told_with_how_to_install_it() {
    let world = World::new("exit 0");
    world.says("CloudflaredEnded").await;
    let other = World {
        dir: tempfile::tempdir().unwrap(),
        standings: Standings::default(),
        stop: CancellationToken::new(),
        ending: TaskTracker::new(),
    };
    other.start(other.dir.path().join("cloudflared"));
    let told = other.says("CloudflaredMissing").await;
    assert!(told.contains("apt install cloudflared"), "{told}");
    world.end().await;
    other.end().await;
}

#[test]
fn lines_are_understood() {
    let at = |line| metrics_of(line).map(|at| at.to_string());
    for (line, expected) in [
        (
            "2026-01-01T00:00:00Z INF Starting metrics server on 127.0.0.1:20241/metrics",
            Some("127.0.0.1:20241"),
        ),
        (
            r#"{"level":"info","message":"Starting metrics server on [::1]:1/metrics"}"#,
            Some("[::1]:1"),
        ),
        ("Starting metrics server on 192.0.2.1:80/metrics", None),
        ("Starting metrics server on somewhere", None),
        ("INF Registered tunnel connection", None),
    ] {
        assert_eq!(at(line).as_deref(), expected, "{line}");
    }
    for (line, expected) in [
        ("2026-01-01T00:00:00Z ERR x", true),
        ("2026-01-01T00:00:00Z WRN x", true),
        ("2026-01-01T00:00:00Z INF an ERR x", false),
        ("", false),
    ] {
        assert_eq!(is_complaint(line), expected, "{line}");
    }
}
