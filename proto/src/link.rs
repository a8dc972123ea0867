//! One multiplexed, mutually authenticated connection between two processes.
//!
//! Everything that processes say to each other travels in its streams: gRPC, invocations, logs, tunnels.
//! Above this module nobody knows whether they ride QUIC, TLS over TCP, or memory; here nobody
//! knows what they carry beyond the [`Purpose`] that opens each of them.

mod chunked;
mod datagrams;
mod dial;
mod fate;
#[cfg(test)]
mod fuzz;
mod heartbeat;
mod last_words;
mod listener;
mod maintain;
pub mod memory;
mod mtu;
mod prefer;
mod purpose;
mod quic;
mod settings;
mod shared;
mod stream;
mod tcp;
mod tether;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hive_identity::Peer;
use tokio::io::AsyncWriteExt;
use tokio::sync::{Mutex, Notify, mpsc};

pub use datagrams::{DatagramSender, Datagrams, NotSent};
pub use dial::{DialError, dial};
pub use fate::LinkError;
use listener::ListenError;
pub use listener::{BindError, Listener};
pub use maintain::{Maintained, Trouble};
pub use purpose::Purpose;
use purpose::read_purpose;
pub use settings::{LinkSettings, ResetSecret, Transports};
pub use shared::{SharedSocket, Traffic};
pub use stream::Stream;

use datagrams::Flows;
use stream::Io;

/// Streams whose purpose isn't known yet, in all; more wait inside the transport.
const MAX_UNANNOUNCED: usize = 64;

/// Streams that [`Link::accept`] hasn't been asked for yet. A busy accept loop needs a few; one
/// that stopped shouldn't collect more.
const ACCEPT_BACKLOG: usize = 32;

/// How long [`Link::shutdown`] waits for the goodbye to leave. It is one packet; whoever doesn't
/// get it finds out by the idle timeout.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// What carries a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    Quic,
    Tcp,
    Memory,
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
            Self::Memory => "memory",
        })
    }
}

/// A handle; clones are the same link. It closes with [`close`](Link::close), or when the last
/// handle and the last stream of it are gone.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    id: u64,
    peer: Option<Peer>,
    remote: Option<SocketAddr>,
    connection: Connection,
    incoming: Mutex<mpsc::Receiver<(Purpose, Io)>>,
    streams: AtomicUsize,
    flows: Arc<Flows>,
    /// Woken when `streams` falls to zero.
    idle: Notify,
}

#[derive(Clone)]
enum Connection {
    Quic(quic::Connection),
    Tcp(tcp::Connection),
    Memory(memory::Connection),
}

impl Link {
    /// Opens a stream. Waits while as many are open as the peer allows.
    pub async fn open(&self, purpose: Purpose) -> Result<Stream, LinkError> {
        let mut io = self.0.connection.open().await?;
        io.settle(purpose.may_be_left());
        let mut stream = Stream::new(io, self.clone());
        let announced = async {
            stream.write_all(&[purpose as u8]).await?;
            stream.flush().await
        };
        match announced.await {
            Ok(()) => Ok(stream),
            // The link's own end says more than the failure of one stream of it.
            Err(error) => Err(self
                .0
                .connection
                .end()
                .unwrap_or_else(|| LinkError::failed(error))),
        }
    }

    /// The next stream that the peer opened. Cancel safe; may be awaited by several tasks, each
    /// stream goes to one of them.
    pub async fn accept(&self) -> Result<(Purpose, Stream), LinkError> {
        let next = self.0.incoming.lock().await.recv().await;
        match next {
            Some((purpose, io)) => Ok((purpose, Stream::new(io, self.clone()))),
            None => Err(self.closed().await),
        }
    }

    /// Who is at the other end; `None` for one that showed no certificate.
    pub fn peer(&self) -> Option<&Peer> {
        self.0.peer.as_ref()
    }

