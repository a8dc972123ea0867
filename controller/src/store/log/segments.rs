//! The segment files: records appended, synced, and removed from the front.
//!
//! One writer; every call here blocks. A segment is synced whole before the next one is made, so
//! only the newest can have a torn tail. After a failed write or sync nothing more is written: what
//! the disk holds is then unknown until the log is opened anew.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::mark::{Mark, Synced};
use super::record::{self, Record, Standing};
use super::replay::{self, OpenError, Recovered};
use super::seals::Seals;
use crate::store::disk::{Disk, DiskFile};
use crate::store::seal::Purpose;
use crate::store::seal::keys::Keys;

/// A segment is closed once it is this long. Small, because a whole segment is the unit of removal.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// Where a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: u64,
    pub offset: u64,
    /// With its frame.
    pub length: u32,
}

/// A segment that is complete, or the one written to.
pub(super) struct Segment {
    pub number: u64,
    /// The highest entry ever written to it.
    pub highest: Option<u64>,
}

pub struct Segments {
    disk: Arc<dyn Disk>,
    mark: Mark,
    /// Oldest first; the newest is `segments.back()` and open as `file`.
    segments: VecDeque<Segment>,
    file: Box<dyn DiskFile>,
    length: u64,
    synced: u64,
    standing: Standing,
    segment_bytes: u64,
    keys: Keys,
    seals: Seals,
    failed: Option<String>,
}

pub(super) fn name(segment: u64) -> String {
    format!("{segment:016}.log")
}

/// Of the segment in a file of that name.
pub fn number(name: &str) -> Option<u64> {
    name.strip_suffix(".log")?.parse().ok()
}

/// Makes the file of a new segment, durable with its header and its name. It is sealed with the
/// first key there is now, under a salt of its own.
pub(super) fn create(
    disk: &dyn Disk,
    segment: u64,
    standing: Standing,
    keys: &Keys,
    seals: &Seals,
) -> io::Result<(Box<dyn DiskFile>, u64)> {
    let sealer = keys.begin(Purpose::LogSegment);
    let header = record::put_first(segment, standing, sealer.as_ref());
    let file = disk.create(&name(segment))?;
    file.write_all_at(0, &header)?;
    file.sync_all()?;
    disk.sync_directory()?;
    seals.insert(segment, sealer);
    Ok((file, header.len() as u64))
}

impl Segments {
    /// Opens the log, cutting off what was never acknowledged.
    ///
    /// # Errors
    /// When something that was acknowledged is damaged or missing.
    pub(in crate::store) fn open(
        disk: Arc<dyn Disk>,
        segment_bytes: u64,
        keys: Keys,
    ) -> Result<(Self, Recovered), OpenError> {
        let io = |source| OpenError::Io {
            path: disk.path(""),
            source,
        };
        let (mut mark, synced) = Mark::open(&*disk).map_err(io)?;
        let seals = Seals::default();
        let opened = replay::replay(&*disk, synced, &keys, &seals)?;
        // What was read may still be only in the system's cache (a process killed, not a machine):
        // Raft takes it for durable from here on.
        opened.file.sync_all().map_err(io)?;
        disk.sync_directory().map_err(io)?;
        let newest = opened
            .segments
            .back()
            .expect("replay makes the first")
            .number;
        mark.set(Synced {
            segment: newest,
            length: opened.length,
        })
        .map_err(io)?;
        mark.sync().map_err(io)?;
        let segments = Self {
            mark,
            segments: opened.segments,
            file: opened.file,
            length: opened.length,
            synced: opened.length,
            standing: opened.recovered.standing,
            segment_bytes,
            keys,
            seals,
            failed: None,
            disk,
        };
        Ok((segments, opened.recovered))
    }

    fn newest(&mut self) -> &mut Segment {
        self.segments
            .back_mut()
            .expect("there is always one segment: opening makes it and purging spares it")
    }

    /// Writes records behind each other; they are durable after [`Segments::sync`].
    pub fn write(&mut self, records: &[Record]) -> io::Result<Vec<Place>> {
        self.guarded(|this| this.try_write(records))
    }

    /// Everything written is durable on return.
    pub fn sync(&mut self) -> io::Result<()> {
        self.guarded(Self::try_sync)
    }

    /// Removes the segments all of whose entries are purged. Call after the purge is synced.
    pub fn remove_purged(&mut self) -> io::Result<()> {
        self.guarded(Self::try_remove_purged)
    }

