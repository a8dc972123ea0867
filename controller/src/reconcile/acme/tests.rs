//! A controller that leads itself, and an authority that is this process.

#![allow(clippy::unwrap_used)]

mod cases;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_acme::{Authority, Habits, Log};
use hive_manifests::Resource;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Certificates, concerns, orders};
use crate::access::tokens::SYSTEM_NAMESPACE;
use crate::challenges::Challenges;
use crate::fixture::Alone;
use crate::gateway::{Invoker, Nodes};
use crate::ingress::routes::SETTINGS;
use crate::ingress::{self, Forwarder, Ingress};
use crate::objects;
use crate::reconcile::Looks;
use crate::state::{Key, Member};
use crate::store::Replica;
use crate::traffic::Loads;
use crate::tunnels::Tunnels;

/// Longer than anything here takes on a busy machine; a test that reaches it has failed.
const DEADLINE: Duration = Duration::from_secs(180);

const HOST: &str = "photos.localhost";

struct World {
    replica: Replica,
    authority: Authority,
    /// Ends the term of the leader.
    term: CancellationToken,
    _stop: DropGuard,
    _dir: TempDir,
}

impl World {
    /// The authority finds the ingress, and where TLS is taken.
    async fn new() -> Self {
        let listener = listen().await;
        let door = listener.local_addr().unwrap();
        let member = Member {
            ingress: door.to_string(),
            ..Member::default()
        };
        let Alone {
            replica,
            peers,
            dir,
        } = Alone::start(member).await;

        let stop = CancellationToken::new();
        let challenges = Challenges::follow(&replica, stop.clone());
        let nodes = Nodes::new(replica.clone(), peers);
        let tunnels = Tunnels::new(nodes.links().clone());
        let routes = ingress::follow_routes(&replica, stop.clone());
        let invoker = Invoker::new(nodes);
        let forwarder = Forwarder::new(routes, invoker, tunnels.clone(), Loads::default(), None)
            .answering(challenges);
        let tls = listen().await;
        let habits = Habits {
            http_doors: vec![door],
            tls_doors: vec![tls.local_addr().unwrap()],
            ..Habits::default()
        };
        let public = Ingress::new(forwarder);
        tokio::spawn(public.clone().serve(listener, stop.clone()));
        tokio::spawn(public.serve_tls(tls, tunnels, stop.clone()));

        let world = Self {
            replica,
            authority: Authority::start(habits).await,
            term: CancellationToken::new(),
            _stop: stop.drop_guard(),
            _dir: dir,
        };
        for namespace in ["default", "other", "zzz", SYSTEM_NAMESPACE] {
            let key = Key::new(Resource::Namespace, "", namespace);
            world.create(key, json!({})).await;
        }
        world
    }

    /// With the terms agreed to.
    async fn settled() -> Self {
        let world = Self::new().await;
        world.set("acme.agreeToTerms", "true").await;
        world
    }

    /// Somebody leads, and a tunnel wants a certificate of an authority of such habits.
    async fn asking(habits: impl FnOnce(&mut Habits)) -> Self {
        let mut world = Self::settled().await;
        world.authority.change(habits);
        world.lead();
        world.declare("default", "photos", HOST).await;
        world
    }

    /// The authority was given an answer for the tunnel, and does not say yet what it thinks of it.
    async fn held() -> Self {
        let world = Self::asking(|habits| habits.holds = true).await;
        world.asked(|log| !log.claims.is_empty()).await;
        world
    }

    async fn create(&self, key: Key, extra: Value) {
        let body = objects::fresh(&key, json!({}), extra);
        objects::ensure(&self.replica, key, body).await.unwrap();
    }

    /// A setting of the swarm, beside those that lead to the authority.
    async fn set(&self, name: &str, value: &str) {
        let key = Key::new(Resource::ConfigMap, SYSTEM_NAMESPACE, SETTINGS);
        let data = json!({
            "acme.directory": self.authority.directory(),
            "acme.rootCertificates": self.authority.roots(),
            "acme.email": "ops@example.org",
        });
        self.create(key.clone(), json!({ "data": data })).await;
        let edited = objects::edit(&self.replica, &key, |body| {
            body["data"][name] = json!(value);
            true
        });
        edited.await.unwrap();
    }

    async fn declare(&self, namespace: &str, name: &str, host: &str) {
        let targets = json!([{ "node": "pi", "port": 3000 }]);
        let http = json!({ "host": host });
        let spec = json!({ "targets": targets, "http": http, "tls": { "acme": true } });
        let key = Key::new(Resource::Tunnel, namespace, name);
        self.create(key, json!({ "spec": spec })).await;
    }

    /// Begins another term.
    fn lead(&mut self) {
        self.term.cancel();
        self.term = CancellationToken::new();
        let wake = Arc::new(Notify::new());
        let looks = Looks::new(&self.replica, Duration::from_secs(5), &self.term)
            .only_for(concerns)
            .woken_by(wake.clone());
        let mut certificates = Certificates::new(&self.replica.state(), wake);
        tokio::spawn(looks.run(async move |replica, _| certificates.pass(replica).await));
    }

    fn condition(&self, namespace: &str, name: &str) -> String {
        let key = Key::new(Resource::Tunnel, namespace, name);
        let state = self.replica.state();
        let tunnel = state.get(&key).unwrap().to_value().into_owned();
        let conditions = tunnel["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        let found = conditions.find(|it| it["type"] == "CertificateReady");
        let found = found.cloned().unwrap_or_default();
        ["status", "reason", "message"]
            .map(|field| found[field].as_str().unwrap_or_default())
            .join(" ")
    }

    /// Waits until the condition begins with that; all of it.
    async fn says(&self, name: &str, expected: &str) -> String {
        self.says_in("default", name, expected).await
    }

    async fn says_in(&self, namespace: &str, name: &str, expected: &str) -> String {
        let mut last = String::new();
        let waited = self.until(|| {
            last = self.condition(namespace, name);
            last.starts_with(expected).then(|| last.clone())
        });
        let waited = tokio::time::timeout(DEADLINE, waited).await;
        waited.unwrap_or_else(|_| panic!("{name} says {last:?} instead of {expected:?}"))
    }

    /// Looks at each change.
    async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        let mut touched = self.replica.touched(|_| true);
        loop {
            touched.borrow_and_update();
            if let Some(found) = look() {
                return found;
            }
            touched.changed().await.unwrap();
        }
    }

    /// Certificate and key of a tunnel.
    fn secret(&self, name: &str) -> Option<[String; 2]> {
        let key = Key::new(Resource::Secret, "default", format!("{name}-acme"));
        let secret = self.replica.state().get(&key)?.to_value().into_owned();
        assert_eq!(secret["type"], "kubernetes.io/tls");
        let text = |field: &str| {
            let text = BASE64.decode(secret["data"][field].as_str().unwrap());
            String::from_utf8(text.unwrap()).unwrap()
        };
        Some([text("tls.crt"), text("tls.key")])
    }

    /// Waits until the authority was asked for something.
    async fn asked(&self, what: impl FnMut(&Log) -> bool) {
        let mut log = self.authority.log();
        let asked = tokio::time::timeout(DEADLINE, log.wait_for(what)).await;
        drop(asked.expect("it is asked in time").unwrap());
    }

    /// Waits until no order is open.
    async fn all_closed(&self) {
        let closed = self.until(|| {
            let open = orders::read(&self.replica.state());
            open.is_empty().then_some(())
        });
        let closed = tokio::time::timeout(DEADLINE, closed).await;
        closed.expect("orders are closed in time");
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}
