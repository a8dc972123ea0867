//! The issuer's public keys: found through its configuration, fetched again when a token names one
//! that is not known, and now and then, since a key that was withdrawn must not be good for ever.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use url::Url;

use super::OidcError;
use crate::access::jwt::VerifyingKey;
use crate::client_tls;

/// After this a withdrawn key is good no longer, if the issuer can be reached.
const MAX_AGE: Duration = Duration::from_secs(600);

/// Between two fetches: a flood of tokens with invented keys must not become one at the issuer.
const MIN_PAUSE: Duration = Duration::from_secs(10);

const TIMEOUT: Duration = Duration::from_secs(10);

/// A configuration is some KB, a set of keys too.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// Of one issuer; the largest publish a dozen.
const MAX_KEYS: usize = 64;

/// Why the issuer's keys could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{url} cannot be reached")]
    Unreachable {
        url: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{url} answered with status {status}")]
    Status { url: String, status: u16 },
    #[error("{url} did not answer in time")]
    TimedOut { url: String },
    #[error("the answer of {url} cannot be read")]
    Malformed {
        url: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("the configuration is that of issuer {found}, not of {expected}")]
    OtherIssuer { found: String, expected: String },
    #[error("the configuration names keys at {0}, which is no https URL")]
    Insecure(String),
    #[error("it was tried a moment ago")]
    TooSoon,
}

pub(super) struct IssuerKeys {
    issuer: Url,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// By key id; those without one under "".
    keys: Arc<HashMap<String, Vec<VerifyingKey>>>,
    fetched: Option<Instant>,
    tried: Option<Instant>,
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Jwk>,
}

/// RFC 7517; members that matter for the three algorithms that are verified.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    kid: String,
    #[serde(default, rename = "use")]
    usage: Option<String>,
    #[serde(default)]
    crv: Option<String>,
    #[serde(default)]
    n: Option<String>,
    #[serde(default)]
    e: Option<String>,
    #[serde(default)]
    x: Option<String>,
    #[serde(default)]
    y: Option<String>,
}

impl IssuerKeys {
    pub fn new(issuer: &Url, ca_file: Option<&Path>) -> Result<Self, OidcError> {
        let roots = match ca_file {
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let failed = |source: Box<dyn std::error::Error + Send + Sync>| OidcError::CaFile {
                    path: path.to_owned(),
                    source,
                };
                let certificates =
                    CertificateDer::pem_file_iter(path).map_err(|e| failed(e.into()))?;
                for certificate in certificates {
                    let certificate = certificate.map_err(|e| failed(e.into()))?;
                    roots.add(certificate).map_err(|e| failed(e.into()))?;
                }
                roots
            }
            None => client_tls::system_roots(),
        };
        if roots.is_empty() {
            return Err(OidcError::NoRoots);
        }
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls::config(roots))
            .https_only()
            .enable_http1()
            .build();
        Ok(Self {
            issuer: issuer.clone(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            known: Mutex::default(),
        })
    }

    /// The keys that a token with this key id may be signed with; all where it names none.
    pub async fn named(&self, kid: Option<&str>) -> Result<Vec<VerifyingKey>, FetchError> {
        // Held while keys are fetched: all who wait for the same keys ask once.
        let mut known = self.known.lock().await;
        let is_fresh = known.fetched.is_some_and(|at| at.elapsed() < MAX_AGE);
        let found = select(&known.keys, kid);
        if is_fresh && !found.is_empty() {
            return Ok(found);
        }
        let may_fetch = known.tried.is_none_or(|at| at.elapsed() >= MIN_PAUSE);
        if !may_fetch {
            return match known.fetched {
                Some(_) => Ok(found),
                None => Err(FetchError::TooSoon),
            };
        }
        known.tried = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                known.keys = Arc::new(keys);
                known.fetched = Some(Instant::now());
                Ok(select(&known.keys, kid))
            }
            Err(error) if found.is_empty() => Err(error),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, issuer = %self.issuer, "known keys of the OpenID issuer go on to be used");
                Ok(found)
            }
        }
    }

    async fn fetch(&self) -> Result<HashMap<String, Vec<VerifyingKey>>, FetchError> {
        let base = self.issuer.as_str().trim_end_matches('/');
        let configuration: Configuration = self
            .get(&format!("{base}/.well-known/openid-configuration"))
            .await?;
        if configuration.issuer.trim_end_matches('/') != base {
            return Err(FetchError::OtherIssuer {
                found: configuration.issuer,
                expected: base.to_owned(),
            });
        }
        if !configuration.jwks_uri.starts_with("https://") {
            return Err(FetchError::Insecure(configuration.jwks_uri));
        }
        let set: KeySet = self.get(&configuration.jwks_uri).await?;
        let mut keys: HashMap<String, Vec<VerifyingKey>> = HashMap::new();
        for jwk in set.keys.into_iter().take(MAX_KEYS) {
            // Keys of other kinds are there for others.
            if let Some(key) = jwk.verifying_key() {
                keys.entry(jwk.kid).or_default().push(key);
            }
        }
        tracing::info!(issuer = %self.issuer, keys = keys.len(), "fetched the OpenID issuer's keys");
        Ok(keys)
    }

    async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Unreachable {
                url: url.to_owned(),
                source,
            };
        let uri = url
            .parse()
            .map_err(|error: http::uri::InvalidUri| unreachable(error.into()))?;
        let ask = async {
            let response = self
                .client
                .get(uri)
                .await
                .map_err(|e| unreachable(e.into()))?;
            if !response.status().is_success() {
                return Err(FetchError::Status {
                    url: url.to_owned(),
                    status: response.status().as_u16(),
                });
            }
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            Ok(body.collect().await.map_err(unreachable)?.to_bytes())
        };
        let body =
            tokio::time::timeout(TIMEOUT, ask)
                .await
                .map_err(|_| FetchError::TimedOut {
                    url: url.to_owned(),
                })??;
        serde_json::from_slice(&body).map_err(|source| FetchError::Malformed {
            url: url.to_owned(),
            source,
        })
    }
}

