//! The issuer's public keys: found through its configuration, fetched again when a token names one
//! that is not known, and now and then, since a key that was withdrawn must not be good for ever. An issuer that is slow
//! to say them holds up nobody whose key was good a while ago.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use rustls::RootCertStore;
use serde::Deserialize;
use tokio::sync::OwnedMutexGuard;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use url::Url;

use super::fetch::{FetchError, Https};
use crate::access::jwt::VerifyingKey;

/// After this keys are fetched anew: a withdrawn one is good no longer, if the issuer can be reached.
const MAX_AGE: Duration = Duration::from_secs(600);

/// So old they may be used while that is under way. Behind it somebody rather waits: an issuer that hangs whenever it
/// is asked would keep a withdrawn key good for ever.
const LONGEST_AGE: Duration = Duration::from_secs(3600);

/// Between two fetches: a flood of tokens with invented keys must not become one at the issuer.
const MIN_PAUSE: Duration = Duration::from_secs(10);

/// Of one issuer; the largest publish a dozen.
const MAX_KEYS: usize = 64;

pub(super) struct IssuerKeys {
    issuer: Url,
    https: Https,
    known: Arc<Mutex<Known>>,
    /// When the issuer last answered, or did not. Held while it is asked.
    asked: Arc<tokio::sync::Mutex<Option<Instant>>>,
}

#[derive(Clone, Default)]
struct Known {
    /// By key id; those without one under "".
    keys: Arc<HashMap<String, Vec<VerifyingKey>>>,
    endpoints: Option<Endpoints>,
    fetched: Option<Instant>,
}

/// Where people sign in at an issuer.
#[derive(Clone, Debug)]
pub struct Endpoints {
    pub authorization: Url,
    pub token: Url,
    /// Clients say their secret in the header Authorization, else in the form.
    pub takes_basic: bool,
}

#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
    #[serde(default)]
    authorization_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Configuration {
    /// `None` of an issuer where nobody can sign in.
    fn endpoints(&self) -> Option<Endpoints> {
        let safe = |url: &Option<String>| {
            let url = Url::parse(url.as_deref()?).ok()?;
            (url.scheme() == "https" && url.fragment().is_none()).then_some(url)
        };
        // What is not said is this (OpenID Connect Discovery, 3).
        let methods = self.token_endpoint_auth_methods_supported.as_ref();
        let takes_basic =
            methods.is_none_or(|methods| methods.iter().any(|it| it == "client_secret_basic"));
        Some(Endpoints {
            authorization: safe(&self.authorization_endpoint)?,
            token: safe(&self.token_endpoint)?,
            takes_basic,
        })
    }
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

/// When what is known may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usable {
    Now,
    /// The issuer is asked again beside that.
    Meanwhile,
    /// Once the issuer was asked again, if it answers.
    Later,
}

impl Known {
    fn usable(&self) -> Usable {
        match self.fetched.map(|at| at.elapsed()) {
            Some(age) if age < MAX_AGE => Usable::Now,
            Some(age) if age < LONGEST_AGE => Usable::Meanwhile,
            _ => Usable::Later,
        }
    }
}

impl IssuerKeys {
    pub fn new(issuer: &Url, roots: RootCertStore) -> Self {
        Self {
            issuer: issuer.clone(),
            https: Https::new(roots),
            known: Arc::default(),
            asked: Arc::default(),
        }
    }

    pub fn https(&self) -> &Https {
        &self.https
    }

    /// The keys that a token with this key id may be signed with; all where it names none.
    pub async fn named(&self, kid: Option<&str>) -> Result<Vec<VerifyingKey>, FetchError> {
        let known = lock(&self.known).clone();
        let found = select(&known.keys, kid);
        if !found.is_empty() {
            match known.usable() {
                Usable::Now => return Ok(found),
                Usable::Meanwhile => {
                    self.renew_meanwhile();
                    return Ok(found);
                }
                Usable::Later => {}
            }
        }
        match self.renew(&known).await {
            Ok(known) => Ok(select(&known.keys, kid)),
            Err(FetchError::TooSoon) if known.fetched.is_some() => Ok(found),
            Err(error) if found.is_empty() => Err(error),
            Err(_) => Ok(found),
        }
    }

    /// Where people sign in there.
    pub async fn endpoints(&self) -> Result<Endpoints, FetchError> {
        let mut known = lock(&self.known).clone();
        match known.usable() {
            Usable::Now => {}
            Usable::Meanwhile => self.renew_meanwhile(),
            Usable::Later => match self.renew(&known).await {
                Ok(renewed) => known = renewed,
                Err(error) if known.fetched.is_none() => return Err(error),
                Err(_) => {}
            },
        }
        known.endpoints.ok_or(FetchError::NoLogin)
    }

