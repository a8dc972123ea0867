//! Connects to a host that may have several addresses. Which of them may be dialled at all was judged before.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::net::TcpStream;

/// When the next address is tried beside one that does not answer; what RFC 8305 recommends.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// Tries one address after the other, and goes on with all that did not fail yet.
///
/// What is written goes out at once.
pub async fn dial(addresses: &[IpAddr], port: u16) -> io::Result<TcpStream> {
    let mut rest = alternating(addresses).into_iter().take(ADDRESSES);
    let mut trying = FuturesUnordered::new();
    let mut failure = None;
    loop {
        let more = match rest.next() {
            Some(address) => {
                trying.push(TcpStream::connect(SocketAddr::new(address, port)));
                rest.len() > 0
            }
            None => false,
        };
        let next = tokio::select! {
            tried = trying.next() => tried,
            () = tokio::time::sleep(NEXT_ADDRESS), if more => continue,
        };
        match next {
            Some(Ok(stream)) => {
                // Requests are written whole; waiting for more only delays them.
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Some(Err(error)) => failure = Some(error),
            None => return Err(failure.unwrap_or_else(|| io::ErrorKind::NotFound.into())),
        }
    }
}

/// The resolver's order, but of both versions in turn: if one leads nowhere, the other is next.
fn alternating(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let first_is_v4 = addresses.first().is_some_and(IpAddr::is_ipv4);
    let (mut first, mut other): (Vec<IpAddr>, Vec<IpAddr>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv4() == first_is_v4);
    let mut ordered = Vec::with_capacity(addresses.len());
    first.reverse();
    other.reverse();
    while ordered.len() < addresses.len() {
        ordered.extend(first.pop());
        ordered.extend(other.pop());
    }
    ordered
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn both_versions_are_tried_in_turn() {
        let addresses = |texts: &[&str]| -> Vec<IpAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(
            alternating(&addresses(&["::1", "::2", "::3", "1.0.0.1"])),
            addresses(&["::1", "1.0.0.1", "::2", "::3"])
        );
        assert_eq!(alternating(&[]), addresses(&[]));
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next() {
        let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.3", "127.0.0.2"].map(|text| text.parse().unwrap());
        let stream = dial(&addresses, port).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap().ip(), addresses[1]);
        let error = dial(&addresses[..1], port).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
