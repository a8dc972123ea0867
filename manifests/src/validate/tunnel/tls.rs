//! What a Tunnel says of TLS: served with a certificate, or passed through by the server's name.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use super::read;
use crate::FieldPath;
use crate::tunnel::{MAX_HSTS_AGE, MAX_SERVER_NAMES, TargetProtocol};
use crate::validate::fields::{check_duration, list, object, present, text};
use crate::validate::findings::{Findings, quoted};
use crate::validate::{Reason, hosts, names};

/// With HTTP.
pub(super) fn check_served(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if present(spec, "serverNames") {
        findings.forbidden(
            &path.field("serverNames"),
            "only with protocol TLS: with HTTP the host is in http.host; leave it out, or write protocol: TLS",
        );
    }
    let Some(fields) = object(spec, "tls") else {
        return;
    };
    let path = path.field("tls");
    let is_ordered = fields.get("acme") == Some(&Value::Bool(true));
    match present(fields, "secretName") {
        true if is_ordered => findings.forbidden(
            &path.field("secretName"),
            "not together with acme: true, which orders a certificate; keep one of them",
        ),
        false if !is_ordered => findings.push(
            &path.field("secretName"),
            Reason::Required,
            "name a Secret of type kubernetes.io/tls, with tls.crt and tls.key, or write acme: true",
        ),
        _ => {}
    }
    if let Some(name) = text(fields, "secretName")
        && let Err(why) = names::dns_subdomain(name)
    {
        let message = format!("{} is not the name of a Secret: {why}", quoted(name));
        findings.invalid(&path.field("secretName"), message);
    }
    let range = Duration::ZERO..=MAX_HSTS_AGE;
    check_duration(fields, "hstsMaxAge", range, &path, findings);
}

/// With TCP and TLS.
pub(super) fn check_unserved(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if present(spec, "tls") {
        findings.forbidden(
            &path.field("tls"),
            "only with protocol HTTP: elsewhere the target ends TLS itself; leave it out, or write protocol: HTTP",
        );
    }
    if read(spec, "targetProtocol").is_some_and(|said: TargetProtocol| !said.is_http1()) {
        findings.forbidden(
            &path.field("targetProtocol"),
            "only with protocol HTTP: elsewhere bytes are passed on as they come; leave it out",
        );
    }
}

pub(super) fn check_names(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let path = path.field("serverNames");
    let all = list(spec, "serverNames");
    // Something other than a list is reported by the schema.
    if all.is_empty()
        && spec
            .get("serverNames")
            .is_none_or(|it| it.is_null() || it.is_array())
    {
        findings.push(
            &path,
            Reason::Required,
            "required with protocol TLS: name the hosts that clients ask for, such as [db.example.org]",
        );
    }
    if all.len() > MAX_SERVER_NAMES {
        let message = format!(
            "{} names; a tunnel has at most {MAX_SERVER_NAMES}: leave some out, or make a second tunnel",
            all.len()
        );
        findings.invalid(&path, message);
    }
    let mut seen = BTreeSet::new();
    for (index, name) in all.iter().enumerate() {
        let Some(name) = name.as_str() else {
            continue;
        };
        let path = path.index(index);
        hosts::check(name, &path, findings);
        if !seen.insert(name.to_ascii_lowercase()) {
            findings.duplicate(&path, format!("{} is listed twice", quoted(name)));
        }
    }
}
