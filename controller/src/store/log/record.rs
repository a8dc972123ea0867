//! One record of a segment file: length, checksum, kind, content.
//!
//! The checksum also covers where the record stands, so that bytes which a file system put back
//! in the wrong place are not taken for a record. Reading never trusts a length it did not check.
//! In a sealed segment kind and content are encrypted, and bound to their place once more; the
//! checksum stays, over what is encrypted: it tells rot and torn writes from a wrong key.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::store::codec::{self, CodecError};
use crate::store::seal::keys::{Keys, UnknownKey};
use crate::store::seal::{Broken, Purpose, SealReference, Sealer};
use crate::store::types::{Entry, LogId, MAX_PROPOSAL_BYTES, Vote};

/// Length (4) and CRC-32 (4).
pub const FRAME_BYTES: usize = 8;

/// No record is larger: a proposal, or a membership with some thousand addresses.
const MAX_CONTENT_BYTES: usize = MAX_PROPOSAL_BYTES + 64 * 1024;

const HEADER: u8 = 1;
const ENTRY: u8 = 2;
const VOTE: u8 = 3;
const TRUNCATE: u8 = 4;
const PURGE: u8 = 5;
const COMMITTED: u8 = 6;
const SEALED_HEADER: u8 = 7;

/// What a log says besides its entries. Repeated in the header of each segment, so that older
/// segments can be removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub vote: Option<Vote>,
    /// Everything up to here was removed.
    pub purged: Option<LogId>,
    /// Known as committed at some earlier time; may lag.
    pub committed: Option<LogId>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// The first record of each segment.
    Header {
        segment: u64,
        standing: Standing,
    },
    Entry(Entry),
    Vote(Vote),
    /// Removes the entries from this index on.
    Truncate {
        from: u64,
    },
    /// Removes the entries up to this one.
    Purge(LogId),
    Committed(LogId),
}

