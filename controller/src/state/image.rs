//! What a snapshot holds of a [`State`], and its bytes: a head as JSON, then object after object.
//!
//! Written and read as a stream: beside the state itself it takes the memory of one object.
//! Who stores it adds compression and a checksum; reading trusts no length all the same.

use std::io::{self, Read, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::history::Recent;
use super::metering::MeteringImage;
use super::object::MalformedObject;
use super::placement::Placement;
use super::quota::Ledger;
use super::{ArtifactRecord, History, Member, Object, Objects, State};

/// Larger than any object with its key. Bounds what a wrong length can make this program allocate.
const MAX_OBJECT_BYTES: u32 = 4 * 1024 * 1024;

/// What a snapshot holds of a [`State`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StateImage {
    revision: u64,
    last_controller: u64,
    #[serde(default)]
    epoch: u64,
    #[serde(default)]
    level: u32,
    #[serde(default)]
    keys: Vec<(u64, String)>,
    controllers: Vec<(u64, Member)>,
    artifacts: Vec<(String, ArtifactRecord)>,
    /// The end of the history. Older programs begin a new one, as where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    recent: Option<Recent>,
    #[serde(default, skip_serializing_if = "MeteringImage::is_empty")]
    metering: MeteringImage,
    /// They follow the head.
    #[serde(skip)]
    objects: Vec<Arc<Object>>,
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("it cannot be read to its end")]
    Io(#[from] io::Error),
    #[error("its head is not the JSON expected")]
    Head(#[from] serde_json::Error),
    #[error("an object in it has an impossible length")]
    Length,
    #[error("an object in it is malformed")]
    Object(#[from] MalformedObject),
}

impl State {
    /// A copy fit for a snapshot, with the end of the history; shares the objects.
    pub fn image_with_history(&self) -> StateImage {
        StateImage {
            recent: Some(self.history.recent()),
            ..self.image()
        }
    }

    /// The same without a history: what all replicas agree on.
    pub fn image(&self) -> StateImage {
        StateImage {
            revision: self.revision,
            last_controller: self.last_controller,
            epoch: self.epoch,
            level: self.level,
            keys: self.keys.iter().map(|(k, v)| (*k, v.clone())).collect(),
            controllers: self
                .controllers
                .iter()
                .map(|(k, v)| (*k, v.clone()))
                .collect(),
            artifacts: self
                .artifacts
                .iter()
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect(),
            recent: None,
            metering: MeteringImage::from(&self.metering),
            objects: self.objects.values().cloned().collect(),
        }
    }

    pub fn from_image(image: StateImage) -> Self {
        let (mut ledger, mut placement) = (Ledger::default(), Placement::default());
        for object in &image.objects {
            ledger.note(object.key(), None, Some(object));
            placement.note(object.key(), None, Some(object));
        }
        let revision = image.revision;
        let objects: Objects = image.objects.into_iter().collect();
        let history = match &image.recent {
            Some(recent) => History::of(recent, &objects, revision),
            None => History::starting_at(revision),
        };
        Self {
            revision,
            last_controller: image.last_controller,
            // They changed then at the latest.
            access_revision: revision,
            epoch: image.epoch,
            level: image.level,
            keys: image.keys.into_iter().collect(),
            controllers: image.controllers.into_iter().collect(),
            artifacts: image.artifacts.into_iter().collect(),
            objects,
            ledger,
            placement,
            metering: image.metering.into(),
            history,
        }
    }
}

impl StateImage {
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        write_framed(out, &serde_json::to_vec(self)?)?;
        let mut buffer = Vec::new();
        for object in &self.objects {
            buffer.clear();
            object.put(&mut buffer);
            write_framed(out, &buffer)?;
        }
        Ok(())
    }

    /// Reads to the end of `input`.
    pub fn read(input: &mut impl Read) -> Result<Self, ImageError> {
        let head_length = read_length(input)?.ok_or(ImageError::Length)?;
        let mut head = Vec::new();
        // Grows with what is there, whatever the length says.
        input.take(head_length.into()).read_to_end(&mut head)?;
        let mut image: Self = serde_json::from_slice(&head)?;
        let mut bytes = Vec::new();
        while let Some(length) = read_length(input)? {
            if length > MAX_OBJECT_BYTES {
                return Err(ImageError::Length);
            }
            bytes.resize(length as usize, 0);
            input.read_exact(&mut bytes)?;
            image.objects.push(Arc::new(Object::get(&bytes)?));
        }
        Ok(image)
    }
}

fn write_framed(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)
}

/// `None` at the end.
fn read_length(input: &mut impl Read) -> Result<Option<u32>, ImageError> {
    let mut length = Vec::with_capacity(4);
    input.take(4).read_to_end(&mut length)?;
    match <[u8; 4]>::try_from(&length[..]) {
        Ok(length) => Ok(Some(u32::from_le_bytes(length))),
        Err(_) if length.is_empty() => Ok(None),
        Err(_) => Err(ImageError::Length),
    }
}
