//! Rules about who may use a tunnel.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::fields::{check_duration, list, object, present, text};
use super::super::findings::{Findings, quoted};
use super::super::{hosts, names};
use super::read;
use crate::FieldPath;
use crate::tunnel::Protocol;
use crate::tunnel::access::{MAX_CLIENTS, MAX_NAMES, MAX_SCOPES, MAX_SESSION, MIN_SESSION};

/// Characters of what identifies somebody at an issuer; what is longer is no name.
const MAX_ID: usize = 256;

/// Characters of an issuer's URL.
const MAX_URL: usize = 512;

pub(super) fn check(
    spec: &Map<String, Value>,
    access: &Map<String, Value>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    check_clients(access, &path.field("allowedClients"), findings);
    let is_http = matches!(read(spec, "protocol"), None | Some(Protocol::Http));
    for name in ["basicAuth", "bearer", "oidc"] {
        if present(access, name) && !is_http {
            findings.forbidden(
                &path.field(name),
                "only with protocol HTTP: other connections do not say who they are; leave it out, or let the service ask",
            );
        }
    }
    if let Some(basic) = object(access, "basicAuth") {
        check_secret(basic, &path.field("basicAuth"), findings);
    }
    if let Some(bearer) = object(access, "bearer") {
        let path = path.field("bearer");
        check_issuer(bearer, &path, findings);
        check_id(bearer, "audience", &path, findings);
        check_id(bearer, "groupsClaim", &path, findings);
        check_allow(bearer, &path, findings);
    }
    if let Some(login) = object(access, "oidc") {
        let path = path.field("oidc");
        check_issuer(login, &path, findings);
        check_id(login, "clientId", &path, findings);
        check_id(login, "groupsClaim", &path, findings);
        check_secret(login, &path, findings);
        check_scopes(login, &path.field("scopes"), findings);
        check_allow(login, &path, findings);
        let session = MIN_SESSION..=MAX_SESSION;
        check_duration(login, "sessionDuration", session, &path, findings);
        check_routes(spec, &path, findings);
    }
}

fn check_clients(access: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let clients = list(access, "allowedClients");
    check_count(clients, MAX_CLIENTS, "networks", path, findings);
    let mut seen = BTreeSet::new();
    for (index, client) in clients.iter().enumerate() {
        let Some(text) = client.as_str() else {
            continue;
        };
        let path = path.index(index);
        if !seen.insert(text) {
            findings.duplicate(&path, "is there twice; leave one of them out");
        }
        hosts::check_network(text, &path, findings);
    }
}

fn check_count(list: &[Value], most: usize, what: &str, path: &FieldPath, findings: &mut Findings) {
    if list.len() > most {
        let message = format!("{} {what}; at most {most} are looked at", list.len());
        findings.invalid(path, message);
    }
}

fn check_secret(fields: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(name) = text(fields, "secretName")
        && let Err(why) = names::dns_subdomain(name)
    {
        let message = format!("{} is not the name of a Secret: {why}", quoted(name));
        findings.invalid(&path.field("secretName"), message);
    }
}

/// What a URL is in full the controllers find out; here is what people get wrong.
fn check_issuer(fields: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let Some(url) = text(fields, "issuerUrl") else {
        return;
    };
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#@\\\"<>".contains(&byte);
    let host = url.strip_prefix("https://").and_then(|rest| {
        let host = rest.split(['/', ':']).next()?;
        (!host.is_empty()).then_some(host)
    });
    if host.is_none() || url.len() > MAX_URL || !url.bytes().all(is_plain) {
        let message = format!(
            "{} is no issuer: write its https URL without query and fragment, such as \"https://login.example.org/realm\"",
            quoted(url)
        );
        findings.invalid(&path.field("issuerUrl"), message);
    }
}

fn check_id(fields: &Map<String, Value>, name: &str, path: &FieldPath, findings: &mut Findings) {
    let Some(id) = text(fields, name) else {
        return;
    };
    if id.is_empty() || id.chars().count() > MAX_ID || id.chars().any(char::is_control) {
        let message = format!(
            "{} is empty, longer than {MAX_ID} characters or has control characters: write it as the issuer has it",
            quoted(id)
        );
        findings.invalid(&path.field(name), message);
    }
}

/// RFC 6749, 3.3.
fn check_scopes(login: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let scopes = list(login, "scopes");
    check_count(scopes, MAX_SCOPES, "scopes", path, findings);
    let is_one = |byte: u8| byte.is_ascii_graphic() && !b"\"\\".contains(&byte);
    for (index, scope) in scopes.iter().enumerate() {
        if let Some(scope) = scope.as_str()
            && (scope.is_empty() || scope.len() > MAX_ID || !scope.bytes().all(is_one))
        {
            let message = format!(
                "{} is no scope: write one word for each, such as \"groups\"",
                quoted(scope)
            );
            findings.invalid(&path.index(index), message);
        }
    }
}

fn check_allow(fields: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let Some(allow) = object(fields, "allow") else {
        return;
    };
    let path = path.field("allow");
    for name in ["emails", "domains", "groups"] {
        let path = path.field(name);
        let entries = list(allow, name);
        check_count(entries, MAX_NAMES, name, &path, findings);
        for (index, entry) in entries.iter().enumerate() {
            if let Some(entry) = entry.as_str()
                && let Some(wrong) = wrong_entry(name, entry)
            {
                findings.invalid(&path.index(index), wrong);
            }
        }
    }
}

fn wrong_entry(list: &str, entry: &str) -> Option<String> {
    let shown = quoted(entry);
    match list {
        "emails" => {
            let (name, domain) = entry.rsplit_once('@').unwrap_or_default();
            let is_one = !name.is_empty() && !domain.is_empty() && entry.len() <= MAX_ID;
            (!is_one)
                .then(|| format!("{shown} is no address: write one such as \"ada@example.org\""))
        }
        "domains" => {
            let why = names::host(&entry.to_ascii_lowercase()).err()?;
            Some(format!(
                "{shown} is no domain: {why}; write what is behind the @, such as \"example.org\""
            ))
        }
        _ => (entry.is_empty() || entry.len() > MAX_ID || entry.contains(',')).then(|| {
            format!("{shown} is no group: write its name as the issuer has it, without a comma")
        }),
    }
}

/// A browser comes back from the issuer to a path below that of the route, by GET.
fn check_routes(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let Some(http) = object(spec, "http") else {
        return;
    };
    let takes_back = |route: &Value| {
        let methods = route.get("methods").and_then(Value::as_array);
        let any_or_get = methods.is_none_or(|methods| {
            methods.is_empty() || methods.iter().any(|method| method == "GET")
        });
        any_or_get && route.get("pathType").is_none_or(|it| it != "Exact")
    };
    if !list(http, "routes").iter().all(takes_back) {
        findings.forbidden(
            path,
            "not together with routes of pathType Exact, or without the method GET: browsers come back from the issuer to a path below the route; change spec.http.routes",
        );
    }
}
