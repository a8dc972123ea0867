//! Which certificates vouch for issuers.

use std::path::Path;

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::OidcError;
use crate::client_tls;

/// Those of a file; the system's where none is named.
pub fn named_roots(ca_file: Option<&Path>) -> Result<RootCertStore, OidcError> {
    match ca_file {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            add(&mut roots, path)?;
            Ok(roots)
        }
        None => Ok(client_tls::system_roots()),
    }
}

/// The system's, and those of a file: for issuers of all kinds.
pub fn system_and_named_roots(ca_file: Option<&Path>) -> Result<RootCertStore, OidcError> {
    let mut roots = client_tls::system_roots();
    if let Some(path) = ca_file {
        add(&mut roots, path)?;
    }
    Ok(roots)
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), OidcError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| OidcError::CaFile {
        path: path.to_owned(),
        source,
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.into()))? {
        let certificate = certificate.map_err(|e| failed(e.into()))?;
        roots.add(certificate).map_err(|e| failed(e.into()))?;
    }
    Ok(())
}
