//! The swarm's API as commands use it: requests in, JSON out, whichever controller answers.
//!
//! A request goes to the server that answered last; when it cannot be reached, to the next one
//! of the kubeconfig. Objects travel as JSON values, so that nothing a newer server sends is lost.
//! It never prints a header or a body: with `-v` only method, path, status and time.

pub mod path;
mod transport;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hive_manifests::Resource;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::client::Body;
use kube::core::Status;
use serde_json::Value;

pub use transport::Sent;

use crate::kubeconfig::KubeconfigError;

/// Asks the server to lay the result out as kubectl's tables; who cannot answers with objects.
pub const AS_TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1, application/json";
const AS_JSON: &str = "application/json";

/// How long a refused request (429, 503) is repeated. An election takes about a second, so a
/// command that meets one succeeds without its user noticing.
const REFUSED_PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts, when the server names no time itself.
const RETRY_PAUSE: Duration = Duration::from_millis(300);
/// The most that an answer may hold in memory: a list of 100,000 objects of 2 KiB fits.
const MAX_ANSWER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    #[error("cannot reach the swarm: {}", attempts(.0))]
    Unreachable(Vec<Attempt>),
    #[error("{server} did not answer within {}", crate::age::human(*.after))]
    TimedOut { server: String, after: Duration },
    #[error("the connection to {server} broke")]
    Broken {
        server: String,
        #[source]
        source: kube::Error,
    },
    /// The server answered with a failure.
    #[error("{}", .0.message)]
    Status(Box<Status>),
    #[error("the answer of {server} is not what was asked for: {message}")]
    Answer { server: String, message: String },
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
}

/// A server that could not be reached.
#[derive(Debug)]
pub struct Attempt {
    server: String,
    kind: Unreachable,
    message: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Unreachable {
    Refused,
    Certificate,
    Other,
}

fn attempts(attempts: &[Attempt]) -> String {
    let shown: Vec<String> = attempts
        .iter()
        .map(|attempt| format!("{} ({})", attempt.server, attempt.message))
        .collect();
    shown.join(", ")
}

impl RequestError {
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Status(status) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    /// The watched history is gone: list again.
    pub fn is_gone(&self) -> bool {
        self.status().is_some_and(|status| status.code == 410)
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreachable(attempts)
                if attempts
                    .iter()
                    .all(|attempt| attempt.kind == Unreachable::Refused) =>
            {
                Some("is the swarm running? `hive up` starts one here".into())
            }
            Self::Unreachable(attempts)
                if attempts
                    .iter()
                    .any(|attempt| attempt.kind == Unreachable::Certificate) =>
            {
                Some(
                    "the kubeconfig may be of another swarm: compare its certificate-authority-data with the swarm's ca.crt"
                        .into(),
                )
            }
            Self::Status(status) if status.code == 401 => Some(
                "the token of the kubeconfig is unknown, expired or revoked; an admin makes one with `hivectl token create --kind api`"
                    .into(),
            ),
            _ => None,
        }
    }
}

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
}

/// One request, before it is known which server gets it.
pub struct Call<'a> {
    method: Method,
    path: &'a str,
    accept: &'a str,
    content_type: &'a str,
    body: Bytes,
    sent: Option<Sent>,
    headers: Vec<(http::HeaderName, HeaderValue)>,
    bounded: bool,
}

impl<'a> Call<'a> {
    pub fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            accept: AS_JSON,
            content_type: AS_JSON,
            body: Bytes::new(),
            sent: None,
            headers: Vec::new(),
            bounded: true,
        }
    }

    pub fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    pub fn accept(mut self, accept: &'a str) -> Self {
        self.accept = accept;
        self
    }

    pub fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string().into();
        self
    }

    pub fn body(mut self, content_type: &'a str, body: Bytes) -> Self {
        self.content_type = content_type;
        self.body = body;
        self
    }

    pub fn counted(mut self, sent: Sent) -> Self {
        self.sent = Some(sent);
        self
    }

    pub fn header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The answer may take as long as it takes: watches, logs, uploads.
    pub fn unbounded(mut self) -> Self {
        self.bounded = false;
        self
    }

    fn request(&self) -> Result<Request<Body>, http::Error> {
        let mut request = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header(header::ACCEPT, self.accept);
        if !self.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, self.content_type);
        }
        if let Some(sent) = &self.sent {
            request = request.extension(sent.clone());
        }
        if let Some(headers) = request.headers_mut() {
            for (name, value) in &self.headers {
                // The first value replaces ours, further ones of the same name are added.
                let ours = self
                    .headers
                    .iter()
                    .find(|(first, _)| first == name)
                    .is_some_and(|(_, first)| std::ptr::eq(first, value));
                if ours {
                    headers.insert(name.clone(), value.clone());
                } else {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        request.body(Body::from(self.body.clone()))
    }

    /// Whether sending it twice is the same as sending it once.
    fn is_safe(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }
}

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
                    client: transport::client(config).map_err(KubeconfigError::Credentials)?,
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            servers,
            preferred: AtomicUsize::new(0),
            timeout,
            verbose,
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
            dry_run.then_some(("dryRun", "All")),
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
            dry_run.then_some(("dryRun", "All")),
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
        RequestError::Status(status.boxed())
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

/// Why no connection came about, if that is what the error says.
fn connect_failure(error: &kube::Error) -> Option<(Unreachable, String)> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    let mut is_connect = false;
    let mut kind = Unreachable::Other;
    let mut innermost = error.to_string();
    while let Some(cause) = source {
        if let Some(error) = cause.downcast_ref::<hyper_util::client::legacy::Error>() {
            is_connect = error.is_connect();
        }
        if let Some(error) = cause.downcast_ref::<std::io::Error>()
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            kind = Unreachable::Refused;
        }
        innermost = cause.to_string();
        source = cause.source();
    }
    // rustls' errors arrive inside io::Error without a source of their own.
    if innermost.contains("certificate") {
        kind = Unreachable::Certificate;
    }
    let message = match kind {
        Unreachable::Refused => "connection refused".to_owned(),
        Unreachable::Certificate | Unreachable::Other => innermost,
    };
    is_connect.then_some((kind, message))
}
