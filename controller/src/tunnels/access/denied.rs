//! Why a client is not let in, as it is told: nothing of what the tunnel's owner has to put right.

use std::time::Duration;

use crate::access::oidc;

/// Where a client may not come from.
pub const CLIENT_NOT_ALLOWED: &str = "ClientNotAllowed";
/// It comes too often.
pub const RATE_LIMITED: &str = "RateLimited";
/// It does not say who it is, or not truly.
pub const UNAUTHENTICATED: &str = "Unauthenticated";
/// Who it is may not come in.
pub const USER_NOT_ALLOWED: &str = "UserNotAllowed";
/// Signing in came to nothing.
pub const LOGIN_FAILED: &str = "LoginFailed";
/// The issuer cannot be asked.
pub const ISSUER_UNREACHABLE: &str = "IssuerUnreachable";
/// As many passwords are checked as may be.
pub const PASSWORDS_BUSY: &str = "PasswordsBusy";
/// A Secret of the rules is missing.
pub const ACCESS_NOT_READY: &str = "AccessNotReady";

#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("who comes from this address is not let in")]
    Client,
    #[error("too many requests from this address: come again in {} s", seconds(.0))]
    TooOften(Duration),
    #[error("{why}")]
    Unauthenticated {
        why: &'static str,
        /// For WWW-Authenticate, at least one.
        challenges: Vec<String>,
    },
    #[error("{0:?} is known, and may not come in")]
    User(String),
    #[error("signing in came to nothing: {0}; open the page again")]
    Login(String),
    #[error("who you are cannot be found out, since the issuer cannot be asked: try again")]
    Issuer(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("too many passwords are being checked: try again")]
    Busy,
    #[error("who may come in is not known: the status of the tunnel says why")]
    NotReady,
}

impl Denied {
    /// In one CamelCase word.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Client => CLIENT_NOT_ALLOWED,
            Self::TooOften(_) => RATE_LIMITED,
            Self::Unauthenticated { .. } => UNAUTHENTICATED,
            Self::User(_) => USER_NOT_ALLOWED,
            Self::Login(_) => LOGIN_FAILED,
            Self::Issuer(_) => ISSUER_UNREACHABLE,
            Self::Busy => PASSWORDS_BUSY,
            Self::NotReady => ACCESS_NOT_READY,
        }
    }

    /// For Retry-After: whole seconds after which it is no longer so.
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Self::TooOften(wait) => Some(seconds(wait)),
            Self::Busy | Self::NotReady | Self::Issuer(_) => Some(1),
            _ => None,
        }
    }
}

impl From<oidc::FetchError> for Denied {
    fn from(error: oidc::FetchError) -> Self {
        Self::Issuer(Box::new(error))
    }
}

impl From<oidc::OidcError> for Denied {
    fn from(error: oidc::OidcError) -> Self {
        Self::Issuer(Box::new(error))
    }
}

fn seconds(wait: &Duration) -> u64 {
    wait.as_millis()
        .div_ceil(1000)
        .try_into()
        .unwrap_or(u64::MAX)
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_as_long_as_is_said_waits_long_enough() {
        for (millis, expected) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (59_999, 60)] {
            let denied = Denied::TooOften(Duration::from_millis(millis));
            assert_eq!(denied.retry_after(), Some(expected), "{millis} ms");
            let said = denied.to_string();
            assert!(said.ends_with(&format!(" in {expected} s")), "{said}");
        }
        assert_eq!(Denied::Client.retry_after(), None);
    }
}
