//! The envelope of a backup: a header that anyone may read, a body that may be sealed with a
//! passphrase, and a checksum over it all.
//!
//! `magic | length | header (JSON) | frames | SHA-256`. A frame is its length, of which the highest
//! bit marks the last one, and bytes. Sealed frames are ChaCha20-Poly1305 under a key derived from
//! the passphrase, numbered and bound to the header, so that none can be left out, doubled, moved or
//! taken from another backup. Bytes pass through; nothing here touches a file by itself.

mod sealing;

use std::fmt;
use std::io::{self, Read, Write};

use ring::aead::CHACHA20_POLY1305;
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use crate::random;
pub use sealing::Seal;
use sealing::Sealing;

/// Ends in the version of the envelope.
const MAGIC: &[u8; 8] = b"hivebak1";

/// A header holds some names and numbers.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// Plain bytes in a frame: little memory, and 16 bytes of tag weigh nothing against it.
const FRAME_BYTES: usize = 64 * 1024;

const LAST: u32 = 1 << 31;

const DIGEST_BYTES: usize = 32;

/// OWASP's figure for PBKDF2-HMAC-SHA256 (2023): half a second on a small board, once a backup.
const ITERATIONS: u32 = 600_000;

/// What a backup is of. Readable without the passphrase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackupHeader {
    pub cluster: String,
    /// RFC 3339.
    pub created: String,
    /// Of the controller that made it.
    pub version: String,
    /// The one revision that all of it is of.
    pub revision: u64,
    pub epoch: u64,
    pub objects: u64,
    /// Artifacts whose bytes are in it, of those that are registered.
    pub artifacts: u64,
    pub registered_artifacts: u64,
    /// How the body is sealed; absent when it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seal: Option<Seal>,
}

/// Why a backup cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("this is not a backup of a swarm, or it is of a newer version of this program")]
    NotABackup,
    #[error("the backup is cut short")]
    Short,
    #[error("the backup is damaged: {0}")]
    Damaged(&'static str),
    #[error("the backup is sealed: give its passphrase with --passphrase-file")]
    PassphraseNeeded,
    #[error(
        "the passphrase is not the one that the backup was sealed with, or the backup is damaged"
    )]
    WrongPassphrase,
    #[error("cannot read or write the backup")]
    Io(#[source] io::Error),
}

impl From<io::Error> for BackupError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Self::Short;
        }
        // What went through `Read` as one of ours comes out as it was.
        match error.downcast::<Self>() {
            Ok(own) => own,
            Err(error) => Self::Io(error),
        }
    }
}

/// Writes an envelope; what is written to it becomes the body.
pub struct BackupWriter<W: Write> {
    out: W,
    hash: Context,
    sealing: Option<Sealing>,
    frame: Vec<u8>,
}

impl<W: Write> BackupWriter<W> {
    /// Sealed if there is a passphrase. Takes half a second then.
    pub fn new(
        out: W,
        mut header: BackupHeader,
        passphrase: Option<&[u8]>,
    ) -> Result<Self, BackupError> {
        header.seal = passphrase.map(|_| Seal {
            iterations: ITERATIONS,
            salt: hex::encode(random::bytes::<16>()),
        });
        let text = serde_json::to_vec(&header).expect("names and numbers are JSON");
        let sealing = match (&header.seal, passphrase) {
            (Some(seal), Some(passphrase)) => Some(Sealing::new(seal, passphrase, &text)?),
            _ => None,
        };
        let mut writer = Self {
            out,
            hash: Context::new(&SHA256),
            sealing,
            frame: Vec::with_capacity(FRAME_BYTES),
        };
        writer.put(MAGIC)?;
        writer.put(&(text.len() as u32).to_le_bytes())?;
        writer.put(&text)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.out.write_all(bytes)
    }

    fn put_frame(&mut self, last: bool) -> io::Result<()> {
        let mut frame = std::mem::take(&mut self.frame);
        if let Some(sealing) = &mut self.sealing {
            sealing.seal(&mut frame, last);
        }
        let mark = if last { LAST } else { 0 };
        self.put(&(frame.len() as u32 | mark).to_le_bytes())?;
        self.put(&frame)?;
        frame.clear();
        self.frame = frame;
        Ok(())
    }

    /// Ends the body and adds the checksum; what was written to, flushed.
    pub fn finish(mut self) -> Result<W, BackupError> {
        self.put_frame(true)?;
        let sum = self.hash.finish();
        self.out.write_all(sum.as_ref())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

impl<W: Write> Write for BackupWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(FRAME_BYTES - self.frame.len());
        self.frame.extend_from_slice(&bytes[..taken]);
        if self.frame.len() == FRAME_BYTES {
            self.put_frame(false)?;
        }
        Ok(taken)
    }

    /// Frames go out when they are full: their lengths say nothing of what was written when.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an envelope; what is read from it is the body. Nothing counts before the end was reached
/// without an error: only there the checksum is compared.
pub struct BackupReader<R: Read> {
    input: R,
    header: BackupHeader,
    hash: Context,
    sealing: Option<Sealing>,
    frame: Vec<u8>,
    position: usize,
    ended: bool,
}

impl<R: Read> BackupReader<R> {
    /// Reads the header; with a passphrase the key is derived, which takes half a second.
    pub fn new(mut input: R, passphrase: Option<&[u8]>) -> Result<Self, BackupError> {
        let mut hash = Context::new(&SHA256);
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(BackupError::NotABackup);
        }
        let mut length = [0; 4];
        input.read_exact(&mut length)?;
        let size = u32::from_le_bytes(length) as usize;
        if size > MAX_HEADER_BYTES {
            return Err(BackupError::Damaged("its header has an impossible length"));
        }
        let mut text = vec![0; size];
        input.read_exact(&mut text)?;
        hash.update(&magic);
        hash.update(&length);
        hash.update(&text);
        let header: BackupHeader = serde_json::from_slice(&text)
            .map_err(|_| BackupError::Damaged("its header cannot be read"))?;
        let sealing = match (&header.seal, passphrase) {
            (None, _) => None,
            (Some(_), None) => return Err(BackupError::PassphraseNeeded),
            (Some(seal), Some(passphrase)) => Some(Sealing::new(seal, passphrase, &text)?),
        };
        Ok(Self {
            input,
            header,
            hash,
            sealing,
            frame: Vec::new(),
            position: 0,
            ended: false,
        })
    }

