//! Artifacts across the controllers: uploaded to any of them, durable on a majority before they
//! may be named, fetched from another where one is missing.

mod digest;
mod files;
pub mod pieces;
mod pull;
pub mod usage;

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt};
use hive_functions::{ComponentInfo, InspectError, InspectLimits};
use hive_manifests::function::{MAX_COMPILED_BYTES, MAX_COMPONENT_BYTES};
use hive_proto::artifact;
use hive_proto::v1::{FetchArtifactRequest, PutArtifactChunk};

pub use digest::{BadDigest, Digest};
pub use files::{ArtifactFiles, Part, ReceiveError, Received};
pub use pull::{Allow, Allowed, PullError, Registries};

use crate::peers::Peers;
use crate::state::Command;
use crate::store::{ProposeError, Replica};
use usage::is_used;

/// A controller that takes nothing of an artifact for this long hangs. Syncing the last of it to a
/// slow SD card takes less.
const STALLED: Duration = Duration::from_secs(30);

/// For a controller to find an artifact and begin to send it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub struct Artifacts {
    files: ArtifactFiles,
    replica: Replica,
    peers: Peers,
}

#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error(transparent)]
    Digest(#[from] BadDigest),
    #[error(transparent)]
    Receive(#[from] ReceiveError),
    #[error(
        "only {held} of {needed} controllers could store the artifact: try again when more of them are up"
    )]
    NoMajority { held: usize, needed: usize },
    #[error("the artifact is stored but could not be registered")]
    Register(#[source] ProposeError),
}

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("artifact {0} is on no controller that can be reached")]
    Nowhere(Digest),
    #[error("cannot read artifact {digest}")]
    Io {
        digest: Digest,
        #[source]
        source: io::Error,
    },
    /// Bit rot: the copy here was removed, so that the next attempt takes a good one.
    #[error(
        "the copy of artifact {0} on this controller had rotted and was removed; another controller's is fetched"
    )]
    Rotten(Digest),
}

#[derive(Debug, thiserror::Error)]
pub enum InspectArtifactError {
    #[error(transparent)]
    Digest(#[from] BadDigest),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Component(#[from] InspectError),
}

impl Artifacts {
    pub fn new(files: ArtifactFiles, replica: Replica, peers: Peers) -> Self {
        Self {
            files,
            replica,
            peers,
        }
    }

    pub fn files(&self) -> &ArtifactFiles {
        &self.files
    }

    /// Takes an artifact in: verified, durable on a majority of controllers, registered.
    pub async fn upload<E>(
        &self,
        sha256: &str,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Received, UploadError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let digest: Digest = sha256.parse()?;
        let received = self
            .files
            .receive(&digest, MAX_COMPONENT_BYTES, body)
            .await?;
        self.enter(&digest, received.size).await?;
        Ok(received)
    }

    /// Makes an artifact that is held here one of the swarm: on a majority of controllers, registered.
    async fn enter(&self, digest: &Digest, size: u64) -> Result<(), UploadError> {
        let state = self.replica.state();
        if state.artifact(&digest.hex()).is_none() {
            self.replicate(digest).await?;
            self.register(digest, size).await?;
        } else if !is_used(&state, digest) {
            self.register(digest, size).await?;
        }
        Ok(())
    }

    /// Registers an artifact anew that is known but that nothing names yet, so that it is not
    /// collected while something is about to.
    async fn refresh(&self, digest: &Digest) -> Result<(), UploadError> {
        let state = self.replica.state();
        match state.artifact(&digest.hex()) {
            Some(record) if !is_used(&state, digest) => self.register(digest, record.size).await,
            _ => Ok(()),
        }
    }

    /// Takes in what was made here, a compiled component, with its size.
    pub async fn store_file(&self, part: Part) -> Result<(Digest, u64), UploadError> {
        let files = self.files.clone();
        let (digest, size) = tokio::task::spawn_blocking(move || files.keep_part(part))
            .await
            .expect("hashing does not panic")?;
        self.enter(&digest, size).await?;
        Ok((digest, size))
    }

    async fn register(&self, digest: &Digest, size: u64) -> Result<(), UploadError> {
        let command = Command::RegisterArtifact {
            sha256: digest.hex(),
            size,
        };
        match self.replica.propose(command).await {
            Ok(_) => Ok(()),
            Err(error) => Err(UploadError::Register(error)),
        }
    }

    /// Puts a held artifact on other controllers until a majority of the voters has it. The rest
    /// fetch it by themselves.
    async fn replicate(&self, digest: &Digest) -> Result<(), UploadError> {
        let voters = self.replica.health().voters;
        let needed = voters.len() / 2 + 1;
        let own = usize::from(voters.contains(&self.replica.id()));
        let mut puts: FuturesUnordered<_> = voters
            .iter()
            .filter(|id| **id != self.replica.id())
            .map(|id| self.put(*id, digest))
            .collect();
        let mut held = own;
        while held < needed {
            match puts.next().await {
                Some(Ok(())) => held += 1,
                Some(Err((id, error))) => {
                    tracing::warn!(controller = id, artifact = %digest, error, "cannot replicate artifact");
                }
                None => return Err(UploadError::NoMajority { held, needed }),
            }
        }
        Ok(())
    }

