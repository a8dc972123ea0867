//! A bucket that a guest has opened: what its calls come to, whichever interface they came by.
//!
//! Keys, values and numbers are checked here, before a store sees them.

use std::{
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Lower, Resource},
};

use super::{
    Buckets, Entry, Expected, KeyValueError, MAX_BATCH, MAX_BATCH_BYTES, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, PAGE, Write,
};
use crate::{
    guest::Guest,
    logs::{LogEvent, RequestLog},
};

/// What an empty name means: the drafts leave it to the host, and this is Spin's word.
const DEFAULT_BUCKET: &str = "default";

/// An increment gives up when others came first so often: each of them got through.
const TRIES: usize = 1000;

/// An open bucket.
#[derive(Clone)]
pub struct Bucket {
    name: String,
    buckets: Buckets,
    log: RequestLog,
    /// Whether the log has it already: who goes on writing must not fill it.
    is_told: Arc<AtomicBool>,
}

/// What a key had when it was looked at, for a swap.
pub struct Cas {
    bucket: Bucket,
    key: String,
    entry: Option<Entry>,
}

/// Why a call was refused: `store.error` of both drafts of `wasi:keyvalue`.
#[derive(Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
pub(super) enum Error {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<KeyValueError> for Error {
    fn from(error: KeyValueError) -> Self {
        Self::Other(error.to_string())
    }
}

pub(super) type Pairs = Vec<(String, Vec<u8>)>;

pub(super) fn open(guest: &Guest, name: String) -> Result<Bucket, Error> {
    let buckets = guest.services.key_value.as_ref();
    let buckets = buckets.ok_or(Error::AccessDenied)?;
    let name = if name.is_empty() {
        DEFAULT_BUCKET.to_owned()
    } else {
        name
    };
    if !buckets.names.contains(&name) {
        return Err(Error::NoSuchStore);
    }
    Ok(Bucket {
        name,
        buckets: buckets.clone(),
        log: guest.log().clone(),
        is_told: Arc::default(),
    })
}

/// A copy: what waits for a store holds on to nothing of the guest.
pub(super) fn opened(
    guest: &StoreContextMut<'_, Guest>,
    bucket: &Resource<Bucket>,
) -> wasmtime::Result<Bucket> {
    Ok(guest.data().table.get(bucket)?.clone())
}

impl Bucket {
    pub async fn entry(&self, key: String) -> Result<Option<Entry>, Error> {
        checked(&key)?;
        let entries = self.buckets.store.get(&self.name, vec![key]).await?;
        Ok(entries.into_iter().next().flatten())
    }

    pub async fn get_many(
        &self,
        keys: Vec<String>,
    ) -> Result<Vec<(String, Option<Vec<u8>>)>, Error> {
        few_enough(keys.len())?;
        keys.iter().try_for_each(|key| checked(key))?;
        let entries = self.buckets.store.get(&self.name, keys.clone()).await?;
        let values = entries.into_iter().map(|entry| Some(entry?.value));
        Ok(keys.into_iter().zip(values).collect())
    }

    /// A full disk is for who looks after the node to know of, too.
    async fn apply(&self, writes: Vec<Write>) -> Result<bool, Error> {
        let applied = self.buckets.store.apply(&self.name, writes).await;
        if applied == Err(KeyValueError::DiskFull) && !self.is_told.swap(true, Ordering::Relaxed) {
            let (reason, message) = ("DiskFull", KeyValueError::DiskFull.to_string());
            let text = format!("{reason}: bucket {:?}: {message}", self.name);
            self.log.event(text, LogEvent { reason, message });
        }
        Ok(applied?)
    }

    pub async fn set_many(&self, pairs: Pairs) -> Result<(), Error> {
        few_enough(pairs.len())?;
        let mut bytes = 0;
        for (key, value) in &pairs {
            checked(key)?;
            if value.len() > MAX_VALUE_BYTES {
                return Err(Error::Other(format!(
                    "the value of {key:?} has {} bytes, and {MAX_VALUE_BYTES} is the most",
                    value.len()
                )));
            }
            bytes += value.len();
        }
        if bytes > MAX_BATCH_BYTES {
            return Err(KeyValueError::TooMuch.into());
        }
        let writes = pairs.into_iter().map(|(key, value)| Write {
            key,
            value: Some(value),
            expected: None,
        });
        let writes = writes.collect();
        self.apply(writes).await?;
        Ok(())
    }

