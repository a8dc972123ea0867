//! Buckets of keys and values: what guests ask of them, whoever keeps them.
//!
//! Calls of both drafts of `wasi:keyvalue` and of Spin's own interfaces come in and are asked of a [`KeyValue`]. A guest must reach
//! no bucket that its function does not name, and nothing that it says may cost more than the bounds
//! below.

use std::sync::Arc;

use futures::future::BoxFuture;
use wasmtime::component::Linker;

use crate::guest::Guest;

mod bucket;
mod spin;
mod wasi;

pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasi::link(linker)?;
    spin::link(linker)
}

/// Longer keys are values in the wrong place.
pub const MAX_KEY_BYTES: usize = 1024;

/// One value, read or written whole, in the memory of guest and host.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Of one call for many keys, and what its values have together: a request's worst cost on the host.
pub const MAX_BATCH: usize = 1000;
pub const MAX_BATCH_BYTES: usize = 4 << 20;

/// Keys in one answer of a list: with the longest keys they have a megabyte.
pub const PAGE: usize = 1000;

/// The buckets of one function. Every call is one step: nobody sees half of it, and what was written
/// is durable when the call is answered.
pub trait KeyValue: Send + Sync {
    /// The entries of `keys`, in their order. At most [`MAX_BATCH`] keys; values of more than
    /// [`MAX_BATCH_BYTES`] together are [`KeyValueError::TooMuch`].
    fn get<'a>(
        &'a self,
        bucket: &'a str,
        keys: Vec<String>,
    ) -> BoxFuture<'a, Result<Vec<Option<Entry>>, KeyValueError>>;

    /// All of `writes`, or none of them: false where an entry is not as a write expects it.
    fn apply<'a>(
        &'a self,
        bucket: &'a str,
        writes: Vec<Write>,
    ) -> BoxFuture<'a, Result<bool, KeyValueError>>;

    /// Keys in their order, those after `after`, at most [`PAGE`].
    fn list<'a>(
        &'a self,
        bucket: &'a str,
        after: Option<String>,
    ) -> BoxFuture<'a, Result<Vec<String>, KeyValueError>>;
}

/// A value, and which of the values that its key has had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub value: Vec<u8>,
    /// No other value of this key ever has the same.
    pub version: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub key: String,
    /// None removes the entry.
    pub value: Option<Vec<u8>>,
    /// Whatever is there, if it says nothing.
    pub expected: Option<Expected>,
}

/// What must be under a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Nothing,
    Version(u64),
}

impl Expected {
    pub fn of(entry: Option<&Entry>) -> Self {
        entry.map_or(Self::Nothing, |entry| Self::Version(entry.version))
    }
}

/// Why a store did not do what it was asked. Guests are told in these words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    #[error("the quota of {0} bytes is reached: raise spec.keyValue.sizeLimit, or remove entries")]
    Quota(u64),
    #[error("the disk of the node is full")]
    DiskFull,
    #[error("more than {MAX_BATCH_BYTES} bytes in one call")]
    TooMuch,
    #[error("the node cannot use its store: {0}")]
    Store(String),
}

/// What a function was given: the names that it may open, and who keeps what is in them.
#[derive(Clone)]
pub struct Buckets {
    pub names: Arc<[String]>,
    pub store: Arc<dyn KeyValue>,
}
