//! Who asks, and whether they may.
//!
//! A bearer token is looked up in the replica's state on every request, so revoking one works at
//! once; so are the roles. Nothing that could be revoked is cached here.

mod impersonation;
mod request;

use std::sync::Arc;
use std::time::SystemTime;

use hive_identity::{ApiToken, ClientCertificate, ClientCertificateError, TokenSecret};
use http::{Extensions, HeaderMap, header};

use super::Api;
use super::errors::ApiError;
use super::path::Target;
use crate::access::attributes::Attributes;
use crate::access::certificates;
use crate::access::jwt::Unverified;
use crate::access::oidc::{self, Oidc};
use crate::access::rbac;
use crate::access::service_accounts::{Claims, Refused};
use crate::access::tokens::{self, Role, Token, TokenError, TokenKind};
use crate::access::user::{AUTHENTICATED, MASTERS, UserInfo};
use crate::https::ClientChain;
use crate::state::{Key, State};

const EXPIRED_CERTIFICATE: &str =
    "the client certificate has expired: ask for a new one with `hivectl create user`";

/// Who is behind a request.
#[derive(Clone, Debug)]
pub(super) struct User {
    /// Whom it is judged as.
    pub info: UserInfo,
    /// Who asks in that one's name.
    pub impersonator: Option<UserInfo>,
    credential: Credential,
}

/// What proves it.
#[derive(Clone, Debug)]
enum Credential {
    /// Nothing was shown.
    None,
    Token {
        key: Key,
        /// Of the token's Secret: any change to it ends what was allowed by it.
        revision: u64,
        expiry: Option<SystemTime>,
    },
    /// Of an OpenID issuer, which alone knows whether it was withdrawn.
    OpenId {
        expiry: SystemTime,
    },
    Certificate(Arc<ClientCertificate>),
    ServiceAccount {
        /// The API's.
        audience: String,
        claims: Arc<Claims>,
    },
}

impl User {
    pub(super) fn anonymous() -> Self {
        Self {
            info: UserInfo::anonymous(),
            impersonator: None,
            credential: Credential::None,
        }
    }

    /// When the proof ends, if it does.
    pub fn expiry(&self) -> Option<SystemTime> {
        match &self.credential {
            Credential::None => None,
            Credential::Token { expiry, .. } => *expiry,
            Credential::OpenId { expiry } => Some(*expiry),
            Credential::Certificate(shown) => Some(shown.not_after),
            Credential::ServiceAccount { claims, .. } => Some(claims.expiry()),
        }
    }

    /// Whether the proof still is what it was when the request began: long ones ask again.
    pub fn still_allowed(&self, state: &State) -> bool {
        let unchanged = match &self.credential {
            Credential::None | Credential::OpenId { .. } => true,
            Credential::Token { key, revision, .. } => state
                .get(key)
                .is_some_and(|secret| secret.revision() == *revision),
            Credential::Certificate(shown) => {
                certificates::check(shown, state, SystemTime::now()).is_ok()
            }
            Credential::ServiceAccount { audience, claims } => {
                claims.check(state, &[audience], SystemTime::now()).is_ok()
            }
        };
        unchanged
            && self
                .expiry()
                .is_none_or(|expiry| SystemTime::now() < expiry)
    }

    pub fn is_anonymous(&self) -> bool {
        matches!(self.credential, Credential::None)
    }
}

pub(super) use impersonation::questions as impersonations;
pub(super) use request::attributes;

/// The user whose certificate or token came with a request, or in whose name its sender asks. A
/// certificate that is good comes first, as in Kubernetes; of one that is not, a token makes nothing worse.
pub(super) async fn authenticate(
    context: &Api,
    extensions: &Extensions,
    headers: &HeaderMap,
) -> Result<User, ApiError> {
    let shown = match extensions.get::<ClientChain>() {
        None => None,
        Some(shown) => Some(by_certificate(context, shown).await),
    };
    let user = match (shown, bearer(headers)?) {
        (Some(Ok(user)), _) => user,
        (Some(Err(error)), None) => return Err(error),
        (_, Some(token)) => of_token(context, token, &[context.issuer.url()]).await?.0,
        (None, None) => User::anonymous(),
    };
    impersonation::apply(context, user, headers)
}

