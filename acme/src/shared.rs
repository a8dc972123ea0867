//! What the authority knows: accounts, orders, names that are to be proven, certificates.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::jws::Jwk;
use crate::proof::Trouble;
use crate::root::Root;
use crate::{Habits, Kind, Log};

pub struct Shared {
    /// Before the paths of its URLs.
    pub base: String,
    pub root: Root,
    pub habits: watch::Sender<Habits>,
    pub log: watch::Sender<Log>,
    nonces: BTreeSet<String>,
    /// By their keys.
    pub accounts: Vec<Jwk>,
    pub orders: Vec<Order>,
    pub names: Vec<Name>,
    pub certificates: Vec<String>,
}

pub struct Order {
    /// The thumbprint of its account's key.
    pub account: String,
    pub names: BTreeSet<String>,
    /// Of [`Shared::names`].
    pub authorizations: Vec<usize>,
    pub made: Option<Made>,
    pub error: Option<Value>,
}

/// A certificate, and how often an order is still asked for before it is given.
pub struct Made {
    pub certificate: usize,
    pub wait: u32,
}

/// An authorization.
pub struct Name {
    pub account: String,
    pub name: String,
    pub status: &'static str,
    pub challenges: Vec<Challenge>,
}

pub struct Challenge {
    pub kind: Kind,
    pub token: String,
    pub status: &'static str,
    pub error: Option<Value>,
}

/// That a name leads to who ordered a certificate for it.
pub struct Claim {
    /// Of [`Shared::names`], and of its challenges.
    pub at: (usize, usize),
    pub kind: Kind,
    pub name: String,
    pub token: String,
    pub authorization: String,
}

impl Shared {
    pub fn new(base: String, habits: watch::Sender<Habits>) -> Self {
        Self {
            base,
            root: Root::new(),
            habits,
            log: watch::Sender::default(),
            nonces: BTreeSet::new(),
            accounts: Vec::new(),
            orders: Vec::new(),
            names: Vec::new(),
            certificates: Vec::new(),
        }
    }

    pub fn fresh_nonce(&mut self) -> String {
        let nonce = token();
        self.nonces.insert(nonce.clone());
        nonce
    }

    /// Each is good once.
    pub fn takes_nonce(&mut self, nonce: &str) -> bool {
        let mut is_bad = false;
        self.habits.send_if_modified(|habits| {
            is_bad = habits.bad_nonces > 0;
            habits.bad_nonces = habits.bad_nonces.saturating_sub(1);
            is_bad
        });
        self.nonces.remove(nonce) && !is_bad
    }

    /// Notes what came of a claim.
    pub fn conclude(&mut self, claim: &Claim, found: Result<(), Trouble>) {
        let (index, which) = claim.at;
        let name = &mut self.names[index];
        let challenge = &mut name.challenges[which];
        match found {
            Ok(()) => (name.status, challenge.status) = ("valid", "valid"),
            Err((kind, detail)) => {
                (name.status, challenge.status) = ("invalid", "invalid");
                let status = if kind == "unauthorized" { 403 } else { 400 };
                challenge.error = Some(problem(kind, &detail, status));
            }
        }
    }

    pub fn order_status(&self, order: &Order) -> &'static str {
        let statuses: Vec<&str> = order
            .authorizations
            .iter()
            .map(|index| self.names[*index].status)
            .collect();
        match &order.made {
            _ if order.error.is_some() || statuses.contains(&"invalid") => "invalid",
            Some(made) if made.wait > 0 => "processing",
            Some(_) => "valid",
            None if statuses.iter().all(|status| *status == "valid") => "ready",
            None => "pending",
        }
    }
}

/// As in RFC 7807.
pub fn problem(kind: &str, detail: &str, status: u16) -> Value {
    json!({
        "type": format!("urn:ietf:params:acme:error:{kind}"),
        "detail": detail,
        "status": status,
    })
}

/// 128 random bits.
pub fn token() -> String {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system's random source works");
    BASE64.encode(bytes)
}
