//! `spin.toml` (version 2) as the Function that it means.
//!
//! The text of an application with one component behind HTTP flows in; a document flows out whose
//! fields know their lines in that text, so that whatever is said of it later names them. What the
//! swarm cannot do is refused with its line and a remedy, all of it at once: an application never
//! runs with less than it asks for, nor with more.

mod hosts;
mod routes;

use std::collections::{BTreeMap, BTreeSet};
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

    fn root(&mut self, root: &DeTable<'_>) {
        match root.get("spin_manifest_version") {
            Some(version)
                if version
                    .get_ref()
                    .as_integer()
                    .is_some_and(|v| v.as_str() == "2") => {}
            Some(version) => self.refuse(
                version.span(),
                "spin_manifest_version",
                "2 is the version that is read",
            ),
            None if root.contains_key("spin_version") => {
                self.refuse(
                    0..0,
                    "spin_version",
                    "version 1 of the manifest is not read: `spin doctor` brings it to version 2",
                );
                return;
            }
            None => {
                self.refuse(
                    0..0,
                    "spin_manifest_version",
                    "missing: a Spin application says spin_manifest_version = 2",
                );
                return;
            }
        }
        for (key, entry) in root {
            match &**key.get_ref() {
                "spin_manifest_version" | "trigger" | "component" => {}
                "variables" => self.declared(entry),
                "application" => self.application(entry),
                other => self.refuse(
                    key.span(),
                    other,
                    "no part of a Spin application that is known here",
                ),
            }
        }
        if !root.contains_key("application") {
            self.refuse(0..0, "application", "missing: it names the function");
        }
        let named = self.trigger(root);
        self.component(root, named.as_deref());
    }

    fn application(&mut self, entry: &Entry<'_>) {
        let Some(table) = self.table_of("application", entry) else {
            return;
        };
        for (key, entry) in table {
            let name = format!("application.{}", key.get_ref());
            match &**key.get_ref() {
                "name" => {
                    if let Some(text) = self.text_of(&name, entry) {
                        let path = FieldPath::of(["metadata", "name"]);
                        self.set(entry.span(), path, "/metadata/name", json!(text));
                    }
                }
                "version" => self.annotate(&name, "app.kubernetes.io/version", entry),
                "description" => self.annotate(&name, "kubernetes.io/description", entry),
                "authors" => {}
                "trigger" => self.refuse(
                    key.span(),
                    &name,
                    "settings of triggers have no place in a function",
                ),
                _ => self.refuse(
                    key.span(),
                    &name,
                    "no part of a Spin application that is known here",
                ),
            }
        }
        if !table.contains_key("name") {
            self.refuse(
                entry.span(),
                "application.name",
                "missing: it names the function",
            );
        }
    }

    fn annotate(&mut self, name: &str, annotation: &str, entry: &Entry<'_>) {
        let Some(text) = self.text_of(name, entry).filter(|text| !text.is_empty()) else {
            return;
        };
        let line = self.line(&entry.span());
        self.places.push((
            FieldPath::of(["metadata", "annotations"]).field(annotation),
            line,
        ));
        self.value["metadata"]["annotations"][annotation] = json!(text);
    }

    fn component(&mut self, root: &DeTable<'_>, named: Option<&str>) {
        let components = root
            .get("component")
            .and_then(|entry| self.table_of("component", entry));
        let Some(named) = named else {
            return;
        };
        for (key, entry) in components.into_iter().flatten() {
            let name = format!("component.{}", key.get_ref());
            if key.get_ref() != named {
                self.refuse(
                    key.span(),
                    &name,
                    "a function is one component, and no route leads to this one; give it its own spin.toml",
                );
            } else if let Some(table) = self.table_of(&name, entry) {
                self.fields(&name, table);
                if !table.contains_key("source") {
                    self.refuse(
                        key.span(),
                        &format!("{name}.source"),
                        "missing: the component's file",
                    );
                }
            }
        }
        if components.is_none_or(|components| !components.contains_key(named)) {
            self.refuse(
                0..0,
                "component",
                format_args!("[component.{named}] is missing, to which the route leads"),
            );
        }
    }

    fn fields(&mut self, component: &str, table: &DeTable<'_>) {
        for (key, entry) in table {
            let name = format!("{component}.{}", key.get_ref());
            let is_empty = match entry.get_ref() {
                DeValue::Array(items) => items.is_empty(),
                DeValue::Table(fields) => fields.is_empty(),
                _ => false,
            };
            let why = match &**key.get_ref() {
                "source" => {
                    self.artifact(&name, entry);
                    continue;
                }
                "environment" => {
                    self.environment(&name, entry);
                    continue;
                }
                "allowed_outbound_hosts" => {
                    self.hosts(&name, entry);
                    continue;
                }
                "variables" => {
                    self.variables(&name, entry);
                    continue;
                }
                // How it is made, and what of its surroundings is left out, is the author's.
                "description"
                | "build"
                | "tool"
                | "exclude_files"
                | "dependencies_inherit_configuration" => continue,
                _ if is_empty => continue,
                "key_value_stores" => "functions have none yet",
                "sqlite_databases" => {
                    "functions have no databases; reach one over HTTP, by allowed_outbound_hosts"
                }
                "ai_models" => {
                    "functions have no models; reach one over HTTP, by allowed_outbound_hosts"
                }
                "files" => "functions have no files beside them; build them into the component",
                "dependencies" => {
                    "compose them into the component first (`wac plug`), or push it with `spin registry push` and name the image"
                }
                "allowed_http_hosts" => {
                    "of version 1: allowed_outbound_hosts says it with a scheme, as in \"https://a.example\""
                }
                _ => "not known here",
            };
            self.refuse(key.span(), &name, why);
        }
    }

    fn artifact(&mut self, name: &str, entry: &Entry<'_>) {
        let field = |name: &str| FieldPath::of(["spec", "artifact"]).field(name);
        if let Some(path) = entry.get_ref().as_str() {
            return self.set(
                entry.span(),
                field("path"),
                "/spec/artifact",
                json!({ "path": path }),
            );
        }
        let Some(table) = self.table_of(name, entry) else {
            return;
        };
        let text = |key: &str| table.get(key).and_then(|entry| entry.get_ref().as_str());
        if text("url").is_some() {
            let why = "components are not fetched from web pages: download it, check its digest, and name the file";
            return self.refuse(entry.span(), name, why);
        }
        match (text("registry"), text("package"), text("version")) {
            (Some(registry), Some(package), Some(version)) => {
                let image = format!("oci://{registry}/{}:{version}", package.replace(':', "/"));
                self.set(
                    entry.span(),
                    field("oci"),
                    "/spec/artifact",
                    json!({ "oci": image }),
                );
            }
            _ => self.refuse(
                entry.span(),
                name,
                "name a file, or a registry, a package and a version",
            ),
        }
    }

    fn environment(&mut self, name: &str, entry: &Entry<'_>) {
        let Some(table) = self.table_of(name, entry) else {
            return;
        };
        let mut variables = Vec::new();
        for (key, entry) in table {
            let Some(value) = self.text_of(&format!("{name}.{}", key.get_ref()), entry) else {
                continue;
            };
            let line = self.line(&entry.span());
            let path = FieldPath::of(["spec", "env"]).index(variables.len());
            self.places.push((path, line));
            variables.push(json!({ "name": key.get_ref(), "value": value }));
        }
        if !variables.is_empty() {
            self.value["spec"]["env"] = variables.into();
        }
    }

    /// What is not used is no matter: where it is, it is told there.
    fn declared(&mut self, entry: &Entry<'_>) {
        let Some(table) = self.table_of("variables", entry) else {
            return;
        };
        for (key, entry) in table {
            let field = |name: &str| entry.get_ref().as_table()?.get(name).map(Spanned::get_ref);
            let is_secret = field("secret").and_then(DeValue::as_bool) == Some(true);
            let default = field("default").and_then(DeValue::as_str);
            let default = default.filter(|_| !is_secret).map(str::to_owned);
            self.defaults.insert(key.get_ref().to_string(), default);
        }
    }

    /// Settings, by wasi:config and by Spin's own interface.
    fn variables(&mut self, name: &str, entry: &Entry<'_>) {
        let Some(table) = self.table_of(name, entry) else {
            return;
        };
        let mut settings = Vec::new();
        for (key, entry) in table {
            let name = format!("{name}.{}", key.get_ref());
            let Some(text) = self.text_of(&name, entry) else {
                continue;
            };
            match expand(text, &self.defaults) {
                Ok(value) => {
                    let line = self.line(&entry.span());
                    let path = FieldPath::of(["spec", "config"]).index(settings.len());
                    self.places.push((path, line));
                    settings.push(json!({ "name": key.get_ref(), "value": value }));
                }
                Err(why) => self.refuse(entry.span(), &name, why),
            }
        }
        if !settings.is_empty() {
            self.value["spec"]["config"] = settings.into();
        }
    }

    fn hosts(&mut self, name: &str, entry: &Entry<'_>) {
        let Some(items) = entry.get_ref().as_array() else {
            return self.refuse(entry.span(), name, "expected a list");
        };
        let mut allowed = Vec::new();
        let mut seen = BTreeSet::new();
        for item in items.iter() {
            let Some(text) = self.text_of(name, item) else {
                continue;
            };
            match hosts::allowed(text) {
                Ok(host) if seen.insert(host.clone()) => {
                    let line = self.line(&item.span());
                    let path = FieldPath::of(["spec", "allowedHosts"]).index(allowed.len());
                    self.places.push((path, line));
                    allowed.push(host);
                }
                Ok(_) => {}
                Err(why) => self.refuse(item.span(), name, format_args!("{text:?}: {why}")),
            }
        }
        if !allowed.is_empty() {
            self.value["spec"]["allowedHosts"] = json!(allowed);
        }
    }
}

