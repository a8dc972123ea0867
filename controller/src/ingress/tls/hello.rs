//! The first words of a TLS client, read without taking them: who they are passed on to sees them as they came.

use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::tunnels::names::Refusal;

/// Bytes of a greeting, with what may follow in the same segment: one of today has half a thousand to two thousand.
const MAX_BYTES: usize = 16 << 10;

/// Bytes that are read at a time.
const CHUNK: usize = 4 << 10;

/// Reads until the greeting is whole. All that was read is in `said`; who says something else hears so.
pub async fn read<S>(stream: &mut S, said: &mut Vec<u8>) -> Result<Accepted, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut acceptor = Acceptor::default();
    let mut chunk = [0; CHUNK];
    while said.len() < MAX_BYTES {
        let read = match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return Err(Refusal::BadHello),
            Ok(read) => read,
        };
        said.extend_from_slice(&chunk[..read]);
        let mut fresh = &chunk[..read];
        while !fresh.is_empty() {
            // No more than it has room for.
            match acceptor.read_tls(&mut fresh) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Err(Refusal::BadHello),
            }
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((_, mut alert)) => {
                let mut words = Vec::new();
                if alert.write_all(&mut words).is_ok() {
                    // A client that is gone need not hear it.
                    let _ = stream.write_all(&words).await;
                    let _ = stream.shutdown().await;
                }
                return Err(Refusal::BadHello);
            }
        }
    }
    Err(Refusal::BadHello)
}
