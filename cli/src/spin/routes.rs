//! `[[trigger.http]]`: the routes of an application, and the one component behind them.

use std::ops::Range;

use hive_manifests::FieldPath;
use serde_json::json;
use toml::de::DeTable;

use super::{Application, Entry};

/// Spin's own end of a route that matches a path and everything below it.
const WILDCARD: &str = "/...";

struct Route {
    span: Range<usize>,
    path: String,
    exact: bool,
}

impl Application<'_> {
    /// Takes the routes; the name of the component behind them.
    pub(super) fn trigger(&mut self, root: &DeTable<'_>) -> Option<String> {
        let triggers = root
            .get("trigger")
            .and_then(|entry| self.table_of("trigger", entry));
        for (key, _) in triggers.into_iter().flatten() {
            if key.get_ref() != "http" {
                let name = format!("trigger.{}", key.get_ref());
                self.refuse(
                    key.span(),
                    &name,
                    "a function answers HTTP requests, and nothing else triggers it",
                );
            }
        }
        let http = triggers.and_then(|triggers| triggers.get("http"));
        let Some(triggers) = http.and_then(|http| http.get_ref().as_array()) else {
            self.refuse(
                0..0,
                "trigger.http",
                "missing: [[trigger.http]] says which component answers",
            );
            return None;
        };
        let (mut routes, mut named) = (Vec::new(), None);
        for trigger in triggers.iter() {
            let Some(table) = self.table_of("trigger.http", trigger) else {
                continue;
            };
            for (key, entry) in table {
                let name = format!("trigger.http.{}", key.get_ref());
                match &**key.get_ref() {
                    "route" => routes.extend(self.route(entry)),
                    "component" => self.name_component(entry, &mut named),
                    "id" => {}
                    "executor" => self.refuse(
                        key.span(),
                        &name,
                        "components answer by wasi:http; leave it out",
                    ),
                    _ => self.refuse(key.span(), &name, "not known here"),
                }
            }
            for (needed, why) in [
                ("route", "missing: \"/...\" is every path"),
                ("component", "missing"),
            ] {
                if !table.contains_key(needed) {
                    self.refuse(trigger.span(), &format!("trigger.http.{needed}"), why);
                }
            }
        }
        self.answer_at(routes);
        named
    }

    fn name_component(&mut self, entry: &Entry<'_>, named: &mut Option<String>) {
        const KEY: &str = "trigger.http.component";
        match (entry.get_ref().as_str(), &named) {
            (Some(text), None) => *named = Some(text.to_owned()),
            (Some(text), Some(first)) if text != first => {
                let why = format!(
                    "{text:?} is another component than {first:?}: a function is one; give each its own spin.toml"
                );
                self.refuse(entry.span(), KEY, why);
            }
            (Some(_), Some(_)) => {}
            (None, _) => self.refuse(
                entry.span(),
                KEY,
                "name a component, and write it as [component.NAME]",
            ),
        }
    }

    fn route(&mut self, entry: &Entry<'_>) -> Option<Route> {
        const KEY: &str = "trigger.http.route";
        if entry.get_ref().is_table() {
            let why =
                "private routes answer other components of an application, and a function has none";
            self.refuse(entry.span(), KEY, why);
            return None;
        }
        let text = self.text_of(KEY, entry)?;
        let (path, exact) = match text.strip_suffix(WILDCARD) {
            Some("") => ("/", false),
            Some(path) => (path, false),
            None => (text, true),
        };
        if path
            .split('/')
            .any(|part| part.starts_with(':') || part == "*")
        {
            let why = "segments that stand for any have no place in a route here; take them from the path in the component";
            self.refuse(entry.span(), KEY, why);
            return None;
        }
        Some(Route {
            span: entry.span(),
            path: path.to_owned(),
            exact,
        })
    }

    /// One prefix is written as people write it.
    fn answer_at(&mut self, routes: Vec<Route>) {
        let http = FieldPath::of(["spec", "http"]);
        if let [
            Route {
                span,
                path,
                exact: false,
            },
        ] = &*routes
        {
            let value = json!({ "path": path });
            return self.set(span.clone(), http.field("path"), "/spec/http", value);
        }
        let list = http.field("routes");
        let mut values = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let line = self.line(&route.span);
            self.places.push((list.index(index).field("path"), line));
            values.push(match route.exact {
                true => json!({ "path": route.path, "pathType": "Exact" }),
                false => json!({ "path": route.path }),
            });
        }
        self.value["spec"]["http"] = json!({ "routes": values });
    }
}
