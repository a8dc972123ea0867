//! What the host does for guests besides WASI: each interface in a file of its own, with one trait.
//!
//! A function's services come in once, when it is loaded, and all of its instances share them. A
//! guest must get nothing here that its manifest does not name.

use std::{collections::BTreeMap, sync::Arc};

use wasmtime::component::Linker;

use crate::guest::Guest;

mod config;
mod keyvalue;
mod logging;
mod scratch;

pub use config::Config;
pub use keyvalue::{
    Buckets, Entry, Expected, KeyValue, KeyValueError, MAX_BATCH, MAX_BATCH_BYTES, MAX_KEY_BYTES,
    MAX_VALUE_BYTES, PAGE, Write,
};
pub(crate) use logging::Log;
pub use logging::LogLevel;
pub(crate) use scratch::Directory;
pub use scratch::{Scratch, ScratchSpace};

/// What a function was given. Cheap to clone.
#[derive(Clone)]
pub struct HostServices {
    pub config: Arc<dyn Config>,
    /// None: it may open no bucket.
    pub key_value: Option<Buckets>,
    /// None: it has no directory.
    pub scratch: Option<Scratch>,
}

impl Default for HostServices {
    /// Nothing: every interface is there, and empty.
    fn default() -> Self {
        Self {
            config: Arc::new(BTreeMap::new()),
            key_value: None,
            scratch: None,
        }
    }
}

pub(crate) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    config::link(linker)?;
    keyvalue::link(linker)?;
    logging::link(linker)?;
    scratch::link(linker)
}
