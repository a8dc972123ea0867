//! The sections of a manifest: its version, the application, its variables, and which component a function is.

use hive_manifests::FieldPath;
use serde_json::json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Application, Entry};

impl Application<'_> {
    pub(super) fn root(&mut self, root: &DeTable<'_>) {
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
}
