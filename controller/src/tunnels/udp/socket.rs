//! The socket of a UDP port: it tells at which of the machine's addresses a datagram came, answers from there, and takes
//! several at once from the system where that can be.

use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket as StdSocket};

use hive_tunnels::udp::Way;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// What the system keeps while this process is busy: as much as it allows, up to this.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What is taken at once: so many datagrams, or runs of equal ones that the system put together.
const SLOTS: usize = 8;

/// The longest datagram, and the longest run.
const SLOT_BYTES: usize = 64 * 1024;

pub struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
}

/// Memory to receive into. Of a slot only what was ever written to is really there.
pub struct Slots {
    bytes: [Box<[u8]>; SLOTS],
    metas: [RecvMeta; SLOTS],
}

impl Default for Slots {
    fn default() -> Self {
        Self {
            bytes: std::array::from_fn(|_| vec![0; SLOT_BYTES].into_boxed_slice()),
            metas: [RecvMeta::default(); SLOTS],
        }
    }
}

impl Socket {
    /// Must be called inside a Tokio runtime.
    pub fn bind(at: SocketAddr) -> io::Result<Self> {
        let socket = StdSocket::bind(at)?;
        // Sets it to non-blocking too.
        let state = UdpSocketState::new((&socket).into())?;
        allow_fragments(&socket, at);
        if let Err(error) =
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)
        {
            tracing::debug!(%error, "cannot enlarge a socket's buffer");
        }
        Ok(Self {
            io: UdpSocket::from_std(socket)?,
            state,
        })
    }

    /// Waits for datagrams, and hands on those that are there. Cancel safe.
    pub async fn receive(
        &self,
        slots: &mut Slots,
        mut each: impl FnMut(Way, &[u8]),
    ) -> io::Result<()> {
        let Slots { bytes, metas } = slots;
        let received = {
            let mut buffers = bytes.each_mut().map(|slot| IoSliceMut::new(slot));
            let receive = || {
                self.state
                    .recv((&self.io).into(), &mut buffers, &mut metas[..])
            };
            self.io.async_io(Interest::READABLE, receive).await?
        };
        for (meta, slot) in metas[..received].iter().zip(bytes.iter()) {
            let way = Way {
                client: meta.addr,
                asked: meta.dst_ip,
            };
            if meta.len == 0 {
                each(way, &[]);
            }
            // Several of one client are in one piece, each but the last as long as the first.
            for datagram in slot[..meta.len].chunks(meta.stride.max(1)) {
                each(way, datagram);
            }
        }
        Ok(())
    }

    /// Answers from the address that was asked. Waits while the system takes none.
    pub async fn send(&self, way: Way, datagram: &[u8]) -> io::Result<()> {
        let transmit = Transmit {
            destination: way.client,
            ecn: None,
            contents: datagram,
            segment_size: None,
            src_ip: way.asked,
        };
        let send = || self.state.try_send((&self.io).into(), &transmit);
        self.io.async_io(Interest::WRITABLE, send).await
    }

    #[cfg(test)]
    pub fn address(&self) -> SocketAddr {
        self.io.local_addr().expect("a socket that is bound")
    }
}

/// QUIC's packets must not be cut in pieces, so the state of the socket forbids it; answers that are longer than a packet
/// must. Over IPv6 it stays forbidden, and they are dropped.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn allow_fragments(socket: &StdSocket, at: SocketAddr) {
    use rustix::net::sockopt::{Ipv4PathMtuDiscovery, set_ip_mtu_discover};
    // Sockets of IPv6 have clients of IPv4, too.
    if let Err(error) = set_ip_mtu_discover(socket, Ipv4PathMtuDiscovery::DONT) {
        tracing::debug!(%error, %at, "long datagrams are not cut in pieces");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn allow_fragments(_socket: &StdSocket, _at: SocketAddr) {}
