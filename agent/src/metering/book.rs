//! What was counted and is not known to be held by the controllers: the rules, without clock, disk or network.
//!
//! Counts come in and are *open*. Some of them are *sealed* under a number, and then sent until the controllers
//! hold that number; nothing is added to a sealed batch, and there is one at a time. So a batch may be sent any number
//! of times, by any restart of either side, and counts once. Whoever changes a book writes it down before
//! anything of it is sent.

use std::collections::BTreeMap;

use hive_proto::{METER_ENTRIES, v1};

use crate::ids::FunctionId;

/// Functions that are kept apart while the controllers cannot be reached; what others used is counted for
/// their namespace. Twice as many as a node runs: some came and went.
const MAX_OPEN: usize = METER_ENTRIES;

/// What the counters of one function grew by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub requests: u64,
    pub errors: u64,
    pub cpu_micros: u64,
    pub memory_kib_ms: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Book {
    /// Random: tells this book from one that was lost.
    origin: Vec<u8>,
    /// The last number that was given.
    sequence: u64,
    sealed: Option<v1::Metering>,
    open: BTreeMap<FunctionId, Used>,
    /// It is otherwise than it was written down.
    is_dirty: bool,
}

impl Used {
    fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.requests, more.requests),
            (&mut self.errors, more.errors),
            (&mut self.cpu_micros, more.cpu_micros),
            (&mut self.memory_kib_ms, more.memory_kib_ms),
            (&mut self.bytes_in, more.bytes_in),
            (&mut self.bytes_out, more.bytes_out),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl Book {
    pub fn new(origin: [u8; 16]) -> Self {
        Self {
            origin: origin.to_vec(),
            ..Self::default()
        }
    }

    pub fn add(&mut self, used: impl IntoIterator<Item = (FunctionId, Used)>) {
        for (function, used) in used {
            let function = match self.open.len() < MAX_OPEN || self.open.contains_key(&function) {
                true => function,
                false => FunctionId::new(function.namespace, ""),
            };
            self.open.entry(function).or_default().add(&used);
            self.is_dirty = true;
        }
    }

    /// The controllers hold what the book of that origin told up to that number. False if this one never gave
    /// that number: it is an older copy that was put back.
    pub fn held(&mut self, origin: &[u8], sequence: u64) -> bool {
        if origin != self.origin {
            return true;
        }
        // By itself not worth a write: after a restart it is sent once more.
        self.sealed.take_if(|sealed| sealed.sequence <= sequence);
        let is_known = sequence <= self.sequence;
        if !is_known {
            // What it has open was told under those numbers. Better some of it is lost than counted twice.
            self.sequence = sequence;
            self.open.clear();
            self.is_dirty = true;
        }
        is_known
    }

    /// Gives a number to what is open, as far as it fits into one batch, unless one is on its way.
    pub fn seal(&mut self) {
        if self.sealed.is_some() || self.open.is_empty() {
            return;
        }
        let beyond = self.open.keys().nth(METER_ENTRIES).cloned();
        let rest = beyond.map(|first| self.open.split_off(&first));
        let sealed = std::mem::replace(&mut self.open, rest.unwrap_or_default());
        self.sequence += 1;
        self.sealed = Some(v1::Metering {
            origin: self.origin.clone(),
            sequence: self.sequence,
            entries: entries(&sealed),
        });
        self.is_dirty = true;
    }

    /// Its form on the disk, where that is another one than before.
    pub fn to_write(&self) -> Option<v1::MeteringBook> {
        self.is_dirty.then(|| v1::MeteringBook {
            origin: self.origin.clone(),
            sequence: self.sequence,
            sealed: self.sealed.clone(),
            open: entries(&self.open),
        })
    }

    pub fn is_written(&mut self) {
        self.is_dirty = false;
    }

    /// To be sent, until it is held.
    pub fn sealed(&self) -> Option<&v1::Metering> {
        self.sealed.as_ref()
    }

    pub fn decode(book: v1::MeteringBook) -> Self {
        let open = book.open.into_iter().map(|entry| {
            let function = FunctionId::new(&*entry.namespace, &*entry.function);
            let used = Used {
                requests: entry.requests,
                errors: entry.errors,
                cpu_micros: entry.cpu_micros,
                memory_kib_ms: entry.memory_kib_ms,
                bytes_in: entry.bytes_in,
                bytes_out: entry.bytes_out,
            };
            (function, used)
        });
        Self {
            open: open.collect(),
            origin: book.origin,
            sequence: book.sequence,
            sealed: book.sealed,
            is_dirty: false,
        }
    }
}

