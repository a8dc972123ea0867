//! The paths of OpenAPI documents: which operations each kind has, and their options.
//!
//! `kubectl` looks there whether dryRun and fieldValidation are understood.

use serde_json::{Map, Value, json};

use super::{Asked, DELETE_OPTIONS, Kind, STATUS};

const JSON: &[&str] = &["application/json"];

const PATCHES: &[&str] = &[
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/apply-patch+yaml",
];

/// Of Kubernetes' own kinds.
const MORE_PATCHES: &[&str] = &[
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// A name, and the type of its values.
type Choice = (&'static str, &'static str);

const READ: &[Choice] = &[("pretty", "string"), ("resourceVersion", "string")];

/// Of operations on several objects.
const LIST: &[Choice] = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("pretty", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];

const WRITE: &[Choice] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("pretty", "string"),
];

const PATCH: &[Choice] = &[
    ("dryRun", "string"),
    ("fieldManager", "string"),
    ("fieldValidation", "string"),
    ("force", "boolean"),
    ("pretty", "string"),
];

const DELETE: &[Choice] = &[
    ("dryRun", "string"),
    ("orphanDependents", "boolean"),
    ("pretty", "string"),
    ("propagationPolicy", "string"),
];

const DELETE_MANY: &[Choice] = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("pretty", "string"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
];

const LOG: &[Choice] = &[
    ("follow", "boolean"),
    ("prefix", "boolean"),
    ("previous", "boolean"),
    ("requestId", "string"),
    ("requestIds", "boolean"),
    ("sinceSeconds", "integer"),
    ("sinceTime", "string"),
    ("tailLines", "integer"),
    ("timestamps", "boolean"),
];

/// What an option or a part of a path is for.
pub(super) fn purpose(name: &str) -> &'static str {
    match name {
        "name" => "Name of the object.",
        "namespace" => "Namespace of the objects.",
        "allowWatchBookmarks" => "Of a watch: also tell of the revision when nothing happened.",
        "continue" => "Where a page begins: what metadata.continue of the page before says.",
        "dryRun" => "All: do everything but write. No other value is known.",
        "fieldManager" => "Who writes, as metadata.managedFields names owners of fields.",
        "fieldSelector" => "Only objects with these values of fields, as in metadata.name=a.",
        "fieldValidation" => {
            "What becomes of unknown and repeated fields: Ignore drops them, Warn (the default) also says so in \
             Warning headers, Strict refuses the request."
        }
        "follow" => "Go on with what is written from now on.",
        "force" => "Of an apply: take fields from their owners. Of a removal: even if it costs.",
        "labelSelector" => "Only objects with these labels, as in app=shop,tier!=back.",
        "limit" => "How many objects a page has at most.",
        "orphanDependents" => "The older form of propagationPolicy: true is Orphan.",
        "prefix" => "Say before each line which copy wrote it.",
        "pretty" => "true: one value a line.",
        "previous" => "What the version before the one that runs said last.",
        "propagationPolicy" => {
            "What becomes of dependents: Background removes them afterwards, Foreground before, Orphan leaves them."
        }
        "requestId" => {
            "Only what was said in the request with this id, or in those of the trace with this id."
        }
        "requestIds" => {
            "Say after each line in which request it was said, and of which trace that was."
        }
        "resourceVersion" => "How new the answer must be, or where a watch begins.",
        "resourceVersionMatch" => "What resourceVersion means for a list: Exact or NotOlderThan.",
        "sendInitialEvents" => "Of a watch: first all that is there, then a bookmark.",
        "sinceSeconds" => "Only what was written in this many seconds.",
        "sinceTime" => "Only what was written from this time on.",
        "tailLines" => "Only this many last lines.",
        "timeoutSeconds" => "When a watch ends.",
        "timestamps" => "Say before each line when it was written.",
        "watch" => "Follow changes instead of listing.",
        _ => "",
    }
}

/// What an operation is, whichever version of OpenAPI says it.
pub(super) struct Operation {
    pub method: &'static str,
    /// Kubernetes' name of it.
    pub action: &'static str,
    pub options: &'static [Choice],
    /// Media types of the body; empty for none.
    pub consumes: &'static [&'static str],
    pub created: bool,
}

/// One path and what may be done there, with objects of this kind.
pub(super) struct Path {
    pub path: String,
    pub kind: Kind,
    pub parameters: Vec<&'static str>,
    pub operations: Vec<Operation>,
}

const fn operation(
    method: &'static str,
    action: &'static str,
    options: &'static [Choice],
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

const fn create() -> Operation {
    Operation {
        created: true,
        ..operation("post", "post", WRITE, JSON)
    }
}

impl Operation {
    /// The schema of the answer; text has none.
    pub fn answer(&self, kind: &Kind) -> Option<String> {
        match self.action {
            "connect" => None,
            "list" | "deletecollection" => Some(kind.list_name()),
            "delete" => Some(STATUS.to_owned()),
            _ => Some(kind.schema_name()),
        }
    }

    /// The schema of the body; patches have none.
    pub fn body(&self, kind: &Kind) -> Option<String> {
        match self.method {
            _ if self.consumes.is_empty() => None,
            "patch" => None,
            "delete" => Some(DELETE_OPTIONS.to_owned()),
            _ => Some(kind.schema_name()),
        }
    }

    pub fn code(&self) -> &'static str {
        if self.created { "201" } else { "200" }
    }
}

