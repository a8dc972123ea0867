//! One record of a segment file: length, checksum, kind, content.
//!
//! The checksum also covers where the record stands, so that bytes which a file system put back
//! in the wrong place are not taken for a record. Reading never trusts a length it did not check.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::store::codec::{self, CodecError};
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
}

impl Record {
    /// Appends the record as it must look at `offset` of `segment`.
    pub fn put(&self, out: &mut BytesMut, segment: u64, offset: u64) {
        let start = out.len();
        out.put_slice(&[0; FRAME_BYTES]);
        match self {
            Record::Header { segment, standing } => {
                out.put_u8(HEADER);
                let header = SegmentHeader {
                    format: FORMAT,
                    segment: *segment,
                    standing: *standing,
                };
                let json = serde_json::to_vec(&header).expect("numbers have a JSON form");
                out.put_slice(&json);
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
        let content = &out[start + FRAME_BYTES..];
        let length = u32::try_from(content.len()).expect("bounded by MAX_CONTENT_BYTES");
        let checksum = checksum(segment, offset, content);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
        out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Reads the record at the start of `input`, which stands at `offset` of `segment`.
    /// Returns it with the bytes it takes.
    pub fn get(input: &Bytes, segment: u64, offset: u64) -> Result<(Self, usize), RecordError> {
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
        let mut content = input.slice(FRAME_BYTES..end);
        if checksum(segment, offset, &content) != expected {
            return Err(RecordError::Checksum);
        }
        let record = match content.get_u8() {
            HEADER => {
                let header: SegmentHeader =
                    serde_json::from_slice(&content).map_err(CodecError::Json)?;
                if header.format != FORMAT {
                    return Err(RecordError::Content(CodecError::Version(header.format)));
                }
                Record::Header {
                    segment: header.segment,
                    standing: header.standing,
                }
            }
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
