//! A function's machine code: mapped while somebody asks for it, given back when nobody has for a while.
//!
//! A verified artifact comes in, what instances are made from goes out. A function that is idle costs a node
//! next to nothing, and its next request the time to hash and map a file. Nothing is ever mapped
//! that was not hashed just before.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use wasmtime::Engine;
use wasmtime_wasi_http::handler::ProxyPre;

use crate::{
    artifact::{VerifiedArtifact, VerifyError},
    engines::Linked,
    guest::Guest,
    runtime::LoadError,
};

/// What instances are made from.
pub(crate) type Proxy = ProxyPre<Guest>;

pub(crate) struct Code {
    artifact: VerifiedArtifact,
    /// Where it fits: each time it is mapped.
    linked: Arc<Linked>,
    is_0_2: bool,
    mapped: RwLock<Option<Arc<Proxy>>>,
    /// Held by the request that maps it; those that come meanwhile wait for that one.
    mapping: tokio::sync::Mutex<()>,
    made: Instant,
    /// When it was last asked for: milliseconds since `made`.
    asked: AtomicU64,
}

/// Why code that was mapped before is not to be had again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MapError {
    #[error(transparent)]
    Artifact(#[from] VerifyError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("mapping it failed in the agent: {0}")]
    Panic(#[from] tokio::task::JoinError),
}

impl Code {
    pub(crate) fn new(artifact: VerifiedArtifact, linked: Arc<Linked>, proxy: Proxy) -> Self {
        Self {
            artifact,
            linked,
            is_0_2: matches!(proxy, ProxyPre::P2(_)),
            mapped: RwLock::new(Some(Arc::new(proxy))),
            mapping: tokio::sync::Mutex::default(),
            made: Instant::now(),
            asked: AtomicU64::new(0),
        }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.linked.engine
    }

    /// Of WASI 0.2, not of 0.3.
    pub(crate) fn is_0_2(&self) -> bool {
        self.is_0_2
    }

    /// What to make an instance from, and whether it had to be mapped for this. It stays mapped for as
    /// long as what is returned lives.
    pub(crate) async fn proxy(&self, now: Instant) -> Result<(Arc<Proxy>, bool), MapError> {
        self.asked.store(self.millis(now), Ordering::Relaxed);
        if let Some(proxy) = self.mapped() {
            return Ok((proxy, false));
        }
        let _mapping = self.mapping.lock().await;
        if let Some(proxy) = self.mapped() {
            return Ok((proxy, false));
        }
        let (linked, artifact) = (self.linked.clone(), self.artifact.clone());
        let mapping = tokio::task::spawn_blocking(move || {
            artifact.verify_again()?;
            Ok::<_, MapError>(linked.prepare(&linked.map(&artifact)?)?)
        });
        let proxy = Arc::new(mapping.await??);
        *self.mapped.write().unwrap_or_else(PoisonError::into_inner) = Some(proxy.clone());
        Ok((proxy, true))
    }

    fn mapped(&self) -> Option<Arc<Proxy>> {
        let mapped = self.mapped.read().unwrap_or_else(PoisonError::into_inner);
        mapped.clone()
    }

    /// Gives it back if nobody asked for it for `idle` and nobody uses it. Blocks while it is unmapped.
    pub(crate) fn unmap(&self, idle: Duration) -> bool {
        let unused = {
            let mut mapped = self.mapped.write().unwrap_or_else(PoisonError::into_inner);
            let asked = Duration::from_millis(self.asked.load(Ordering::Relaxed));
            let is_idle = self.made.elapsed().saturating_sub(asked) >= idle;
            // Whoever comes now waits for the lock, and then maps it anew.
            mapped.take_if(|proxy| is_idle && Arc::strong_count(proxy) == 1)
        };
        unused.is_some()
    }

    fn millis(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.made);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
