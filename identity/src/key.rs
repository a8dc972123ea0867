//! The key that a process makes once and keeps for life: its identity.
//! Certificates come and go around it; the private half leaves only as PEM for the owner's own file.
//! Debug output never shows more than the fingerprint.

use std::fmt;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, PublicKeyData};
use ring::hmac;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::{self, PemObject};

use crate::{KeyFingerprint, random};

/// An Ed25519 key pair. A clone shares the pair.
#[derive(Clone)]
pub struct DeviceKey {
    pair: Arc<KeyPair>,
    fingerprint: KeyFingerprint,
}

/// A text that holds no usable key, or a request that couldn't be made with one.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("no PKCS#8 private key in PEM (\"BEGIN PRIVATE KEY\")")]
    Pem(#[source] pem::Error),
    #[error("the private key is not an Ed25519 key")]
    NotEd25519(#[source] rcgen::Error),
    #[error("cannot make a certificate request")]
    Request(#[source] rcgen::Error),
}

impl DeviceKey {
    pub fn generate() -> Self {
        Self::from_pair(generate_pair())
    }

    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Ok(Self::from_pair(pair_from_pem(pem)?))
    }

    /// The private key, PKCS#8 in PEM: for the owner's file and nothing else.
    pub fn to_pem(&self) -> String {
        self.pair.serialize_pem()
    }

    pub fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }

    /// A PKCS#10 request in DER: the public key, and the proof that its private half is here.
    /// Its subject is empty, because the issuer decides that and ignores what a request says.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        let request = params
            .serialize_request(&*self.pair)
            .map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// A secret of its own for one purpose, the same each time, from which the key can't be found:
    /// for what must outlive a restart and needs no file.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derive(&self.pair, purpose)
    }

    pub(crate) fn pkcs8(&self) -> PrivatePkcs8KeyDer<'_> {
        PrivatePkcs8KeyDer::from(self.pair.serialized_der())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    fn from_pair(pair: KeyPair) -> Self {
        let fingerprint = KeyFingerprint::of_public_key(&pair.subject_public_key_info());
        Self {
            pair: Arc::new(pair),
            fingerprint,
        }
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeviceKey").field(&self.fingerprint).finish()
    }
}

/// A secret for one purpose that follows from a key, and from which the key can't be found.
pub(crate) fn derive(pair: &KeyPair, purpose: &str) -> [u8; 32] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, pair.serialized_der());
    let tag = hmac::sign(&key, purpose.as_bytes());
    tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
}

/// The head of every Ed25519 private key in PKCS#8 (RFC 8410, section 7); the 32 bytes follow.
const PKCS8_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";

/// Not rcgen's own generation: ring then writes PKCS#8 of version 2, which OpenSSL can't read, and
/// the owner of a key should be able to look at it.
pub(crate) fn generate_pair() -> KeyPair {
    pair_from_seed(&random::bytes::<32>())
}

/// The pair whose private half these bytes are.
pub(crate) fn pair_from_seed(seed: &[u8; 32]) -> KeyPair {
    let der = [&PKCS8_HEAD[..], seed].concat();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
        .expect("any 32 bytes are an Ed25519 private key")
}

pub(crate) fn pair_from_pem(pem: &str) -> Result<KeyPair, KeyError> {
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(KeyError::Pem)?;
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519).map_err(KeyError::NotEd25519)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_key_read_back_from_pem_is_the_same_identity() {
        let key = DeviceKey::generate();
        let again = DeviceKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.fingerprint(), again.fingerprint());
        assert_ne!(key.fingerprint(), DeviceKey::generate().fingerprint());
    }

    #[test]
    fn writes_the_form_that_other_tools_read() {
        let pem = DeviceKey::generate().to_pem();
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
        assert_eq!(der.secret_pkcs8_der().len(), 48);
        assert!(der.secret_pkcs8_der().starts_with(&PKCS8_HEAD));
    }

    /// The example key of RFC 8410, section 10.3 and 10.1: PKCS#8 as other tools write it, and the
    /// fingerprint that `openssl pkey -pubin -outform DER | sha256sum` gives for its public half.
    #[test]
    fn reads_what_other_tools_write() {
        let pem = "-----BEGIN PRIVATE KEY-----\n\
            MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
            -----END PRIVATE KEY-----\n";
        let public = "302a300506032b657003210019bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1";
        assert_eq!(
            DeviceKey::from_pem(pem).unwrap().fingerprint(),
            KeyFingerprint::of_public_key(&hex::decode(public).unwrap())
        );
    }

    #[test]
    fn refuses_other_kinds_of_key_and_text() {
        let ecdsa = KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(
            DeviceKey::from_pem(&ecdsa),
            Err(KeyError::NotEd25519(_))
        ));
        assert!(matches!(
            DeviceKey::from_pem("hello"),
            Err(KeyError::Pem(_))
        ));
    }

    #[test]
    fn debug_shows_only_the_fingerprint() {
        let key = DeviceKey::generate();
        assert_eq!(
            format!("{key:?}"),
            format!("DeviceKey(KeyFingerprint({}))", key.fingerprint())
        );
    }

    #[test]
    fn what_is_derived_is_the_same_each_time_and_for_nothing_else() {
        let key = DeviceKey::generate();
        let again = DeviceKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(key.derive("one"), again.derive("one"));
        assert_ne!(key.derive("one"), key.derive("two"));
        assert_ne!(key.derive("one"), DeviceKey::generate().derive("one"));
    }
}
