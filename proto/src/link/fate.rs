//! How a link ends, and who learns of it.
//! The first end counts: whatever breaks afterwards is a consequence of it.

use std::error::Error;
use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// The end of a link. Clones share the cause.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    #[error("the link was closed on this side")]
    ClosedHere,
    #[error("the peer closed the link: {reason}")]
    ClosedByPeer { reason: Arc<str> },
    #[error("nothing was heard from the peer for too long")]
    TimedOut,
    #[error("the connection to the peer was lost")]
    Lost,
    #[error("the link failed")]
    Failed(#[source] Arc<dyn Error + Send + Sync>),
}

impl LinkError {
    pub(super) fn failed(source: impl Error + Send + Sync + 'static) -> Self {
        Self::Failed(Arc::new(source))
    }
}

/// For transports whose library doesn't keep the reason of the end.
#[derive(Default)]
pub(super) struct Fate {
    end: OnceLock<LinkError>,
    ended: CancellationToken,
}

impl Fate {
    /// Makes `end` the end, unless there was one.
    pub(super) fn seal(&self, end: LinkError) {
        let _ = self.end.set(end);
        self.ended.cancel();
    }

    pub(super) fn end(&self) -> Option<LinkError> {
        self.end.get().cloned()
    }

    pub(super) async fn ended(&self) -> LinkError {
        self.ended.cancelled().await;
        self.end().expect("set before the token is cancelled")
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.ended
    }
}
