//! An HTTP server in this process, so that what answers behind it is asked like any other.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use hive_functions::BoxBody;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// Answers on a port of loopback until the runtime ends. An error becomes a 502.
pub async fn serve<F, A>(answer: F) -> anyhow::Result<SocketAddr>
where
    F: Fn(Request<BoxBody>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = anyhow::Result<Response<BoxBody>>> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let answer = answer.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let answering = answer(request.map(|body| BoxBody::new(body.map_err(Into::into))));
                async move {
                    Ok::<_, Infallible>(answering.await.unwrap_or_else(|error| {
                        eprintln!("warning: {error:#}");
                        let body = Empty::<Bytes>::new().map_err(|never| match never {});
                        let mut response = Response::new(BoxBody::new(body));
                        *response.status_mut() = StatusCode::BAD_GATEWAY;
                        response
                    }))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}
