//! Signing requests of clients: a key that proves itself, the name of a user, and groups.

use rcgen::PublicKeyData;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::{self, PemObject};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::oid_registry::{
    OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
    OID_SIG_ED25519,
};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::{AttributeTypeAndValue, SubjectPublicKeyInfo};

use super::der;
use crate::certificate_pem::pem_text;
use crate::{DeviceKey, MAX_CSR_BYTES};

/// Characters of a user's or group's name. X.509 says 64, which addresses exceed and nobody checks.
const MAX_NAME_CHARS: usize = 256;

/// Groups of one user: a certificate stays small enough for a handshake.
const MAX_GROUPS: usize = 64;

/// Shorter RSA keys are not taken by TLS libraries either.
const MIN_RSA_BITS: usize = 2048;

/// A request whose sender holds the key that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRequest {
    user: String,
    groups: Vec<String>,
    /// SubjectPublicKeyInfo in DER.
    public_key: Vec<u8>,
}

/// Why a text is no request of a client. A retry with the same text helps for none of these.
#[derive(Debug, thiserror::Error)]
pub enum ClientRequestError {
    #[error("it is no certificate request in PEM (\"BEGIN CERTIFICATE REQUEST\")")]
    Pem(#[source] pem::Error),
    #[error("it has {found} bytes, at most {MAX_CSR_BYTES} are accepted")]
    TooLarge { found: usize },
    #[error("it is not PKCS#10 in DER")]
    Malformed(#[source] x509_parser::error::X509Error),
    #[error("it is followed by {0} stray bytes")]
    TrailingBytes(usize),
    #[error("its signature does not fit its key")]
    BadSignature(#[source] x509_parser::error::X509Error),
    #[error(
        "its key is of a kind that is not accepted: use Ed25519, ECDSA with P-256 or P-384, or RSA \
         with {MIN_RSA_BITS} bits or more"
    )]
    Key,
    #[error("its subject must have one common name (CN), the user's")]
    NoUser,
    #[error(
        "{0:?} cannot be a user's or group's name: 1 to {MAX_NAME_CHARS} characters, no control characters"
    )]
    Name(String),
    #[error(
        "its subject has {found} organizations, the user's groups; at most {MAX_GROUPS} are accepted"
    )]
    TooManyGroups { found: usize },
    #[error("it cannot be signed")]
    Sign(#[source] rcgen::Error),
}

impl ClientRequest {
    /// Reads a request, and checks that its sender holds the key.
    pub fn parse(pem: &[u8]) -> Result<Self, ClientRequestError> {
        // As PEM it has a third more, and a line for its head and foot.
        if pem.len() > 2 * MAX_CSR_BYTES {
            return Err(ClientRequestError::TooLarge { found: pem.len() });
        }
        let der =
            CertificateSigningRequestDer::from_pem_slice(pem).map_err(ClientRequestError::Pem)?;
        if der.len() > MAX_CSR_BYTES {
            return Err(ClientRequestError::TooLarge { found: der.len() });
        }
        let (rest, csr) = X509CertificationRequest::from_der(&der)
            .map_err(|error| ClientRequestError::Malformed(error.into()))?;
        if !rest.is_empty() {
            return Err(ClientRequestError::TrailingBytes(rest.len()));
        }
        let info = &csr.certification_request_info;
        if !is_accepted(&info.subject_pki) {
            return Err(ClientRequestError::Key);
        }
        csr.verify_signature()
            .map_err(ClientRequestError::BadSignature)?;
        let users = texts(info.subject.iter_common_name())?;
        let groups = texts(info.subject.iter_organization())?;
        let [user] = <[String; 1]>::try_from(users).map_err(|_| ClientRequestError::NoUser)?;
        check_names(&user, &groups)?;
        Ok(Self {
            user,
            groups,
            public_key: info.subject_pki.raw.to_vec(),
        })
    }

    /// A request for `key`, in PEM.
    pub fn make(
        key: &DeviceKey,
        user: &str,
        groups: &[String],
    ) -> Result<String, ClientRequestError> {
        check_names(user, groups)?;
        let pair = key.pair();
        let der = der::request(user, groups, &pair.subject_public_key_info(), pair)
            .map_err(ClientRequestError::Sign)?;
        Ok(pem_text("CERTIFICATE REQUEST", &der))
    }

    pub fn user(&self) -> &str {
        &self.user
    }

    pub fn groups(&self) -> &[String] {
        &self.groups
    }

    pub(super) fn public_key(&self) -> &[u8] {
        &self.public_key
    }
}

fn check_names(user: &str, groups: &[String]) -> Result<(), ClientRequestError> {
    if groups.len() > MAX_GROUPS {
        return Err(ClientRequestError::TooManyGroups {
            found: groups.len(),
        });
    }
    let is_bad = |name: &&str| {
        name.is_empty()
            || name.chars().count() > MAX_NAME_CHARS
            || name.chars().any(char::is_control)
    };
    let mut names = groups.iter().map(String::as_str).chain([user]);
    match names.find(is_bad) {
        Some(bad) => Err(ClientRequestError::Name(bad.to_owned())),
        None => Ok(()),
    }
}

/// What the verifier of handshakes knows, so that nobody gets a certificate of no use.
fn is_accepted(key: &SubjectPublicKeyInfo<'_>) -> bool {
    let algorithm = &key.algorithm;
    if algorithm.algorithm == OID_SIG_ED25519 {
        return true;
    }
    if algorithm.algorithm == OID_KEY_TYPE_EC_PUBLIC_KEY {
        let curve = algorithm
            .parameters
            .as_ref()
            .and_then(|any| any.as_oid().ok());
        return curve.is_some_and(|curve| curve == OID_EC_P256 || curve == OID_NIST_EC_P384);
    }
    algorithm.algorithm == OID_PKCS1_RSAENCRYPTION
        && matches!(key.parsed(), Ok(PublicKey::RSA(key)) if key.key_size() >= MIN_RSA_BITS)
}

pub(super) fn texts<'a>(
    attributes: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>,
) -> Result<Vec<String>, ClientRequestError> {
    attributes
        .map(|attribute| attribute.as_str().map(str::to_owned))
        .collect::<Result<_, _>>()
        .map_err(ClientRequestError::Malformed)
}
