//! An API server that keeps objects in memory: enough of the API for hivectl, nothing more.
//!
//! Requests are recorded, so that tests can say what was sent and what was not. Refusals can be
//! ordered in advance.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use hive_manifests::Resource;
use serde_json::{Value, json};
use tokio::sync::watch;

/// The largest body that a test sends.
const MAX_BODY: usize = 8 * 1024 * 1024;

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    revision: u64,
    history: Vec<(u64, &'static str, String, Value)>,
    artifacts: BTreeSet<String>,
    requests: Vec<String>,
    bodies: Vec<Value>,
    refusals: VecDeque<(Method, String, StatusCode, Value)>,
}

#[derive(Clone)]
pub struct Fake {
    store: Arc<Mutex<Store>>,
    revision: watch::Sender<u64>,
    pub address: SocketAddr,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            store: Arc::default(),
            revision: watch::Sender::new(0),
            address: listener.local_addr().unwrap(),
        };
        let router = Router::new().fallback(serve).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// Puts an object there as another client or a controller would.
    pub fn put(&self, path: &str, mut object: Value) {
        let mut store = self.store();
        store.revision += 1;
        let revision = store.revision;
        let known = store.objects.contains_key(path);
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{revision}").into();
        }
        let change = if known { "MODIFIED" } else { "ADDED" };
        store
            .history
            .push((revision, change, path.to_owned(), object.clone()));
        store.objects.insert(path.to_owned(), object);
        self.revision.send_replace(revision);
    }

    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.object(path).unwrap();
        edit(&mut object);
        self.put(path, object);
    }

    pub fn remove(&self, path: &str) -> Option<Value> {
        let mut store = self.store();
        let mut object = store.objects.remove(path)?;
        store.revision += 1;
        let revision = store.revision;
        object["metadata"]["resourceVersion"] = revision.to_string().into();
        store
            .history
            .push((revision, "DELETED", path.to_owned(), object.clone()));
        self.revision.send_replace(revision);
        Some(object)
    }

    pub fn object(&self, path: &str) -> Option<Value> {
        self.store().objects.get(path).cloned()
    }

    /// `METHOD path?query` of all requests so far, and forgets them.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.store().requests)
    }

    /// The JSON bodies of all requests so far, and forgets them.
    pub fn bodies(&self) -> Vec<Value> {
        std::mem::take(&mut self.store().bodies)
    }

    /// The next request with this method and path is answered so.
    pub fn refuse(&self, method: Method, path: &str, code: u16, reason: &str, details: Value) {
        let status = status(code, reason, "the server refuses", details);
        self.store().refusals.push_back((
            method,
            path.to_owned(),
            StatusCode::from_u16(code).unwrap(),
            status,
        ));
    }
}

fn status(code: u16, reason: &str, message: &str, details: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
           "reason": reason, "message": message, "details": details})
}

