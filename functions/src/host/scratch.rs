//! A directory of an instance's own, `/tmp`: there when it starts, gone when it ends.
//!
//! It is made when the guest first asks which directories it has, so that who never asks pays nothing.
//! WASI's calls go through to wasmtime's, but for those that can take room: they are counted first
//! (`quota`). A guest must reach nothing outside of its directory, and no instance may take what the
//! node needs: disk, open files, or the time to clean up after it.

use std::{
    fs, io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use wasmtime::{
    StoreContextMut,
    component::{Linker, Resource, ResourceTableError},
};
use wasmtime_wasi::filesystem::{Descriptor, Dir, FsPerms, OpenMode};

use crate::{guest::Guest, logs::RequestLog};

mod measure;
mod quota;
mod wasi_0_2;
mod wasi_0_3;

use quota::{Held, MOST_OPEN, Quota};

/// What guests know it as.
const GUEST_PATH: &str = "/tmp";

/// Of the free disk all scratch directories have a tenth together: the rest is for artifacts, ledgers
/// and whoever else lives on the machine.
const PART_OF_DISK: u64 = 10;

/// Directories at once, where open files are plenty. Each instance that uses one is a program that runs.
const MOST_DIRECTORIES: usize = 1000;

/// Of the files that the process may have open, instances have half at most: links, requests and
/// artifacts need some, too.
const PART_OF_FILES: u64 = 2;

/// Something that the guest had begun may still come into being while its directory goes.
const TRIES: u32 = 20;
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// In the place of what wasmtime has linked.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    // By the names that wasmtime links them under.
    for preopens in [
        "wasi:filesystem/preopens@0.2.12",
        "wasi:filesystem/preopens@0.3.0",
    ] {
        linker.instance(preopens)?.func_wrap_async(
            "get-directories",
            |mut guest: StoreContextMut<'_, Guest>, (): ()| {
                Box::new(async move {
                    let guest = guest.data_mut();
                    let Some(root) = opened(guest).await else {
                        return Ok((Vec::new(),));
                    };
                    let root: Resource<Descriptor> = guest.table.push(root)?;
                    Ok((vec![(root, GUEST_PATH.to_owned())],))
                })
            },
        )?;
    }
    wasi_0_2::link(linker)?;
    wasi_0_3::link(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The directory of the guest's instance; from now on there is one, if it may have one.
async fn opened(guest: &mut Guest) -> Option<Descriptor> {
    let root = match &guest.scratch {
        Some(directory) => directory.root.clone(),
        None => {
            let Scratch { space, size_limit } = guest.services.scratch.clone()?;
            match space.fresh(size_limit, guest.log().clone()).await {
                Ok(directory) => guest.scratch.insert(directory).root.clone(),
                Err(error) => {
                    let log = guest.log();
                    log.hive(format!(
                        "there is no {GUEST_PATH}: the node cannot make it: {error}"
                    ));
                    return None;
                }
            }
        }
    };
    Some(Descriptor::Dir(root))
}

impl Guest {
    /// Whoever takes room holds it meanwhile. None where there is no directory, nor a file in it.
    fn quota(&self) -> Option<Arc<Mutex<Quota>>> {
        Some(self.scratch.as_ref()?.quota.clone())
    }
}

/// A quota that is held while something happens to the directory. None where there is none: then there is
/// nothing that could come of it.
struct Holding(Option<OwnedMutexGuard<Quota>>);

impl Holding {
    async fn of(quota: Option<Arc<Mutex<Quota>>>) -> Self {
        match quota {
            Some(quota) => Self(Some(quota.lock_owned().await)),
            None => Self(None),
        }
    }

    /// With room for `more`.
    async fn with(quota: Option<Arc<Mutex<Quota>>>, more: Held) -> io::Result<Self> {
        Self::of(quota).await.count(more).await
    }

    /// One more file is to be open.
    async fn opening(quota: Option<Arc<Mutex<Quota>>>) -> io::Result<Self> {
        let mut holding = Self::of(quota).await;
        if let Some(quota) = &mut holding.0 {
            quota.check_open()?;
        }
        Ok(holding)
    }

    async fn count(self, more: Held) -> io::Result<Self> {
        let Some(mut quota) = self.0 else {
            return Ok(self);
        };
        let counting = tokio::task::spawn_blocking(move || {
            quota.count(more)?;
            Ok(Self(Some(quota)))
        });
        counting.await?
    }

    fn opened(&mut self, descriptor: &Descriptor) {
        let file = match descriptor {
            Descriptor::File(file) => &file.file,
            Descriptor::Dir(directory) => &directory.dir,
        };
        if let Some(quota) = &mut self.0 {
            quota.opened(file);
        }
    }
}

/// A file, and the quota that it counts in.
type Counted = (Arc<fs::File>, Arc<Mutex<Quota>>);

/// What is behind a descriptor; None where it is no file.
fn writable(
    guest: &Guest,
    fd: &Resource<Descriptor>,
) -> Result<Option<Counted>, ResourceTableError> {
    let Descriptor::File(file) = guest.table.get(fd)? else {
        return Ok(None);
    };
    Ok(guest.quota().map(|quota| (file.file.clone(), quota)))
}

/// Does what blocks with a quota held. Once begun it is done, whoever still waits for it.
async fn within<T: Send + 'static>(
    quota: Arc<Mutex<Quota>>,
    work: impl FnOnce(&mut Quota) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let mut held = quota.lock_owned().await;
    tokio::task::spawn_blocking(move || work(&mut held)).await?
}

