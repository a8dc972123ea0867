//! A controller with its gateway open, and who links to it: nodes, and other controllers.

mod gateway;
mod peers;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hive_controller::artifacts::{ArtifactFiles, Artifacts};
use hive_controller::controllers::Controllers;
use hive_controller::gateway::{Gateway, Invoker, Nodes, Presence};
use hive_controller::objects;
use hive_controller::state::{Command, Key};
use hive_controller::tunnels::Tunnels;
use hive_identity::{
    CertificateAuthority, Credentials, DEFAULT_LIFETIME, DeviceKey, ExpectedController,
    LiveCredentials, Subject, tls,
};
use hive_manifests::Resource;
use hive_proto::grpc;
use hive_proto::link::{Link, LinkSettings, Listener, dial};
use hive_proto::v1::enrolment_client::EnrolmentClient;
use hive_proto::v1::{EnrolRequest, NodeRole, enrol_request};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::alone::nobody;
use crate::harness::{Server, in_time};

/// A controller with its gateway open.
pub struct Swarm {
    pub server: Server,
    pub nodes: Nodes,
    tunnels: Tunnels,
    pub invoker: Invoker,
    authority: Arc<CertificateAuthority>,
    address: SocketAddr,
    files: ArtifactFiles,
    _dir: TempDir,
}

fn credentials(authority: &CertificateAuthority, subject: &Subject) -> Credentials {
    let key = DeviceKey::generate();
    let csr = key.csr().unwrap();
    let issued = authority
        .issue(&csr, subject, &[], SystemTime::now(), DEFAULT_LIFETIME)
        .unwrap();
    Credentials::new(key, issued.der, authority.certificate().clone()).unwrap()
}

impl Swarm {
    pub async fn start() -> Self {
        let server = Server::start().await;
        let authority = Arc::new(CertificateAuthority::create("test").unwrap());
        let own = credentials(&authority, &Subject::Controller { raft_id: 1 });
        let live = LiveCredentials::new(own);
        let listener = Listener::bind(
            (Ipv4Addr::LOCALHOST, 0).into(),
            tls::link_server_config(&live),
            LinkSettings::default(),
        )
        .await
        .unwrap();
        let address = listener.local_addr();
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(&dir.path().join("artifacts")).unwrap();
        let (replica, peers) = (server.replica.clone(), nobody());
        let nodes = Nodes::new(replica.clone(), peers.clone());
        let invoker = Invoker::new(nodes.clone());
        let tunnels = Tunnels::new(nodes.links().clone());
        let gateway = Gateway {
            artifacts: Artifacts::new(files.clone(), replica.clone(), peers.clone()),
            invoker: invoker.clone(),
            controllers: Controllers::new(replica.clone(), peers, Presence::default()),
            presence: Presence::default(),
            tunnels: tunnels.clone(),
            authority: authority.clone(),
            audit: server.audit.clone(),
            certificate_lifetime: DEFAULT_LIFETIME,
            replica,
            nodes: nodes.clone(),
        };
        tokio::spawn(gateway.run(listener, server.stop.clone()));
        Self {
            server,
            nodes,
            tunnels,
            invoker,
            authority,
            address,
            files,
            _dir: dir,
        }
    }

    pub async fn create(&self, resource: Resource, namespace: &str, name: &str, content: Value) {
        let key = Key::new(resource, namespace, name);
        let body = objects::fresh(&key, json!({}), content).into();
        self.server.propose(Command::Create { key, body }).await;
    }

    pub async fn delete(&self, key: Key) {
        let (expect, uid) = (None, None);
        self.server
            .propose(Command::Delete { key, expect, uid })
            .await;
    }

    /// Credentials of a node that has enrolled.
    pub async fn node(&self, name: &str) -> Credentials {
        let subject = Subject::Node { name: name.into() };
        let credentials = credentials(&self.authority, &subject);
        let fingerprint = credentials.key().fingerprint().to_string();
        let spec = json!({ "spec": { "key": fingerprint } });
        self.create(Resource::Node, "", name, spec).await;
        credentials
    }

    /// An assignment whose artifact's digest is `byte` 32 times.
    pub async fn assign(&self, name: &str, node: &str, byte: u8) {
        let digest = format!("{byte:02x}").repeat(32);
        self.assign_artifact(name, node, &digest).await;
    }

    async fn assign_artifact(&self, name: &str, node: &str, digest: &str) {
        let content = json!({ "spec": {
            "functionName": name, "functionUid": "u", "functionGeneration": 1,
            "nodeName": node, "slot": "0",
            "function": { "artifact": { "sha256": digest } },
            "artifact": {
                "target": "t", "sourceSha256": digest, "sha256": digest, "size": 1, "wasmtimeVersion": "48",
                "description": BASE64.encode("d"), "signature": BASE64.encode("s"),
            },
        } });
        self.create(Resource::Assignment, "default", name, content)
            .await;
    }

    pub async fn link(&self, credentials: Credentials) -> Link {
        self.link_with(credentials, &LinkSettings::default()).await
    }

    async fn link_with(&self, credentials: Credentials, settings: &LinkSettings) -> Link {
        let live = LiveCredentials::new(credentials);
        let config = tls::link_client_config(&live, ExpectedController::Any);
        let address = self.address.to_string();
        dial(&address, config, settings).await.unwrap()
    }

    /// Asks to be let in as `name`; `None` where it is refused.
    async fn enrol(&self, name: &str, secret: &str, key: &DeviceKey) -> Option<Credentials> {
        let pin = self.authority.certificate().fingerprint();
        let config = tls::enrol_client_config(pin);
        let address = self.address.to_string();
        let link = dial(&address, config, &LinkSettings::default())
            .await
            .unwrap();
        let request = EnrolRequest {
            secret: secret.to_owned(),
            csr: key.csr().unwrap(),
            role: Some(enrol_request::Role::Node(NodeRole {
                name: name.to_owned(),
                info: None,
            })),
        };
        let enrolled = EnrolmentClient::new(grpc::channel(link))
            .enrol(request)
            .await;
        let certificate = enrolled.ok()?.into_inner().certificate.into();
        let ca = self.authority.certificate().clone();
        Some(Credentials::new(key.clone(), certificate, ca).unwrap())
    }

    /// The dialer has a link before the gateway has it among those of the node.
    pub async fn is_linked(&self, node: &str) {
        let mut present = self.nodes.links().present();
        let linked = present.wait_for(|nodes| nodes.contains(node));
        in_time(linked).await.unwrap();
    }

    /// As if its node had said so.
    pub async fn is_ready(&self, name: &str) {
        let mut body = self.stored(name);
        body["status"] = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        let key = Key::new(Resource::Assignment, "default", name);
        let (body, expect) = (body.into(), None);
        self.server
            .propose(Command::Replace { key, body, expect })
            .await;
    }

    fn stored(&self, name: &str) -> Value {
        self.server
            .stored(Resource::Assignment, "default", name)
            .unwrap()
    }
}
