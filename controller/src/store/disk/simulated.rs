//! A disk that loses power: what was not synced survives in part, sector by sector, or torn.
//!
//! Every choice follows from the seed, so a failure can be replayed.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use super::{Disk, DiskFile};

const SECTOR: usize = 512;

/// A small, fast sequence of numbers that look random (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone)]
pub struct Simulated {
    world: Arc<(Mutex<World>, Condvar)>,
}

struct World {
    random: Random,
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    renames: Vec<Rename>,
    next_inode: u64,
    /// Operations until the power goes.
    fuel: Option<u64>,
    off: bool,
    syncs: u64,
    syncs_held: bool,
    syncs_failing: bool,
    syncs_skipped: bool,
    full: bool,
    /// Operations refused because it was full, or a sync failed.
    refused: u64,
}

#[derive(Default)]
struct Inode {
    visible: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

enum Rename {
    Link(String, u64),
    Unlink(String),
    Move(String, String),
}

struct Handle {
    disk: Simulated,
    inode: u64,
}

impl Simulated {
    pub fn new(seed: u64) -> Self {
        let world = World {
            random: Random::new(seed),
            inodes: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            renames: Vec::new(),
            next_inode: 1,
            fuel: None,
            off: false,
            syncs: 0,
            syncs_held: false,
            syncs_failing: false,
            syncs_skipped: false,
            full: false,
            refused: 0,
        };
        Self {
            world: Arc::new((Mutex::new(world), Condvar::new())),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.0.lock().unwrap()
    }

    /// The power goes during the `operations`-th operation from now.
    pub fn cut_after(&self, operations: u64) {
        self.world().fuel = Some(operations);
    }

    pub fn is_off(&self) -> bool {
        self.world().off
    }

    /// Power returns: what was synced is there, of the rest some.
    pub fn power_cycle(&self) {
        let mut world = self.world();
        let world = &mut *world;
        for inode in world.inodes.values_mut() {
            inode.lose(&mut world.random);
        }
        for rename in world.renames.drain(..) {
            if world.random.chance(50) {
                rename.perform(&mut world.durable_names);
            }
        }
        world.names = world.durable_names.clone();
        world.fuel = None;
        world.off = false;
    }

    /// Everything written so far is durable, as after a clean stop.
    pub fn settle(&self) {
        let mut world = self.world();
        for inode in world.inodes.values_mut() {
            inode.sync();
        }
        world.renames.clear();
        world.durable_names = world.names.clone();
    }

    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// While held, a sync of data does not return.
    pub fn hold_syncs(&self, held: bool) {
        self.world().syncs_held = held;
        self.world.1.notify_all();
    }

    pub fn fail_syncs(&self, failing: bool) {
        self.world().syncs_failing = failing;
    }

    /// Syncs return without having done anything: what a program does that forgets them.
    pub fn skip_syncs(&self, skipped: bool) {
        self.world().syncs_skipped = skipped;
    }

    /// While full, nothing can be written.
    pub fn fill(&self, full: bool) {
        self.world().full = full;
    }

    /// How often it failed without losing power.
    pub fn refused(&self) -> u64 {
        self.world().refused
    }

    /// Between two operations: nothing reaches the disk until it is back.
    pub fn turn_off(&self) {
        self.world().off = true;
    }

    /// Back with all that was written, synced or not: only who wrote it is gone.
    pub fn turn_on(&self) {
        self.world().off = false;
    }

    /// What would be there if the power went now, at worst.
    pub fn durable_files(&self) -> Vec<(String, Vec<u8>)> {
        let world = self.world();
        let files = world.durable_names.iter();
        files
            .map(|(name, inode)| (name.clone(), world.inodes[inode].durable.clone()))
            .collect()
    }

    pub fn content(&self, name: &str) -> Vec<u8> {
        let world = self.world();
        world.inodes[&world.names[name]].visible.clone()
    }

    /// Replaces a file's content behind everyone's back.
    pub fn set_content(&self, name: &str, bytes: Vec<u8>) {
        let mut world = self.world();
        let id = world.names[name];
        let inode = world.inodes.get_mut(&id).unwrap();
        inode.visible = bytes;
        inode.sync();
    }

    /// A disk of its own with the same content.
    pub fn copy(&self) -> Self {
        let copy = Self::new(0);
        {
            let from = self.world();
            let mut to = copy.world();
            to.names = from.names.clone();
            to.durable_names = from.names.clone();
            to.next_inode = from.next_inode;
            for (id, inode) in &from.inodes {
                let inode = Inode {
                    visible: inode.visible.clone(),
                    durable: inode.visible.clone(),
                    pending: Vec::new(),
                };
                to.inodes.insert(*id, inode);
            }
        }
        copy
    }
}

fn no_power() -> io::Error {
    io::Error::other("the power is off")
}

fn not_found(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, name.to_owned())
}

impl World {
    /// Counts an operation. `Ok(true)` when the power goes during it: it may happen in part.
    fn spend(&mut self) -> io::Result<bool> {
        if self.off {
            return Err(no_power());
        }
        match &mut self.fuel {
            None => Ok(false),
            Some(0) => {
                self.off = true;
                Ok(true)
            }
            Some(fuel) => {
                *fuel -= 1;
                Ok(false)
            }
        }
    }

