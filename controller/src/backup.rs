//! The content of a backup: who the swarm is, its state at one revision, artifacts if asked for.
//!
//! `BackupWriter` and `BackupReader` are the envelope; in it is a zstd stream of sections, each a
//! kind, a name and chunks. Nothing is held whole but the image of the state. Contains every secret of
//! the swarm and its CA's key: whoever holds a backup is the swarm.

use std::io::{self, BufReader, Read, Write};

use hive_identity::{BackupError, BackupHeader, BackupReader, BackupWriter, CertificateAuthority};
use serde::{Deserialize, Serialize};

use crate::artifacts::Digest;
use crate::state::{ImageError, State, StateImage};

/// Fast; what is large in it, artifacts, compresses little more at higher levels.
const ZSTD_LEVEL: i32 = 3;

/// Of a section at a time, on either side.
const CHUNK_BYTES: usize = 64 * 1024;

/// A digest in hex, and room.
const MAX_NAME_BYTES: usize = 256;

const END: u8 = 0;
const IDENTITY: u8 = 1;
const STATE: u8 = 2;
const ARTIFACT: u8 = 3;

/// Who the swarm is: without its CA's key no agent would trust what is restored.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SwarmIdentity {
    pub ca_certificate: String,
    pub ca_key: String,
}

impl SwarmIdentity {
    pub fn of(authority: &CertificateAuthority) -> Self {
        Self {
            ca_certificate: authority.certificate().to_pem(),
            ca_key: authority.key_pem(),
        }
    }
}

/// What is in a backup of this state.
pub fn header(state: &State, cluster: &str, created: String, artifacts: u64) -> BackupHeader {
    BackupHeader {
        cluster: cluster.to_owned(),
        created,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        revision: state.revision(),
        epoch: state.epoch(),
        objects: state.object_count() as u64,
        artifacts,
        registered_artifacts: state.artifacts().count() as u64,
        seal: None,
    }
}

/// Writes a backup, section after section.
pub struct Sections<W: Write> {
    out: zstd::Encoder<'static, BackupWriter<W>>,
}

impl<W: Write> Sections<W> {
    /// Begins with the identity and the state. Blocks.
    pub fn begin(
        out: W,
        header: BackupHeader,
        identity: &SwarmIdentity,
        state: &State,
    ) -> Result<Self, BackupError> {
        let envelope = BackupWriter::new(out, header, None)?;
        let mut sections = Self {
            out: zstd::Encoder::new(envelope, ZSTD_LEVEL)?,
        };
        sections.section(IDENTITY, "")?;
        let text = serde_json::to_vec(identity).expect("two texts are JSON");
        sections.chunk(&text)?;
        sections.chunk(&[])?;
        sections.section(STATE, "")?;
        let mut image = io::BufWriter::with_capacity(CHUNK_BYTES, Chunks(&mut sections));
        state.image().write(&mut image)?;
        image.flush()?;
        drop(image);
        sections.chunk(&[])?;
        Ok(sections)
    }

    /// Begins an artifact; its bytes follow by [`Sections::chunk`], and an empty chunk ends it.
    pub fn artifact(&mut self, digest: &Digest) -> io::Result<()> {
        self.section(ARTIFACT, &digest.hex())
    }

    fn section(&mut self, kind: u8, name: &str) -> io::Result<()> {
        self.out.write_all(&[kind])?;
        self.out.write_all(&(name.len() as u16).to_le_bytes())?;
        self.out.write_all(name.as_bytes())
    }

    pub fn chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(CHUNK_BYTES) {
            self.out.write_all(&(piece.len() as u32).to_le_bytes())?;
            self.out.write_all(piece)?;
        }
        if bytes.is_empty() {
            self.out.write_all(&0u32.to_le_bytes())?;
        }
        Ok(())
    }

    pub fn finish(mut self) -> Result<W, BackupError> {
        self.out.write_all(&[END])?;
        self.out.finish()?.finish()
    }
}

/// What is written becomes chunks of the section that was begun.
struct Chunks<'a, W: Write>(&'a mut Sections<W>);

