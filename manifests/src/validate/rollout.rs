//! Rules about how versions of a Function follow each other that its schema cannot express.

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use crate::FieldPath;
use crate::rollout::percent;

pub(super) fn check(spec: &Map<String, Value>, path: &FieldPath, findings: &mut Findings) {
    let strategy = spec.get("strategy");
    if let Some(max) = strategy.and_then(|it| it.pointer("/rollingUpdate/maxUnavailable")) {
        let path = path.field("strategy").field("rollingUpdate");
        check_max_unavailable(max, &path.field("maxUnavailable"), findings);
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
