//! The engine of this node's functions, started for the first of them: a node that runs none doesn't pay for it.

use std::sync::{Arc, Mutex, PoisonError};

use hive_functions::{Runtime, RuntimeOptions, StartError};
use tokio::sync::Notify;

/// What the agent itself takes beside its functions' memory: some 15 MB at rest, the rest is for
/// what a hundred requests under way have in its buffers. Bytes.
pub const OWN_MEMORY: u64 = 32 << 20;

/// Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct LazyRuntime {
    cell: Arc<Mutex<Option<Runtime>>>,
    starts: Arc<Notify>,
    options: RuntimeOptions,
}

impl LazyRuntime {
    /// `memory_bytes` is what the node offers.
    pub fn new(memory_bytes: u64) -> Self {
        Self {
            cell: Arc::default(),
            starts: Arc::default(),
            options: RuntimeOptions {
                memory_bytes: for_functions(memory_bytes),
                ..RuntimeOptions::default()
            },
        }
    }

    /// Whoever is first starts it; the others wait for that. Blocks for milliseconds.
    pub fn get(&self) -> Result<Runtime, StartError> {
        let mut cell = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cell {
            Some(runtime) => Ok(runtime.clone()),
            None => {
                let runtime = Runtime::start(self.options.clone())?;
                self.starts.notify_one();
                Ok(cell.insert(runtime).clone())
            }
        }
    }

    /// Starts it beside whatever else is to be done first. Must be called on a tokio runtime.
    pub fn start_ahead(&self) {
        let runtime = self.clone();
        // Who asks for it later is told why there is none.
        tokio::task::spawn_blocking(move || runtime.get().map(drop));
    }

    /// Waits for somebody to start it. One at a time may.
    pub async fn once_started(&self) -> Runtime {
        loop {
            self.starts.notified().await;
            if let Some(runtime) = self.started() {
                return runtime;
            }
        }
    }

    /// Blocks while it is being started.
    pub fn started(&self) -> Option<Runtime> {
        let cell = self.cell.lock().unwrap_or_else(PoisonError::into_inner);
        cell.clone()
    }
}

/// Of what a node offers; a quarter of the least is functions' all the same.
fn for_functions(offered: u64) -> u64 {
    offered.saturating_sub(OWN_MEMORY).max(offered / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_nodes_have_memory_for_functions_too() {
        for (offered, given) in [(512 << 20, 480 << 20), (40 << 20, 10 << 20), (0, 0)] {
            assert_eq!(for_functions(offered), given);
        }
    }
}
