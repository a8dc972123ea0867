//! Reads a socket that has one peer.

use std::io;

use bytes::Bytes;
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::relay::scratch;

/// The next datagram from the peer of a connected socket. An error is what the peer's system said by ICMP, as a rule.
/// Cancel safe, and it holds no memory while it waits.
pub async fn receive(socket: &UdpSocket) -> io::Result<Bytes> {
    loop {
        // A socket with nothing but an error is not readable.
        socket.ready(Interest::READABLE | Interest::ERROR).await?;
        let received = scratch::lend(|buffer| {
            let length = socket.try_recv(buffer)?;
            Ok(Bytes::copy_from_slice(&buffer[..length]))
        });
        match received {
            Err(error) if is_nothing(&error) => {}
            received => return received,
        }
        match socket.try_io(Interest::ERROR, || pending_error(socket)) {
            Err(error) if is_nothing(&error) => {}
            Err(error) => return Err(error),
            Ok(()) => {}
        }
    }
}

fn pending_error(socket: &UdpSocket) -> io::Result<()> {
    match socket.take_error()? {
        Some(error) => Err(error),
        None => Err(io::ErrorKind::WouldBlock.into()),
    }
}

fn is_nothing(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}
