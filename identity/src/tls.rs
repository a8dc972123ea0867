//! The rustls configurations of every connection that Hive makes or accepts: TLS 1.3 only, ring's
//! cryptography given explicitly (the process default belongs to the program, not to a library).
//! Credentials are read at each handshake, so a renewal needs no new configuration.
//!
//! Links never resume a session. A resumed handshake shows no certificates: a node whose certificate
//! has expired would come in for as long as its ticket lives, and one that has renewed would
//! go on under the old certificate. Early data is off for the same reason, and because it can be replayed.
//!
//! Two things that a link's owner must do himself: look up whether the peer's key was removed from
//! the swarm (a certificate doesn't know), and let a peer without a certificate do nothing but enrol.

mod any_client;
mod suites;
mod verify;

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ConfigBuilder, ConfigSide, ServerConfig, WantsVerifier};

use self::any_client::AnyClient;
use self::verify::{ControllerVerifier, Trust};
pub use self::verify::{ExpectedController, OtherController, PinMismatch};
use crate::{CaFingerprint, ClientAuthority, LiveCredentials};

/// The protocol of a link, version 1; whoever speaks another is refused in the handshake.
pub const LINK_ALPN: &[u8] = b"hive/1";

/// The same, where who dialled lets the other side open many streams. It is offered and preferred beside the other,
/// so both sides of a link know what both are.
pub const MANY_STREAMS_ALPN: &[u8] = b"hive/1.1";

/// What a controller serves links with.
///
/// A client's certificate is verified against the CA if it shows one. It may show none: a newcomer
/// has none yet. `peer_certificates()` of the connection is then empty, and the gateway lets it enrol only.
pub fn link_server_config(live: &LiveCredentials) -> Arc<ServerConfig> {
    let provider = provider();
    let clients =
        WebPkiClientVerifier::builder_with_provider(live.current().ca().roots(), provider.clone())
            .allow_unauthenticated()
            .build()
            .expect("a CaCertificate holds one trust anchor, and there are no revocation lists");
    let mut config = tls13(ServerConfig::builder_with_provider(provider))
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(live.clone()));
    config.alpn_protocols = link_protocols();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// What a member opens links to controllers with, showing its own certificate.
///
/// The server must hold a controller's certificate from this member's CA, whatever name or address
/// was dialled. A server that refuses the client's certificate says so only after the client's
/// side of the handshake is complete (TLS 1.3): expect that error from the first read.
pub fn link_client_config(
    live: &LiveCredentials,
    expected: ExpectedController,
) -> Arc<ClientConfig> {
    let trust = Trust::Ca(live.current().ca().clone());
    let config = link_client(trust, expected).with_client_cert_resolver(Arc::new(live.clone()));
    Arc::new(without_resumption(config))
}

/// What a newcomer opens its first link with: it shows no certificate, and trusts the one CA that
/// `pin` names, which the server must send along.
///
/// The pin holds for this link only: before the CA that the enrolment answers with is kept, its
/// fingerprint must be compared with the pin too. A member whose certificate has expired comes
/// back by this as well, with its own CA's fingerprint.
pub fn enrol_client_config(pin: CaFingerprint) -> Arc<ClientConfig> {
    let config = link_client(Trust::Pin(pin), ExpectedController::Any).with_no_client_auth();
    Arc::new(without_resumption(config))
}

/// What a controller serves its API with: clients show tokens, or a certificate.
///
/// Every certificate is let through whose holder proves to have its key: whoever serves asks
/// [`ClientAuthority::judge`] what it is worth, and can tell a person what is wrong with it.
///
/// Sessions may resume here: what a certificate is worth is asked at each request. rustls keeps at
/// most 256 of them, each with the certificate that was shown.
pub fn api_server_config(
    certificates: Arc<dyn ResolvesServerCert>,
    clients: &ClientAuthority,
) -> Arc<ServerConfig> {
    let mut config = tls13(ServerConfig::builder_with_provider(provider()))
        .with_client_cert_verifier(Arc::new(AnyClient(clients.verifier())))
        .with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Arc::new(config)
}

fn link_client(
    trust: Trust,
    expected: ExpectedController,
) -> ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let provider = provider();
    let verifier = ControllerVerifier::new(trust, expected, provider.clone());
    tls13(ClientConfig::builder_with_provider(provider))
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
}

fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = link_protocols();
    config.resumption = Resumption::disabled();
    config
}

/// The preferred first.
fn link_protocols() -> Vec<Vec<u8>> {
    [MANY_STREAMS_ALPN, LINK_ALPN].map(<[u8]>::to_vec).into()
}

fn tls13<Side: ConfigSide>(
    builder: ConfigBuilder<Side, rustls::WantsVersions>,
) -> ConfigBuilder<Side, WantsVerifier> {
    builder
        .with_protocol_versions(&[&TLS13])
        .expect("ring's provider has TLS 1.3 cipher suites and key exchange groups")
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: suites::by_speed(),
        ..rustls::crypto::ring::default_provider()
    })
}
