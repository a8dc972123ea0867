//! What the host keeps for a guest: handles, headers, arguments of calls, random bytes.

use std::{hint::black_box, str::FromStr};

use wasip2::{
    cli::stdout::get_stdout,
    clocks::monotonic_clock::subscribe_duration,
    http::types::{Fields, OutgoingRequest},
    random::random::get_random_bytes,
    sockets::{
        network::IpAddressFamily, tcp_create_socket::create_tcp_socket,
        udp_create_socket::create_udp_socket,
    },
};

const KIB: usize = 1024;
/// Nothing waits for it: the handle is what is asked for.
const AN_HOUR: u64 = 3_600_000_000_000;

/// What a handle is to.
pub enum Kind {
    Fields,
    Request,
    Pollable,
    Stream,
    Tcp,
    Udp,
}

impl FromStr for Kind {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "fields" => Self::Fields,
            "request" => Self::Request,
            "pollable" => Self::Pollable,
            "stream" => Self::Stream,
            "tcp" => Self::Tcp,
            "udp" => Self::Udp,
            _ => return Err(()),
        })
    }
}

/// Holds so many handles at once, then drops them.
pub fn hold(kind: Kind, count: u64) -> Result<String, String> {
    match kind {
        Kind::Fields => held(count, || Ok(Fields::new())),
        Kind::Request => held(count, || Ok(OutgoingRequest::new(Fields::new()))),
        Kind::Pollable => held(count, || Ok(subscribe_duration(AN_HOUR))),
        Kind::Stream => held(count, || Ok(get_stdout())),
        Kind::Tcp => held(count, || {
            create_tcp_socket(IpAddressFamily::Ipv4).map_err(|error| error.name())
        }),
        Kind::Udp => held(count, || {
            create_udp_socket(IpAddressFamily::Ipv4).map_err(|error| error.name())
        }),
    }
}

fn held<T>(count: u64, make: impl Fn() -> Result<T, &'static str>) -> Result<String, String> {
    let mut held = Vec::new();
    for made in 0..count {
        held.push(make().map_err(|error| format!("after {made}: {error}"))?);
    }
    Ok(format!("held {}", black_box(&held).len()))
}

/// One set of headers with so many values of 1 KiB.
pub fn headers(kib: usize) -> Result<String, String> {
    let (fields, value) = (Fields::new(), [b'x'; KIB]);
    for appended in 0..kib {
        fields
            .append("filler", &value)
            .map_err(|error| format!("after {appended} KiB: {error:?}"))?;
    }
    Ok(format!("appended {kib} KiB"))
}

/// One call with an argument of so many KiB.
pub fn argument(kib: usize) -> Result<String, String> {
    let request = OutgoingRequest::new(Fields::new());
    let path = format!("/{}", "x".repeat(kib * KIB));
    request
        .set_path_with_query(Some(&path))
        .map_err(|()| "the path is none".to_owned())?;
    Ok(format!("passed {kib} KiB"))
}

/// Few random bytes as hexadecimal digits, of many how many they are.
pub fn random(bytes: u64) -> String {
    /// More say nothing more.
    const SHOWN: usize = 32;
    let bytes = get_random_bytes(bytes);
    if bytes.len() > SHOWN {
        return format!("got {} bytes", bytes.len());
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
