//! Connections through a controller to targets on nodes, whose agents are this process.

#![allow(clippy::unwrap_used)]

mod carried;
mod checked;
mod datagrams;
mod guarded;
mod ports;

use std::sync::Arc;
use std::time::Duration;

use hive_manifests::Resource;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::fake_agent;
use super::live::Live;
use super::table::Table;
use super::{Tunnels, carry};
use crate::fixture::free_ports;
use crate::gateway::Links;
use crate::objects;
use crate::state::{Command, Key, State};

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(180);

/// A controller's tunnels, with the node `pi` linked to it.
struct World {
    state: State,
    tunnels: Tunnels,
}

fn key(name: &str) -> Key {
    Key::new(Resource::Tunnel, "default", name)
}

fn on(node: &str, port: u16) -> Value {
    json!({ "node": node, "port": port })
}

fn target(port: u16) -> Value {
    on("pi", port)
}

fn port(of: &TcpListener) -> u16 {
    of.local_addr().unwrap().port()
}

impl World {
    fn new() -> Self {
        let links = Links::default();
        fake_agent::join(&links, "pi");
        Self {
            state: State::default(),
            tunnels: Tunnels::new(links),
        }
    }

    /// Declares a TCP tunnel to targets, or another spec of it.
    fn declare(&mut self, name: &str, targets: Value, more: Value) -> Arc<Live> {
        let mut spec = json!({ "protocol": "TCP", "port": 2222, "targets": targets });
        let fields = more.as_object().unwrap().clone();
        spec.as_object_mut().unwrap().extend(fields);
        let key = key(name);
        let command = match self.state.get(&key) {
            None => {
                let body = objects::fresh(&key, json!({}), json!({ "spec": spec })).into();
                Command::Create { key, body }
            }
            Some(known) => {
                let mut body = known.body().clone();
                body["spec"] = spec;
                let (body, expect) = (body.into(), None);
                Command::Replace { key, body, expect }
            }
        };
        self.apply(command);
        self.live(name)
    }

    fn delete(&mut self, name: &str) {
        let (key, expect, uid) = (key(name), None, None);
        self.apply(Command::Delete { key, expect, uid });
    }

    fn apply(&mut self, command: Command) {
        self.state.apply(command).unwrap();
        self.tunnels.take(&self.table());
    }

    fn table(&self) -> Table {
        Table::of(&self.state)
    }

    fn live(&self, name: &str) -> Arc<Live> {
        self.tunnels.get(&key(name)).unwrap()
    }

    /// A client of a tunnel.
    async fn connect(&self, live: &Arc<Live>) -> TcpStream {
        self.connect_after(live, b"").await
    }

    /// One of whom something was read before.
    async fn connect_after(&self, live: &Arc<Live>, said: &[u8]) -> TcpStream {
        let listener = listen().await;
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(client, listener.accept());
        let (stream, from) = accepted.unwrap();
        let said = said.to_vec();
        let client_there = carry::Client { stream, from, said };
        let carried = carry::carry(self.tunnels.clone(), live.clone(), client_there);
        self.tunnels.spawn(carried);
        client.unwrap()
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Says its name and then what it is told, at the port that is returned.
async fn echoing(name: &'static str) -> u16 {
    let listener = listen().await;
    let port = port(&listener);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if stream.write_all(name.as_bytes()).await.is_ok() {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                }
            });
        }
    });
    port
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(DEADLINE, future).await;
    done.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    soon(what, waiting).await;
}

/// Reads as much as is expected, and finds it there.
async fn hears(client: &mut TcpStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    let heard = soon(expected, async {
        client.read_exact(&mut heard).await.unwrap();
        heard
    });
    assert_eq!(String::from_utf8(heard.await).unwrap(), expected);
}

/// The connection broke, rather than end.
async fn breaks(client: &mut TcpStream) {
    let mut rest = Vec::new();
    let read = soon("a connection to break", client.read_to_end(&mut rest));
    read.await.unwrap_err();
}
