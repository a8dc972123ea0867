//! One UDP socket for the links of many: a process that stands for thousands of nodes has fewer file
//! descriptors than they have links. It counts what travels through it, both ways. An agent that is
//! alone gives each link a socket of its own, so that a fault of one is no fault of another.

use std::io;
use std::net::SocketAddr;
use std::ops::Sub;
use std::sync::Arc;

use quinn::{Endpoint, EndpointConfig, TokioRuntime};

use super::{mtu, udp};

/// For [`LinkSettings::socket`](super::LinkSettings::socket). A clone is the same socket.
#[derive(Clone, Debug)]
pub struct SharedSocket {
    pub(super) endpoint: Endpoint,
    socket: Arc<udp::Socket>,
}

/// What travelled, in both directions together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub datagrams: u64,
    /// What the datagrams carried: without the headers of UDP and IP.
    pub bytes: u64,
}

impl SharedSocket {
    /// A socket on any free port that can reach `remote`, and whatever is reached the same way. Must
    /// be called inside a Tokio runtime.
    pub fn toward(remote: SocketAddr) -> io::Result<Self> {
        let socket = udp::Socket::toward(remote, mtu::ETHERNET)?;
        let endpoint = Endpoint::new_with_abstract_socket(
            // Longer packets would cost each of the many a longer buffer.
            mtu::taking(mtu::ETHERNET, EndpointConfig::default()),
            None,
            socket.clone(),
            Arc::new(TokioRuntime),
        )?;
        Ok(Self { endpoint, socket })
    }

    /// Since the socket was made.
    pub fn traffic(&self) -> Traffic {
        self.socket.traffic()
    }
}

/// The same socket.
impl PartialEq for SharedSocket {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.socket, &other.socket)
    }
}

impl Eq for SharedSocket {}

impl Sub for Traffic {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            datagrams: self.datagrams - earlier.datagrams,
            bytes: self.bytes - earlier.bytes,
        }
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self::default(), |sum, part| Self {
            datagrams: sum.datagrams + part.datagrams,
            bytes: sum.bytes + part.bytes,
        })
    }
}
