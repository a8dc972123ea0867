//! What a member shows to others: its key, its newest certificate, the CA that vouches for it.
//! Renewal swaps them in `LiveCredentials`; handshakes that begin later show the new ones, and
//! connections that exist go on. Key, certificate and CA that don't belong together never get in.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::ResolvesClientCert;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureScheme, sign};
use rustls_pki_types::CertificateDer;

use crate::subject::{parse, system_time};
use crate::{CaCertificate, CaFingerprint, DeviceKey, KeyFingerprint, Peer, PeerError};

/// A key with a certificate for it and the CA that issued it.
#[derive(Clone)]
pub struct Credentials {
    key: DeviceKey,
    certificate: CertificateDer<'static>,
    ca: CaCertificate,
    own: Peer,
    lifetime: Duration,
    certified: Arc<sign::CertifiedKey>,
}

/// Parts that don't belong together.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("the member's certificate cannot be used")]
    Certificate(#[from] PeerError),
    #[error("the certificate is for key {certified}, and this device's key is {own}")]
    OtherKey {
        certified: KeyFingerprint,
        own: KeyFingerprint,
    },
    #[error("the certificate was not issued by the cluster's CA {ca}")]
    OtherCa { ca: CaFingerprint },
    #[error("the key cannot sign for TLS")]
    Key(#[source] rustls::Error),
}

impl Credentials {
    /// Checks that the certificate is for this key and from this CA. Not whether it has expired:
    /// an expired one still says who a member was, and its clock may be what is wrong.
    pub fn new(
        key: DeviceKey,
        certificate: CertificateDer<'static>,
        ca: CaCertificate,
    ) -> Result<Self, CredentialsError> {
        let own = Peer::from_certificate(&certificate)?;
        if own.key != key.fingerprint() {
            return Err(CredentialsError::OtherKey {
                certified: own.key,
                own: key.fingerprint(),
            });
        }
        let x509 = parse(&certificate)?;
        let from_ca = ca.verify_bytes(x509.tbs_certificate.as_ref(), &x509.signature_value.data);
        if from_ca.is_err() || own.cluster != ca.cluster() {
            return Err(CredentialsError::OtherCa {
                ca: ca.fingerprint(),
            });
        }
        let not_before = system_time(x509.validity().not_before.timestamp())?;
        let lifetime = own.not_after.duration_since(not_before).unwrap_or_default();

        let signing_key = any_eddsa_type(&key.pkcs8()).map_err(CredentialsError::Key)?;
        // The CA goes along: who enrols holds only its fingerprint.
        let chain = vec![certificate.clone(), ca.der().clone()];
        Ok(Self {
            certified: Arc::new(CertifiedKey::new(chain, signing_key)),
            key,
            certificate,
            ca,
            own,
            lifetime,
        })
    }

    /// The same key and CA with a newer certificate.
    pub fn renewed(&self, certificate: CertificateDer<'static>) -> Result<Self, CredentialsError> {
        Self::new(self.key.clone(), certificate, self.ca.clone())
    }

    pub fn key(&self) -> &DeviceKey {
        &self.key
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub fn ca(&self) -> &CaCertificate {
        &self.ca
    }

    /// Who these credentials make their owner, as others see it.
    pub fn own(&self) -> &Peer {
        &self.own
    }

    pub fn not_after(&self) -> SystemTime {
        self.own.not_after
    }

    /// When to ask for the next certificate: at two thirds of this one's life, which leaves eight
    /// hours of a day to ride out an outage.
    pub fn renew_at(&self) -> SystemTime {
        self.own.not_after - self.lifetime / 3
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("own", &self.own)
            .field("ca", &self.ca)
            .finish_non_exhaustive()
    }
}

/// The credentials of a running process. A clone is the same cell: replaced in one, replaced in all.
#[derive(Clone)]
pub struct LiveCredentials(Arc<RwLock<Arc<Credentials>>>);

/// Credentials of another cluster, refused: the TLS configurations made from the old ones go on
/// trusting the old CA. A process that changes its cluster starts afresh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the new credentials are from CA {new}, this process trusts CA {current}")]
pub struct DifferentCa {
    pub current: CaFingerprint,
    pub new: CaFingerprint,
}

impl LiveCredentials {
    pub fn new(credentials: Credentials) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(credentials))))
    }

    pub fn current(&self) -> Arc<Credentials> {
        // A poisoned lock holds a whole value all the same: it is only ever swapped.
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// What handshakes from now on show. Connections that exist are untouched.
    pub fn replace(&self, credentials: Credentials) -> Result<(), DifferentCa> {
        let mut cell = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if cell.ca != credentials.ca {
            return Err(DifferentCa {
                current: cell.ca.fingerprint(),
                new: credentials.ca.fingerprint(),
            });
        }
        *cell = Arc::new(credentials);
        Ok(())
    }
}

impl fmt::Debug for LiveCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveCredentials")
            .field(&self.current())
            .finish()
    }
}

impl ResolvesServerCert for LiveCredentials {
    /// The same for every name: a controller has one certificate, with all its names.
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().certified.clone())
    }
}

impl ResolvesClientCert for LiveCredentials {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        schemes
            .contains(&SignatureScheme::ED25519)
            .then(|| self.current().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
