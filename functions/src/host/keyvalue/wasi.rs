//! `wasi:keyvalue`, both drafts: what they share once, and what the second changed.

use std::str::FromStr;

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType},
};

use super::{
    Buckets, Entry, Expected, KeyValueError, MAX_BATCH, MAX_BATCH_BYTES, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, PAGE, Write,
};
use crate::{
    guest::Guest,
    interfaces::{KEY_VALUE_DRAFT, KEY_VALUE_DRAFT_2},
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
}

/// What a key had when it was looked at, for a swap.
pub struct Cas {
    bucket: Bucket,
    key: String,
    entry: Option<Entry>,
}

/// `store.error` of both drafts.
#[derive(Debug, PartialEq, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
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

/// `atomics.cas-error` of the second draft.
#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    Store(Error),
    #[component(name = "cas-failed")]
    Failed(Resource<Cas>),
}

/// `store.key-response`: the first draft counts, the second names the key to go on after.
#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse<C> {
    keys: Vec<String>,
    cursor: Option<C>,
}

type Context<'a> = StoreContextMut<'a, Guest>;
type Pairs = Vec<(String, Vec<u8>)>;

pub(in crate::host) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let [store, atomics, batch] = KEY_VALUE_DRAFT;
    let mut instance = linker.instance(store)?;
    link_store(&mut instance)?;
    instance.func_wrap_async(
        "[method]bucket.list-keys",
        |guest: Context<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            Box::new(async move { Ok((opened(&guest, &bucket)?.list_from(cursor).await,)) })
        },
    )?;
    let mut instance = linker.instance(atomics)?;
    instance.func_wrap_async(
        "increment",
        |guest: Context<'_>, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
            Box::new(async move {
                let bucket = opened(&guest, &bucket)?;
                Ok((bucket
                    .increment(key, |was: u64| was.checked_add(delta))
                    .await,))
            })
        },
    )?;
    let mut instance = linker.instance(batch)?;
    link_batch(&mut instance)?;
    instance.func_wrap_async(
        "get-many",
        |guest: Context<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move {
                let got = opened(&guest, &bucket)?.get_many(keys).await;
                // Of what is not there not even the key.
                let found = |(key, value): (String, Option<Vec<u8>>)| Some((key, value?));
                Ok((got.map(|all| all.into_iter().map(found).collect::<Vec<_>>()),))
            })
        },
    )?;

    let [store, atomics, batch] = KEY_VALUE_DRAFT_2;
    let mut instance = linker.instance(store)?;
    link_store(&mut instance)?;
    instance.func_wrap_async(
        "[method]bucket.list-keys",
        |guest: Context<'_>, (bucket, cursor): (Resource<Bucket>, Option<String>)| {
            Box::new(async move { Ok((opened(&guest, &bucket)?.list_after(cursor).await,)) })
        },
    )?;
    let mut instance = linker.instance(atomics)?;
    instance.func_wrap_async(
        "increment",
        |guest: Context<'_>, (bucket, key, delta): (Resource<Bucket>, String, i64)| {
            Box::new(async move {
                let bucket = opened(&guest, &bucket)?;
                Ok((bucket
                    .increment(key, |was: i64| was.checked_add(delta))
                    .await,))
            })
        },
    )?;
    link_cas(&mut instance)?;
    let mut instance = linker.instance(batch)?;
    link_batch(&mut instance)?;
    instance.func_wrap_async(
        "get-many",
        |guest: Context<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move { Ok((opened(&guest, &bucket)?.get_many(keys).await,)) })
        },
    )
}

/// What both drafts have in `store`.
fn link_store(store: &mut LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    store.resource(
        "bucket",
        ResourceType::host::<Bucket>(),
        |mut guest, bucket| {
            let bucket = Resource::<Bucket>::new_own(bucket);
            guest.data_mut().table.delete(bucket)?;
            Ok(())
        },
    )?;
    store.func_wrap("open", |mut guest: Context<'_>, (name,): (String,)| {
        let guest = guest.data_mut();
        Ok((match open(guest.services.key_value.as_ref(), name) {
            Ok(bucket) => Ok(guest.table.push(bucket)?),
            Err(error) => Err(error),
        },))
    })?;
    store.func_wrap_async(
        "[method]bucket.get",
        |guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let entry = opened(&guest, &bucket)?.entry(key).await;
                Ok((entry.map(|entry| entry.map(|entry| entry.value)),))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.set",
        |guest: Context<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(async move {
                let bucket = opened(&guest, &bucket)?;
                Ok((bucket.set_many(vec![(key, value)]).await,))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.delete",
        |guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { Ok((opened(&guest, &bucket)?.delete_many(vec![key]).await,)) })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.exists",
        |guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let entry = opened(&guest, &bucket)?.entry(key).await;
                Ok((entry.map(|entry| entry.is_some()),))
            })
        },
    )
}

