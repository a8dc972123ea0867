//! Gets an artifact from the controllers: from where the last attempt stopped, from one link after
//! another. Bytes go to the disk as they come; nothing is kept in memory but a chunk.

use hive_proto::artifact::{self as piece, PieceError};
use hive_proto::grpc;
use hive_proto::link::Link;
use hive_proto::v1::FetchArtifactRequest;
use hive_proto::v1::gateway_client::GatewayClient;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::{ArtifactStore, Part, StoreError};
use crate::reconcile::observed::DISK_FULL;
use crate::reconcile::wanted::Artifact;

/// A power cut costs at most this much of what was paid for; more syncs would wear the flash.
const SYNC_EVERY: u64 = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("no controller is reachable")]
    NoLink,
    #[error("the controller cannot send the artifact: {}", .0.message())]
    Status(Box<tonic::Status>),
    #[error("the download was cut off after {received} of {size} bytes")]
    Cut { received: u64, size: u64 },
    #[error("the controller sent {0}")]
    Piece(#[from] PieceError),
    #[error("{}", with_source(.0))]
    Store(#[from] StoreError),
    #[error("nothing needs the artifact any more")]
    Cancelled,
    #[error("writing the artifact was interrupted")]
    Interrupted(#[source] JoinError),
}

impl FetchError {
    /// For machines: the reason in the assignment's status.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoLink => "NoController",
            Self::Cancelled => "Cancelled",
            Self::Status(_) | Self::Piece(_) | Self::Cut { .. } => "FetchFailed",
            Self::Store(StoreError::DiskFull { .. }) => DISK_FULL,
            Self::Store(StoreError::Digest | StoreError::TooLong { .. }) => "ArtifactDamaged",
            Self::Store(StoreError::Write { .. }) | Self::Interrupted(_) => "DiskError",
        }
    }

    /// Whether the next link should be asked at once. Not when what failed is the disk here; and
    /// what came damaged is paid for again only after a while.
    fn is_of_the_link(&self) -> bool {
        matches!(
            self,
            Self::NoLink | Self::Status(_) | Self::Piece(_) | Self::Cut { .. }
        )
    }
}

/// What one call got done.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<(), FetchError>,
    /// Bytes came: the next attempt has less to do, and need not wait long.
    pub progress: bool,
}

/// Fetches the artifact, or as much as it can, over one link after another. Which is the first
/// goes by `attempt`, so that one bad controller doesn't fail every time.
pub async fn fetch(
    store: &ArtifactStore,
    artifact: Artifact,
    mut links: Vec<Link>,
    attempt: u32,
    cancel: &CancellationToken,
) -> Outcome {
    if !links.is_empty() {
        let first = attempt as usize % links.len();
        links.rotate_left(first);
    }
    let mut outcome = Outcome {
        result: Err(FetchError::NoLink),
        progress: false,
    };
    for link in links {
        let (result, received) = fetch_over(store, artifact, link, cancel).await;
        outcome.progress |= received > 0;
        let go_on = result.as_ref().is_err_and(FetchError::is_of_the_link);
        outcome.result = result;
        if !go_on {
            break;
        }
    }
    outcome
}

async fn fetch_over(
    store: &ArtifactStore,
    artifact: Artifact,
    link: Link,
    cancel: &CancellationToken,
) -> (Result<(), FetchError>, u64) {
    let opened = {
        let store = store.clone();
        blocking(move || store.part(artifact.digest, artifact.size)).await
    };
    let mut part = match opened {
        Ok(part) => part,
        Err(error) => return (Err(error), 0),
    };
    let offset = part.received();
    let result = if part.is_complete() {
        Ok(())
    } else {
        tracing::debug!(artifact = %artifact.digest, offset, link = link.id(), "fetching");
        cancel
            .run_until_cancelled(receive(&mut part, artifact, link))
            .await
            .unwrap_or(Err(FetchError::Cancelled))
    };
    let received = part.received() - offset;
    let result = match result {
        Ok(()) => blocking(move || part.finish()).await,
        Err(error @ FetchError::Store(StoreError::TooLong { .. })) => {
            blocking(move || part.discard()).await.and(Err(error))
        }
        Err(error) => blocking(part.syncing()).await.and(Err(error)),
    };
    (result, received)
}

async fn receive(part: &mut Part, artifact: Artifact, link: Link) -> Result<(), FetchError> {
    let status = |status| FetchError::Status(Box::new(status));
    let request = FetchArtifactRequest {
        sha256: artifact.digest.0.to_vec(),
        offset: part.received(),
        takes_zstd: true,
    };
    let mut chunks = GatewayClient::new(grpc::channel(link))
        .fetch_artifact(request)
        .await
        .map_err(status)?
        .into_inner();
    let mut synced = part.received();
    loop {
        match chunks.message().await {
            // Into the page cache, of some 64 KiB: not worth a hop to another thread.
            Ok(Some(chunk)) => part.append(&piece::bytes(chunk)?)?,
            Ok(None) if part.is_complete() => return Ok(()),
            Ok(None) | Err(_) => {
                return Err(FetchError::Cut {
                    received: part.received(),
                    size: artifact.size,
                });
            }
        }
        if part.received() - synced >= SYNC_EVERY {
            blocking(part.syncing()).await?;
            synced = part.received();
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(FetchError::Interrupted)?
        .map_err(FetchError::Store)
}

fn with_source(error: &StoreError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
