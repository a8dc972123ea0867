//! Calls a function with a batch of records.
//!
//! Records come in, what became of them goes out. The call takes the way of any request: the ready copies,
//! their limits, the function's timeout. Nothing is tried again here but what no copy has seen; whoever
//! keeps the records decides when they come again.

use hive_proto::batch::{self, BatchError, BatchOutcome, CONTENT_TYPE, MAX_BYTES, Record};
use hive_proto::invoke::REASON;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Limited};

use super::{Forwarder, NothingRan};
use crate::ingress::repeat::full;
use crate::state::Key;

impl Forwarder {
    /// `path` is where the function takes batches.
    pub async fn batch(
        &self,
        function: &Key,
        path: &str,
        records: &[Record],
    ) -> Result<BatchOutcome, BatchError> {
        let body = batch::encode(records)?;
        let Key {
            namespace, name, ..
        } = function;
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, format!("{name}.{namespace}"))
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::CONTENT_LENGTH, body.len())
            .body(full(body));
        let request = match request {
            Ok(request) => request,
            Err(error) => {
                return Ok(BatchOutcome::Failed(format!(
                    "no request can be made: {error}"
                )));
            }
        };
        let response = self.by_name(function, request).await;
        let not_run = response.extensions().get::<NothingRan>().is_some();
        let (head, body) = response.into_parts();
        // Too much to be a report is none.
        let answer = match Limited::new(body, MAX_BYTES).collect().await {
            Ok(answer) => answer.to_bytes(),
            Err(error) => {
                return Ok(BatchOutcome::Failed(format!(
                    "its answer ended early: {error}"
                )));
            }
        };
        let outcome = batch::outcome(records, head.status, not_run, &answer);
        let reason = head
            .headers
            .get(REASON)
            .and_then(|reason| reason.to_str().ok());
        Ok(match (outcome, reason) {
            (BatchOutcome::Failed(why), Some(reason)) => {
                BatchOutcome::Failed(format!("{why} ({reason})"))
            }
            (outcome, _) => outcome,
        })
    }
}
