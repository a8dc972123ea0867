//! The paths of OpenAPI documents: which operations each kind has, and their options.
//!
//! `kubectl` looks there whether dryRun and fieldValidation are understood.

use serde_json::{Map, Value, json};

use super::{Asked, Kind};

const PATCHES: [&str; 3] = [
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
];

/// Options of operations that read several objects, with their types.
const LIST_OPTIONS: [(&str, &str); 8] = [
    ("labelSelector", "string"),
    ("fieldSelector", "string"),
    ("limit", "integer"),
    ("continue", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

const WRITE_OPTIONS: [(&str, &str); 3] = [
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
];

const DELETE_OPTIONS: [(&str, &str); 2] = [("dryRun", "string"), ("propagationPolicy", "string")];

/// What an operation is, whichever version of OpenAPI says it.
pub(super) struct Operation {
    pub method: &'static str,
    /// Kubernetes' name of it.
    pub action: &'static str,
    pub options: &'static [(&'static str, &'static str)],
    /// Media types of the body; empty for none.
    pub consumes: &'static [&'static str],
    pub created: bool,
}

/// One path and what may be done there.
pub(super) struct Path {
    pub path: String,
    pub parameters: Vec<&'static str>,
    pub operations: Vec<Operation>,
}

const JSON: &[&str] = &["application/json"];

const fn operation(
    method: &'static str,
    action: &'static str,
    options: &'static [(&'static str, &'static str)],
    consumes: &'static [&'static str],
) -> Operation {
    Operation {
        method,
        action,
        options,
        consumes,
        created: false,
    }
}

fn create() -> Operation {
    Operation {
        created: true,
        ..operation("post", "post", &WRITE_OPTIONS, JSON)
    }
}

/// `prefix` is `api/v1` or `apis/group/version`.
pub(super) fn of_kind(prefix: &str, kind: &Kind) -> Vec<Path> {
    let plural = kind.plural;
    let (scope, parameters) = match kind.namespaced {
        true => ("namespaces/{namespace}/", vec!["namespace"]),
        false => ("", vec![]),
    };
    let Asked::Stored(resource) = kind.asked else {
        return vec![Path {
            path: format!("/{prefix}/{scope}{plural}"),
            parameters,
            operations: vec![create()],
        }];
    };
    let named = [&parameters[..], &["name"]].concat();
    let read_and_write = || {
        vec![
            operation("get", "get", &[("resourceVersion", "string")], &[]),
            operation("put", "put", &WRITE_OPTIONS, JSON),
            operation("patch", "patch", &WRITE_OPTIONS, &PATCHES),
        ]
    };
    let mut item = read_and_write();
    item.push(operation("delete", "delete", &DELETE_OPTIONS, &[]));
    let mut paths = vec![
        Path {
            path: format!("/{prefix}/{scope}{plural}"),
            parameters,
            operations: vec![
                operation("get", "list", &LIST_OPTIONS, &[]),
                create(),
                operation("delete", "deletecollection", &DELETE_OPTIONS, &[]),
            ],
        },
        Path {
            path: format!("/{prefix}/{scope}{plural}/{{name}}"),
            parameters: named.clone(),
            operations: item,
        },
    ];
    if kind.namespaced {
        paths.push(Path {
            path: format!("/{prefix}/{plural}"),
            parameters: Vec::new(),
            operations: vec![operation("get", "list", &LIST_OPTIONS, &[])],
        });
    }
    let subresources = [
        ("status", resource.has_status()),
        ("approval", resource.has_approval()),
    ];
    for (name, _) in subresources.into_iter().filter(|(_, is_there)| *is_there) {
        paths.push(Path {
            path: format!("/{prefix}/{scope}{plural}/{{name}}/{name}"),
            parameters: named.clone(),
            operations: read_and_write(),
        });
    }
    paths
}

/// In the words of version 3.
pub(super) fn paths(prefix: &str, kinds: &[Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for kind in kinds {
        let schema = json!({ "$ref": format!("#/components/schemas/{}", kind.schema_name()) });
        for path in of_kind(prefix, kind) {
            let mut item = Map::new();
            let parameters: Vec<Value> = path
                .parameters
                .iter()
                .map(|name| {
                    json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
                })
                .collect();
            if !parameters.is_empty() {
                item.insert("parameters".into(), parameters.into());
            }
            for operation in path.operations {
                item.insert(
                    operation.method.into(),
                    version_3(kind, &operation, &schema),
                );
            }
            paths.insert(path.path, item.into());
        }
    }
    paths
}

fn version_3(kind: &Kind, operation: &Operation, schema: &Value) -> Value {
    let options: Vec<Value> = operation
        .options
        .iter()
        .map(|(name, form)| json!({ "name": name, "in": "query", "schema": { "type": form } }))
        .collect();
    let shown = match operation.action {
        // Lists and statuses have no schema here.
        "list" | "deletecollection" | "delete" => json!({ "type": "object" }),
        _ => schema.clone(),
    };
    let code = if operation.created { "201" } else { "200" };
    let mut described = json!({
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": kind.group_version_kind(),
        "parameters": options,
        "responses": {
            code: { "description": "OK", "content": { "application/json": { "schema": shown } } },
        },
    });
    if !operation.consumes.is_empty() {
        let content: Map<String, Value> = operation
            .consumes
            .iter()
            .map(|media_type| {
                let schema = match operation.method {
                    "patch" => json!({}),
                    _ => schema.clone(),
                };
                ((*media_type).to_owned(), json!({ "schema": schema }))
            })
            .collect();
        described["requestBody"] = json!({ "required": true, "content": content });
    }
    described
}
