//! Reads the header with which a proxy begins a connection: whom it speaks for. Nothing behind the header is taken.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{LOCAL, PROXY, SIGNATURE, TCP4, TCP6};

/// Bytes of the longest line of version 1, with its end.
const MAX_LINE: usize = 107;

/// Bytes behind the length of version 2: addresses, and what else a proxy likes to say. Those of real ones are some
/// hundred.
const MAX_ADDRESSES: usize = 4096;

/// Why a connection does not begin as it must.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the connection broke")]
    Io(#[from] io::Error),
    #[error("the connection does not begin with a header of the PROXY protocol")]
    Missing,
    #[error("the header of the PROXY protocol cannot be read")]
    Malformed,
}

/// The client for whom a proxy connects; `None` where it says that it speaks for itself, or does not know.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ReadError> {
    // The shortest line of version 1 is longer.
    let mut start = [0; SIGNATURE.len()];
    stream.read_exact(&mut start).await?;
    if start == SIGNATURE {
        return binary(stream).await;
    }
    if !start.starts_with(b"PROXY ") {
        return Err(ReadError::Missing);
    }
    let mut line = start.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(ReadError::Malformed);
        }
        // What is behind the line is the client's: no byte of it may be taken.
        line.push(stream.read_u8().await?);
    }
    text(&line)
}

fn text(line: &[u8]) -> Result<Option<SocketAddr>, ReadError> {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let line = std::str::from_utf8(line).map_err(|_| ReadError::Malformed)?;
    let parts: Vec<&str> = line.split(' ').collect();
    let &[_, family, client, _, port, _] = &parts[..] else {
        return match parts.get(1) {
            Some(&"UNKNOWN") => Ok(None),
            _ => Err(ReadError::Malformed),
        };
    };
    let client: IpAddr = client.parse().map_err(|_| ReadError::Malformed)?;
    let is_family = match family {
        "TCP4" => client.is_ipv4(),
        "TCP6" => client.is_ipv6(),
        "UNKNOWN" => return Ok(None),
        _ => false,
    };
    let port: u16 = port.parse().map_err(|_| ReadError::Malformed)?;
    match is_family {
        true => Ok(Some(SocketAddr::new(client, port))),
        false => Err(ReadError::Malformed),
    }
}

async fn binary(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<SocketAddr>, ReadError> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let length = usize::from(stream.read_u16().await?);
    if length > MAX_ADDRESSES {
        return Err(ReadError::Malformed);
    }
    let mut addresses = vec![0; length];
    stream.read_exact(&mut addresses).await?;
    match command {
        LOCAL => return Ok(None),
        PROXY => {}
        _ => return Err(ReadError::Malformed),
    }
    // Both addresses, then both ports; the client's first.
    let (client, port): (IpAddr, &[u8]) = match family {
        TCP4 => {
            let client: [u8; 4] = part(&addresses, 0)?;
            (Ipv4Addr::from(client).into(), &addresses[4..])
        }
        TCP6 => {
            let client: [u8; 16] = part(&addresses, 0)?;
            (Ipv6Addr::from(client).into(), &addresses[16..])
        }
        // Datagrams, and sockets of Unix.
        _ => return Ok(None),
    };
    let own = if client.is_ipv4() { 4 } else { 16 };
    let port = u16::from_be_bytes(part(port, own)?);
    Ok(Some(SocketAddr::new(client, port)))
}

fn part<const N: usize>(bytes: &[u8], from: usize) -> Result<[u8; N], ReadError> {
    let part = bytes.get(from..from + N);
    part.and_then(|part| part.try_into().ok())
        .ok_or(ReadError::Malformed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Version, header};
    use super::*;

    /// What is read of some bytes, and what is left of them.
    async fn taken(bytes: &[u8]) -> (String, Vec<u8>) {
        let mut rest = bytes;
        let found = match read(&mut rest).await {
            Ok(Some(client)) => client.to_string(),
            Ok(None) => "none".to_owned(),
            Err(error) => error.to_string(),
        };
        (found, rest.to_vec())
    }

    #[tokio::test]
    async fn headers_of_both_versions_are_read_and_nothing_more() {
        for (client, local, expected) in [
            ("203.0.113.7:4711", "10.0.0.1:443", "203.0.113.7:4711"),
            (
                "[2001:db8::7]:4711",
                "[2001:db8::1]:443",
                "[2001:db8::7]:4711",
            ),
            ("203.0.113.7:4711", "[2001:db8::1]:443", "none"),
        ] {
            for version in [Version::V1, Version::V2] {
                let header = header(version, client.parse().unwrap(), local.parse().unwrap());
                let all = [&header[..], b"PROXY behind it"].concat();
                let (found, rest) = taken(&all).await;
                assert_eq!(found, expected, "{version:?}");
                assert_eq!(rest, b"PROXY behind it");
                for end in 0..header.len() {
                    let (found, _) = taken(&header[..end]).await;
                    assert_eq!(found, "the connection broke", "{version:?} {end}");
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_header_names_nobody() {
        let missing = "the connection does not begin with a header of the PROXY protocol";
        let malformed = "the header of the PROXY protocol cannot be read";
        let long = format!("PROXY TCP4 {}\r\n", "1".repeat(200));
        let huge = [&SIGNATURE[..], &[PROXY, TCP4, 0xff, 0xff]].concat();
        let short = [&SIGNATURE[..], &[PROXY, TCP4, 0, 4, 203, 0, 113, 7]].concat();
        let version = [&SIGNATURE[..], &[0x31, TCP4, 0, 0]].concat();
        let unix = [&SIGNATURE[..], &[PROXY, 0x31, 0, 2, 1, 2]].concat();
        let cases: [(&[u8], &str); 11] = [
            (b"GET / HTTP/1.1\r\n", missing),
            (b"SSH-2.0-client\r\n", missing),
            (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "none"),
            (b"PROXY UNKNOWN\r\n", "none"),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", malformed),
            (b"PROXY TCP4 203.0.113.7 10.0.0.1 65536 2\r\n", malformed),
            (b"PROXY TCP4 203.0.113.7\r\n", malformed),
            (long.as_bytes(), malformed),
            (&huge, malformed),
            (&version, malformed),
            (&unix, "none"),
        ];
        for (bytes, expected) in cases {
            let (found, _) = taken(bytes).await;
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(bytes));
        }
        assert_eq!(taken(&short).await.0, malformed);
    }

    #[tokio::test]
    async fn a_line_is_read_as_far_as_it_may_be_long() {
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
        let longest = format!("PROXY UNKNOWN {address} {address} 65535 65535\r\n");
        assert_eq!(longest.len(), MAX_LINE);
        assert_eq!(taken(longest.as_bytes()).await.0, "none");
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 1000]].concat();
        let (found, rest) = taken(&endless).await;
        assert_eq!(found, "the header of the PROXY protocol cannot be read");
        assert_eq!(rest.len(), endless.len() - MAX_LINE);
    }
}