/// Where a node has its instances' directories. A clone is the same.
#[derive(Clone)]
pub struct ScratchSpace(Arc<Space>);

/// What a function was given.
#[derive(Clone)]
pub struct Scratch {
    pub space: ScratchSpace,
    /// Bytes that one instance may keep.
    pub size_limit: u64,
}

struct Space {
    root: PathBuf,
    next: AtomicU64,
    places: Arc<Semaphore>,
    /// Bytes, of all directories.
    used: AtomicU64,
    free: Free,
    ended: mpsc::Sender<Ended>,
}

/// Bytes that are free on the disk now.
type Free = Box<dyn Fn() -> io::Result<u64> + Send + Sync>;

/// A directory that nobody needs any more. What it took is given back when it is gone.
struct Ended {
    path: PathBuf,
    _quota: Arc<Mutex<Quota>>,
    _place: OwnedSemaphorePermit,
}

impl ScratchSpace {
    /// In `root`, an empty directory that nobody else uses. `free` says what its disk has left.
    pub fn start(
        root: PathBuf,
        free: impl Fn() -> io::Result<u64> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (ended, to_remove) = mpsc::channel::<Ended>();
        thread::Builder::new()
            .name("scratch".to_owned())
            .spawn(move || to_remove.iter().for_each(|ended| ended.remove()))?;
        Ok(Self(Arc::new(Space {
            root,
            next: AtomicU64::new(0),
            places: Arc::new(Semaphore::new(places(open_files()))),
            used: AtomicU64::new(0),
            free: Box::new(free),
            ended,
        })))
    }

    /// Waits for a place, and makes a directory in it.
    async fn fresh(&self, size_limit: u64, log: RequestLog) -> io::Result<Directory> {
        let space = self.0.clone();
        let places = space.places.clone();
        let place = places.acquire_owned().await.expect("it is never closed");
        let made = tokio::task::spawn_blocking(move || -> io::Result<Directory> {
            let name = space.next.fetch_add(1, Ordering::Relaxed).to_string();
            let path = space.root.join(name);
            fs::create_dir(&path)?;
            let root = fs::File::open(&path)?;
            let mode = OpenMode::READ | OpenMode::WRITE;
            let root = Dir::new(root, FsPerms::ReadWrite, mode, false);
            let share = Share {
                space: space.clone(),
                bytes: 0,
            };
            let quota = Quota::new(size_limit, root.dir.clone(), share, log);
            Ok(Directory {
                root,
                quota: Arc::new(Mutex::new(quota)),
                place: Some((path, place)),
                ended: space.ended.clone(),
            })
        });
        made.await?
    }
}

/// One for each instance; one for what a leftover needs, and for the directory itself.
fn places(open_files: u64) -> usize {
    let places = open_files / PART_OF_FILES / (MOST_OPEN as u64 + 2);
    usize::try_from(places)
        .unwrap_or(MOST_DIRECTORIES)
        .clamp(1, MOST_DIRECTORIES)
}

fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}

/// What one directory takes of the disk's part; given back when dropped.
struct Share {
    space: Arc<Space>,
    bytes: u64,
}

impl Share {
    /// Whether the node has room for that many bytes, which then are taken.
    fn set(&mut self, bytes: u64) -> io::Result<bool> {
        let used = &self.space.used;
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else {
            used.fetch_sub(self.bytes - bytes, Ordering::Relaxed);
            self.bytes = bytes;
            return Ok(true);
        };
        let free = (self.space.free)()?;
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = used.fetch_update(set, fetch, |used| {
            let most = free.saturating_add(used) / PART_OF_DISK;
            used.checked_add(more).filter(|used| *used <= most)
        });
        if taken.is_ok() {
            self.bytes = bytes;
        }
        Ok(taken.is_ok())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.space.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The directory of one instance. When it is dropped, it goes.
pub(crate) struct Directory {
    root: Dir,
    quota: Arc<Mutex<Quota>>,
    /// Some until it is dropped.
    place: Option<(PathBuf, OwnedSemaphorePermit)>,
    ended: mpsc::Sender<Ended>,
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some((path, place)) = self.place.take() {
            let ended = Ended {
                path,
                _quota: self.quota.clone(),
                _place: place,
            };
            // Without its thread the process is ending, and the next one begins with an empty directory.
            _ = self.ended.send(ended);
        }
    }
}

impl Ended {
    fn remove(self) {
        for _ in 0..TRIES {
            match fs::remove_dir_all(&self.path) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return,
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                    thread::sleep(BETWEEN_TRIES);
                }
                Err(error) => {
                    let path = self.path.display();
                    tracing::warn!(%error, %path, "a scratch directory stays until the next start");
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_leave_half_of_the_open_files_to_others() {
        for (open_files, expected) in [
            (0, 1),
            (256, 3),
            (1024, 15),
            (20_000, 294),
            (u64::MAX, 1000),
        ] {
            assert_eq!(places(open_files), expected, "{open_files}");
        }
    }
}
