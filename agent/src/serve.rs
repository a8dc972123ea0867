//! Functions over HTTP: to the local network on an address of this machine, and to the controllers'
//! ingress in streams of their links.
//!
//! A request comes in, the [`table`] says whose it is, an instance answers. Only a controller may
//! name a function by header; whoever else says so is not heard. Every failure gets its answer in
//! [`answer`], and every answer the id of its request.

pub mod answer;
pub mod body;
pub mod invoke;
pub mod local;
pub mod log_stream;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use hive_functions::{BoxBody, Function, InvokeError, Waited};
use hive_proto::invoke::{
    FUNCTION, MAX_REQUEST_BODY, NAMESPACE, QUEUE_MS, REQUEST_ID, REVISION, WAITED_US, request_id,
};
use hive_proto::routes::Chosen;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use tokio::sync::{mpsc, watch};

use crate::ids::FunctionId;
use crate::logs::Version;
use answer::Failure;
use body::Bounded;
use table::Table;

/// Headers that start so are between controllers and agents: neither callers nor guests write them.
const INTERNAL_PREFIX: &str = "x-hive-";

/// One instance that serves.
pub struct Instance {
    pub id: FunctionId,
    pub version: Version,
    /// The revision that it tries, if it does.
    pub trial: Option<String>,
    pub function: Function,
    /// Whom to tell when its code is not to be had any more.
    pub lost: mpsc::Sender<Arc<Instance>>,
}

/// Who asks, and so how the function is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By host and path.
    Local,
    /// By the headers in which a controller names it.
    Controller,
}

/// Answers requests with what the table holds now. A clone is the same.
#[derive(Clone)]
pub struct Server {
    table: watch::Receiver<Arc<Table<Instance>>>,
}

impl Server {
    pub fn new(table: watch::Receiver<Arc<Table<Instance>>>) -> Self {
        Self { table }
    }

    /// Never fails: what goes wrong becomes an answer.
    pub async fn answer(&self, request: Request<Incoming>, origin: Origin) -> Response<BoxBody> {
        let (mut head, body) = request.into_parts();
        let id = request_id(&mut head.headers);
        let found = self.find(&head, origin);
        let patience = match origin {
            Origin::Controller => patience(&head.headers),
            Origin::Local => None,
        };
        remove_internal(&mut head.headers);
        let request = Request::from_parts(head, body);

        let mut response = match found {
            Ok(instance) => self.invoke(instance, patience, request).await,
            Err(failure) => failure.into_response(),
        };
        response.headers_mut().insert(REQUEST_ID, id);
        if origin == Origin::Controller {
            tell_wait(&mut response);
        }
        response
    }

    async fn invoke(
        &self,
        instance: Arc<Instance>,
        patience: Option<Duration>,
        request: Request<Incoming>,
    ) -> Response<BoxBody> {
        let declared = http_body::Body::size_hint(request.body()).lower();
        if declared > MAX_REQUEST_BODY {
            return Failure::BodyTooLarge.into_response();
        }
        let mut exceeded = None;
        let request = request.map(|body| {
            let (body, over) = Bounded::new(body, MAX_REQUEST_BODY);
            exceeded = Some(over);
            BoxBody::new(body)
        });
        let answered = match patience {
            None => instance.function.handle(request).await,
            Some(patience) => instance.function.handle_within(patience, request).await,
        };
        match answered {
            Ok(mut response) => {
                remove_internal(response.headers_mut());
                response
            }
            // What the guest made of a body that was cut off is not its fault.
            Err(_) if exceeded.is_some_and(|exceeded| exceeded.is_set()) => {
                Failure::BodyTooLarge.into_response()
            }
            // The function itself has told its log, and so the events.
            Err(error) => {
                if matches!(error, InvokeError::Code(_)) {
                    // Where that is full, others were lost before: the next request tells of this one.
                    let _ = instance.lost.try_send(instance.clone());
                }
                failed(error)
            }
        }
    }

