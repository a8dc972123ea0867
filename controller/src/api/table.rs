//! Objects as rows for people: what `get` prints, computed here so that every client prints the same.
//!
//! Pure: a body and the time go in, cells come out.

mod columns;

use std::borrow::Borrow;

use hive_manifests::Resource;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::query::IncludeObject;
use columns::{Column, columns};

/// A Table of one page of objects.
pub(super) fn table(
    resource: Resource,
    objects: impl Iterator<Item = impl Borrow<Value>>,
    list_metadata: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    lay_out(columns(resource), objects, list_metadata, include, now)
}

/// A Table of controllers, which are not stored.
pub(super) fn of_controllers<'a>(
    objects: impl Iterator<Item = &'a Value>,
    list_metadata: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    lay_out(columns::CONTROLLER, objects, list_metadata, include, now)
}

/// A Table of what functions or namespaces used.
pub(super) fn of_usage<'a>(
    usages: impl Iterator<Item = &'a Value>,
    list_metadata: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    lay_out(columns::USAGE, usages, list_metadata, include, now)
}

fn lay_out(
    columns: &[Column],
    objects: impl Iterator<Item = impl Borrow<Value>>,
    list_metadata: Value,
    include: IncludeObject,
    now: Timestamp,
) -> Value {
    let rows: Vec<Value> = objects
        .map(|body| row(columns, body.borrow(), include, now))
        .collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": columns.iter().map(Column::definition).collect::<Vec<_>>(),
        "rows": rows,
    })
}

fn row(columns: &[Column], body: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let cells: Vec<Value> = columns
        .iter()
        .map(|column| column.cell(body, now))
        .collect();
    match include {
        IncludeObject::None => json!({ "cells": cells }),
        IncludeObject::Metadata => json!({ "cells": cells, "object": partial(body) }),
        IncludeObject::Object => json!({ "cells": cells, "object": body }),
    }
}

/// An object's metadata alone.
pub(super) fn partial(body: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": body["metadata"],
    })
}

#[cfg(test)]
mod tests;
