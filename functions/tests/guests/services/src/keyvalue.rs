//! Buckets, by both drafts of `wasi:keyvalue`.

use crate::{
    Outcome,
    bindings::wasi::{keyvalue0_2_0_draft as first, keyvalue0_2_0_draft2 as second},
    query::{BadParameter, Query},
};

/// What the drafts have alike, by the bindings of one of them.
macro_rules! done_by {
    ($name:ident, $draft:ident, $number:ty, $cursor:ident, $pair:ident) => {
        pub fn $name(what: &str, query: &Query) -> Result<Outcome, BadParameter> {
            use $draft::{atomics::increment, batch, store};

            let bucket = match store::open(&query.text("bucket").unwrap_or_default()) {
                Ok(bucket) => bucket,
                Err(error) => return Ok(Err(error.to_string())),
            };
            let key = || query.required("key");
            let keys: Vec<_> = query.texts("key").collect();
            let outcome = match what {
                "get" => bucket.get(&key()?).map(shown),
                "set" => bucket.set(&key()?, &value(query)?).map(done),
                "delete" => bucket.delete(&key()?).map(done),
                "exists" => bucket.exists(&key()?).map(|is| is.to_string()),
                "list" => bucket
                    .list_keys($cursor(query)?)
                    .map(|page| listed(&page.keys, page.cursor)),
                "increment" => {
                    let delta: $number = query.number("delta", 1)?;
                    increment(&bucket, &key()?, delta).map(|sum| sum.to_string())
                }
                "get-many" => batch::get_many(&bucket, &keys).map(|got| {
                    let pairs: Vec<_> = got.into_iter().map($pair).collect();
                    pairs.join(",")
                }),
                "set-many" => {
                    let value = value(query)?;
                    let pairs: Vec<_> = keys.into_iter().map(|key| (key, value.clone())).collect();
                    batch::set_many(&bucket, &pairs).map(done)
                }
                "delete-many" => batch::delete_many(&bucket, &keys).map(done),
                what => return Err(BadParameter(format!("{what} is nothing to do"))),
            };
            Ok(outcome.map_err(|error| error.to_string()))
        }
    };
}

done_by!(by_first, first, u64, counted, pair);
done_by!(by_second, second, i64, named, pair_of_second);

/// Compares and swaps, with another write in between where one is asked for.
pub fn swap(query: &Query) -> Result<Outcome, BadParameter> {
    use second::{
        atomics::{Cas, CasError, swap},
        store,
    };

    let (key, value) = (query.required("key")?, value(query)?);
    let meddle = query.text("meddle");
    let swapped = || {
        let bucket = store::open("")?;
        let cas = Cas::new(&bucket, &key)?;
        let before = shown(cas.current()?);
        if let Some(other) = &meddle {
            bucket.set(&key, other.as_bytes())?;
        }
        match swap(cas, &value) {
            Ok(()) => Ok(format!("swapped {before}")),
            Err(CasError::StoreError(error)) => Err(error),
            Err(CasError::CasFailed(cas)) => {
                let now = shown(cas.current()?);
                match swap(cas, &value) {
                    Ok(()) => Ok(format!("failed at {now}, then swapped")),
                    Err(_) => Ok(format!("failed at {now}, and again")),
                }
            }
        }
    };
    Ok(swapped().map_err(|error: store::Error| error.to_string()))
}

/// The value of the query, or so many bytes of one.
pub fn value(query: &Query) -> Result<Vec<u8>, BadParameter> {
    match query.parsed("bytes")? {
        Some(bytes) => Ok(vec![b'x'; bytes]),
        None => Ok(query.required("value")?.into_bytes()),
    }
}

fn counted(query: &Query) -> Result<Option<u64>, BadParameter> {
    query.parsed("cursor")
}

fn named(query: &Query) -> Result<Option<&'static str>, BadParameter> {
    // The guest lives as long as its request.
    Ok(query.text("cursor").map(|cursor| &*cursor.leak()))
}

pub fn done((): ()) -> String {
    "done".to_owned()
}

pub fn shown(value: Option<Vec<u8>>) -> String {
    match value {
        None => "nothing".to_owned(),
        Some(value) if value.len() > 64 => format!("{} bytes", value.len()),
        Some(value) => String::from_utf8_lossy(&value).into_owned(),
    }
}

fn listed(keys: &[String], cursor: Option<impl std::fmt::Display>) -> String {
    let cursor = cursor.map_or("the end".to_owned(), |cursor| cursor.to_string());
    let few = if keys.len() > 8 { &[] } else { keys };
    format!("{} keys {} to {cursor}", keys.len(), few.join(","))
}

fn pair(pair: Option<(String, Vec<u8>)>) -> String {
    pair.map_or("nothing".to_owned(), |(key, value)| {
        format!("{key}={}", shown(Some(value)))
    })
}

fn pair_of_second((key, value): (String, Option<Vec<u8>>)) -> String {
    format!("{key}={}", shown(value))
}
