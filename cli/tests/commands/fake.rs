//! An API server that keeps objects in memory: enough of the API for hivectl, nothing more.
//!
//! Requests are recorded, so that tests can say what was sent and what was not. Refusals can be
//! ordered in advance.

mod call;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
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

use self::call::Call;

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

    /// Returns when somebody has made the object.
    pub async fn made(&self, path: &str) {
        let mut revisions = self.revision.subscribe();
        while self.object(path).is_none() {
            revisions.changed().await.unwrap();
        }
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
    let (group, rest) = [
        ("", "/api/v1/"),
        ("hive.dev", "/apis/hive.dev/v1/"),
        ("apps", "/apis/apps/v1/"),
    ]
    .into_iter()
    .find_map(|(group, root)| Some((group, path.strip_prefix(root)?)))?;
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
    let content = parts.headers.get(header::CONTENT_TYPE);
    let applies = content.is_some_and(|it| it.to_str().unwrap().contains("apply-patch"));
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
    if path.starts_with(CONTROLLERS) {
        return controllers(&fake, &parts.method, &path);
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
        applies,
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

const CONTROLLERS: &str = "/apis/hive.dev/v1/controllers";

/// They are no stored kind of the real server either.
fn controllers(fake: &Fake, method: &Method, path: &str) -> Response {
    if *method == Method::DELETE && fake.remove(path).is_some() {
        return answer(
            StatusCode::OK,
            &json!({"kind": "Status", "status": "Success"}),
        );
    }
    let store = fake.store();
    let found = store
        .objects
        .iter()
        .filter(|(path, _)| path.starts_with(CONTROLLERS));
    let items: Vec<&Value> = found.map(|(_, object)| object).collect();
    answer(
        StatusCode::OK,
        &json!({"kind": "ControllerList", "items": items}),
    )
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
             "errors": 1, "cpuSeconds": 1.25, "inFlight": 3, "memory": "65536Ki", "requestsPerSecond": 1.5,
             "errorsPerSecond": 0.25, "p50": "870us", "p99": "245ms", "cpu": "20m", "memoryHighWater": "10240Ki",
             "coldStarts": 2},
            {"metadata": {"name": "aux", "namespace": "default"}, "nodes": 1, "requests": 0, "errors": 0,
             "cpuSeconds": 0.0, "inFlight": 0, "memory": "0Ki", "requestsPerSecond": 0.0, "errorsPerSecond": 0.0,
             "cpu": "0m", "memoryHighWater": "0Ki", "coldStarts": 0}]}),
        // As the server lays it out, whatever form is asked for.
        "/apis/metering.hive.dev/v1/functions" => json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "Requests"}, {"name": "Until", "priority": 1}],
            "rows": [{"cells": ["hello", "10", "never"], "object": {"metadata": {"namespace": "default"}}}]}),
        "/apis/metering.hive.dev/v1/namespaces/default" => json!({
            "kind": "NamespaceUsage", "metadata": {"name": "default"}, "gbSeconds": 2.5}),
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => {
            let asked: Value = serde_json::from_slice(body).ok()?;
            let verb = &asked["spec"]["resourceAttributes"]["verb"];
            json!({"status": {"allowed": verb == "get", "reason": "role \"view\""}})
        }
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews" => json!({"status": {
            "resourceRules": [
                {"verbs": ["update"], "apiGroups": ["hive.dev"], "resources": ["functions/scale"]},
                {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["configmaps"],
                 "resourceNames": ["mine"]},
            ],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}],
        }}),
        "/api/v1/namespaces/default/serviceaccounts/robot/token" => {
            json!({"status": {"token": "a.b.c", "expirationTimestamp": "2026-01-31T12:00:00Z"}})
        }
        _ => return None,
    };
    Some(answer(StatusCode::OK, &value))
}
