//! OpenAPI v3 documents, one a group and version: what `kubectl explain` and strict clients read.
//!
//! The schemas are those that validate; the paths say no more than that fields are validated here.

use axum::response::Response;
use hive_manifests::{RBAC_GROUP, Resource, openapi_schema};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::respond;

/// Group versions that have a document, by the path under `/openapi/v3/`.
const DOCUMENTS: [(&str, &str); 3] = [
    ("api/v1", "v1"),
    ("apis/hive.dev/v1", "hive.dev/v1"),
    (
        "apis/rbac.authorization.k8s.io/v1",
        "rbac.authorization.k8s.io/v1",
    ),
];

pub(super) fn index() -> Result<Response, ApiError> {
    // A document changes only with the program.
    let version = env!("CARGO_PKG_VERSION");
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(path, _)| {
            let url = format!("/openapi/v3/{path}?hash={version}");
            ((*path).to_owned(), json!({ "serverRelativeURL": url }))
        })
        .collect();
    respond::json(StatusCode::OK, &json!({ "paths": paths }))
}

pub(super) fn document(path: &str) -> Result<Response, ApiError> {
    let (_, api_version) = DOCUMENTS
        .iter()
        .find(|(known, _)| *known == path)
        .ok_or(ApiError::NoSuchPath)?;
    let resources: Vec<Resource> = Resource::ALL
        .into_iter()
        .filter(|resource| resource.api_version() == *api_version)
        .collect();
    let schemas: Map<String, Value> = resources
        .iter()
        .map(|r| (schema_name(*r), schema(*r)))
        .collect();
    let paths: Map<String, Value> = resources.iter().map(|r| operations(path, *r)).collect();
    respond::json(
        StatusCode::OK,
        &json!({
            "openapi": "3.0.0",
            "info": { "title": "Hive", "version": env!("CARGO_PKG_VERSION") },
            "paths": paths,
            "components": { "schemas": schemas },
        }),
    )
}

/// Names as Kubernetes gives them: `io.k8s.api.core.v1.Secret`, `dev.hive.v1.Function`.
fn schema_name(resource: Resource) -> String {
    match resource.group() {
        "" => format!("io.k8s.api.core.v1.{}", resource.kind()),
        RBAC_GROUP => format!("io.k8s.api.rbac.v1.{}", resource.kind()),
        _ => format!("dev.hive.v1.{}", resource.kind()),
    }
}

fn kind_of(resource: Resource) -> Value {
    json!({
        "group": resource.group(),
        "version": resource.version(),
        "kind": resource.kind(),
    })
}

fn schema(resource: Resource) -> Value {
    let mut schema = openapi_schema(resource).clone();
    schema["x-kubernetes-group-version-kind"] = json!([kind_of(resource)]);
    schema
}

/// The path of one object; `kubectl` looks there whether fieldValidation is understood.
fn operations(path: &str, resource: Resource) -> (String, Value) {
    let scope = if resource.namespaced() {
        "namespaces/{namespace}/"
    } else {
        ""
    };
    let option =
        |name: &str| json!({ "name": name, "in": "query", "schema": { "type": "string" } });
    let content = json!({
        "application/json": {
            "schema": { "$ref": format!("#/components/schemas/{}", schema_name(resource)) },
        },
    });
    let operation = |action: &str| {
        json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind_of(resource),
            "parameters": [option("dryRun"), option("fieldManager"), option("fieldValidation")],
            "responses": { "200": { "description": "OK", "content": content } },
        })
    };
    let operations = json!({
        "get": operation("get"),
        "patch": operation("patch"),
        "put": operation("put"),
        "delete": operation("delete"),
    });
    (
        format!("/{path}/{scope}{}/{{name}}", resource.plural()),
        operations,
    )
}
