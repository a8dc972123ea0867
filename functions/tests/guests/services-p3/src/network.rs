//! Sockets and names: what is refused is refused by the host, and the answer says at which step.

use std::{fmt::Debug, net::SocketAddr};

use wasip3::sockets::{
    ip_name_lookup::resolve_addresses,
    types::{
        IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
        UdpSocket,
    },
};

pub async fn connect(to: SocketAddr) -> Result<String, String> {
    let socket = TcpSocket::create(family(to)).map_err(at("create"))?;
    socket.connect(address(to)).await.map_err(at("connect"))?;
    Ok("connected".to_owned())
}

pub fn listen(here: SocketAddr) -> Result<String, String> {
    let socket = TcpSocket::create(family(here)).map_err(at("create"))?;
    socket.bind(address(here)).map_err(at("bind"))?;
    let _accepted = socket.listen().map_err(at("listen"))?;
    Ok("listening".to_owned())
}

pub async fn send(to: SocketAddr) -> Result<String, String> {
    let socket = UdpSocket::create(family(to)).map_err(at("create"))?;
    let sent = socket.send(b"probe".to_vec(), Some(address(to))).await;
    sent.map_err(at("send"))?;
    Ok("sent 1 datagrams".to_owned())
}

pub async fn resolve(name: String) -> Result<String, String> {
    let found = resolve_addresses(name).await.map_err(at("resolve"))?;
    Ok(format!("found {found:?}"))
}

fn at<E: Debug>(step: &str) -> impl Fn(E) -> String {
    move |error| format!("at {step}: {error:?}")
}

pub fn family(address: SocketAddr) -> IpAddressFamily {
    match address {
        SocketAddr::V4(_) => IpAddressFamily::Ipv4,
        SocketAddr::V6(_) => IpAddressFamily::Ipv6,
    }
}

fn address(address: SocketAddr) -> IpSocketAddress {
    match address {
        SocketAddr::V4(it) => {
            let [a, b, c, d] = it.ip().octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress {
                port: it.port(),
                address: (a, b, c, d),
            })
        }
        SocketAddr::V6(it) => {
            let [a, b, c, d, e, f, g, h] = it.ip().segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port: it.port(),
                flow_info: it.flowinfo(),
                address: (a, b, c, d, e, f, g, h),
                scope_id: it.scope_id(),
            })
        }
    }
}