fn answer(code: StatusCode, value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = code;
    let json = "application/json".parse().unwrap();
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn text(body: impl Into<Body>) -> Response {
    Response::new(body.into())
}

/// Where a path leads.
struct Place {
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    rest: String,
}

fn place(path: &str) -> Option<Place> {
    let (group, rest) = match path.strip_prefix("/api/v1/") {
        Some(rest) => ("", rest),
        None => ("hive.dev", path.strip_prefix("/apis/hive.dev/v1/")?),
    };
    let mut words = rest.split('/').map(str::to_owned).peekable();
    let mut first = words.next()?;
    let mut namespace = None;
    if first == "namespaces" {
        let name = words.next();
        match words.peek() {
            Some(_) => {
                namespace = name;
                first = words.next()?;
            }
            None => {
                return Some(Place {
                    resource: Resource::Namespace,
                    namespace: None,
                    name,
                    rest: String::new(),
                });
            }
        }
    }
    Some(Place {
        resource: Resource::by_plural(group, &first)?,
        namespace,
        name: words.next(),
        rest: words.collect::<Vec<_>>().join("/"),
    })
}

async fn serve(State(fake): State<Fake>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = axum::body::to_bytes(body, MAX_BODY).await.unwrap();
    let path = parts.uri.path().to_owned();
    let query: BTreeMap<String, String> =
        url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
            .into_owned()
            .collect();
    let accept = parts.headers.get(header::ACCEPT).cloned();
    let as_table = accept.is_some_and(|accept| accept.to_str().unwrap().contains("as=Table"));
    {
        let mut store = fake.store();
        store
            .requests
            .push(format!("{} {}", parts.method, parts.uri));
        store.bodies.extend(serde_json::from_slice::<Value>(&bytes));
        let refused = store
            .refusals
            .iter()
            .position(|(method, refused, ..)| *method == parts.method && *refused == path);
        if let Some((_, _, code, status)) = refused.and_then(|at| store.refusals.remove(at)) {
            return answer(code, &status);
        }
    }
    if let Some(digest) = path.strip_prefix("/apis/hive.dev/v1/artifacts/") {
        return artifact(&fake, &parts.method, digest, &bytes);
    }
    if let Some(fixed) = fixed(&path, &bytes) {
        return fixed;
    }
    let Some(place) = place(&path) else {
        return answer(
            StatusCode::NOT_FOUND,
            &status(
                404,
                "NotFound",
                "the server could not find the requested resource",
                json!({}),
            ),
        );
    };
    let request = Call {
        fake,
        place,
        path,
        query,
        as_table,
    };
    request.answer(&parts.method, &bytes)
}

fn artifact(fake: &Fake, method: &Method, digest: &str, bytes: &Bytes) -> Response {
    let mut store = fake.store();
    match *method {
        Method::HEAD if store.artifacts.contains(digest) => text(""),
        Method::HEAD => {
            let mut response = text("");
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
        _ => {
            store.artifacts.insert(digest.to_owned());
            answer(StatusCode::CREATED, &json!({"size": bytes.len()}))
        }
    }
}

/// Answers that depend on nothing stored.
fn fixed(path: &str, body: &[u8]) -> Option<Response> {
    let value = match path {
        "/version" => json!({"gitVersion": "v1.34.0+hive.0.1.0"}),
        "/readyz" => return Some(text("ok")),
        "/api" => json!({"versions": ["v1"]}),
        "/apis" => {
            json!({"groups": [{"name": "hive.dev", "versions": [{"groupVersion": "hive.dev/v1"}]}]})
        }
        "/api/v1" => json!({"resources": [
            {"name": "secrets", "namespaced": true, "kind": "Secret", "verbs": ["get"]}]}),
        "/apis/hive.dev/v1" => json!({"resources": [
            {"name": "functions", "namespaced": true, "kind": "Function", "shortNames": ["fn"], "verbs": ["get", "list"]},
            {"name": "functions/status", "namespaced": true, "kind": "Function", "verbs": ["get"]},
            {"name": "nodes", "namespaced": false, "kind": "Node", "shortNames": ["no"], "verbs": ["get"]}]}),
        "/apis/metrics.k8s.io/v1beta1/nodes" => json!({"kind": "NodeMetricsList", "items": [
            {"metadata": {"name": "pi"}, "usage": {"cpu": "250m", "memory": "131072Ki"}}]}),
        "/apis/metrics.hive.dev/v1/namespaces/default/functions" => json!({"items": [
            {"metadata": {"name": "hello", "namespace": "default"}, "nodes": 2, "requests": 10,
             "errors": 1, "cpuSeconds": 1.25, "inFlight": 3, "memory": "65536Ki"}]}),
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            let asked: Value = serde_json::from_slice(body).ok()?;
            let verb = &asked["spec"]["resourceAttributes"]["verb"];
            json!({"status": {"allowed": verb == "get", "reason": "role \"view\""}})
        }
        _ => return None,
    };
    Some(answer(StatusCode::OK, &value))
}

struct Call {
    fake: Fake,
    place: Place,
    path: String,
    query: BTreeMap<String, String>,
    as_table: bool,
}

impl Call {
    fn answer(&self, method: &Method, body: &[u8]) -> Response {
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
        let Some(live) = self.fake.object(&self.path) else {
            return self.not_found();
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
