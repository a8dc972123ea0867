//! Rules about the provider of a Tunnel: what each of them can carry, and what it must be told.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::FieldPath;
use crate::tunnel::{MAX_AUTHORIZED_CLIENTS, Protocol, Provider};
use crate::validate::fields::{list, object, present, text};
use crate::validate::findings::{Findings, quoted};
use crate::validate::{Reason, names};

/// Digits of an account's id at Cloudflare.
const ACCOUNT_DIGITS: usize = 32;
/// What stands before a client's key, as Tor writes it in its files.
const CLIENT_KEY: &str = "descriptor:x25519:";
/// Characters of a key of 32 bytes in base32 without padding.
const CLIENT_KEY_CHARACTERS: usize = 52;

pub(super) fn check(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let provider = match spec.get("provider") {
        None | Some(Value::Null) => Provider::Hive,
        Some(said) => match Provider::deserialize(said) {
            Ok(provider) => provider,
            // The schema has reported it.
            Err(_) => return,
        },
    };
    for (name, of) in [("cloudflare", Provider::Cloudflare), ("tor", Provider::Tor)] {
        if provider != of && present(spec, name) {
            let message = format!(
                "only with provider {}: leave it out, or write provider: {}",
                of.as_str(),
                of.as_str()
            );
            findings.forbidden(&path.field(name), message);
        }
    }
    if !provider.is_hive() {
        check_brought(spec, provider, path, findings);
    }
    match provider {
        Provider::Hive => {}
        Provider::Cloudflare => check_cloudflare(spec, path, findings),
        Provider::Tor => check_tor(spec, path, findings),
    }
}

/// What controllers cannot do who do not take the connections themselves.
fn check_brought(
    spec: &Map<String, Value>,
    provider: Provider,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let name = provider.as_str();
    if present(spec, "tls") {
        let message = format!(
            "only with provider Hive: clients reach {name}, which has its own; leave it out"
        );
        findings.forbidden(&path.field("tls"), message);
    }
    let Some(access) = object(spec, "access") else {
        return;
    };
    for field in ["allowedClients", "rateLimit"] {
        if present(access, field) {
            let message = format!(
                "only with provider Hive: connections come from {name}, whoever the clients are; leave it out"
            );
            findings.forbidden(&path.field("access").field(field), message);
        }
    }
}

fn check_cloudflare(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let protocol = spec.get("protocol").and_then(Value::as_str);
    if protocol.is_some_and(|protocol| protocol != Protocol::Http.as_str()) {
        findings.forbidden(
            &path.field("provider"),
            "Cloudflare carries requests to everybody, other connections only to those who run its own client: write protocol: HTTP, or leave out provider",
        );
    }
    let http = object(spec, "http");
    let is_http = protocol.is_none_or(|protocol| protocol == Protocol::Http.as_str());
    if is_http && http.is_none_or(|http| !present(http, "host") && !present(http, "routes")) {
        findings.push(
            &path.field("http").field("host"),
            Reason::Required,
            "required with provider Cloudflare: name the host, in one of your zones there",
        );
    }
    let at = path.field("cloudflare");
    let Some(fields) = object(spec, "cloudflare") else {
        if !present(spec, "cloudflare") {
            findings.push(
                &at,
                Reason::Required,
                "required with provider Cloudflare: name a Secret with the tunnel's token, such as {secretName: photos-cloudflare}",
            );
        }
        return;
    };
    if let Some(name) = text(fields, "secretName")
        && let Err(why) = names::dns_subdomain(name)
    {
        let message = format!("{} is not the name of a secret: {why}", quoted(name));
        findings.invalid(&at.field("secretName"), message);
    }
    if let Some(account) = text(fields, "accountId") {
        let is_digit = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        if account.len() != ACCOUNT_DIGITS || !account.bytes().all(is_digit) {
            let message = format!(
                "{} is not an account of {ACCOUNT_DIGITS} hexadecimal digits, as the address of its dashboard has it",
                quoted(account)
            );
            findings.invalid(&at.field("accountId"), message);
        }
    }
}

fn check_tor(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let protocol = spec.get("protocol").and_then(Value::as_str);
    let carried = [Protocol::Http.as_str(), Protocol::Tcp.as_str()];
    if protocol.is_some_and(|protocol| !carried.contains(&protocol)) {
        findings.forbidden(
            &path.field("provider"),
            "Tor carries HTTP and TCP: write one of these protocols, or leave out provider",
        );
    }
    let Some(fields) = object(spec, "tor") else {
        return;
    };
    let at = path.field("tor").field("authorizedClients");
    let clients = list(fields, "authorizedClients");
    if clients.len() > MAX_AUTHORIZED_CLIENTS {
        let message = format!(
            "{} clients; an onion service has at most {MAX_AUTHORIZED_CLIENTS}",
            clients.len()
        );
        findings.invalid(&at, message);
    }
    let mut seen = BTreeSet::new();
    for (index, client) in clients.iter().enumerate() {
        let Some(client) = client.as_str() else {
            continue;
        };
        let at = at.index(index);
        let is_base32 = |c: u8| c.is_ascii_alphabetic() || (b'2'..=b'7').contains(&c);
        let key = client.strip_prefix(CLIENT_KEY);
        let is_key = |key: &str| key.len() == CLIENT_KEY_CHARACTERS && key.bytes().all(is_base32);
        if key.is_none_or(|key| !is_key(key)) {
            let message = format!(
                "{} is not a public key such as \"{CLIENT_KEY}<{CLIENT_KEY_CHARACTERS} letters and digits>\"",
                quoted(client)
            );
            findings.invalid(&at, message);
        } else if !seen.insert(client.to_ascii_uppercase()) {
            findings.duplicate(&at, "is there twice; leave one of them out");
        }
    }
}
