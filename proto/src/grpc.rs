//! gRPC in the streams of a link: each stream is one HTTP/2 connection.
//! A caller makes one channel per use, so that a long download and a session don't share the order
//! of one connection. TLS and keep-alive are the link's; nothing here may do them again.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use hive_identity::Peer;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint, Server};

use crate::link::{Link, LinkError, Purpose, Stream, Transport};

/// Bound of one message in either direction: desired state of a thousand assignments is less, and
/// whatever is bigger goes in chunks. Generated clients and servers have the same bound for what
/// they receive, unless told otherwise.
pub const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// Calls under way at once in one stream. A session is one, a member of Raft a handful.
const MAX_CONCURRENT_CALLS: u32 = 64;

/// What may be under way in one call, and in all of one stream. HTTP/2's own 64 KiB would hold a
/// download to 1.3 MB/s at a round trip of 50 ms; beyond the link's stream window more is no use.
const CALL_WINDOW: u32 = 256 * 1024;
const STREAM_WINDOW: u32 = 2 * CALL_WINDOW;

/// Who called: in the extensions of every request that came over a link.
#[derive(Debug, Clone)]
pub struct LinkInfo {
    /// `None` for one without a certificate, who may only enrol.
    pub peer: Option<Peer>,
    pub remote: Option<SocketAddr>,
    pub transport: Transport,
    pub link_id: u64,
}

/// A client's side: opens its stream at the first call, and another should that one break while
/// the link lives.
pub fn channel(link: Link) -> Channel {
    Endpoint::from_static("http://link.hive.internal")
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let link = link.clone();
            async move {
                let stream = link.open(Purpose::Grpc).await?;
                Ok::<_, LinkError>(TokioIo::new(stream))
            }
        }))
}

/// Serves `routes` in the streams that come, until `incoming` ends; with `cancel`, no call more is
/// begun and those under way are awaited.
pub async fn serve(
    routes: Routes,
    incoming: mpsc::Receiver<GrpcStream>,
    cancel: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let incoming = futures::stream::unfold(incoming, |mut incoming| async move {
        let stream = incoming.recv().await?;
        Some((Ok::<_, io::Error>(stream), incoming))
    });
    Server::builder()
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW)
        .max_concurrent_streams(MAX_CONCURRENT_CALLS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, cancel.cancelled_owned())
        .await
}

/// A stream of purpose [`Grpc`](Purpose::Grpc) on its way to [`serve`].
#[derive(Debug)]
pub struct GrpcStream {
    stream: Stream,
    info: LinkInfo,
}

impl GrpcStream {
    pub fn new(stream: Stream) -> Self {
        let link = stream.link();
        let info = LinkInfo {
            peer: link.peer().cloned(),
            remote: link.remote(),
            transport: link.transport(),
            link_id: link.id(),
        };
        Self { stream, info }
    }
}

impl Connected for GrpcStream {
    type ConnectInfo = LinkInfo;

    fn connect_info(&self) -> LinkInfo {
        self.info.clone()
    }
}

impl AsyncRead for GrpcStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for GrpcStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
