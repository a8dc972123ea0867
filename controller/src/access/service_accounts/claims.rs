//! What a service account's token says, and whether that still holds.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use hive_manifests::Resource;
use serde::{Deserialize, Serialize};

use super::unix;
use crate::access::user::{UserInfo, service_account_groups, service_account_name};
use crate::state::{Key, Object, State};

/// Of an account: its tokens that were issued at this time (RFC 3339) or before are good no longer.
pub(super) const NOT_BEFORE: &str = "hive.dev/tokens-not-before";
/// Of an account: ids (claim `jti`) of tokens that are good no longer, with commas between.
pub(super) const REVOKED: &str = "hive.dev/revoked-tokens";

/// By how much the clock of the controller that issued a token may run ahead of another's.
const CLOCK_SKEW: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    #[serde(deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// Unix seconds, as the other times.
    pub exp: u64,
    pub iat: u64,
    pub nbf: u64,
    pub iss: String,
    pub jti: String,
    pub sub: String,
    #[serde(rename = "kubernetes.io")]
    pub about: About,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    pub namespace: String,
    pub serviceaccount: Named,
    /// What the token is bound to, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    pub name: String,
    pub uid: String,
}

/// Why a token opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the token is not one of this swarm's service accounts")]
    Foreign,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token has expired: make a new one with `hivectl create token`")]
    Expired,
    #[error("the token is not good yet: is a clock wrong?")]
    Early,
    #[error("the token's service account is gone")]
    Account,
    #[error("what the token is bound to is gone")]
    Bound,
    #[error("the token was revoked")]
    Revoked,
}

impl Refused {
    /// Whether a newer state may say otherwise.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::Account | Self::Bound)
    }
}

impl Claims {
    /// Whether they hold for one of `audiences`, now and in this state.
    pub fn check(&self, state: &State, audiences: &[&str], now: SystemTime) -> Result<(), Refused> {
        let now = unix(now);
        if !self.aud.iter().any(|own| audiences.contains(&own.as_str())) {
            return Err(Refused::Audience);
        }
        if now >= self.exp {
            return Err(Refused::Expired);
        }
        if self.nbf > now + CLOCK_SKEW.as_secs() {
            return Err(Refused::Early);
        }
        let account = exists(
            state,
            Resource::ServiceAccount,
            &self.about.namespace,
            &self.about.serviceaccount,
        )
        .ok_or(Refused::Account)?;
        if self.is_revoked(account) {
            return Err(Refused::Revoked);
        }
        if let Some(secret) = &self.about.secret {
            exists(state, Resource::Secret, &self.about.namespace, secret).ok_or(Refused::Bound)?;
        }
        Ok(())
    }

    fn is_revoked(&self, account: &Object) -> bool {
        let annotations = &account.body()["metadata"]["annotations"];
        let is_named = annotations[REVOKED]
            .as_str()
            .is_some_and(|ids| ids.split(',').any(|id| id.trim() == self.jti));
        let is_old = match annotations[NOT_BEFORE].as_str() {
            None => false,
            Some(time) => match time.parse::<jiff::Timestamp>() {
                Ok(time) => i64::try_from(self.iat).is_ok_and(|iat| iat <= time.as_second()),
                // Somebody meant to close the door.
                Err(_) => true,
            },
        };
        is_named || is_old
    }

    /// When they end.
    pub fn expiry(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.exp)
    }

    pub fn user(&self) -> UserInfo {
        let About {
            namespace,
            serviceaccount,
            ..
        } = &self.about;
        UserInfo {
            name: service_account_name(namespace, &serviceaccount.name),
            uid: Some(serviceaccount.uid.clone()),
            groups: service_account_groups(namespace),
            extra: BTreeMap::from([(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![format!("JTI={}", self.jti)],
            )]),
        }
    }
}

/// An object that still is the one that was meant, and is to stay.
fn exists<'a>(
    state: &'a State,
    resource: Resource,
    namespace: &str,
    named: &Named,
) -> Option<&'a Object> {
    let object = state.get(&Key::new(resource, namespace, &named.name))?;
    (object.uid() == named.uid && !object.is_being_deleted()).then_some(object)
}

/// A single audience may stand without a list.
fn one_or_many<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}
