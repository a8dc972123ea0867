//! The swarm's API as commands use it: requests in, JSON out, whichever controller answers.
//!
//! A request goes to the server that answered last; when it cannot be reached, to the next one
//! of the kubeconfig. Objects travel as JSON values, so that nothing a newer server sends is lost.
//! It never prints a header or a body: with `-v` only method, path, status and time.

mod call;
mod credential;
mod error;
pub mod path;
mod transport;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_manifests::Resource;
use http::{Method, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;

pub use call::Call;
pub use credential::Credential;
pub use error::RequestError;
pub use transport::{Https, Sent, https};

use credential::plugin_failure;
use error::{Attempt, connect_failure};

use crate::kubeconfig::KubeconfigError;

/// Asks the server to lay the result out as kubectl's tables; who cannot answers with objects.
pub const AS_TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1, application/json";

/// How long a refused request (429, 503) is repeated. An election takes about a second, so a
/// command that meets one succeeds without its user noticing.
const REFUSED_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts, when the server names no time itself.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// The most that an answer may hold in memory: a list of 100,000 objects of 2 KiB fits.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

/// Whether a failed request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// A refusal (429, 503) is the API server's and says that nothing was done.
    WhenRefused,
    /// The answer may be a function's own, and means what it says.
    Never,
}

struct Server {
    url: String,
    client: kube::Client,
}

pub struct Cluster {
    servers: Vec<Server>,
    /// Index of the server that answered last.
    preferred: AtomicUsize,
    timeout: Option<Duration>,
    verbose: bool,
    /// What all requests show.
    pub credential: Credential,
}

/// A field that the server does not know is a mistake, or the server is older: both are for the
/// author to hear.
pub const STRICT: (&str, &str) = ("fieldValidation", "Strict");

/// Nothing is written.
pub const DRY_RUN: (&str, &str) = ("dryRun", "All");

