//! Tokens of one issuer for one client: whether they are good, and what they claim. Knows no users.

use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;
use url::Url;

use super::keys::{Endpoints, IssuerKeys};
use super::{FetchError, OidcError, Refused};
use crate::access::jwt::Unverified;

/// How far the issuer's clock and this one's may be apart.
const SKEW: Duration = Duration::from_secs(10);

/// Codes that are redeemed at the same time, each on a connection to the issuer: whoever began a login may bring any,
/// and as many as they like.
const REDEEMED_AT_ONCE: usize = 16;

pub struct Verifier {
    issuer: Url,
    /// Tokens must be made for this client.
    audience: String,
    keys: IssuerKeys,
    redeeming: Semaphore,
}

/// What a code is redeemed with besides the client's name.
pub struct Redemption<'a> {
    pub code: &'a str,
    pub redirect_uri: &'a str,
    /// The secret half of what the code is bound to.
    pub verifier: &'a str,
    /// The client's; `None` of one that has none.
    pub secret: Option<&'a str>,
}

#[derive(Deserialize)]
struct Redeemed {
    id_token: String,
}

impl Verifier {
    /// `roots` vouch for the issuer.
    pub fn new(issuer: Url, audience: String, roots: RootCertStore) -> Result<Self, OidcError> {
        if issuer.scheme() != "https" || issuer.query().is_some() || issuer.fragment().is_some() {
            return Err(OidcError::Issuer(issuer));
        }
        if roots.is_empty() {
            return Err(OidcError::NoRoots);
        }
        let keys = IssuerKeys::new(&issuer, roots);
        Ok(Self {
            issuer,
            audience,
            keys,
            redeeming: Semaphore::new(REDEEMED_AT_ONCE),
        })
    }

    /// Whether a claim names this issuer, by the URL as it was given: one with or without a slash at its end is
    /// another.
    pub fn is_issuer(&self, claim: &Value) -> bool {
        let issuer = self.issuer.as_str();
        claim.as_str().is_some_and(|iss| {
            iss == issuer || self.issuer.path() == "/" && iss == issuer.trim_end_matches('/')
        })
    }

    /// What a token claims that is signed by the issuer; nothing else is looked at.
    pub async fn signed(&self, token: &str) -> Result<Map<String, Value>, Refused> {
        let token = Unverified::parse(token)?;
        let candidates = self.keys.named(token.header.kid.as_deref()).await?;
        let mut verdict = Err(Refused::UnknownKey);
        for key in candidates {
            match token.verify::<Map<String, Value>>(&key) {
                Ok(claims) => return Ok(claims),
                Err(error) => verdict = Err(error.into()),
            }
        }
        verdict
    }

    /// What a token claims that is the issuer's, for this client, and good now.
    pub async fn claims(
        &self,
        token: &str,
        now: SystemTime,
    ) -> Result<Map<String, Value>, Refused> {
        let claims = self.signed(token).await?;
        if !claims.get("iss").is_some_and(|iss| self.is_issuer(iss)) {
            return Err(wrong("iss", "is another issuer's"));
        }
        current(&claims, &self.audience, now)?;
        Ok(claims)
    }

    /// Where people sign in, and codes are redeemed.
    pub async fn endpoints(&self) -> Result<Endpoints, FetchError> {
        self.keys.endpoints().await
    }

    /// The ID token for a code that a browser brought; not yet believed.
    pub async fn redeem(&self, with: Redemption<'_>) -> Result<String, FetchError> {
        let place = self.redeeming.try_acquire();
        let _place = place.map_err(|_| FetchError::Busy)?;
        let endpoints = self.endpoints().await?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", with.code),
            ("redirect_uri", with.redirect_uri),
            ("code_verifier", with.verifier),
        ];
        let mut in_header = None;
        match with.secret {
            Some(secret) if endpoints.takes_basic => in_header = Some((&*self.audience, secret)),
            Some(secret) => {
                form.extend([("client_id", &*self.audience), ("client_secret", secret)]);
            }
            None => form.push(("client_id", &*self.audience)),
        }
        let url = endpoints.token.as_str();
        let redeemed: Redeemed = self.keys.https().post(url, &form, in_header).await?;
        Ok(redeemed.id_token)
    }
}

fn wrong(claim: &str, what: &'static str) -> Refused {
    Refused::Claim {
        claim: claim.to_owned(),
        what,
    }
}

/// Whether verified claims are for a client, and of now; until when they are. Pure.
pub(super) fn current(
    claims: &Map<String, Value>,
    audience: &str,
    now: SystemTime,
) -> Result<SystemTime, Refused> {
    let time = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => value
            .as_f64()
            .filter(|seconds| (0.0..1e12).contains(seconds))
            .map(|seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)))
            .ok_or_else(|| wrong(claim, "is no time")),
    };
    let is_for_us = match claims.get("aud") {
        Some(Value::String(one)) => one == audience,
        Some(Value::Array(list)) => list.iter().any(|one| one == audience),
        _ => false,
    };
    if !is_for_us {
        return Err(Refused::Audience(audience.to_owned()));
    }
    let expiry = time("exp")?.ok_or_else(|| wrong("exp", "is missing"))?;
    if expiry <= now {
        return Err(Refused::Expired);
    }
    for claim in ["nbf", "iat"] {
        if time(claim)?.is_some_and(|from| from > now + SKEW) {
            return Err(Refused::Early);
        }
    }
    Ok(expiry)
}
