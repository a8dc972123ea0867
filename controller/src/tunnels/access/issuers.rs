//! The OpenID issuers that tunnels name: what was fetched of one is good for all tunnels that name it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rustls::RootCertStore;
use url::Url;

use crate::access::oidc::{OidcError, Verifier};

/// Issuers, each with a client; of a swarm that has more some are fetched anew.
const MAX_ISSUERS: usize = 256;

/// By issuer and client.
type Known = BTreeMap<(String, String), Arc<Verifier>>;

/// A clone is the same.
#[derive(Clone)]
pub struct Issuers {
    roots: Arc<RootCertStore>,
    known: Arc<Mutex<Known>>,
}

/// Nothing vouches for any of them.
impl Default for Issuers {
    fn default() -> Self {
        Self::new(RootCertStore::empty())
    }
}

impl Issuers {
    /// `roots` vouch for them.
    pub fn new(roots: RootCertStore) -> Self {
        Self {
            roots: Arc::new(roots),
            known: Arc::default(),
        }
    }

    /// Knows tokens of an issuer that are made for a client.
    pub fn of(&self, issuer: &str, client: &str) -> Result<Arc<Verifier>, OidcError> {
        let mut known = self.known.lock().expect("no holder of the lock panics");
        let key = (issuer.to_owned(), client.to_owned());
        if let Some(verifier) = known.get(&key) {
            return Ok(verifier.clone());
        }
        let url: Url = issuer.parse().map_err(|_| OidcError::NoUrl)?;
        let roots = RootCertStore::clone(&self.roots);
        let verifier = Arc::new(Verifier::new(url, client.to_owned(), roots)?);
        if known.len() >= MAX_ISSUERS {
            known.pop_first();
        }
        known.insert(key, verifier.clone());
        Ok(verifier)
    }
}
