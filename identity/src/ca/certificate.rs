//! The public half of the cluster's CA: what every member trusts, and newcomers pin.
//! Certificates and signatures are verified against it.
//! A value of this type is always a usable trust anchor: the constructors refuse anything else.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use ring::signature::{ED25519, UnparsedPublicKey};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};
use x509_parser::oid_registry::OID_SIG_ED25519;

use crate::certificate_pem::certificate_pem;
use crate::subject::{check_label, parse, system_time, uri_names};
use crate::{CaFingerprint, InvalidLabel, KeyError, PeerError};

/// The cluster's CA certificate. Cheap to clone.
#[derive(Clone)]
pub struct CaCertificate(Arc<Inner>);

struct Inner {
    der: CertificateDer<'static>,
    fingerprint: CaFingerprint,
    cluster: String,
    public_key: [u8; 32],
    not_before: SystemTime,
    not_after: SystemTime,
    roots: Arc<RootCertStore>,
}

/// Why there is no usable CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("the cluster's name is not usable")]
    Cluster(#[from] InvalidLabel),
    #[error("no certificate in PEM (\"BEGIN CERTIFICATE\")")]
    Pem(#[source] pem::Error),
    #[error("the CA certificate is malformed")]
    Malformed(#[source] PeerError),
    #[error("the certificate is not a CA's: it may not issue others")]
    NotCa,
    #[error("the CA's key is not Ed25519")]
    NotEd25519,
    #[error("the CA certificate names no cluster (spiffe://<cluster>): was it made by Hive?")]
    NoCluster,
    #[error("the CA certificate cannot serve as a trust anchor")]
    TrustAnchor(#[source] rustls::Error),
    #[error("the CA's private key cannot be used")]
    Key(#[source] KeyError),
    #[error("the CA's private key does not belong to its certificate")]
    KeyMismatch,
    #[error("cannot make the CA certificate")]
    Sign(#[source] rcgen::Error),
}

/// A signature that this CA did not make for this purpose over this message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature is not the cluster CA's for this content")]
pub struct SignatureError;

impl CaCertificate {
    pub fn from_pem(pem: &str) -> Result<Self, CaError> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(CaError::Pem)?;
        Self::from_der(&der)
    }

    pub fn from_der(der: &[u8]) -> Result<Self, CaError> {
        let der = CertificateDer::from(der.to_vec());
        let x509 = parse(&der).map_err(CaError::Malformed)?;
        if !x509.is_ca() {
            return Err(CaError::NotCa);
        }
        let key = x509.public_key();
        if key.algorithm.algorithm != OID_SIG_ED25519 {
            return Err(CaError::NotEd25519);
        }
        let public_key =
            <[u8; 32]>::try_from(&*key.subject_public_key.data).map_err(|_| CaError::NotEd25519)?;
        let uris = uri_names(&x509).map_err(CaError::Malformed)?;
        let cluster = match uris[..] {
            [uri] => uri.strip_prefix("spiffe://").ok_or(CaError::NoCluster)?,
            _ => return Err(CaError::NoCluster),
        };
        check_label(cluster)?;
        let validity = x509.validity();
        let not_before =
            system_time(validity.not_before.timestamp()).map_err(CaError::Malformed)?;
        let not_after = system_time(validity.not_after.timestamp()).map_err(CaError::Malformed)?;
        let mut roots = RootCertStore::empty();
        roots.add(der.clone()).map_err(CaError::TrustAnchor)?;

        Ok(Self(Arc::new(Inner {
            fingerprint: CaFingerprint::of(&der),
            cluster: cluster.to_owned(),
            public_key,
            not_before,
            not_after,
            roots: Arc::new(roots),
            der,
        })))
    }

    pub fn to_pem(&self) -> String {
        certificate_pem(&self.0.der)
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.0.der
    }

    pub fn fingerprint(&self) -> CaFingerprint {
        self.0.fingerprint
    }

    pub fn cluster(&self) -> &str {
        &self.0.cluster
    }

    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Whether this CA signed `message` for the purpose `context`.
    pub fn verify(
        &self,
        context: &'static str,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        self.verify_bytes(&signed_bytes(context, message), signature)
    }

    pub(crate) fn verify_bytes(
        &self,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureError> {
        UnparsedPublicKey::new(&ED25519, &self.0.public_key)
            .verify(bytes, signature)
            .map_err(|_| SignatureError)
    }

    pub(crate) fn public_key(&self) -> &[u8; 32] {
        &self.0.public_key
    }

    pub(crate) fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        self.0.roots.clone()
    }
}

impl PartialEq for CaCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.der == other.0.der
    }
}

impl Eq for CaCertificate {}

impl fmt::Debug for CaCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaCertificate")
            .field("cluster", &self.0.cluster)
            .field("fingerprint", &self.0.fingerprint)
            .finish()
    }
}

/// What a signature covers: the context, a NUL, the message. See `CertificateAuthority::sign` for
/// what is asked of a context.
pub(super) fn signed_bytes(context: &'static str, message: &[u8]) -> Vec<u8> {
    assert!(
        context.starts_with(|c: char| c.is_ascii_lowercase()) && !context.contains('\0'),
        "{context:?} cannot be the context of a signature"
    );
    [context.as_bytes(), b"\0", message].concat()
}
