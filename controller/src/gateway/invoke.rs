//! Requests to functions: HTTP/1.1 over streams of the link to a node, reused while idle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use hive_proto::link::Purpose;
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::{NodeUnreachable, Nodes};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Name the function to the agent; it trusts them on a link only.
const NAMESPACE_HEADER: &str = "x-hive-namespace";
const FUNCTION_HEADER: &str = "x-hive-function";

/// Idle streams kept for each link: what a burst of requests leaves behind. A stream costs a few
/// KB at both ends.
const IDLE_STREAMS: usize = 64;

#[derive(Clone)]
pub struct Invoker {
    nodes: Nodes,
    /// By link id.
    idle: Arc<Mutex<HashMap<u64, Vec<SendRequest<Body>>>>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nothing of the request reached the node: it may be sent elsewhere.
    #[error(transparent)]
    Unsent(#[from] NodeUnreachable),
    #[error("the link to the node broke while it answered")]
    Broken(#[source] hyper::Error),
    #[error("cannot start HTTP on a stream to the node")]
    Handshake(#[source] hyper::Error),
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
            idle: Arc::default(),
        }
    }

    /// Sends a request to a function on a node; the answer's body streams.
    pub async fn send(
        &self,
        node: &str,
        namespace: &HeaderValue,
        function: &HeaderValue,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Failed> {
        let headers = request.headers_mut();
        headers.insert(NAMESPACE_HEADER, namespace.clone());
        headers.insert(FUNCTION_HEADER, function.clone());
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
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.keep(link, sender);
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

    async fn sender(&self, node: &str) -> Result<(u64, SendRequest<Body>, bool), SendError> {
        let link = self
            .nodes
            .link(node)
            .ok_or_else(|| NodeUnreachable::NotLinked(node.to_owned()))?;
        let id = link.id();
        if let Some(sender) = self.take_idle(id) {
            return Ok((id, sender, true));
        }
        let stream = link
            .open(Purpose::Invoke)
            .await
            .map_err(|source| NodeUnreachable::Link {
                node: node.to_owned(),
                source,
            })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(SendError::Handshake)?;
        // Owned by its sender and its response: ends when both are dropped, or with the link.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(link = id, %error, "invocation stream ended");
            }
        });
        Ok((id, sender, false))
    }

    fn take_idle(&self, link: u64) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().expect("no holder of the lock panics");
        let streams = idle.get_mut(&link)?;
        while let Some(sender) = streams.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    /// Keeps a stream for the next request once the answer under way has been read to its end.
    fn keep(&self, link: u64, mut sender: SendRequest<Body>) {
        let idle = self.idle.clone();
        tokio::spawn(async move {
            if sender.ready().await.is_err() {
                return;
            }
            let mut idle = idle.lock().expect("no holder of the lock panics");
            let streams = idle.entry(link).or_default();
            if streams.len() < IDLE_STREAMS {
                streams.push(sender);
            }
        });
    }

    /// Forgets the streams of a link that is gone.
    pub(super) fn forget(&self, link: u64) {
        self.idle
            .lock()
            .expect("no holder of the lock panics")
            .remove(&link);
    }
}
