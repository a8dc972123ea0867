//! The public door for TLS: the name that a client asks for, before anything is decided, says whether its bytes are
//! passed through to a tunnel's target or TLS ends here, and HTTP begins.
//!
//! What is passed through was never open here. A client that asks for a name that nobody has hears so.

mod hello;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hive_proto::invoke::REASON;
use hive_tunnels::abort;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::server::Accepted as Hello;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::StartHandshake;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::forward::host_of;
use super::repeat::text;
use super::routes::plain_host;
use super::{HEADER_TIMEOUT, Ingress, Origin, READ_TIMEOUT, Scheme, drain};
use crate::accept::{Accepted, Doorway};
use crate::challenges::ACME_TLS;
use crate::gateway::Body;
use crate::patience;
use crate::tunnels::Tunnels;
use crate::tunnels::carry::{Client, carry};
use crate::tunnels::certificates::Certificate;
use crate::tunnels::live::TOO_MANY;
use crate::tunnels::names::{Door, Names, Refusal};

/// For a whole handshake, from the connection's first byte on: as long as for the head of a request.
const HANDSHAKE_TIMEOUT: Duration = HEADER_TIMEOUT;

/// Greetings that are read at once; more connections wait in the kernel's queue. One may have 20 KiB, which are there
/// twice until it is understood: 40 MiB of all are what a small machine can spare.
const MAX_GREETINGS: usize = 1_024;

/// A fatal alert, unrecognized_name, as it is said before there are keys (RFC 8446, 5.1 and 6.2).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// What a client of a connection saw: for which name it asked, and the certificate.
pub struct Shown {
    names: Names,
    name: String,
    certificate: Arc<Certificate>,
}

impl Shown {
    /// Whether a request is for a host that is served with this certificate. Browsers send what is for another
    /// one on the same connection if the certificate is good for both (RFC 9110, 7.4).
    pub fn is_for<B>(&self, request: &Request<B>) -> bool {
        let host = plain_host(host_of(request));
        *host == self.name || self.names.has(&host, &self.certificate)
    }
}

/// For a host that is to be asked for on another connection.
pub fn misdirected() -> Response<Body> {
    let said = "421 Misdirected: this connection is for another host\n";
    let mut response = text(StatusCode::MISDIRECTED_REQUEST, said);
    let reason = HeaderValue::from_static("Misdirected");
    response.headers_mut().insert(REASON, reason);
    response
}

impl Ingress {
    /// Takes TLS until cancelled, then lets requests under way finish. What is passed through ends with its
    /// tunnels.
    pub async fn serve_tls(
        self,
        listener: TcpListener,
        tunnels: Tunnels,
        cancel: CancellationToken,
    ) {
        let doorway = Doorway::sharing(listener, self.places.clone(), "TLS ingress");
        let room = Arc::new(Semaphore::new(MAX_GREETINGS));
        let (graceful, open) = (GracefulShutdown::new(), TaskTracker::new());
        while let Some((accepted, reading)) = next(&doorway, &room, &cancel).await {
            let Accepted {
                stream,
                remote,
                place,
            } = accepted;
            patience::prepare(&stream);
            let guest = Guest {
                ingress: self.clone(),
                tunnels: tunnels.clone(),
                remote,
                place,
            };
            let watcher = graceful.watcher();
            let cancel = cancel.clone();
            open.spawn(async move {
                let until = Instant::now() + HANDSHAKE_TIMEOUT;
                let greeted = cancel
                    .run_until_cancelled(greet(stream, until, reading))
                    .await;
                if let Some(greeted) = greeted {
                    guest.go_on(greeted, until, watcher).await;
                }
            });
        }
        drop(doorway);
        drain(graceful, &open).await;
    }
}

impl Ingress {
    /// How to answer an authority of certificates that looks whether a name leads here. What targets order is
    /// passed through to them.
    fn challenged(&self, hello: &Hello, name: &str) -> Option<Arc<ServerConfig>> {
        let hello = hello.client_hello();
        if !hello.alpn()?.any(|protocol| protocol == ACME_TLS) {
            return None;
        }
        self.forwarder.challenges().challenge_config(name)
    }
}

