//! TLS handshakes over a wire in memory.

#![allow(clippy::unwrap_used)]

mod believed;
mod protocols;
mod resumption;

use std::sync::Arc;
use std::time::SystemTime;

use hive_identity::tls::{link_client_config, link_server_config};
use hive_identity::{
    CONTROLLER_SERVER_NAME, CertificateAuthority, Credentials, DEFAULT_LIFETIME, DeviceKey,
    ExpectedController, LINK_ALPN, LiveCredentials, Peer, Subject,
};
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, RootCertStore, ServerConfig,
    ServerConnection,
};

/// A full handshake with client authentication takes two flights each way.
const MAX_FLIGHTS: usize = 10;

/// Both ends after a handshake, with the error that each of them met.
struct Outcome {
    client: Connection,
    server: Connection,
    client_error: Option<Error>,
    server_error: Option<Error>,
}

impl Outcome {
    fn connected(self) -> Self {
        assert_eq!((&self.client_error, &self.server_error), (&None, &None));
        assert!(!self.client.is_handshaking() && !self.server.is_handshaking());
        self
    }

    /// Whom the server sees.
    fn client_peer(&self) -> Option<Peer> {
        let chain = self.server.peer_certificates()?;
        Some(Peer::from_certificate(chain.first()?).unwrap())
    }

    /// Whom the client sees.
    fn server_peer(&self) -> Peer {
        let chain = self.client.peer_certificates().unwrap();
        Peer::from_certificate(&chain[0]).unwrap()
    }
}

fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    handshake_at(client, server, CONTROLLER_SERVER_NAME)
}

fn handshake_at(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    dialled: &'static str,
) -> Outcome {
    let name = dialled.try_into().unwrap();
    let mut outcome = Outcome {
        client: ClientConnection::new(client, name).unwrap().into(),
        server: ServerConnection::new(server).unwrap().into(),
        client_error: None,
        server_error: None,
    };
    for _ in 0..MAX_FLIGHTS {
        if !outcome.client.wants_write() && !outcome.server.wants_write() {
            return outcome;
        }
        let error = deliver(&mut outcome.client, &mut outcome.server);
        outcome.server_error = outcome.server_error.take().or(error);
        let error = deliver(&mut outcome.server, &mut outcome.client);
        outcome.client_error = outcome.client_error.take().or(error);
    }
    panic!("the handshake doesn't come to an end");
}

/// Everything that `from` has to say, and what `to` thinks of it.
fn deliver(from: &mut Connection, to: &mut Connection) -> Option<Error> {
    let mut wire = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut wire).unwrap();
    }
    let mut wire = &wire[..];
    let mut error = None;
    while !wire.is_empty() {
        to.read_tls(&mut wire).unwrap();
        error = error.or(to.process_new_packets().err());
    }
    error
}

fn ca() -> CertificateAuthority {
    CertificateAuthority::create("home").unwrap()
}

fn issue(
    ca: &CertificateAuthority,
    key: DeviceKey,
    subject: Subject,
    at: SystemTime,
) -> Credentials {
    let csr = key.csr().unwrap();
    let issued = ca.issue(&csr, &subject, &[], at, DEFAULT_LIFETIME).unwrap();
    Credentials::new(key, issued.der, ca.certificate().clone()).unwrap()
}

fn controller(ca: &CertificateAuthority, raft_id: u64) -> LiveCredentials {
    let subject = Subject::Controller { raft_id };
    LiveCredentials::new(issue(ca, DeviceKey::generate(), subject, SystemTime::now()))
}

fn node(ca: &CertificateAuthority, name: &str) -> LiveCredentials {
    let subject = Subject::Node { name: name.into() };
    LiveCredentials::new(issue(ca, DeviceKey::generate(), subject, SystemTime::now()))
}

fn link(live: &LiveCredentials) -> Arc<ClientConfig> {
    link_client_config(live, ExpectedController::Any)
}

/// A client that trusts the server's CA and still shows a certificate of its own choice.
fn stranger(trusted: &CertificateAuthority, live: LiveCredentials) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.certificate().der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(live));
    config.alpn_protocols = vec![LINK_ALPN.to_vec()];
    Arc::new(config)
}
