//! Reads a log back from its segment files: what it holds, what is torn, what is damaged.
//!
//! A tail that was never acknowledged is cut off and reported. Damage to anything else is an error
//! that names file, offset and repair; it is never passed over, for a Raft member that forgets
//! what it acknowledged can lose the whole cluster's data.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use bytes::Bytes;

use super::mark::Synced;
use super::record::{Record, RecordError, Records, Standing};
use super::seals::Seals;
use super::segments::{Place, Segment, create, name, number};
use crate::store::disk::{Disk, DiskFile};
use crate::store::seal::Sealer;
use crate::store::seal::keys::{Keys, UnknownKey};
use crate::store::types::LogId;

/// What a log held when it was opened.
#[derive(Debug, Default, PartialEq)]
pub struct Recovered {
    pub standing: Standing,
    /// Consecutive; the first follows `standing.purged`.
    pub entries: VecDeque<(LogId, Place)>,
    pub cut: Option<Cut>,
}

/// A tail that was never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    pub path: PathBuf,
    /// The file's length now.
    pub kept: u64,
    pub removed: u64,
}

/// Why a log cannot be opened. None of these goes away by trying again.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot read or write the Raft log in {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is damaged at byte {offset}. {REPAIR}", path.display())]
    Damaged {
        path: PathBuf,
        offset: u64,
        #[source]
        source: RecordError,
    },
    #[error(
        "{} ends at byte {length}, but {synced} bytes of it were acknowledged. {REPAIR}",
        path.display()
    )]
    Shortened {
        path: PathBuf,
        length: u64,
        synced: u64,
    },
    #[error("{} is missing. {REPAIR}", path.display())]
    Missing { path: PathBuf },
    #[error(
        "{}: entry {found} at byte {offset} where entry {expected} belongs. {REPAIR}",
        path.display()
    )]
    OutOfOrder {
        path: PathBuf,
        offset: u64,
        expected: u64,
        found: u64,
    },
    #[error("cannot read {}", path.display())]
    Key {
        path: PathBuf,
        #[source]
        source: UnknownKey,
    },
}

const FIRST_SEGMENT: u64 = 1;

/// A header is four numbers and three log ids in JSON, and what names its key.
pub(super) const MAX_HEADER_BYTES: u64 = 1024;

const REPAIR: &str = "This controller cannot vouch for what it acknowledged: remove its data \
                      directory and join it again; the other controllers hold the data";

impl OpenError {
    /// The message with its cause, for where only text passes.
    pub fn in_full(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self} ({source})"),
            None => self.to_string(),
        }
    }
}

pub(super) struct Opened {
    pub recovered: Recovered,
    pub segments: VecDeque<Segment>,
    /// The newest segment.
    pub file: Box<dyn DiskFile>,
    pub length: u64,
}

/// What opens the segments goes to `seals`.
pub(super) fn replay(
    disk: &dyn Disk,
    synced: Option<Synced>,
    keys: &Keys,
    seals: &Seals,
) -> Result<Opened, OpenError> {
    let io = |source| OpenError::Io {
        path: disk.path(""),
        source,
    };
    let mut numbers: Vec<u64> = disk
        .list()
        .map_err(io)?
        .iter()
        .filter_map(|name| number(name))
        .collect();
    numbers.sort_unstable();
    check_complete(disk, &numbers, synced)?;
    let Some(&newest) = numbers.last() else {
        let (file, length) =
            create(disk, FIRST_SEGMENT, Standing::default(), keys, seals).map_err(io)?;
        return Ok(Opened {
            recovered: Recovered::default(),
            segments: VecDeque::from([Segment {
                number: FIRST_SEGMENT,
                highest: None,
            }]),
            file,
            length,
        });
    };

    let mut log = Replay {
        oldest_segment: numbers[0],
        ..Replay::default()
    };
    let mut segments = VecDeque::new();
    for &number in &numbers[..numbers.len() - 1] {
        // All of an older segment was synced before the next one was made.
        let (file, length) = open(disk, number)?;
        let expected = match synced {
            Some(synced) if synced.segment == number => synced.length.max(length),
            _ => length,
        };
        let scan = log.scan(disk, &*file, number, length, expected, keys)?;
        seals.insert(number, scan.sealer);
        segments.push_back(scan.segment);
    }

    let (file, length) = open(disk, newest)?;
    let acknowledged = match synced {
        Some(synced) if synced.segment == newest => synced.length,
        _ => 0,
    };
    let scan = log.scan(disk, &*file, newest, length, acknowledged, keys)?;
    seals.insert(newest, scan.sealer);
    let mut file = file;
    let mut kept = scan.end;
    let cut = (kept < length).then(|| Cut {
        path: disk.path(&name(newest)),
        kept,
        removed: length - kept,
    });
    if kept == 0 {
        // A header is synced before anything follows it. So a header that does not parse was
        // either never finished, and stands alone, or is rot.
        if length > MAX_HEADER_BYTES {
            return Err(OpenError::Damaged {
                path: disk.path(&name(newest)),
                offset: 0,
                source: scan.stopped.unwrap_or(RecordError::Short),
            });
        }
        (file, kept) = create(disk, newest, log.standing, keys, seals).map_err(io)?;
    } else if cut.is_some() {
        file.set_length(kept).map_err(io)?;
        file.sync_all().map_err(io)?;
    }
    segments.push_back(scan.segment);
    let recovered = log.finish(disk, cut)?;
    Ok(Opened {
        recovered,
        segments,
        file,
        length: kept,
    })
}

