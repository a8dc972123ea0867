//! `wasi:keyvalue`, both drafts: what they share once, and what the second changed.

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType},
};

use super::bucket::{Bucket, Cas, Error, Pairs, open, opened};
use crate::{
    guest::Guest,
    interfaces::{KEY_VALUE_DRAFT, KEY_VALUE_DRAFT_2},
};

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

impl<C> KeyResponse<C> {
    fn of((keys, cursor): (Vec<String>, Option<C>)) -> Self {
        Self { keys, cursor }
    }
}

type Context<'a> = StoreContextMut<'a, Guest>;

pub(in crate::host) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let [store, atomics, batch] = KEY_VALUE_DRAFT;
    let mut instance = linker.instance(store)?;
    link_store(&mut instance)?;
    instance.func_wrap_async(
        "[method]bucket.list-keys",
        |guest: Context<'_>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            Box::new(async move {
                let page = opened(&guest, &bucket)?.list_from(cursor).await;
                Ok((page.map(KeyResponse::of),))
            })
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
            Box::new(async move {
                let page = opened(&guest, &bucket)?.list_after(cursor).await;
                Ok((page.map(KeyResponse::of),))
            })
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
        Ok((match open(guest, name) {
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
            let value = guest.data().table.get(&cas)?.current();
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
