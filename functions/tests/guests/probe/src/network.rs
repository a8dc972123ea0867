//! Sockets and names, through WASI itself: what is refused is refused by the host, and the answer
//! says at which step.

use std::net::SocketAddr;

use wasip2::sockets::{
    instance_network::instance_network,
    ip_name_lookup::resolve_addresses,
    network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress},
    tcp_create_socket::create_tcp_socket,
    udp::OutgoingDatagram,
    udp_create_socket::create_udp_socket,
};

pub enum Deed {
    Connect { to: SocketAddr },
    Listen { at: SocketAddr },
    Send { to: SocketAddr },
    Resolve { name: String },
}

impl Deed {
    /// What came of it, as text.
    pub fn done(self) -> Result<String, String> {
        match self {
            Self::Connect { to } => connect(to),
            Self::Listen { at } => listen(at),
            Self::Send { to } => send(to),
            Self::Resolve { name } => resolve(&name),
        }
    }
}

fn connect(to: SocketAddr) -> Result<String, String> {
    let socket = create_tcp_socket(family(to)).map_err(at("create"))?;
    socket
        .start_connect(&instance_network(), address(to))
        .map_err(at("connect"))?;
    socket.subscribe().block();
    let _streams = socket.finish_connect().map_err(at("connect"))?;
    Ok("connected".to_owned())
}

fn listen(here: SocketAddr) -> Result<String, String> {
    let socket = create_tcp_socket(family(here)).map_err(at("create"))?;
    socket
        .start_bind(&instance_network(), address(here))
        .map_err(at("bind"))?;
    socket.subscribe().block();
    socket.finish_bind().map_err(at("bind"))?;
    socket.start_listen().map_err(at("listen"))?;
    socket.subscribe().block();
    socket.finish_listen().map_err(at("listen"))?;
    Ok("listening".to_owned())
}

fn send(to: SocketAddr) -> Result<String, String> {
    let any = match to {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0u16; 8], 0)),
    };
    let socket = create_udp_socket(family(to)).map_err(at("create"))?;
    socket
        .start_bind(&instance_network(), address(any))
        .map_err(at("bind"))?;
    socket.subscribe().block();
    socket.finish_bind().map_err(at("bind"))?;
    let (_incoming, outgoing) = socket.stream(None).map_err(at("stream"))?;
    outgoing.subscribe().block();
    outgoing.check_send().map_err(at("send"))?;
    let datagram = OutgoingDatagram {
        data: b"probe".to_vec(),
        remote_address: Some(address(to)),
    };
    let sent = outgoing.send(&[datagram]).map_err(at("send"))?;
    Ok(format!("sent {sent} datagrams"))
}

fn resolve(name: &str) -> Result<String, String> {
    let found = resolve_addresses(&instance_network(), name).map_err(at("resolve"))?;
    let mut addresses = Vec::new();
    loop {
        match found.resolve_next_address() {
            Ok(Some(address)) => addresses.push(format!("{address:?}")),
            Ok(None) => return Ok(format!("found {addresses:?}")),
            Err(ErrorCode::WouldBlock) => found.subscribe().block(),
            Err(error) => return Err(at("resolve")(error)),
        }
    }
}

fn at(step: &str) -> impl Fn(ErrorCode) -> String {
    move |error| format!("at {step}: {}", error.name())
}

fn family(address: SocketAddr) -> IpAddressFamily {
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
