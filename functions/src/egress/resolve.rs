//! What addresses a name stands for.
//!
//! One lookup a connection, whose result is judged and then dialled: nobody looks the name up a
//! second time, when it may stand for something else.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

/// Lookups of functions at once. Each blocks a thread for as long as name servers are silent, and an agent has
/// eight such threads, which also load functions.
const LOOKUPS: usize = 4;

/// Looks names up. The system's resolver does it unless a test has another.
pub trait Resolve: Send + Sync {
    /// The addresses of `name`, in the order in which they should be tried.
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// What the machine itself knows of names.
pub struct SystemResolver {
    lookups: Arc<Semaphore>,
}

impl SystemResolver {
    /// Looks up so many names at once; others wait.
    pub fn up_to(lookups: usize) -> Self {
        Self {
            lookups: Arc::new(Semaphore::new(lookups)),
        }
    }
}

impl Default for SystemResolver {
    fn default() -> Self {
        Self::up_to(LOOKUPS)
    }
}

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let (lookups, name) = (self.lookups.clone(), name.to_owned());
        Box::pin(async move {
            let lookup = lookups.acquire_owned().await.map_err(io::Error::other)?;
            tokio::task::spawn_blocking(move || {
                // Nothing ends a lookup early: its place is taken until it ends by itself, also
                // when nobody waits for it any more.
                let _lookup = lookup;
                let found = (name.as_str(), 0).to_socket_addrs()?;
                Ok(found.map(|address| address.ip()).collect())
            })
            .await
            .map_err(io::Error::other)?
        })
    }
}