fn open(disk: &dyn Disk, segment: u64) -> Result<(Box<dyn DiskFile>, u64), OpenError> {
    let io = |source| OpenError::Io {
        path: disk.path(&name(segment)),
        source,
    };
    let file = disk.open(&name(segment)).map_err(io)?;
    let length = file.length().map_err(io)?;
    Ok((file, length))
}

/// Segments are made and removed one by one, in order: none can be missing between two others,
/// nor can the one that the mark speaks of.
fn check_complete(
    disk: &dyn Disk,
    numbers: &[u64],
    synced: Option<Synced>,
) -> Result<(), OpenError> {
    let missing = |segment| {
        Err(OpenError::Missing {
            path: disk.path(&name(segment)),
        })
    };
    for pair in numbers.windows(2) {
        if pair[0] + 1 != pair[1] {
            return missing(pair[0] + 1);
        }
    }
    match (synced, numbers.last()) {
        (Some(synced), None) => missing(synced.segment),
        (Some(synced), Some(&newest)) if newest < synced.segment => missing(synced.segment),
        _ => Ok(()),
    }
}

struct Scan {
    segment: Segment,
    sealer: Option<Sealer>,
    /// Everything before parsed.
    end: u64,
    /// Why the rest did not, if there is a rest.
    stopped: Option<RecordError>,
}

#[derive(Default)]
struct Replay {
    oldest_segment: u64,
    standing: Standing,
    entries: VecDeque<(LogId, Place)>,
    /// Index that the next entry must have; unknown until the first one.
    next: Option<u64>,
}

impl Replay {
    /// Reads a segment up to the first byte that does not parse, which must not be before
    /// `acknowledged`.
    fn scan(
        &mut self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        number: u64,
        length: u64,
        acknowledged: u64,
        keys: &Keys,
    ) -> Result<Scan, OpenError> {
        let path = || disk.path(&name(number));
        if length < acknowledged {
            return Err(OpenError::Shortened {
                path: path(),
                length,
                synced: acknowledged,
            });
        }
        let mut bytes = vec![0; length as usize];
        file.read_exact_at(0, &mut bytes)
            .map_err(|source| OpenError::Io {
                path: path(),
                source,
            })?;
        let mut records = Records::of(number, Bytes::from(bytes), keys);
        let mut segment = Segment {
            number,
            highest: None,
        };
        let mut stopped = None;
        loop {
            let offset = records.offset();
            let (record, taken) = match records.next() {
                None => break,
                Some(Ok(read)) => read,
                Some(Err(RecordError::Key(source))) => {
                    return Err(OpenError::Key {
                        path: path(),
                        source,
                    });
                }
                Some(Err(source)) if offset < acknowledged || source.is_whole() => {
                    return Err(OpenError::Damaged {
                        path: path(),
                        offset,
                        source,
                    });
                }
                Some(Err(source)) => {
                    stopped = Some(source);
                    break;
                }
            };
            let place = Place {
                segment: number,
                offset,
                length: taken as u32,
            };
            if let Record::Entry(entry) = &record {
                segment.highest = segment.highest.max(Some(entry.log_id.index));
            }
            self.take(record, place)
                .map_err(|(expected, found)| OpenError::OutOfOrder {
                    path: path(),
                    offset,
                    expected,
                    found,
                })?;
        }
        Ok(Scan {
            segment,
            end: records.offset(),
            stopped,
            sealer: records.into_sealer(),
        })
    }

    /// # Errors
    /// The index expected and the one found.
    fn take(&mut self, record: Record, place: Place) -> Result<(), (u64, u64)> {
        match record {
            Record::Header { standing, .. } => {
                // Within a log the header repeats what is known; it tells more where older
                // segments were removed.
                self.standing = standing;
            }
            Record::Entry(entry) => {
                let index = entry.log_id.index;
                if let Some(expected) = self.next
                    && expected != index
                {
                    return Err((expected, index));
                }
                self.next = Some(index + 1);
                self.entries.push_back((entry.log_id, place));
            }
            Record::Vote(vote) => self.standing.vote = Some(vote),
            Record::Truncate { from } => {
                while self.entries.back().is_some_and(|(id, _)| id.index >= from) {
                    self.entries.pop_back();
                }
                // An emptied log may begin anywhere.
                self.next = (from > 0).then_some(from);
            }
            Record::Purge(id) => {
                self.standing.purged = Some(id);
                self.remove_purged();
                // Before the first entry nothing is known of the next one: those between may be
                // in a segment that a later purge removed.
                self.next = self.next.map(|next| next.max(id.index + 1));
            }
            Record::Committed(id) => self.standing.committed = Some(id),
        }
        Ok(())
    }

    fn remove_purged(&mut self) {
        while let (Some(purged), Some((first, _))) = (self.standing.purged, self.entries.front())
            && first.index <= purged.index
        {
            self.entries.pop_front();
        }
    }

    fn finish(mut self, disk: &dyn Disk, cut: Option<Cut>) -> Result<Recovered, OpenError> {
        self.remove_purged();
        let expected = self.standing.purged.map_or(0, |id| id.index + 1);
        if let Some((first, place)) = self.entries.front()
            && first.index != expected
            // Nothing was ever removed: whatever comes first is the first.
            && (self.standing.purged.is_some() || self.oldest_segment != FIRST_SEGMENT)
        {
            return Err(OpenError::OutOfOrder {
                path: disk.path(&name(place.segment)),
                offset: place.offset,
                expected,
                found: first.index,
            });
        }
        // Committed is written without a sync of its own and may name what a torn tail lost.
        let last = self
            .entries
            .back()
            .map(|(id, _)| *id)
            .or(self.standing.purged);
        self.standing.committed = self.standing.committed.min(last);
        Ok(Recovered {
            standing: self.standing,
            entries: self.entries,
            cut,
        })
    }
}