    /// From here on the newest segment is sealed with the first key, and older ones are there only
    /// for entries that are not purged.
    pub fn renew_seal(&mut self) -> io::Result<()> {
        self.guarded(|this| {
            if !this.is_sealed_with_first_key() {
                this.rotate()?;
            }
            this.try_remove_purged()
        })
    }

    /// What opens the segments.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    fn is_sealed_with_first_key(&mut self) -> bool {
        let newest = self.newest().number;
        self.seals.key_of(newest) == self.keys.first()
    }

    /// For a clean stop: the next start knows every byte as acknowledged.
    pub fn close(&mut self) -> io::Result<()> {
        self.guarded(|this| {
            this.try_sync()?;
            this.mark.sync()
        })
    }

    /// After one failure the disk's content is unknown, and a later sync that succeeds would not
    /// mean that earlier writes reached it: refuse everything from then on.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if let Some(first) = &self.failed {
            return Err(io::Error::other(format!(
                "the log stopped after an earlier failure: {first}"
            )));
        }
        act(self).map_err(|source| {
            let path = self.disk.path("");
            self.failed = Some(source.to_string());
            io::Error::new(
                source.kind(),
                format!("writing the Raft log in {}: {source}", path.display()),
            )
        })
    }

    fn try_write(&mut self, records: &[Record]) -> io::Result<Vec<Place>> {
        if self.length >= self.segment_bytes || !self.is_sealed_with_first_key() {
            self.rotate()?;
        }
        let segment = self.newest().number;
        let sealer = self.seals.get(segment);
        let mut batch = BytesMut::new();
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            let offset = self.length + batch.len() as u64;
            let before = batch.len();
            record.put(&mut batch, segment, offset, sealer.as_deref());
            places.push(Place {
                segment,
                offset,
                length: (batch.len() - before) as u32,
            });
            match record {
                Record::Header { .. } => {}
                Record::Entry(entry) => {
                    let index = entry.log_id.index;
                    let newest = self.newest();
                    newest.highest = newest.highest.max(Some(index));
                }
                Record::Vote(vote) => self.standing.vote = Some(*vote),
                Record::Truncate { .. } => {}
                Record::Purge(id) => self.standing.purged = Some(*id),
                Record::Committed(id) => self.standing.committed = Some(*id),
            }
        }
        self.file.write_all_at(self.length, &batch)?;
        self.length += batch.len() as u64;
        Ok(places)
    }

    fn try_sync(&mut self) -> io::Result<()> {
        if self.synced == self.length {
            return Ok(());
        }
        self.file.sync_data()?;
        self.synced = self.length;
        let synced = Synced {
            segment: self.newest().number,
            length: self.length,
        };
        self.mark.set(synced)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.try_sync()?;
        let number = self.newest().number + 1;
        let (file, length) = create(&*self.disk, number, self.standing, &self.keys, &self.seals)?;
        self.segments.push_back(Segment {
            number,
            highest: None,
        });
        self.file = file;
        self.length = length;
        self.synced = length;
        self.mark.set(Synced {
            segment: number,
            length,
        })
    }

    fn try_remove_purged(&mut self) -> io::Result<()> {
        let Some(purged) = self.standing.purged else {
            return Ok(());
        };
        // The next segment's header must be known as durable before the older one goes: it is,
        // since `create` syncs it.
        while self.segments.len() > 1
            && let Some(oldest) = self.segments.front()
            && oldest.highest.is_none_or(|index| index <= purged.index)
        {
            self.disk.remove(&name(oldest.number))?;
            // One by one, so that a power cut leaves no hole in the sequence of segments.
            self.disk.sync_directory()?;
            self.seals.remove(oldest.number);
            self.segments.pop_front();
        }
        Ok(())
    }
}

/// Reads one record back, checked.
pub fn read_record(disk: &dyn Disk, seals: &Seals, place: Place) -> io::Result<Record> {
    let sealer = seals.get(place.segment);
    let file = disk.open(&name(place.segment))?;
    let mut bytes = vec![0; place.length as usize];
    file.read_exact_at(place.offset, &mut bytes)?;
    let read = Record::get(
        &Bytes::from(bytes),
        place.segment,
        place.offset,
        sealer.as_deref(),
    );
    match read {
        Ok((record, _)) => Ok(record),
        Err(source) => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            OpenError::Damaged {
                path: disk.path(&name(place.segment)),
                offset: place.offset,
                source,
            }
            .in_full(),
        )),
    }
}
