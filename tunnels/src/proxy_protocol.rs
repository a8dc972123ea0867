//! Headers of the PROXY protocol: what a target reads first, to know its client's address in place of the
//! address of whoever connected to it. Both versions as "The PROXY protocol, versions 1 & 2" (HAProxy) has them.

mod read;

use std::net::{IpAddr, SocketAddr};

pub use read::{ReadError, read};

/// The form of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// What every header of version 2 begins with; no other protocol does.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Version 2, of a connection on behalf of a client.
const PROXY: u8 = 0x21;
/// Version 2, without addresses.
const LOCAL: u8 = 0x20;
/// A stream over IPv4.
const TCP4: u8 = 0x11;
/// A stream over IPv6.
const TCP6: u8 = 0x21;

/// The first bytes for a target: that `client` connected to `local`. An IPv4 address in an IPv6 one is what it
/// carries. Addresses of different families cannot be told, and the target is to know none.
pub fn header(version: Version, client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let addresses = (client.ip().to_canonical(), local.ip().to_canonical());
    let ports = (client.port(), local.port());
    match version {
        Version::V1 => text(addresses, ports).into_bytes(),
        Version::V2 => binary(addresses, ports),
    }
}

fn text((client, local): (IpAddr, IpAddr), (client_port, local_port): (u16, u16)) -> String {
    let family = match (client, local) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => return "PROXY UNKNOWN\r\n".to_owned(),
    };
    format!("PROXY {family} {client} {local} {client_port} {local_port}\r\n")
}

fn binary((client, local): (IpAddr, IpAddr), (client_port, local_port): (u16, u16)) -> Vec<u8> {
    let (command, family, addresses) = match (client, local) {
        (IpAddr::V4(client), IpAddr::V4(local)) => {
            (PROXY, TCP4, [client.octets(), local.octets()].concat())
        }
        (IpAddr::V6(client), IpAddr::V6(local)) => {
            (PROXY, TCP6, [client.octets(), local.octets()].concat())
        }
        _ => (LOCAL, 0, Vec::new()),
    };
    let ports = match command {
        PROXY => [client_port.to_be_bytes(), local_port.to_be_bytes()].concat(),
        _ => Vec::new(),
    };
    let length = (addresses.len() + ports.len()) as u16;
    [
        &SIGNATURE[..],
        &[command, family],
        &length.to_be_bytes(),
        &addresses,
        &ports,
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const V6_PORTS: [u8; 4] = [0xdc, 0x04, 0x01, 0xbb];

    fn header_of(version: Version, client: &str, local: &str) -> Vec<u8> {
        header(version, client.parse().unwrap(), local.parse().unwrap())
    }

    #[test]
    fn the_first_version_is_a_line() {
        for (client, local, line) in [
            (
                "192.168.0.1:56324",
                "192.168.0.11:443",
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            ),
            (
                "[::ffff:192.168.0.1]:56324",
                "[::ffff:192.168.0.11]:443",
                "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
            ),
            (
                "[2001:db8::1]:1",
                "[2001:db8::2]:65535",
                "PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n",
            ),
            ("192.168.0.1:1", "[2001:db8::2]:2", "PROXY UNKNOWN\r\n"),
            ("[::1]:1", "127.0.0.1:2", "PROXY UNKNOWN\r\n"),
        ] {
            let header = header_of(Version::V1, client, local);
            assert_eq!(String::from_utf8(header).unwrap(), line);
        }
    }

    #[test]
    fn the_longest_line_is_one_that_receivers_take() {
        let longest = "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535";
        // Whoever reads a header of the first version has room for 107 bytes.
        assert!(header_of(Version::V1, longest, longest).len() <= 107);
    }

    #[test]
    fn the_second_version_is_binary() {
        let signature = [
            0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a,
        ];
        let v4: &[u8] = &[
            0x21, 0x11, 0, 12, 192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb,
        ];
        let v6 = [
            &[0x21, 0x21, 0, 36][..],
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            &V6_PORTS,
        ]
        .concat();
        let none: &[u8] = &[0x20, 0x00, 0, 0];
        for (client, local, rest) in [
            ("192.168.0.1:56324", "192.168.0.11:443", v4),
            ("[::ffff:192.168.0.1]:56324", "192.168.0.11:443", v4),
            ("[2001:db8::1]:56324", "[2001:db8::2]:443", &v6),
            ("192.168.0.1:56324", "[2001:db8::2]:443", none),
        ] {
            let expected = [&signature[..], rest].concat();
            assert_eq!(
                header_of(Version::V2, client, local),
                expected,
                "{client} to {local}"
            );
        }
    }
}
