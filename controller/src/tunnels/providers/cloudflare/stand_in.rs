//! What stands for Cloudflare's API in tests: one account with tunnels and zones, in this process.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use http::header::{AUTHORIZATION, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

pub const ACCOUNT: &str = "699d98642c564d2e855e9661899b7252";
pub const TOKEN: &str = "the-api-token";

/// Ends with the runtime of its test. A clone is the same.
#[derive(Clone)]
pub struct StandIn {
    pub base: Url,
    world: Arc<Mutex<World>>,
}

#[derive(Default)]
pub struct World {
    /// By id: `{id, name}`.
    pub tunnels: BTreeMap<String, Value>,
    pub configurations: BTreeMap<String, Value>,
    /// Names; a zone's id is `z-<name>`.
    pub zones: Vec<String>,
    /// By id, with `zone` in each.
    pub records: BTreeMap<String, Value>,
    /// What it changed, as `METHOD path`.
    pub changes: Vec<String>,
    pub asked: usize,
    /// How it answers the next requests instead.
    pub refusals: Vec<StatusCode>,
    /// What it is asked of a tunnel with that name it never answers.
    pub silent: Option<String>,
    made: usize,
}

impl StandIn {
    pub async fn start(zones: &[&str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let world = World {
            zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
            ..World::default()
        };
        let stand_in = Self {
            base: format!("http://{at}/client/v4").parse().unwrap(),
            world: Arc::new(Mutex::new(world)),
        };
        let serving = stand_in.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let serving = serving.clone();
                let service = service_fn(move |request| {
                    let serving = serving.clone();
                    async move { Ok::<_, Infallible>(serving.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        stand_in
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let url = self.base.join(&head.uri.to_string()).unwrap();
        let silent = self.world().silent.clone();
        if silent.is_some_and(|name| url.query_pairs().any(|(_, said)| said == name)) {
            return std::future::pending().await;
        }
        let mut world = self.world();
        world.asked += 1;
        let refusal = world.refusals.pop();
        let is_known = head
            .headers
            .get(AUTHORIZATION)
            .is_some_and(|it| it.to_str().unwrap() == format!("Bearer {TOKEN}"));
        let answer = match refusal {
            Some(status) => Err((status, 1, "not now")),
            None if !is_known => Err((StatusCode::FORBIDDEN, 10000, "Authentication error")),
            None => world.answer(&head.method, &url, &body),
        };
        if answer.is_ok() && head.method != Method::GET {
            let path = url.path().trim_start_matches("/client/v4/");
            let change = format!("{} {path}", head.method);
            world.changes.push(change);
        }
        let (status, body) = match answer {
            Ok(result) => (
                StatusCode::OK,
                json!({ "success": true, "errors": [], "result": result }),
            ),
            Err((status, code, message)) => {
                let errors = json!([{ "code": code, "message": message }]);
                (
                    status,
                    json!({ "success": false, "errors": errors, "result": null }),
                )
            }
        };
        let mut response = Response::builder().status(status);
        if status == StatusCode::TOO_MANY_REQUESTS {
            response = response.header(RETRY_AFTER, "90");
        }
        response
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap()
    }
}

type Answer = Result<Value, (StatusCode, i64, &'static str)>;

const ABSENT: Answer = Err((StatusCode::NOT_FOUND, 7003, "Could not route to it"));

impl World {
    /// `zone name -> content` of each record.
    pub fn records(&self) -> Vec<String> {
        let text = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
        let one = |it: &Value| {
            format!(
                "{} {} {}",
                text(it, "type"),
                text(it, "name"),
                text(it, "content")
            )
        };
        self.records.values().map(one).collect()
    }

    pub fn add_record(&mut self, zone: &str, mut record: Value) -> String {
        self.made += 1;
        let id = format!("r{}", self.made);
        record["id"] = json!(id);
        record["zone"] = json!(zone);
        self.records.insert(id.clone(), record);
        id
    }

    fn answer(&mut self, method: &Method, url: &Url, body: &Value) -> Answer {
        let path: Vec<&str> = url.path_segments().unwrap().skip(2).collect();
        let asked: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        match (method.as_str(), &path[..]) {
            ("GET", ["accounts", ACCOUNT, "cfd_tunnel"]) => {
                let found = self.tunnels.values();
                let found = found.filter(|it| it["name"] == *asked["name"]);
                Ok(found.cloned().collect())
            }
            ("POST", ["accounts", ACCOUNT, "cfd_tunnel"]) => {
                assert_eq!(body["config_src"], "cloudflare");
                if self.tunnels.values().any(|it| it["name"] == body["name"]) {
                    return Err((
                        StatusCode::CONFLICT,
                        1013,
                        "You already have a tunnel with this name",
                    ));
                }
                self.made += 1;
                let id = format!("t{}", self.made);
                let tunnel = json!({ "id": id, "name": body["name"] });
                self.tunnels.insert(id, tunnel.clone());
                Ok(tunnel)
            }
            (method, ["accounts", ACCOUNT, "cfd_tunnel", id, rest @ ..]) => {
                if !self.tunnels.contains_key(*id) {
                    return ABSENT;
                }
                match (method, rest) {
                    ("DELETE", []) => {
                        assert_eq!(asked["cascade"], "true");
                        self.configurations.remove(*id);
                        Ok(self.tunnels.remove(*id).unwrap_or_default())
                    }
                    ("GET", ["token"]) => Ok(json!(format!("token-of-{id}"))),
                    ("GET", ["configurations"]) => Ok(json!({
                        "tunnel_id": id,
                        "config": self.configurations.get(*id),
                    })),
                    ("PUT", ["configurations"]) => {
                        let rules = body["config"]["ingress"].as_array().unwrap();
                        // As it demands: the last takes all that is left.
                        assert!(rules.last().unwrap().get("hostname").is_none());
                        self.configurations
                            .insert((*id).to_owned(), body["config"].clone());
                        Ok(body.clone())
                    }
                    _ => ABSENT,
                }
            }
            ("GET", ["zones"]) => {
                assert_eq!(asked["account.id"], ACCOUNT);
                let found = self.zones.iter().filter(|zone| **zone == asked["name"]);
                Ok(found
                    .map(|zone| json!({ "id": format!("z-{zone}"), "name": zone }))
                    .collect())
            }
            ("GET", ["zones", zone, "dns_records"]) => {
                let found = self.records.values();
                let found =
                    found.filter(|it| it["zone"] == *zone && it["name"] == *asked["name.exact"]);
                Ok(found.cloned().collect())
            }
            ("POST", ["zones", zone, "dns_records"]) => {
                let id = self.add_record(zone, body.clone());
                Ok(self.records[&id].clone())
            }
            ("PATCH", ["zones", _, "dns_records", id]) => {
                let Some(record) = self.records.get_mut(*id) else {
                    return ABSENT;
                };
                let fields = body.as_object().unwrap().clone();
                record.as_object_mut().unwrap().extend(fields);
                Ok(record.clone())
            }
            ("DELETE", ["zones", _, "dns_records", id]) => match self.records.remove(*id) {
                Some(_) => Ok(json!({ "id": id })),
                None => ABSENT,
            },
            _ => ABSENT,
        }
    }
}