/// The next connection, once there is room to read what it says; `None` once cancelled.
async fn next(
    doorway: &Doorway,
    room: &Arc<Semaphore>,
    cancel: &CancellationToken,
) -> Option<(Accepted, OwnedSemaphorePermit)> {
    let reading = room.clone().acquire_owned();
    let reading = cancel.run_until_cancelled(reading).await?;
    let reading = reading.expect("the semaphore is never closed");
    Some((doorway.accept(cancel).await?, reading))
}

/// A connection, and what was read of it.
struct Greeted {
    stream: TcpStream,
    hello: Result<Hello, Refusal>,
    said: Vec<u8>,
}

async fn greet(mut stream: TcpStream, until: Instant, _reading: OwnedSemaphorePermit) -> Greeted {
    let mut said = Vec::new();
    let hello = timeout_at(until, hello::read(&mut stream, &mut said)).await;
    Greeted {
        stream,
        hello: hello.unwrap_or(Err(Refusal::Slow)),
        said,
    }
}

/// In lower case; empty where a client names nobody.
fn asked_for(hello: &Hello) -> String {
    let hello = hello.client_hello();
    let name = hello.server_name().unwrap_or_default();
    plain_host(name).into_owned()
}

/// Who is at the door.
struct Guest {
    ingress: Ingress,
    tunnels: Tunnels,
    remote: SocketAddr,
    place: OwnedSemaphorePermit,
}

impl Guest {
    async fn go_on(self, greeted: Greeted, until: Instant, watcher: Watcher) {
        let Greeted {
            mut stream,
            hello,
            said,
        } = greeted;
        let remote = self.remote;
        let names = self.tunnels.names.clone();
        let refused = |refusal: Refusal| {
            names.count(refusal);
            tracing::debug!(%remote, %refusal, "a TLS connection was refused");
        };
        let hello = match hello {
            Ok(hello) => hello,
            Err(refusal) => return refused(refusal),
        };
        let name = asked_for(&hello);
        if let Some(config) = self.ingress.challenged(&hello, &name) {
            let handshake = StartHandshake::from_parts(hello, stream).into_stream(config);
            // An authority has seen all that it came for.
            let _ = timeout_at(until, handshake).await;
            return;
        }
        let door = names.find(&name);
        match door {
            Some(Door::Passed(tunnel)) => {
                // One that is no more: its client may come again.
                let Some(live) = self.tunnels.get(&tunnel) else {
                    return;
                };
                // It may last: requests need theirs.
                let Some(place) = self.tunnels.places.take() else {
                    live.count_failure(TOO_MANY);
                    tracing::debug!(%tunnel, %remote, "no place is left for a connection");
                    return abort(stream);
                };
                drop(self.place);
                let client = Client {
                    stream,
                    from: remote,
                    said,
                };
                let carried = carry(self.tunnels.clone(), live, client);
                self.tunnels.spawn(async move {
                    carried.await;
                    drop(place);
                });
            }
            Some(Door::Ended(certificate)) => {
                drop(said);
                patience::expect_reading(&stream, READ_TIMEOUT);
                let handshake = StartHandshake::from_parts(hello, stream);
                let handshake = handshake.into_stream(certificate.config.clone());
                let stream = match timeout_at(until, handshake).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(_)) => return refused(Refusal::Handshake),
                    Err(_) => return refused(Refusal::Slow),
                };
                let origin = Origin {
                    client: remote.ip(),
                    scheme: Scheme::Https,
                };
                let shown = Shown {
                    names,
                    name,
                    certificate,
                };
                let ingress = &self.ingress;
                ingress.converse(stream, origin, Some(shown), watcher).await;
            }
            None => {
                refused(Refusal::UnrecognizedName);
                // A client that is gone need not hear it.
                let told = async {
                    stream.write_all(&UNRECOGNIZED_NAME).await?;
                    stream.shutdown().await
                };
                let _ = timeout_at(until, told).await;
            }
        }
    }
}
