//! The cluster's certificate authority: it turns a request into a certificate, and signs artifacts.
//! Every controller holds it; requests from devices go in, short-lived certificates come out.
//! It must never take anything but the public key from a request, nor give a node a server's name.

mod certificate;

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ED25519, PublicKeyData, SanType, SerialNumber, SigningKey,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, DnsName};
use time::OffsetDateTime;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use self::certificate::signed_bytes;
pub use self::certificate::{CaCertificate, CaError, SignatureError};
use crate::key::{generate_pair, pair_from_pem};
use crate::subject::check_label;
use crate::{CONTROLLER_SERVER_NAME, InvalidLabel, KeyFingerprint, Subject, random};

/// How long a member's certificate lives: a stolen one is of use for a day, and a member that is
/// cut off for a night still holds a valid one in the morning (it renews at two thirds).
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// How long the CA lives. Replacing it means that every member joins again, so longer than hardware.
pub const CA_LIFETIME: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// How far before its making a certificate is already valid: small boards' clocks drift, and one
/// that runs five minutes late must still accept what was issued just now.
pub const BACKDATE: Duration = Duration::from_secs(5 * 60);

/// The largest request that is looked at. An Ed25519 request of ours has about 150 bytes, other
/// tools' with names and extensions below 1 KiB; it comes from somebody not yet authenticated.
pub const MAX_CSR_BYTES: usize = 4 * 1024;

/// The CA with its private key.
pub struct CertificateAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CaCertificate,
}

/// What [`CertificateAuthority::issue`] made.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    pub der: CertificateDer<'static>,
    pub not_after: SystemTime,
    /// Of the key that was certified: the holder's identity.
    pub key: KeyFingerprint,
}

