//! Pulling components from registries: sends what the machines of `hive-registry` ask for.
//!
//! References come from whoever may write a Function, so a pull is a stranger's request from inside
//! the swarm: every address that is asked, redirects included, must be [`Allowed`], every wait and
//! every answer is bounded, and what a registry says is never shown.

mod allowed;

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use hive_manifests::function::MAX_COMPONENT_BYTES;
use hive_registry::{Answer, Ask, AskError, Blob, Image, Login, Pull, Reference, Wants};
use http_body_util::{BodyExt, BodyStream, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::{ReceiveError, UploadError};
use crate::client_tls;
pub use allowed::{Allow, Allowed};
use allowed::{Checked, Forbidden};

/// For a connection and the head of an answer, and for the body of a short one.
const PATIENCE: Duration = Duration::from_secs(30);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why an image could not be pulled.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error(transparent)]
    Registry(#[from] hive_registry::PullError),
    #[error(
        "{host} is at {address}, which registries are not pulled from: start the controllers with --registry-allow {address}"
    )]
    Forbidden { host: String, address: IpAddr },
    #[error("{host} cannot be reached")]
    Unreachable {
        host: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("{host} did not answer within {PATIENCE:?}")]
    TimedOut { host: String },
    #[error("the component could not be taken in")]
    Upload(#[source] UploadError),
}

impl PullError {
    /// The registry wants to know who asks.
    pub fn is_unauthorized(&self) -> bool {
        use hive_registry::PullError as Registry;
        matches!(
            self,
            Self::Registry(Registry::Ask(AskError::Unauthorized { .. }))
        )
    }

    /// How long the registry wants to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        use hive_registry::PullError as Registry;
        match self {
            Self::Registry(Registry::Ask(AskError::TooManyRequests { after, .. })) => *after,
            _ => None,
        }
    }

    /// In one sentence. Sources are named where they are this controller's own, never a registry's:
    /// what a connection to an inner host says is nobody's business.
    pub fn sentence(&self) -> String {
        match self {
            Self::Upload(UploadError::Receive(ReceiveError::Mismatch { .. })) => {
                "the registry's bytes are not those that the image names".to_owned()
            }
            Self::Upload(UploadError::Receive(ReceiveError::Interrupted(_))) => {
                "the registry broke off while it sent the component".to_owned()
            }
            Self::Upload(source) => source.to_string(),
            other => other.to_string(),
        }
    }
}

type Http = Client<HttpsConnector<HttpConnector<Checked>>, Full<Bytes>>;

/// The way to all registries.
#[derive(Clone)]
pub struct Registries {
    client: Http,
    allowed: Arc<Allowed>,
}

impl Registries {
    pub fn new(allowed: Allowed) -> Self {
        let allowed = Arc::new(allowed);
        let tls = client_tls::config(client_tls::system_roots());
        let mut http = HttpConnector::new_with_resolver(Checked(allowed.clone()));
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            allowed,
        }
    }

    /// Finds out which component a reference means now.
    pub async fn find(
        &self,
        reference: Reference,
        login: Option<Login>,
    ) -> Result<(Image, Blob), PullError> {
        let mut pull = Pull::new(reference, login, MAX_COMPONENT_BYTES);
        while let Some(ask) = pull.next() {
            let (answer, _) = self.send(&ask).await?;
            pull.take(answer)?;
        }
        Ok(pull.finish().expect("nothing more is asked"))
    }

    /// The bytes of a component that was found. They are what the registry sends: whoever takes them
    /// in checks the digest.
    pub async fn fetch(
        &self,
        image: &Image,
        mut blob: Blob,
    ) -> Result<impl Stream<Item = Result<Bytes, Box<dyn Error + Send + Sync>>> + use<>, PullError>
    {
        loop {
            let ask = blob.next().expect("a blob asks until it is there");
            let (answer, body) = self.send(&ask).await?;
            if blob.take(answer)? {
                let size = usize::try_from(image.component.size).unwrap_or(usize::MAX);
                let frames = BodyStream::new(Limited::new(body, size));
                return Ok(futures::StreamExt::filter_map(frames, |frame| {
                    let data = frame.map(|frame| frame.into_data().ok()).transpose();
                    std::future::ready(data)
                }));
            }
        }
    }

    /// The answer, and the body that was not read: empty where it was.
    async fn send(&self, ask: &Ask) -> Result<(Answer, Incoming), PullError> {
        let host = || ask.url.host_str().unwrap_or_default().to_owned();
        // The resolver is not asked about what is an address already.
        let literal = match ask.url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            _ => None,
        };
        if let Some(address) = literal.filter(|address| !self.allowed.permits("", *address)) {
            return Err(PullError::Forbidden {
                host: host(),
                address,
            });
        }
        let mut request = http::Request::builder()
            .method(ask.method.clone())
            .uri(ask.url.as_str())
            .body(Full::new(ask.body.clone()))
            .map_err(|error| unreachable(host(), error.into()))?;
        *request.headers_mut() = ask.headers.clone();
        let response = tokio::time::timeout(PATIENCE, self.client.request(request))
            .await
            .map_err(|_| PullError::TimedOut { host: host() })?
            .map_err(|error| unreachable(host(), error.into()))?;
        let (head, mut body) = response.into_parts();
        let bytes = match ask.wants {
            Wants::Head => Bytes::new(),
            Wants::Body(limit) => {
                let whole = Limited::new(&mut body, limit).collect();
                let whole = tokio::time::timeout(PATIENCE, whole).await;
                let whole = whole.map_err(|_| PullError::TimedOut { host: host() })?;
                whole
                    .map_err(|error| match error.is::<LengthLimitError>() {
                        true => hive_registry::PullError::from(AskError::too_large(ask)).into(),
                        false => unreachable(host(), error),
                    })?
                    .to_bytes()
            }
        };
        let answer = Answer {
            status: head.status,
            headers: head.headers,
            body: bytes,
        };
        Ok((answer, body))
    }
}

/// A refusal of the resolver is somewhere below the client's error.
fn unreachable(host: String, source: Box<dyn Error + Send + Sync>) -> PullError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&*source);
    while let Some(error) = cause {
        if let Some(Forbidden(address)) = error.downcast_ref() {
            let address = *address;
            return PullError::Forbidden { host, address };
        }
        cause = error.source();
    }
    PullError::Unreachable { host, source }
}