impl Cluster {
    /// Prepares clients for all servers of a context; nothing is sent yet.
    pub fn new(
        config: &kube::Config,
        servers: &[String],
        timeout: Option<Duration>,
        verbose: bool,
    ) -> Result<Self, KubeconfigError> {
        let servers = servers
            .iter()
            .map(|url| {
                let mut config = config.clone();
                config.cluster_url = url.parse().map_err(|error: http::uri::InvalidUri| {
                    KubeconfigError::ServerUrl {
                        server: url.clone(),
                        message: error.to_string(),
                    }
                })?;
                Ok(Server {
                    url: url.trim_end_matches('/').to_owned(),
                    client: transport::client(config).map_err(|error| {
                        match plugin_failure(&error) {
                            Some(said) => KubeconfigError::Plugin(said),
                            None => KubeconfigError::Credentials(error),
                        }
                    })?,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            servers,
            preferred: AtomicUsize::new(0),
            timeout,
            verbose,
            credential: Credential::of(&config.auth_info),
        })
    }

    /// The servers' addresses, in the order of the kubeconfig.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(|server| server.url.as_str())
    }

    /// The same swarm seen through one server only.
    pub fn only(&self, index: usize) -> Self {
        let server = &self.servers[index];
        Self {
            servers: vec![Server {
                url: server.url.clone(),
                client: server.client.clone(),
            }],
            preferred: AtomicUsize::new(0),
            timeout: self.timeout,
            verbose: self.verbose,
            credential: self.credential.clone(),
        }
    }

    /// Sends one request and returns the answer's head with a body to stream. A failure that the
    /// API server reports is an error.
    pub async fn stream(&self, call: &Call<'_>) -> Result<Response<Body>, RequestError> {
        let (server, response) = self.send(call, Repeat::WhenRefused).await?;
        if response.status().is_client_error() || response.status().is_server_error() {
            return Err(self.failure(server, response).await);
        }
        Ok(response)
    }

    /// Sends one request and returns whatever came back, failures included.
    pub async fn raw(&self, call: &Call<'_>) -> Result<Response<Body>, RequestError> {
        Ok(self.send(call, Repeat::Never).await?.1)
    }

    /// Sends one request whose answer is JSON.
    pub async fn json(&self, call: &Call<'_>) -> Result<Value, RequestError> {
        let response = self.stream(call).await?;
        let server = &self.servers[self.preferred.load(Ordering::Relaxed)];
        let body = self
            .within(server, call.bounded, collect(server, response))
            .await?;
        serde_json::from_slice(&body).map_err(|error| RequestError::Answer {
            server: server.url.clone(),
            message: error.to_string(),
        })
    }

    pub async fn get(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, RequestError> {
        let path = path::object(resource, namespace, name);
        self.json(&Call::get(&path)).await
    }

    /// All objects of a resource; no namespace means those of all namespaces.
    pub async fn list(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        query: &[(&str, &str)],
    ) -> Result<Value, RequestError> {
        let path = path::with_query(
            &path::collection(resource, namespace),
            query.iter().copied(),
        );
        let mut list = self.json(&Call::get(&path)).await?;
        // Items of a list don't repeat what the list says of them; objects of their own do.
        let items = list["items"].as_array_mut();
        for object in items.into_iter().flatten().filter_map(Value::as_object_mut) {
            object
                .entry("apiVersion")
                .or_insert_with(|| resource.api_version().into());
            object
                .entry("kind")
                .or_insert_with(|| resource.kind().into());
        }
        Ok(list)
    }

    /// Changes an object by an RFC 7386 merge patch.
    pub async fn merge_patch(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        name: &str,
        patch: &Value,
        dry_run: bool,
    ) -> Result<Value, RequestError> {
        let path = path::with_query(
            &path::object(resource, namespace, name),
            [Some(STRICT), dry_run.then_some(DRY_RUN)]
                .into_iter()
                .flatten(),
        );
        let call = Call::new(Method::PATCH, &path)
            .body("application/merge-patch+json", patch.to_string().into());
        self.json(&call).await
    }

    pub async fn create(
        &self,
        resource: Resource,
        namespace: Option<&str>,
        object: &Value,
        dry_run: bool,
    ) -> Result<Value, RequestError> {
        let path = path::with_query(
            &path::collection(resource, namespace),
            [Some(STRICT), dry_run.then_some(DRY_RUN)]
                .into_iter()
                .flatten(),
        );
        self.json(&Call::new(Method::POST, &path).json(object))
            .await
    }

    /// Starts with the server that answered last and goes round while servers can't be reached.
    async fn send(
        &self,
        call: &Call<'_>,
        repeat: Repeat,
    ) -> Result<(&Server, Response<Body>), RequestError> {
        let began = Instant::now();
        loop {
            let (server, response) = self.send_to_any(call).await?;
            let refused = matches!(
                response.status(),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
            if repeat == Repeat::Never || !refused {
                return Ok((server, response));
            }
            let pause = retry_after(&response).unwrap_or(RETRY_PAUSE);
            if began.elapsed() + pause > REFUSED_PATIENCE {
                return Ok((server, response));
            }
            // It may be this controller only that is stopping or cut off.
            let next = self.preferred.load(Ordering::Relaxed) + 1;
            self.preferred
                .store(next % self.servers.len(), Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }

    async fn send_to_any(
        &self,
        call: &Call<'_>,
    ) -> Result<(&Server, Response<Body>), RequestError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut unreachable = Vec::new();
        let mut broken = None;
        for offset in 0..self.servers.len() {
            let index = (first + offset) % self.servers.len();
            let server = &self.servers[index];
            let began = Instant::now();
            let sent = server.client.send(call.request()?);
            let result = self
                .within(server, call.bounded, async { Ok(sent.await) })
                .await?;
            if let Err(error) = &result
                && let Some(said) = plugin_failure(error)
            {
                return Err(RequestError::Plugin(said));
            }
            if self.verbose {
                self.trace(call, server, &result, began.elapsed());
            }
            match result {
                Ok(response) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok((server, response));
                }
                Err(error) => match connect_failure(&error) {
                    Some((kind, message)) => unreachable.push(Attempt {
                        server: server.url.clone(),
                        kind,
                        message,
                    }),
                    // The server may have done what was asked: only reading may be repeated.
                    None => {
                        let error = RequestError::Broken {
                            server: server.url.clone(),
                            source: error,
                        };
                        if !call.is_safe() {
                            return Err(error);
                        }
                        broken = Some(error);
                    }
                },
            }
        }
        Err(broken.unwrap_or(RequestError::Unreachable(unreachable)))
    }

    async fn within<T>(
        &self,
        server: &Server,
        bounded: bool,
        work: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        match self.timeout.filter(|_| bounded) {
            None => work.await,
            Some(after) => tokio::time::timeout(after, work).await.unwrap_or_else(|_| {
                Err(RequestError::TimedOut {
                    server: server.url.clone(),
                    after,
                })
            }),
        }
    }

    /// Only what is no secret: headers and bodies stay out.
    fn trace(
        &self,
        call: &Call<'_>,
        server: &Server,
        result: &Result<Response<Body>, kube::Error>,
        took: Duration,
    ) {
        let outcome = match result {
            Ok(response) => response.status().to_string(),
            Err(error) => crate::failure::chain(error),
        };
        eprintln!(
            "{} {}{} {outcome} in {} ms",
            call.method,
            server.url,
            call.path,
            took.as_millis()
        );
    }

    /// What the server says went wrong, or what its answer looks like if it isn't a Status.
    async fn failure(&self, server: &Server, response: Response<Body>) -> RequestError {
        let code = response.status();
        let body = match self.within(server, true, collect(server, response)).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        let mut status = serde_json::from_slice::<Status>(&body)
            .ok()
            .filter(|status| !status.message.is_empty() || !status.reason.is_empty())
            .unwrap_or_else(|| {
                let text = String::from_utf8_lossy(&body);
                let said = text.lines().next().unwrap_or_default();
                let message = match said.is_empty() {
                    true => format!("{} answered {code}", server.url),
                    false => format!("{} answered {code}: {said}", server.url),
                };
                Status::failure(&message, code.canonical_reason().unwrap_or_default())
            });
        status.code = code.as_u16();
        self.credential.refusal(status)
    }
}

/// The whole body, bounded.
async fn collect(server: &Server, response: Response<Body>) -> Result<Bytes, RequestError> {
    let limited = Limited::new(response.into_body(), MAX_ANSWER_BYTES);
    match limited.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(RequestError::Answer {
            server: server.url.clone(),
            message: format!("it is longer than {} MiB", MAX_ANSWER_BYTES >> 20),
        }),
        Err(error) => Err(RequestError::Broken {
            server: server.url.clone(),
            source: match error.downcast::<kube::Error>() {
                Ok(error) => *error,
                Err(error) => kube::Error::Service(error),
            },
        }),
    }
}

fn retry_after(response: &Response<Body>) -> Option<Duration> {
    let seconds = response.headers().get(header::RETRY_AFTER)?;
    Some(Duration::from_secs(seconds.to_str().ok()?.parse().ok()?))
}
