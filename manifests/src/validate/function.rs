//! Rules about a Function's spec that its schema cannot express.
//!
//! Whatever has the wrong type is passed over here: the schema has reported it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use hive_registry::{Reference, ReferenceError};
use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::metadata::check_labels;
use super::{Reason, autoscaling, hosts, names, placement, rollout, schedules, taints};
use crate::FieldPath;
use crate::duration::GoDuration;
use crate::function::{
    MAX_KEY_VALUE, MAX_SCRATCH, MAX_STORES, MAX_TIMEOUT, MIN_KEY_VALUE, MIN_SCRATCH, MIN_TIMEOUT,
};
use crate::http::{Http, MAX_ROUTES};
use crate::quantity::{Bytes, MilliCpu};

/// A component cannot be instantiated in less.
const MIN_MEMORY: Bytes = Bytes(Bytes::MIB);
/// What 32-bit WebAssembly can address.
const MAX_MEMORY: Bytes = Bytes(4096 * Bytes::MIB);
/// A shorter one would not hold the message of an error.
const MIN_RESPONSE: Bytes = Bytes(1 << 10);
/// Practically without end.
const MAX_RESPONSE: Bytes = Bytes(1 << 40);
/// Names that Hive sets itself.
const RESERVED_ENV: &str = "HIVE_";

pub(super) fn check(value: &Value, findings: &mut Findings) {
    let path = FieldPath::of(["spec"]);
    let Some(spec) = value.get("spec").and_then(Value::as_object) else {
        return;
    };
    if let Some(artifact) = object(spec, "artifact") {
        check_artifact(artifact, &path.field("artifact"), findings);
    }
    check_pull_secrets(
        list(spec, "imagePullSecrets"),
        &path.field("imagePullSecrets"),
        findings,
    );
    if spec.get("everyNode") == Some(&Value::Bool(true))
        && spec.get("replicas").is_some_and(|v| !v.is_null())
    {
        findings.forbidden(
            &path.field("replicas"),
            "not together with everyNode, which runs one copy on every node",
        );
    }
    if let Some(selector) = object(spec, "nodeSelector") {
        check_labels(selector, &path.field("nodeSelector"), findings);
    }
    taints::check_tolerations(
        list(spec, "tolerations"),
        &path.field("tolerations"),
        findings,
    );
    if let Some(resources) = object(spec, "resources") {
        check_resources(resources, &path.field("resources"), findings);
    }
    for (name, least) in [("timeout", MIN_TIMEOUT), ("queueTimeout", Duration::ZERO)] {
        if let Some(timeout) = text(spec, name) {
            check_timeout(timeout, least, &path.field(name), findings);
        }
    }
    if let Some(limits) = object(spec, "limits") {
        check_limits(limits, &path.field("limits"), findings);
    }
    if let Some(instances) = object(spec, "instances")
        && let Some(timeout) = text(instances, "idleTimeout")
    {
        let path = path.field("instances").field("idleTimeout");
        check_timeout(timeout, Duration::ZERO, &path, findings);
    }
    check_env(list(spec, "env"), &path.field("env"), findings);
    check_config(list(spec, "config"), &path.field("config"), findings);
    if let Some(key_value) = object(spec, "keyValue") {
        check_key_value(key_value, &path.field("keyValue"), findings);
    }
    if let Some(scratch) = object(spec, "scratch") {
        let range = MIN_SCRATCH..=MAX_SCRATCH;
        check_size(
            scratch,
            "sizeLimit",
            range,
            &path.field("scratch"),
            findings,
        );
    }
    if let Some(http) = object(spec, "http") {
        check_http(http, &path.field("http"), findings);
    }
    placement::check(spec, &path, findings);
    rollout::check(spec, &path, findings);
    autoscaling::check(spec, &path, findings);
    if let Some(egress) = object(spec, "egress") {
        for name in ["connectTimeout", "firstByteTimeout", "idleTimeout"] {
            if let Some(timeout) = text(egress, name) {
                let path = path.field("egress").field(name);
                check_timeout(timeout, MIN_TIMEOUT, &path, findings);
            }
        }
    }
    hosts::check_allowed(
        list(spec, "allowedHosts"),
        &path.field("allowedHosts"),
        findings,
    );
    schedules::check(list(spec, "schedules"), &path.field("schedules"), findings);
}

