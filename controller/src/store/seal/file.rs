//! A whole file, written once from front to back: sealed in chunks, readable at any offset.
//!
//! Without keys the bytes go through as they are, and files from before are read as they are.
//! A sealed file begins with a header that names its key and that every chunk is bound to. Each file
//! has a salt, so a key, of its own, and is never written to again: its chunks' numbers are nonces.

use std::io::{self, Read, Write};
use std::sync::Arc;

use super::keys::{KeyId, Keys, UnknownKey};
use super::{Broken, Purpose, SealReference, Sealer, TAG_BYTES};
use crate::store::disk::DiskFile;

const MAGIC: &[u8; 8] = b"hivesea1";

/// Of plain text in a chunk: what is read at once when a snapshot is sent.
const CHUNK_BYTES: usize = 64 * 1024;

const SEALED_CHUNK_BYTES: u64 = (CHUNK_BYTES + TAG_BYTES) as u64;

/// A reference in JSON, padded with spaces.
const REFERENCE_BYTES: usize = 244;

/// CRC-32 of the reference: a bit that turned in it is rot, not another key.
const CHECKSUM_BYTES: usize = 4;

const HEADER_BYTES: usize = MAGIC.len() + CHECKSUM_BYTES + REFERENCE_BYTES;

/// Why a file cannot be read as what was written.
#[derive(Debug, thiserror::Error)]
pub enum SealedFileError {
    #[error("cannot be read")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Key(#[from] UnknownKey),
    #[error("the header of its seal is damaged")]
    Header,
    #[error("it is cut short")]
    Short,
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// So that a reader of bytes tells damage from a disk that fails.
impl From<SealedFileError> for io::Error {
    fn from(error: SealedFileError) -> Self {
        match error {
            SealedFileError::Io(error) => error,
            other => io::Error::new(io::ErrorKind::InvalidData, other),
        }
    }
}

fn header(reference: &SealReference) -> Vec<u8> {
    let json = serde_json::to_vec(reference).expect("two texts have a JSON form");
    let mut padded = json;
    padded.resize(REFERENCE_BYTES, b' ');
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&crc32fast::hash(&padded).to_le_bytes());
    header.extend_from_slice(&padded);
    header
}

/// The reference of a sealed file that begins like this; `None` where it is not sealed.
fn parse(header: &[u8]) -> Result<Option<SealReference>, SealedFileError> {
    let Some(rest) = header.strip_prefix(MAGIC) else {
        return Ok(None);
    };
    let (checksum, reference) = rest
        .split_first_chunk::<CHECKSUM_BYTES>()
        .ok_or(SealedFileError::Short)?;
    if reference.len() != REFERENCE_BYTES {
        return Err(SealedFileError::Short);
    }
    if crc32fast::hash(reference) != u32::from_le_bytes(*checksum) {
        return Err(SealedFileError::Header);
    }
    let reference = serde_json::from_slice(reference).map_err(|_| SealedFileError::Header)?;
    Ok(Some(reference))
}

/// The key with which a file is sealed, if it is: without opening it.
pub fn key_of(file: &dyn DiskFile) -> Result<Option<KeyId>, SealedFileError> {
    let mut bytes = vec![0; file.length()?.min(HEADER_BYTES as u64) as usize];
    file.read_exact_at(0, &mut bytes)?;
    Ok(parse(&bytes)?.map(|reference| reference.key))
}

/// Writes a file from its start.
pub struct Writer {
    file: Arc<dyn DiskFile>,
    offset: u64,
    state: State,
}

enum State {
    Plain,
    Sealing(Box<Sealing>),
    /// A write failed: what would follow could stand in the wrong place, or unsealed.
    Failed,
}

struct Sealing {
    sealer: Sealer,
    header: Vec<u8>,
    number: u64,
    chunk: Vec<u8>,
}

impl Sealing {
    /// What was gathered, as it stands in the file.
    fn seal(&mut self, is_last: bool) -> &[u8] {
        self.sealer
            .seal_chunk(&self.header, self.number, is_last, &mut self.chunk);
        &self.chunk
    }
}

