//! What several tests of this crate begin with.

mod alone;

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::objects;
use crate::state::{Command, Key, Member, State, level};
pub use alone::{Alone, nobody};

impl Alone {
    /// It leads a swarm of one, whose controllers have agreed on what this program knows.
    pub async fn start(member: Member) -> Self {
        let alone = Self::leaderless().await;
        alone.replica.bootstrap(member).await.unwrap();
        let raised = Command::RaiseLevel { to: level::OWN };
        alone.replica.propose(raised).await.unwrap();
        alone
    }
}

/// Writes an object of that content as it would be made now, whether it is there already or not.
pub fn declare(state: &mut State, key: Key, content: Value) {
    let body = objects::fresh(&key, json!({}), content);
    put(state, key, &body);
}

/// An object of that content, made when that year began.
pub fn made_in(year: u16, key: &Key, content: Value) -> Value {
    let mut body = objects::fresh(key, json!({}), content);
    body["metadata"]["creationTimestamp"] = json!(format!("{year}-01-01T00:00:00Z"));
    body
}

/// Writes an object, whether it is there already or not.
pub fn put(state: &mut State, key: Key, body: &Value) {
    let body = body.into();
    let command = match state.get(&key) {
        None => Command::Create { key, body },
        Some(_) => Command::Replace {
            key,
            body,
            expect: None,
        },
    };
    state.apply(command).unwrap();
}

/// Changes an object that is there.
pub fn edit(state: &mut State, key: &Key, change: impl FnOnce(&mut Value)) {
    let mut body = state.get(key).unwrap().body().clone();
    change(&mut body);
    put(state, key.clone(), &body);
}

/// Ports of this machine, of TCP and of UDP, that nobody has, nor is given by the system: they lie below those that it
/// gives to who names none, so that no connection takes one before it is listened at, or while nobody is to.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_port())
}

fn free_port() -> u16 {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static ASKED: AtomicU32 = AtomicU32::new(0);
    loop {
        // Each once, and tests of other programs at the same time begin elsewhere.
        let begin = std::process::id().wrapping_mul(97);
        let number = begin.wrapping_add(ASKED.fetch_add(1, Ordering::Relaxed));
        let port = (FIRST + number % COUNT) as u16;
        let at = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
}
