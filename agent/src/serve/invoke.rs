//! One stream of purpose Invoke: a controller's ingress sends requests of HTTP/1.1, one after
//! another, each naming its function in headers that only a controller may write.

use hive_proto::link::Stream;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;

use super::{Origin, Server};

/// Serves the stream until its end, or until the request that it is at when `stop` comes. There is
/// no timeout between requests: a stream is the ingress's to keep, and their number is the link's bound.
pub async fn serve(stream: Stream, server: Server, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let server = server.clone();
        async move {
            Ok::<_, std::convert::Infallible>(server.answer(request, Origin::Controller).await)
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "invocation stream ended");
    }
}
