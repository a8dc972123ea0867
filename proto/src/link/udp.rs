//! The UDP socket of one dialled QUIC link. It differs from quinn's own in one thing: it tells when
//! sending fails. Quinn drops the datagram and waits for a timeout, which is right for a link that
//! lives, but a device whose UDP is broken (some Android kernels answer EIO) should go to TCP at once.
//! It also counts what it carries.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::shared::Traffic;

#[derive(Debug)]
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    /// The longest packet that it is to take.
    longest: usize,
    /// The first error of sending.
    fault: watch::Sender<Option<io::ErrorKind>>,
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

impl Socket {
    /// A socket on any free port that can reach `remote`, for packets up to so many bytes.
    pub(super) fn toward(remote: SocketAddr, longest: u16) -> io::Result<Arc<Self>> {
        let socket = std::net::UdpSocket::bind(any(remote))?;
        make_room(&socket);
        // Sets it to non-blocking too.
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Arc::new(Self {
            io: UdpSocket::from_std(socket)?,
            state,
            longest: longest.into(),
            fault: watch::Sender::new(None),
            datagrams: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        }))
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            datagrams: self.datagrams.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    /// `length` bytes in datagrams of `size`, but for the last.
    fn count(&self, length: usize, size: usize) {
        let datagrams = length.div_ceil(size.max(1)) as u64;
        self.datagrams.fetch_add(datagrams, Ordering::Relaxed);
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
    }

    /// Waits until sending fails.
    pub(super) async fn fault(&self) -> io::Error {
        let mut fault = self.fault.subscribe();
        match fault.wait_for(Option::is_some).await {
            Ok(kind) => (*kind).unwrap_or(io::ErrorKind::Other).into(),
            Err(_) => unreachable!("this socket holds the sender"),
        }
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Poller {
            socket: self,
            writable: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.io.try_io(Interest::WRITABLE, || {
            self.state.try_send((&self.io).into(), transmit)
        });
        match sent {
            Ok(()) => {
                let length = transmit.contents.len();
                self.count(length, transmit.segment_size.unwrap_or(length));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(error),
            // A probe for the path's MTU that was too big: expected.
            Err(error)
                if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) =>
            {
                Ok(())
            }
            Err(error) => {
                tracing::debug!(%error, "sending over udp failed");
                self.fault.send_if_modified(|fault| {
                    let first = fault.is_none();
                    fault.get_or_insert(error.kind());
                    first
                });
                // To QUIC a lost datagram: a link that lives outlasts a network that goes and comes.
                Ok(())
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), bufs, meta)
            });
            // Any other error is of one datagram (an ICMP answer): the next may do.
            if let Ok(received) = received {
                for meta in &meta[..received] {
                    self.count(meta.len, meta.stride);
                }
                return Poll::Ready(Ok(received));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        // Quinn multiplies it by the longest packet, and has 32 buffers of that size.
        let most = MOST_AT_ONCE.div_ceil(self.longest);
        self.state.gro_segments().min(most)
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// Linux joins packets that came together, up to so many bytes.
const MOST_AT_ONCE: usize = 64 << 10;

/// Any free port of the address family of `remote`.
pub(super) fn any(remote: SocketAddr) -> SocketAddr {
    match remote {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

/// Datagrams that wait to be read while the process is busy; the system gives what it allows, on most
/// Linux machines 208 KiB unless the administrator said otherwise. What does not fit is lost, and
/// sent again when the sender's timer says so: a second later, at the begin of a link.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Asks for room in a socket that hears of many links at once, or of many streams of one.
pub(super) fn make_room(socket: impl AsFd) {
    if let Err(error) = rustix::net::sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER) {
        tracing::debug!(%error, "cannot enlarge a socket's buffer");
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Waits for the socket to take more; there may be several, each waking its own task.
struct Poller {
    socket: Arc<Socket>,
    writable: Option<Writable>,
}

impl UdpPoller for Poller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let writable = this.writable.get_or_insert_with(|| {
            let socket = this.socket.clone();
            Box::pin(async move { socket.io.writable().await })
        });
        let done = ready!(writable.as_mut().poll(cx));
        this.writable = None;
        Poll::Ready(done)
    }
}

impl std::fmt::Debug for Poller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Poller").finish_non_exhaustive()
    }
}