    pub fn header(&self) -> &BackupHeader {
        &self.header
    }

    /// Reads what is left, and compares the checksum.
    pub fn finish(mut self) -> Result<BackupHeader, BackupError> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(self.header)
    }

    fn next_frame(&mut self) -> Result<(), BackupError> {
        let mut length = [0; 4];
        self.input.read_exact(&mut length)?;
        let word = u32::from_le_bytes(length);
        let (last, size) = (word & LAST != 0, (word & !LAST) as usize);
        if size > FRAME_BYTES + CHACHA20_POLY1305.tag_len() {
            return Err(BackupError::Damaged(
                "one of its parts has an impossible length",
            ));
        }
        self.frame.resize(size, 0);
        self.input.read_exact(&mut self.frame)?;
        self.hash.update(&length);
        self.hash.update(&self.frame);
        self.position = 0;
        if let Some(sealing) = &mut self.sealing {
            sealing.open(&mut self.frame, last)?;
        }
        if last {
            self.ended = true;
            let mut expected = [0; DIGEST_BYTES];
            self.input.read_exact(&mut expected)?;
            if self.hash.clone().finish().as_ref() != expected {
                return Err(BackupError::Damaged("its SHA-256 does not match"));
            }
            if self.input.read(&mut [0])? != 0 {
                return Err(BackupError::Damaged("something follows its end"));
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for BackupReader<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.position == self.frame.len() && !self.ended {
            self.next_frame().map_err(|error| match error {
                BackupError::Io(error) => error,
                other => io::Error::new(io::ErrorKind::InvalidData, other),
            })?;
        }
        let rest = &self.frame[self.position..];
        let taken = rest.len().min(into.len());
        into[..taken].copy_from_slice(&rest[..taken]);
        self.position += taken;
        Ok(taken)
    }
}

impl fmt::Display for BackupHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "swarm {:?} at revision {} (epoch {}), made {} by version {}: {} objects, {} of {} artifacts, {}",
            self.cluster,
            self.revision,
            self.epoch,
            self.created,
            self.version,
            self.objects,
            self.artifacts,
            self.registered_artifacts,
            match self.seal {
                Some(_) => "sealed with a passphrase",
                None => "NOT sealed",
            }
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn header() -> BackupHeader {
        BackupHeader {
            cluster: "hive".into(),
            created: "2026-01-01T00:00:00Z".into(),
            version: "0.1.0".into(),
            revision: 7,
            epoch: 1,
            objects: 3,
            artifacts: 0,
            registered_artifacts: 1,
            seal: None,
        }
    }

    fn make(body: &[u8], passphrase: Option<&[u8]>) -> Vec<u8> {
        let mut writer = BackupWriter::new(Vec::new(), header(), passphrase).unwrap();
        writer.write_all(body).unwrap();
        writer.finish().unwrap()
    }

    fn read(bytes: &[u8], passphrase: Option<&[u8]>) -> Result<Vec<u8>, BackupError> {
        let mut reader = BackupReader::new(bytes, passphrase)?;
        let mut body = Vec::new();
        reader.read_to_end(&mut body)?;
        Ok(body)
    }

    #[test]
    fn a_sealed_backup_opens_with_its_passphrase_only() {
        let body: Vec<u8> = (0..FRAME_BYTES * 2 + 77).map(|i| i as u8).collect();
        let made = make(&body, Some(b"correct horse"));
        assert!(!made.windows(64).any(|part| part == &body[..64]));
        assert_eq!(read(&made, Some(b"correct horse")).unwrap(), body);
        assert!(matches!(
            read(&made, Some(b"battery")),
            Err(BackupError::WrongPassphrase)
        ));
        assert!(matches!(
            read(&made, None),
            Err(BackupError::PassphraseNeeded)
        ));
        // The frames of two backups of the same have nothing in common.
        assert_ne!(make(&body, Some(b"correct horse"))[400..], made[400..]);
    }

    #[test]
    fn a_body_of_exactly_full_frames_comes_back() {
        for length in [0, 1, FRAME_BYTES, 2 * FRAME_BYTES] {
            let body = vec![7; length];
            assert_eq!(read(&make(&body, None), None).unwrap(), body);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_flipped_bit_and_no_cut_goes_unnoticed(
            body in proptest::collection::vec(any::<u8>(), 0..3000),
            at in any::<prop::sample::Index>(),
            bit in 0u8..8,
        ) {
            let made = make(&body, None);
            prop_assert_eq!(&read(&made, None).unwrap(), &body);
            let mut flipped = made.clone();
            let at = at.index(made.len());
            flipped[at] ^= 1 << bit;
            prop_assert!(read(&flipped, None).is_err());
            prop_assert!(read(&made[..at], None).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, None);
            let mut named = MAGIC.to_vec();
            named.extend(bytes);
            let _ = read(&named, None);
        }
    }
}
