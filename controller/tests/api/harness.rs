//! A swarm of one controller in this process, and a client for it.

mod client;

use std::panic::Location;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use futures::StreamExt;
use hive_controller::access::service_accounts::Issuer;
use hive_controller::access::tokens::{self, Role, TokenKind};
use hive_controller::api::{self, ApiContext};
use hive_controller::artifacts::{ArtifactFiles, Artifacts};
use hive_controller::audit::{Audit, AuditOptions, OnFailure, Policy, Rotation};
use hive_controller::controllers::Controllers;
use hive_controller::gateway::{Invoker, Nodes, Presence};
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
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::alone::Alone;
pub use client::{Answer, Call, Watcher};

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
        in_time(found).await
    }

    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// The token of an admin.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    pub fn request(&self, method: &str, path: &str) -> Call<'_> {
        Call::new(self, method, path)
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
        in_time(reached).await.expect("the replica runs");
    }

    /// Writes around the API, as reconcilers do.
    pub async fn propose(&self, command: Command) {
        self.replica.propose(command).await.unwrap();
    }

    pub async fn watch(&self, path: &str) -> Watcher {
        self.request("GET", path).watch().await
    }
}

/// Waits for it until the deadline; whoever still waits then fails by line.
#[track_caller]
pub fn in_time<T>(wanted: impl Future<Output = T>) -> impl Future<Output = T> {
    let waiting = Location::caller();
    async move {
        let came = tokio::time::timeout(DEADLINE, wanted).await;
        came.unwrap_or_else(|_| panic!("{waiting} waits for what did not come in time"))
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