/// Bytes that are no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("the file ends inside a record")]
    Short,
    #[error("a length that no record has")]
    Length,
    #[error("the checksum does not match")]
    Checksum,
    #[error("unknown kind {0}")]
    Kind(u8),
    #[error("the content of a record")]
    Content(#[from] CodecError),
    #[error(transparent)]
    Seal(#[from] Broken),
    #[error(transparent)]
    Key(#[from] UnknownKey),
}

impl RecordError {
    /// Whether the record stands there as it was written: then it is no torn write, whatever is
    /// wrong with it.
    pub fn is_whole(&self) -> bool {
        matches!(self, Self::Seal(_) | Self::Key(_))
    }
}

impl Record {
    /// Appends the record as it must look at `offset` of `segment`, behind whose header it stands.
    pub fn put(&self, out: &mut BytesMut, segment: u64, offset: u64, sealer: Option<&Sealer>) {
        let start = out.len();
        out.put_slice(&[0; FRAME_BYTES]);
        match sealer {
            None => self.put_content(out),
            Some(sealer) => {
                Sealer::begin_record(out);
                self.put_content(out);
                sealer.seal_record(&place(segment, offset), out, start + FRAME_BYTES);
            }
        }
        close_frame(out, start, segment, offset);
    }

    fn put_content(&self, out: &mut BytesMut) {
        match self {
            Record::Header { segment, standing } => {
                out.put_u8(HEADER);
                put_header(out, *segment, standing);
            }
            Record::Entry(entry) => {
                out.put_u8(ENTRY);
                codec::put_entry(out, entry);
            }
            Record::Vote(vote) => {
                out.put_u8(VOTE);
                let json = serde_json::to_vec(vote).expect("numbers have a JSON form");
                out.put_slice(&json);
            }
            Record::Truncate { from } => {
                out.put_u8(TRUNCATE);
                out.put_u64_le(*from);
            }
            Record::Purge(id) => {
                out.put_u8(PURGE);
                codec::put_log_id(out, id);
            }
            Record::Committed(id) => {
                out.put_u8(COMMITTED);
                codec::put_log_id(out, id);
            }
        }
    }

    /// Reads the record at the start of `input`, which stands at `offset` of `segment`.
    /// Returns it with the bytes it takes.
    pub fn get(
        input: &Bytes,
        segment: u64,
        offset: u64,
        sealer: Option<&Sealer>,
    ) -> Result<(Self, usize), RecordError> {
        let (mut content, end) = open_frame(input, segment, offset)?;
        if let Some(sealer) = sealer {
            content = sealer
                .open_record(&place(segment, offset), &content)?
                .into();
        }
        if content.is_empty() {
            return Err(RecordError::Length);
        }
        let record = match content.get_u8() {
            HEADER => get_header(&content)?,
            ENTRY => Record::Entry(codec::get_entry(content)?),
            VOTE => Record::Vote(serde_json::from_slice(&content).map_err(CodecError::Json)?),
            TRUNCATE if content.len() == 8 => Record::Truncate {
                from: content.get_u64_le(),
            },
            PURGE => Record::Purge(codec::get_log_id(&mut content)?),
            COMMITTED => Record::Committed(codec::get_log_id(&mut content)?),
            other => return Err(RecordError::Kind(other)),
        };
        Ok((record, end))
    }
}

/// The first record of a segment, alone in the file. What it says of Raft is sealed as all that
/// follows; which key opens it is not.
pub fn put_first(segment: u64, standing: Standing, sealer: Option<&Sealer>) -> BytesMut {
    let mut out = BytesMut::new();
    let Some(sealer) = sealer else {
        Record::Header { segment, standing }.put(&mut out, segment, 0, None);
        return out;
    };
    out.put_slice(&[0; FRAME_BYTES]);
    let reference = serde_json::to_vec(&sealer.reference()).expect("two texts have a JSON form");
    out.put_u8(SEALED_HEADER);
    out.put_u8(reference.len() as u8);
    out.put_slice(&reference);
    let start = out.len();
    Sealer::begin_record(&mut out);
    put_header(&mut out, segment, &standing);
    sealer.seal_record(&first_place(segment, &reference), &mut out, start);
    close_frame(&mut out, 0, segment, 0);
    out
}

/// Reads the first record of a segment. Returns it with the bytes it takes, and what opens those
/// behind it.
pub fn get_first(
    input: &Bytes,
    segment: u64,
    keys: &Keys,
) -> Result<(Record, usize, Option<Sealer>), RecordError> {
    let (content, end) = open_frame(input, segment, 0)?;
    let Some(header) = SealedHeader::of(&content)? else {
        let (record, end) = Record::get(input, segment, 0, None)?;
        return Ok((record, end, None));
    };
    let sealer = keys.open(&header.parse()?, Purpose::LogSegment)?;
    let place = first_place(segment, header.reference);
    let opened = sealer.open_record(&place, header.sealed)?;
    Ok((get_header(&opened)?, end, Some(sealer)))
}

/// How the segment is sealed whose first bytes these are.
pub fn get_reference(input: &Bytes, segment: u64) -> Result<Option<SealReference>, RecordError> {
    let (content, _) = open_frame(input, segment, 0)?;
    match SealedHeader::of(&content)? {
        None => Ok(None),
        Some(header) => Ok(Some(header.parse()?)),
    }
}

/// The first record of a sealed segment.
struct SealedHeader<'a> {
    /// In JSON; the sealed part is bound to these bytes.
    reference: &'a [u8],
    sealed: &'a [u8],
}

impl<'a> SealedHeader<'a> {
    /// Nothing where the segment is not sealed.
    fn of(content: &'a [u8]) -> Result<Option<Self>, RecordError> {
        let [SEALED_HEADER, length, rest @ ..] = content else {
            return Ok(None);
        };
        let (reference, sealed) = rest
            .split_at_checked(usize::from(*length))
            .ok_or(RecordError::Length)?;
        Ok(Some(Self { reference, sealed }))
    }

    fn parse(&self) -> Result<SealReference, CodecError> {
        Ok(serde_json::from_slice(self.reference)?)
    }
}

fn put_header(out: &mut BytesMut, segment: u64, standing: &Standing) {
    let header = SegmentHeader {
        format: FORMAT,
        segment,
        standing: *standing,
    };
    let json = serde_json::to_vec(&header).expect("numbers have a JSON form");
    out.put_slice(&json);
}

fn get_header(content: &[u8]) -> Result<Record, CodecError> {
    let header: SegmentHeader = serde_json::from_slice(content)?;
    if header.format != FORMAT {
        return Err(CodecError::Version(header.format));
    }
    Ok(Record::Header {
        segment: header.segment,
        standing: header.standing,
    })
}

/// Fills in length and checksum of the record that begins at `start`.
fn close_frame(out: &mut BytesMut, start: usize, segment: u64, offset: u64) {
    let content = &out[start + FRAME_BYTES..];
    let length = u32::try_from(content.len()).expect("bounded by MAX_CONTENT_BYTES");
    let checksum = checksum(segment, offset, content);
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
}

/// The content of the record at the start of `input`, and the bytes that both take.
fn open_frame(input: &Bytes, segment: u64, offset: u64) -> Result<(Bytes, usize), RecordError> {
    if input.len() < FRAME_BYTES {
        return Err(RecordError::Short);
    }
    let mut frame = &input[..FRAME_BYTES];
    let length = frame.get_u32_le() as usize;
    let expected = frame.get_u32_le();
    if length == 0 || length > MAX_CONTENT_BYTES {
        return Err(RecordError::Length);
    }
    let end = FRAME_BYTES + length;
    if input.len() < end {
        return Err(RecordError::Short);
    }
    let content = input.slice(FRAME_BYTES..end);
    if checksum(segment, offset, &content) != expected {
        return Err(RecordError::Checksum);
    }
    Ok((content, end))
}

/// Where a record stands; what is sealed for one place does not open at another.
fn place(segment: u64, offset: u64) -> [u8; 16] {
    let mut place = [0; 16];
    place[..8].copy_from_slice(&segment.to_le_bytes());
    place[8..].copy_from_slice(&offset.to_le_bytes());
    place
}

/// Longer than any [`place`], so that no header opens as a record.
fn first_place(segment: u64, reference: &[u8]) -> Vec<u8> {
    let mut bytes = place(segment, 0).to_vec();
    bytes.extend_from_slice(reference);
    bytes
}

/// The records of one segment, from its first.
pub struct Records<'a> {
    keys: &'a Keys,
    segment: u64,
    rest: Bytes,
    offset: u64,
    sealer: Option<Sealer>,
}

