//! The bytes of a snapshot file: magic, meta, the zstd-compressed image, and a SHA-256 over it all.
//!
//! The checksum is verified over the whole file before anything of it is parsed.

use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::state::{State, StateImage};
use crate::store::disk::DiskFile;
use crate::store::machine::TooOld;
use crate::store::types::SnapshotMeta;

/// Ends in the version of the format.
const MAGIC: &[u8; 8] = b"hivesnp2";

const DIGEST_BYTES: u64 = 32;

/// A log id and a membership of some thousand addresses.
const MAX_META_BYTES: usize = 1024 * 1024;

/// The fastest: a snapshot of many objects competes with their writers for the processor, and a
/// higher level makes it a tenth smaller.
const ZSTD_LEVEL: i32 = 1;

const BUFFER_BYTES: usize = 64 * 1024;

/// Why a snapshot cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("cannot read or write {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "snapshot {} is damaged: {what}. Move it away to start from the snapshot before it, or \
         remove this controller's data directory and join it again; the other controllers hold \
         the data",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("the snapshot sent is larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error(transparent)]
    TooOld(#[from] TooOld),
}

pub(super) fn damaged(path: &Path, what: impl Into<String>) -> SnapshotError {
    SnapshotError::Damaged {
        path: path.to_owned(),
        what: what.into(),
    }
}

/// Hashes what passes through.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(super) fn write(file: &mut Append<'_>, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
    let mut out = Hashing {
        inner: BufWriter::with_capacity(BUFFER_BYTES, file),
        hash: Sha256::new(),
    };
    let meta = serde_json::to_vec(meta)?;
    out.write_all(MAGIC)?;
    out.write_all(&(meta.len() as u32).to_le_bytes())?;
    out.write_all(&meta)?;
    let mut compressed = zstd::Encoder::new(&mut out, ZSTD_LEVEL)?;
    state.image().write(&mut compressed)?;
    compressed.finish()?;
    let Hashing { mut inner, hash } = out;
    inner.write_all(&hash.finalize())?;
    inner.flush()
}

/// Writes from the beginning of a file.
pub(super) struct Append<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
}

impl<'a> Append<'a> {
    pub fn to(file: &'a dyn DiskFile) -> Self {
        Self { file, offset: 0 }
    }
}

impl Write for Append<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads at its own offset, so that one open file serves several readers.
struct At<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    end: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.end - self.offset).unwrap_or(usize::MAX);
        let limit = into.len().min(rest);
        self.file.read_exact_at(self.offset, &mut into[..limit])?;
        self.offset += limit as u64;
        Ok(limit)
    }
}

/// The meta alone, not yet verified: to know which snapshot this is.
pub(super) fn read_meta(file: &dyn DiskFile, path: &Path) -> Result<SnapshotMeta, SnapshotError> {
    let length = length(file, path)?;
    meta_of(file, path, length).map(|(meta, _)| meta)
}

/// Compares the whole file with its checksum.
pub(super) fn verify(file: &dyn DiskFile, path: &Path) -> Result<(), SnapshotError> {
    let io = |source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    };
    let Some(end) = length(file, path)?.checked_sub(DIGEST_BYTES) else {
        return Err(damaged(path, "it is cut short"));
    };
    let mut hash = Sha256::new();
    let mut content = At {
        file,
        offset: 0,
        end,
    };
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = content.read(&mut buffer).map_err(io)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
    }
    let mut expected = [0; DIGEST_BYTES as usize];
    file.read_exact_at(end, &mut expected).map_err(io)?;
    if hash.finalize().as_slice() != expected {
        return Err(damaged(path, "its SHA-256 does not match"));
    }
    Ok(())
}

pub(super) fn read(
    file: &dyn DiskFile,
    path: &Path,
) -> Result<(SnapshotMeta, State), SnapshotError> {
    verify(file, path)?;
    let length = length(file, path)?;
    let (meta, offset) = meta_of(file, path, length)?;
    let compressed = At {
        file,
        offset,
        end: length - DIGEST_BYTES,
    };
    let decoder = zstd::Decoder::new(compressed).map_err(|source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    })?;
    let image = StateImage::read(&mut BufReader::with_capacity(BUFFER_BYTES, decoder))
        .map_err(|error| damaged(path, format!("its content cannot be read: {error}")))?;
    Ok((meta, State::from_image(image)))
}

fn length(file: &dyn DiskFile, path: &Path) -> Result<u64, SnapshotError> {
    file.length().map_err(|source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    })
}

/// The meta and where the image begins.
fn meta_of(
    file: &dyn DiskFile,
    path: &Path,
    length: u64,
) -> Result<(SnapshotMeta, u64), SnapshotError> {
    const FIXED: u64 = 12;
    let io = |source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    };
    if length < FIXED + DIGEST_BYTES {
        return Err(damaged(path, "it is cut short"));
    }
    let mut magic = [0; 8];
    file.read_exact_at(0, &mut magic).map_err(io)?;
    if magic != *MAGIC && magic.starts_with(&MAGIC[..7]) {
        return Err(damaged(
            path,
            "it is of a format that this version does not read",
        ));
    }
    if magic != *MAGIC {
        return Err(damaged(path, "it does not begin as a snapshot does"));
    }
    let mut size = [0; 4];
    file.read_exact_at(8, &mut size).map_err(io)?;
    let size = u32::from_le_bytes(size) as usize;
    if size > MAX_META_BYTES || FIXED + size as u64 + DIGEST_BYTES > length {
        return Err(damaged(path, "its first part has an impossible length"));
    }
    let mut meta = vec![0; size];
    file.read_exact_at(FIXED, &mut meta).map_err(io)?;
    let meta = serde_json::from_slice(&meta)
        .map_err(|error| damaged(path, format!("its first part cannot be read: {error}")))?;
    Ok((meta, FIXED + size as u64))
}
