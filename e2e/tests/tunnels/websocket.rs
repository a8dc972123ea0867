//! As much of WebSockets (RFC 6455) as shows that they pass: a handshake, and short texts both ways.

use std::io::{Error, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The handshake of the RFC's example.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A whole message of text in one frame.
const TEXT: u8 = 0x81;
const MASKED: u8 = 0x80;
/// Longer ones have their length elsewhere.
const LONGEST: usize = 125;

/// Clients mask what they send, servers do not.
pub async fn send(
    stream: &mut (impl AsyncWrite + Unpin),
    text: &str,
    mask: Option<[u8; 4]>,
) -> Result<()> {
    assert!(text.len() <= LONGEST);
    let length = u8::try_from(text.len()).unwrap();
    let mut frame = vec![TEXT, length];
    match mask {
        None => frame.extend_from_slice(text.as_bytes()),
        Some(mask) => {
            frame[1] |= MASKED;
            frame.extend_from_slice(&mask);
            frame.extend(masked(text.as_bytes(), mask));
        }
    }
    stream.write_all(&frame).await?;
    stream.flush().await
}

pub async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    if head[0] != TEXT {
        return Err(Error::other(format!("a frame begins with {:#x}", head[0])));
    }
    let mut mask = [0; 4];
    if head[1] & MASKED != 0 {
        stream.read_exact(&mut mask).await?;
    }
    let mut text = vec![0; usize::from(head[1] & !MASKED)];
    stream.read_exact(&mut text).await?;
    String::from_utf8(masked(&text, mask).collect()).map_err(Error::other)
}

/// The other way round as well.
fn masked(bytes: &[u8], mask: [u8; 4]) -> impl Iterator<Item = u8> {
    let mask = mask.into_iter().cycle();
    bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask)
}
