//! What this controller answers to a certificate authority that looks whether a name leads here: at the ingress
//! (HTTP-01 of RFC 8555) and where TLS is taken (TLS-ALPN-01, RFC 8737).
//!
//! The leader orders, and every controller answers, from its own replica: the authority asks whichever it finds.
//! Answers are there while an order is open, and say nothing that a stranger could use.

use std::collections::HashMap;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use ring::digest::{SHA256, digest};
use rustls::ServerConfig;
use rustls::crypto::ring::sign::any_ecdsa_type;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::gateway::Body;
use crate::ingress::text;
use crate::reconcile::acme::orders;
use crate::state::State;
use crate::store::Replica;

/// Below it are the answers of HTTP-01.
pub const PATH: &str = "/.well-known/acme-challenge/";

/// The protocol (ALPN) with which an authority asks for [`Challenges::challenge_certificate`].
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The answers of all orders that are open. A clone is the same; the default has none.
#[derive(Clone)]
pub struct Challenges(watch::Receiver<Arc<Answers>>);

#[derive(Default)]
struct Answers {
    /// Key authorizations by their tokens.
    tokens: HashMap<String, String>,
    certificates: HashMap<String, Arc<CertifiedKey>>,
}

impl Default for Challenges {
    fn default() -> Self {
        Self(watch::channel(Arc::default()).1)
    }
}

impl Challenges {
    /// Answers as the state says, until cancelled.
    pub fn follow(replica: &Replica, cancel: CancellationToken) -> Self {
        let mut touched = replica.touched(orders::concerns);
        let (sender, receiver) = watch::channel(Arc::new(Answers::of(&replica.state())));
        let replica = replica.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = cancel.cancelled() => return,
                    changed = touched.changed() => if changed.is_err() { return },
                }
                touched.borrow_and_update();
                sender.send_replace(Arc::new(Answers::of(&replica.state())));
            }
        });
        Self(receiver)
    }

    /// The answer to a request that asks for a token which is known here. All others are somebody else's: also
    /// services behind tunnels order certificates.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Body>> {
        let token = request.uri().path().strip_prefix(PATH)?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let authorization = self.0.borrow().tokens.get(token)?.clone();
        Some(text(StatusCode::OK, authorization))
    }

    /// What to show a client that speaks [`ACME_TLS`] and asks for a name, if that is being proven.
    pub fn challenge_certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        self.0.borrow().certificates.get(&name).cloned()
    }

    /// How to speak with such a client.
    pub fn challenge_config(&self, name: &str) -> Option<Arc<ServerConfig>> {
        let shown = self.challenge_certificate(name)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's provider has the default versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from((*shown).clone())));
        config.alpn_protocols = vec![ACME_TLS.to_vec()];
        Some(Arc::new(config))
    }
}

impl Answers {
    fn of(state: &State) -> Self {
        let mut answers = Self::default();
        let orders = orders::read(state);
        for answer in orders.values().flat_map(|order| &order.answers) {
            let orders::Answer {
                name,
                token,
                authorization,
            } = answer;
            match certificate(name, authorization) {
                Ok(shown) => drop(answers.certificates.insert(name.clone(), shown)),
                Err(error) => {
                    tracing::warn!(name, %error, "cannot answer an authority over TLS");
                }
            }
            answers.tokens.insert(token.clone(), authorization.clone());
        }
        answers
    }
}

/// Signed by nobody, and good for nothing else: its one extension is the answer.
fn certificate(name: &str, authorization: &str) -> Result<Arc<CertifiedKey>, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let digest = digest(&SHA256, authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let pair = KeyPair::generate()?;
    let shown = params.self_signed(&pair)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
    let key = any_ecdsa_type(&key).map_err(|_| rcgen::Error::CouldNotParseKeyPair)?;
    // Not `from_der`, which knows no certificate with such an extension.
    Ok(Arc::new(CertifiedKey::new(vec![shown.der().clone()], key)))
}
