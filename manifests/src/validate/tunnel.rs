//! Rules about a Tunnel's spec that its schema cannot express.
//!
//! What is not heeded may not be said. What the defaults say is let pass: it is still there when a tunnel
//! goes over to the other protocol, or from targets to a function.

mod access;
mod provider;
mod tls;
mod udp;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::fields::{check_duration, check_size, list, object, present, text};
use super::findings::{Findings, quoted};
use super::{Reason, hosts, http, names};
use crate::FieldPath;
use crate::duration::GoDuration;
use crate::http::Http;
use crate::tunnel::{
    MAX_BANDWIDTH, MAX_CONNECT_TIMEOUT, MAX_HEALTH_INTERVAL, MAX_IDLE_TIMEOUT, MAX_TARGETS,
    MIN_BANDWIDTH, MIN_CONNECT_TIMEOUT, MIN_HEALTH_INTERVAL, MIN_IDLE_TIMEOUT, MIN_PORT, Protocol,
    ProxyProtocol, TunnelSpec, default_host,
};

pub(super) fn check(value: &Value, findings: &mut Findings) {
    let path = FieldPath::of(["spec"]);
    let Some(spec) = value.get("spec").and_then(Value::as_object) else {
        return;
    };
    match read(spec, "protocol") {
        None if present(spec, "protocol") => {}
        None | Some(Protocol::Http) => check_http(spec, &path, findings),
        Some(Protocol::Tls) => check_tls(spec, &path, findings),
        Some(protocol @ (Protocol::Tcp | Protocol::Udp)) => {
            check_port(spec, protocol, &path, findings);
        }
    }
    provider::check(spec, &path, findings);
    check_service(spec, &path, findings);
    check_limits(spec, &path, findings);
    if let Some(fields) = object(spec, "access") {
        access::check(spec, fields, &path.field("access"), findings);
    }
    if let Some(health) = object(spec, "healthCheck") {
        let path = path.field("healthCheck");
        let interval = MIN_HEALTH_INTERVAL..=MAX_HEALTH_INTERVAL;
        check_duration(health, "interval", interval, &path, findings);
        let timeout = MIN_CONNECT_TIMEOUT..=MAX_CONNECT_TIMEOUT;
        check_duration(health, "timeout", timeout, &path, findings);
        if let Some(target) = text(health, "path")
            && !http::is_request_target(target)
        {
            let message = format!("{} is not a path such as \"/healthz\"", quoted(target));
            findings.invalid(&path.field("path"), message);
        }
        if let Some(payload) = text(health, "payload") {
            let protocol = read(spec, "protocol");
            udp::check_payload(payload, protocol, &path.field("payload"), findings);
        }
    }
}

/// The field's value, if it is one of those that there are.
fn read<'a, T: Deserialize<'a>>(spec: &'a Map<String, Value>, name: &str) -> Option<T> {
    T::deserialize(spec.get(name)?).ok()
}

fn check_http(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(fields) = object(spec, "http") {
        http::check(fields, &path.field("http"), findings);
    }
    if present(spec, "port") {
        findings.forbidden(
            &path.field("port"),
            "only with protocol TCP or UDP: with HTTP the tunnel is reached by its host; leave it out, or write protocol: TCP",
        );
    }
    tls::check_served(spec, path, findings);
    if read(spec, "proxyProtocol").is_some_and(|said: ProxyProtocol| !said.is_none()) {
        findings.forbidden(
            &path.field("proxyProtocol"),
            "only with protocol TCP or TLS: with HTTP the header X-Forwarded-For says who the client is; leave it out",
        );
    }
}

/// What is reached at a port of its own.
fn check_port(
    spec: &Map<String, Value>,
    protocol: Protocol,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let name = protocol.as_str();
    let is_udp = protocol == Protocol::Udp;
    if !present(spec, "port") {
        findings.push(
            &path.field("port"),
            Reason::Required,
            format!(
                "required with protocol {name}: name the port, from {MIN_PORT} to {}, where every controller listens",
                u16::MAX
            ),
        );
    }
    if spec.get("http").is_some_and(says_something) {
        findings.forbidden(
            &path.field("http"),
            match is_udp {
                true => "only with protocol HTTP: a datagram names no host; leave it out, or write protocol: HTTP",
                false => "only with protocol HTTP: a TCP connection names no host; leave it out, or write protocol: HTTP",
            },
        );
    }
    if present(spec, "serverNames") {
        let message = format!(
            "only with protocol TLS: {name} names no host; leave it out, or write protocol: TLS"
        );
        findings.forbidden(&path.field("serverNames"), &message);
    }
    check_unread(spec, path, findings);
    if is_udp {
        udp::check(spec, path, findings);
    }
}