impl<W: Write> Write for Chunks<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // An empty one would end the section.
        if !bytes.is_empty() {
            self.0.chunk(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a backup held, artifacts aside.
pub struct Content {
    pub header: BackupHeader,
    pub identity: SwarmIdentity,
    pub state: State,
}

/// Reads a backup to its end. `artifact` takes each one's bytes. Nothing that it was given counts
/// before this returns without an error. Blocks.
pub fn read(
    input: impl Read,
    passphrase: Option<&[u8]>,
    mut artifact: impl FnMut(Digest, &mut dyn Read) -> io::Result<()>,
) -> Result<Content, BackupError> {
    let envelope = BackupReader::new(input, passphrase)?;
    let header = envelope.header().clone();
    let mut body = zstd::Decoder::new(envelope)?;
    let (mut identity, mut state) = (None, None);
    loop {
        let mut kind = [0];
        body.read_exact(&mut kind)?;
        if kind == [END] {
            break;
        }
        let mut length = [0; 2];
        body.read_exact(&mut length)?;
        let length = usize::from(u16::from_le_bytes(length));
        if length > MAX_NAME_BYTES {
            return Err(BackupError::Damaged("a name in it is too long"));
        }
        let mut name = vec![0; length];
        body.read_exact(&mut name)?;
        let mut section = Section {
            body: &mut body,
            left: 0,
            ended: false,
        };
        match kind {
            [IDENTITY] => {
                let parsed = serde_json::from_reader(BufReader::new(&mut section));
                identity = Some(parsed.map_err(unreadable)?);
            }
            [STATE] => {
                let mut buffered = BufReader::with_capacity(CHUNK_BYTES, &mut section);
                let image = StateImage::read(&mut buffered).map_err(|error| match error {
                    ImageError::Io(error) => error.into(),
                    _ => BackupError::Damaged("its state cannot be read"),
                })?;
                state = Some(State::from_image(image));
            }
            [ARTIFACT] => {
                let digest = std::str::from_utf8(&name)
                    .ok()
                    .and_then(|name| name.parse().ok())
                    .ok_or(BackupError::Damaged("an artifact in it has no digest"))?;
                artifact(digest, &mut section)?;
            }
            // Of a newer version, which could do without it.
            _ => {}
        }
        io::copy(&mut section, &mut io::sink())?;
    }
    // Only the end tells that all of it is whole.
    io::copy(&mut body, &mut io::sink())?;
    let mut envelope = body.finish();
    io::copy(&mut envelope, &mut io::sink())?;
    match (identity, state) {
        (Some(identity), Some(state)) => Ok(Content {
            header,
            identity,
            state,
        }),
        _ => Err(BackupError::Damaged("it lacks the state or the identity")),
    }
}

fn unreadable(error: serde_json::Error) -> BackupError {
    if error.is_io() {
        return io::Error::from(error).into();
    }
    BackupError::Damaged("its content cannot be read")
}

/// The bytes of one section.
struct Section<R> {
    body: R,
    /// Of the chunk.
    left: usize,
    ended: bool,
}

impl<R: Read> Read for Section<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && !self.ended {
            let mut length = [0; 4];
            self.body.read_exact(&mut length)?;
            self.left = u32::from_le_bytes(length) as usize;
            self.ended = self.left == 0;
        }
        let limit = into.len().min(self.left);
        if limit == 0 {
            return Ok(0);
        }
        let read = self.body.read(&mut into[..limit])?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::{Command, Key};
    use hive_manifests::Resource;
    use serde_json::json;

    fn state() -> State {
        let mut state = State::default();
        for number in 0..300 {
            let key = Key::new(Resource::ConfigMap, "default", format!("c{number}"));
            let body =
                json!({ "metadata": { "name": key.name }, "data": { "x": "y".repeat(500) } });
            let body = body.into();
            state.apply(Command::Create { key, body }).unwrap();
        }
        state
    }

    fn backup(artifacts: &[&[u8]]) -> (State, Vec<u8>) {
        let state = state();
        let identity = SwarmIdentity {
            ca_certificate: "certificate".into(),
            ca_key: "key".into(),
        };
        let header = header(&state, "hive", "now".into(), artifacts.len() as u64);
        let mut sections = Sections::begin(Vec::new(), header, &identity, &state).unwrap();
        for artifact in artifacts {
            sections.artifact(&Digest::of(artifact)).unwrap();
            sections.chunk(artifact).unwrap();
            if !artifact.is_empty() {
                sections.chunk(&[]).unwrap();
            }
        }
        (state, sections.finish().unwrap())
    }

    #[test]
    fn all_of_it_comes_back() {
        let large = vec![3; 3 * CHUNK_BYTES + 5];
        let (state, made) = backup(&[b"small", &large, b""]);
        let mut artifacts = Vec::new();
        let content = read(&made[..], None, |digest, bytes| {
            let mut held = Vec::new();
            // One that is not read to its end does not shift what follows.
            bytes.take(1_000_000).read_to_end(&mut held)?;
            assert_eq!(digest, Digest::of(&held));
            artifacts.push(held.len());
            Ok(())
        })
        .unwrap();
        assert_eq!(artifacts, [5, large.len(), 0]);
        assert_eq!(content.identity.ca_key, "key");
        assert_eq!(content.header.objects, 300);
        let image = |state: &State| serde_json::to_value(state.image()).unwrap();
        assert_eq!(image(&content.state), image(&state));
    }

    #[test]
    fn damage_anywhere_is_an_error() {
        let (_, made) = backup(&[b"small"]);
        for at in (0..made.len()).step_by(made.len() / 97) {
            let mut flipped = made.clone();
            flipped[at] ^= 4;
            assert!(
                read(&flipped[..], None, |_, _| Ok(())).is_err(),
                "byte {at}"
            );
            assert!(
                read(&made[..at], None, |_, _| Ok(())).is_err(),
                "cut at {at}"
            );
        }
    }
}
