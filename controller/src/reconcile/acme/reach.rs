//! Whether the controllers give the answers that an authority is going to look for: what is committed is not yet
//! applied everywhere, and who finds one that lags finds nothing.

use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, join_all, select};
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::orders::Answer;
use crate::challenges::PATH;
use crate::store::Replica;

/// A controller that has not applied it by then is asked by the authority all the same: it may be one that nobody
/// finds.
const PATIENCE: Duration = Duration::from_secs(10);

/// For one question on the swarm's own ways.
const QUESTION: Duration = Duration::from_secs(2);

/// Between two questions.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a key authorization, and more.
const MAX_ANSWER: usize = 1024;

/// Waits until all controllers that answer at all give these answers.
pub async fn everywhere(replica: &Replica, answers: &[Answer]) {
    let state = replica.state();
    let end = Instant::now() + PATIENCE;
    let waits = state.controllers().map(|(id, member)| async move {
        let waited = timeout_at(end, all(&member.ingress, answers)).await;
        if waited.is_err() {
            tracing::debug!(controller = id, "does not answer an authority yet");
        }
    });
    join_all(waits).await;
}

async fn all(ingress: &str, answers: &[Answer]) {
    for answer in answers {
        // Who is not there is not asked by the authority either.
        while let Ok(Some(said)) = timeout(QUESTION, ask(ingress, answer)).await
            && said != answer.authorization
        {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// `None` where nobody answers.
async fn ask(ingress: &str, answer: &Answer) -> Option<String> {
    let stream = TcpStream::connect(ingress).await.ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    let request = Request::get(format!("{PATH}{}", answer.token))
        .header(HOST, &answer.name)
        .body(Empty::<Bytes>::new())
        .ok()?;
    let asked = async {
        let response = sender.send_request(request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_ANSWER);
        let body = body.collect().await.ok()?.to_bytes();
        Some(String::from_utf8_lossy(&body).into_owned())
    };
    match select(Box::pin(asked), Box::pin(connection)).await {
        Either::Left((said, _)) => said,
        // What it brought before it ended is still there.
        Either::Right((_, asked)) => asked.await,
    }
}