async fn by_certificate(context: &Api, shown: &ClientChain) -> Result<User, ApiError> {
    let certificate = shown.judged_by(&context.clients).map_err(|error| {
        tracing::debug!(%error, "refused a client certificate");
        ApiError::Unauthenticated(match error {
            ClientCertificateError::Expired => EXPIRED_CERTIFICATE,
            ClientCertificateError::Foreign(_) | ClientCertificateError::Malformed => {
                "the client certificate was not issued by this swarm for its API"
            }
        })
    })?;
    let check = |state: &State| certificates::check(certificate, state, SystemTime::now());
    let mut verdict = check(&context.replica.state());
    // One that was issued through another controller an instant ago is not known here yet.
    if verdict == Err(certificates::Refused::Revoked)
        && let Some(_permit) = context.permits.unknown_token()
    {
        verdict = check(&context.newest().await?);
    }
    verdict.map_err(|refused| {
        ApiError::Unauthenticated(match refused {
            certificates::Refused::Expired => EXPIRED_CERTIFICATE,
            certificates::Refused::Revoked => {
                "the client certificate was revoked: its request is gone or denied"
            }
        })
    })?;
    Ok(User {
        info: certificates::user(certificate),
        impersonator: None,
        credential: Credential::Certificate(certificate.clone()),
    })
}

/// The user whose token this is, and for which of these audiences it is.
pub(super) async fn of_token(
    context: &Api,
    token: &str,
    audiences: &[&str],
) -> Result<(User, Vec<String>), ApiError> {
    if let Ok(secret) = token
        .parse::<ApiToken>()
        .map(|token| token.secret)
        .or_else(|_| TokenSecret::parse(token))
    {
        // Such a token is for the API and nobody else.
        let own = context.issuer.url();
        if !audiences.contains(&own) {
            return Err(ApiError::Unauthenticated(
                "the token is for another audience",
            ));
        }
        return Ok((by_secret(context, &secret).await?, vec![own.to_owned()]));
    }
    let parsed = Unverified::parse(token).ok();
    if let (Some(oidc), Some(parsed)) = (&context.oidc, &parsed)
        && oidc.issued(parsed)
    {
        let own = context.issuer.url();
        if !audiences.contains(&own) {
            return Err(ApiError::Unauthenticated(
                "the token is for another audience",
            ));
        }
        return Ok((by_open_id(oidc, token).await?, vec![own.to_owned()]));
    }
    if !parsed.is_some_and(|parsed| context.issuer.issued(&parsed)) {
        return Err(ApiError::Unauthenticated(
            "the Authorization header is not a bearer token of this swarm",
        ));
    }
    by_claims(context, token, audiences).await
}

async fn by_open_id(oidc: &Oidc, token: &str) -> Result<User, ApiError> {
    match oidc.verify(token, SystemTime::now()).await {
        Ok(signed_in) => Ok(User {
            info: signed_in.user,
            impersonator: None,
            credential: Credential::OpenId {
                expiry: signed_in.expiry,
            },
        }),
        // Perhaps the token is good: nobody can tell.
        Err(oidc::Refused::Keys(error)) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "a token of the OpenID issuer could not be verified");
            Err(ApiError::Unavailable(
                "the OpenID issuer's keys cannot be fetched, so its tokens cannot be verified; \
                 the controller's log says why"
                    .into(),
            ))
        }
        Err(error) => {
            tracing::info!(%error, "refused a token of the OpenID issuer");
            Err(ApiError::Unauthenticated(match error {
                oidc::Refused::Expired => "the token has expired: sign in again",
                oidc::Refused::Early => "the token is not good yet: is a clock wrong?",
                oidc::Refused::Audience(_) => "the token is for another client of its issuer",
                oidc::Refused::Claim { .. } => {
                    "a claim of the token is not what this swarm requires; the controller's log says which"
                }
                oidc::Refused::Token(_) | oidc::Refused::UnknownKey => {
                    "the token is not signed by its issuer"
                }
                oidc::Refused::Keys(_) => unreachable!("told apart above"),
            }))
        }
    }
}

async fn by_claims(
    context: &Api,
    token: &str,
    audiences: &[&str],
) -> Result<(User, Vec<String>), ApiError> {
    let claims = context.issuer.verify(token).map_err(refused)?;
    let check = |state: &State| claims.check(state, audiences, SystemTime::now());
    let mut verdict = check(&context.replica.state());
    if verdict.is_err_and(Refused::may_pass)
        && let Some(_permit) = context.permits.unknown_token()
    {
        verdict = check(&context.newest().await?);
    }
    verdict.map_err(refused)?;
    let common = claims
        .aud
        .iter()
        .filter(|own| audiences.contains(&own.as_str()))
        .cloned()
        .collect();
    let user = User {
        info: claims.user(),
        impersonator: None,
        credential: Credential::ServiceAccount {
            audience: context.issuer.url().to_owned(),
            claims,
        },
    };
    Ok((user, common))
}

