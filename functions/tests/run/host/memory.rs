//! Buckets in memory: what a node's store promises, without a disk.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex},
};

use futures::{FutureExt, future::BoxFuture};
use hive_functions::{Buckets, Entry, Expected, KeyValue, KeyValueError, PAGE, Write};

/// Entries that it takes in all, as if that were its disk.
pub const ROOM: usize = 5000;

#[derive(Default)]
struct Memory(Mutex<State>);

#[derive(Default)]
struct State {
    entries: BTreeMap<(String, String), Entry>,
    version: u64,
}

pub fn buckets(names: &[&str]) -> Buckets {
    Buckets {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        store: Arc::new(Memory::default()),
    }
}

impl Memory {
    fn apply(&self, bucket: &str, writes: Vec<Write>) -> Result<bool, KeyValueError> {
        let mut state = self.0.lock().unwrap();
        let State { entries, version } = &mut *state;
        let at = |write: &Write| (bucket.to_owned(), write.key.clone());
        let is_met = |write: &Write| {
            let now = Expected::of(entries.get(&at(write)));
            write.expected.is_none_or(|expected| expected == now)
        };
        if !writes.iter().all(is_met) {
            return Ok(false);
        }
        if entries.len() + writes.len() > ROOM {
            return Err(KeyValueError::DiskFull);
        }
        for write in writes {
            let at = at(&write);
            *version += 1;
            let version = *version;
            match write.value {
                Some(value) => entries.insert(at, Entry { value, version }),
                None => entries.remove(&at),
            };
        }
        Ok(true)
    }
}

impl KeyValue for Memory {
    fn get<'a>(
        &'a self,
        bucket: &'a str,
        keys: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, KeyValueError>> {
        let state = self.0.lock().unwrap();
        let one = |key| state.entries.get(&(bucket.to_owned(), key)).cloned();
        let entries = keys.into_iter().map(one).collect();
        async { Ok(entries) }.boxed()
    }

    fn apply<'a>(
        &'a self,
        bucket: &'a str,
        writes: Vec<Write>,
    ) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        let applied = self.apply(bucket, writes);
        async { applied }.boxed()
    }

    fn list<'a>(
        &'a self,
        bucket: &'a str,
        after: Option<String>,
    ) -> BoxFuture<'a, Result<Vec<String>, KeyValueError>> {
        let state = self.0.lock().unwrap();
        let from = match after {
            Some(after) => Bound::Excluded((bucket.to_owned(), after)),
            None => Bound::Included((bucket.to_owned(), String::new())),
        };
        let range = state.entries.range((from, Bound::Unbounded));
        let own = range.take_while(|((its, _), _)| its == bucket);
        let keys = own.take(PAGE).map(|((_, key), _)| key.clone()).collect();
        async { Ok(keys) }.boxed()
    }
}
