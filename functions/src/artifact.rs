//! Compiled artifacts on disk, and the proof that one was checked before it is mapped.
//!
//! A path and the digest from a signed description go in. Nothing else in this crate can make a
//! [`VerifiedArtifact`], and the runtime maps nothing else.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};

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
    /// Hashes the file at `path`. Blocks for as long as reading it takes.
    pub fn verify(path: &Path, expected: &[u8; 32]) -> Result<Self, VerifyError> {
        /// Large enough that hashing, not reading, takes the time; small beside an agent's 15 MB.
        const CHUNK: usize = 64 * 1024;

        let failed = |source| VerifyError::Read {
            path: path.to_owned(),
            source,
        };
        let mut file = File::open(path).map_err(failed)?;
        // Not sha2's: on 64-bit ARM, that leaves aside what processors have for it.
        let mut hash = Context::new(&SHA256);
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => hash.update(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        if hash.finish().as_ref() != expected {
            return Err(VerifyError::Digest {
                path: path.to_owned(),
            });
        }
        Ok(Self {
            path: path.to_owned(),
            digest: *expected,
        })
    }

    /// Hashes the file once more: what was not mapped for a while may have changed under whatever the
    /// disk did since.
    pub(crate) fn verify_again(&self) -> Result<(), VerifyError> {
        Self::verify(&self.path, &self.digest).map(drop)
    }

    pub fn path(&self) -> &Path {
        &self.path
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
        let mut other = content;
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
}
