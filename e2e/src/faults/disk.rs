//! A disk that loses power and fills up: ext4 in a loop device, mounted in the sandbox.
//!
//! Losing power is the file system's own shutdown without a flush of its log: what was not synced,
//! in the page cache or in the journal, is gone.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use rustix::ioctl::{Setter, ioctl};

use super::tool::{must, run};
use crate::wait::{PATIENCE, until};

/// Room for a log of some ten thousand entries, twice, and its snapshots.
const BYTES: &str = "192M";

/// `FS_IOC_SHUTDOWN` (linux/fs.h; ext4 and xfs), a number that says how.
const SHUTDOWN: u32 = 0x8004_587D;

/// Nothing is flushed, not even the journal.
const WITHOUT_FLUSH: u32 = 2;

#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
}

impl Disk {
    pub fn create(dir: &Path, name: &str) -> Self {
        let image = dir.join(format!("{name}.img"));
        let path = dir.join(format!("{name}-disk"));
        std::fs::create_dir_all(&path).expect("a directory of ours");
        let shown = image.display().to_string();
        must("truncate", &["-s", BYTES, &shown]);
        must("mkfs.ext4", &["-q", "-F", "-m", "0", &shown]);
        let disk = Self { image, path };
        disk.mount();
        disk
    }

    fn mount(&self) {
        let (image, path) = (self.image.display(), self.path.display());
        must(
            "mount",
            &["-o", "loop", &image.to_string(), &path.to_string()],
        );
    }

    /// Everything not synced is lost from here on; what uses the disk gets errors until [`Disk::power_on`].
    pub fn power_off(&self) {
        let root = File::open(&self.path).expect("it is mounted");
        // SAFETY: the request takes a pointer to a u32, which `Setter` passes, and keeps nothing.
        #[allow(unsafe_code)]
        let cut = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH)) };
        cut.expect("ext4 can be shut down by root");
    }

    /// Mounts it again, as after a start of the machine; nothing may use it any more.
    pub async fn power_on(&self) {
        let path = self.path.display().to_string();
        until("the disk is unmounted", PATIENCE, async || {
            run("umount", &[&path])
        })
        .await;
        self.mount();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Takes all the room that is left.
    pub fn fill(&self) {
        let mut file = File::create(self.filler()).expect("there is room for a name");
        let mut chunk = vec![0x55; 1 << 20];
        while !chunk.is_empty() {
            match file.write(&chunk).and_then(|_| file.sync_data()) {
                Ok(()) => {}
                Err(_) => chunk.truncate(chunk.len() / 2),
            }
        }
    }

    pub fn free(&self) -> u64 {
        let state = rustix::fs::statvfs(&self.path).expect("it is mounted");
        state.f_bfree * state.f_frsize
    }

    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }
}
