//! TLS towards servers that are none of the swarm's: issuers of tokens, registries, collectors.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// What this machine trusts; empty where it has no certificates installed.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

pub fn config(roots: RootCertStore) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring's provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth()
}
