//! Rules about a Function's spec that its schema cannot express.
//!
//! Whatever has the wrong type is passed over here: the schema has reported it.

use std::collections::BTreeSet;
use std::time::Duration;

use hive_registry::{Reference, ReferenceError};
use serde_json::{Map, Value};

use super::fields::{amount, check_duration, check_size, is_empty, list, object, present, text};
use super::findings::{Findings, quoted};
use super::metadata::check_labels;
use super::{Reason, autoscaling, hosts, http, names, placement, rollout, schedules, taints};
use crate::FieldPath;
use crate::function::{
    MAX_KEY_VALUE, MAX_SCRATCH, MAX_STORES, MAX_TIMEOUT, MIN_KEY_VALUE, MIN_SCRATCH, MIN_TIMEOUT,
};
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
        check_duration(spec, name, least..=MAX_TIMEOUT, &path, findings);
    }
    if let Some(limits) = object(spec, "limits") {
        check_limits(limits, &path.field("limits"), findings);
    }
    if let Some(instances) = object(spec, "instances") {
        let range = Duration::ZERO..=MAX_TIMEOUT;
        let path = path.field("instances");
        check_duration(instances, "idleTimeout", range, &path, findings);
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
    if let Some(fields) = object(spec, "http") {
        http::check(fields, &path.field("http"), findings);
    }
    placement::check(spec, &path, findings);
    rollout::check(spec, &path, findings);
    autoscaling::check(spec, &path, findings);
    if let Some(egress) = object(spec, "egress") {
        let path = path.field("egress");
        for name in ["connectTimeout", "firstByteTimeout", "idleTimeout"] {
            check_duration(egress, name, MIN_TIMEOUT..=MAX_TIMEOUT, &path, findings);
        }
    }
    hosts::check_allowed(
        list(spec, "allowedHosts"),
        &path.field("allowedHosts"),
        findings,
    );
    schedules::check(list(spec, "schedules"), &path.field("schedules"), findings);
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

fn check_limits(limits: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    check_duration(limits, "cpuTime", MIN_TIMEOUT..=MAX_TIMEOUT, path, findings);
    check_size(
        limits,
        "responseSize",
        MIN_RESPONSE..=MAX_RESPONSE,
        path,
        findings,
    );
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
