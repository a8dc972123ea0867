//! The pieces in which an artifact travels: plain, or compressed where who asked takes that.
//!
//! Each piece is compressed by itself and says how long it is. So offsets count plain bytes, and what was
//! cut off goes on where it was, whoever sends the rest and however. Pure; what comes compressed never unfolds
//! to more than [`MAX_PIECE_BYTES`], whatever a peer says. Agents only call [`bytes`]: the compressor is not linked into them.

use bytes::Bytes;

use crate::v1::ArtifactChunk;

/// Of one piece that came compressed. Controllers send 64 KiB; a later one may send more at once.
const MAX_PIECE_BYTES: usize = 1 << 20;

/// Makes 32 % of compiled code (850 KB for x86-64, in pieces of 64 KiB), for 2.9 ms of a server's processor a megabyte;
/// undoing it takes 0.9 ms. Level 1 has 33 % for 2.2 ms, level 6 has 29 % for 9 ms. Pieces four times as long would save another 2 % of the code.
const LEVEL: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum PieceError {
    #[error("a piece of {0} bytes, more than {MAX_PIECE_BYTES}")]
    TooLong(u32),
    #[error("a piece that is no zstd frame of {said} bytes")]
    Damaged {
        said: u32,
        #[source]
        source: std::io::Error,
    },
    #[error("a piece of {came} bytes that was to have {said}")]
    Length { came: usize, said: u32 },
}

/// As it is.
pub fn plain(data: Bytes) -> ArtifactChunk {
    ArtifactChunk {
        data,
        ..ArtifactChunk::default()
    }
}

/// Compressed, if that makes it smaller and whoever gets it would take it.
pub fn compressed(data: Bytes) -> ArtifactChunk {
    if data.len() > MAX_PIECE_BYTES {
        return plain(data);
    }
    match zstd::bulk::compress(&data, LEVEL) {
        Ok(zstd) if zstd.len() < data.len() => ArtifactChunk {
            zstd: zstd.into(),
            plain_size: data.len() as u32,
            ..ArtifactChunk::default()
        },
        _ => plain(data),
    }
}

/// The plain bytes of a piece. What is said to be too long is refused before anything is allocated for it.
pub fn bytes(piece: ArtifactChunk) -> Result<Bytes, PieceError> {
    let ArtifactChunk {
        data,
        zstd,
        plain_size: said,
    } = piece;
    if zstd.is_empty() {
        return Ok(data);
    }
    let size = said as usize;
    if size > MAX_PIECE_BYTES {
        return Err(PieceError::TooLong(said));
    }
    // Into a buffer of that size: no window that the frame asks for is allocated, and what would
    // go beyond is an error.
    let bytes = zstd::bulk::decompress(&zstd, size)
        .map_err(|source| PieceError::Damaged { said, source })?;
    if bytes.len() != size {
        let came = bytes.len();
        return Err(PieceError::Length { came, said });
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    /// A frame of so many zeros: some dozen bytes.
    fn zeros(count: usize) -> Vec<u8> {
        zstd::bulk::compress(&vec![0; count], 1).unwrap()
    }

    fn piece(zstd: Vec<u8>, plain_size: u32) -> ArtifactChunk {
        ArtifactChunk {
            zstd: zstd.into(),
            plain_size,
            ..ArtifactChunk::default()
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_comes(words in prop::collection::vec("[ab]{0,9}|[^x]{0,3}", 0..200)) {
            let data = Bytes::from(words.concat());
            let sent = compressed(data.clone());
            prop_assert!(sent.encoded_len() <= plain(data.clone()).encoded_len() + 8);
            prop_assert_eq!(bytes(sent).unwrap(), data.clone());
            prop_assert_eq!(bytes(plain(data.clone())).unwrap(), data);
        }

        #[test]
        fn what_comes_is_as_long_as_it_says_and_bounded(
            count in 0..3 * MAX_PIECE_BYTES,
            said in prop_oneof![any::<u32>(), 0..3 * MAX_PIECE_BYTES as u32],
            says_so: bool,
            flipped in prop::option::of((any::<prop::sample::Index>(), 1..=u8::MAX)),
        ) {
            let said = if says_so { count as u32 } else { said };
            let mut frame = zeros(count);
            if let Some((at, bits)) = flipped {
                let at = at.index(frame.len());
                frame[at] ^= bits;
            }
            if let Ok(bytes) = bytes(piece(frame, said)) {
                prop_assert_eq!(bytes.len(), said as usize);
                prop_assert!(bytes.len() <= MAX_PIECE_BYTES);
            }
        }

        #[test]
        fn noise_is_no_piece(zstd in prop::collection::vec(any::<u8>(), 1..99), said: u32) {
            prop_assume!(!zstd.starts_with(&0xFD2F_B528_u32.to_le_bytes()));
            prop_assert!(bytes(piece(zstd, said.max(1))).is_err());
        }
    }

    #[test]
    fn a_piece_that_lies_about_its_size_is_refused() {
        let bound = MAX_PIECE_BYTES as u32;
        assert_eq!(bytes(piece(zeros(1000), 1000)).unwrap(), vec![0; 1000]);
        assert!(bytes(piece(zeros(MAX_PIECE_BYTES), bound)).is_ok());
        for (frame, said, expected) in [
            (zeros(MAX_PIECE_BYTES + 1), bound + 1, "more than"),
            (zeros(1000), u32::MAX, "more than"),
            (zeros(64 << 20), bound, "no zstd frame"),
            (zeros(1000), 999, "no zstd frame"),
            (zeros(1000), 0, "no zstd frame"),
            (zeros(1000), 1001, "was to have 1001"),
            (
                [zeros(1000), zeros(64 << 20)].concat(),
                1000,
                "no zstd frame",
            ),
            (zeros(1000)[..8].to_vec(), 1000, "no zstd frame"),
        ] {
            let error = bytes(piece(frame, said)).unwrap_err().to_string();
            assert!(error.contains(expected), "{said}: {error}");
        }
    }

    #[test]
    fn what_nobody_would_take_compressed_goes_plain() {
        let data = Bytes::from(vec![0; MAX_PIECE_BYTES + 1]);
        assert_eq!(compressed(data.clone()), plain(data));
    }
}
