//! Tokio, with threads for what blocks.

use std::{io, thread};

use ring::rand::{SecureRandom, SystemRandom};

pub use openraft::impls::TokioRuntime as Runtime;
#[cfg(not(test))]
pub use tokio::time::{Instant, sleep, timeout, timeout_at};

/// Random bytes for keys and nonces.
pub fn fill_random(into: &mut [u8]) {
    SystemRandom::new()
        .fill(into)
        .expect("the system's random source works");
}

pub fn spawn(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

/// Runs what blocks where it delays no task.
///
/// # Errors
/// When it panicked, or the runtime is ending.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)
}

/// Runs a task that blocks a lot in a thread of its own. It may wait for channels, but has no timers.
pub fn dedicated(name: &str, task: impl Future<Output = ()> + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.into())
        .spawn(move || futures::executor::block_on(task))?;
    Ok(())
}
