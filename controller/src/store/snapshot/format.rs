//! The content of a snapshot file, sealed or not: magic, meta, the zstd-compressed image, and a SHA-256 over it all.
//!
//! The checksum is verified over the whole file before anything of it is parsed.

use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::state::{State, StateImage};
use crate::store::machine::TooOld;
use crate::store::seal::file::{Reader, SealedFileError, Writer};
use crate::store::seal::keys::UnknownKey;
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
    #[error("cannot read {}", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: UnknownKey,
    },
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

/// What reading through the seal failed with.
pub(super) fn unreadable(path: &Path) -> impl Fn(SealedFileError) -> SnapshotError {
    |error| match error {
        SealedFileError::Io(source) => SnapshotError::Io {
            path: path.to_owned(),
            source,
        },
        SealedFileError::Key(source) => SnapshotError::Key {
            path: path.to_owned(),
            source,
        },
        damage
        @ (SealedFileError::Header | SealedFileError::Short | SealedFileError::Broken(_)) => {
            damaged(path, damage.to_string())
        }
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

pub(super) fn write(file: &mut Writer, meta: &SnapshotMeta, state: &State) -> io::Result<()> {
    let mut out = Hashing {
        inner: BufWriter::with_capacity(BUFFER_BYTES, file),
        hash: Sha256::new(),
    };
    let meta = serde_json::to_vec(meta)?;
    out.write_all(MAGIC)?;
    out.write_all(&(meta.len() as u32).to_le_bytes())?;
    out.write_all(&meta)?;
    let mut compressed = zstd::Encoder::new(&mut out, ZSTD_LEVEL)?;
    state.image_with_history().write(&mut compressed)?;
    compressed.finish()?;
    let Hashing { mut inner, hash } = out;
    inner.write_all(&hash.finalize())?;
    inner.flush()
}

/// The meta alone, not yet verified: to know which snapshot this is.
pub(super) fn read_meta(file: &Reader, path: &Path) -> Result<SnapshotMeta, SnapshotError> {
    meta_of(file, path).map(|(meta, _)| meta)
}

/// Compares the whole file with its checksum.
pub(super) fn verify(file: &Reader, path: &Path) -> Result<(), SnapshotError> {
    let failed = unreadable(path);
    let Some(end) = file.length().checked_sub(DIGEST_BYTES) else {
        return Err(damaged(path, "it is cut short"));
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut offset = 0;
    while offset < end {
        let piece = (end - offset).min(BUFFER_BYTES as u64) as usize;
        file.read_exact_at(offset, &mut buffer[..piece])
            .map_err(&failed)?;
        hash.update(&buffer[..piece]);
        offset += piece as u64;
    }
    let mut expected = [0; DIGEST_BYTES as usize];
    file.read_exact_at(end, &mut expected).map_err(failed)?;
    if hash.finalize().as_slice() != expected {
        return Err(damaged(path, "its SHA-256 does not match"));
    }
    Ok(())
}

pub(super) fn read(file: &Reader, path: &Path) -> Result<(SnapshotMeta, State), SnapshotError> {
    verify(file, path)?;
    let (meta, offset) = meta_of(file, path)?;
    let compressed = file.range(offset, file.length() - DIGEST_BYTES);
    let decoder = zstd::Decoder::new(compressed).map_err(|source| SnapshotError::Io {
        path: path.to_owned(),
        source,
    })?;
    let image = StateImage::read(&mut BufReader::with_capacity(BUFFER_BYTES, decoder))
        .map_err(|error| damaged(path, format!("its content cannot be read: {error}")))?;
    Ok((meta, State::from_image(image)))
}

/// The meta and where the image begins.
fn meta_of(file: &Reader, path: &Path) -> Result<(SnapshotMeta, u64), SnapshotError> {
    const FIXED: u64 = 12;
    let failed = unreadable(path);
    let length = file.length();
    if length < FIXED + DIGEST_BYTES {
        return Err(damaged(path, "it is cut short"));
    }
    let mut magic = [0; 8];
    file.read_exact_at(0, &mut magic).map_err(&failed)?;
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
    file.read_exact_at(8, &mut size).map_err(&failed)?;
    let size = u32::from_le_bytes(size) as usize;
    if size > MAX_META_BYTES || FIXED + size as u64 + DIGEST_BYTES > length {
        return Err(damaged(path, "its first part has an impossible length"));
    }
    let mut meta = vec![0; size];
    file.read_exact_at(FIXED, &mut meta).map_err(failed)?;
    let meta = serde_json::from_slice(&meta)
        .map_err(|error| damaged(path, format!("its first part cannot be read: {error}")))?;
    Ok((meta, FIXED + size as u64))
}
