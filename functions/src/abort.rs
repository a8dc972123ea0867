//! A task that ends with whoever holds its end.

use tokio::task::AbortHandle;

/// Ends a task when dropped, unless told otherwise.
pub(crate) struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    pub(crate) fn new(task: AbortHandle) -> Self {
        Self(Some(task))
    }

    /// Of a task that has ended already.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Lets the task run to its own end.
    pub(crate) fn release(&mut self) {
        self.0 = None;
    }

    pub(crate) fn abort(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.abort();
    }
}