impl Writer {
    pub fn begin(file: Arc<dyn DiskFile>, keys: &Keys) -> io::Result<Self> {
        let mut writer = Self {
            file,
            offset: 0,
            state: State::Plain,
        };
        if let Some(sealer) = keys.begin(Purpose::WholeFile) {
            let header = header(&sealer.reference());
            writer.put(&header)?;
            writer.state = State::Sealing(Box::new(Sealing {
                sealer,
                header,
                number: 0,
                chunk: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES),
            }));
        }
        Ok(writer)
    }

    /// The last chunk goes out with this; without it the file reads as cut short.
    pub fn finish(mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Plain => Ok(()),
            State::Sealing(mut sealing) => self.put(sealing.seal(true)),
            State::Failed => Err(failed_before()),
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(self.offset, bytes)?;
        self.offset += bytes.len() as u64;
        Ok(())
    }
}

fn failed_before() -> io::Error {
    io::Error::other("an earlier write to this file failed")
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::mem::replace(&mut self.state, State::Failed) {
            State::Failed => Err(failed_before()),
            State::Plain => {
                self.put(bytes)?;
                self.state = State::Plain;
                Ok(bytes.len())
            }
            State::Sealing(mut sealing) => {
                // A full chunk waits until it is known that it is not the last.
                if sealing.chunk.len() == CHUNK_BYTES {
                    self.put(sealing.seal(false))?;
                    sealing.number += 1;
                    sealing.chunk.clear();
                }
                let taken = bytes.len().min(CHUNK_BYTES - sealing.chunk.len());
                sealing.chunk.extend_from_slice(&bytes[..taken]);
                self.state = State::Sealing(sealing);
                Ok(taken)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is open for reading, whether it is sealed or not.
pub struct Reader {
    file: Arc<dyn DiskFile>,
    seal: Option<Seal>,
    /// Of the plain text.
    length: u64,
}

struct Seal {
    sealer: Sealer,
    header: Vec<u8>,
}

impl Reader {
    pub fn open(file: Arc<dyn DiskFile>, keys: &Keys) -> Result<Self, SealedFileError> {
        let stored = file.length()?;
        let mut header = vec![0; stored.min(HEADER_BYTES as u64) as usize];
        file.read_exact_at(0, &mut header)?;
        let Some(reference) = parse(&header)? else {
            return Ok(Self {
                file,
                seal: None,
                length: stored,
            });
        };
        let sealer = keys.open(&reference, Purpose::WholeFile)?;
        let content = stored - HEADER_BYTES as u64;
        let chunks = content.div_ceil(SEALED_CHUNK_BYTES);
        let length = content.checked_sub(chunks * TAG_BYTES as u64);
        let (Some(last), Some(length)) = (chunks.checked_sub(1), length) else {
            return Err(SealedFileError::Short);
        };
        let reader = Self {
            file,
            seal: Some(Seal { sealer, header }),
            length,
        };
        // Only a file that is whole ends in a chunk that says so.
        match &reader.seal {
            Some(seal) => reader.chunk(seal, last)?,
            None => Vec::new(),
        };
        Ok(reader)
    }

    /// Bytes of plain text.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Which key it is sealed with, if it is.
    pub fn key(&self) -> Option<KeyId> {
        Some(self.seal.as_ref()?.sealer.reference().key)
    }

    /// Some of the plain text from `offset` on; none at the end.
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, SealedFileError> {
        let rest = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
        let wanted = into.len().min(rest);
        if wanted == 0 {
            return Ok(0);
        }
        let Some(seal) = &self.seal else {
            self.file.read_exact_at(offset, &mut into[..wanted])?;
            return Ok(wanted);
        };
        let chunk = self.chunk(seal, offset / CHUNK_BYTES as u64)?;
        let from = (offset % CHUNK_BYTES as u64) as usize;
        let taken = wanted.min(chunk.len() - from);
        into[..taken].copy_from_slice(&chunk[from..from + taken]);
        Ok(taken)
    }

    /// The plain text at `offset`, which must be there.
    pub fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> Result<(), SealedFileError> {
        let mut read = 0;
        while read < into.len() {
            match self.read_at(offset + read as u64, &mut into[read..])? {
                0 => return Err(SealedFileError::Short),
                more => read += more,
            }
        }
        Ok(())
    }

    fn chunk(&self, seal: &Seal, number: u64) -> Result<Vec<u8>, SealedFileError> {
        let start = number * CHUNK_BYTES as u64;
        let plain = self.length.saturating_sub(start).min(CHUNK_BYTES as u64);
        let mut chunk = vec![0; plain as usize + TAG_BYTES];
        let stored = HEADER_BYTES as u64 + number * SEALED_CHUNK_BYTES;
        self.file.read_exact_at(stored, &mut chunk)?;
        let is_last = start + plain == self.length;
        seal.sealer
            .open_chunk(&seal.header, number, is_last, &mut chunk)?;
        Ok(chunk)
    }

    /// The plain text between two offsets.
    pub fn range(&self, offset: u64, end: u64) -> Range<'_> {
        Range {
            reader: self,
            offset,
            end,
        }
    }
}

/// Reads at its own offset, so that one open file serves several readers.
pub struct Range<'a> {
    reader: &'a Reader,
    offset: u64,
    end: u64,
}

impl Read for Range<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let rest = usize::try_from(self.end.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let limit = into.len().min(rest);
        let read = self.reader.read_at(self.offset, &mut into[..limit])?;
        self.offset += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::store::disk::simulated::Simulated;
    use crate::store::disk::{Directory, Disk};

    fn write(disk: &dyn Disk, keys: &Keys, text: &[u8], pieces: usize) {
        let file = disk.create("f").unwrap();
        let mut writer = Writer::begin(file.into(), keys).unwrap();
        for piece in text.chunks(pieces) {
            writer.write_all(piece).unwrap();
        }
        writer.finish().unwrap();
    }

    fn read(disk: &dyn Disk, keys: &Keys) -> Result<Vec<u8>, String> {
        let reader =
            Reader::open(disk.open("f").unwrap().into(), keys).map_err(|e| e.to_string())?;
        let mut text = Vec::new();
        reader
            .range(0, reader.length())
            .read_to_end(&mut text)
            .map_err(|error| error.to_string())?;
        assert_eq!(text.len() as u64, reader.length());
        Ok(text)
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn what_is_written_reads_back_sealed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::shared(dir.path()).unwrap();
        for keys in [Keys::default(), Keys::of(2)] {
            for length in [
                0,
                1,
                300,
                CHUNK_BYTES - 1,
                CHUNK_BYTES,
                CHUNK_BYTES + 1,
                3 * CHUNK_BYTES,
            ] {
                write(&disk, &keys, &text(length), 1000);
                assert_eq!(read(&disk, &keys).unwrap(), text(length), "{length}");
            }
        }
        let stored = std::fs::read(Path::new(dir.path()).join("f")).unwrap();
        assert!(!stored.windows(64).any(|window| window == &text(64)[..]));
    }

    #[test]
    fn a_file_without_seal_is_read_by_one_who_has_keys() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::shared(dir.path()).unwrap();
        write(&disk, &Keys::default(), &text(500), 100);
        assert_eq!(read(&disk, &Keys::of(1)).unwrap(), text(500));
    }

    #[test]
    fn without_its_key_a_file_says_which_one_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Directory::shared(dir.path()).unwrap();
        let keys = Keys::of(1);
        write(&disk, &keys, &text(500), 100);
        let id = keys.first().unwrap().to_string();
        for others in [Keys::default(), Keys::of(2)] {
            let error = read(&disk, &others).unwrap_err();
            assert!(
                error.contains(&id) && error.contains("--encryption-key-file"),
                "{error}"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn any_part_reads_as_it_was_written(offset in 0..200_000u64, limit in 1..100_000usize) {
            let disk = Simulated::new(0);
            let keys = Keys::of(1);
            let text = text(150_000);
            write(&disk, &keys, &text, 7_000);
            let reader = Reader::open(disk.open("f").unwrap().into(), &keys).unwrap();
            let mut part = vec![0; limit];
            let read = reader.read_at(offset, &mut part).unwrap();
            let start = text.len().min(offset as usize);
            prop_assert_eq!(&part[..read], &text[start..start + read]);
            prop_assert_eq!(read == 0, start == text.len());
        }

        #[test]
        fn a_changed_or_shortened_file_never_reads(at in 0..150_000usize, bit in 0..8u8, cut: bool) {
            let disk = Simulated::new(0);
            let keys = Keys::of(1);
            write(&disk, &keys, &text(130_000), 7_000);
            let mut stored = disk.content("f");
            let at = at % stored.len();
            match cut {
                true => stored.truncate(at),
                false => stored[at] ^= 1 << bit,
            }
            disk.set_content("f", stored);
            // Without its first bytes it is no sealed file, and not what was written either.
            if let Ok(read) = read(&disk, &keys) {
                prop_assert!(at < MAGIC.len() && read.len() != 130_000);
            }
        }
    }
}
