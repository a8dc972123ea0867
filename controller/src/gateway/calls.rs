//! Raft's small calls of other controllers, answered: the server's side of `peers/caller.rs`.

use bytes::Bytes;
use hive_identity::Subject;
use hive_proto::calls;
use hive_proto::link::Stream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::status;
use crate::peers::{Ask, index_bytes};
use crate::store::Replica;

/// Answers what comes in a stream, if it is a controller's; one of anybody else is refused.
pub async fn serve(replica: Replica, stream: Stream, cancel: CancellationToken) {
    let link = stream.link().clone();
    let Some(Subject::Controller { raft_id }) = link.peer().map(|peer| &peer.subject) else {
        tracing::debug!(link = link.id(), "only controllers make such calls");
        return;
    };
    let asked = |kind, body| answer(replica.clone(), *raft_id, kind, body);
    if let Err(error) = calls::serve(stream, cancel, asked).await {
        tracing::debug!(controller = raft_id, %error, "a stream of calls broke");
    }
}

async fn answer(replica: Replica, from: u64, kind: u8, body: Bytes) -> Result<Bytes, Status> {
    let ask = Ask::try_from(kind)?;
    if replica.has_removed(from) {
        return Err(status::removed_controller(from));
    }
    let answer = match ask {
        Ask::Append => replica.handle_append(body).await,
        Ask::Propose => replica.handle_propose(body).await,
        Ask::ReadIndex => replica.handle_read_index().await.map(index_bytes),
    };
    answer.map_err(status::from_handle)
}
