//! Who leads, as this replica knows it: what the reconcilers start and stop by.
//!
//! Derived from Raft's metrics and what is applied here; a change wakes the watchers, nothing else does.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver as _;
use openraft::metrics::{RaftDataMetrics, RaftServerMetrics};
use openraft::{Instant as _, ServerState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::RaftNode;
use super::machine::Applied;
use super::runtime;
use super::types::TypeConfig;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader this replica follows, itself included.
    pub leader: Option<u64>,
    pub term: u64,
    /// This replica leads, has applied an entry of its own term (so it knows all that was
    /// committed before), and heard from a majority within an election's time.
    pub is_leader: bool,
}

fn of(
    id: u64,
    lease: Duration,
    server: &RaftServerMetrics<TypeConfig>,
    data: &RaftDataMetrics<TypeConfig>,
    applied: &Applied,
) -> Leadership {
    let term = server.vote.leader_id.term;
    let leads = leads(id, server);
    // A majority of one is never asked, so nothing records its answer.
    let alone = server.membership_config.voter_ids().eq([id]);
    let heard = alone
        || data
            .last_quorum_acked
            .as_ref()
            .is_some_and(|at| at.elapsed() < lease);
    let caught_up = applied
        .last
        .is_some_and(|last| last.leader_id.term == term && last.leader_id.node_id == id);
    Leadership {
        leader: server.current_leader,
        term,
        is_leader: leads && heard && caught_up,
    }
}

fn leads(id: u64, server: &RaftServerMetrics<TypeConfig>) -> bool {
    server.state == ServerState::Leader && server.current_leader == Some(id)
}

/// Follows Raft until cancelled or Raft ends; then nobody leads as far as this replica knows.
pub(super) async fn follow(
    raft: RaftNode,
    lease: Duration,
    mut applied: watch::Receiver<Applied>,
    publish: watch::Sender<Leadership>,
    stop: CancellationToken,
) {
    let id = *raft.node_id();
    let mut server = raft.server_metrics();
    // Changes with each entry and each answer of a follower; Raft sends it before the other.
    let mut data = raft.data_metrics();
    loop {
        let (now, awaits_more) = {
            let server = server.borrow_and_update();
            let (data, applied) = (data.borrow_and_update(), applied.borrow_and_update());
            let now = of(id, lease, &server, &data, &applied);
            (now, leads(id, &server) && !now.is_leader)
        };
        publish.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                tracing::info!(
                    leader = now.leader,
                    term = now.term,
                    is_leader = now.is_leader,
                    "leadership"
                );
            }
            *known = now;
            changed
        });
        // A lease runs out by time alone; only a leader has one to lose.
        let expiry = async {
            if now.is_leader {
                runtime::sleep(lease / 4).await;
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            changed = server.changed() => if changed.is_err() { break },
            // The answer of a majority, and its own first entry.
            changed = data.changed(), if awaits_more => if changed.is_err() { break },
            changed = applied.changed(), if awaits_more => if changed.is_err() { break },
            () = expiry => {}
        }
    }
    publish.send_replace(Leadership::default());
}
