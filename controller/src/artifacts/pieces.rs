//! The pieces in which an artifact goes from one controller to another: compressed where that is known to be taken.

use bytes::Bytes;
use hive_proto::artifact::{self, PieceError};
use hive_proto::v1::{ArtifactChunk, PutArtifactChunk};

use crate::state::level;

/// Where it may take its time: calls are answered on the threads that ask.
pub async fn compressed(data: Bytes) -> ArtifactChunk {
    tokio::task::spawn_blocking(move || artifact::compressed(data))
        .await
        .expect("compressing does not panic")
}

/// What is put on another controller, in a swarm of that level.
pub async fn to_put(data: Bytes, level: u32) -> PutArtifactChunk {
    match level < level::COMPRESSED_PUTS {
        true => PutArtifactChunk {
            data,
            ..PutArtifactChunk::default()
        },
        false => PutArtifactChunk {
            piece: Some(compressed(data).await),
            ..PutArtifactChunk::default()
        },
    }
}

/// The plain bytes of what another controller puts here, of whichever release.
pub fn of_put(chunk: PutArtifactChunk) -> Result<Bytes, PieceError> {
    match chunk.piece {
        Some(piece) => artifact::bytes(piece),
        None => Ok(chunk.data),
    }
}
