//! Who asks, and whether they may.
//!
//! A bearer token is looked up in the replica's state on every request, so revoking one works at
//! once; the rules are a pure function of role and attributes. Nothing is cached here.

mod rules;

use std::time::SystemTime;

use hive_identity::{ApiToken, TokenSecret};
use http::{HeaderMap, Method, header};

use super::Api;
use super::errors::ApiError;
use super::path::Target;
use crate::access::tokens::{self, Role, Token, TokenError, TokenKind};
use crate::state::{Key, State};

pub(super) use rules::{Attributes, Verb};

/// Who is behind a request.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub role: Role,
    token: Key,
    /// Of the token's Secret: any change to it ends what was allowed by it.
    revision: u64,
    expiry: Option<SystemTime>,
}

impl User {
    /// The name under which Kubernetes clients show this user.
    pub fn name(&self) -> String {
        format!("hive:{}", self.token.name)
    }

    pub fn groups(&self) -> [String; 2] {
        [
            format!("hive:{}", self.role.name()),
            "system:authenticated".to_owned(),
        ]
    }

    /// When the token ends, if it does.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.expiry
    }

    /// Whether the token still is what it was when the request began: long ones ask again.
    pub fn still_allowed(&self, state: &State) -> bool {
        state
            .get(&self.token)
            .is_some_and(|secret| secret.revision() == self.revision)
            && self.expiry.is_none_or(|expiry| SystemTime::now() < expiry)
    }
}

/// The user whose token a request bears.
pub(super) async fn authenticate(context: &Api, headers: &HeaderMap) -> Result<User, ApiError> {
    let secret = bearer(headers)?;
    let mut state = context.replica.state();
    let mut token = check(&state, &secret);
    if matches!(token, Err(TokenError::Unknown))
        && let Some(_permit) = context.permits.unknown_token()
    {
        // Cut off from the leader nobody can tell: "unavailable" is tried again, "unauthorized" is not.
        state = context.newest().await?;
        token = check(&state, &secret);
    }
    let token = token.map_err(|error| {
        ApiError::Unauthenticated(match error {
            TokenError::Unknown => {
                "the token is not known here: it was revoked, mistyped, or made for another swarm"
            }
            TokenError::Expired => {
                "the token has expired: make a new one with `hivectl token create`"
            }
            TokenError::UsedUp => "the token was used as often as it may be",
            TokenError::WrongKind { .. } => "the token is one for joining, not for the API",
        })
    })?;
    let Some(role) = token.role else {
        return Err(ApiError::Unauthenticated("the token has no role"));
    };
    let revision = state
        .get(&token.key)
        .map(|secret| secret.revision())
        .ok_or(ApiError::Unauthenticated("the token was revoked"))?;
    Ok(User {
        role,
        revision,
        expiry: token.expiry,
        token: token.key,
    })
}

fn check(state: &State, secret: &TokenSecret) -> Result<Token, TokenError> {
    tokens::check(state, secret, TokenKind::Api, SystemTime::now())
}

/// The secret in `Authorization: Bearer hivetok.<secret>`; the prefix may be left out.
fn bearer(headers: &HeaderMap) -> Result<TokenSecret, ApiError> {
    let value = headers
        .get(header::AUTHORIZATION)
        .ok_or(ApiError::Unauthenticated(
            "a bearer token is needed: the kubeconfig that `hive up` writes holds one",
        ))?;
    let malformed = || {
        ApiError::Unauthenticated("the Authorization header is not a bearer token of this swarm")
    };
    let text = value.to_str().map_err(|_| malformed())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(malformed)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(malformed());
    }
    token
        .parse::<ApiToken>()
        .map(|token| token.secret)
        .or_else(|_| TokenSecret::parse(token.trim()))
        .map_err(|_| malformed())
}

/// True when anybody may ask, token or not: what load balancers and clients probe first.
pub(super) fn is_public(target: &Target) -> bool {
    matches!(target, Target::Live | Target::Ready | Target::Version)
}

/// Refuses what the user's role does not allow.
pub(super) fn authorize(
    user: &User,
    target: &Target,
    method: &Method,
    watch: bool,
) -> Result<(), ApiError> {
    let Some(attributes) = Attributes::of(target, method, watch)? else {
        return Ok(());
    };
    if attributes.allowed_to(user.role) {
        return Ok(());
    }
    Err(ApiError::Forbidden(attributes.refusal(user.role)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_bearer_token_authenticates() {
        let token = ApiToken::generate();
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers)
        };
        assert!(with(&format!("Bearer {token}")).is_ok());
        assert!(with(&format!("bearer {token}")).is_ok());
        for value in ["Bearer", "Bearer x", "Basic YTpi", &token.to_string()] {
            assert!(with(value).is_err(), "{value}");
        }
        assert!(bearer(&HeaderMap::new()).is_err());
    }
}
