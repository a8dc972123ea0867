//! A replica's end: leadership goes to another first, and everything is on disk.

use openraft::Instant as _;
use openraft::async_runtime::watch::WatchReceiver as _;

use super::{Replica, runtime};

impl Replica {
    /// Hands leadership over if this replica has it, and stops with everything on disk.
    pub async fn shutdown(&self) {
        self.hand_over().await;
        self.shared.stop.cancel();
        if let Err(error) = self.shared.raft.shutdown().await {
            tracing::error!(%error, "Raft did not stop cleanly");
        }
        if let Err(error) = self.shared.log.close().await {
            tracing::error!(%error, "the Raft log did not stop cleanly");
        }
        self.shared
            .lock
            .lock()
            .expect("nothing panics while it holds the directory's lock")
            .take();
    }

    /// Gives leadership to the follower that is furthest of those that answer, if this replica has
    /// it and one does. Best effort: without it the others elect a leader once they miss this one.
    pub async fn hand_over(&self) {
        let id = self.id();
        let mut metrics = self.shared.raft.metrics();
        let successor = {
            let metrics = metrics.borrow_watched();
            let voters: Vec<u64> = metrics.membership_config.voter_ids().collect();
            let answers = |peer: &u64| {
                let answered = metrics.heartbeat.as_ref().and_then(|all| all.get(peer));
                let answered = answered.and_then(Option::as_ref);
                answered.is_some_and(|at| at.elapsed() < self.shared.lease)
            };
            metrics
                .replication
                .iter()
                .flatten()
                .filter(|(peer, _)| **peer != id && voters.contains(peer) && answers(peer))
                .max_by_key(|(_, matched)| **matched)
                .map(|(peer, _)| *peer)
        };
        let Some(successor) = successor else { return };
        if self
            .shared
            .raft
            .trigger()
            .transfer_leader(successor)
            .await
            .is_err()
        {
            return;
        }
        let handed = metrics.wait_until(|m| m.current_leader.is_some_and(|leader| leader != id));
        match runtime::timeout(self.shared.lease, handed).await {
            Ok(_) => tracing::info!(successor, "handed leadership over"),
            Err(_) => tracing::warn!(successor, "leadership was not taken over in time"),
        }
    }
}