fn object<'a>(parent: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    parent.get(name).and_then(Value::as_object)
}

fn text<'a>(parent: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    parent.get(name).and_then(Value::as_str)
}

fn list<'a>(parent: &'a Map<String, Value>, name: &str) -> &'a [Value] {
    parent
        .get(name)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn present(parent: &Map<String, Value>, name: &str) -> bool {
    parent.get(name).is_some_and(|value| !value.is_null())
}

/// Nothing is said, not even under a misspelt name, which the schema reports.
fn is_empty(fields: &Map<String, Value>) -> bool {
    fields.values().all(Value::is_null)
}

fn check_artifact(artifact: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let named: Vec<&str> = ["path", "sha256", "oci"]
        .into_iter()
        .filter(|name| present(artifact, name))
        .collect();
    match named[..] {
        [] if is_empty(artifact) => findings.push(
            path,
            Reason::Required,
            "name the component: path for a file beside the manifest, oci for an image in a registry, or sha256 of one that was uploaded",
        ),
        ["sha256", "oci"] => {
            let image = text(artifact, "oci").and_then(|text| text.parse::<Reference>().ok());
            if image.is_some_and(|image| image.digest().is_none()) {
                findings.forbidden(
                    &path.field("oci"),
                    "beside sha256 it says where the component is from, by digest; name a digest (@sha256:...) or leave sha256 out",
                );
            }
        }
        [] | [_] => {}
        [first, second, ..] => {
            let message = format!("{first} and {second} exclude each other; keep one");
            findings.forbidden(path, message);
        }
    }
    if let Some(image) = text(artifact, "oci") {
        check_image(image, &path.field("oci"), findings);
    }
    if text(artifact, "path") == Some("") {
        findings.invalid(&path.field("path"), "the path is empty");
    }
    if let Some(digest) = text(artifact, "sha256")
        && normal_digest(digest).is_none()
    {
        findings.invalid(
            &path.field("sha256"),
            format!(
                "{} is not a SHA-256: 64 hexadecimal digits, with or without \"sha256:\" before them",
                quoted(digest)
            ),
        );
    }
}

fn check_image(text: &str, path: &FieldPath, findings: &mut Findings) {
    let Err(error) = text.parse::<Reference>() else {
        return;
    };
    let message = format!("{} is not an image: {error}", quoted(text));
    // What a browser shows of a registry is nearly its name.
    let meant = match error {
        ReferenceError::OtherScheme(_) => text.split_once("://").map(|(_, rest)| rest),
        _ => None,
    };
    let meant = meant.filter(|meant| meant.parse::<Reference>().is_ok());
    findings.suggest(path, Reason::Invalid, message, meant.map(str::to_owned));
}

fn check_pull_secrets(secrets: &[Value], path: &FieldPath, findings: &mut Findings) {
    for (index, secret) in secrets.iter().enumerate() {
        let name = secret
            .get("name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if secret.is_object()
            && let Err(why) = names::dns_subdomain(name)
        {
            let message = format!("{} is not a name: {why}", quoted(name));
            findings.invalid(&path.index(index).field("name"), message);
        }
    }
}

/// A digest as it is stored: 64 lower-case hexadecimal digits.
pub(crate) fn normal_digest(text: &str) -> Option<String> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    (hex.len() == 64 && hex.bytes().all(|c| c.is_ascii_hexdigit()))
        .then(|| hex.to_ascii_lowercase())
}

