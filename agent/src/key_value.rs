//! What functions keep on this node by `wasi:keyvalue`.
//!
//! One file holds it for all of them. It is opened when the first function that may use it is loaded, so
//! a node without such functions has neither file nor threads. What one function keeps no other one
//! must ever see, and what nobody has wanted for long goes.

mod retention;
mod store;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use hive_functions::{Buckets, Entry, KeyValue, KeyValueError, Write};
use hive_proto::v1;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::desired::DesiredSet;
use store::{Place, Store};

const FILE: &str = "keyvalue.redb";

/// How often data is looked for that nobody wants. It is kept for days, and an agent that has just
/// started has better things to do.
const TEND: Duration = Duration::from_secs(10 * 60);

/// The stores of all functions. A clone is the same.
#[derive(Clone)]
pub struct KeyValues(Arc<Shared>);

struct Shared {
    path: PathBuf,
    store: Mutex<Option<Store>>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot use {}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} is damaged ({what}): move it away, and functions start with empty stores", .path.display()
    )]
    Damaged { path: PathBuf, what: String },
}

impl KeyValues {
    pub fn in_dir(dir: PathBuf) -> Self {
        Self(Arc::new(Shared {
            path: dir.join(FILE),
            store: Mutex::new(None),
        }))
    }

    /// What a function was given. Opens the file if nobody has yet, and reads it whole: blocks.
    pub fn given(&self, given: &v1::KeyValue) -> Result<Buckets, OpenError> {
        Ok(Buckets {
            names: given.stores.clone().into(),
            store: Arc::new(OfFunction {
                store: self.open()?,
                function: given.function_uid.as_str().into(),
                quota: given.size_limit,
            }),
        })
    }

    /// Removes what no assignment has named for long, until `stop`.
    pub async fn tend(self, desired: watch::Receiver<Arc<DesiredSet>>, stop: CancellationToken) {
        let mut often = tokio::time::interval_at(Instant::now() + TEND, TEND);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = often.tick() => {}
            }
            let wanted = wanted(&desired.borrow());
            if let Err(error) = self.tend_once(wanted).await {
                tracing::warn!(%error, "could not look for stores that nobody wants");
            }
        }
    }

    async fn tend_once(&self, wanted: BTreeSet<String>) -> anyhow::Result<()> {
        let own = self.clone();
        let open = move || -> anyhow::Result<Option<Store>> {
            // Nothing was ever kept: nothing is to be made.
            Ok(match own.0.path.try_exists()? {
                true => Some(own.open()?),
                false => None,
            })
        };
        if let Some(store) = tokio::task::spawn_blocking(open).await?? {
            let removed = store.retain(wanted, now()).await?;
            if !removed.is_empty() {
                tracing::info!(functions = ?removed, "removed stores that nobody wanted");
            }
        }
        Ok(())
    }

    fn open(&self) -> Result<Store, OpenError> {
        // What is in it is whole between any two statements.
        let mut store = self.0.store.lock().unwrap_or_else(PoisonError::into_inner);
        match &*store {
            Some(store) => Ok(store.clone()),
            None => Ok(store.insert(Store::open(&self.0.path)?).clone()),
        }
    }
}

fn wanted(desired: &DesiredSet) -> BTreeSet<String> {
    let assignments = desired.assignments.iter();
    let given = assignments.filter_map(|it| it.assignment().key_value.as_ref());
    given.map(|given| given.function_uid.clone()).collect()
}

/// Seconds.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

/// What one function keeps.
struct OfFunction {
    store: Store,
    function: Arc<str>,
    /// Bytes.
    quota: u64,
}

impl OfFunction {
    fn place(&self, bucket: &str) -> Place {
        Place {
            function: self.function.clone(),
            bucket: bucket.to_owned(),
        }
    }
}

impl KeyValue for OfFunction {
    fn get<'a>(
        &'a self,
        bucket: &'a str,
        keys: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, KeyValueError>> {
        self.store.get(self.place(bucket), keys).boxed()
    }

    fn apply<'a>(
        &'a self,
        bucket: &'a str,
        writes: Vec<Write>,
    ) -> BoxFuture<'a, Result<bool, KeyValueError>> {
        let place = self.place(bucket);
        self.store.apply(place, self.quota, writes, now()).boxed()
    }

    fn list<'a>(
        &'a self,
        bucket: &'a str,
        after: Option<String>,
    ) -> BoxFuture<'a, Result<Vec<String>, KeyValueError>> {
        self.store.list(self.place(bucket), after).boxed()
    }
}

#[cfg(test)]
mod tests;
