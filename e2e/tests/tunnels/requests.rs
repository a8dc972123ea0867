//! Requests whose bodies go on while they are answered: what the small client of the other tests cannot do.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Nothing on one machine takes longer, not even 64 MiB in a debug build.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Of requests that say all in their head.
pub fn nothing() -> Body {
    Empty::new().boxed_unsync()
}

pub fn streamed(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    let frames = pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)));
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// Sends it on a connection of its own; the answer's head, its body still to come.
pub async fn send(address: &str, request: Request<Body>) -> Response<Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection.with_upgrades());
    within("an answer begins", sender.send_request(request))
        .await
        .unwrap()
}

/// What comes next, as text.
pub async fn next(body: &mut Incoming) -> String {
    let frame = within("more of the answer", body.frame()).await;
    let frame = frame.expect("the answer goes on").unwrap();
    String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap()
}

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}