    /// The address at the other end as it is now (QUIC may follow a peer that moves); `None` in memory.
    pub fn remote(&self) -> Option<SocketAddr> {
        match &self.0.connection {
            Connection::Quic(connection) => Some(connection.remote()),
            Connection::Tcp(_) | Connection::Memory(_) => self.0.remote,
        }
    }

    pub fn transport(&self) -> Transport {
        match &self.0.connection {
            Connection::Quic(_) => Transport::Quic,
            Connection::Tcp(_) => Transport::Tcp,
            Connection::Memory(_) => Transport::Memory,
        }
    }

    /// Unique in this process: tells links apart in logs.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Ends the link and all of its streams, with what is still on its way in them; `reason`
    /// reaches the peer. The first call counts.
    pub fn close(&self, reason: &str) {
        self.0.connection.close(reason);
    }

    /// Closes, and waits until the peer was told or can't be: for a process about to exit.
    pub async fn shutdown(&self, reason: &str) {
        self.close(reason);
        let _ = tokio::time::timeout(GOODBYE_TIMEOUT, self.0.connection.gone()).await;
    }

    /// Waits for the link's end, however it comes.
    pub async fn closed(&self) -> LinkError {
        self.0.connection.closed().await
    }

    /// Rises with all that is heard from the peer, acknowledgements included: what was sent and is
    /// followed by nothing did not arrive. `None` where the transport keeps them to itself.
    pub fn heard(&self) -> Option<u64> {
        match &self.0.connection {
            Connection::Quic(connection) => Some(connection.heard()),
            Connection::Tcp(_) | Connection::Memory(_) => None,
        }
    }

    /// How the link ended, if it did.
    pub fn end(&self) -> Option<LinkError> {
        self.0.connection.end()
    }

    /// Streams open now, of both directions, without those still waiting to be accepted.
    pub fn open_streams(&self) -> usize {
        self.0.streams.load(Ordering::Acquire)
    }

    /// Streams that the peer lets this side have open at once. More wait until another ends.
    pub fn most_streams(&self) -> usize {
        let most = match &self.0.connection {
            Connection::Quic(connection) => connection.most_streams(),
            Connection::Tcp(connection) => connection.most_streams(),
            Connection::Memory(_) => settings::MANY_STREAMS,
        };
        most as usize
    }

    /// Whether flows of it have datagrams; where not, all go by streams.
    pub fn has_datagrams(&self) -> bool {
        self.0.connection.longest_datagram().is_some()
    }

    /// Waits until no stream is open. New ones may follow at any time.
    pub async fn idle(&self) {
        loop {
            let woken = self.0.idle.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            if self.open_streams() == 0 {
                return;
            }
            woken.await;
        }
    }

    fn new(connection: Connection, peer: Option<Peer>, remote: Option<SocketAddr>) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let (announced, incoming) = mpsc::channel(ACCEPT_BACKLOG);
        tokio::spawn(announce_streams(connection.clone(), announced));
        Self(Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            peer,
            remote,
            connection,
            incoming: Mutex::new(incoming),
            streams: AtomicUsize::new(0),
            flows: Arc::default(),
            idle: Notify::new(),
        }))
    }

    fn stream_opened(&self) {
        let open = self.0.streams.fetch_add(1, Ordering::AcqRel) + 1;
        if let Connection::Quic(connection) = &self.0.connection {
            connection.let_more_in(open);
        }
    }

    fn stream_dropped(&self) {
        if self.0.streams.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.0.id)
            .field("transport", &self.transport())
            .field("remote", &self.remote())
            .field("peer", &self.0.peer.as_ref().map(|peer| &peer.subject))
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.connection.close("no longer used");
    }
}

impl Connection {
    async fn open(&self) -> Result<Io, LinkError> {
        match self {
            Self::Quic(connection) => connection.open().await,
            Self::Tcp(connection) => connection.open().await,
            Self::Memory(connection) => connection.open().await,
        }
    }

