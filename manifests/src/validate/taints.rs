//! Rules about the taints of Nodes and the tolerations of Functions; Kubernetes' own.

use std::collections::BTreeSet;

use serde_json::Value;

use super::findings::{Findings, quoted};
use super::structure::one_of;
use super::{Reason, names};
use crate::FieldPath;

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];

pub(super) fn check_node(value: &Value, findings: &mut Findings) {
    if value.pointer("/spec/key").and_then(Value::as_str) == Some("") {
        findings.invalid(
            &FieldPath::of(["spec", "key"]),
            "a node is named by its device's key; it is set when the node enrols",
        );
    }
    let path = FieldPath::of(["spec", "taints"]);
    let taints = value.pointer("/spec/taints").and_then(Value::as_array);
    let mut seen = BTreeSet::new();
    for (index, taint) in taints.into_iter().flatten().enumerate() {
        let path = path.index(index);
        let text = |name: &str| taint.get(name).and_then(Value::as_str);
        if let Some(key) = text("key") {
            check_key(key, &path, findings);
        }
        check_value(text("value"), &path, findings);
        if let Some(effect) = text("effect") {
            one_of(effect, &EFFECTS, &path.field("effect"), findings);
        }
        if let (Some(key), Some(effect)) = (text("key"), text("effect"))
            && !seen.insert((key, effect))
        {
            findings.duplicate(
                &path,
                format!("{} is there twice with the same effect", quoted(key)),
            );
        }
    }
}

pub(super) fn check_tolerations(tolerations: &[Value], path: &FieldPath, findings: &mut Findings) {
    for (index, toleration) in tolerations.iter().enumerate() {
        let path = path.index(index);
        let text = |name: &str| {
            toleration
                .get(name)
                .and_then(Value::as_str)
                .filter(|text| !text.is_empty())
        };
        let operator = text("operator").unwrap_or("Equal");
        one_of(operator, &OPERATORS, &path.field("operator"), findings);
        match text("key") {
            Some(key) => check_key(key, &path, findings),
            None if operator != "Exists" => findings.push(
                &path.field("key"),
                Reason::Required,
                "required, unless operator is Exists",
            ),
            None => {}
        }
        check_value(text("value"), &path, findings);
        if operator == "Exists" && text("value").is_some() {
            findings.forbidden(
                &path.field("value"),
                "not together with operator Exists, which takes any value",
            );
        }
        if let Some(effect) = text("effect") {
            one_of(effect, &EFFECTS, &path.field("effect"), findings);
        }
        if toleration
            .get("tolerationSeconds")
            .is_some_and(|v| !v.is_null())
            && text("effect") != Some("NoExecute")
        {
            findings.forbidden(
                &path.field("tolerationSeconds"),
                "only together with effect NoExecute",
            );
        }
    }
}

fn check_key(key: &str, path: &FieldPath, findings: &mut Findings) {
    if let Err(why) = names::qualified(key) {
        let message = format!("{} is not the key of a taint: {why}", quoted(key));
        findings.invalid(&path.field("key"), message);
    }
}

fn check_value(value: Option<&str>, path: &FieldPath, findings: &mut Findings) {
    if let Some(value) = value
        && let Err(why) = names::label_value(value)
    {
        let message = format!("{} is not the value of a taint: {why}", quoted(value));
        findings.invalid(&path.field("value"), message);
    }
}
