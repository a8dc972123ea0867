//! A link inside one process, for tests: two ends that pass each other pipes.
//! It behaves as the others do, down to resets and the loss of every stream with the link; it has
//! no latency and no TLS, so the peers are whoever the test says.

use std::sync::Arc;

use bytes::Bytes;
use hive_identity::Peer;
use tokio::io::DuplexStream;
use tokio::sync::{Mutex, mpsc};

use super::chunked::Chunked;
use super::fate::Fate;
use super::settings::STREAM_WINDOW;
use super::stream::Io;
use super::tether::Tethered;
use super::{Link, LinkError, NotSent};

/// Pipes that the other end hasn't taken yet; `open` waits beyond that.
const BACKLOG: usize = 16;

/// Datagrams on their way; more are dropped.
const DATAGRAMS: usize = 1024;

/// As much as QUIC surely carries.
pub(super) const LONGEST_DATAGRAM: usize = 1150;

/// Both ends of a link between `a` and `b`: the first is held by `a` and so has `b` for a peer.
/// Must be called inside a Tokio runtime.
pub fn pair(a: impl Into<Option<Peer>>, b: impl Into<Option<Peer>>) -> (Link, Link) {
    let (to_b, from_a) = mpsc::channel(BACKLOG);
    let (to_a, from_b) = mpsc::channel(BACKLOG);
    let fates = [Arc::new(Fate::default()), Arc::new(Fate::default())];
    let [a_fate, b_fate] = fates.clone();
    let (datagrams_to_b, datagrams_from_a) = mpsc::channel(DATAGRAMS);
    let (datagrams_to_a, datagrams_from_b) = mpsc::channel(DATAGRAMS);
    let held_by_a = Connection {
        outgoing: to_b,
        incoming: Arc::new(Mutex::new(from_b)),
        datagrams_out: datagrams_to_b,
        datagrams_in: Arc::new(Mutex::new(datagrams_from_b)),
        fate: a_fate.clone(),
        other_fate: b_fate.clone(),
    };
    let held_by_b = Connection {
        outgoing: to_a,
        incoming: Arc::new(Mutex::new(from_a)),
        datagrams_out: datagrams_to_a,
        datagrams_in: Arc::new(Mutex::new(datagrams_from_a)),
        fate: b_fate,
        other_fate: a_fate,
    };
    (
        Link::new(super::Connection::Memory(held_by_a), b.into(), None),
        Link::new(super::Connection::Memory(held_by_b), a.into(), None),
    )
}

#[derive(Clone)]
pub(super) struct Connection {
    outgoing: mpsc::Sender<Pipe>,
    incoming: Arc<Mutex<mpsc::Receiver<Pipe>>>,
    datagrams_out: mpsc::Sender<Bytes>,
    datagrams_in: Arc<Mutex<mpsc::Receiver<Bytes>>>,
    fate: Arc<Fate>,
    other_fate: Arc<Fate>,
}

impl Connection {
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

    pub(super) fn send_datagram(&self, datagram: Bytes) -> Result<(), NotSent> {
        if self.fate.end().is_some() {
            return Err(NotSent::Ended);
        }
        let sent = self.datagrams_out.try_send(datagram);
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => NotSent::Full,
            mpsc::error::TrySendError::Closed(_) => NotSent::Ended,
        })
    }

    pub(super) async fn datagram(&self) -> Option<Bytes> {
        let mut datagrams = self.datagrams_in.lock().await;
        tokio::select! {
            biased;
            _ = self.fate.ended() => None,
            datagram = datagrams.recv() => datagram,
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