    async fn accept(&self) -> Result<Io, LinkError> {
        match self {
            Self::Quic(connection) => connection.accept().await,
            Self::Tcp(connection) => connection.accept().await,
            Self::Memory(connection) => connection.accept().await,
        }
    }

    fn close(&self, reason: &str) {
        match self {
            Self::Quic(connection) => connection.close(reason),
            Self::Tcp(connection) => connection.close(reason),
            Self::Memory(connection) => connection.close(reason),
        }
    }

    async fn closed(&self) -> LinkError {
        match self {
            Self::Quic(connection) => connection.closed().await,
            Self::Tcp(connection) => connection.fate().ended().await,
            Self::Memory(connection) => connection.fate().ended().await,
        }
    }

    fn end(&self) -> Option<LinkError> {
        match self {
            Self::Quic(connection) => connection.end(),
            Self::Tcp(connection) => connection.fate().end(),
            Self::Memory(connection) => connection.fate().end(),
        }
    }

    /// Bytes of the longest datagram that the path carries now; `None` where there are none at all.
    fn longest_datagram(&self) -> Option<usize> {
        match self {
            Self::Quic(connection) => connection.longest_datagram(),
            Self::Tcp(_) => None,
            Self::Memory(_) => Some(memory::LONGEST_DATAGRAM),
        }
    }

    /// Sends it now, or not at all.
    fn send_datagram(&self, datagram: Bytes) -> Result<(), NotSent> {
        match self {
            Self::Quic(connection) => connection.send_datagram(datagram),
            Self::Tcp(_) => Err(NotSent::TooLong),
            Self::Memory(connection) => connection.send_datagram(datagram),
        }
    }

    /// The next datagram; `None` when no more will come.
    async fn datagram(&self) -> Option<Bytes> {
        match self {
            Self::Quic(connection) => connection.datagram().await,
            Self::Tcp(_) => None,
            Self::Memory(connection) => connection.datagram().await,
        }
    }

    /// Waits until nothing more will be sent.
    async fn gone(&self) {
        match self {
            Self::Quic(connection) => connection.gone().await,
            Self::Tcp(connection) => connection.gone().await,
            Self::Memory(_) => {}
        }
    }
}

/// One task a link, as long as the connection and the link live: takes what the peer opens and
/// hands it on once its purpose is known. A stream that stays silent holds up nobody else.
async fn announce_streams(connection: Connection, announced: mpsc::Sender<(Purpose, Io)>) {
    let mut silent = FuturesUnordered::new();
    loop {
        tokio::select! {
            io = connection.accept(), if silent.len() < MAX_UNANNOUNCED => match io {
                Ok(io) => silent.push(read_purpose(io)),
                Err(_) => return,
            },
            Some(stream) = silent.next(), if !silent.is_empty() => {
                let Some(stream) = stream else { continue };
                tokio::select! {
                    sent = announced.send(stream) => if sent.is_err() { return },
                    _ = connection.closed() => return,
                }
            }
            () = announced.closed() => return,
            // With `silent` full nothing else here would notice.
            _ = connection.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn streams_that_stay_silent_or_talk_nonsense_hold_up_no_other() {
        let (here, there) = memory::pair(None, None);
        let silent = here.0.connection.open().await.unwrap();
        let mut nonsense = here.0.connection.open().await.unwrap();
        nonsense.write_all(&[0xff]).await.unwrap();
        nonsense.flush().await.unwrap();
        let ended_early = here.0.connection.open().await.unwrap();
        drop(ended_early);

        let _good = here.open(Purpose::Invoke).await.unwrap();
        let accepted = tokio::time::timeout(Duration::from_secs(5), there.accept());
        assert_eq!(accepted.await.unwrap().unwrap().0, Purpose::Invoke);
        // What made no sense was reset.
        nonsense.read_u8().await.unwrap_err();
        drop(silent);
    }
}
