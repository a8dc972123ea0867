//! Every field of every kind says what it is for: `kubectl explain --recursive` has no gaps.

use hive_manifests::{Resource, controller_schema, openapi_schema};
use serde_json::Value;

/// Fields without a description, by their paths.
fn silent(schema: &Value, path: &str, found: &mut Vec<String>) {
    for inner in ["items", "additionalProperties"] {
        if let Some(schema) = schema.get(inner) {
            silent(schema, path, found);
        }
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, schema) in properties.into_iter().flatten() {
        let path = format!("{path}.{name}");
        let described = schema["description"].as_str().unwrap_or_default();
        if described.trim().is_empty() {
            found.push(path.clone());
        }
        silent(schema, &path, found);
    }
}

#[test]
fn every_field_is_described() {
    let mut found = Vec::new();
    let schemas = Resource::ALL.map(|resource| (resource.kind(), openapi_schema(resource)));
    for (kind, schema) in schemas
        .into_iter()
        .chain([("Controller", controller_schema())])
    {
        assert!(schema["description"].is_string(), "{kind}");
        silent(schema, kind, &mut found);
    }
    assert!(found.is_empty(), "{found:#?}");
}