/// What both drafts have in `batch`.
fn link_batch(batch: &mut LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    batch.func_wrap_async(
        "set-many",
        |guest: Context<'_>, (bucket, pairs): (Resource<Bucket>, Pairs)| {
            Box::new(async move { Ok((opened(&guest, &bucket)?.set_many(pairs).await,)) })
        },
    )?;
    batch.func_wrap_async(
        "delete-many",
        |guest: Context<'_>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move { Ok((opened(&guest, &bucket)?.delete_many(keys).await,)) })
        },
    )
}

/// Compare and swap, which only the second draft has.
fn link_cas(atomics: &mut LinkerInstance<'_, Guest>) -> wasmtime::Result<()> {
    atomics.resource("cas", ResourceType::host::<Cas>(), |mut guest, cas| {
        guest
            .data_mut()
            .table
            .delete(Resource::<Cas>::new_own(cas))?;
        Ok(())
    })?;
    atomics.func_wrap_async(
        "[static]cas.new",
        |mut guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let bucket = opened(&guest, &bucket)?;
                Ok((match bucket.look(key).await {
                    Ok(cas) => Ok(guest.data_mut().table.push(cas)?),
                    Err(error) => Err(error),
                },))
            })
        },
    )?;
    atomics.func_wrap(
        "[method]cas.current",
        |guest: Context<'_>, (cas,): (Resource<Cas>,)| {
            let entry = &guest.data().table.get(&cas)?.entry;
            let value = entry.as_ref().map(|entry| entry.value.clone());
            Ok((Ok::<_, Error>(value),))
        },
    )?;
    atomics.func_wrap_async(
        "swap",
        |mut guest: Context<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
            Box::new(async move {
                let cas = guest.data_mut().table.delete(cas)?;
                Ok((match cas.swap(value).await {
                    Ok(None) => Ok(()),
                    Ok(Some(now)) => Err(CasError::Failed(guest.data_mut().table.push(now)?)),
                    Err(error) => Err(CasError::Store(error)),
                },))
            })
        },
    )
}

fn open(buckets: Option<&Buckets>, name: String) -> Result<Bucket, Error> {
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
    })
}

/// A copy: what waits for a store holds on to nothing of the guest.
fn opened(guest: &Context<'_>, bucket: &Resource<Bucket>) -> wasmtime::Result<Bucket> {
    Ok(guest.data().table.get(bucket)?.clone())
}

impl Bucket {
    async fn entry(&self, key: String) -> Result<Option<Entry>, Error> {
        checked(&key)?;
        let entries = self.buckets.store.get(&self.name, vec![key]).await?;
        Ok(entries.into_iter().next().flatten())
    }

    async fn get_many(&self, keys: Vec<String>) -> Result<Vec<(String, Option<Vec<u8>>)>, Error> {
        few_enough(keys.len())?;
        keys.iter().try_for_each(|key| checked(key))?;
        let entries = self.buckets.store.get(&self.name, keys.clone()).await?;
        let values = entries.into_iter().map(|entry| Some(entry?.value));
        Ok(keys.into_iter().zip(values).collect())
    }

    async fn set_many(&self, pairs: Pairs) -> Result<(), Error> {
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
        self.buckets.store.apply(&self.name, writes).await?;
        Ok(())
    }

    async fn delete_many(&self, keys: Vec<String>) -> Result<(), Error> {
        few_enough(keys.len())?;
        keys.iter().try_for_each(|key| checked(key))?;
        let writes = keys.into_iter().map(|key| Write {
            key,
            value: None,
            expected: None,
        });
        let writes = writes.collect();
        self.buckets.store.apply(&self.name, writes).await?;
        Ok(())
    }

    /// Numbers are kept as decimal digits: what other stores do, and what people can read.
    async fn increment<N: FromStr + ToString + Default>(
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
            if self.buckets.store.apply(&self.name, vec![write]).await? {
                return Ok(sum);
            }
        }
        Err(Error::Other(format!("{key:?} is changed by too many")))
    }

    async fn list_after(&self, after: Option<String>) -> Result<KeyResponse<String>, Error> {
        let keys = self.buckets.store.list(&self.name, after).await?;
        // One page too many is an empty one.
        let cursor = keys.last().filter(|_| keys.len() == PAGE).cloned();
        Ok(KeyResponse { keys, cursor })
    }

    /// A cursor of the first draft has room for a count only: so many keys came before.
    async fn list_from(&self, cursor: Option<u64>) -> Result<KeyResponse<u64>, Error> {
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
                return Ok(KeyResponse { keys, cursor });
            }
            after = last;
        }
    }

    async fn look(self, key: String) -> Result<Cas, Error> {
        let entry = self.entry(key.clone()).await?;
        Ok(Cas {
            bucket: self,
            key,
            entry,
        })
    }
}

impl Cas {
    /// What is there now, where that is something else than when it was looked at.
    async fn swap(self, value: Vec<u8>) -> Result<Option<Self>, Error> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(KeyValueError::TooMuch.into());
        }
        let write = Write {
            key: self.key.clone(),
            value: Some(value),
            expected: Some(Expected::of(self.entry.as_ref())),
        };
        let Bucket { name, buckets } = &self.bucket;
        if buckets.store.apply(name, vec![write]).await? {
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
