//! A swarm of one controller in this process, and a client for it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt;
use hive_controller::access::service_accounts::Issuer;
use hive_controller::access::tokens::{self, Role, TokenKind};
use hive_controller::api::{self, ApiContext};
use hive_controller::artifacts::{ArtifactFiles, Artifacts};
use hive_controller::audit::{Audit, AuditOptions, OnFailure, Policy, Rotation};
use hive_controller::controllers::Controllers;
use hive_controller::gateway::{Invoker, Nodes, Presence};
use hive_controller::https::ClientChain;
use hive_controller::ingress::{self, Forwarder};
use hive_controller::objects;
use hive_controller::reconcile::garbage::{self, Collection};
use hive_controller::reconcile::{Looks, namespaces, quota, roles};
use hive_controller::state::level;
use hive_controller::state::{Command, Key, Member, State};
use hive_controller::store::Replica;
use hive_controller::traffic::Loads;
use hive_controller::tunnels::Tunnels;
use hive_identity::{ApiToken, CertificateAuthority, ClientAuthority};
use hive_manifests::Resource;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::alone::Alone;

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
pub const DEADLINE: Duration = Duration::from_secs(120);

pub const FUNCTIONS: &str = "/apis/hive.dev/v1/namespaces/default/functions";
pub const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
pub const SECRETS: &str = "/api/v1/namespaces/default/secrets";

pub struct Server {
    audit_log: PathBuf,
    router: Router,
    pub replica: Replica,
    pub stop: CancellationToken,
    pub audit: Audit,
    pub artifacts: Artifacts,
    pub authority: Arc<CertificateAuthority>,
    /// Of this swarm's CA.
    pub clients: Arc<ClientAuthority>,
    admin: String,
    _dir: TempDir,
}

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The JSON of an answer that must be a success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!(
            (200..300).contains(&self.status),
            "{}: {}",
            self.status,
            String::from_utf8_lossy(&self.body)
        );
        self.json()
    }

    /// Fails unless this is a Status with that code and reason, whose message holds `message`.
    #[track_caller]
    pub fn fails(&self, status: u16, reason: &str, message: &str) -> Value {
        let body = self.json();
        assert_eq!(self.status, status, "{body}");
        assert_eq!(body["kind"], "Status", "{body}");
        assert_eq!(body["code"], status, "{body}");
        assert_eq!(body["reason"], reason, "{body}");
        let found = body["message"].as_str().unwrap();
        assert!(
            found.contains(message),
            "{found:?} does not say {message:?}"
        );
        body
    }
}

impl Server {
    /// With the namespaces and roles that every swarm has.
    pub async fn start() -> Self {
        let mut server = Self::leaderless().await;
        server.replica.bootstrap(Member::default()).await.unwrap();
        for name in ["default", "hive-system"] {
            let key = Key::new(Resource::Namespace, "", name);
            let body = objects::fresh(&key, json!({}), json!({ "status": { "phase": "Active" } }));
            objects::ensure(&server.replica, key, body).await.unwrap();
        }
        roles::settle(&server.replica).await.unwrap();
        server.admin = server.token(Role::Admin, None).await;
        server
    }

    /// One whose controllers have agreed on all that this program knows.
    pub async fn agreed() -> Self {
        let server = Self::start().await;
        let raised = Command::RaiseLevel { to: level::OWN };
        server.propose(raised).await;
        server
    }

    /// A controller that belongs to no swarm yet.
    pub async fn leaderless() -> Self {
        let Alone {
            replica,
            peers,
            dir,
        } = Alone::leaderless().await;
        let files = ArtifactFiles::open(&dir.path().join("artifacts")).unwrap();
        let nodes = Nodes::new(replica.clone(), peers.clone());
        let tunnels = Tunnels::new(nodes.links().clone());
        let stop = CancellationToken::new();
        let routes = ingress::follow_routes(&replica, stop.clone());
        let audit_log = dir.path().join("audit.log");
        let (audit, _) = Audit::open(AuditOptions {
            path: audit_log.clone(),
            rotation: Rotation::default(),
            policy: audit_policy(),
            on_failure: OnFailure::Refuse,
        })
        .unwrap();
        let authority = Arc::new(CertificateAuthority::create("test").unwrap());
        let artifacts = Artifacts::new(files, replica.clone(), peers.clone());
        let clients = Arc::new(ClientAuthority::new(&authority).unwrap());
        let router = api::router(ApiContext {
            replica: replica.clone(),
            artifacts: artifacts.clone(),
            forwarder: Forwarder::new(
                routes,
                Invoker::new(nodes.clone()),
                tunnels.clone(),
                Loads::default(),
                None,
            ),
            tunnels,
            nodes,
            audit: audit.clone(),
            issuer: Arc::new(Issuer::new(&authority)),
            clients: clients.clone(),
            authority: authority.clone(),
            controllers: Controllers::new(replica.clone(), peers, Presence::default()),
            oidc: None,
            stop: stop.clone(),
        });
        Self {
            audit_log,
            router,
            replica,
            stop,
            audit,
            artifacts,
            authority,
            clients,
            admin: String::new(),
            _dir: dir,
        }
    }

    /// Makes a token; what a client sends.
    pub async fn token(&self, role: Role, expiry: Option<SystemTime>) -> String {
        let token = ApiToken::generate();
        let (key, body) =
            tokens::token_object(&token.secret, TokenKind::Api, Some(role), expiry, None);
        objects::ensure(&self.replica, key, body).await.unwrap();
        token.to_string()
    }

