//! Requests to functions: HTTP/1.1 over streams of the link to a node, reused while idle.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hive_proto::invoke;
use hive_proto::link::{Link, Purpose};
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::{NodeUnreachable, Nodes, nodes};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Streams kept for each link: what a burst of requests leaves behind. A stream costs a few KB at
/// both ends.
const KEPT_STREAMS: usize = 64;

/// Of these, how many are looked at for one that is free: they are kept in the order in which they
/// were used, so the first are the likeliest.
const LOOKED_AT: usize = 4;

#[derive(Clone)]
pub struct Invoker {
    nodes: Nodes,
    /// By link id; the least recently used first. Some are still at their last answer.
    kept: Arc<Mutex<HashMap<u64, Kept>>>,
}

type Kept = VecDeque<SendRequest<Body>>;

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request reached the node: it may be sent elsewhere.
    #[error(transparent)]
    Unsent(#[from] NodeUnreachable),
    #[error("the link to the node broke while it answered")]
    Broken(#[source] hyper::Error),
    #[error("cannot start HTTP on a stream to the node")]
    Handshake(#[source] hyper::Error),
    #[error("the node did not begin to answer in time")]
    Silent,
}

/// A request that came to nothing, given back if nothing of it was sent.
pub struct Failed {
    pub error: SendError,
    pub request: Option<Request<Body>>,
}

impl Invoker {
    pub fn new(nodes: Nodes) -> Self {
        Self {
            nodes,
            kept: Arc::default(),
        }
    }

    /// Waits until one of `nodes` can be sent to, for `patience` at most.
    pub async fn linked(&self, nodes: &[String], patience: Duration) {
        self.nodes.links().linked(nodes, patience).await;
    }

    /// Sends a request to a function on a node, which has `patience` to begin its answer; the
    /// answer's body streams.
    pub async fn send(
        &self,
        node: &str,
        namespace: &HeaderValue,
        function: &HeaderValue,
        mut request: Request<Body>,
        patience: Duration,
    ) -> Result<Response<Incoming>, Failed> {
        let headers = request.headers_mut();
        headers.insert(invoke::NAMESPACE, namespace.clone());
        headers.insert(invoke::FUNCTION, function.clone());
        loop {
            let (link, mut sender, reused) = match self.sender(node).await {
                Ok(found) => found,
                Err(error) => {
                    return Err(Failed {
                        error,
                        request: Some(request),
                    });
                }
            };
            let sent = sender.try_send_request(request);
            let Ok(sent) = tokio::time::timeout(patience, sent).await else {
                // Its stream ends with the sender.
                return Err(Failed {
                    error: SendError::Silent,
                    request: None,
                });
            };
            match sent {
                Ok(response) => {
                    self.keep(&link, sender);
                    return Ok(response);
                }
                Err(mut failed) => match failed.take_message() {
                    // An idle stream that its other end closed meanwhile; the next is another.
                    Some(unsent) if reused => request = unsent,
                    unsent => {
                        return Err(Failed {
                            error: SendError::Broken(failed.into_error()),
                            request: unsent,
                        });
                    }
                },
            }
        }
    }

    async fn sender(&self, node: &str) -> Result<(Link, SendRequest<Body>, bool), SendError> {
        let link = self
            .nodes
            .links()
            .of(node)
            .ok_or_else(|| NodeUnreachable::NotLinked(node.to_owned()))?;
        if let Some(sender) = self.take_kept(link.id()) {
            return Ok((link, sender, true));
        }
        let stream = nodes::open(&link, node, Purpose::Invoke).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Handshake)?;
        let id = link.id();
        // Owned by its sender and its response: ends when both are dropped, or with the link.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(link = id, %error, "invocation stream ended");
            }
        });
        Ok((link, sender, false))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Kept>> {
        self.kept.lock().expect("no holder of the lock panics")
    }

    fn take_kept(&self, link: u64) -> Option<SendRequest<Body>> {
        let mut kept = self.lock();
        let streams = kept.get_mut(&link)?;
        let mut index = 0;
        while index < streams.len().min(LOOKED_AT) {
            if streams[index].is_ready() {
                return streams.remove(index);
            }
            if streams[index].is_closed() {
                streams.remove(index);
            } else {
                index += 1;
            }
        }
        None
    }

    /// Keeps a stream for another request; it may still be at the answer of this one, which then
    /// keeps it from being taken.
    fn keep(&self, link: &Link, sender: SendRequest<Body>) {
        let mut kept = self.lock();
        // Asked under the lock: whoever forgets the link does so after its end.
        if link.end().is_some() {
            return;
        }
        let streams = kept.entry(link.id()).or_default();
        if streams.len() >= KEPT_STREAMS {
            streams.pop_front();
        }
        streams.push_back(sender);
    }

    /// Forgets the streams of a link that is gone.
    pub(super) fn forget(&self, link: u64) {
        self.lock().remove(&link);
    }
}
