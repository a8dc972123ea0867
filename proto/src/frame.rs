//! One protobuf message after another on a stream without gRPC, each with its length before it.
//! The length is a varint, as protobuf writes it. It is the peer's word: nothing is allocated for
//! a message over the bound that the caller gives.

use prost::Message;
use prost::bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Enough for a `LogRequest` and for a `LogLine`, whose text its writer cuts.
pub const MAX_FRAME_BYTES: usize = 16 * 1024;

/// A length of more bytes than this can't be one of a message that anybody accepts.
const MAX_LENGTH_BYTES: usize = 5;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("the stream broke")]
    Io(#[from] std::io::Error),
    #[error("the stream ended in the middle of a message")]
    Truncated,
    #[error("the length before a message is no varint")]
    Length,
    #[error("a message of {length} bytes is over the bound of {max}")]
    TooLong { length: u64, max: usize },
    #[error("the message cannot be decoded")]
    Decode(#[from] prost::DecodeError),
}

/// Writes one message and flushes.
pub async fn write<M: Message>(
    to: &mut (impl AsyncWrite + Unpin),
    message: &M,
) -> Result<(), FrameError> {
    to.write_all(&message.encode_length_delimited_to_vec())
        .await?;
    to.flush().await?;
    Ok(())
}

/// Reads one message of at most `max` bytes; `None` when the stream ends before another begins.
/// Not cancel safe: bytes read are lost with the future.
pub async fn read<M: Message + Default>(
    from: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> Result<Option<M>, FrameError> {
    let Some(length) = read_length(from).await? else {
        return Ok(None);
    };
    let fits = usize::try_from(length).ok().filter(|fit| *fit <= max);
    let Some(length) = fits else {
        return Err(FrameError::TooLong { length, max });
    };
    let mut body = BytesMut::zeroed(length);
    from.read_exact(&mut body).await.map_err(truncated)?;
    Ok(Some(M::decode(body.freeze())?))
}

async fn read_length(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<u64>, FrameError> {
    let mut length = 0_u64;
    for place in 0..MAX_LENGTH_BYTES {
        let mut byte = [0];
        if from.read(&mut byte).await? == 0 {
            return match place {
                0 => Ok(None),
                _ => Err(FrameError::Truncated),
            };
        }
        length |= u64::from(byte[0] & 0x7f) << (7 * place);
        if byte[0] & 0x80 == 0 {
            return Ok(Some(length));
        }
    }
    Err(FrameError::Length)
}

fn truncated(error: std::io::Error) -> FrameError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof => FrameError::Truncated,
        _ => FrameError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::v1::LogLine;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn line(text: &str) -> LogLine {
        LogLine {
            text: text.to_owned(),
            ..Default::default()
        }
    }

    proptest! {
        #[test]
        fn messages_arrive_one_by_one(texts in prop::collection::vec(".{0,300}", 0..5)) {
            let lines: Vec<_> = texts.iter().map(|text| line(text)).collect();
            let received = block_on(async {
                let mut wire = Vec::new();
                for line in &lines {
                    write(&mut wire, line).await.unwrap();
                }
                let mut wire = &wire[..];
                let mut received = Vec::new();
                while let Some(line) = read::<LogLine>(&mut wire, MAX_FRAME_BYTES).await.unwrap() {
                    received.push(line);
                }
                received
            });
            prop_assert_eq!(received, lines);
        }

        #[test]
        fn garbage_is_refused_without_panic(bytes: Vec<u8>) {
            let _ = block_on(read::<LogLine>(&mut &bytes[..], MAX_FRAME_BYTES));
        }
    }

    #[test]
    fn a_cut_anywhere_is_an_error() {
        let wire = line("hello").encode_length_delimited_to_vec();
        for cut in 1..wire.len() {
            assert!(
                matches!(
                    block_on(read::<LogLine>(&mut &wire[..cut], MAX_FRAME_BYTES)),
                    Err(FrameError::Truncated)
                ),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn the_bound_holds_before_anything_is_allocated() {
        let exact = line("hello");
        let size = exact.encoded_len();
        let wire = exact.encode_length_delimited_to_vec();
        assert_eq!(
            block_on(read::<LogLine>(&mut &wire[..], size)).unwrap(),
            Some(exact)
        );
        assert!(matches!(
            block_on(read::<LogLine>(&mut &wire[..], size - 1)),
            Err(FrameError::TooLong { .. })
        ));
        assert!(matches!(
            block_on(read::<LogLine>(
                &mut &[0xff, 0xff, 0xff, 0xff, 0x7f][..],
                100
            )),
            Err(FrameError::TooLong { .. })
        ));
        assert!(matches!(
            block_on(read::<LogLine>(&mut &[0xff; 9][..], 100)),
            Err(FrameError::Length)
        ));
    }
}
