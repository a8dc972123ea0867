//! A kind with every form of list and map, and short ways to write to one of its objects.

use std::sync::LazyLock;

use hive_merge::{ApplyError, Managers, Operation, Scope, Writer, apply, update};
use serde_json::{Value, json};

pub static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let text = json!({ "type": "string" });
    json!({ "type": "object", "properties": {
        "apiVersion": text,
        "kind": text,
        "metadata": { "type": "object", "properties": {
            "name": text,
            "uid": text,
            "labels": { "type": "object", "additionalProperties": text },
            "finalizers": { "type": "array", "items": text, "x-kubernetes-list-type": "set" },
        } },
        "spec": { "type": "object", "properties": {
            "title": text,
            "count": { "type": "integer" },
            "inner": { "type": "object", "properties": { "a": text, "b": text } },
            "map": { "type": "object", "additionalProperties": text },
            "whole": {
                "type": "object", "additionalProperties": text, "x-kubernetes-map-type": "atomic",
            },
            "list": { "type": "array", "items": text },
            "set": { "type": "array", "items": text, "x-kubernetes-list-type": "set" },
            "keyed": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name", "port"],
                "items": { "type": "object", "properties": {
                    "name": text,
                    "port": { "type": "integer", "default": 80 },
                    "value": text,
                    "map": { "type": "object", "additionalProperties": text },
                } },
            },
        } },
        "status": { "type": "object", "properties": { "phase": text, "count": { "type": "integer" } } },
    } })
});

/// An object under several hands.
#[derive(Clone, Debug)]
pub struct Shared {
    schema: &'static Value,
    pub object: Value,
    pub managers: Managers,
    clock: u32,
}

impl Shared {
    pub fn new(object: Value) -> Self {
        Self::of(&SCHEMA, object)
    }

    pub fn of(schema: &'static Value, object: Value) -> Self {
        Self {
            schema,
            object,
            managers: Managers::default(),
            clock: 0,
        }
    }

    fn tick(&mut self) -> String {
        self.clock += 1;
        format!(
            "2026-01-01T00:{:02}:{:02}Z",
            self.clock / 60,
            self.clock % 60
        )
    }

    pub fn apply(&mut self, manager: &str, declared: Value) -> Result<(), String> {
        self.try_apply(manager, &declared, false)
            .map_err(|error| error.to_string())
    }

    pub fn force(&mut self, manager: &str, declared: Value) {
        self.try_apply(manager, &declared, true).unwrap();
    }

    pub fn try_apply(
        &mut self,
        manager: &str,
        declared: &Value,
        force: bool,
    ) -> Result<(), ApplyError> {
        let now = self.tick();
        let by = writer(manager, Operation::Apply, &now);
        let applied = apply(
            self.schema,
            &self.object,
            declared,
            &self.managers,
            &by,
            Scope::Main,
            force,
        )?;
        (self.object, self.managers) = (applied.object, applied.managers);
        Ok(())
    }

    pub fn update(&mut self, manager: &str, after: Value) {
        let now = self.tick();
        let by = writer(manager, Operation::Update, &now);
        self.managers = update(
            self.schema,
            &self.object,
            &after,
            &self.managers,
            &by,
            Scope::Main,
        );
        self.object = after;
    }

    /// The places that a manager owns.
    pub fn owned(&self, manager: &str, operation: Operation) -> Vec<String> {
        match self.managers.find(&writer(manager, operation, "")) {
            None => Vec::new(),
            Some(entry) => entry.fields.paths().iter().map(|p| p.to_string()).collect(),
        }
    }
}

pub fn writer<'a>(manager: &'a str, operation: Operation, now: &'a str) -> Writer<'a> {
    Writer {
        manager,
        operation,
        api_version: "test.dev/v1",
        subresource: "",
        now,
    }
}
