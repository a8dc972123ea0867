//! Answers to calls on objects and collections: read, write, watch.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use hive_manifests::Resource;
use serde_json::{Value, json};

use super::{Fake, Place, answer, place, status, text};

pub struct Call {
    pub fake: Fake,
    pub place: Place,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub as_table: bool,
    /// Server-side apply.
    pub applies: bool,
}

impl Call {
    pub fn answer(&self, method: &Method, body: &[u8]) -> Response {
        match (method, &self.place.name) {
            (&Method::GET, None) if self.query.contains_key("watch") => self.watch(),
            (&Method::GET, None) => self.list(),
            (&Method::GET, Some(_)) if self.place.rest == "log" => {
                text(format!("the log {:?}\n", self.query))
            }
            (_, Some(_)) if self.place.rest.starts_with("proxy/") => {
                if self.fake.object(&self.object_path()).is_none() {
                    return self.not_found();
                }
                let target = self.place.rest.strip_prefix("proxy").unwrap();
                let mut response = text(format!(
                    "{method} {target} {}\n",
                    String::from_utf8_lossy(body)
                ));
                if target == "/fail" {
                    *response.status_mut() = StatusCode::BAD_GATEWAY;
                }
                response
            }
            (&Method::GET, Some(_)) => match self.fake.object(&self.path) {
                Some(object) => answer(StatusCode::OK, &self.shape(vec![object], true)),
                None => self.not_found(),
            },
            (&Method::POST, None) => self.create(body),
            (&Method::PATCH, Some(_)) => self.patch(body),
            (&Method::DELETE, Some(_)) => self.delete(),
            _ => answer(
                StatusCode::METHOD_NOT_ALLOWED,
                &status(405, "MethodNotAllowed", "no", json!({})),
            ),
        }
    }

    fn object_path(&self) -> String {
        let end = self.path.len() - self.place.rest.len() - 1;
        self.path[..end].to_owned()
    }

    fn not_found(&self) -> Response {
        let resource = self.place.resource;
        let group = match resource.group() {
            "" => resource.plural().to_owned(),
            group => format!("{}.{group}", resource.plural()),
        };
        let name = self.place.name.as_deref().unwrap_or_default();
        let message = format!("{group} {name:?} not found");
        answer(
            StatusCode::NOT_FOUND,
            &status(
                404,
                "NotFound",
                &message,
                json!({"kind": resource.plural(), "name": name}),
            ),
        )
    }

    fn selects(&self, path: &str, object: &Value) -> bool {
        let Some(found) = place(path) else {
            return false;
        };
        let wanted = &self.place;
        if found.resource != wanted.resource
            || (wanted.namespace.is_some() && wanted.namespace != found.namespace)
        {
            return false;
        }
        let labels = self.query.get("labelSelector").is_none_or(|selector| {
            selector.split(',').all(|part| {
                let (key, value) = part.split_once('=').unwrap();
                object["metadata"]["labels"][key] == value
            })
        });
        let fields = self.query.get("fieldSelector").is_none_or(|selector| {
            selector.split(',').all(|part| {
                let (key, value) = part.split_once('=').unwrap();
                let pointer = format!("/{}", key.replace('.', "/"));
                object.pointer(&pointer).is_some_and(|found| found == value)
            })
        });
        labels && fields
    }

    fn list(&self) -> Response {
        let store = self.fake.store();
        let items = store
            .objects
            .iter()
            .filter(|(path, object)| self.selects(path, object))
            .map(|(_, object)| object.clone())
            .collect();
        let mut list = self.shape(items, false);
        list["metadata"]["resourceVersion"] = store.revision.to_string().into();
        drop(store);
        answer(StatusCode::OK, &list)
    }

