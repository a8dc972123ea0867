//! How far the newest segment was synced: what tells a torn tail from rot.
//!
//! Written after each sync, never before it, and not synced itself: after a power cut it may say
//! too little, never too much. Bytes before it were acknowledged and must parse; bytes after it
//! never were, and may be cut off.

use std::io;

use bytes::{Buf, BufMut};

use crate::store::disk::{Disk, DiskFile};

const NAME: &str = "synced";

/// Sequence, segment, length, CRC-32.
const SLOT_BYTES: usize = 28;

/// Two slots are written in turn, each in a sector of its own, so that a torn write spares one.
const SLOT_OFFSETS: [u64; 2] = [0, 512];

const FILE_BYTES: u64 = 1024;

/// Bytes of `segment` that are durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Synced {
    pub segment: u64,
    pub length: u64,
}

pub struct Mark {
    file: Box<dyn DiskFile>,
    sequence: u64,
}

impl Mark {
    /// Opens the mark, or makes an empty one if there is none. Returns what it says, if anything.
    pub fn open(disk: &dyn Disk) -> io::Result<(Self, Option<Synced>)> {
        if !disk.list()?.iter().any(|name| name == NAME) {
            let file = disk.create(NAME)?;
            file.write_all_at(0, &[0; FILE_BYTES as usize])?;
            file.sync_all()?;
            disk.sync_directory()?;
            return Ok((Self { file, sequence: 0 }, None));
        }
        let file = disk.open(NAME)?;
        let newest = SLOT_OFFSETS
            .iter()
            .filter_map(|offset| read_slot(&*file, *offset))
            .max_by_key(|(sequence, _)| *sequence);
        let sequence = newest.map_or(0, |(sequence, _)| sequence);
        Ok((Self { file, sequence }, newest.map(|(_, synced)| synced)))
    }

    /// Call only after the sync returned.
    pub fn set(&mut self, synced: Synced) -> io::Result<()> {
        self.sequence += 1;
        let mut slot = Vec::with_capacity(SLOT_BYTES);
        slot.put_u64_le(self.sequence);
        slot.put_u64_le(synced.segment);
        slot.put_u64_le(synced.length);
        slot.put_u32_le(crc32fast::hash(&slot));
        let turn = usize::from(self.sequence % 2 == 1);
        self.file.write_all_at(SLOT_OFFSETS[turn], &slot)
    }

    /// Makes the mark itself durable; for a clean stop, and when the log was just repaired.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn read_slot(file: &dyn DiskFile, offset: u64) -> Option<(u64, Synced)> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(offset, &mut slot).ok()?;
    let checksum = crc32fast::hash(&slot[..SLOT_BYTES - 4]);
    let mut rest = &slot[..];
    let sequence = rest.get_u64_le();
    let synced = Synced {
        segment: rest.get_u64_le(),
        length: rest.get_u64_le(),
    };
    // A slot never written is all zero, and so is its checksum field; and none follows the last.
    let is_number = sequence > 0 && sequence < u64::MAX;
    (is_number && rest.get_u32_le() == checksum).then_some((sequence, synced))
}