/// A quantity as its JSON says it: text or a number.
fn amount(parent: &Map<String, Value>, name: &str) -> Option<String> {
    match parent.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn check_resources(resources: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(text) = amount(resources, "memory") {
        let path = path.field("memory");
        match text.parse::<Bytes>() {
            Err(error) => {
                let suggestion = meant_binary(&text);
                let message = format!("{}: {error}", quoted(&text));
                findings.suggest(&path, Reason::Invalid, message, suggestion);
            }
            Ok(bytes) if bytes < MIN_MEMORY => {
                let suggestion = meant_binary(&text);
                let message = format!("{} is less than {MIN_MEMORY}", quoted(&text));
                findings.suggest(&path, Reason::Invalid, message, suggestion);
            }
            Ok(bytes) if bytes > MAX_MEMORY => findings.invalid(
                &path,
                format!(
                    "{} is more than {MAX_MEMORY}, all that a component can address",
                    quoted(&text)
                ),
            ),
            Ok(_) => {}
        }
    }
    if let Some(text) = amount(resources, "cpu") {
        let path = path.field("cpu");
        match text.parse::<MilliCpu>() {
            Err(error) => findings.invalid(&path, format!("{}: {error}", quoted(&text))),
            Ok(MilliCpu(0)) => findings.invalid(&path, "a function needs some CPU, such as 100m"),
            Ok(_) => {}
        }
    }
}

/// "128m", "128MB" and "128mb" are meant as 128Mi.
fn meant_binary(text: &str) -> Option<String> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "Ki",
        "m" | "mb" | "mib" | "mi" => "Mi",
        "g" | "gb" | "gib" | "gi" => "Gi",
        _ => return None,
    };
    let meant = format!("{}{unit}", number.trim());
    let bytes: Bytes = meant.parse().ok()?;
    (MIN_MEMORY..=MAX_MEMORY).contains(&bytes).then_some(meant)
}

fn check_timeout(text: &str, least: Duration, path: &FieldPath, findings: &mut Findings) {
    match text.parse::<GoDuration>() {
        Err(error) => findings.invalid(path, format!("{}: {error}", quoted(text))),
        Ok(GoDuration(timeout)) if !(least..=MAX_TIMEOUT).contains(&timeout) => findings.invalid(
            path,
            format!(
                "{} is not between {} and {}",
                quoted(text),
                GoDuration(least),
                GoDuration(MAX_TIMEOUT)
            ),
        ),
        Ok(_) => {}
    }
}

fn check_limits(limits: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(cpu_time) = text(limits, "cpuTime") {
        check_timeout(cpu_time, MIN_TIMEOUT, &path.field("cpuTime"), findings);
    }
    check_size(
        limits,
        "responseSize",
        MIN_RESPONSE..=MAX_RESPONSE,
        path,
        findings,
    );
}

fn check_size(
    fields: &Map<String, Value>,
    name: &str,
    range: RangeInclusive<Bytes>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let Some(text) = amount(fields, name) else {
        return;
    };
    let path = path.field(name);
    match text.parse::<Bytes>() {
        Err(error) => findings.invalid(&path, format!("{}: {error}", quoted(&text))),
        Ok(size) if !range.contains(&size) => {
            let (least, most) = range.into_inner();
            let message = format!("{} is not between {least} and {most}", quoted(&text));
            findings.invalid(&path, message);
        }
        Ok(_) => {}
    }
}

fn check_env(env: &[Value], path: &FieldPath, findings: &mut Findings) {
    let mut names_seen = BTreeSet::new();
    for (index, variable) in env.iter().enumerate() {
        let Some(variable) = variable.as_object() else {
            continue;
        };
        let path = path.index(index);
        if let Some(name) = text(variable, "name") {
            let path = path.field("name");
            if let Err(why) = names::env_name(name) {
                findings.invalid(&path, format!("{} is not a name: {why}", quoted(name)));
            } else if name.starts_with(RESERVED_ENV) {
                findings.forbidden(
                    &path,
                    format!(
                        "{}: names that begin with {RESERVED_ENV} are Hive's own",
                        quoted(name)
                    ),
                );
            }
            if !names_seen.insert(name) {
                findings.duplicate(&path, format!("{} is set twice", quoted(name)));
            }
        }
        check_value(variable, &path, findings);
    }
}

fn check_config(config: &[Value], path: &FieldPath, findings: &mut Findings) {
    let mut names_seen = BTreeSet::new();
    for (index, setting) in config.iter().enumerate() {
        let Some(setting) = setting.as_object() else {
            continue;
        };
        let path = path.index(index);
        if let Some(name) = text(setting, "name") {
            let path = path.field("name");
            if let Err(why) = names::data_key(name) {
                findings.invalid(&path, format!("{} is not a name: {why}", quoted(name)));
            }
            if !names_seen.insert(name) {
                findings.duplicate(&path, format!("{} is set twice", quoted(name)));
            }
        }
        check_value(setting, &path, findings);
    }
}

