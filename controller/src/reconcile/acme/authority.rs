//! The way to an authority: HTTPS, with an end to every wait and a bound to every answer.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::leave::{Scope, Wish};
use super::settings::Settings;
use crate::client_tls;

/// For one answer. Authorities take their time over orders by answering at once that they do.
const PATIENCE: Duration = Duration::from_secs(30);

/// A chain of certificates has some KiB.
const MAX_ANSWER: usize = 256 << 10;

/// Longer pauses are a mistake: the limits that last longest are counted by the week.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where an authority was asked too often, and does not say how long to wait.
const UNSAID: Duration = Duration::from_secs(60);

/// What is not ACME.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error("no answer within {PATIENCE:?}")]
    TimedOut,
    #[error("the connection failed")]
    Connection(#[source] hyper_util::client::legacy::Error),
    #[error("the answer broke off, or has more than {MAX_ANSWER} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("it answers {0}")]
    Status(StatusCode),
}

/// What the authority said last of being left alone, if it did.
#[derive(Clone, Default)]
pub struct Pause(Arc<Mutex<Option<Wish>>>);

impl Pause {
    pub fn wish(&self) -> Option<Wish> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, wish: Wish) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(wish);
    }
}

pub struct Authority {
    client: Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>,
    pause: Pause,
}

impl Authority {
    pub fn new(settings: &Settings) -> (Self, Pause) {
        let mut roots = client_tls::system_roots();
        let own = CertificateDer::pem_slice_iter(settings.roots.as_bytes());
        roots.add_parsable_certificates(own.flatten());
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls::config(roots))
            .https_only()
            .enable_http1()
            .build();
        let pause = Pause::default();
        let authority = Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            pause: pause.clone(),
        };
        (authority, pause)
    }
}

impl HttpClient for Authority {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (asked, pause) = (self.client.request(request), self.pause.clone());
        let exchange = async move {
            let response = asked.await.map_err(AnswerError::Connection)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await;
            let body = body.map_err(AnswerError::Body)?.to_bytes();
            if !head.status.is_success() {
                let problem = serde_json::from_slice::<Map<String, Value>>(&body).ok();
                if let Some(until) = wish(head.status, &head.headers, Timestamp::now()) {
                    let scope = problem.as_ref().map_or(Scope::All, scope);
                    pause.take(Wish { until, scope });
                }
                // Somebody in between, who speaks no ACME.
                if problem.is_none() {
                    return Err(AnswerError::Status(head.status));
                }
            }
            Ok(BytesResponse {
                parts: head,
                body: Box::new(body),
            })
        };
        Box::pin(async move {
            let answered = tokio::time::timeout(PATIENCE, exchange).await;
            let answered = answered.unwrap_or(Err(AnswerError::TimedOut));
            answered.map_err(|error| Error::Other(Box::new(error)))
        })
    }
}

/// Until when it is to be left alone, by an answer that is a refusal.
fn wish(status: StatusCode, headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let limited = (status == StatusCode::TOO_MANY_REQUESTS).then(|| now + UNSAID);
    retry_after(headers, now).or(limited)
}

/// Whom a refusal is about.
fn scope(problem: &Map<String, Value>) -> Scope {
    let kind = problem.get("type").and_then(Value::as_str);
    if !kind.is_some_and(|kind| kind.ends_with(":rateLimited")) {
        return Scope::All;
    }
    // Those of single names say so (RFC 8555, 6.7.1).
    let parts = problem.get("subproblems").and_then(Value::as_array);
    let mut parts = parts.into_iter().flatten();
    match parts.any(|part| part.get("identifier").is_some()) {
        true => Scope::Names,
        false => Scope::Unsaid,
    }
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Timestamp> {
    let said = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let until = match said.parse::<u32>() {
        Ok(seconds) => now + Duration::from_secs(seconds.into()),
        Err(_) => DateTimeParser::new().parse_timestamp(said).ok()?,
    };
    Some(until.min(now + LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pause_is_so_many_seconds_or_until_a_date_and_at_most_a_week() {
        let now: Timestamp = "2026-11-06T08:00:00Z".parse().unwrap();
        for (said, expected) in [
            ("120", Some("2026-11-06T08:02:00Z")),
            (
                "Fri, 06 Nov 2026 08:49:37 GMT",
                Some("2026-11-06T08:49:37Z"),
            ),
            ("4000000000", Some("2026-11-13T08:00:00Z")),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(said));
            let expected = expected.map(|at| at.parse::<Timestamp>().unwrap());
            assert_eq!(retry_after(&headers, now), expected, "{said}");
        }
    }

    #[test]
    fn a_limit_is_about_the_names_that_it_names() {
        let limited = "urn:ietf:params:acme:error:rateLimited";
        let name = json!({ "type": limited, "identifier": { "type": "dns", "value": "a.org" } });
        for (problem, expected) in [
            (
                json!({ "type": "urn:ietf:params:acme:error:serverInternal" }),
                Scope::All,
            ),
            (json!({ "title": "Too Many Requests" }), Scope::All),
            (json!({ "type": limited }), Scope::Unsaid),
            (
                json!({ "type": limited, "subproblems": null }),
                Scope::Unsaid,
            ),
            (
                json!({ "type": limited, "subproblems": [{ "type": limited }] }),
                Scope::Unsaid,
            ),
            (
                json!({ "type": limited, "subproblems": [name] }),
                Scope::Names,
            ),
        ] {
            let found = scope(problem.as_object().unwrap());
            assert_eq!(found, expected, "{problem}");
        }
    }

    #[test]
    fn who_was_asked_too_often_is_left_alone_whether_it_says_for_how_long_or_not() {
        let now: Timestamp = "2026-11-06T08:00:00Z".parse().unwrap();
        for (status, said, expected) in [
            (429, Some("120"), Some("2026-11-06T08:02:00Z")),
            (429, None, Some("2026-11-06T08:01:00Z")),
            (429, Some("soon"), Some("2026-11-06T08:01:00Z")),
            (503, Some("120"), Some("2026-11-06T08:02:00Z")),
            (503, None, None),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(said));
            }
            let status = StatusCode::from_u16(status).unwrap();
            let expected = expected.map(|at| at.parse::<Timestamp>().unwrap());
            assert_eq!(wish(status, &headers, now), expected, "{status} {said:?}");
        }
    }
}
