//! Small requests to an issuer over HTTPS: JSON comes back, all of it bounded.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::client_tls;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A configuration is some KB, a set of keys too.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// Characters of the word by which an issuer refuses.
const MAX_WORD: usize = 64;

/// Why the issuer did not say what it was asked for.
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
    #[error("{url} refused: {error}")]
    Refused { url: String, error: String },
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
    #[error("the configuration names no https URLs where people sign in and codes are redeemed")]
    NoLogin,
    #[error("it was tried a moment ago")]
    TooSoon,
    #[error("as many codes are being redeemed there as may be")]
    Busy,
}

/// A clone is the same.
#[derive(Clone)]
pub(super) struct Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

/// As OAuth words a refusal (RFC 6749, 5.2).
#[derive(Deserialize)]
struct Refusal {
    error: String,
}

impl Https {
    pub fn new(roots: RootCertStore) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(client_tls::config(roots))
            .https_only()
            .enable_http1()
            .build();
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    pub async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, FetchError> {
        let request = Request::get(url).header(ACCEPT, "application/json");
        self.send(url, request.body(Full::default())).await
    }

    /// `client` is who sends the form, and its secret: in a header.
    pub async fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        form: &[(&str, &str)],
        client: Option<(&str, &str)>,
    ) -> Result<T, FetchError> {
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let mut request = Request::post(url)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some((id, secret)) = client {
            request = request.header(AUTHORIZATION, basic(id, secret));
        }
        self.send(url, request.body(Full::from(form))).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        url: &str,
        request: http::Result<Request<Full<Bytes>>>,
    ) -> Result<T, FetchError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| FetchError::Unreachable {
                url: url.to_owned(),
                source,
            };
        let request = request.map_err(|error| unreachable(error.into()))?;
        let ask = async {
            let response = self.0.request(request).await;
            let response = response.map_err(|error| unreachable(error.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
            let body = body.collect().await.map_err(unreachable)?.to_bytes();
            Ok::<_, FetchError>((status, body))
        };
        let answered = tokio::time::timeout(TIMEOUT, ask).await;
        let timed_out = |_| FetchError::TimedOut {
            url: url.to_owned(),
        };
        let (status, body) = answered.map_err(timed_out)??;
        if !status.is_success() {
            return Err(refusal(url, status, &body));
        }
        serde_json::from_slice(&body).map_err(|source| FetchError::Malformed {
            url: url.to_owned(),
            source,
        })
    }
}

fn refusal(url: &str, status: StatusCode, body: &[u8]) -> FetchError {
    let url = url.to_owned();
    match serde_json::from_slice::<Refusal>(body) {
        Ok(Refusal { error }) => FetchError::Refused {
            url,
            error: error
                .chars()
                .filter(|c| !c.is_control())
                .take(MAX_WORD)
                .collect(),
        },
        Err(_) => FetchError::Status {
            url,
            status: status.as_u16(),
        },
    }
}

/// Both parts are encoded as in forms before (RFC 6749, 2.3.1).
fn basic(id: &str, secret: &str) -> HeaderValue {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(id), encode(secret));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
        .expect("Base64 is plain text");
    value.set_sensitive(true);
    value
}
