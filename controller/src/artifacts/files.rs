//! The artifacts that this controller holds: one immutable file each, named by its digest.
//!
//! A file appears under its name only when its bytes were verified and synced; it never changes
//! afterwards.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use hive_manifests::function::MAX_COMPILED_BYTES;
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use super::Digest;

/// Bytes read at once: a fair size for one gRPC message on a slow link.
const READ_BYTES: usize = 64 << 10;

/// Who sends nothing of an artifact for this long has gone.
const SILENCE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct ArtifactFiles {
    dir: Arc<Path>,
    /// Makes names of files under way unique within this process.
    uploads: Arc<AtomicU64>,
}

#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    #[error("the artifact is over the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    #[error(
        "the bytes received ({size}) have digest {actual}, not {expected}: was the upload cut short, or the file changed meanwhile?"
    )]
    Mismatch {
        expected: Digest,
        actual: Digest,
        size: u64,
    },
    #[error("the upload ended early")]
    Interrupted(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot store the artifact in {}", dir.display())]
    Io {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub size: u64,
    /// False when it was there already.
    pub created: bool,
}

impl ArtifactFiles {
    /// Opens the directory, made if absent; uploads that a crash cut short are removed.
    pub fn open(dir: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "part") {
                std::fs::remove_file(path)?;
            }
        }
        Ok(Self {
            dir: dir.into(),
            uploads: Arc::default(),
        })
    }

    /// Whether the directory can be read.
    pub fn check(&self) -> io::Result<()> {
        std::fs::read_dir(&self.dir).map(|_| ())
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Bytes, if it is held here.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        std::fs::metadata(self.path(digest)).ok().map(|m| m.len())
    }

    /// Stores a stream of bytes, `limit` of them at most, under `digest`; durable when this returns.
    pub async fn receive<E>(
        &self,
        digest: &Digest,
        limit: u64,
        body: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Received, ReceiveError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        if let Some(size) = self.size(digest) {
            self.renew(digest);
            return Ok(Received {
                size,
                created: false,
            });
        }
        let part = self.part();
        let io = |source| ReceiveError::Io {
            dir: self.dir.to_path_buf(),
            source,
        };
        let mut file = tokio::fs::File::create(&part.0).await.map_err(io)?;
        let mut hash = sha2::Sha256::new();
        let mut size = 0;
        let mut body = std::pin::pin!(body);
        loop {
            let next = tokio::time::timeout(SILENCE, body.next()).await;
            let next = next.map_err(|_| {
                ReceiveError::Interrupted(format!("nothing came for {SILENCE:?}").into())
            })?;
            let Some(data) = next else { break };
            let data = data.map_err(|e| ReceiveError::Interrupted(e.into()))?;
            size += data.len() as u64;
            if size > limit {
                return Err(ReceiveError::TooLarge { limit });
            }
            hash.update(&data);
            file.write_all(&data).await.map_err(io)?;
        }
        let actual = Digest::from(<[u8; 32]>::from(hash.finalize()));
        if actual != *digest {
            return Err(ReceiveError::Mismatch {
                expected: *digest,
                actual,
                size,
            });
        }
        file.flush().await.map_err(io)?;
        let (files, digest) = (self.clone(), *digest);
        tokio::task::spawn_blocking(move || files.settle(part, &digest))
            .await
            .expect("syncing a file does not panic")
            .map_err(io)?;
        Ok(Received {
            size,
            created: true,
        })
    }

    /// Stores what is read under `digest`; durable when this returns. Blocks.
    pub fn keep(&self, digest: &Digest, bytes: &mut dyn Read) -> io::Result<()> {
        if self.size(digest).is_some() {
            return Ok(());
        }
        let part = self.part();
        let mut file = std::fs::File::create(&part.0)?;
        let mut hash = sha2::Sha256::new();
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let read = bytes.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
            file.write_all(&buffer[..read])?;
        }
        let actual = Digest::from(<[u8; 32]>::from(hash.finalize()));
        if actual != *digest {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("artifact {digest} has other bytes: {actual}"),
            ));
        }
        self.settle(part, digest)
    }

    /// A file of its own for bytes under way, in the directory that they are to stay in.
    pub fn part(&self) -> Part {
        let number = self.uploads.fetch_add(1, Ordering::Relaxed);
        Part(self.dir.join(format!("{number}.part")))
    }

    /// Keeps what was written to a part under its digest; durable when this returns. Blocks.
    pub fn keep_part(&self, part: Part) -> Result<(Digest, u64), ReceiveError> {
        let io = |source| ReceiveError::Io {
            dir: self.dir.to_path_buf(),
            source,
        };
        let size = std::fs::metadata(&part.0).map_err(io)?.len();
        if size > MAX_COMPILED_BYTES {
            let limit = MAX_COMPILED_BYTES;
            return Err(ReceiveError::TooLarge { limit });
        }
        let digest = Digest::of_file(&part.0).map_err(io)?;
        match self.size(&digest) {
            Some(_) => self.renew(&digest),
            None => self.settle(part, &digest).map_err(io)?,
        }
        Ok((digest, size))
    }

    /// Gives a whole part its name, for good.
    fn settle(&self, part: Part, digest: &Digest) -> io::Result<()> {
        std::fs::File::open(&part.0)?.sync_all()?;
        std::fs::rename(&part.0, self.path(digest))?;
        std::fs::File::open(&self.dir)?.sync_all()
    }

    /// Makes a held file young: a sweep that began before it was asked for again spares it.
    fn renew(&self, digest: &Digest) {
        let renewed = std::fs::File::options()
            .write(true)
            .open(self.path(digest))
            .and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = renewed {
            tracing::debug!(artifact = %digest, %error, "cannot renew the file's time");
        }
    }

    /// The bytes from `offset` to the end.
    pub async fn read(
        &self,
        digest: &Digest,
        offset: u64,
    ) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + use<>> {
        let mut file = tokio::fs::File::open(self.path(digest)).await?;
        file.seek(io::SeekFrom::Start(offset)).await?;
        Ok(futures::stream::try_unfold(file, |mut file| async move {
            let mut buffer = BytesMut::with_capacity(READ_BYTES);
            let read = file.read_buf(&mut buffer).await?;
            Ok((read > 0).then(|| (buffer.freeze(), file)))
        }))
    }

    /// Removes files that nobody asks for; `keep` is asked for each that is older than `before`.
    pub fn sweep(&self, before: SystemTime, keep: impl Fn(&Digest) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            let Some(digest) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            if entry.metadata()?.modified()? < before && !keep(&digest) {
                std::fs::remove_file(entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// A file under way: removed unless it was renamed to its final name.
#[derive(Debug)]
pub struct Part(PathBuf);

impl Part {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // After a rename there is nothing to remove, and that is the ordinary case.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use futures::TryStreamExt;

    const LIMIT: u64 = 9;

    fn chunks(bytes: &[u8]) -> impl Stream<Item = Result<Bytes, io::Error>> + use<> {
        let parts: Vec<_> = bytes.chunks(3).map(Bytes::copy_from_slice).collect();
        futures::stream::iter(parts.into_iter().map(Ok))
    }

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[tokio::test]
    async fn what_was_stored_is_read_from_any_offset() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let digest = Digest::of(b"component");
        let received = files
            .receive(&digest, LIMIT, chunks(b"component"))
            .await
            .unwrap();
        assert_eq!((received.size, received.created), (9, true));
        assert!(
            !files
                .receive(&digest, LIMIT, chunks(b""))
                .await
                .unwrap()
                .created
        );
        for (offset, rest) in [(0, "component"), (4, "onent"), (9, "")] {
            let read: Vec<Bytes> = files
                .read(&digest, offset)
                .await
                .unwrap()
                .try_collect()
                .await
                .unwrap();
            assert_eq!(read.concat(), rest.as_bytes());
        }
    }

    #[tokio::test]
    async fn a_cut_or_wrong_upload_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let digest = Digest::of(b"component");
        let cut = files
            .receive(&digest, LIMIT, chunks(b"compo"))
            .await
            .unwrap_err();
        assert!(cut.to_string().contains("cut short"), "{cut}");
        let broken = futures::stream::iter([
            Ok(Bytes::from_static(b"comp")),
            Err(io::Error::other("connection reset")),
        ]);
        assert!(matches!(
            files.receive(&digest, LIMIT, broken).await,
            Err(ReceiveError::Interrupted(_))
        ));
        assert_eq!(names(dir.path()), Vec::<String>::new());
        assert_eq!(files.size(&digest), None);
    }

    #[tokio::test]
    async fn more_than_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let digest = Digest::of(b"components");
        let refused = files.receive(&digest, LIMIT, chunks(b"components")).await;
        assert!(
            matches!(refused, Err(ReceiveError::TooLarge { limit: LIMIT })),
            "{refused:?}"
        );
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_part_is_kept_under_its_digest_once_and_removed_where_it_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let digest = Digest::of(b"compiled");
        for _ in 0..2 {
            let part = files.part();
            std::fs::write(part.path(), b"compiled").unwrap();
            assert_eq!(files.keep_part(part).unwrap(), (digest, 8));
        }
        let given_up = files.part();
        std::fs::write(given_up.path(), b"half of it").unwrap();
        drop(given_up);
        assert_eq!(names(dir.path()), vec![digest.hex()]);
        let large = files.part();
        let file = std::fs::File::create(large.path()).unwrap();
        file.set_len(MAX_COMPILED_BYTES + 1).unwrap();
        let refused = files.keep_part(large).unwrap_err();
        assert!(matches!(refused, ReceiveError::TooLarge { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn an_upload_that_falls_silent_ends() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let body = chunks(b"compo").chain(futures::stream::pending());
        let digest = Digest::of(b"component");
        let silent = files.receive(&digest, LIMIT, body).await;
        assert!(
            matches!(silent, Err(ReceiveError::Interrupted(_))),
            "{silent:?}"
        );
        assert_eq!(names(dir.path()), Vec::<String>::new());
    }

    #[tokio::test]
    async fn what_is_uploaded_again_is_young_again() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let digest = Digest::of(b"a");
        files.receive(&digest, LIMIT, chunks(b"a")).await.unwrap();
        let file = std::fs::File::options()
            .write(true)
            .open(files.path(&digest))
            .unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        files.receive(&digest, LIMIT, chunks(b"a")).await.unwrap();
        let hour_ago = SystemTime::now() - Duration::from_secs(3600);
        assert_eq!(files.sweep(hour_ago, |_| false).unwrap(), 0);
    }

    #[tokio::test]
    async fn sweeping_removes_what_is_old_and_unwanted() {
        let dir = tempfile::tempdir().unwrap();
        let files = ArtifactFiles::open(dir.path()).unwrap();
        let (wanted, unwanted) = (Digest::of(b"a"), Digest::of(b"b"));
        files.receive(&wanted, LIMIT, chunks(b"a")).await.unwrap();
        files.receive(&unwanted, LIMIT, chunks(b"b")).await.unwrap();
        assert_eq!(files.sweep(SystemTime::UNIX_EPOCH, |_| false).unwrap(), 0);
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert_eq!(files.sweep(later, |d| *d == wanted).unwrap(), 1);
        assert_eq!(names(dir.path()), vec![wanted.hex()]);
    }
}
