//! Rules about a Function's autoscaling that its schema cannot express.

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use crate::FieldPath;
use crate::autoscaling::{Autoscaling, MAX_WINDOW, MIN_QUEUE_TIME, MIN_WINDOW};
use crate::duration::GoDuration;
use crate::function::default_queue_timeout;

pub(super) fn check(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let path = path.field("autoscaling");
    let Some(rule) = spec.get("autoscaling").and_then(Value::as_object) else {
        return;
    };
    if spec.get("everyNode") == Some(&Value::Bool(true)) {
        findings.forbidden(
            &path,
            "not together with everyNode, which runs one copy on every node",
        );
    }
    let defaults = Autoscaling::default();
    let number = |name: &str, default: u32| match rule.get(name) {
        None | Some(Value::Null) => Some(default.into()),
        Some(value) => value.as_u64(),
    };
    if let (Some(min), Some(max)) = (
        number("minReplicas", defaults.min_replicas),
        number("maxReplicas", defaults.max_replicas),
    ) && (1..min).contains(&max)
    {
        findings.invalid(
            &path.field("maxReplicas"),
            format!("must not be less than minReplicas, which is {min}"),
        );
    }
    for name in ["window", "scaleToZeroDelay"] {
        if let Some(text) = rule.get(name).and_then(Value::as_str) {
            check_time(text, &path.field(name), findings);
        }
    }
    let target = rule.get("target").and_then(|it| it.get("queueTime"));
    if let Some(text) = target.and_then(Value::as_str) {
        let patience = match spec.get("queueTimeout").and_then(Value::as_str) {
            None => Ok(default_queue_timeout()),
            Some(text) => text.parse(),
        };
        let path = path.field("target").field("queueTime");
        // One that cannot be read has a finding of its own.
        check_queue_time(text, patience.ok(), &path, findings);
    }
}

/// Nobody waits longer than `patience`: to have copies come by that it must be more than the target.
fn check_queue_time(
    text: &str,
    patience: Option<GoDuration>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let message = match (text.parse::<GoDuration>(), patience) {
        (Err(error), _) => format!("{}: {error}", quoted(text)),
        (Ok(GoDuration(time)), _) if time < MIN_QUEUE_TIME => format!(
            "{} is less than {}",
            quoted(text),
            GoDuration(MIN_QUEUE_TIME)
        ),
        (Ok(time), Some(patience)) if time >= patience => {
            format!("must be less than queueTimeout, which is {patience}: nobody waits longer")
        }
        _ => return,
    };
    findings.invalid(path, message);
}

fn check_time(text: &str, path: &FieldPath, findings: &mut Findings) {
    let message = match text.parse::<GoDuration>() {
        Err(error) => format!("{}: {error}", quoted(text)),
        Ok(GoDuration(time)) if (MIN_WINDOW..=MAX_WINDOW).contains(&time) => return,
        Ok(_) => format!(
            "{} is not between {} and {}",
            quoted(text),
            GoDuration(MIN_WINDOW),
            GoDuration(MAX_WINDOW)
        ),
    };
    findings.invalid(path, message);
}
