//! What a disk is told of a ledger, and what a power cut leaves of it at each moment.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};

use super::tests::some_set;
use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLen(u64),
    Sync,
}

impl Operation {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write(offset, data) => {
                let begin = *offset as usize;
                let end = begin + data.len();
                image.resize(image.len().max(end), 0);
                image[begin..end].copy_from_slice(data);
            }
            Self::SetLen(len) => image.resize(*len as usize, 0),
            Self::Sync => {}
        }
    }
}

/// Remembers what it was told.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    image: Vec<u8>,
    told: Vec<Operation>,
    is_broken: bool,
}

impl Disk {
    fn of(image: &[u8]) -> Self {
        let disk = Self::default();
        disk.0.lock().unwrap().image = image.to_vec();
        disk
    }

    fn image(&self) -> Vec<u8> {
        self.0.lock().unwrap().image.clone()
    }

    fn told(&self) -> Vec<Operation> {
        self.0.lock().unwrap().told.clone()
    }

    fn set_broken(&self, is_broken: bool) {
        self.0.lock().unwrap().is_broken = is_broken;
    }

    fn tell(&self, operation: Operation) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        if state.is_broken {
            return Err(io::Error::other("broken"));
        }
        operation.apply(&mut state.image);
        state.told.push(operation);
        Ok(())
    }

    fn open(&self) -> Result<(Ledger, DesiredSet), LedgerError> {
        let is_new = self.image().is_empty();
        Ledger::open_on(Path::new(FILE), self.clone(), is_new)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let begin = offset as usize;
        let state = self.0.lock().unwrap();
        let there = state.image.get(begin..begin + out.len());
        out.copy_from_slice(there.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.tell(Operation::SetLen(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.tell(Operation::Sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.tell(Operation::Write(offset, data.to_vec()))
    }
}

/// What an agent leaves that is killed after it saved this.
fn killed(desired: &DesiredSet) -> Vec<u8> {
    let disk = Disk::default();
    let (ledger, _) = disk.open().unwrap();
    ledger.save_desired(desired).unwrap();
    disk.image()
}

/// What a power cut may leave after this. What was not synced is up to the disk: all of it, nothing, one
/// of it, all but one.
fn left_by_cut(image: &[u8], told: &[Operation]) -> Vec<Vec<u8>> {
    let last = told.iter().rposition(|it| *it == Operation::Sync);
    let (synced, rest) = told.split_at(last.map_or(0, |at| at + 1));
    let mut sure = image.to_vec();
    for operation in synced {
        operation.apply(&mut sure);
    }
    let with = |is_kept: &dyn Fn(usize) -> bool| {
        let mut left = sure.clone();
        for (at, operation) in rest.iter().enumerate() {
            if is_kept(at) {
                operation.apply(&mut left);
            }
        }
        left
    };
    let mut all = vec![with(&|_| true), with(&|_| false)];
    for one in 0..rest.len() {
        all.push(with(&|at| at == one));
        all.push(with(&|at| at != one));
    }
    all
}

/// So a node serves what it knows while its disk stands still.
#[test]
fn what_a_killed_agent_knew_is_read_before_the_disk_is_told_anything() {
    let disk = Disk::of(&killed(&some_set()));
    disk.set_broken(true);
    let (ledger, desired) = disk.open().unwrap();
    assert_eq!(desired, some_set());
    assert_eq!(ledger.metering().unwrap(), None);
    assert!(disk.told().is_empty());
}

#[test]
fn the_disk_is_told_later_what_redb_tells_it_at_once() {
    let image = killed(&some_set());
    let at_once = Disk::of(&image);
    let mut database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create_with_backend(at_once.clone())
        .unwrap();
    database.check_integrity().unwrap();
    let syncs = at_once.told();
    let syncs = syncs.iter().filter(|it| **it == Operation::Sync).count();
    assert!(syncs > 2, "{syncs} are not worth it");

    let later = Disk::of(&image);
    let (ledger, _) = later.open().unwrap();
    ledger.settle().unwrap();
    assert!(later.told() == at_once.told());
    // What the killed agent wrote and did not sync is durable too.
    assert_eq!(later.told().last(), Some(&Operation::Sync));
}

#[test]
fn a_power_cut_at_any_moment_leaves_the_old_or_the_new_and_what_was_acknowledged() {
    let old = some_set();
    let new = DesiredSet {
        generation: 8,
        ..some_set()
    };
    let image = killed(&old);
    let disk = Disk::of(&image);
    let (ledger, _) = disk.open().unwrap();
    ledger.save_desired(&new).unwrap();
    let told = disk.told();
    for cut in 0..=told.len() {
        for left in left_by_cut(&image, &told[..cut]) {
            let (_ledger, desired) = Disk::of(&left).open().unwrap();
            let is_acknowledged = cut == told.len();
            assert!(
                desired == new || (desired == old && !is_acknowledged),
                "cut {cut} of {}: {desired:?}",
                told.len()
            );
        }
    }
}

/// Its value is there already, but only in memory.
#[test]
fn what_is_saved_again_is_durable_on_return() {
    let disk = Disk::of(&killed(&some_set()));
    let (ledger, _) = disk.open().unwrap();
    ledger.save_desired(&some_set()).unwrap();
    assert_eq!(disk.told().last(), Some(&Operation::Sync));
}

#[test]
fn after_an_error_of_the_disk_nothing_is_called_durable() {
    let disk = Disk::of(&killed(&some_set()));
    let (ledger, _) = disk.open().unwrap();
    disk.set_broken(true);
    assert!(ledger.settle().is_err());
    disk.set_broken(false);
    assert!(ledger.settle().is_err());
    assert!(ledger.save_desired(&some_set()).is_err());
}
