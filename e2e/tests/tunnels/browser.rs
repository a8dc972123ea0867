//! A browser, which opens a page through an HTTP tunnel, and a WebSocket from it.

use std::io::{Error, Result};
use std::net::Ipv4Addr;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hive_e2e::Swarm;
use hive_e2e::wait::{PATIENCE, holds, until};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::debian;
use crate::declared::{declare, proven, target};
use crate::websocket::{self, ACCEPT, KEY};

const HOST: &str = "page.localhost";

/// Says hello on a WebSocket, and tells on it what it heard there.
const PAGE: &str = "<!doctype html><title>page</title><script>
const socket = new WebSocket(`ws://${location.host}/socket`);
socket.onopen = () => socket.send('hello from a browser');
socket.onmessage = (event) => socket.send(`heard ${event.data}`);
</script>
";
const HELLO: &str = "hello from a browser";
const ANSWER: &str = "the service";

/// What a server puts behind a client's key (RFC 6455, 1.3).
const MAGIC: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// No head that a browser sends is longer.
const MAX_HEAD_BYTES: usize = 64 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_talks_on_a_websocket() {
    assert_eq!(accept(KEY), ACCEPT);
    let names = ["chromium-headless-shell", "chromium"];
    let test = "a browser's WebSocket through an HTTP tunnel";
    let Some(browser) = debian::program(test, &names, names[0]).await else {
        return;
    };
    // The first controller alone, at the address that browsers take names below localhost for.
    let mut swarm = Swarm::builder().controllers(1).agents(1).start().await;
    let port = swarm.take_port();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let _serving = serve(listener.unwrap(), heard.clone());
    let spec = json!({ "http": { "host": HOST }, "targets": [target("node-1", port)] });
    declare(&swarm, "page", spec).await;
    proven(&swarm, "page").await;
    let mut command = Command::new(browser);
    let profile = swarm.path().join("profile");
    command
        // Root may not have its sandbox; the page is ours.
        .args(["--headless", "--no-sandbox", "--disable-gpu"])
        .args(["--disable-dev-shm-usage", "--no-proxy-server"])
        // With it the browser stays when the page is there.
        .arg("--remote-debugging-port=0")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://{HOST}:{}/", swarm.controllers[0].ingress))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let mut running = command.spawn().unwrap();
    until("the page tells what it heard", PATIENCE, async || {
        let ended = running.try_wait().ok().flatten();
        assert!(ended.is_none(), "the browser ended: {ended:?}");
        let heard = heard.lock().unwrap().clone();
        let expected = [HELLO.to_owned(), format!("heard {ANSWER}")];
        holds(heard == expected, format!("{heard:?}"))
    })
    .await;
    running.kill().await.unwrap();
}

/// The page, and its WebSocket, until dropped.
fn serve(listener: TcpListener, heard: Arc<Mutex<Vec<String>>>) -> JoinSet<()> {
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let heard = heard.clone();
            connections.spawn(async move {
                // However it ends: who asked is told by that.
                let _ = answer(stream, &heard).await;
            });
        }
    });
    serving
}

async fn answer(mut stream: TcpStream, heard: &Mutex<Vec<String>>) -> Result<()> {
    let head = head(&mut stream).await?;
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    if !first.starts_with("GET /socket ") {
        let length = PAGE.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{PAGE}"
        );
        stream.write_all(answer.as_bytes()).await?;
        return stream.shutdown().await;
    }
    let mut headers = lines.filter_map(|line| line.split_once(':'));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"));
    let (_, key) = key.ok_or_else(|| Error::other("no key"))?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: {}\r\n\r\n",
        accept(key.trim())
    );
    stream.write_all(answer.as_bytes()).await?;
    loop {
        let said = websocket::receive(&mut stream).await?;
        let is_hello = said == HELLO;
        heard.lock().unwrap().push(said);
        if is_hello {
            websocket::send(&mut stream, ANSWER, None).await?;
        }
    }
}

/// Reads a request's, and not a byte more.
async fn head(stream: &mut TcpStream) -> Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD_BYTES {
            return Err(Error::other("a head without an end"));
        }
        head.push(stream.read_u8().await?);
    }
    String::from_utf8(head).map_err(Error::other)
}

/// By which a server shows that it knows what a WebSocket is.
fn accept(key: &str) -> String {
    let text = format!("{key}{MAGIC}");
    STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()))
}
