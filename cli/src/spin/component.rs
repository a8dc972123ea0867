//! The fields of the one component, each as the field of a Function that means the same.

use std::collections::{BTreeMap, BTreeSet};

use hive_manifests::FieldPath;
use serde_json::json;
use toml::de::{DeTable, DeValue};

use super::{Application, Entry, hosts};

impl Application<'_> {
    pub(super) fn fields(&mut self, component: &str, table: &DeTable<'_>) {
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
                "key_value_stores" => {
                    self.stores(&name, entry);
                    continue;
                }
                // How it is made, and what of its surroundings is left out, is the author's.
                "description"
                | "build"
                | "tool"
                | "exclude_files"
                | "dependencies_inherit_configuration" => continue,
                _ if is_empty => continue,
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

    /// Buckets on the node, of which Spin's interfaces know no others.
    fn stores(&mut self, name: &str, entry: &Entry<'_>) {
        let Some(items) = entry.get_ref().as_array() else {
            return self.refuse(entry.span(), name, "expected a list");
        };
        let mut stores: Vec<&str> = Vec::new();
        for item in items.iter() {
            let Some(text) = self.text_of(name, item) else {
                continue;
            };
            if stores.contains(&text) {
                continue;
            }
            let line = self.line(&item.span());
            let path = FieldPath::of(["spec", "keyValue", "stores"]).index(stores.len());
            self.places.push((path, line));
            stores.push(text);
        }
        if !stores.is_empty() {
            self.value["spec"]["keyValue"] = json!({ "stores": stores });
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
