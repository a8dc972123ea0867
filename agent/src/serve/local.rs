//! The local address: functions for the network that this machine is on, with no controller in
//! between. Plain HTTP/1.1, found by host and path.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Origin, Server};

/// Connections at once: a home's devices and a benchmark. Each costs some 20 KB; more wait in the
/// kernel's queue.
const MAX_CONNECTIONS: usize = 512;

/// For a request's head, and between requests: whoever is slower gives the connection to others.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// After an accept that failed for want of files or memory: to try at once would only spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
#[error(
    "cannot serve functions on {address}: choose another address with --listen, or \"--listen none\""
)]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

pub async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// Serves until `stop`; then takes no connection more, and those there are end with the request
/// they are at. `tasks` holds them.
pub async fn serve(
    listener: TcpListener,
    server: Server,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = stop.run_until_cancelled(async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        });
        match accepted.await {
            None | Some((Err(_), _)) => return,
            Some((Ok(permit), Ok((stream, _)))) => {
                let connection = connection(stream, server.clone(), stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Some((Ok(_), Err(error))) => {
                tracing::warn!(%error, "cannot accept a local connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, server: Server, stop: CancellationToken) {
    // Answers are small; waiting to fill packets only makes them late.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, std::convert::Infallible>(server.answer(request, Origin::Local).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "local connection ended");
    }
}
