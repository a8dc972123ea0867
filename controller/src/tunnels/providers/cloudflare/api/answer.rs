//! What Cloudflare's API answers, in words. Pure.

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::super::{Token, Trouble};
use crate::gateway::bounds::cut;

/// For an answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of its own words that are passed on.
const MAX_WORDS: usize = 512;

/// Who asks too often is asked to wait: five minutes, where it is not said how long.
const LIMIT_WINDOW: Duration = Duration::from_secs(300);

/// Why a request brought nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("Cloudflare's API is not reached from this controller: {0}")]
    Unreachable(String),
    #[error("Cloudflare's API did not answer within {PATIENCE:?}")]
    TimedOut,
    #[error(
        "Cloudflare's API refuses to {what} ({said}): the API token needs the permissions \"Cloudflare Tunnel: Edit\" \
         of the account, \"Zone: Read\" and \"DNS: Edit\" of the zone"
    )]
    Denied { what: &'static str, said: String },
    #[error("Cloudflare's API was asked too often with this token: it is asked again in {}", humane(.0))]
    Limited(Duration),
    #[error("Cloudflare's API cannot {what}: {said}")]
    Failed {
        what: &'static str,
        status: StatusCode,
        said: String,
    },
    #[error("Cloudflare's API answers to {what} what is not understood")]
    Malformed { what: &'static str },
}

fn humane(wait: &Duration) -> String {
    format!("{} s", wait.as_secs())
}

impl ApiError {
    pub fn trouble(&self) -> Trouble {
        let reason = match self {
            Self::Unreachable(_) | Self::TimedOut => "CloudflareUnreachable",
            Self::Denied { .. } => "CloudflareDenied",
            Self::Limited(_) => "CloudflareRateLimited",
            Self::Failed { .. } | Self::Malformed { .. } => "CloudflareFailed",
        };
        Trouble::new(reason, self.to_string())
    }

    /// How long it must not be asked again.
    pub fn wait(&self) -> Option<Duration> {
        match self {
            Self::Limited(wait) => Some(*wait),
            _ => None,
        }
    }

    /// What was asked for is not there.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Failed { status, .. } if *status == StatusCode::NOT_FOUND)
    }
}

/// What every answer is wrapped in.
#[derive(Deserialize)]
struct Envelope {
    /// Not every answer to a deletion says so.
    success: Option<bool>,
    #[serde(default)]
    errors: Vec<Said>,
    #[serde(default)]
    result: Value,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

/// What an answer says.
pub(super) fn understand<T: DeserializeOwned>(
    what: &'static str,
    status: StatusCode,
    retry: Option<Duration>,
    body: &[u8],
    token: &Token,
) -> Result<T, ApiError> {
    if status == StatusCode::TOO_MANY_REQUESTS {
        // However long it says, somebody waits.
        return Err(ApiError::Limited(
            retry.unwrap_or(LIMIT_WINDOW).min(LIMIT_WINDOW * 2),
        ));
    }
    let envelope = serde_json::from_slice::<Envelope>(body).ok();
    if let Some(Envelope {
        success, result, ..
    }) = &envelope
        && status.is_success()
        && *success != Some(false)
    {
        return T::deserialize(result).map_err(|_| ApiError::Malformed { what });
    }
    let said = envelope.map(|envelope| words(&envelope.errors, token));
    let said = said.filter(|said| !said.is_empty());
    let said = said.unwrap_or_else(|| format!("it answers with status {}", status.as_u16()));
    Err(match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => ApiError::Denied { what, said },
        _ => ApiError::Failed { what, status, said },
    })
}

/// `10000: Authentication error; ...`.
fn words(errors: &[Said], token: &Token) -> String {
    let all = errors.iter();
    let all: Vec<String> = all
        .map(|Said { code, message }| format!("{code}: {message}"))
        .collect();
    let mut words = token.hide_in(&all.join("; "));
    words.retain(|c| !c.is_control());
    cut(&mut words, MAX_WORDS);
    words
}

pub(super) fn unreachable(error: &dyn std::error::Error) -> ApiError {
    ApiError::Unreachable(causes(error))
}

/// An error with its causes, which tell more.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    cut(&mut text, MAX_WORDS);
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn answers_are_told_in_words() {
        let refused = r#"{"success":false,"errors":[{"code":10000,"message":"Authentication error of secret"}],"result":null}"#;
        let conflict = r#"{"success":false,"errors":[{"code":1013,"message":"You already have a tunnel with this name"}]}"#;
        let cases = [
            (200, r#"{"success":true,"errors":[],"result":"x"}"#, Ok("x")),
            (
                200,
                r#"{"success":true,"result":7}"#,
                Err("CloudflareFailed: Cloudflare's API answers to try what"),
            ),
            (200, r#"{"result":"y"}"#, Ok("y")),
            (
                200,
                "<html>",
                Err("CloudflareFailed: Cloudflare's API cannot try: it answers with status 200"),
            ),
            (
                403,
                refused,
                Err(
                    "CloudflareDenied: Cloudflare's API refuses to try (10000: Authentication error of [token]): the API token needs",
                ),
            ),
            (
                409,
                conflict,
                Err("CloudflareFailed: Cloudflare's API cannot try: 1013: You already have"),
            ),
            (
                502,
                "",
                Err("CloudflareFailed: Cloudflare's API cannot try: it answers with status 502"),
            ),
            (
                429,
                "",
                Err(
                    "CloudflareRateLimited: Cloudflare's API was asked too often with this token: it is asked again in 7 s",
                ),
            ),
        ];
        let token = Token::new("secret");
        for (status, body, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let retry = Some(Duration::from_secs(7));
            let found = understand::<String>("try", status, retry, body.as_bytes(), &token);
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected),
                (Err(error), Err(expected)) => {
                    let Trouble { reason, message } = error.trouble();
                    let told = format!("{reason}: {message}");
                    assert!(told.starts_with(expected), "{told}");
                }
                (found, expected) => panic!("{found:?}, and not {expected:?}"),
            }
        }
        let endless = understand::<String>("try", StatusCode::TOO_MANY_REQUESTS, None, b"", &token);
        assert_eq!(endless.unwrap_err().wait(), Some(LIMIT_WINDOW));
    }
}