    fn find(&self, head: &Parts, origin: Origin) -> Result<Arc<Instance>, Failure> {
        let table = self.table.borrow().clone();
        let mut revision = None;
        let function = match origin {
            Origin::Controller => {
                revision = text(&head.headers, REVISION);
                named(&head.headers).ok_or(Failure::NotNamed)?
            }
            Origin::Local => {
                let (host, path) = (host(&head.uri, &head.headers), head.uri.path());
                match table.route(&host, head.method.as_str(), path) {
                    Chosen::One(function) => function.clone(),
                    Chosen::OtherMethods(allowed) => return Err(Failure::NoMethod { allowed }),
                    Chosen::Nobody => {
                        return Err(Failure::NoRoute {
                            host,
                            path: path.to_owned(),
                            known: table.hosts().map(str::to_owned).collect(),
                        });
                    }
                }
            }
        };
        table
            .instance(&function, revision)
            .ok_or(Failure::NotReady { function })
    }
}

fn named(headers: &HeaderMap) -> Option<FunctionId> {
    Some(FunctionId::new(
        text(headers, NAMESPACE)?,
        text(headers, FUNCTION)?,
    ))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

/// How long the request may wait for its turn here, where that is not for the function to say.
fn patience(headers: &HeaderMap) -> Option<Duration> {
    let millis = text(headers, QUEUE_MS)?.parse().ok()?;
    Some(Duration::from_millis(millis))
}

fn failed(error: InvokeError) -> Response<BoxBody> {
    let waited = match error {
        InvokeError::QueueTimeout(patience) | InvokeError::MemoryPressure(patience) => {
            Some(Waited(patience))
        }
        _ => None,
    };
    let mut response = Failure::Invoke(error).into_response();
    if let Some(waited) = waited {
        response.extensions_mut().insert(waited);
    }
    response
}

/// Says how long the request waited for its turn, where that is known.
fn tell_wait<B>(response: &mut Response<B>) {
    if let Some(Waited(time)) = response.extensions().get().copied() {
        // A request waits for minutes at most.
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let headers = response.headers_mut();
        headers.insert(WAITED_US, HeaderValue::from(micros));
    }
}

/// As the request's target says, or its `Host`; without the port.
fn host(uri: &Uri, headers: &HeaderMap) -> String {
    let authority = uri
        .authority()
        .map(|authority| authority.as_str())
        .or_else(|| headers.get(HOST)?.to_str().ok())
        .unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        // Not the last part of an IPv6 address.
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    host.to_ascii_lowercase()
}

fn remove_internal(headers: &mut HeaderMap) {
    let internal: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(INTERNAL_PREFIX))
        .cloned()
        .collect();
    for name in internal {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_str(value).unwrap())
            })
            .collect()
    }

    #[test]
    fn hosts_come_without_port_and_in_lower_case() {
        for (uri, header, expected) in [
            (
                "/",
                "Hello.Default.localhost:8080",
                "hello.default.localhost",
            ),
            ("/", "a.b", "a.b"),
            ("http://c.d:1/", "a.b", "c.d"),
            ("/", "[::1]:80", "[::1]"),
            ("/", "[::1]", "[::1]"),
        ] {
            let found = host(&uri.parse().unwrap(), &headers(&[("host", header)]));
            assert_eq!(found, expected);
        }
        assert_eq!(host(&Uri::from_static("/"), &HeaderMap::new()), "");
    }

    #[test]
    fn how_long_a_request_waited_is_told_where_it_did() {
        let mut response = Response::new(());
        tell_wait(&mut response);
        assert_eq!(response.headers(), &HeaderMap::new());
        response
            .extensions_mut()
            .insert(Waited(Duration::from_millis(3)));
        tell_wait(&mut response);
        assert_eq!(response.headers()[WAITED_US], "3000");

        let mut in_vain = failed(InvokeError::QueueTimeout(Duration::from_secs(10)));
        tell_wait(&mut in_vain);
        assert_eq!(in_vain.headers()[WAITED_US], "10000000");
        let mut at_once = failed(InvokeError::Overloaded);
        tell_wait(&mut at_once);
        assert!(!at_once.headers().contains_key(WAITED_US));
    }

    #[test]
    fn internal_headers_do_not_get_through() {
        let mut all = headers(&[
            ("x-hive-namespace", "a"),
            ("x-hive-anything", "b"),
            ("accept", "c"),
        ]);
        remove_internal(&mut all);
        assert_eq!(all, headers(&[("accept", "c")]));
    }
}