    /// What is known once the issuer was asked again: not more often than it can be, and once for all who wait for
    /// it. What was known before goes on to be used where it cannot be asked.
    async fn renew(&self, before: &Known) -> Result<Known, FetchError> {
        let asked = self.asked.clone().lock_owned().await;
        let known = lock(&self.known).clone();
        if known.fetched != before.fetched {
            return Ok(known);
        }
        if is_too_soon(*asked) {
            return Err(FetchError::TooSoon);
        }
        // Only with the program it comes to nothing.
        self.ask(asked).await.unwrap_or(Err(FetchError::TooSoon))
    }

    /// Asks the issuer again, unless somebody does or just did, and waits for nothing.
    fn renew_meanwhile(&self) {
        if let Ok(asked) = self.asked.clone().try_lock_owned()
            && !is_too_soon(*asked)
        {
            drop(self.ask(asked));
        }
    }

    /// It goes on when whoever waits for it leaves, who else could keep the keys from all others.
    fn ask(
        &self,
        mut asked: OwnedMutexGuard<Option<Instant>>,
    ) -> JoinHandle<Result<Known, FetchError>> {
        let (issuer, https, known) = (self.issuer.clone(), self.https.clone(), self.known.clone());
        tokio::spawn(async move {
            let fetched = fetch(&issuer, &https).await.inspect_err(|error| {
                let error: &dyn std::error::Error = error;
                tracing::warn!(error, %issuer, "the OpenID issuer does not say its keys");
            });
            let renewed = fetched.inspect(|fetched| *lock(&known) = fetched.clone());
            // From here on, and not from the question: who waited for an answer that took long asks no second time.
            *asked = Some(Instant::now());
            renewed
        })
    }
}

fn is_too_soon(asked: Option<Instant>) -> bool {
    asked.is_some_and(|at| at.elapsed() < MIN_PAUSE)
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().expect("no holder of the lock panics")
}

async fn fetch(issuer: &Url, https: &Https) -> Result<Known, FetchError> {
    let base = issuer.as_str().trim_end_matches('/');
    let configuration: Configuration = https
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
    let set: KeySet = https.get(&configuration.jwks_uri).await?;
    let mut keys: HashMap<String, Vec<VerifyingKey>> = HashMap::new();
    for jwk in set.keys.into_iter().take(MAX_KEYS) {
        // Keys of other kinds are there for others.
        if let Some(key) = jwk.verifying_key() {
            keys.entry(jwk.kid).or_default().push(key);
        }
    }
    tracing::info!(%issuer, keys = keys.len(), "fetched the OpenID issuer's keys");
    Ok(Known {
        keys: Arc::new(keys),
        endpoints: configuration.endpoints(),
        fetched: Some(Instant::now()),
    })
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
    use futures::FutureExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::access::jwt::Unverified;

    /// It takes connections, and never says a word.
    #[tokio::test(start_paused = true)]
    async fn an_issuer_that_hangs_holds_up_nobody_whose_key_was_good_a_while_ago() {
        let hanging = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = hanging.local_addr().unwrap().port();
        let issuer: Url = format!("https://127.0.0.1:{port}").parse().unwrap();
        let login = Endpoints {
            authorization: issuer.clone(),
            token: issuer.clone(),
            takes_basic: true,
        };
        let key = ("k1".to_owned(), vec![VerifyingKey::Ed25519([0; 32])]);
        for (seconds, kid, answers, asks) in [
            (0, "k1", true, false),
            (599, "k1", true, false),
            (600, "k1", true, true),
            (3599, "k1", true, true),
            (3600, "k1", false, true),
            // It may have come since.
            (0, "k2", false, true),
            (600, "k2", false, true),
        ] {
            let keys = IssuerKeys::new(&issuer, RootCertStore::empty());
            *lock(&keys.known) = Known {
                keys: Arc::new(HashMap::from([key.clone()])),
                endpoints: Some(login.clone()),
                fetched: Some(Instant::now()),
            };
            tokio::time::advance(Duration::from_secs(seconds)).await;
            let what = format!("{kid} after {seconds} s");
            // As often as anybody comes.
            for _ in 0..3 {
                let named = keys.named(Some(kid)).now_or_never();
                assert_eq!(named.is_some(), answers, "{what}");
                assert_eq!(keys.asked.try_lock().is_err(), asks, "{what}");
            }
            let endpoints = keys.endpoints().now_or_never();
            assert_eq!(endpoints.is_some(), seconds < 3600, "{what}");
        }
    }

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
