//! What is in a directory.
//!
//! A tree comes in by its open root, and what was found of it goes out. It follows no link and leaves
//! the tree nowhere: names are looked up in directories that are open. How deep it goes is bounded by
//! the directories that there may be.

use std::{collections::BTreeSet, fs::File, io, os::unix::fs::MetadataExt, sync::Arc};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat},
    io::Errno,
};

use super::quota::Held;

/// All that is below `root`, and what of `open` is in no directory any more. Blocks.
pub(super) fn measure(root: &File, open: impl Iterator<Item = Arc<File>>) -> io::Result<Held> {
    let mut found = Found::default();
    found.directory(root.as_fd().try_clone_to_owned()?)?;
    for file in open {
        let metadata = file.metadata()?;
        if metadata.is_file() && metadata.nlink() == 0 {
            found.file(metadata.ino(), metadata.len());
        }
    }
    Ok(found.held)
}

#[derive(Default)]
struct Found {
    held: Held,
    /// What may be found a second time, under another name; all of it is on one disk.
    seen: BTreeSet<u64>,
}

impl Found {
    fn directory(&mut self, directory: OwnedFd) -> io::Result<()> {
        let mut directories = Vec::new();
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            // What the guest has just removed is not there.
            let Some(stat) = there(statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW))? else {
                continue;
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    self.held = self.held + Held::DIRECTORY;
                    directories.push(name.to_owned());
                }
                FileType::RegularFile => {
                    let length = u64::try_from(stat.st_size).unwrap_or(0);
                    self.file(stat.st_ino, length);
                }
                // A link's target is as long as a path.
                _ => self.held = self.held + Held::ENTRY,
            }
        }
        for name in directories {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
            if let Some(below) = there(openat(&directory, name, flags, Mode::empty()))? {
                self.directory(below)?;
            }
        }
        Ok(())
    }

    /// Each of a file's names is an entry; its content is there once.
    fn file(&mut self, inode: u64, length: u64) {
        let content = if self.seen.insert(inode) { length } else { 0 };
        self.held = self.held + Held::ENTRY + Held::bytes(content);
    }
}

fn there<T>(outcome: Result<T, Errno>) -> io::Result<Option<T>> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::{fs, os::unix::fs::symlink};

    use super::*;
    use crate::host::scratch::quota::ENTRY_BYTES;

    #[test]
    fn everything_below_is_found_once_and_nothing_besides() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let root = File::open(path).unwrap();
        let found = |open: Vec<Arc<File>>| measure(&root, open.into_iter()).unwrap();
        assert_eq!(found(vec![]), Held::default());

        fs::write(path.join("a"), [0; 100]).unwrap();
        fs::create_dir_all(path.join("b/c")).unwrap();
        fs::write(path.join("b/c/d"), [0; 20]).unwrap();
        fs::hard_link(path.join("a"), path.join("b/again")).unwrap();
        symlink("/", path.join("b/everything")).unwrap();
        // It has a hole, and may be filled.
        File::create(path.join("b/hole"))
            .unwrap()
            .set_len(3000)
            .unwrap();
        let held = Held {
            bytes: 7 * ENTRY_BYTES + 3120,
            entries: 7,
            directories: 2,
        };
        assert_eq!(found(vec![]), held);

        let open = Arc::new(File::open(path.join("b/hole")).unwrap());
        assert_eq!(found(vec![open.clone()]), held);
        fs::remove_file(path.join("b/hole")).unwrap();
        assert_eq!(found(vec![open]), held);
        assert_eq!(found(vec![]).bytes, held.bytes - ENTRY_BYTES - 3000);
    }
}
