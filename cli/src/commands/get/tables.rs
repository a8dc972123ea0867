//! The tables of `get`: asked of the server, merged, printed, followed.
//!
//! One resource makes one table, whether it was listed or named object by object. While watching,
//! rows that change are printed again beneath.

use hive_manifests::Resource;
use serde_json::{Value, json};

use super::{Request, compare};
use crate::age;
use crate::cluster::{AS_TABLE, Call, path};
use crate::commands::lookup::finish;
use crate::failure::Failure;
use crate::object;
use crate::selection::Selection;
use crate::session::Session;
use crate::table::{self, Columns, TableStyle};
use crate::watch::Following;

pub async fn print(
    request: &Request,
    wide: bool,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let mut failures = Vec::new();
    let mut printed = false;
    for (selection, namespace) in &request.parts {
        let prefix = match request.parts.len() {
            1 => String::new(),
            _ => object::reference_prefix(selection.resource),
        };
        let style = TableStyle {
            wide,
            namespace: request.get.all_namespaces && selection.resource.namespaced(),
            labels: request.get.show_labels,
            name_prefix: &prefix,
        };
        let following = request.get.watch || request.get.watch_only;
        let mut table = fetch(request, selection, namespace.as_deref(), &mut failures).await?;
        if let Some(path) = &request.get.sort_by
            && let Some(rows) = table["rows"].as_array_mut()
        {
            rows.sort_by(|a, b| compare(path, &a["object"], &b["object"]));
        }
        let mut lines = match request.get.watch_only {
            true => Vec::new(),
            false => table::rows(&table, &table, style),
        };
        if lines.is_empty() && !following {
            continue;
        }
        if !request.get.no_headers && !table["columnDefinitions"].is_null() {
            lines.insert(0, table::headers(&table, style));
        }
        let mut columns = Columns::default();
        let text = columns.lay_out(&lines);
        if printed {
            session.world.line("")?;
        }
        session.world.text(text)?;
        printed = true;
        if following {
            return follow(request, table, style, columns, session).await;
        }
    }
    if !printed && failures.is_empty() && !request.get.ignore_not_found {
        session.world.note(nothing_found(request))?;
    }
    finish(failures)
}

fn nothing_found(request: &Request) -> String {
    let namespace = request
        .parts
        .iter()
        .find_map(|(_, namespace)| namespace.as_deref());
    match namespace {
        Some(namespace) => format!("No resources found in {namespace} namespace."),
        None => "No resources found.".into(),
    }
}

/// One table of all objects selected.
async fn fetch(
    request: &Request,
    selection: &Selection,
    namespace: Option<&str>,
    failures: &mut Vec<Failure>,
) -> Result<Value, Failure> {
    let resource = selection.resource;
    // Sorting reads the objects; otherwise their metadata is enough.
    let include = request
        .get
        .sort_by
        .is_some()
        .then_some(("includeObject", "Object"));
    let following = request.get.watch || request.get.watch_only;
    if selection.names.is_empty() || following {
        let scope = request.scope(selection, namespace)?;
        let path = path::with_query(
            &path::collection(resource, namespace),
            scope.query().into_iter().chain(include),
        );
        let answer = request
            .cluster
            .json(&Call::get(&path).accept(AS_TABLE))
            .await?;
        return Ok(as_table(answer, resource));
    }
    let mut merged = Value::Null;
    for name in &selection.names {
        let path = path::with_query(&path::object(resource, namespace, name), include);
        match request
            .cluster
            .json(&Call::get(&path).accept(AS_TABLE))
            .await
        {
            Ok(answer) => merge(&mut merged, as_table(answer, resource)),
            Err(error) => {
                failures.extend(request.missing(resource, namespace, name, error).await?);
            }
        }
    }
    Ok(merged)
}

fn merge(merged: &mut Value, mut table: Value) {
    match (merged["rows"].as_array_mut(), table["rows"].as_array_mut()) {
        (Some(rows), Some(more)) => rows.append(more),
        _ => *merged = table,
    }
}

/// A server that doesn't lay out tables answers with objects: name and age are then shown.
fn as_table(answer: Value, resource: Resource) -> Value {
    if answer["kind"] == "Table" {
        return answer;
    }
    let now = jiff::Timestamp::now();
    let rows: Vec<Value> = crate::output::items(&answer)
        .into_iter()
        .map(|object| {
            let age = object["metadata"]["creationTimestamp"]
                .as_str()
                .and_then(|created| age::since(created, now));
            json!({"cells": [object::name(object), age], "object": object})
        })
        .collect();
    json!({
        "kind": "Table",
        "metadata": {
            "resourceVersion": object::resource_version(&answer),
            "resource": resource.plural(),
        },
        "columnDefinitions": [{"name": "Name", "format": "name"}, {"name": "Age"}],
        "rows": rows,
    })
}

/// Prints rows as they change, until interrupted.
async fn follow(
    request: &Request,
    table: Value,
    style: TableStyle<'_>,
    mut columns: Columns,
    session: &mut Session<'_>,
) -> Result<(), Failure> {
    let (selection, namespace) = &request.parts[0];
    let scope = request.scope(selection, namespace.as_deref())?;
    let version = object::resource_version(&table);
    let mut following = Following::new(&request.cluster, &scope, Some(AS_TABLE), version);
    loop {
        let (_, answer) = following.next().await?;
        let answer = as_table(answer, selection.resource);
        let lines = table::rows(&answer, &table, style);
        session.world.text(columns.lay_out(&lines))?;
    }
}
