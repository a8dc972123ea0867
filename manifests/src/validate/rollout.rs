//! Rules about how versions of a Function follow each other that its schema cannot express.

use std::time::Duration;

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use super::http::is_request_target;
use crate::FieldPath;
use crate::duration::GoDuration;
use crate::rollout::{
    MAX_HEADER_MATCHES, MAX_HEADER_VALUE, MAX_STEPS, MAX_WAIT_SECONDS, MAX_WINDOW, percent,
};

/// What a request's way depends on, and what is Hive's own.
const NO_MATCH: [&str; 2] = ["host", "connection"];
const INTERNAL_PREFIX: &str = "x-hive-";

pub(super) fn check(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    if let Some(strategy) = spec.get("strategy").and_then(Value::as_object) {
        let path = path.field("strategy");
        if let Some(max) = strategy
            .get("rollingUpdate")
            .and_then(|it| it.get("maxUnavailable"))
        {
            let path = path.field("rollingUpdate").field("maxUnavailable");
            check_max_unavailable(max, &path, findings);
        }
        if let Some(rollback) = strategy
            .get("rollingUpdate")
            .and_then(|it| it.get("rollback"))
        {
            let path = path.field("rollingUpdate").field("rollback");
            if strategy.get("type").and_then(Value::as_str) == Some("Canary") {
                findings.forbidden(&path, "not with type Canary: use canary.rollback");
            }
            check_rollback(rollback, &path, findings);
        }
        check_canary(spec, strategy, &path, findings);
    }
    if let Some(Value::String(target)) = spec
        .get("readinessProbe")
        .and_then(|probe| probe.pointer("/httpGet/path"))
        && !is_request_target(target)
    {
        let path = path.field("readinessProbe").field("httpGet").field("path");
        let message = format!("{} is not a path such as \"/healthz\"", quoted(target));
        findings.invalid(&path, message);
    }
    let seconds = |name: &str| spec.get(name).and_then(Value::as_u64);
    if let (Some(ready), Some(deadline)) = (
        seconds("minReadySeconds"),
        seconds("progressDeadlineSeconds"),
    ) && deadline <= ready
    {
        findings.invalid(
            &path.field("progressDeadlineSeconds"),
            "must be greater than minReadySeconds",
        );
    }
}

fn check_max_unavailable(value: &Value, path: &FieldPath, findings: &mut Findings) {
    let found = match value {
        Value::Number(number) if number.as_u64().is_some_and(|number| number > 0) => return,
        Value::String(text) if percent(text).is_some_and(|it| (1..=100).contains(&it)) => return,
        Value::String(text) => quoted(text).to_string(),
        Value::Number(number) => number.to_string(),
        // The schema has reported it.
        _ => return,
    };
    findings.invalid(
        path,
        format!(
            "{found} is not how many copies may change at once: a number from 1, or a share such as \"25%\""
        ),
    );
}

fn check_canary(
    spec: &Map<String, Value>,
    strategy: &Map<String, Value>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let is_canary = strategy.get("type").and_then(Value::as_str) == Some("Canary");
    let path = path.field("canary");
    let Some(canary) = strategy.get("canary").and_then(Value::as_object) else {
        if is_canary {
            findings.required(&path);
        }
        return;
    };
    if !is_canary {
        findings.invalid(&path, "needs strategy.type: Canary");
        return;
    }
    if spec.get("everyNode") == Some(&Value::Bool(true)) {
        findings.forbidden(
            &path,
            "not together with everyNode: use rollingUpdate.maxUnavailable",
        );
    }
    check_steps(list(canary.get("steps")), &path.field("steps"), findings);
    if let Some(rollback) = canary.get("rollback") {
        check_rollback(rollback, &path.field("rollback"), findings);
    }
    if let Some(matches) = canary.get("match") {
        let path = path.field("match").field("headers");
        check_headers(list(matches.get("headers")), &path, findings);
    }
}

fn check_rollback(rule: &Value, path: &FieldPath, findings: &mut Findings) {
    let text = |name: &str| rule.get(name).and_then(Value::as_str);
    if let Some(rate) = text("errorRate")
        && percent(rate).is_none_or(|it| it > 100)
    {
        let message = format!("{} is no share from \"0%\" to \"100%\"", quoted(rate));
        findings.invalid(&path.field("errorRate"), message);
    }
    // What is no duration the schema has reported.
    if let Some(Ok(GoDuration(window))) = text("window").map(str::parse)
        && !(Duration::from_secs(1)..=MAX_WINDOW).contains(&window)
    {
        findings.invalid(&path.field("window"), "from \"1s\" to \"5m\"");
    }
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn check_steps(steps: &[Value], path: &FieldPath, findings: &mut Findings) {
    if steps.is_empty() || steps.len() > MAX_STEPS {
        let found = steps.len();
        findings.invalid(path, format!("{found} steps: 1 to {MAX_STEPS} are needed"));
    }
    let mut before = None;
    for (index, step) in steps.iter().take(MAX_STEPS).enumerate() {
        let path = path.index(index);
        match (step.get("setWeight"), step.get("pause")) {
            (Some(weight), None) => {
                let weight = weight.as_u64();
                if weight.is_some() && before.is_some() && weight <= before {
                    findings.invalid(
                        &path.field("setWeight"),
                        "must be more than the weight before",
                    );
                }
                before = weight.or(before);
            }
            (None, Some(pause)) => {
                if index == 0 {
                    findings.invalid(&path, "the first step is a setWeight");
                }
                let duration = pause.get("duration").and_then(Value::as_str);
                check_pause(duration, &path.field("pause").field("duration"), findings);
            }
            _ => findings.invalid(&path, "exactly one of setWeight and pause"),
        }
    }
}

fn check_pause(duration: Option<&str>, path: &FieldPath, findings: &mut Findings) {
    // What is no duration the schema has reported.
    let Some(Ok(GoDuration(duration))) = duration.map(str::parse) else {
        return;
    };
    let most = Duration::from_secs(MAX_WAIT_SECONDS.into());
    if duration < Duration::from_secs(1) || duration > most {
        findings.invalid(
            path,
            "from \"1s\" to \"24h\"; without it the pause ends by `hivectl rollout promote`",
        );
    }
}

fn check_headers(headers: &[Value], path: &FieldPath, findings: &mut Findings) {
    if headers.is_empty() || headers.len() > MAX_HEADER_MATCHES {
        let found = headers.len();
        findings.invalid(
            path,
            format!("{found} headers: 1 to {MAX_HEADER_MATCHES} are needed"),
        );
    }
    for (index, header) in headers.iter().take(MAX_HEADER_MATCHES).enumerate() {
        let path = path.index(index);
        if let Some(name) = header.get("name").and_then(Value::as_str) {
            let is_name = !name.is_empty()
                && name
                    .bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-_.".contains(&c));
            if !is_name {
                let message = format!("{} is no header's name in lower case", quoted(name));
                findings.invalid(&path.field("name"), message);
            } else if NO_MATCH.contains(&name) || name.starts_with(INTERNAL_PREFIX) {
                let message = format!("{} says something else", quoted(name));
                findings.invalid(&path.field("name"), message);
            }
        }
        if let Some(value) = header.get("value").and_then(Value::as_str) {
            let is_value = !value.is_empty()
                && value.len() <= MAX_HEADER_VALUE
                && value.trim() == value
                && value.bytes().all(|c| (b' '..=b'~').contains(&c));
            if !is_value {
                findings.invalid(
                    &path.field("value"),
                    format!("1 to {MAX_HEADER_VALUE} printable characters of ASCII"),
                );
            }
        }
    }
}