/// A template, with the defaults of the variables that it names.
fn expand(template: &str, defaults: &BTreeMap<String, Option<String>>) -> Result<String, String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or("\"{{\" without \"}}\"")?;
        let name = name.trim();
        match defaults.get(name) {
            Some(Some(default)) => text = text + before + default,
            Some(None) => {
                return Err(format!(
                    "the variable {name:?} is a secret or has no default: write a Function that takes it from a Secret (spec.config, valueFrom)"
                ));
            }
            None => return Err(format!("the application declares no variable {name:?}")),
        }
        rest = after;
    }
    Ok(text + rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What `spin new -t http-rust` makes, of version 3.
    const RUST: &str = r#"#:schema https://schemas.spinframework.dev/spin/manifest-v2/latest.json

spin_manifest_version = 2

[application]
name = "hello-rust"
version = "0.1.0"
authors = ["Me <me@example.com>"]
description = "Says hello"

[[trigger.http]]
route = "/..."
component = "hello-rust"

[component.hello-rust]
source = "target/wasm32-wasip1/release/hello_rust.wasm"
allowed_outbound_hosts = []
[component.hello-rust.build]
command = "cargo build --target wasm32-wasip1 --release"
watch = ["src/**/*.rs", "Cargo.toml"]
"#;

    fn problems(text: &str) -> Vec<String> {
        read(text, "spin.toml")
            .map(|document| document.value)
            .unwrap_err()
    }

    #[test]
    fn a_template_is_a_function() {
        let document = read(RUST, "spin.toml").unwrap();
        let expected = json!({
            "apiVersion": "hive.dev/v1", "kind": "Function",
            "metadata": { "name": "hello-rust", "annotations": {
                "app.kubernetes.io/version": "0.1.0", "kubernetes.io/description": "Says hello",
            }},
            "spec": {
                "artifact": { "path": "target/wasm32-wasip1/release/hello_rust.wasm" },
                "http": { "path": "/" },
            },
        });
        assert_eq!(document.value, expected);
        let line = |path: FieldPath| document.line_of(&path);
        assert_eq!(line(FieldPath::of(["metadata", "name"])), Some(6));
        assert_eq!(line(FieldPath::of(["spec", "artifact", "path"])), Some(16));
        assert!(
            hive_manifests::validate(hive_manifests::Resource::Function, &document.value)
                .is_empty()
        );
    }

    #[test]
    fn everything_that_maps_is_mapped() {
        let text =
            RUST.replace("\"/...\"", "\"/api/...\"") + "[variables]\nhi = { default = \"Hi\" }\n";
        let text = text
            .replace("allowed_outbound_hosts = []", "allowed_outbound_hosts = [\"https://a.example\",\n \"http://b:8080\", \"https://a.example/\"]\nenvironment = { B = \"2\", A = \"1\" }\nvariables = { greeting = \"{{ hi }}, you\" }\nfiles = []\nkey_value_stores = []")
            .replace("source = \"target/wasm32-wasip1/release/hello_rust.wasm\"", "source = { registry = \"ghcr.io\", package = \"acme:hello\", version = \"1.2.0\" }");
        let document = read(&text, "spin.toml").unwrap();
        assert_eq!(
            document.value["spec"],
            json!({
                "artifact": { "oci": "oci://ghcr.io/acme/hello:1.2.0" },
                "http": { "path": "/api" },
                "allowedHosts": ["a.example:443", "b:8080"],
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                "config": [{ "name": "greeting", "value": "Hi, you" }],
            })
        );
        let second = FieldPath::of(["spec", "allowedHosts"]).index(1);
        assert_eq!(document.line_of(&second), Some(18));
        assert!(
            hive_manifests::validate(hive_manifests::Resource::Function, &document.value)
                .is_empty()
        );
    }

    #[test]
    fn several_routes_are_one_functions() {
        let more =
            "[[trigger.http]]\nroute = \"/b\"\ncomponent = \"hello-rust\"\n[component.hello-rust]";
        let text = RUST.replace("[component.hello-rust]", more);
        let document = read(&text, "spin.toml").unwrap();
        let routes = json!([{ "path": "/" }, { "path": "/b", "pathType": "Exact" }]);
        assert_eq!(document.value["spec"]["http"], json!({ "routes": routes }));
        let second = FieldPath::of(["spec", "http", "routes"]).index(1);
        assert_eq!(document.line_of(&second.field("path")), Some(16));
        let one = read(&RUST.replace("/...", "/b"), "spin.toml").unwrap();
        let routes = json!([{ "path": "/b", "pathType": "Exact" }]);
        assert_eq!(one.value["spec"]["http"], json!({ "routes": routes }));
        for document in [document, one] {
            let kind = hive_manifests::Resource::Function;
            assert!(hive_manifests::validate(kind, &document.value).is_empty());
        }
    }

    #[test]
    fn what_a_function_cannot_do_is_refused_with_its_line() {
        for (from, to, problem) in [
            (
                "route = \"/...\"",
                "route = \"/:id/...\"",
                "spin.toml:12: trigger.http.route: segments",
            ),
            (
                "route = \"/...\"",
                "route = { private = true }",
                "spin.toml:12: trigger.http.route: private",
            ),
            (
                "component = \"hello-rust\"",
                "component = \"other\"",
                "spin.toml:15: component.hello-rust: a function is one component",
            ),
            (
                "[[trigger.http]]",
                "[[trigger.redis]]\nchannel = \"a\"\n[[trigger.http]]",
                "spin.toml:11: trigger.redis: a function answers HTTP",
            ),
            (
                "[component.hello-rust]",
                "[[trigger.http]]\nroute = \"/b/...\"\ncomponent = \"b\"\n[component.hello-rust]",
                "spin.toml:17: trigger.http.component: \"b\" is another component",
            ),
            (
                "allowed_outbound_hosts = []",
                "allowed_outbound_hosts = [\"redis://a:1\"]",
                "spin.toml:17: component.hello-rust.allowed_outbound_hosts: \"redis://a:1\": a function speaks HTTP",
            ),
            (
                "allowed_outbound_hosts = []",
                "key_value_stores = [\"default\"]",
                "spin.toml:17: component.hello-rust.key_value_stores: functions have none yet",
            ),
            (
                "allowed_outbound_hosts = []",
                "files = [\"a\"]",
                "spin.toml:17: component.hello-rust.files: ",
            ),
            (
                "allowed_outbound_hosts = []",
                "sqlite_databases = [\"default\"]",
                "spin.toml:17: component.hello-rust.sqlite_databases: ",
            ),
            (
                "allowed_outbound_hosts = []",
                "ai_models = [\"llama\"]",
                "spin.toml:17: component.hello-rust.ai_models: ",
            ),
            (
                "allowed_outbound_hosts = []",
                "variables = { a = \"{{ b }}\" }",
                "spin.toml:17: component.hello-rust.variables.a: the application declares no variable \"b\"",
            ),
            (
                "[[trigger.http]]",
                "[variables]\nb = { required = true }\n[component.hello-rust.variables]\na = \"{{ b }}\"\n[[trigger.http]]",
                "spin.toml:14: component.hello-rust.variables.a: the variable \"b\" is a secret or has no default",
            ),
            (
                "allowed_outbound_hosts = []",
                "alowed = 1",
                "spin.toml:17: component.hello-rust.alowed: not known here",
            ),
            (
                "allowed_outbound_hosts = []",
                "environment = { A = 1 }",
                "spin.toml:17: component.hello-rust.environment.A: expected text, found integer",
            ),
            (
                "source = \"target/wasm32-wasip1/release/hello_rust.wasm\"",
                "source = { url = \"https://a/b.wasm\", digest = \"sha256:0\" }",
                "spin.toml:16: component.hello-rust.source: components are not fetched from web pages",
            ),
            (
                "spin_manifest_version = 2",
                "spin_manifest_version = 3",
                "spin.toml:3: spin_manifest_version: 2 is the version",
            ),
            (
                "spin_manifest_version = 2",
                "spin_version = \"1\"",
                "spin.toml:1: spin_version: version 1",
            ),
            (
                "spin_manifest_version = 2\n",
                "",
                "spin.toml:1: spin_manifest_version: missing",
            ),
            ("[application]", "[application", "spin.toml:5: "),
        ] {
            assert!(RUST.contains(from), "{from}");
            let told = problems(&RUST.replacen(from, to, 1));
            assert!(
                told.iter().any(|line| line.starts_with(problem)),
                "{to}: {told:#?}"
            );
        }
    }
}
