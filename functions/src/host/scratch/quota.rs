//! How much one directory holds, and how much more it may.
//!
//! What is about to take room is counted before it does, and never less than it can come to; what gives
//! room back is not counted at all. Once nothing more would fit, the directory is measured, and counting
//! goes on from there. All that takes room holds the quota while it does, so that what is measured stays
//! true. Everything here may block.

use std::{
    fs::File,
    io,
    ops::Add,
    os::unix::fs::FileExt,
    sync::{Arc, Weak},
};

use rustix::io::Errno;

use super::{Share, measure::measure};
use crate::logs::{LogEvent, RequestLog};

/// What a file or directory takes besides its content: its entry, its inode, the rest of its last block.
pub(super) const ENTRY_BYTES: u64 = 4096;

/// Files and directories in one directory: to measure and to remove them takes milliseconds.
const MOST_ENTRIES: u32 = 1000;

/// Of those, directories: whoever looks through the deepest nest of them has each of them open.
const MOST_DIRECTORIES: u32 = 64;

/// Files and directories that a guest has open at once.
pub(super) const MOST_OPEN: usize = 32;

/// What is in a directory, or is to come into it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub bytes: u64,
    pub entries: u32,
    pub directories: u32,
}

impl Held {
    pub const ENTRY: Self = Self {
        bytes: ENTRY_BYTES,
        entries: 1,
        directories: 0,
    };

    pub const DIRECTORY: Self = Self {
        directories: 1,
        ..Self::ENTRY
    };

    pub const fn bytes(bytes: u64) -> Self {
        Self {
            bytes,
            entries: 0,
            directories: 0,
        }
    }
}

impl Add for Held {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            entries: self.entries.saturating_add(more.entries),
            directories: self.directories.saturating_add(more.directories),
        }
    }
}

/// Where in a file.
#[derive(Debug, Clone, Copy)]
pub(super) enum At {
    Offset(u64),
    End,
}

/// Why there is no more. The function's log has it in these words.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("{0} bytes are all that an instance may keep in /tmp: raise spec.scratch.sizeLimit")]
    Bytes(u64),
    #[error("{MOST_ENTRIES} files and directories are the most that an instance may have in /tmp")]
    Entries,
    #[error("{MOST_DIRECTORIES} directories are the most that an instance may have in /tmp")]
    Directories,
    #[error("{MOST_OPEN} files and directories are the most that an instance may have open")]
    Open,
    #[error("the disk of the node has no more room for what instances keep in /tmp")]
    Node,
    #[error("the node cannot tell how much is in /tmp: {0}")]
    Unknown(#[source] io::Error),
}

impl Refused {
    fn errno(&self) -> Errno {
        match self {
            Self::Bytes(_) | Self::Entries | Self::Directories | Self::Node => Errno::NOSPC,
            // WASI has no word for a table of files that is full.
            Self::Open => Errno::NOMEM,
            Self::Unknown(_) => Errno::IO,
        }
    }
}

pub(super) struct Quota {
    limit: u64,
    held: Held,
    root: Arc<File>,
    /// What the guest has opened, by descriptors or by streams from them.
    open: Vec<Weak<File>>,
    share: Share,
    log: RequestLog,
    /// Whether the log has a reason already: a guest that goes on trying must not fill it.
    is_told: bool,
}

impl Quota {
    pub fn new(limit: u64, root: Arc<File>, share: Share, log: RequestLog) -> Self {
        Self {
            limit,
            held: Held::default(),
            root,
            open: Vec::new(),
            share,
            log,
            is_told: false,
        }
    }

    /// Writes some of `bytes`, if all of them fit.
    pub fn write(&mut self, file: &File, bytes: &[u8], at: At) -> io::Result<usize> {
        let length = file.metadata()?.len();
        let from = match at {
            At::Offset(offset) => offset,
            At::End => length,
        };
        // What lies between is there, too, once somebody writes there.
        let end = from.checked_add(bytes.len() as u64).ok_or(Errno::FBIG)?;
        self.count(Held::bytes(end.saturating_sub(length)))?;
        file.write_at(bytes, from)
    }

    pub fn write_all(&mut self, file: &File, mut bytes: &[u8], at: At) -> io::Result<()> {
        let mut at = at;
        while !bytes.is_empty() {
            match self.write(file, bytes, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    if let At::Offset(offset) = &mut at {
                        *offset += written as u64;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub fn set_size(&mut self, file: &File, size: u64) -> io::Result<()> {
        let length = file.metadata()?.len();
        self.count(Held::bytes(size.saturating_sub(length)))?;
        file.set_len(size)
    }

    /// Whether one more file may be open.
    pub fn check_open(&mut self) -> io::Result<()> {
        self.open.retain(|file| file.strong_count() > 0);
        if self.open.len() < MOST_OPEN {
            return Ok(());
        }
        Err(self.refuse(Refused::Open))
    }

    pub fn opened(&mut self, file: &Arc<File>) {
        self.open.push(Arc::downgrade(file));
    }

    /// Takes room for `more`, if there is any.
    pub fn count(&mut self, more: Held) -> io::Result<()> {
        let counted = self.counted(more).map_err(|refused| self.refuse(refused))?;
        self.held = counted;
        Ok(())
    }

    fn counted(&mut self, more: Held) -> Result<Held, Refused> {
        let fits = self.fitting(self.held + more);
        if let Ok(held) = fits {
            return Ok(held);
        }
        // The guest may have removed something.
        let open = self.open.iter().filter_map(Weak::upgrade);
        self.held = measure(&self.root, open).map_err(Refused::Unknown)?;
        self.fitting(self.held + more)
    }

    fn fitting(&mut self, held: Held) -> Result<Held, Refused> {
        if held.entries > MOST_ENTRIES {
            return Err(Refused::Entries);
        }
        if held.directories > MOST_DIRECTORIES {
            return Err(Refused::Directories);
        }
        if held.bytes > self.limit {
            return Err(Refused::Bytes(self.limit));
        }
        match self.share.set(held.bytes) {
            Ok(true) => Ok(held),
            Ok(false) => Err(Refused::Node),
            Err(error) => Err(Refused::Unknown(error)),
        }
    }

    fn refuse(&mut self, refused: Refused) -> io::Error {
        if !std::mem::replace(&mut self.is_told, true) {
            let text = refused.to_string();
            match &refused {
                Refused::Node => self.log.event(
                    format!("DiskFull: {text}"),
                    LogEvent {
                        reason: "DiskFull",
                        message: text,
                    },
                ),
                _ => self.log.hive(text),
            }
        }
        refused.errno().into()
    }
}
