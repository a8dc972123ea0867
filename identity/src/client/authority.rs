//! The CA of clients: issues their certificates and judges those that are shown.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData,
};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::der::{self, Contents};
use super::request::{ClientRequest, texts};
use crate::ca::{BACKDATE, random_serial, set_validity, validity};
use crate::certificate_pem::certificate_pem;
use crate::key::pair_from_seed;
use crate::subject::{parse, system_time, uri_names};
use crate::{CaCertificate, CertificateAuthority, IssueError, KeyFingerprint};

/// What its key is derived for.
const PURPOSE: &str = "certificates of API clients";

/// In the URI of a certificate, between the cluster's name and the request's.
const REQUESTS: &str = "/certificatesigningrequests/";

/// The CA of clients, with its key. All controllers derive the same.
pub struct ClientAuthority {
    key: KeyPair,
    /// Its own name in DER, as certificates carry it.
    name: Vec<u8>,
    cluster: CaCertificate,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// The request that a certificate was issued for: it is good while that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub name: String,
    pub uid: String,
}

/// What a client that showed a certificate is called, once the certificate was found good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    pub user: String,
    pub groups: Vec<String>,
    pub registration: Registration,
    pub not_after: SystemTime,
    /// SHA-256 of the certificate in DER, in hex.
    pub fingerprint: String,
}

/// What [`ClientAuthority::issue`] made.
#[derive(Clone, Debug)]
pub struct IssuedClientCertificate {
    pub pem: String,
    pub not_after: SystemTime,
    /// As [`ClientCertificate::fingerprint`].
    pub fingerprint: String,
}

/// Why a certificate that a client showed says nothing about it.
#[derive(Debug, thiserror::Error)]
pub enum ClientCertificateError {
    #[error("it has expired")]
    Expired,
    #[error("it was not issued by this swarm for clients of its API")]
    Foreign(#[source] rustls::Error),
    #[error("it is not one that this swarm would have issued")]
    Malformed,
}

impl ClientAuthority {
    pub fn new(authority: &CertificateAuthority) -> Result<Self, IssueError> {
        let cluster = authority.certificate().clone();
        let key = pair_from_seed(&authority.derive(PURPOSE));
        let fingerprint = KeyFingerprint::of_public_key(&key.subject_public_key_info()).to_string();

        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, cluster.cluster());
        params.distinguished_name.push(
            DnType::CommonName,
            format!("Hive API clients CA {}", &fingerprint[..8]),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.serial_number = Some(random_serial());
        set_validity(&mut params, cluster.not_before(), cluster.not_after());
        // Nobody keeps it: verification looks at its name and key only, which are the same everywhere.
        let own = params.self_signed(&key).map_err(IssueError::Sign)?;
        let own = CertificateDer::from(own);
        let name = parse(&own)
            .expect("rcgen writes certificates that can be read")
            .subject()
            .as_raw()
            .to_vec();
        let mut roots = RootCertStore::empty();
        roots
            .add(own)
            .expect("a CA's certificate is a trust anchor");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .allow_unauthenticated()
            .build()
            .expect("there is one trust anchor, and there are no revocation lists");
        Ok(Self {
            key,
            name,
            cluster,
            verifier,
        })
    }

    /// Certifies the user and the groups that a request names, for as long as it is registered and
    /// `lifetime` at most. Whether they may be certified is the caller's to know.
    pub fn issue(
        &self,
        request: &ClientRequest,
        registration: &Registration,
        now: SystemTime,
        lifetime: Duration,
    ) -> Result<IssuedClientCertificate, IssueError> {
        let ca = &self.cluster;
        let (now, not_after) = validity(ca, now, lifetime)?;
        let Registration { name, uid } = registration;
        let serial = random_serial();
        let contents = Contents {
            serial: serial.as_ref(),
            issuer: &self.name,
            user: request.user(),
            groups: request.groups(),
            not_before: now - BACKDATE,
            not_after,
            public_key: request.public_key(),
            uri: &format!("hive://{}{REQUESTS}{name}/{uid}", ca.cluster()),
        };
        let der = der::certificate(&contents, &self.key).map_err(IssueError::Sign)?;
        let der = CertificateDer::from(der);
        Ok(IssuedClientCertificate {
            pem: certificate_pem(&der),
            not_after,
            fingerprint: fingerprint(&der),
        })
    }

    /// Who the holder of a certificate is. TLS has verified that it holds the key.
    pub fn judge(
        &self,
        chain: &[CertificateDer<'_>],
        now: SystemTime,
    ) -> Result<ClientCertificate, ClientCertificateError> {
        let (end_entity, intermediates) = chain
            .split_first()
            .ok_or(ClientCertificateError::Malformed)?;
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        self.verifier
            .verify_client_cert(end_entity, intermediates, UnixTime::since_unix_epoch(since))
            .map_err(|error| match error {
                rustls::Error::InvalidCertificate(
                    CertificateError::Expired | CertificateError::ExpiredContext { .. },
                ) => ClientCertificateError::Expired,
                error => ClientCertificateError::Foreign(error),
            })?;
        self.read(end_entity)
            .ok_or(ClientCertificateError::Malformed)
    }

    /// What a certificate of this CA says.
    fn read(&self, certificate: &CertificateDer<'_>) -> Option<ClientCertificate> {
        let x509 = parse(certificate).ok()?;
        let uris = uri_names(&x509).ok()?;
        let [uri] = uris[..] else { return None };
        let (name, uid) = uri
            .strip_prefix("hive://")?
            .strip_prefix(self.cluster.cluster())?
            .strip_prefix(REQUESTS)?
            .split_once('/')?;
        let users = texts(x509.subject().iter_common_name()).ok()?;
        let [user] = <[String; 1]>::try_from(users).ok()?;
        Some(ClientCertificate {
            user,
            groups: texts(x509.subject().iter_organization()).ok()?,
            registration: Registration {
                name: name.to_owned(),
                uid: uid.to_owned(),
            },
            not_after: system_time(x509.validity().not_after.timestamp()).ok()?,
            fingerprint: fingerprint(certificate),
        })
    }

    pub(crate) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.clone()
    }
}

impl fmt::Debug for ClientAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientAuthority")
            .field(&self.cluster)
            .finish()
    }
}

/// When a certificate in PEM ends; `None` when it is none.
pub fn client_certificate_end(pem: &[u8]) -> Option<SystemTime> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    let x509 = parse(&certificate).ok()?;
    system_time(x509.validity().not_after.timestamp()).ok()
}

/// SHA-256 in hex of a certificate in PEM, as [`ClientCertificate::fingerprint`]; `None` when it is none.
pub fn client_certificate_fingerprint(pem: &[u8]) -> Option<String> {
    let certificate = CertificateDer::from_pem_slice(pem).ok()?;
    Some(fingerprint(&certificate))
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, certificate))
}
