//! The certificate that an operator gives the API, beside the controller's own: read from two files,
//! and read again when they change.
//!
//! Clients that name a host of that certificate see it; all others, who trust the swarm's CA, see
//! the controller's own. Files that do not fit together change nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use hive_identity::LiveCredentials;
use rustls::client::verify_server_name;
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_util::sync::CancellationToken;

/// A renewed certificate is served after this long at most. Those who renew do so days before it
/// must be.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);

/// Why a pair of files cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServedCertificateError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{}: {reason}: a PEM file is expected, the server's certificate first", path.display())]
    Pem { path: PathBuf, reason: String },
    #[error("{} and {} cannot be served together: {reason}", certificate.display(), key.display())]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        reason: String,
    },
}

/// What the API shows to whom.
#[derive(Debug)]
pub struct ApiCertificates {
    own: LiveCredentials,
    given: Option<Given>,
}

#[derive(Debug)]
struct Given {
    certificate: PathBuf,
    key: PathBuf,
    served: RwLock<Served>,
}

#[derive(Debug)]
struct Served {
    /// Of both files, to see whether they changed.
    read: [Vec<u8>; 2],
    certified: Arc<CertifiedKey>,
}

impl ApiCertificates {
    /// Only the controller's own.
    pub fn own(own: LiveCredentials) -> Self {
        Self { own, given: None }
    }

    pub fn with_files(
        own: LiveCredentials,
        certificate: PathBuf,
        key: PathBuf,
    ) -> Result<Self, ServedCertificateError> {
        let served = load(&certificate, &key)?;
        Ok(Self {
            own,
            given: Some(Given {
                certificate,
                key,
                served: RwLock::new(served),
            }),
        })
    }

    /// Reads the files again when they change, until cancelled. Connections go on as they are.
    pub async fn keep_fresh(self: Arc<Self>, cancel: CancellationToken) {
        let Some(given) = &self.given else { return };
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(CHECK_INTERVAL) => given.look_again(),
            }
        }
    }
}

impl Given {
    fn look_again(&self) {
        let served = match load(&self.certificate, &self.key) {
            Ok(served) => served,
            // Perhaps one of the two is written already and the other is not.
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the API goes on with the certificate it has");
                return;
            }
        };
        let mut current = self
            .served
            .write()
            .expect("nothing panics while it holds this lock");
        if current.read != served.read {
            *current = served;
            tracing::info!(certificate = %self.certificate.display(), "the API serves a new certificate");
        }
    }

    /// The certificate if it is one for this host.
    fn for_name(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let served = self
            .served
            .read()
            .expect("nothing panics while it holds this lock");
        let name = ServerName::try_from(name).ok()?;
        let parsed = ParsedCertificate::try_from(served.certified.end_entity_cert().ok()?).ok()?;
        verify_server_name(&parsed, &name).ok()?;
        Some(served.certified.clone())
    }
}

impl ResolvesServerCert for ApiCertificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let given = self.given.as_ref().zip(hello.server_name());
        given
            .and_then(|(given, name)| given.for_name(name))
            .or_else(|| self.own.resolve(hello))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<Served, ServedCertificateError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| ServedCertificateError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let malformed = |path: &Path, reason: String| ServedCertificateError::Pem {
        path: path.to_owned(),
        reason,
    };
    let (certificate_pem, key_pem) = (read(certificate)?, read(key)?);
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&certificate_pem)
        .collect::<Result<_, _>>()
        .map_err(|error| malformed(certificate, error.to_string()))?;
    if chain.is_empty() {
        return Err(malformed(certificate, "it holds no certificate".into()));
    }
    let private = PrivateKeyDer::from_pem_slice(&key_pem)
        .map_err(|error| malformed(key, error.to_string()))?;
    let provider = rustls::crypto::ring::default_provider();
    let certified = CertifiedKey::from_der(chain, private, &provider).map_err(|error| {
        ServedCertificateError::Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
            reason: error.to_string(),
        }
    })?;
    Ok(Served {
        read: [certificate_pem, key_pem],
        certified: Arc::new(certified),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_identity::{CertificateAuthority, DeviceKey};
    use rcgen::{CertifiedKey as Generated, generate_simple_self_signed};

    use super::*;
    use crate::own_certificate;
    use crate::state::Member;

    fn own() -> LiveCredentials {
        let authority = CertificateAuthority::create("home").unwrap();
        let member = Member::default();
        let issued = own_certificate::issue(&authority, DeviceKey::generate(), 1, &member);
        LiveCredentials::new(issued.unwrap())
    }

    fn write_pair(folder: &Path, host: &str) -> [Vec<u8>; 2] {
        let Generated { cert, signing_key } =
            generate_simple_self_signed([host.to_owned()]).unwrap();
        let pair = [
            cert.pem().into_bytes(),
            signing_key.serialize_pem().into_bytes(),
        ];
        std::fs::write(folder.join("tls.crt"), &pair[0]).unwrap();
        std::fs::write(folder.join("tls.key"), &pair[1]).unwrap();
        pair
    }

    #[test]
    fn a_given_certificate_is_for_its_hosts_and_follows_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let first = write_pair(dir.path(), "api.example.org");
        let files = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let [certificate, key] = files.clone();
        let served = ApiCertificates::with_files(own(), certificate, key).unwrap();
        let given = served.given.as_ref().unwrap();
        let shown = || {
            given
                .for_name("api.example.org")
                .map(|key| key.cert.clone())
        };
        let before = shown().expect("it is for this host");
        assert!(given.for_name("other.example.org").is_none());

        // One file of the new pair alone is no pair.
        write_pair(dir.path(), "api.example.org");
        std::fs::write(&files[1], &first[1]).unwrap();
        given.look_again();
        assert_eq!(shown().unwrap(), before);

        write_pair(dir.path(), "api.example.org");
        given.look_again();
        assert_ne!(shown().unwrap(), before);
    }

    #[test]
    fn files_that_cannot_be_served_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["tls.crt", "tls.key"].map(|name| dir.path().join(name));
        let refused = || {
            let [certificate, key] = files.clone();
            let error = ApiCertificates::with_files(own(), certificate, key).unwrap_err();
            error.to_string()
        };
        assert!(refused().starts_with("cannot read"), "{}", refused());
        write_pair(dir.path(), "a");
        std::fs::write(&files[0], "not PEM").unwrap();
        assert!(
            refused().contains("tls.crt: it holds no certificate"),
            "{}",
            refused()
        );
        let pair = write_pair(dir.path(), "a");
        write_pair(dir.path(), "a");
        std::fs::write(&files[1], &pair[1]).unwrap();
        assert!(
            refused().contains("cannot be served together"),
            "{}",
            refused()
        );
    }
}