    /// The recorded events that are `wanted`, once there is one at least.
    pub async fn recorded(&self, wanted: impl Fn(&Value) -> bool) -> Vec<Value> {
        let found = async {
            loop {
                let text = std::fs::read_to_string(&self.audit_log).unwrap();
                let complete = text.rfind('\n').map_or("", |end| &text[..end]);
                let events: Vec<Value> = complete
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .filter(&wanted)
                    .collect();
                if !events.is_empty() {
                    return events;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, found)
            .await
            .expect("the request is recorded")
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The token of an admin.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    pub fn request(&self, method: &str, path: &str) -> Call<'_> {
        Call {
            server: self,
            token: Some(self.admin.clone()),
            builder: Request::builder().method(method).uri(path),
            body: Body::empty(),
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.request("GET", path).send().await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.request("DELETE", path).send().await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.request("POST", path).json(&body).send().await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.request("PUT", path).json(&body).send().await
    }

    pub async fn merge(&self, path: &str, patch: Value) -> Answer {
        self.request("PATCH", path)
            .header("content-type", "application/merge-patch+json")
            .body(patch.to_string())
            .send()
            .await
    }

    /// A ConfigMap that must not exist yet.
    pub async fn config_map(&self, name: &str, labels: Value) -> Value {
        self.post(
            CONFIG_MAPS,
            json!({ "metadata": { "name": name, "labels": labels } }),
        )
        .await
        .ok()
    }

    /// What the replica holds.
    pub fn stored(&self, resource: Resource, namespace: &str, name: &str) -> Option<Value> {
        let key = Key::new(resource, namespace, name);
        Some(self.replica.state().get(&key)?.body().clone())
    }

    /// Runs what a leader does about namespaces and deletion: garbage collection, emptying
    /// namespaces, the statuses of quotas.
    pub fn tend(&self) {
        let looks = || Looks::new(&self.replica, DEADLINE, &self.stop);
        let mut garbage = Collection::default();
        tokio::spawn(
            looks()
                .only_for(garbage::concerns)
                .run(async move |replica, state| garbage.pass(replica, state).await),
        );
        tokio::spawn(
            looks()
                .only_for(namespaces::concerns)
                .run(async |replica, state| namespaces::pass(replica, state).await),
        );
        tokio::spawn(
            looks()
                .only_for(quota::concerns)
                .run(async |replica, state| quota::pass(replica, state).await),
        );
    }

    /// Waits until the replica's state is as wanted.
    pub async fn until(&self, wanted: impl Fn(&State) -> bool) {
        let mut revisions = self.replica.revisions();
        let reached = revisions.wait_for(|_| wanted(&self.replica.state()));
        let reached = tokio::time::timeout(DEADLINE, reached).await;
        reached.expect("in time").expect("the replica runs");
    }

    /// Writes around the API, as reconcilers do.
    pub async fn propose(&self, command: Command) {
        self.replica.propose(command).await.unwrap();
    }

    pub async fn watch(&self, path: &str) -> Watcher {
        self.request("GET", path).watch().await
    }
}

pub struct Call<'a> {
    server: &'a Server,
    token: Option<String>,
    builder: http::request::Builder,
    body: Body,
}

impl Call<'_> {
    pub fn bearing(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub fn anonymous(mut self) -> Self {
        self.token = None;
        self
    }

    /// As a client that showed this certificate in the handshake, and sends no token.
    pub fn showing(mut self, shown: &ClientChain) -> Self {
        self.token = None;
        self.builder = self.builder.extension(shown.clone());
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.builder = self.builder.header(name, value);
        self
    }

    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into();
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    async fn respond(self) -> http::Response<Body> {
        let mut builder = self.builder;
        if let Some(token) = self.token {
            builder = builder.header("authorization", format!("Bearer {token}"));
        }
        let request = builder.body(self.body).unwrap();
        tokio::time::timeout(DEADLINE, self.server.router.clone().oneshot(request))
            .await
            .expect("answered in time")
            .unwrap()
    }

    pub async fn send(self) -> Answer {
        let (parts, body) = self.respond().await.into_parts();
        let body = tokio::time::timeout(DEADLINE, body.collect())
            .await
            .expect("answered in time")
            .unwrap()
            .to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    pub async fn watch(self) -> Watcher {
        let response = self.respond().await;
        assert_eq!(response.status(), 200);
        Watcher {
            body: response.into_body(),
            read: String::new(),
        }
    }
}

/// The client's side of a watch, or of a followed log.
pub struct Watcher {
    body: Body,
    read: String,
}

impl Watcher {
    /// The next line; `None` at the end.
    pub async fn line(&mut self) -> Option<String> {
        loop {
            if let Some((line, rest)) = self.read.split_once('\n') {
                let line = line.to_owned();
                self.read = rest.to_owned();
                return Some(line);
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame())
                .await
                .expect("a line or the end in time");
            let data = frame?.unwrap().into_data().unwrap();
            self.read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    /// The next event; `None` at the end.
    pub async fn event(&mut self) -> Option<Value> {
        let line = self.line().await?;
        Some(serde_json::from_str(&line).unwrap())
    }

    /// The next event as `ADDED name`.
    pub async fn next(&mut self) -> String {
        match self.event().await {
            None => "end".to_owned(),
            Some(event) => format!(
                "{} {}",
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["name"].as_str().unwrap_or("-")
            ),
        }
    }
}

/// Waits for all of some futures, many at a time.
pub async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    futures::stream::iter(futures)
        .buffer_unordered(512)
        .collect()
        .await
}

/// The default, and what is created with the object that was sent.
fn audit_policy() -> Policy {
    Policy::parse(
        r#"
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Request
  verbs: ["create"]
  resources:
  - resources: ["configmaps", "secrets"]
- level: Metadata
  resources:
  - resources: ["secrets"]
- level: None
  verbs: ["get", "list", "watch"]
- level: Metadata
"#,
    )
    .unwrap()
}