    async fn put(&self, id: u64, digest: &Digest) -> Result<(), (u64, String)> {
        let failed = |error: &dyn std::fmt::Display| (id, error.to_string());
        let mut client = self.peers.bulk(id).map_err(|e| failed(&e))?;
        let size = self.files.size(digest).unwrap_or_default();
        let header = PutArtifactChunk {
            sha256: digest.as_bytes().to_vec(),
            size,
            ..PutArtifactChunk::default()
        };
        let level = self.replica.state().level();
        let data = self.files.read(digest, 0).await.map_err(|e| failed(&e))?;
        let (progress, mut taken) = tokio::sync::watch::channel(());
        // A read error ends the stream early: the receiver finds the digest wrong.
        let data = data
            .inspect(move |_| progress.send_replace(()))
            .take_while(|chunk| std::future::ready(chunk.is_ok()))
            .filter_map(|chunk| std::future::ready(chunk.ok()))
            .then(move |data| pieces::to_put(data, level));
        let request = futures::stream::iter([header]).chain(data);
        let mut put = std::pin::pin!(client.put_artifact(request));
        loop {
            tokio::select! {
                answer = &mut put => {
                    return answer.map(|_| ()).map_err(|e| failed(&e.message()));
                }
                progress = tokio::time::timeout(STALLED, next_chunk(&mut taken)) => {
                    progress.map_err(|_| failed(&"it takes nothing more"))?;
                }
            }
        }
    }

    /// Makes sure that this controller holds the artifact.
    pub async fn ensure(&self, digest: &Digest) -> Result<(), FetchError> {
        if self.files.size(digest).is_some() {
            return Ok(());
        }
        for (id, _) in self.replica.state().controllers() {
            if id == self.replica.id() {
                continue;
            }
            match self.fetch_from(id, digest).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::debug!(controller = id, artifact = %digest, error, "cannot fetch artifact");
                }
            }
        }
        Err(FetchError::Nowhere(*digest))
    }

    async fn fetch_from(&self, id: u64, digest: &Digest) -> Result<(), String> {
        let mut client = self.peers.bulk(id).map_err(|e| e.to_string())?;
        let request = FetchArtifactRequest {
            sha256: digest.as_bytes().to_vec(),
            offset: 0,
            takes_zstd: true,
        };
        let chunks = tokio::time::timeout(FETCH_TIMEOUT, client.fetch_artifact(request))
            .await
            .map_err(|_| format!("no answer within {FETCH_TIMEOUT:?}"))?
            .map_err(|e| e.message().to_owned())?
            .into_inner();
        self.files
            .receive(
                digest,
                MAX_COMPILED_BYTES,
                chunks.map(|chunk| Ok::<_, Box<dyn Error + Send + Sync>>(artifact::bytes(chunk?)?)),
            )
            .await
            .map_err(|e| e.to_string())?;
        Ok(())
    }

    /// The whole artifact, its digest checked again: what rotted on disk is never used.
    pub async fn load(&self, digest: &Digest) -> Result<Bytes, FetchError> {
        self.checked(digest, |path| {
            let bytes = Bytes::from(std::fs::read(path)?);
            Ok((Digest::of(&bytes), bytes))
        })
        .await
    }

    /// The file of an artifact, its digest checked again, for a reader that is not to have it in memory.
    pub async fn file(&self, digest: &Digest) -> Result<PathBuf, FetchError> {
        self.checked(digest, |path| Ok((Digest::of_file(path)?, path.to_owned())))
            .await
    }

    /// What `read` makes of an artifact's file, if that has the digest that `read` found to go with it.
    async fn checked<T: Send + 'static>(
        &self,
        digest: &Digest,
        read: impl FnOnce(&Path) -> io::Result<(Digest, T)> + Send + 'static,
    ) -> Result<T, FetchError> {
        self.ensure(digest).await?;
        let path = self.files.path(digest);
        let file = path.clone();
        let (actual, read) = tokio::task::spawn_blocking(move || read(&file))
            .await
            .expect("reading and hashing do not panic")
            .map_err(|source| FetchError::Io {
                digest: *digest,
                source,
            })?;
        if actual != *digest {
            tracing::error!(artifact = %digest, path = %path.display(), "artifact has rotted; removing it");
            let _ = tokio::fs::remove_file(&path).await;
            return Err(FetchError::Rotten(*digest));
        }
        Ok(read)
    }

    /// What a component is: its world, its imports, its initial memory. Asked before a function
    /// that names it is written: from then on it has [`collect`](crate::reconcile::collect)'s full
    /// time to be named.
    pub async fn inspect(
        &self,
        sha256: &str,
        limits: InspectLimits,
    ) -> Result<ComponentInfo, InspectArtifactError> {
        let digest: Digest = sha256.parse()?;
        if let Err(error) = self.refresh(&digest).await {
            // What it is about to be named by meets the same trouble in a moment, and says so.
            tracing::debug!(artifact = %digest, %error, "cannot register artifact anew");
        }
        let bytes = self.load(&digest).await?;
        let info = tokio::task::spawn_blocking(move || hive_functions::inspect(&bytes, limits))
            .await
            .expect("inspecting does not panic");
        Ok(info?)
    }
}

/// The next time that a chunk is taken; never, once all of them are.
async fn next_chunk(taken: &mut tokio::sync::watch::Receiver<()>) {
    if taken.changed().await.is_err() {
        // What is left is the receiver's sync; it has one period for that from here.
        std::future::pending().await
    }
}