fn check_tls(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    tls::check_names(spec, path, findings);
    if present(spec, "port") {
        findings.forbidden(
            &path.field("port"),
            "only with protocol TCP: with TLS the tunnel is reached by its serverNames at the controllers' TLS port; \
             leave it out, or write protocol: TCP",
        );
    }
    if spec.get("http").is_some_and(says_something) {
        findings.forbidden(
            &path.field("http"),
            "only with protocol HTTP: with TLS nobody but the target reads requests; name hosts in serverNames, or \
             write protocol: HTTP",
        );
    }
    check_unread(spec, path, findings);
}

/// What is not for those that read nothing of what they carry.
fn check_unread(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    tls::check_unserved(spec, path, findings);
    if present(spec, "function") {
        findings.forbidden(
            &path.field("function"),
            "only with protocol HTTP: functions answer requests; name targets, or write protocol: HTTP",
        );
    }
    if object(spec, "healthCheck").is_some_and(|health| present(health, "path")) {
        findings.forbidden(
            &path.field("healthCheck").field("path"),
            "only with protocol HTTP: elsewhere a target is well if it takes a connection, with UDP if it answers \
             healthCheck.payload; leave it out",
        );
    }
}

/// Something that a default would not say.
fn says_something(http: &Value) -> bool {
    let Some(fields) = http.as_object() else {
        return false;
    };
    let default = json!(Http::default());
    fields
        .iter()
        .any(|(name, value)| !value.is_null() && Some(value) != default.get(name))
}

/// What answers: targets, or a function.
fn check_service(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let targets = list(spec, "targets");
    check_targets(targets, &path.field("targets"), findings);
    if !present(spec, "function") {
        // Something other than a list is reported by the schema.
        if targets.is_empty()
            && spec
                .get("targets")
                .is_none_or(|it| it.is_null() || it.is_array())
        {
            findings.push(
                &path.field("targets"),
                Reason::Required,
                "say where the service listens: a node and a port, such as {node: pi-3, port: 3000}; or with HTTP name a function",
            );
        }
        return;
    }
    if let Some(name) = text(spec, "function")
        && let Err(why) = names::dns_label(name)
    {
        let message = format!("{} is not the name of a function: {why}", quoted(name));
        findings.invalid(&path.field("function"), message);
    }
    if !targets.is_empty() {
        findings.forbidden(
            &path.field("function"),
            "not together with targets; keep one of them",
        );
    }
    let default = json!(TunnelSpec::default());
    if present(spec, "targetProtocol") && spec.get("targetProtocol") != Some(&json!("HTTP1")) {
        findings.forbidden(
            &path.field("targetProtocol"),
            "not together with function, which is reached as functions are; leave it out",
        );
    }
    for name in [
        "connectTimeout",
        "idleTimeout",
        "maxConnections",
        "bandwidth",
    ] {
        if present(spec, name) && spec.get(name) != default.get(name) {
            findings.forbidden(
                &path.field(name),
                "not together with function, which has limits of its own; leave it out",
            );
        }
    }
}

fn check_targets(targets: &[Value], path: &FieldPath, findings: &mut Findings) {
    if targets.len() > MAX_TARGETS {
        let message = format!(
            "{} targets; a tunnel has at most {MAX_TARGETS}: leave some out, or make a second tunnel",
            targets.len()
        );
        findings.invalid(path, message);
    }
    let mut seen = BTreeSet::new();
    for (index, target) in targets.iter().enumerate() {
        let Some(target) = target.as_object() else {
            continue;
        };
        let path = path.index(index);
        if let Some(node) = text(target, "node")
            && let Err(why) = names::dns_label(node)
        {
            let message = format!("{} is not the name of a node: {why}", quoted(node));
            findings.invalid(&path.field("node"), message);
        }
        if let Some(host) = text(target, "host") {
            hosts::check_reached(host, &path.field("host"), findings);
        }
        let host = text(target, "host").map_or_else(default_host, str::to_owned);
        if let (Some(node), Some(port)) = (text(target, "node"), target.get("port"))
            && !seen.insert((node, host, port.to_string()))
        {
            findings.duplicate(&path, "is there twice; leave one of them out");
        }
    }
}

fn check_limits(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let connect = MIN_CONNECT_TIMEOUT..=MAX_CONNECT_TIMEOUT;
    check_duration(spec, "connectTimeout", connect, path, findings);
    if let Some(said) = text(spec, "idleTimeout") {
        let path = path.field("idleTimeout");
        match said.parse::<GoDuration>() {
            Err(error) => findings.invalid(&path, format!("{}: {error}", quoted(said))),
            Ok(GoDuration(limit))
                if !limit.is_zero() && !(MIN_IDLE_TIMEOUT..=MAX_IDLE_TIMEOUT).contains(&limit) =>
            {
                let message = format!(
                    "{} is not between {} and {}, nor \"0s\" for no limit",
                    quoted(said),
                    GoDuration(MIN_IDLE_TIMEOUT),
                    GoDuration(MAX_IDLE_TIMEOUT)
                );
                findings.invalid(&path, message);
            }
            Ok(_) => {}
        }
    }
    let range = MIN_BANDWIDTH..=MAX_BANDWIDTH;
    check_size(spec, "bandwidth", range, path, findings);
}