/// `prefix` is `api/v1` or `apis/group/version`.
pub(super) fn of_kind(prefix: &str, kind: Kind) -> Vec<Path> {
    let (scope, parameters) = match kind.namespaced {
        true => ("namespaces/{namespace}/", vec!["namespace"]),
        false => ("", vec![]),
    };
    let all = format!("/{prefix}/{scope}{}", kind.plural);
    let of_all = |operations| Path {
        path: all.clone(),
        kind,
        parameters: parameters.clone(),
        operations,
    };
    let of_one = |below: &str, kind, operations| Path {
        path: format!("{all}/{{name}}{below}"),
        kind,
        parameters: [&parameters[..], &["name"]].concat(),
        operations,
    };
    let list = || operation("get", "list", LIST, &[]);
    let resource = match kind.asked {
        Asked::Stored(resource) => resource,
        Asked::Review(_) => return vec![of_all(vec![create()])],
        Asked::Controller => {
            let delete = operation("delete", "delete", &[("force", "boolean")], &[]);
            let get = operation("get", "get", &[("pretty", "string")], &[]);
            return vec![of_all(vec![list()]), of_one("", kind, vec![get, delete])];
        }
        // Parts of others.
        Asked::Scale | Asked::TokenRequest => return Vec::new(),
    };
    let patches = match kind.is_hive_s() {
        true => PATCHES,
        false => MORE_PATCHES,
    };
    let read_and_write = || {
        vec![
            operation("get", "get", READ, &[]),
            operation("put", "put", WRITE, JSON),
            operation("patch", "patch", PATCH, patches),
        ]
    };
    let mut of_object = read_and_write();
    of_object.push(operation("delete", "delete", DELETE, JSON));
    let delete_all = operation("delete", "deletecollection", DELETE_MANY, JSON);
    let mut paths = vec![
        of_all(vec![list(), create(), delete_all]),
        of_one("", kind, of_object),
    ];
    if kind.namespaced {
        paths.push(Path {
            path: format!("/{prefix}/{}", kind.plural),
            kind,
            parameters: Vec::new(),
            operations: vec![list()],
        });
    }
    if resource.has_status() {
        paths.push(of_one("/status", kind, read_and_write()));
    }
    if resource.has_approval() {
        paths.push(of_one("/approval", kind, read_and_write()));
    }
    if resource.has_scale() {
        paths.push(of_one("/scale", Kind::SCALE, read_and_write()));
    }
    match resource {
        hive_manifests::Resource::ServiceAccount => {
            paths.push(of_one("/token", Kind::TOKEN_REQUEST, vec![create()]));
        }
        hive_manifests::Resource::Function => {
            let log = operation("get", "connect", LOG, &[]);
            paths.push(of_one("/log", kind, vec![log]));
        }
        _ => {}
    }
    paths
}

/// In the words of version 3.
pub(super) fn paths(prefix: &str, kinds: &[Kind]) -> Map<String, Value> {
    let mut paths = Map::new();
    for path in kinds.iter().flat_map(|kind| of_kind(prefix, *kind)) {
        let mut item = Map::new();
        let parameters: Vec<Value> = path
            .parameters
            .iter()
            .map(|name| {
                json!({
                    "name": name,
                    "in": "path",
                    "description": purpose(name),
                    "required": true,
                    "schema": { "type": "string" },
                })
            })
            .collect();
        if !parameters.is_empty() {
            item.insert("parameters".into(), parameters.into());
        }
        for operation in &path.operations {
            let described = version_3(&path.kind, operation);
            item.insert(operation.method.into(), described);
        }
        paths.insert(path.path, item.into());
    }
    paths
}

fn version_3(kind: &Kind, operation: &Operation) -> Value {
    let reference = |name: String| json!({ "$ref": format!("#/components/schemas/{name}") });
    let options: Vec<Value> = operation
        .options
        .iter()
        .map(|(name, form)| {
            json!({
                "name": name,
                "in": "query",
                "description": purpose(name),
                "schema": { "type": form },
            })
        })
        .collect();
    let content = match operation.answer(kind) {
        Some(name) => json!({ "application/json": { "schema": reference(name) } }),
        None => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    let mut described = json!({
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": kind.group_version_kind(),
        "parameters": options,
        "responses": { operation.code(): { "description": "OK", "content": content } },
    });
    if !operation.consumes.is_empty() {
        let schema = operation.body(kind).map_or(json!({}), reference);
        let content: Map<String, Value> = operation
            .consumes
            .iter()
            .map(|media_type| ((*media_type).to_owned(), json!({ "schema": schema })))
            .collect();
        let required = operation.method != "delete";
        described["requestBody"] = json!({ "required": required, "content": content });
    }
    described
}