    fn rename(&mut self, rename: Rename) -> io::Result<()> {
        let cut = self.spend()?;
        rename.perform(&mut self.names);
        self.renames.push(rename);
        if cut { Err(no_power()) } else { Ok(()) }
    }

    fn change(&mut self, inode: u64, change: Change) -> io::Result<()> {
        let cut = self.spend()?;
        if self.full {
            self.refused += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.inodes.get_mut(&inode).unwrap();
        change.perform(&mut inode.visible);
        inode.pending.push(change);
        if cut { Err(no_power()) } else { Ok(()) }
    }
}

impl Rename {
    fn perform(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Rename::Link(name, inode) => names.insert(name.clone(), *inode),
            Rename::Unlink(name) => names.remove(name),
            Rename::Move(from, to) => names
                .remove(from)
                .and_then(|inode| names.insert(to.clone(), inode)),
        };
    }
}

impl Change {
    fn perform(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length, 0),
            Change::Write {
                offset,
                bytes: written,
            } => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(written);
            }
        }
    }
}

impl Inode {
    fn sync(&mut self) {
        self.durable = self.visible.clone();
        self.pending.clear();
    }

    /// Each sector ends up as it was at some moment since the last sync; the length as well; and
    /// one write may be torn in the middle of a sector, or leave rubbish.
    fn lose(&mut self, random: &mut Random) {
        let changes = self.pending.len() as u64;
        let mut versions = vec![self.durable.clone()];
        for change in self.pending.drain(..) {
            let mut next = versions.last().unwrap().clone();
            change.perform(&mut next);
            versions.push(next);
        }
        let pick = |random: &mut Random| random.below(changes + 1) as usize;
        let length = versions[pick(random)].len();
        let mut survived = vec![0; length];
        for start in (0..length).step_by(SECTOR) {
            let end = length.min(start + SECTOR);
            let version = &versions[pick(random)];
            let kept = version.len().clamp(start, end);
            if let Some(bytes) = version.get(start..kept) {
                survived[start..kept].copy_from_slice(bytes);
            }
        }
        if changes > 0 && length > self.durable.len() && random.chance(30) {
            // Only what was never synced: disks do not damage sectors at rest here.
            let torn =
                self.durable.len() + random.below((length - self.durable.len()) as u64) as usize;
            let rubbish = random.chance(50);
            for byte in &mut survived[torn..length.min(torn + SECTOR)] {
                *byte = if rubbish { random.next() as u8 } else { 0 };
            }
        }
        self.visible = survived.clone();
        self.durable = survived;
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut world = self.world();
        if world.spend()? {
            return Err(no_power());
        }
        Ok(world.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        let inode = world.next_inode;
        world.next_inode += 1;
        world.inodes.insert(inode, Inode::default());
        world.rename(Rename::Link(name.to_owned(), inode))?;
        Ok(Box::new(Handle {
            disk: self.clone(),
            inode,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        if world.spend()? {
            return Err(no_power());
        }
        let inode = *world.names.get(name).ok_or_else(|| not_found(name))?;
        Ok(Box::new(Handle {
            disk: self.clone(),
            inode,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(name) {
            return Err(not_found(name));
        }
        world.rename(Rename::Unlink(name.to_owned()))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        if !world.names.contains_key(from) {
            return Err(not_found(from));
        }
        world.rename(Rename::Move(from.to_owned(), to.to_owned()))
    }

    fn sync_directory(&self) -> io::Result<()> {
        let mut world = self.world();
        let cut = world.spend()?;
        if cut {
            return Err(no_power());
        }
        world.renames.clear();
        world.durable_names = world.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/simulated").join(name)
    }
}

impl DiskFile for Handle {
    fn length(&self) -> io::Result<u64> {
        let world = self.disk.world();
        Ok(world.inodes[&self.inode].visible.len() as u64)
    }

    fn read_exact_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let mut world = self.disk.world();
        if world.spend()? {
            return Err(no_power());
        }
        let offset = offset as usize;
        let bytes = &world.inodes[&self.inode].visible;
        let Some(read) = bytes.get(offset..offset + into.len()) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        into.copy_from_slice(read);
        Ok(())
    }

    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = Change::Write {
            offset: offset as usize,
            bytes: bytes.to_vec(),
        };
        self.disk.world().change(self.inode, write)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let change = Change::Length(length as usize);
        self.disk.world().change(self.inode, change)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.disk.world();
        while world.syncs_held {
            world = self.disk.world.1.wait(world).unwrap();
        }
        if world.syncs_failing {
            world.refused += 1;
            return Err(io::Error::other("the disk failed to sync"));
        }
        let cut = world.spend()?;
        // Cut during a sync: it may have been through already, unknown to who waits.
        if !cut || world.random.chance(50) {
            world.syncs += 1;
            if world.syncs_skipped {
                return Ok(());
            }
            world.inodes.get_mut(&self.inode).unwrap().sync();
        }
        if cut { Err(no_power()) } else { Ok(()) }
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}

impl Simulated {
    pub fn has(&self, name: &str) -> bool {
        self.world().names.contains_key(name)
    }
}
