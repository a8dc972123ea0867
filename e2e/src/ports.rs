//! Ports that nothing uses.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};

/// Below the range from which Linux gives ports to outgoing connections (32768 and up): a member
/// that was killed must find its port again when it comes back.
const FIRST: u16 = 20_000;
const LAST: u16 = 32_000;

/// The first of `count` free ports in a row, free for TCP and for UDP.
///
/// # Panics
///
/// If there is no such row.
pub fn free_row(count: u16) -> u16 {
    // Not always the same: ports of a swarm that was just stopped may linger.
    let span = u32::from(LAST - FIRST - count);
    let start = std::process::id().wrapping_mul(97) % span;
    (0..span)
        .map(|step| FIRST + u16::try_from((start + step) % span).expect("the span is below 2^16"))
        .find(|first| (*first..first + count).all(is_free))
        .unwrap_or_else(|| panic!("no {count} free ports in a row from {FIRST} to {LAST}"))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
        && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Above those that swarms take, and below those of outgoing connections.
const APART: std::ops::Range<u16> = LAST + 1..32_767;

/// A port for who lets it go and takes it again, or takes it later: no swarm and no outgoing connection has it
/// meanwhile.
///
/// # Panics
///
/// If there is none.
pub fn free() -> u16 {
    let mut apart = APART;
    let found = apart.find(|port| is_free(*port));
    found.unwrap_or_else(|| panic!("no free port in {APART:?}"))
}

pub const LOOPBACK: &str = "127.0.0.1";

pub fn loopback(port: u16) -> String {
    format!("{LOOPBACK}:{port}")
}