fn check_key_value(key_value: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let stores = list(key_value, "stores");
    let field = path.field("stores");
    if present(key_value, "stores") && !(1..=MAX_STORES).contains(&stores.len()) {
        findings.invalid(
            &field,
            format!("{} names, not 1 to {MAX_STORES}", stores.len()),
        );
    }
    let mut seen = BTreeSet::new();
    for (index, store) in stores.iter().enumerate() {
        let Some(name) = store.as_str() else {
            continue;
        };
        let path = field.index(index);
        if let Err(why) = names::data_key(name) {
            findings.invalid(&path, format!("{} is not a name: {why}", quoted(name)));
        }
        if !seen.insert(name) {
            findings.duplicate(&path, format!("{} is listed twice", quoted(name)));
        }
    }
    let range = MIN_KEY_VALUE..=MAX_KEY_VALUE;
    check_size(key_value, "sizeLimit", range, path, findings);
}

/// A value is said, or taken from elsewhere.
fn check_value(variable: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if present(variable, "value") && present(variable, "valueFrom") {
        findings.forbidden(path, "value and valueFrom exclude each other; keep one");
    }
    if let Some(source) = object(variable, "valueFrom") {
        check_value_from(source, &path.field("valueFrom"), findings);
    }
}

fn check_value_from(source: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let kinds = ["secretKeyRef", "configMapKeyRef"];
    match kinds.iter().filter(|kind| present(source, kind)).count() {
        0 if is_empty(source) => findings.push(
            path,
            Reason::Required,
            "name a source: secretKeyRef or configMapKeyRef",
        ),
        0 | 1 => {}
        _ => findings.forbidden(
            path,
            "secretKeyRef and configMapKeyRef exclude each other; keep one",
        ),
    }
    for kind in kinds {
        let Some(reference) = object(source, kind) else {
            continue;
        };
        let path = path.field(kind);
        for (name, form) in [
            (
                "name",
                names::dns_subdomain as fn(&str) -> Result<(), String>,
            ),
            ("key", names::data_key),
        ] {
            if let Some(text) = text(reference, name)
                && let Err(why) = form(text)
            {
                let message = format!("{} is not a {name}: {why}", quoted(text));
                findings.invalid(&path.field(name), message);
            }
        }
    }
}

fn check_http(http: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    check_route(http, path, findings);
    let routes = list(http, "routes");
    if routes.is_empty() {
        return;
    }
    if text(http, "path").is_some_and(|path| path != Http::default().path) {
        let message = "is not there beside routes: say it as one of them";
        findings.invalid(&path.field("path"), message.to_owned());
    }
    let path = path.field("routes");
    if routes.len() > MAX_ROUTES {
        let message = format!(
            "{} routes; a function has at most {MAX_ROUTES}",
            routes.len()
        );
        findings.invalid(&path, message);
    }
    for (index, route) in routes.iter().enumerate() {
        if let Some(route) = route.as_object() {
            check_route(route, &path.index(index), findings);
        }
    }
}

fn check_route(route: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(host) = text(route, "host") {
        hosts::check(host, &path.field("host"), findings);
    }
    if let Some(prefix) = text(route, "path") {
        let path = path.field("path");
        if !prefix.starts_with('/') {
            findings.suggest(
                &path,
                Reason::Invalid,
                format!("{} does not begin with '/'", quoted(prefix)),
                Some(format!("/{prefix}")).filter(|meant| is_path(meant)),
            );
        } else if !is_path(prefix) {
            findings.invalid(
                &path,
                format!(
                    "{} is not the path of a URL: no spaces, '?', '#', or '..' parts",
                    quoted(prefix)
                ),
            );
        }
    }
}

pub(super) fn is_path(text: &str) -> bool {
    text.bytes()
        .all(|c| c.is_ascii_graphic() && !matches!(c, b'?' | b'#'))
        && text.split('/').all(|part| part != "..")
}
