//! Reading what every object has, whatever its kind: names, labels, conditions.
//!
//! Objects stay JSON values from the server to the printer, so that a field this build does not
//! know is never lost. Nothing here changes an object.

use hive_manifests::Resource;
use serde_json::Value;

/// Where `apply` keeps the manifest it applied, to find out later what was removed from it.
pub const LAST_APPLIED: &str = "hive.dev/last-applied-configuration";

pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str()
}

pub fn resource_version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap_or_default()
}

pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or_default()
}

/// The resource of an object, from its apiVersion and kind.
pub fn resource(object: &Value) -> Option<Resource> {
    let api_version = object["apiVersion"].as_str()?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    Resource::by_kind(group, object["kind"].as_str()?)
}

/// `function.hive.dev/hello`, `secret/token`: how commands name an object.
pub fn reference(resource: Resource, name: &str) -> String {
    format!("{}{name}", reference_prefix(resource))
}

/// The part of a reference before the name.
pub fn reference_prefix(resource: Resource) -> String {
    match resource.group() {
        "" => format!("{}/", resource.singular()),
        group => format!("{}.{group}/", resource.singular()),
    }
}

pub fn conditions(object: &Value) -> &[Value] {
    object["status"]["conditions"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// A condition by its type; upper and lower case are not told apart, as in kubectl.
pub fn condition<'a>(object: &'a Value, wanted: &str) -> Option<&'a Value> {
    conditions(object).iter().find(|condition| {
        condition["type"]
            .as_str()
            .is_some_and(|kind| kind.eq_ignore_ascii_case(wanted))
    })
}

/// Whether a condition has this status and speaks of the present spec, not of an older one.
pub fn has_condition(object: &Value, wanted: &str, status: &str) -> bool {
    let generation = object["metadata"]["generation"].as_i64();
    condition(object, wanted).is_some_and(|condition| {
        let observed = condition["observedGeneration"].as_i64();
        let fresh = match (observed, generation) {
            (Some(observed), Some(generation)) => observed >= generation,
            _ => true,
        };
        fresh
            && condition["status"]
                .as_str()
                .is_some_and(|found| found.eq_ignore_ascii_case(status))
    })
}

/// Whether the status was written with the present spec in view.
pub fn is_observed(object: &Value) -> bool {
    match (
        object["status"]["observedGeneration"].as_i64(),
        object["metadata"]["generation"].as_i64(),
    ) {
        (Some(observed), Some(generation)) => observed >= generation,
        (None, Some(_)) => false,
        _ => true,
    }
}

/// `Ready=False (NoNode: no node has 128Mi left), Compiled=True`
pub fn conditions_text(object: &Value) -> String {
    conditions(object)
        .iter()
        .map(|condition| {
            let text = |key: &str| condition[key].as_str().unwrap_or_default();
            let mut line = format!("{}={}", text("type"), text("status"));
            if text("status") != "True" && !text("reason").is_empty() {
                line.push_str(&format!(" ({}: {})", text("reason"), text("message")));
            }
            line
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// How many copies of a function there should be: as somebody said, or as was found where it scales by itself.
pub fn wanted_replicas(function: &Value) -> u64 {
    let (spec, status) = (&function["spec"], &function["status"]);
    let found = status["replicas"].as_u64();
    let found = found.filter(|_| spec["autoscaling"].is_object());
    spec["replicas"].as_u64().or(found).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_of_an_older_spec_does_not_count() {
        let mut function = json!({
            "metadata": {"generation": 2},
            "status": {"observedGeneration": 2, "conditions": [
                {"type": "Available", "status": "True", "observedGeneration": 2},
                {"type": "Compiled", "status": "False", "reason": "Broken", "message": "not Wasm"},
            ]}
        });
        assert!(has_condition(&function, "available", "true"));
        assert!(is_observed(&function));
        assert_eq!(
            conditions_text(&function),
            "Available=True, Compiled=False (Broken: not Wasm)"
        );
        function["metadata"]["generation"] = json!(3);
        assert!(!has_condition(&function, "available", "true"));
        assert!(!is_observed(&function));
    }

    #[test]
    fn references_read_as_kubectls() {
        assert_eq!(
            reference(Resource::Function, "hello"),
            "function.hive.dev/hello"
        );
        assert_eq!(reference(Resource::Secret, "x"), "secret/x");
    }
}
