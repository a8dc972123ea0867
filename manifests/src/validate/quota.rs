//! Rules about ResourceQuota and LimitRange: only what is enforced may be asked for.

use serde_json::{Map, Value};

use super::findings::{Findings, quoted};
use crate::FieldPath;
use crate::quantity::{Bytes, MilliCpu, QuantityError};
use crate::quota::{Measure, MeasureNames};

/// The only thing that a LimitRange is about here.
pub const LIMIT_TYPE: &str = "Function";

/// The text of a quantity, which may be written as a number.
fn amount(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        // Something else is reported by the schema.
        _ => None,
    }
}

pub(super) fn check_quota(value: &Value, findings: &mut Findings) {
    let spec = FieldPath::of(["spec"]);
    for field in ["scopes", "scopeSelector"] {
        let set = value["spec"].get(field);
        if set.is_some_and(|set| !set.is_null() && *set != Value::Array(Vec::new())) {
            findings.forbidden(
                &spec.field(field),
                "scopes are not supported: a quota is about all of its namespace",
            );
        }
    }
    let path = spec.field("hard");
    for (name, value) in value["spec"]["hard"].as_object().into_iter().flatten() {
        let path = path.field(name);
        match (Measure::of(name), amount(value)) {
            (None, _) => findings.invalid(
                &path,
                format!(
                    "{} cannot be limited; what can be is: {MeasureNames}",
                    quoted(name)
                ),
            ),
            (Some(measure), Some(text)) => {
                if let Err(why) = measure.parse(&text) {
                    findings.invalid(&path, format!("{} is no amount: {why}", quoted(&text)));
                }
            }
            (Some(_), None) => {}
        }
    }
}

pub(super) fn check_limit_range(value: &Value, findings: &mut Findings) {
    let path = FieldPath::of(["spec", "limits"]);
    let limits = value.pointer("/spec/limits").and_then(Value::as_array);
    for (index, limit) in limits.into_iter().flatten().enumerate() {
        check_limit(limit, &path.index(index), findings);
    }
}

fn check_limit(limit: &Value, path: &FieldPath, findings: &mut Findings) {
    if let Some(kind) = limit["type"].as_str()
        && kind != LIMIT_TYPE
    {
        findings.invalid(
            &path.field("type"),
            format!(
                "{} cannot be limited; write {LIMIT_TYPE}: the limits of each copy of a function",
                quoted(kind)
            ),
        );
    }
    if limit["maxLimitRequestRatio"]
        .as_object()
        .is_some_and(|map| !map.is_empty())
    {
        findings.forbidden(
            &path.field("maxLimitRequestRatio"),
            "what a function may use is what is reserved for it: there is no ratio",
        );
    }
    let read = |field: &str, findings: &mut Findings| -> [Option<u64>; 2] {
        let path = path.field(field);
        let Some(amounts) = limit[field].as_object() else {
            return [None, None];
        };
        for name in amounts
            .keys()
            .filter(|name| !["memory", "cpu"].contains(&name.as_str()))
        {
            findings.invalid(
                &path.field(name),
                format!("{} cannot be limited; memory and cpu can", quoted(name)),
            );
        }
        [
            quantity(amounts, "memory", &path, findings, |text| {
                text.parse::<Bytes>().map(|it| it.0)
            }),
            quantity(amounts, "cpu", &path, findings, |text| {
                text.parse::<MilliCpu>().map(|it| it.0)
            }),
        ]
    };
    let [default, request, max, min] =
        ["default", "defaultRequest", "max", "min"].map(|field| read(field, findings));
    for (index, name) in ["memory", "cpu"].into_iter().enumerate() {
        let mut ordered = |low: (&str, Option<u64>), high: (&str, Option<u64>)| {
            if let (Some(a), Some(b)) = (low.1, high.1)
                && a > b
            {
                findings.invalid(
                    &path.field(low.0).field(name),
                    format!("{} may not be more than {}", low.0, high.0),
                );
            }
        };
        ordered(("min", min[index]), ("max", max[index]));
        for (field, chosen) in [
            ("default", default[index]),
            ("defaultRequest", request[index]),
        ] {
            ordered(("min", min[index]), (field, chosen));
            ordered((field, chosen), ("max", max[index]));
        }
        if let (Some(default), Some(request)) = (default[index], request[index])
            && default != request
        {
            findings.invalid(
                &path.field("defaultRequest").field(name),
                "what a function may use is what is reserved for it: default and defaultRequest must be the same",
            );
        }
    }
}

fn quantity(
    amounts: &Map<String, Value>,
    name: &str,
    path: &FieldPath,
    findings: &mut Findings,
    parse: impl Fn(&str) -> Result<u64, QuantityError>,
) -> Option<u64> {
    let text = amount(amounts.get(name)?)?;
    match parse(&text) {
        Ok(value) => Some(value),
        Err(why) => {
            findings.invalid(
                &path.field(name),
                format!("{} is no amount: {why}", quoted(&text)),
            );
            None
        }
    }
}
