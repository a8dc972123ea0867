//! `spin.toml` (version 2) as the Function that it means.
//!
//! The text of an application with one component behind HTTP flows in; a document flows out whose
//! fields know their lines in that text, so that whatever is said of it later names them. What the
//! swarm cannot do is refused with its line and a remedy, all of it at once: an application never
//! runs with less than it asks for, nor with more.

mod component;
mod hosts;
mod manifest;
mod routes;

use std::collections::BTreeMap;
use std::ops::Range;

use hive_manifests::{Document, FieldPath};
use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// As for other manifests; an application's is some KB.
pub const MAX_BYTES: usize = 1 << 20;

type Entry<'a> = Spanned<DeValue<'a>>;

/// Problems come as `spin.toml:7: trigger.http: ...`, in the order of their lines.
pub fn read(text: &str, source: &str) -> Result<Document, Vec<String>> {
    let mut application = Application::new(text, source);
    if text.len() > MAX_BYTES {
        application.refuse(0..0, "", "larger than 1 MiB");
        return Err(application.problems());
    }
    match DeTable::parse(text) {
        Ok(root) => application.root(root.get_ref()),
        Err(error) => application.refuse(error.span().unwrap_or(0..0), "", error.message()),
    }
    match application.refused.is_empty() {
        true => Ok(Document::placed(
            application.value,
            source,
            &application.places,
        )),
        false => Err(application.problems()),
    }
}

/// What was understood, and what was not.
struct Application<'a> {
    text: &'a str,
    source: &'a str,
    value: Value,
    places: Vec<(FieldPath, usize)>,
    refused: Vec<(usize, String)>,
    /// Of the application's variables; none where one must be given, or is a secret.
    defaults: BTreeMap<String, Option<String>>,
}

impl<'a> Application<'a> {
    fn new(text: &'a str, source: &'a str) -> Self {
        Self {
            text,
            source,
            value: json!({
                "apiVersion": "hive.dev/v1",
                "kind": "Function",
                "metadata": {},
                "spec": {},
            }),
            places: Vec::new(),
            refused: Vec::new(),
            defaults: BTreeMap::new(),
        }
    }

    fn problems(mut self) -> Vec<String> {
        self.refused.sort();
        let told = self.refused.into_iter();
        told.map(|(line, what)| format!("{}:{line}: {what}", self.source))
            .collect()
    }

    fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().get(..span.start).unwrap_or_default();
        before.iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn refuse(&mut self, span: Range<usize>, key: &str, why: impl std::fmt::Display) {
        let line = self.line(&span);
        let what = match key {
            "" => why.to_string(),
            key => format!("{key}: {why}"),
        };
        self.refused.push((line, what));
    }

    /// A field of the Function, from this place.
    fn set(&mut self, span: Range<usize>, path: FieldPath, pointer: &str, value: Value) {
        let line = self.line(&span);
        self.places.push((path, line));
        let (parent, name) = pointer.rsplit_once('/').expect("pointers have a slash");
        if let Some(parent) = self.value.pointer_mut(parent) {
            parent[name] = value;
        }
    }

    /// The text of a value, or the complaint that it is none.
    fn text_of<'v>(&mut self, key: &str, entry: &'v Entry<'_>) -> Option<&'v str> {
        let text = entry.get_ref().as_str();
        if text.is_none() {
            let kind = entry.get_ref().type_str();
            self.refuse(
                entry.span(),
                key,
                format_args!("expected text, found {kind}"),
            );
        }
        text
    }

    fn table_of<'v, 't>(&mut self, key: &str, entry: &'v Entry<'t>) -> Option<&'v DeTable<'t>> {
        let table = entry.get_ref().as_table();
        if table.is_none() {
            let kind = entry.get_ref().type_str();
            self.refuse(
                entry.span(),
                key,
                format_args!("expected a table, found {kind}"),
            );
        }
        table
    }
}

#[cfg(test)]
mod tests;
