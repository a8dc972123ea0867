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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tunnels::certificates::tests::Authority;

    fn issuers() -> Issuers {
        let mut roots = RootCertStore::empty();
        roots.add(Authority::create().der()).unwrap();
        Issuers::new(roots)
    }

    #[test]
    fn what_knows_tokens_for_one_client_knows_none_for_another() {
        let issuers = issuers();
        let of = |issuer: &str, client: &str| issuers.of(issuer, client).unwrap();
        let own = of("https://login.example", "photos");
        assert!(Arc::ptr_eq(&own, &of("https://login.example", "photos")));
        assert!(!Arc::ptr_eq(&own, &of("https://login.example", "wiki")));
        assert!(!Arc::ptr_eq(&own, &of("https://other.example", "photos")));
    }

    #[test]
    fn many_issuers_take_bounded_room() {
        let issuers = issuers();
        for number in 0..=MAX_ISSUERS {
            let issuer = format!("https://{number}.example");
            issuers.of(&issuer, "photos").unwrap();
        }
        assert_eq!(issuers.known.lock().unwrap().len(), MAX_ISSUERS);
    }
}