    pub async fn delete_many(&self, keys: Vec<String>) -> Result<(), Error> {
        few_enough(keys.len())?;
        keys.iter().try_for_each(|key| checked(key))?;
        let writes = keys.into_iter().map(|key| Write {
            key,
            value: None,
            expected: None,
        });
        let writes = writes.collect();
        self.apply(writes).await?;
        Ok(())
    }

    /// Numbers are kept as decimal digits: what other stores do, and what people can read.
    pub async fn increment<N: FromStr + ToString + Default>(
        &self,
        key: String,
        add: impl Fn(N) -> Option<N>,
    ) -> Result<N, Error> {
        for _ in 0..TRIES {
            let entry = self.entry(key.clone()).await?;
            let was = match &entry {
                None => N::default(),
                Some(entry) => number(&entry.value)
                    .ok_or_else(|| Error::Other(format!("{key:?} holds no number that fits")))?,
            };
            let sum = add(was)
                .ok_or_else(|| Error::Other(format!("{key:?} would be no number that fits")))?;
            let write = Write {
                key: key.clone(),
                value: Some(sum.to_string().into_bytes()),
                expected: Some(Expected::of(entry.as_ref())),
            };
            if self.apply(vec![write]).await? {
                return Ok(sum);
            }
        }
        Err(Error::Other(format!("{key:?} is changed by too many")))
    }

    /// A page of keys, and the one to go on after.
    pub async fn list_after(
        &self,
        after: Option<String>,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let keys = self.buckets.store.list(&self.name, after).await?;
        // One page too many is an empty one.
        let cursor = keys.last().filter(|_| keys.len() == PAGE).cloned();
        Ok((keys, cursor))
    }

    /// All keys, where they are no more than one call may have.
    pub async fn list_all(&self) -> Result<Vec<String>, Error> {
        let (mut all, mut bytes, mut after) = (Vec::new(), 0, None);
        loop {
            let (keys, cursor) = self.list_after(after).await?;
            bytes += keys.iter().map(String::len).sum::<usize>();
            if bytes > MAX_BATCH_BYTES {
                return Err(KeyValueError::TooMuch.into());
            }
            all.extend(keys);
            match cursor {
                None => return Ok(all),
                after_all => after = after_all,
            }
        }
    }

    /// A page of keys, when so many came before, and how many have then: a cursor of the first draft has
    /// room for no more.
    pub async fn list_from(
        &self,
        cursor: Option<u64>,
    ) -> Result<(Vec<String>, Option<u64>), Error> {
        let start = cursor.unwrap_or(0);
        let (mut before, mut after) = (0, None);
        loop {
            let mut keys = self.buckets.store.list(&self.name, after).await?;
            let (found, last) = (keys.len(), keys.last().cloned());
            let skipped = usize::try_from(start - before).map_or(found, |it| it.min(found));
            before += skipped as u64;
            if skipped < found || found < PAGE {
                keys.drain(..skipped);
                let cursor = (found == PAGE).then_some(before + keys.len() as u64);
                return Ok((keys, cursor));
            }
            after = last;
        }
    }

    pub async fn look(self, key: String) -> Result<Cas, Error> {
        let entry = self.entry(key.clone()).await?;
        Ok(Cas {
            bucket: self,
            key,
            entry,
        })
    }
}

impl Cas {
    pub fn current(&self) -> Option<Vec<u8>> {
        self.entry.as_ref().map(|entry| entry.value.clone())
    }

    /// What is there now, where that is something else than when it was looked at.
    pub async fn swap(self, value: Vec<u8>) -> Result<Option<Self>, Error> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(KeyValueError::TooMuch.into());
        }
        let write = Write {
            key: self.key.clone(),
            value: Some(value),
            expected: Some(Expected::of(self.entry.as_ref())),
        };
        if self.bucket.apply(vec![write]).await? {
            return Ok(None);
        }
        Ok(Some(self.bucket.look(self.key).await?))
    }
}

fn checked(key: &str) -> Result<(), Error> {
    if (1..=MAX_KEY_BYTES).contains(&key.len()) {
        return Ok(());
    }
    Err(Error::Other(format!(
        "a key has 1 to {MAX_KEY_BYTES} bytes, not {}",
        key.len()
    )))
}

fn few_enough(keys: usize) -> Result<(), Error> {
    if keys <= MAX_BATCH {
        return Ok(());
    }
    Err(Error::Other(format!(
        "{keys} keys in one call, and {MAX_BATCH} is the most"
    )))
}

fn number<N: FromStr>(value: &[u8]) -> Option<N> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
