//! Spin's own `key-value`, of its two generations: the same buckets, by fewer calls.

use wasmtime::{
    StoreContextMut,
    component::{
        Accessor, ComponentType, FutureReader, Lift, Linker, Lower, Resource, ResourceType,
        StreamReader,
    },
};

use super::bucket::{self, Bucket, open, opened};
use crate::{
    guest::Guest,
    interfaces::{SPIN_KEY_VALUE, SPIN_KEY_VALUE_3},
};

/// `key-value.error` of both.
#[derive(Debug, ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    /// Never returned: open stores are handles, which have a limit of their own.
    #[component(name = "store-table-full")]
    #[allow(dead_code, reason = "it is part of the type")]
    StoreTableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<bucket::Error> for Error {
    fn from(error: bucket::Error) -> Self {
        match error {
            bucket::Error::NoSuchStore => Self::NoSuchStore,
            bucket::Error::AccessDenied => Self::AccessDenied,
            bucket::Error::Other(why) => Self::Other(why),
        }
    }
}

type Context<'a> = StoreContextMut<'a, Guest>;
type Opened = Result<Resource<Bucket>, Error>;

pub(in crate::host) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    link_2(linker)?;
    link_3(linker)
}

fn closed(mut guest: Context<'_>, bucket: u32) -> wasmtime::Result<()> {
    let bucket = Resource::<Bucket>::new_own(bucket);
    guest.data_mut().table.delete(bucket)?;
    Ok(())
}

fn open_by(guest: &mut Guest, label: String) -> wasmtime::Result<Opened> {
    Ok(match open(guest, label) {
        Ok(bucket) => Ok(guest.table.push(bucket)?),
        Err(error) => Err(error.into()),
    })
}

/// An answer, with an error in Spin's words.
fn told<T>(outcome: Result<T, bucket::Error>) -> wasmtime::Result<(Result<T, Error>,)> {
    Ok((outcome.map_err(Error::from),))
}

fn link_2(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut stores = linker.instance(SPIN_KEY_VALUE)?;
    stores.resource("store", ResourceType::host::<Bucket>(), closed)?;
    stores.func_wrap(
        "[static]store.open",
        |mut guest: Context<'_>, (label,): (String,)| Ok((open_by(guest.data_mut(), label)?,)),
    )?;
    stores.func_wrap_async(
        "[method]store.get",
        |guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let entry = opened(&guest, &bucket)?.entry(key).await;
                told(entry.map(|entry| entry.map(|entry| entry.value)))
            })
        },
    )?;
    stores.func_wrap_async(
        "[method]store.set",
        |guest: Context<'_>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(async move {
                let bucket = opened(&guest, &bucket)?;
                told(bucket.set_many(vec![(key, value)]).await)
            })
        },
    )?;
    stores.func_wrap_async(
        "[method]store.delete",
        |guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move { told(opened(&guest, &bucket)?.delete_many(vec![key]).await) })
        },
    )?;
    stores.func_wrap_async(
        "[method]store.exists",
        |guest: Context<'_>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let entry = opened(&guest, &bucket)?.entry(key).await;
                told(entry.map(|entry| entry.is_some()))
            })
        },
    )?;
    stores.func_wrap_async(
        "[method]store.get-keys",
        |guest: Context<'_>, (bucket,): (Resource<Bucket>,)| {
            Box::new(async move { told(opened(&guest, &bucket)?.list_all().await) })
        },
    )
}

/// As `opened`, for calls that others may be made beside.
fn shared(guests: &Accessor<Guest>, bucket: &Resource<Bucket>) -> wasmtime::Result<Bucket> {
    guests.with(|mut guest| Ok(guest.data_mut().table.get(bucket)?.clone()))
}

type Keys = (StreamReader<String>, FutureReader<Result<(), Error>>);

fn link_3(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut stores = linker.instance(SPIN_KEY_VALUE_3)?;
    stores.resource("store", ResourceType::host::<Bucket>(), closed)?;
    stores.func_wrap_concurrent(
        "[static]store.open",
        |guests: &Accessor<Guest>, (label,): (String,)| {
            Box::pin(async move {
                let opened = guests.with(|mut guest| open_by(guest.data_mut(), label));
                Ok((opened?,))
            })
        },
    )?;
    stores.func_wrap_concurrent(
        "[method]store.get",
        |guests: &Accessor<Guest>, (bucket, key): (Resource<Bucket>, String)| {
            Box::pin(async move {
                let entry = shared(guests, &bucket)?.entry(key).await;
                told(entry.map(|entry| entry.map(|entry| entry.value)))
            })
        },
    )?;
    stores.func_wrap_concurrent(
        "[method]store.set",
        |guests: &Accessor<Guest>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::pin(async move {
                let bucket = shared(guests, &bucket)?;
                told(bucket.set_many(vec![(key, value)]).await)
            })
        },
    )?;
    stores.func_wrap_concurrent(
        "[method]store.delete",
        |guests: &Accessor<Guest>, (bucket, key): (Resource<Bucket>, String)| {
            Box::pin(async move { told(shared(guests, &bucket)?.delete_many(vec![key]).await) })
        },
    )?;
    stores.func_wrap_concurrent(
        "[method]store.exists",
        |guests: &Accessor<Guest>, (bucket, key): (Resource<Bucket>, String)| {
            Box::pin(async move {
                let entry = shared(guests, &bucket)?.entry(key).await;
                told(entry.map(|entry| entry.is_some()))
            })
        },
    )?;
    stores.func_wrap_concurrent(
        "[method]store.get-keys",
        |guests: &Accessor<Guest>, (bucket,): (Resource<Bucket>,)| {
            Box::pin(async move {
                let (keys, outcome) = match shared(guests, &bucket)?.list_all().await {
                    Ok(keys) => (keys, Ok(())),
                    Err(error) => (Vec::new(), Err(Error::from(error))),
                };
                guests.with(|mut guest| -> wasmtime::Result<(Keys,)> {
                    let keys = StreamReader::new(&mut guest, keys)?;
                    let outcome = async { wasmtime::error::Ok(outcome) };
                    Ok(((keys, FutureReader::new(&mut guest, outcome)?),))
                })
            })
        },
    )
}
