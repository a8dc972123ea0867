//! What the host keeps for a guest: handles, headers, arguments of calls, random bytes.

use std::hint::black_box;

use wasip3::{
    clocks::monotonic_clock::wait_for,
    http::types::{ErrorCode, Fields, Request, Trailers},
    random::random::get_random_bytes,
    sockets::types::{IpAddressFamily, TcpSocket, UdpSocket},
    wit_future, wit_stream,
};

use crate::together;

const KIB: usize = 1024;
/// Nothing waits for it: the call under way is what is asked for.
const AN_HOUR: u64 = 3_600_000_000_000;

/// Holds so many handles at once, then drops them.
pub async fn hold(kind: &str, count: u64) -> Result<String, String> {
    let future = || wit_future::new(|| Ok::<Option<Trailers>, ErrorCode>(None));
    match kind {
        "fields" => held(count, || Ok(Fields::new())),
        "request" => held(count, || {
            Ok(Request::new(Fields::new(), None, future().1, None))
        }),
        "stream" => held(count, || Ok(wit_stream::new::<u8>())),
        "future" => held(count, || Ok(future())),
        "call" => {
            let mut calls = Vec::new();
            for _ in 0..count {
                calls.push(together::begun(wait_for(AN_HOUR)).await);
            }
            Ok(format!("held {}", black_box(&calls).len()))
        }
        "tcp" => held(count, || {
            TcpSocket::create(IpAddressFamily::Ipv4).map_err(|error| error.to_string())
        }),
        "udp" => held(count, || {
            UdpSocket::create(IpAddressFamily::Ipv4).map_err(|error| error.to_string())
        }),
        other => Err(format!("kind={other} is nothing to hold")),
    }
}

fn held<T>(count: u64, make: impl Fn() -> Result<T, String>) -> Result<String, String> {
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
    let (_trailers, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let path = format!("/{}", "x".repeat(kib * KIB));
    request
        .set_path_with_query(Some(&path))
        .map_err(|()| "the path is none".to_owned())?;
    Ok(format!("passed {kib} KiB"))
}

pub fn random(bytes: u64) -> String {
    format!("got {} bytes\n", get_random_bytes(bytes).len())
}
