//! Compiled artifacts on disk, and the proof that one was checked before it is mapped.
//!
//! A path and the digest from a signed description go in. Nothing else in this crate can make a
//! [`VerifiedArtifact`], and the runtime maps nothing else.
//!
//! SHA-256 says that a file is what the controllers signed; that takes a millisecond for 1.5 MB, ten times as
//! long on a small board. Once it was right there is only rot to look for, because whoever can write to the file
//! could put another program in the agent's place as well. So a note beside the file says which XXH3 the content of
//! that SHA-256 had, and as long as the file still has it SHA-256 is not computed again.

use std::{
    fs::{self, File},
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};
use twox_hash::XxHash3_128;

/// A compiled artifact whose content had the expected digest. Its file must lie where only the
/// agent writes, and must not be written to for as long as a function made from it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedArtifact {
    path: PathBuf,
    digest: [u8; 32],
}

/// Why an artifact was not taken.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file is damaged or another one: fetching it anew helps.
    #[error("{} has not the SHA-256 of its description", path.display())]
    Digest { path: PathBuf },
}

impl VerifiedArtifact {
    /// Hashes the file at `path`, and leaves a [note](Self::note) beside it. Blocks for as long as reading it takes.
    pub fn verify(path: &Path, expected: &[u8; 32]) -> Result<Self, VerifyError> {
        let failed = |source| VerifyError::Read {
            path: path.to_owned(),
            source,
        };
        let verified = Self {
            path: path.to_owned(),
            digest: *expected,
        };
        let mut file = File::open(path).map_err(failed)?;
        let note = Self::note(path);
        let noted = fs::read(&note).unwrap_or_default();
        if let Some(noted) = noted.strip_prefix(expected) {
            if noted == sum(&file).map_err(failed)? {
                return Ok(verified);
            }
            file.rewind().map_err(failed)?;
        }
        let (digest, sum) = digest_and_sum(&file).map_err(failed)?;
        if digest != *expected {
            return Err(VerifyError::Digest {
                path: path.to_owned(),
            });
        }
        // One that is missing or torn only costs the time that it saves.
        if let Err(error) = fs::write(&note, [&digest[..], &sum].concat()) {
            tracing::debug!(%error, note = %note.display(), "the next start takes longer");
        }
        Ok(verified)
    }

    /// Checks the file once more: what was not mapped for a while may have changed under whatever the
    /// disk did since.
    pub(crate) fn verify_again(&self) -> Result<(), VerifyError> {
        Self::verify(&self.path, &self.digest).map(drop)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file beside the artifact at `path` with its SHA-256 and then its XXH3 of 128 bits, big-endian. Who
    /// removes the artifact removes this first.
    pub fn note(path: &Path) -> PathBuf {
        let mut note = path.as_os_str().to_owned();
        note.push(".xxh3");
        note.into()
    }
}

fn sum(file: &File) -> io::Result<[u8; 16]> {
    let mut sum = XxHash3_128::new();
    each_chunk(file, |chunk| sum.write(chunk))?;
    Ok(sum.finish_128().to_be_bytes())
}

/// Both of the same bytes, whatever becomes of the file meanwhile.
fn digest_and_sum(file: &File) -> io::Result<([u8; 32], [u8; 16])> {
    // Not sha2's: on 64-bit ARM, that leaves aside what processors have for it.
    let (mut hash, mut sum) = (Context::new(&SHA256), XxHash3_128::new());
    each_chunk(file, |chunk| {
        hash.update(chunk);
        sum.write(chunk);
    })?;
    let mut digest = [0; 32];
    digest.copy_from_slice(hash.finish().as_ref());
    Ok((digest, sum.finish_128().to_be_bytes()))
}

fn each_chunk(mut file: &File, mut take: impl FnMut(&[u8])) -> io::Result<()> {
    /// Large enough that hashing, not reading, takes the time; small beside an agent's 15 MB.
    const CHUNK: usize = 64 * 1024;

    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(read) => take(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn only_the_expected_content_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("artifact");
        let content = vec![7; 200_000];
        std::fs::write(&path, &content).unwrap();
        let digest: [u8; 32] = Sha256::digest(&content).into();

        assert_eq!(
            VerifiedArtifact::verify(&path, &digest).unwrap().path(),
            path
        );
        let mut other = content.clone();
        other[150_000] ^= 1;
        std::fs::write(&path, &other).unwrap();
        assert!(matches!(
            VerifiedArtifact::verify(&path, &digest),
            Err(VerifyError::Digest { .. })
        ));
        assert!(matches!(
            VerifiedArtifact::verify(&directory.path().join("none"), &digest),
            Err(VerifyError::Read { .. })
        ));
    }
    #[test]
    fn a_note_spares_the_hash_and_decides_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("artifact");
        std::fs::write(&path, b"code").unwrap();
        let digest: [u8; 32] = Sha256::digest(b"code").into();
        let note = VerifiedArtifact::note(&path);
        VerifiedArtifact::verify(&path, &digest).unwrap();
        let noted = std::fs::read(&note).unwrap();
        let sum = XxHash3_128::oneshot(b"code").to_be_bytes();
        assert_eq!(noted, [&digest[..], &sum].concat());
        assert!(VerifiedArtifact::verify(&path, &[0; 32]).is_err());
        // It is what is asked: the content is not what it says, and is not hashed.
        let claimed = [9; 32];
        std::fs::write(&note, [&claimed[..], &sum].concat()).unwrap();
        VerifiedArtifact::verify(&path, &claimed).unwrap();

        // One that is torn, of another content or not to be written is as good as none.
        let other = [&digest[..], &[0; 16]].concat();
        for wrong in [&b""[..], &noted[..7], &noted[..47], &other] {
            std::fs::write(&note, wrong).unwrap();
            VerifiedArtifact::verify(&path, &digest).unwrap();
            assert_eq!(std::fs::read(&note).unwrap(), noted);
        }
        std::fs::remove_file(&note).unwrap();
        std::fs::create_dir(&note).unwrap();
        VerifiedArtifact::verify(&path, &digest).unwrap();
        std::fs::write(&path, b"rot!").unwrap();
        assert!(VerifiedArtifact::verify(&path, &digest).is_err());
    }
}
