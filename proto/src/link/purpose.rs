//! What the streams of a link are for, and how a peer says so.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::stream::Io;

/// How long a peer may take to say what a stream that it opened is for. The byte travels in the
/// stream's first packet, so only loss or malice delays it.
const PURPOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// The first byte of the stream in which a side of a QUIC link tells what it has read: no purpose, as nobody above
/// hears of it.
pub(super) const READS: u8 = 7;

/// What a stream is for: its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Purpose {
    /// HTTP/2 with gRPC follows.
    Grpc = 1,
    /// HTTP/1.1 to a function follows.
    Invoke = 2,
    /// A length-delimited `LogRequest` follows, answered by `LogLine`s.
    Logs = 3,
    /// Calls between controllers follow; see [`calls`](crate::calls).
    Calls = 4,
    /// A length-delimited `TunnelOpen` follows, answered by `TunnelOpened`; then bytes both ways. See
    /// [`tunnel`](crate::tunnel).
    Tunnel = 5,
    /// The same, answered for a target of UDP; then a [flow](crate::flow). An agent that knows only TCP drops it.
    TunnelUdp = 6,
}

impl Purpose {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Grpc),
            2 => Some(Self::Invoke),
            3 => Some(Self::Logs),
            4 => Some(Self::Calls),
            5 => Some(Self::Tunnel),
            6 => Some(Self::TunnelUdp),
            _ => None,
        }
    }

    /// Whether it may be left unread: behind it are clients, targets and functions, which read when they like.
    pub(super) fn may_be_left(self) -> bool {
        match self {
            Self::Grpc | Self::Calls => false,
            Self::Invoke | Self::Logs | Self::Tunnel | Self::TunnelUdp => true,
        }
    }
}

/// `None` for a stream that does not say what it is for.
pub(super) async fn read_purpose(mut io: Io) -> Option<(Purpose, Io)> {
    let byte = tokio::time::timeout(PURPOSE_TIMEOUT, io.read_u8()).await;
    match byte {
        Ok(Ok(READS)) => {
            io.hear_reads();
            None
        }
        Ok(Ok(byte)) => match Purpose::from_byte(byte) {
            Some(purpose) => {
                io.settle(purpose.may_be_left());
                Some((purpose, io))
            }
            None => {
                tracing::debug!(byte, "refusing a stream of unknown purpose");
                None
            }
        },
        Ok(Err(error)) => {
            tracing::debug!(%error, "a stream ended before it said what it is for");
            None
        }
        Err(_) => {
            tracing::debug!("refusing a stream that didn't say what it is for");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_keep_their_numbers() {
        for (purpose, byte) in [
            (Purpose::Grpc, 1),
            (Purpose::Invoke, 2),
            (Purpose::Logs, 3),
            (Purpose::Calls, 4),
            (Purpose::Tunnel, 5),
            (Purpose::TunnelUdp, 6),
        ] {
            assert_eq!(purpose as u8, byte);
            assert_eq!(Purpose::from_byte(byte), Some(purpose));
        }
        assert_eq!(Purpose::from_byte(0), None);
        assert_eq!(Purpose::from_byte(READS), None);
    }
}
