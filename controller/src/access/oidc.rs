//! People who sign in elsewhere: ID tokens of one OpenID Connect issuer, as Kubernetes takes them.
//!
//! A token's claims become a user's name and groups, after signature, issuer, audience and times
//! were checked. What rights that gives is for the bindings to say. The issuer's keys are fetched when
//! they are needed; while it cannot be reached, the keys that are known go on to be good.

mod fetch;
mod keys;
mod roots;
#[cfg(test)]
pub mod test_issuer;
mod verifier;

use std::path::PathBuf;
use std::time::SystemTime;

use serde_json::{Map, Value};
use url::Url;

use super::jwt::{JwtError, Unverified};
use super::user::{AUTHENTICATED, UserInfo};
pub use fetch::FetchError;
pub use keys::Endpoints;
pub use roots::{named_roots, system_and_named_roots};
use verifier::current;
pub use verifier::{Redemption, Verifier};

/// Names and groups that begin so mean something here; no issuer may give them out.
const RESERVED: [&str; 2] = ["system:", "hive:"];

/// More groups than anyone is in; each costs a look at every request.
const MAX_GROUPS: usize = 256;

/// Which issuer is trusted, and what its tokens' claims mean.
#[derive(Clone, Debug)]
pub struct OidcOptions {
    pub issuer: Url,
    /// Tokens must be made for this client.
    pub client_id: String,
    pub username_claim: String,
    /// In front of every name; `None` = the issuer's URL and `#`, unless the claim is `email`.
    pub username_prefix: Option<String>,
    pub groups_claim: Option<String>,
    pub groups_prefix: String,
    /// Claims that a token must have with just these texts.
    pub required_claims: Vec<(String, String)>,
    /// Certificates in PEM that vouch for the issuer; the system's when `None`.
    pub ca_file: Option<PathBuf>,
}

/// Knows tokens of one issuer.
pub struct Oidc {
    options: OidcOptions,
    verifier: Verifier,
}

/// Whoever signed in.
#[derive(Debug, PartialEq, Eq)]
pub struct SignedIn {
    pub user: UserInfo,
    pub expiry: SystemTime,
}

/// Why the issuer cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    #[error("--oidc-issuer-url {0}: an https URL without query and fragment is needed")]
    Issuer(Url),
    #[error("the issuer is no URL")]
    NoUrl,
    #[error("--oidc-ca-file {}", path.display())]
    CaFile {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error(
        "the system has no certificates to verify the issuer with: name some with --oidc-ca-file"
    )]
    NoRoots,
}

/// Why a token opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Token(#[from] JwtError),
    #[error("the issuer's keys cannot be fetched")]
    Keys(#[from] FetchError),
    #[error("the issuer has no such key")]
    UnknownKey,
    #[error("the token is not for client {0:?}")]
    Audience(String),
    #[error("the token has expired: sign in again")]
    Expired,
    #[error("the token is not good yet: is a clock wrong?")]
    Early,
    #[error("the token's claim {claim:?} {what}")]
    Claim { claim: String, what: &'static str },
}

impl Oidc {
    pub fn new(options: OidcOptions) -> Result<Self, OidcError> {
        let roots = named_roots(options.ca_file.as_deref())?;
        let (issuer, client) = (options.issuer.clone(), options.client_id.clone());
        let verifier = Verifier::new(issuer, client, roots)?;
        Ok(Self { options, verifier })
    }

    /// Whether a token says that it is this issuer's; not yet believed.
    pub fn issued(&self, token: &Unverified<'_>) -> bool {
        token
            .unverified_claims::<Map<String, Value>>()
            .is_ok_and(|claims| {
                let iss = claims.get("iss");
                iss.is_some_and(|iss| self.verifier.is_issuer(iss))
            })
    }

    /// Who the bearer of a token is.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<SignedIn, Refused> {
        let claims = self.verifier.signed(token).await?;
        self.options.read(&claims, now)
    }
}

impl OidcOptions {
    /// What verified claims say. Pure.
    fn read(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<SignedIn, Refused> {
        let wrong = |claim: &str, what| Refused::Claim {
            claim: claim.to_owned(),
            what,
        };
        let expiry = current(claims, &self.client_id, now)?;
        for (claim, wanted) in &self.required_claims {
            if claims.get(claim).and_then(Value::as_str) != Some(wanted) {
                return Err(wrong(claim, "is not what this swarm requires"));
            }
        }
        let name = self.name(claims)?;
        let mut groups = self.groups(claims)?;
        groups.push(AUTHENTICATED.into());
        Ok(SignedIn {
            user: UserInfo {
                name,
                groups,
                ..UserInfo::default()
            },
            expiry,
        })
    }

    fn name(&self, claims: &Map<String, Value>) -> Result<String, Refused> {
        let claim = self.username_claim.as_str();
        let wrong = |what| Refused::Claim {
            claim: claim.to_owned(),
            what,
        };
        let text = claims
            .get(claim)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .ok_or_else(|| wrong("is missing or is no text"))?;
        // Whoever may type in an address is not who reads mail there.
        let is_unverified = |verified: &Value| *verified != Value::Bool(true);
        if claim == "email" && claims.get("email_verified").is_some_and(is_unverified) {
            return Err(wrong("is not verified by the issuer"));
        }
        let name = match (&self.username_prefix, claim) {
            (Some(prefix), _) => format!("{prefix}{text}"),
            (None, "email") => text.to_owned(),
            (None, _) => format!("{}#{text}", self.issuer),
        };
        match is_reserved(&name) {
            true => Err(wrong("gives a name that is the swarm's own")),
            false => Ok(name),
        }
    }

    fn groups(&self, claims: &Map<String, Value>) -> Result<Vec<String>, Refused> {
        let Some(claim) = &self.groups_claim else {
            return Ok(Vec::new());
        };
        let wrong = |what| Refused::Claim {
            claim: claim.clone(),
            what,
        };
        let groups: Vec<&str> = match claims.get(claim) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(list)) => list
                .iter()
                .map(Value::as_str)
                .collect::<Option<_>>()
                .ok_or_else(|| wrong("is no list of texts"))?,
            Some(_) => return Err(wrong("is no list of texts")),
        };
        if groups.len() > MAX_GROUPS {
            return Err(wrong("has too many entries"));
        }
        let prefixed = groups
            .iter()
            .map(|group| format!("{}{group}", self.groups_prefix));
        // A group that cannot be meant is none; its bearer may still sign in.
        Ok(prefixed.filter(|group| !is_reserved(group)).collect())
    }
}

fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
