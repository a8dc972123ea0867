//! There are no sockets and no names: HTTP through the runtime is the only way out.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::all_refused_by_both;

const LOOPBACK: [&str; 2] = ["127.0.0.1:0", "[::1]:0"];

#[tokio::test]
async fn no_socket_is_made() {
    all_refused_by_both(&["/handles?kind=tcp", "/handles?kind=udp"]).await;
}

#[tokio::test]
async fn nobody_is_connected_to() {
    for loopback in LOOPBACK {
        // Machines without IPv6 have nothing to try it on.
        let Ok(listener) = TcpListener::bind(loopback).await else {
            continue;
        };
        let address = listener.local_addr().unwrap();
        all_refused_by_both(&[&format!("/tcp?to={address}")]).await;
        // Had the guest connected, it would be accepted before us.
        let us = TcpStream::connect(address).await.unwrap();
        let (_, first) = listener.accept().await.unwrap();
        assert_eq!(first, us.local_addr().unwrap());
    }
}

#[tokio::test]
async fn nobody_is_listened_for() {
    all_refused_by_both(&["/listen?at=127.0.0.1:0", "/listen?at=0.0.0.0:0"]).await;
    all_refused_by_both(&["/listen?at=[::1]:0", "/listen?at=[::]:0"]).await;
}

#[tokio::test]
async fn no_datagram_is_sent() {
    for loopback in LOOPBACK {
        let Ok(socket) = UdpSocket::bind(loopback).await else {
            continue;
        };
        let address: SocketAddr = socket.local_addr().unwrap();
        all_refused_by_both(&[&format!("/udp?to={address}")]).await;
        // Had the guest sent one, it would arrive before ours.
        let us = UdpSocket::bind(loopback).await.unwrap();
        us.send_to(b"ours", address).await.unwrap();
        let mut first = [0; 16];
        let (length, from) = socket.recv_from(&mut first).await.unwrap();
        assert_eq!(
            (&first[..length], from),
            (&b"ours"[..], us.local_addr().unwrap())
        );
    }
}

#[tokio::test]
async fn no_name_is_looked_up() {
    all_refused_by_both(&[
        "/resolve?name=localhost",
        "/resolve?name=example.com",
        "/resolve?name=127.0.0.1",
    ])
    .await;
}
