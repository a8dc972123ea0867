//! A file that is appended to, and put aside when it is full; the oldest that were put aside go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::ToSpan;
use jiff::civil::DateTime;

/// The time in the name of a file that was put aside; and how it is read, as earlier releases
/// wrote more digits.
const ASIDE: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const ASIDE_READ: &str = "%Y-%m-%dT%H-%M-%S%.f";

/// When a file is put aside, and how many such files are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    pub max_bytes: u64,
    pub keep: usize,
}

impl Default for Rotation {
    /// 256 MiB in all: some 400,000 requests, and little enough for an SD card.
    fn default() -> Self {
        Self {
            max_bytes: 32 << 20,
            keep: 7,
        }
    }
}

pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    /// Since when something is written that was not synced.
    unsynced: Option<Instant>,
}

impl RotatingFile {
    /// Opens the file, or goes on with the one that is there.
    pub fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let file = append_to(&path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path,
            rotation,
            file,
            bytes,
            unsynced: None,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a whole line, or nothing.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bytes > 0 && self.bytes + line.len() as u64 > self.rotation.max_bytes {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(line) {
            // A part of a line would spoil the next one. If even this fails, a reader skips one line.
            drop(self.file.set_len(self.bytes));
            return Err(error);
        }
        self.bytes += line.len() as u64;
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    /// Syncs what has waited for `interval`.
    pub fn sync_if_due(&mut self, interval: Duration) -> io::Result<()> {
        if self
            .unsynced
            .is_some_and(|since| since.elapsed() >= interval)
        {
            self.file.sync_data()?;
            self.unsynced = None;
        }
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let aside = self.next_aside()?;
        std::fs::rename(&self.path, &aside)?;
        self.file = append_to(&self.path)?;
        (self.bytes, self.unsynced) = (0, None);
        let mut kept = self.put_aside()?;
        while kept.len() > self.rotation.keep {
            std::fs::remove_file(kept.remove(0))?;
        }
        Ok(())
    }

    /// `audit-2026-11-21T10-20-34.123.log`: sorted by name is sorted by age, also when several are
    /// put aside within a millisecond or the clock went back.
    fn next_aside(&self) -> io::Result<PathBuf> {
        let now =
            jiff::Timestamp::try_from(SystemTime::now()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let mut time = jiff::tz::TimeZone::UTC.to_datetime(now);
        let (stem, extension) = self.name_parts();
        let newest = self.put_aside()?.pop().and_then(|path| {
            let name = path.file_name()?.to_str()?;
            let text = name
                .strip_prefix(&stem)?
                .strip_suffix(&format!(".{extension}"))?;
            DateTime::strptime(ASIDE_READ, text).ok()
        });
        if let Some(newest) = newest {
            time = time.max(newest.saturating_add(1.millisecond()));
        }
        let name = format!("{stem}{}.{extension}", time.strftime(ASIDE));
        Ok(self.path.with_file_name(name))
    }

    /// The part of a name before the time, and after it.
    fn name_parts(&self) -> (String, String) {
        let text = |part: Option<&std::ffi::OsStr>, otherwise: &str| {
            part.map_or_else(
                || otherwise.to_owned(),
                |part| part.to_string_lossy().into_owned(),
            )
        };
        (
            format!("{}-", text(self.path.file_stem(), "audit")),
            text(self.path.extension(), "log"),
        )
    }

    /// Oldest first.
    fn put_aside(&self) -> io::Result<Vec<PathBuf>> {
        let (stem, extension) = self.name_parts();
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut found: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.strip_prefix(&stem)
                    .and_then(|rest| rest.strip_suffix(&format!(".{extension}")))
                    .is_some_and(|time| time.starts_with(|c: char| c.is_ascii_digit()))
            })
            .collect();
        found.sort();
        Ok(found)
    }
}

/// Only its owner may read it: names and addresses of people are in it.
fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::fs::write(dir.path().join("audit-notes.log"), "not ours").unwrap();
        let rotation = Rotation {
            max_bytes: 20,
            keep: 2,
        };
        let mut file = RotatingFile::open(path.clone(), rotation).unwrap();
        for n in 0..10 {
            file.append(format!("line {n}..\n").as_bytes()).unwrap();
        }
        // Two lines a file: three files hold the last six.
        let mut files = file.put_aside().unwrap();
        assert_eq!(files.len(), 2);
        files.push(path.clone());
        let text: String = files
            .iter()
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let expected: String = (4..10).map(|n| format!("line {n}..\n")).collect();
        assert_eq!(text, expected);
        assert!(dir.path().join("audit-notes.log").exists());

        drop(file);
        let mut file = RotatingFile::open(path.clone(), rotation).unwrap();
        file.append(b"after a restart\n").unwrap();
        assert_eq!(std::fs::read_to_string(path).unwrap(), "after a restart\n");
        assert_eq!(file.put_aside().unwrap().len(), 2);
    }

    #[test]
    fn what_was_put_aside_last_is_the_newest_whatever_the_clock_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        for ahead in [
            "audit-2999-12-31T23-59-59.999.log",
            "audit-2999-12-31T23-59-59.9990.log",
        ] {
            std::fs::write(dir.path().join(ahead), "ahead\n").unwrap();
        }
        let rotation = Rotation {
            max_bytes: 1,
            keep: 2,
        };
        let mut file = RotatingFile::open(path, rotation).unwrap();
        // Far more than fit into a millisecond: names neither repeat nor go back.
        for n in 0..300 {
            file.append(format!("{n}\n").as_bytes()).unwrap();
            let kept: Vec<String> = file
                .put_aside()
                .unwrap()
                .iter()
                .map(|path| std::fs::read_to_string(path).unwrap())
                .collect();
            assert_eq!(kept.len(), 2);
            for (kept, n) in kept.iter().zip([n - 2, n - 1]) {
                assert_eq!(
                    *kept,
                    if n < 0 {
                        "ahead\n".to_owned()
                    } else {
                        format!("{n}\n")
                    }
                );
            }
        }
    }
}