fn select(keys: &HashMap<String, Vec<VerifyingKey>>, kid: Option<&str>) -> Vec<VerifyingKey> {
    match kid {
        Some(kid) => keys.get(kid).cloned().unwrap_or_default(),
        None => keys.values().flatten().cloned().collect(),
    }
}

impl Jwk {
    fn verifying_key(&self) -> Option<VerifyingKey> {
        if self.usage.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let number = |member: &Option<String>| BASE64.decode(member.as_deref()?).ok();
        match (self.kty.as_str(), self.crv.as_deref()) {
            ("RSA", _) => Some(VerifyingKey::Rsa {
                modulus: number(&self.n)?,
                exponent: number(&self.e)?,
            }),
            ("EC", Some("P-256")) => Some(VerifyingKey::P256 {
                x: number(&self.x)?,
                y: number(&self.y)?,
            }),
            ("OKP", Some("Ed25519")) => {
                Some(VerifyingKey::Ed25519(number(&self.x)?.try_into().ok()?))
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::access::jwt::Unverified;

    /// Keys of any shape, and a token that each of them may be asked about.
    #[test]
    fn fuzzed_key_sets_are_read_or_refused() {
        let token = |algorithm: &str| {
            let part = |text: &str| BASE64.encode(text);
            let header = format!(r#"{{"alg":"{algorithm}"}}"#);
            format!("{}.{}.{}", part(&header), part("{}"), part("signature"))
        };
        let tokens = ["EdDSA", "RS256", "ES256"].map(token);
        hive_fuzz::Target::new("jwks", |input: &[u8]| {
            let set: KeySet = serde_json::from_slice(input).map_err(|error| error.to_string())?;
            let keys: Vec<_> = set.keys.iter().filter_map(Jwk::verifying_key).collect();
            for (key, token) in keys.iter().zip(tokens.iter().cycle()) {
                let token = Unverified::parse(token).unwrap();
                assert!(token.verify::<serde_json::Value>(key).is_err());
            }
            for key in &keys {
                let token = Unverified::parse(&tokens[1]).unwrap();
                assert!(token.verify::<serde_json::Value>(key).is_err());
            }
            match keys.is_empty() {
                true => Err("no key that is understood".to_owned()),
                false => Ok(()),
            }
        })
        .seeds([
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
            r#"{"keys":[{"kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"}]}"#,
            r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
        ])
        .words(["\"kty\":", "\"RSA\"", "\"EC\"", "\"OKP\"", "\"use\":\"enc\"", "\"e\":\"AA\"", "null", "\"\""])
        .at_most(4 * 1024)
        .hold();
    }
}
