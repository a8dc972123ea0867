//! Version 2 of OpenAPI, one document for everything: for clients from before version 3.

use serde_json::{Map, Value, json};

use super::operations::{self, Operation, purpose};
use super::{GROUP_VERSIONS, Kind, kinds, schemas};

pub(super) fn document() -> Value {
    let mut paths = Map::new();
    let mut definitions = Map::new();
    for (prefix, api_version) in GROUP_VERSIONS {
        let kinds = kinds(api_version);
        for (name, mut schema) in schemas(&kinds, "#/definitions/") {
            without_version_3(&mut schema);
            definitions.insert(name, schema);
        }
        for path in kinds
            .iter()
            .flat_map(|kind| operations::of_kind(prefix, *kind))
        {
            let mut item = Map::new();
            let parameters: Vec<Value> = path
                .parameters
                .iter()
                .map(|name| parameter(name, "path", "string"))
                .collect();
            if !parameters.is_empty() {
                item.insert("parameters".into(), parameters.into());
            }
            for operation in &path.operations {
                item.insert(operation.method.into(), described(&path.kind, operation));
            }
            paths.insert(path.path, item.into());
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
    let mut parameter = json!({
        "name": name,
        "in": place,
        "description": purpose(name),
        "type": form,
        "uniqueItems": true,
    });
    if place == "path" {
        parameter["required"] = json!(true);
    }
    parameter
}

fn described(kind: &Kind, operation: &Operation) -> Value {
    let reference = |name: String| json!({ "$ref": format!("#/definitions/{name}") });
    let mut parameters: Vec<Value> = operation
        .options
        .iter()
        .map(|(name, form)| parameter(name, "query", form))
        .collect();
    if !operation.consumes.is_empty() {
        let schema = operation
            .body(kind)
            .map_or(json!({ "type": "object" }), reference);
        let required = operation.method != "delete";
        parameters
            .push(json!({ "name": "body", "in": "body", "required": required, "schema": schema }));
    }
    let (media_type, schema) = match operation.answer(kind) {
        Some(name) => ("application/json", reference(name)),
        None => ("text/plain", json!({ "type": "string" })),
    };
    let mut described = json!({
        "produces": [media_type],
        "parameters": parameters,
        "responses": { operation.code(): { "description": "OK", "schema": schema } },
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
