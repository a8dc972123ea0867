//! Small HTTPS requests to an issuer: JSON out, forms in, all of it bounded.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use kube::Config;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use url::{Url, form_urlencoded};

use super::OidcError;
use crate::cluster::{Https, https};

/// An issuer that takes longer is not there.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What an issuer says of itself, or a token with many groups, is far smaller.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Of an issuer's explanation, what a line of a terminal takes.
const MAX_DETAIL_CHARS: usize = 300;

pub(super) struct Http(Https);

impl Http {
    /// `issuer` only tells whose certificates are meant.
    pub fn new(issuer: &Url, ca_file: Option<&Path>) -> Result<Self, OidcError> {
        let uri = issuer
            .as_str()
            .parse()
            .map_err(|_| OidcError::Issuer(issuer.clone()))?;
        let mut config = Config::new(uri);
        if let Some(path) = ca_file {
            config.root_cert = Some(certificates(path)?);
        }
        Ok(Self(https(&config).map_err(OidcError::Tls)?))
    }

    pub async fn get(&self, url: &str) -> Result<Value, OidcError> {
        let request = Request::builder()
            .method(Method::GET)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .body(Full::default());
        self.send(url, request).await
    }

    /// A refusal as OAuth words it is [`OidcError::Refused`].
    pub async fn post(&self, url: &str, form: &[(&str, &str)]) -> Result<Value, OidcError> {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(form)
            .finish();
        let request = Request::builder()
            .method(Method::POST)
            .uri(url)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body));
        self.send(url, request).await
    }

    async fn send(
        &self,
        url: &str,
        request: http::Result<Request<Full<Bytes>>>,
    ) -> Result<Value, OidcError> {
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| OidcError::Unreachable {
                url: url.to_owned(),
                source,
            };
        let request = request.map_err(|error| unreachable(error.into()))?;
        let asked = async {
            let response = self
                .0
                .request(request)
                .await
                .map_err(|e| unreachable(e.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
                .collect()
                .await
                .map_err(unreachable)?;
            Ok::<_, OidcError>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(TIMEOUT, asked)
            .await
            .map_err(|elapsed| unreachable(elapsed.into()))??;
        let answer = serde_json::from_slice::<Value>(&body);
        match (status.is_success(), answer) {
            (true, Ok(answer)) => Ok(answer),
            (true, Err(error)) => Err(OidcError::Answer {
                url: url.to_owned(),
                why: error.to_string(),
            }),
            (false, answer) => Err(refusal(url, status, &answer.unwrap_or_default())),
        }
    }
}

fn refusal(url: &str, status: StatusCode, answer: &Value) -> OidcError {
    let detail = match answer["error_description"].as_str() {
        Some(text) => format!(": {}", printable(text)),
        None => String::new(),
    };
    match answer["error"].as_str() {
        Some(error) => OidcError::Refused {
            error: printable(error),
            detail,
        },
        None => OidcError::Status {
            url: url.to_owned(),
            status: status.as_u16(),
            detail,
        },
    }
}

/// What others say, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(MAX_DETAIL_CHARS)
        .collect()
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, OidcError> {
    let pem = std::fs::read(path).map_err(|source| OidcError::CaFile {
        path: path.to_owned(),
        source,
    })?;
    let found: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .unwrap_or_default();
    match found.is_empty() {
        true => Err(OidcError::NoCertificate(path.to_owned())),
        false => Ok(found),
    }
}