    /// Objects as a list or a table.
    fn shape(&self, mut items: Vec<Value>, single: bool) -> Value {
        if self.as_table {
            let rows: Vec<Value> = items
                .into_iter()
                .map(|object| {
                    json!({"cells": [object["metadata"]["name"], object["status"]["ready"],
                                     object["status"]["url"], "5m12s"],
                           "object": object})
                })
                .collect();
            return json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": rows, "metadata": {},
                "columnDefinitions": [
                    {"name": "Name", "format": "name", "priority": 0},
                    {"name": "Ready", "priority": 0},
                    {"name": "URL", "priority": 1},
                    {"name": "Age", "priority": 0}]});
        }
        match single {
            true => items.remove(0),
            false => json!({"kind": format!("{}List", self.place.resource.kind()),
                            "apiVersion": self.place.resource.api_version(),
                            "metadata": {}, "items": items}),
        }
    }

    fn create(&self, body: &[u8]) -> Response {
        let mut object: Value = serde_json::from_slice(body).unwrap();
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let path = format!("{}/{name}", self.path);
        if self.fake.object(&path).is_some() {
            return answer(
                StatusCode::CONFLICT,
                &status(409, "AlreadyExists", "it exists", json!({})),
            );
        }
        object["metadata"]["generation"] = 1.into();
        // What a server adds: hivectl must leave it alone.
        if self.place.resource == Resource::Function && object["spec"]["timeout"].is_null() {
            object["spec"]["timeout"] = "30s".into();
        }
        if !self.query.contains_key("dryRun") {
            self.fake.put(&path, object);
            object = self.fake.object(&path).unwrap();
        }
        answer(StatusCode::CREATED, &object)
    }

    fn patch(&self, body: &[u8]) -> Response {
        let patch: Value = serde_json::from_slice(body).unwrap();
        let live = match self.fake.object(&self.path) {
            Some(live) => live,
            None if self.applies => json!({"metadata": {"generation": 1}}),
            None => return self.not_found(),
        };
        let version = &patch["metadata"]["resourceVersion"];
        if !version.is_null() && *version != live["metadata"]["resourceVersion"] {
            return answer(
                StatusCode::CONFLICT,
                &status(409, "Conflict", "the object has been modified", json!({})),
            );
        }
        let mut object = live;
        merge(&mut object, &patch);
        if !self.query.contains_key("dryRun") {
            self.fake.put(&self.path, object);
            object = self.fake.object(&self.path).unwrap();
        }
        answer(StatusCode::OK, &object)
    }

    fn delete(&self) -> Response {
        let Some(object) = self.fake.object(&self.path) else {
            return self.not_found();
        };
        if self.query.contains_key("dryRun") {
            return answer(StatusCode::OK, &object);
        }
        if object["metadata"]["finalizers"].is_array() {
            self.fake.edit(&self.path, |object| {
                object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            });
            return answer(StatusCode::OK, &object);
        }
        self.fake.remove(&self.path);
        answer(
            StatusCode::OK,
            &json!({"kind": "Status", "apiVersion": "v1", "status": "Success",
                    "details": {"uid": object["metadata"]["uid"]}}),
        )
    }

    fn watch(&self) -> Response {
        let from: u64 = self.query["resourceVersion"].parse().unwrap();
        let call = Call {
            fake: self.fake.clone(),
            place: place(&self.path).unwrap(),
            path: self.path.clone(),
            query: self.query.clone(),
            as_table: self.as_table,
            applies: false,
        };
        let revisions = self.fake.revision.subscribe();
        let events = futures::stream::unfold(
            (call, revisions, from),
            |(call, mut revisions, sent)| async move {
                loop {
                    revisions.borrow_and_update();
                    let (text, last) = call.events_after(sent);
                    if !text.is_empty() {
                        return Some((Ok::<_, Infallible>(text), (call, revisions, last)));
                    }
                    revisions.changed().await.ok()?;
                }
            },
        );
        text(Body::from_stream(events))
    }

    fn events_after(&self, sent: u64) -> (String, u64) {
        let store = self.fake.store();
        let mut lines = String::new();
        let mut last = sent;
        for (revision, change, path, object) in &store.history {
            if *revision > sent {
                last = *revision;
                if self.selects(path, object) {
                    let object = self.shape(vec![object.clone()], true);
                    lines.push_str(&format!("{}\n", json!({"type": change, "object": object})));
                }
            }
        }
        (lines, last)
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let (Some(patch), true) = (patch.as_object(), target.is_object()) else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().unwrap().remove(key)),
            Value::Object(_) if target[key].is_object() => merge(&mut target[key], value),
            value => target[key] = value.clone(),
        }
    }
}
