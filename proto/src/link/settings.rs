//! What can be chosen about links: times and bounds, with the reasons for their defaults.

use std::time::Duration;

use super::SharedSocket;

/// Times and bounds of a link. Both ends should have the same; the shorter idle timeout counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkSettings {
    /// A quiet link says something this often. 15 s keeps the UDP mappings of home routers and
    /// carriers, which forget after 30 s at the soonest, and with it an idle node's links to
    /// three controllers carry 150 bit/s, 240 with the headers of UDP and IP. Over QUIC it is the side that
    /// dialled which says it.
    pub keep_alive: Duration,
    /// A link from which nothing is heard for this long is dead. A keep-alive that gets lost is sent
    /// again, within a second at first, by QUIC and by TCP: four or five times in the rest of it.
    pub idle_timeout: Duration,
    /// Streams that either side may have open at once, to begin with: 256 requests under way on one node is
    /// more than phones serve. Whoever dialled lets in more as they come, up to 4,096 over QUIC and 512 over
    /// TCP: connections of tunnels. At most 256.
    pub max_streams: u32,
    /// From the first packet to an authenticated link. Seconds for slow boards and bad networks.
    pub handshake_timeout: Duration,
    /// The ways to listen and to dial.
    pub transports: Transports,
    /// For a listener that must come back quickly; `None` where that is no matter.
    pub resets: Option<ResetSecret>,
    /// How often a link that had to take TCP tries QUIC again. A probe costs a few packets and,
    /// where UDP is blocked, is likely to stay in vain.
    pub probe_interval: Duration,
    /// For dialling over QUIC in a process that stands for many; elsewhere `None`, and each link has a
    /// socket of its own.
    pub socket: Option<SharedSocket>,
}

impl Default for LinkSettings {
    fn default() -> Self {
        Self {
            keep_alive: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(30),
            max_streams: 256,
            handshake_timeout: Duration::from_secs(10),
            transports: Transports::Both,
            resets: None,
            probe_interval: Duration::from_secs(60),
            socket: None,
        }
    }
}

/// The same each time a listener starts: by it the listener recognizes packets of links that an
/// earlier process accepted at its address, and its peers believe it when it says that those are gone
/// (RFC 9000, 10.3). Without it they find out by the idle timeout.
#[derive(Clone, PartialEq, Eq)]
pub struct ResetSecret(pub [u8; 32]);

impl std::fmt::Debug for ResetSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResetSecret(..)")
    }
}

/// What one side may leave unread in one stream: 40 Mbit/s at a round trip of 50 ms, and little
/// enough that one slow reader among many is no matter. The same for QUIC and yamux (where it is
/// given by its specification).
pub(super) const STREAM_WINDOW: u32 = yamux::DEFAULT_CREDIT;

/// What streams between controllers and agents themselves may leave unread: sessions, artifacts, Raft. Who dialled may
/// have 32 open, and each may be full.
pub(super) const OWN_WINDOW: u32 = 32 * STREAM_WINDOW;

/// What each other stream of a QUIC link may leave unread, however many there are: 1.3 Mbit/s at a round trip of 100 ms.
/// [`quic`](super::quic) sees to it that those whose readers are slow leave no more, but for [`SHARED_WINDOW`].
pub(super) const LEAST_SHARE: u32 = 16 * 1024;

/// What all of those may leave unread beyond that: some 50 of them can be full before others feel it, and with three
/// links it is 48 MiB of a board of 512 MiB.
pub(super) const SHARED_WINDOW: u32 = 64 * STREAM_WINDOW;

/// What all streams of a QUIC link together may leave unread, and what a sender holds until it is acknowledged by a peer
/// that tells what it reads: so much that none of them waits for another one. An eighth of it may be free and the peer not know: quinn says so in pieces of
/// that size. A peer that knows nothing of shares is bounded by its streams: 256 of them when it accepted the link, 32
/// when it dialled.
pub(super) const LINK_WINDOW: u32 =
    (OWN_WINDOW + MANY_STREAMS * LEAST_SHARE + SHARED_WINDOW).div_ceil(7) * 8;

/// Streams that whoever accepted a link may have open on it: as many connections as a busy service has. Over QUIC one
/// that is idle costs its bookkeeping, and all of them leave 80 MiB unread at most: [`LEAST_SHARE`] and [`SHARED_WINDOW`].
pub(super) const MANY_STREAMS: u32 = 4096;

/// The same over TCP. Yamux gives each stream a window of its own and knows no bound for all of them: with those that
/// one side has dropped and the other not yet, 768 slow readers could hold 192 MiB. More is not for a board.
pub(super) const MANY_STREAMS_OVER_TCP: u32 = 512;

/// Datagrams that wait to be sent, or to be taken by the task that hands them out: 50 ms of 40 Mbit/s. What comes
/// later than that is of no use to most who send datagrams.
pub(super) const DATAGRAM_BUFFER: usize = 256 * 1024;

/// The ways that a link may take. One alone is for networks known to block the other, and for tests of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transports {
    #[default]
    Both,
    QuicOnly,
    TcpOnly,
}

impl Transports {
    pub(super) fn quic(self) -> bool {
        self != Self::TcpOnly
    }

    pub(super) fn tcp(self) -> bool {
        self != Self::QuicOnly
    }
}
