//! Connections at a public port: so many at once, and more wait in the kernel's queue.
//!
//! An error of `accept` ends nothing: it is said, and tried again after a pause.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// After an error of `accept` such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

pub struct Doorway {
    listener: TcpListener,
    places: Arc<Semaphore>,
    /// As it is called in logs.
    name: &'static str,
}

/// One connection, and its place: to be held for as long as the connection lives.
pub struct Accepted {
    pub stream: TcpStream,
    pub remote: SocketAddr,
    pub place: OwnedSemaphorePermit,
}

impl Doorway {
    pub fn new(listener: TcpListener, most: usize, name: &'static str) -> Self {
        Self::sharing(listener, Arc::new(Semaphore::new(most)), name)
    }

    /// One of several that have so many places together.
    pub fn sharing(listener: TcpListener, places: Arc<Semaphore>, name: &'static str) -> Self {
        Self {
            listener,
            places,
            name,
        }
    }

    /// The next connection; `None` once cancelled.
    pub async fn accept(&self, cancel: &CancellationToken) -> Option<Accepted> {
        cancel.run_until_cancelled(self.next()).await
    }

    async fn next(&self) -> Accepted {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        loop {
            match self.listener.accept().await {
                Ok((stream, remote)) => {
                    return Accepted {
                        stream,
                        remote,
                        place,
                    };
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept at the {}", self.name);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}
