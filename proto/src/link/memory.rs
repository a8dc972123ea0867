//! A link inside one process, for tests: two ends that pass each other pipes.
//! It behaves as the others do, down to resets and the loss of every stream with the link; it has
//! no latency and no TLS, so the peers are whoever the test says.

use std::sync::Arc;

use hive_identity::Peer;
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};

use super::chunked::Chunked;
use super::fate::Fate;
use super::settings::STREAM_WINDOW;
use super::stream::Io;
use super::tether::Tethered;
use super::{Link, LinkError};

/// Pipes that the other end hasn't taken yet; `open` waits beyond that.
const BACKLOG: usize = 16;

/// Both ends of a link between `a` and `b`: the first is held by `a` and so has `b` for a peer.
/// Must be called inside a Tokio runtime.
pub fn pair(a: impl Into<Option<Peer>>, b: impl Into<Option<Peer>>) -> (Link, Link) {
    let (to_b, from_a) = mpsc::channel(BACKLOG);
    let (to_a, from_b) = mpsc::channel(BACKLOG);
    let fates = [Arc::new(Fate::default()), Arc::new(Fate::default())];
    let [a_fate, b_fate] = fates.clone();
    let held_by_a = Connection::new(to_b, from_b, a_fate.clone(), b_fate.clone());
    let held_by_b = Connection::new(to_a, from_a, b_fate, a_fate);
    (
        Link::new(super::Connection::Memory(held_by_a), b.into(), None),
        Link::new(super::Connection::Memory(held_by_b), a.into(), None),
    )
}

#[derive(Clone)]
pub(super) struct Connection {
    outgoing: mpsc::Sender<Pipe>,
    incoming: Arc<Mutex<mpsc::Receiver<Pipe>>>,
    fate: Arc<Fate>,
    other_fate: Arc<Fate>,
}

impl Connection {
    fn new(
        outgoing: mpsc::Sender<Pipe>,
        incoming: mpsc::Receiver<Pipe>,
        fate: Arc<Fate>,
        other_fate: Arc<Fate>,
    ) -> Self {
        Self {
            outgoing,
            incoming: Arc::new(Mutex::new(incoming)),
            fate,
            other_fate,
        }
    }

    pub(super) async fn open(&self) -> Result<Io, LinkError> {
        let (here, there) = tokio::io::duplex(STREAM_WINDOW as usize);
        let there = Tethered::new(there, self.other_fate.token(), None);
        tokio::select! {
            biased;
            end = self.fate.ended() => Err(end),
            sent = self.outgoing.send(there) => match sent {
                Ok(()) => {
                    let here = Tethered::new(here, self.fate.token(), None);
                    Ok(Io::Memory(Chunked::new(here)))
                }
                Err(_) => Err(LinkError::Lost),
            },
        }
    }

    pub(super) async fn accept(&self) -> Result<Io, LinkError> {
        let mut incoming = self.incoming.lock().await;
        tokio::select! {
            biased;
            end = self.fate.ended() => Err(end),
            pipe = incoming.recv() => match pipe {
                Some(pipe) => Ok(Io::Memory(Chunked::new(pipe))),
                None => Err(LinkError::Lost),
            },
        }
    }

    pub(super) fn close(&self, reason: &str) {
        self.fate.seal(LinkError::ClosedHere);
        self.other_fate.seal(LinkError::ClosedByPeer {
            reason: reason.into(),
        });
    }

    pub(super) fn fate(&self) -> &Fate {
        &self.fate
    }
}

/// One end of a pipe, which breaks when its link ends.
pub(super) type Pipe = Tethered<DuplexStream>;