impl<'a> Records<'a> {
    pub fn of(segment: u64, content: Bytes, keys: &'a Keys) -> Self {
        Self {
            keys,
            segment,
            rest: content,
            offset: 0,
            sealer: None,
        }
    }

    /// Where the next one stands: everything before parsed.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next record, and the bytes it takes; nothing at the end, and after an error.
    pub fn next(&mut self) -> Option<Result<(Record, usize), RecordError>> {
        if self.rest.is_empty() {
            return None;
        }
        let read = match self.offset {
            0 => get_first(&self.rest, self.segment, self.keys).map(|(record, taken, sealer)| {
                self.sealer = sealer;
                (record, taken)
            }),
            offset => Record::get(&self.rest, self.segment, offset, self.sealer.as_ref()),
        };
        match &read {
            Ok((_, taken)) => {
                self.offset += *taken as u64;
                self.rest.advance(*taken);
            }
            Err(_) => self.rest.clear(),
        }
        Some(read)
    }

    /// What opens the records behind the first, once that was read.
    pub fn into_sealer(self) -> Option<Sealer> {
        self.sealer
    }
}

/// Of the segment files. Raised when an older program could misread them.
const FORMAT: u8 = 2;

#[derive(Serialize, Deserialize)]
struct SegmentHeader {
    format: u8,
    segment: u64,
    #[serde(flatten)]
    standing: Standing,
}

fn checksum(segment: u64, offset: u64, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&(content.len() as u64).to_le_bytes());
    hasher.update(content);
    hasher.finalize()
}