fn entries(open: &BTreeMap<FunctionId, Used>) -> Vec<v1::MeterEntry> {
    open.iter()
        .map(|(function, used)| v1::MeterEntry {
            namespace: function.namespace.clone(),
            function: function.name.clone(),
            requests: used.requests,
            errors: used.errors,
            cpu_micros: used.cpu_micros,
            memory_kib_ms: used.memory_kib_ms,
            bytes_in: used.bytes_in,
            bytes_out: used.bytes_out,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn id(name: &str) -> FunctionId {
        FunctionId::new("default", name)
    }

    fn used(requests: u64) -> Used {
        Used {
            requests,
            ..Used::default()
        }
    }

    fn requests(batch: &v1::Metering) -> u64 {
        batch.entries.iter().map(|entry| entry.requests).sum()
    }

    fn count(book: &mut Book, counted: impl IntoIterator<Item = (FunctionId, Used)>) -> bool {
        book.add(counted);
        seal(book)
    }

    /// Whether there was something to write down.
    fn seal(book: &mut Book) -> bool {
        book.seal();
        let is_new = book.to_write().is_some();
        book.is_written();
        is_new
    }

    #[test]
    fn one_batch_is_on_its_way_and_nothing_is_added_to_it() {
        let mut book = Book::new([1; 16]);
        assert!(!count(&mut book, []), "nothing to write");
        assert!(book.sealed().is_none());
        assert!(count(&mut book, [(id("f"), used(2)), (id("g"), used(1))]));
        let first = book.sealed().cloned().unwrap_or_default();
        assert_eq!((first.sequence, requests(&first)), (1, 3));
        assert!(count(&mut book, [(id("f"), used(5))]));
        assert_eq!(book.sealed(), Some(&first));
        assert!(book.held(b"another", 1));
        assert_eq!(book.sealed(), Some(&first), "that was of another ledger");
        book.held(&first.origin, 1);
        assert!(seal(&mut book), "the next");
        let next = book.sealed().cloned().unwrap_or_default();
        assert_eq!((next.sequence, requests(&next)), (2, 5));
        book.held(&first.origin, 2);
        assert!(!seal(&mut book), "not worth a write");
        assert!(book.sealed().is_none());
    }

    #[test]
    fn an_older_copy_that_was_put_back_counts_nothing_twice() {
        let mut book = Book::new([1; 16]);
        count(&mut book, [(id("f"), used(2))]);
        count(&mut book, [(id("f"), used(3))]);
        let copy = Book {
            is_dirty: true,
            ..book.clone()
        };
        book.held(&[1; 16], 1);
        seal(&mut book);
        assert_eq!(book.sealed().map(requests), Some(3));
        let mut book = Book::decode(copy.to_write().unwrap_or_default());
        assert!(!book.held(&[1; 16], 2));
        assert!(seal(&mut book), "the number is to be known");
        assert_eq!((book.sealed(), book.open.len()), (None, 0));
        count(&mut book, [(id("f"), used(4))]);
        let next = book.sealed().map(|next| (next.sequence, requests(next)));
        assert_eq!(next, Some((3, 4)));
    }

    #[test]
    fn who_is_cut_off_keeps_a_batch_and_little_more() {
        let mut book = Book::new([1; 16]);
        for number in 0..3 * MAX_OPEN {
            book.add([(id(&format!("f{number}")), used(1))]);
        }
        assert_eq!(book.open.len(), MAX_OPEN + 1);
        assert!(book.open.contains_key(&id("")), "the others by namespace");
        let mut told = 0;
        for entries in [METER_ENTRIES, 1] {
            seal(&mut book);
            let batch = book.sealed().cloned().unwrap_or_default();
            assert_eq!(batch.entries.len(), entries);
            told += requests(&batch);
            book.held(&[1; 16], batch.sequence);
        }
        assert_eq!(told, 3 * MAX_OPEN as u64);
    }

    /// What the controllers do with a batch: their `state/metering.rs` is held to the same.
    #[derive(Default)]
    struct Controllers {
        held: BTreeMap<Vec<u8>, u64>,
        /// How often each function was counted.
        counted: BTreeMap<String, u64>,
    }

    impl Controllers {
        fn take(&mut self, batch: &v1::Metering) {
            let held = self.held.entry(batch.origin.clone()).or_default();
            if batch.sequence > *held {
                *held = batch.sequence;
                for entry in &batch.entries {
                    *self.counted.entry(entry.function.clone()).or_default() += entry.requests;
                }
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Deed {
        Count,
        /// Counted, and killed before it was written down.
        Lose,
        Send,
        /// Of a batch that was sent, whenever.
        Arrive(prop::sample::Index),
        Hear,
        Kill,
        /// The disk as it was at some time.
        PutBack(prop::sample::Index),
        /// The ledger was lost.
        Anew,
    }

    fn deeds() -> impl Strategy<Value = Vec<Deed>> {
        let deed = prop_oneof![
            6 => Just(Deed::Count),
            2 => Just(Deed::Lose),
            6 => Just(Deed::Send),
            6 => any::<prop::sample::Index>().prop_map(Deed::Arrive),
            4 => Just(Deed::Hear),
            4 => Just(Deed::Kill),
            1 => any::<prop::sample::Index>().prop_map(Deed::PutBack),
            1 => Just(Deed::Anew),
        ];
        prop::collection::vec(deed, 1..80)
    }

    /// What is written down is on the disk before it is sent.
    fn write(book: &mut Book, disk: &mut Vec<v1::MeteringBook>) {
        book.seal();
        disk.extend(book.to_write());
        book.is_written();
    }

    proptest! {
        /// Killed anywhere, cut off anywhere, with batches that arrive late, twice or never: what was written
        /// down is counted once; and where disks were lost or put back, no more than that.
        #[test]
        fn what_was_written_down_counts_once(deeds in deeds()) {
            let (mut origin, mut controllers) = ([1; 16], Controllers::default());
            let mut book = Book::new(origin);
            let mut disk = vec![v1::MeteringBook { origin: origin.to_vec(), ..Default::default() }];
            let (mut sent, mut written, mut is_sound) = (Vec::new(), Vec::new(), true);
            for (number, deed) in deeds.into_iter().enumerate() {
                let (name, last) = (format!("f{number}"), disk.len() - 1);
                match deed {
                    Deed::Count => {
                        book.add([(id(&name), used(1))]);
                        write(&mut book, &mut disk);
                        written.push(name);
                    }
                    Deed::Lose => {
                        book.add([(id(&name), used(1))]);
                        book = Book::decode(disk[last].clone());
                    }
                    Deed::Send => sent.extend(book.sealed().cloned()),
                    Deed::Arrive(which) if !sent.is_empty() => controllers.take(which.get(&sent)),
                    Deed::Arrive(_) => {}
                    Deed::Hear => {
                        book.held(&origin, controllers.held.get(&origin[..]).copied().unwrap_or(0));
                        write(&mut book, &mut disk);
                    }
                    Deed::Kill => book = Book::decode(disk[last].clone()),
                    Deed::PutBack(which) => {
                        let put_back = which.get(&disk).clone();
                        is_sound &= put_back == disk[last];
                        disk.push(put_back.clone());
                        book = Book::decode(put_back);
                    }
                    Deed::Anew => {
                        is_sound = false;
                        origin[0] += 1;
                        book = Book::new(origin);
                        disk = vec![v1::MeteringBook { origin: origin.to_vec(), ..Default::default() }];
                    }
                }
            }
            // The link holds at last.
            for _ in 0..3 {
                if let Some(batch) = book.sealed() {
                    controllers.take(batch);
                }
                book.held(&origin, controllers.held.get(&origin[..]).copied().unwrap_or(0));
                book.seal();
            }
            prop_assert!(book.sealed().is_none());
            prop_assert!(controllers.counted.values().all(|times| *times == 1));
            for name in &written {
                prop_assert!(!is_sound || controllers.counted.contains_key(name), "{name} is lost");
            }
            let is_known = |name: &String| written.contains(name);
            prop_assert!(controllers.counted.keys().all(is_known));
        }
    }
}
