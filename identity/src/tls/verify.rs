//! How the client of a link decides that a server is a controller of its cluster.
//! rustls' own verifier judges chain, time and name; this adds where the trust comes from (a CA held,
//! or one pinned by fingerprint) and which controller was meant.
//! It must never accept a certificate that the rustls verifier has not.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::{CONTROLLER_SERVER_NAME, CaCertificate, CaFingerprint, Peer, Subject};

/// Which controller a link is meant for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedController {
    /// An agent's: every controller serves it alike.
    Any,
    /// A Raft member's: at a reused address a message would reach the wrong voter.
    Id(u64),
}

/// The server showed another CA than the one pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the server's CA is {} but the token pins sha256:{pinned}: is this the address of the cluster \
     that issued the token?",
    .presented.map_or_else(|| "not shown".to_owned(), |ca| format!("sha256:{ca}"))
)]
pub struct PinMismatch {
    /// The last certificate after the leaf, which is where the CA belongs.
    pub presented: Option<CaFingerprint>,
    pub pinned: CaFingerprint,
}

/// A controller of the cluster, but not the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server is {found}, expected controller {expected}")]
pub struct OtherController {
    pub found: Subject,
    pub expected: u64,
}

#[derive(Debug)]
pub(super) enum Trust {
    Ca(CaCertificate),
    Pin(CaFingerprint),
}

#[derive(Debug)]
pub(super) struct ControllerVerifier {
    trust: Trust,
    expected: ExpectedController,
    provider: Arc<CryptoProvider>,
}

impl ControllerVerifier {
    pub(super) fn new(
        trust: Trust,
        expected: ExpectedController,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            trust,
            expected,
            provider,
        }
    }

    /// The CA to verify against; for a pin, the one certificate of the chain that has it.
    fn ca(&self, chain: &[CertificateDer<'_>]) -> Result<CaCertificate, Error> {
        let pin = match &self.trust {
            Trust::Ca(ca) => return Ok(ca.clone()),
            Trust::Pin(pin) => *pin,
        };
        let pinned = chain
            .iter()
            .find(|certificate| CaFingerprint::of(certificate) == pin)
            .ok_or_else(|| {
                other(PinMismatch {
                    presented: chain.last().map(CaFingerprint::of),
                    pinned: pin,
                })
            })?;
        CaCertificate::from_der(pinned).map_err(other)
    }
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let ca = self.ca(intermediates)?;
        let controller = ServerName::try_from(CONTROLLER_SERVER_NAME)
            .expect("CONTROLLER_SERVER_NAME is a DNS name");
        let verified =
            WebPkiServerVerifier::builder_with_provider(ca.roots(), self.provider.clone())
                .build()
                .expect("a CaCertificate holds one trust anchor, and there are no revocation lists")
                .verify_server_cert(end_entity, intermediates, &controller, ocsp_response, now)?;

        if let ExpectedController::Id(expected) = self.expected {
            let found = Peer::from_certificate(end_entity).map_err(other)?.subject;
            if found != (Subject::Controller { raft_id: expected }) {
                return Err(other(OtherController { found, expected }));
            }
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(only_tls13())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Both sides offer TLS 1.3 alone, so nobody gets as far as being asked this.
pub(super) fn only_tls13() -> Error {
    Error::General("TLS 1.3 is the only version spoken".into())
}

/// `Error::Other`, since rustls prints a reason inside `InvalidCertificate` in its Debug form only.
fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(OtherError(Arc::new(error)))
}
