//! Version 2 of OpenAPI, one document for everything: for clients from before version 3.

use serde_json::{Map, Value, json};

use super::operations::{self, Operation};
use super::{GROUP_VERSIONS, Kind, kinds};

pub(super) fn document() -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for (prefix, api_version) in GROUP_VERSIONS {
        for kind in kinds(api_version) {
            let mut schema = kind.schema();
            without_version_3(&mut schema);
            definitions.insert(kind.schema_name(), schema);
            for path in operations::of_kind(prefix, &kind) {
                let mut item = Map::new();
                let parameters: Vec<Value> = path
                    .parameters
                    .iter()
                    .map(|name| parameter(name, "path", "string"))
                    .collect();
                if !parameters.is_empty() {
                    item.insert("parameters".into(), parameters.into());
                }
                for operation in path.operations {
                    item.insert(operation.method.into(), described(&kind, &operation));
                }
                paths.insert(path.path, item.into());
            }
        }
    }
    json!({
        "swagger": "2.0",
        "info": { "title": "Hive", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "definitions": definitions,
    })
}

fn parameter(name: &str, place: &str, form: &str) -> Value {
    let mut parameter = json!({ "name": name, "in": place, "type": form, "uniqueItems": true });
    if place == "path" {
        parameter["required"] = json!(true);
    }
    parameter
}

fn described(kind: &Kind, operation: &Operation) -> Value {
    let reference = json!({ "$ref": format!("#/definitions/{}", kind.schema_name()) });
    let mut parameters: Vec<Value> = operation
        .options
        .iter()
        .map(|(name, form)| parameter(name, "query", form))
        .collect();
    if !operation.consumes.is_empty() {
        let schema = match operation.method {
            "patch" => json!({ "type": "object" }),
            _ => reference.clone(),
        };
        parameters
            .push(json!({ "name": "body", "in": "body", "required": true, "schema": schema }));
    }
    let mut response = json!({ "description": "OK" });
    if !matches!(operation.action, "list" | "deletecollection" | "delete") {
        response["schema"] = reference;
    }
    let code = if operation.created { "201" } else { "200" };
    let mut described = json!({
        "produces": ["application/json"],
        "parameters": parameters,
        "responses": { code: response },
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": kind.group_version_kind(),
    });
    if !operation.consumes.is_empty() {
        described["consumes"] = json!(operation.consumes);
    }
    described
}

/// Leaves out what version 2 does not know.
fn without_version_3(schema: &mut Value) {
    let Value::Object(fields) = schema else {
        return;
    };
    fields.remove("nullable");
    for name in ["items", "additionalProperties"] {
        if let Some(inner) = fields.get_mut(name) {
            without_version_3(inner);
        }
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(without_version_3);
    }
}