/// Why no certificate was issued. A retry with the same request helps for none of these.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the certificate request has {found} bytes, at most {MAX_CSR_BYTES} are accepted")]
    TooLarge { found: usize },
    #[error("the certificate request is not PKCS#10 in DER")]
    Malformed(#[source] x509_parser::error::X509Error),
    #[error("the certificate request is followed by {0} stray bytes")]
    TrailingBytes(usize),
    #[error("the certificate request's signature does not fit its key")]
    BadSignature(#[source] x509_parser::error::X509Error),
    #[error("the certificate request is for another kind of key: only Ed25519 is accepted")]
    NotEd25519,
    #[error("the certificate request's public key cannot be read")]
    PublicKey(#[source] rcgen::Error),
    #[error("the subject cannot be certified")]
    Subject(#[source] InvalidLabel),
    #[error("{0:?} is neither a DNS name nor an IP address")]
    ServerName(String),
    #[error("a node's certificate carries no server names: with one it could pose as that server")]
    NamesForNode,
    #[error("the cluster's CA certificate is not valid at this time: check this machine's clock")]
    OutsideCaValidity,
    #[error("cannot sign the certificate")]
    Sign(#[source] rcgen::Error),
}

impl CertificateAuthority {
    /// A new CA for the cluster of that name, a DNS label.
    pub fn create(cluster: &str) -> Result<Self, CaError> {
        check_label(cluster)?;
        let key = generate_pair();
        let now = to_whole_seconds(SystemTime::now());

        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // With a piece of the key: when a cluster is made anew under its old name, what the old
        // one issued is then refused for an unknown issuer and not for a puzzling bad signature.
        let fingerprint = KeyFingerprint::of_public_key(&key.subject_public_key_info()).to_string();
        params
            .distinguished_name
            .push(DnType::OrganizationName, cluster);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("Hive CA {}", &fingerprint[..8]));
        params.subject_alt_names = vec![uri(format!("spiffe://{cluster}")).map_err(CaError::Sign)?];
        // Zero: it issues members' certificates, never another CA's.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(random_serial());
        set_validity(&mut params, now - BACKDATE, now + CA_LIFETIME);

        let certificate = params.self_signed(&key).map_err(CaError::Sign)?;
        Self::assemble(CaCertificate::from_der(certificate.der())?, key)
    }

    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, CaError> {
        let certificate = CaCertificate::from_pem(certificate_pem)?;
        let key = pair_from_pem(key_pem).map_err(CaError::Key)?;
        Self::assemble(certificate, key)
    }

    fn assemble(certificate: CaCertificate, key: KeyPair) -> Result<Self, CaError> {
        if certificate.public_key()[..] != *key.public_key_raw() {
            return Err(CaError::KeyMismatch);
        }
        let issuer = Issuer::from_ca_cert_der(certificate.der(), key).map_err(CaError::Sign)?;
        Ok(Self {
            issuer,
            certificate,
        })
    }

    /// The public half.
    pub fn certificate(&self) -> &CaCertificate {
        &self.certificate
    }

    /// The private key, PKCS#8 in PEM: for a controller's own disk, or for an admitted controller.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A secret of its own for one purpose, the same on every controller, from which the CA's key
    /// can't be found.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        crate::key::derive(self.issuer.key(), purpose)
    }

    /// Certifies that the key which signed `csr_der` belongs to `subject`, from [`BACKDATE`] before
    /// `now` until `lifetime` after it, or until the CA itself ends.
    ///
    /// `names` are the DNS names and IP addresses at which a controller's API is reached, beside
    /// [`CONTROLLER_SERVER_NAME`]; for a node there are none.
    pub fn issue(
        &self,
        csr_der: &[u8],
        subject: &Subject,
        names: &[String],
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<IssuedCertificate, IssueError> {
        let public_key = proven_public_key(csr_der)?;

        let ca = &self.certificate;
        let (now, not_after) = validity(ca, now, lifetime)?;

        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        // For people who look at it with other tools; programs read the URI.
        let common_name = match subject {
            Subject::Controller { .. } => subject.to_string(),
            // Without a word before it: X.509 allows 64 characters, and a label has up to 63.
            Subject::Node { name } => name.clone(),
        };
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        params.subject_alt_names = subject_names(subject, ca.cluster(), names)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(random_serial());
        set_validity(&mut params, now - BACKDATE, not_after);

        let certificate = params
            .signed_by(&public_key, &self.issuer)
            .map_err(IssueError::Sign)?;
        Ok(IssuedCertificate {
            der: certificate.into(),
            not_after,
            key: KeyFingerprint::of_public_key(&public_key.subject_public_key_info()),
        })
    }

    /// Signs `message` for one purpose: what was signed for another never verifies.
    ///
    /// `context` names the purpose and its version, as in `hive.artifact.v1`. Panics unless it
    /// starts with a lower-case letter and is free of NUL: a certificate's signed part starts with
    /// 0x30, so no message signed here can be taken for one.
    pub fn sign(&self, context: &'static str, message: &[u8]) -> Vec<u8> {
        self.issuer
            .key()
            .sign(&signed_bytes(context, message))
            .expect("Ed25519 signing has no failure")
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertificateAuthority")
            .field(&self.certificate)
            .finish()
    }
}

/// The public key of a request, once the request proves that its sender holds the private half.
fn proven_public_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(IssueError::TooLarge {
            found: csr_der.len(),
        });
    }
    let (rest, csr) = X509CertificationRequest::from_der(csr_der)
        .map_err(|error| IssueError::Malformed(error.into()))?;
    if !rest.is_empty() {
        return Err(IssueError::TrailingBytes(rest.len()));
    }
    let key = SubjectPublicKeyInfo::from_der(csr.certification_request_info.subject_pki.raw)
        .map_err(IssueError::PublicKey)?;
    if *key.algorithm() != PKCS_ED25519 {
        return Err(IssueError::NotEd25519);
    }
    csr.verify_signature().map_err(IssueError::BadSignature)?;
    Ok(key)
}

fn subject_names(
    subject: &Subject,
    cluster: &str,
    names: &[String],
) -> Result<Vec<SanType>, IssueError> {
    let spiffe = subject.uri(cluster).map_err(IssueError::Subject)?;
    let mut sans = vec![uri(spiffe).map_err(IssueError::Sign)?];
    match subject {
        Subject::Controller { .. } => sans.push(server_name(CONTROLLER_SERVER_NAME)?),
        Subject::Node { .. } if names.is_empty() => {}
        Subject::Node { .. } => return Err(IssueError::NamesForNode),
    }
    for name in names {
        let san = server_name(name)?;
        if !sans.contains(&san) {
            sans.push(san);
        }
    }
    Ok(sans)
}

/// No wildcards: `DnsName` refuses them.
fn server_name(name: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let refused = || IssueError::ServerName(name.to_owned());
    // A certificate writes a name without the root's dot, and verifiers compare in lower case.
    let canonical = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    DnsName::try_from(canonical.as_str()).map_err(|_| refused())?;
    canonical
        .try_into()
        .map(SanType::DnsName)
        .map_err(|_| refused())
}

fn uri(uri: String) -> Result<SanType, rcgen::Error> {
    Ok(SanType::URI(uri.try_into()?))
}

/// 127 random bits. rcgen would derive the serial from the public key, and then a renewed
/// certificate repeats its predecessor's, which RFC 5280 forbids and some clients refuse.
pub(crate) fn random_serial() -> SerialNumber {
    let mut serial = random::bytes::<16>();
    serial[0] &= 0x7f; // positive, as DER reads it
    serial[0] |= 0x40; // of fixed length, without a leading zero
    SerialNumber::from_slice(&serial)
}

/// From when, and until when at the latest, the CA can certify something.
pub(crate) fn validity(
    ca: &CaCertificate,
    now: SystemTime,
    lifetime: Duration,
) -> Result<(SystemTime, SystemTime), IssueError> {
    let now = to_whole_seconds(now);
    if now < ca.not_before() || now >= ca.not_after() {
        return Err(IssueError::OutsideCaValidity);
    }
    let not_after = now
        .checked_add(lifetime)
        .map_or(ca.not_after(), |end| end.min(ca.not_after()));
    Ok((now, to_whole_seconds(not_after)))
}

/// X.509 counts whole seconds.
fn to_whole_seconds(time: SystemTime) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(unix_seconds(time))
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// Both times within the range of a CA's life, so that neither addition can overflow.
pub(crate) fn set_validity(
    params: &mut CertificateParams,
    not_before: SystemTime,
    not_after: SystemTime,
) {
    params.not_before = since_epoch(not_before);
    params.not_after = since_epoch(not_after);
}

pub(crate) fn since_epoch(time: SystemTime) -> OffsetDateTime {
    rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(unix_seconds(time))
}