fn refused(why: Refused) -> ApiError {
    ApiError::Unauthenticated(match why {
        Refused::Foreign => "the token is not one of this swarm's service accounts",
        Refused::Audience => "the token is for another audience",
        Refused::Expired => "the token has expired: make a new one with `hivectl create token`",
        Refused::Early => "the token is not good yet: is a clock wrong?",
        Refused::Account => "the token's service account is gone",
        Refused::Bound => "what the token is bound to is gone",
        Refused::Revoked => "the token was revoked",
    })
}

async fn by_secret(context: &Api, secret: &TokenSecret) -> Result<User, ApiError> {
    let mut state = context.replica.state();
    let mut token = check(&state, secret);
    if matches!(token, Err(TokenError::Unknown))
        && let Some(_permit) = context.permits.unknown_token()
    {
        // Cut off from the leader nobody can tell: "unavailable" is tried again, "unauthorized" is not.
        state = context.newest().await?;
        token = check(&state, secret);
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
        info: UserInfo {
            name: format!("hive:{}", token.key.name),
            groups: groups_of(role),
            ..UserInfo::default()
        },
        impersonator: None,
        credential: Credential::Token {
            revision,
            expiry: token.expiry,
            key: token.key,
        },
    })
}

fn check(state: &State, secret: &TokenSecret) -> Result<Token, TokenError> {
    tokens::check(state, secret, TokenKind::Api, SystemTime::now())
}

/// A role is a group that the bootstrap bindings give the role of that name to. The swarm's
/// administrators may do everything also when somebody has spoilt the roles.
fn groups_of(role: Role) -> Vec<String> {
    let mut groups = vec![format!("hive:{}", role.name())];
    if role == Role::Admin {
        groups.push(MASTERS.into());
    }
    groups.push(AUTHENTICATED.into());
    groups
}

/// What follows `Bearer` in the Authorization header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let (scheme, token) = value
        .to_str()
        .ok()
        .and_then(|text| text.split_once(' '))
        .unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(ApiError::Unauthenticated(
            "the Authorization header is not a bearer token of this swarm",
        ));
    }
    Ok(Some(token.trim()))
}

/// True when anybody may ask, token or not, also where no roles are known yet: what load balancers
/// and clients probe first.
pub(super) fn is_public(target: &Target) -> bool {
    matches!(target, Target::Live(_) | Target::Ready(_) | Target::Version)
}

/// What answers a request for a path that does not exist. Who is unknown does not even learn that.
pub(super) fn no_such_path(user: &User) -> ApiError {
    match user.is_anonymous() {
        true => nothing_shown(),
        false => ApiError::NoSuchPath,
    }
}

/// Refuses what nothing allows the user.
pub(super) async fn authorize(
    context: &Api,
    user: &User,
    asked: &Attributes<'_>,
) -> Result<(), ApiError> {
    let state = context.replica.state();
    let index = context.access.of(&state);
    if rbac::allowed(&index, &user.info, asked) {
        return Ok(());
    }
    if user.is_anonymous() {
        return Err(nothing_shown());
    }
    // A binding that was made on another controller an instant ago is not known here yet.
    if let Some(_permit) = context.permits.unknown_token()
        && let Ok(newest) = context.newest().await
        && newest.access_revision() != state.access_revision()
        && rbac::allowed(&context.access.of(&newest), &user.info, asked)
    {
        return Ok(());
    }
    Err(refuse(context, user, asked))
}

/// By which binding a user may, for the record.
pub(super) fn reason(context: &Api, user: &User, asked: &Attributes<'_>) -> String {
    let index = context.access.of(&context.replica.state());
    rbac::decide(&index, &user.info, asked).reason
}

/// Kubernetes' refusal.
fn refuse(context: &Api, user: &User, asked: &Attributes<'_>) -> ApiError {
    let index = context.access.of(&context.replica.state());
    let reason = rbac::denial(&index, &user.info, asked);
    ApiError::Forbidden(asked.refusal(&user.info.name, reason))
}

fn nothing_shown() -> ApiError {
    ApiError::Unauthenticated(
        "a bearer token or a client certificate is needed: the kubeconfig that `hive up` writes holds one",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_bearer_token_authenticates() {
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            bearer(&headers).map(|token| token.map(str::to_owned))
        };
        for value in ["Bearer abc", "bearer  abc "] {
            assert_eq!(with(value).unwrap().as_deref(), Some("abc"), "{value}");
        }
        for value in ["Bearer", "abc", "Basic YTpi"] {
            assert!(with(value).is_err(), "{value}");
        }
        assert!(bearer(&HeaderMap::new()).unwrap().is_none());
    }
}
