//! A request for a function goes to one of its nodes, and to another one where nothing is lost by that.

use std::time::Duration;

use hive_proto::invoke::{self, MAX_REQUEST_BODY};
use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use super::Forwarder;
use super::errors::ForwardError;
use crate::gateway::{Body, Failed, SendError};
use crate::ingress::repeat::{Copy, gather};
use crate::ingress::routes::FunctionBackend;
use crate::ingress::split::Way;
use crate::spans::AnsweredBy;
use crate::traffic::Counting;

/// Nodes that get to see a request. When the copies of a function are overloaded, asking all of
/// them would only add to it.
const MAX_TRIES: usize = 3;

/// A function's timeout counts on the node. What is longer than it by this much is the node's fault.
const NODE_GRACE: Duration = Duration::from_secs(10);

/// A controller that just started is dialled by the nodes within this time as a rule. Who asks
/// before rather waits than reads of it.
const LINK_PATIENCE: Duration = Duration::from_secs(5);

impl Forwarder {
    pub(super) async fn send(
        &self,
        backend: &FunctionBackend,
        request: Request<Body>,
        mut copy: Option<Copy>,
    ) -> Result<Response<Counting<Incoming>>, ForwardError> {
        let ways = backend.ways(request.headers());
        self.invoker.linked(&ways.nodes(), LINK_PATIENCE).await;
        let mut next = Some(request);
        let (mut tries, mut unwilling, mut lost) = (0, None, None);
        for attempt in 0..ways.len() {
            let Some(way) = ways.get(attempt) else {
                break;
            };
            let Some(request) = next.take().or_else(|| copy.as_ref().map(Copy::request)) else {
                break;
            };
            let others = copy.is_some() && tries + 1 < MAX_TRIES && attempt + 1 < ways.len();
            match self.ask(backend, way, request, others).await {
                Ok(response) if response.headers().contains_key(invoke::RETRY) => {
                    unwilling = Some((response, way, others));
                }
                Ok(response) => return Ok(response),
                Err(failed) => {
                    next = failed.request;
                    if next.is_some() {
                        continue;
                    }
                    if matches!(failed.error, SendError::Silent) {
                        return Err(ForwardError::Silent);
                    }
                    lost = Some(failed.error);
                    // It may have been performed, so only what does no harm twice goes on.
                    copy = copy.filter(|copy| copy.method().is_idempotent());
                }
            }
            tries += 1;
            if tries == MAX_TRIES {
                break;
            }
        }
        // The nodes that were to be asked last could not be reached: then it waits at a busy one.
        if let (Some((_, way, true)), Some(copy)) = (&unwilling, &copy) {
            match self.ask(backend, *way, copy.request(), false).await {
                Ok(response) => return Ok(response),
                Err(failed) if failed.request.is_some() => {}
                Err(failed) if matches!(failed.error, SendError::Silent) => {
                    return Err(ForwardError::Silent);
                }
                Err(failed) => return Err(ForwardError::Lost(failed.error)),
            }
        }
        match (unwilling, lost) {
            // Says best why: it knows whether the function is busy or gone.
            (Some((response, ..)), _) => Ok(response),
            (None, Some(error)) => Err(ForwardError::Lost(error)),
            (None, None) => Err(ForwardError::NotReady(
                String::from_utf8_lossy(backend.function.as_bytes()).into_owned(),
            )),
        }
    }

    /// While there are `others` to ask, a request does not wait for its turn at a busy node.
    async fn ask(
        &self,
        backend: &FunctionBackend,
        Way { node, revision }: Way<'_>,
        mut request: Request<Body>,
        others: bool,
    ) -> Result<Response<Counting<Incoming>>, Failed> {
        let headers = request.headers_mut();
        match revision {
            Some(revision) => drop(headers.insert(invoke::REVISION, revision.clone())),
            None => drop(headers.remove(invoke::REVISION)),
        }
        if others {
            headers.insert(invoke::QUEUE_MS, HeaderValue::from_static("0"));
        } else {
            // From the try before, if that sent nothing.
            headers.remove(invoke::QUEUE_MS);
        }
        let patience = backend.timeout + NODE_GRACE;
        let (namespace, function) = (&backend.namespace, &backend.function);
        let asked_for = revision.and_then(|it| it.to_str().ok());
        let counted = self
            .loads
            .begin(&backend.key, asked_for.unwrap_or_default());
        let sent = self
            .invoker
            .send(node, namespace, function, request, patience)
            .await;
        if let Err(failed) = &sent {
            let error = &failed.error as &dyn std::error::Error;
            tracing::debug!(node, error, "no answer of node");
        }
        sent.map(|response| {
            let mut response = counted.answered(response);
            if self.spans.is_some() {
                response.extensions_mut().insert(AnsweredBy {
                    node: node.to_owned(),
                    revision: revision.cloned(),
                });
            }
            response
        })
    }
}

/// As [`gather`], of what may be for a function.
pub async fn gathered(
    request: Request<Body>,
) -> Result<(Request<Body>, Option<Copy>), ForwardError> {
    if request.body().size_hint().lower() > MAX_REQUEST_BODY {
        return Err(ForwardError::BodyTooLarge);
    }
    Ok(gather(request).await?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http::StatusCode;

    use super::super::errors;
    use super::*;
    use crate::ingress::repeat::full;

    #[tokio::test]
    async fn a_body_over_the_limit_is_refused_before_it_is_read() {
        let body = full(vec![0; MAX_REQUEST_BODY as usize + 1]);
        let refused = gathered(Request::new(body)).await.err().unwrap();
        let response = errors::response(&refused);
        assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(response.headers()["x-hive-reason"], "BodyTooLarge");
    }
}
