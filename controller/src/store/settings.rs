//! What Raft is told to do, with the reasons: how much it keeps, sends and lets wait.

use std::sync::Arc;

use openraft::{Config, SnapshotPolicy};

use super::timing::Timing;

/// A learner so close behind has caught up, and may vote: what is left to send takes a busy swarm
/// a second.
const LAG_OF_VOTER: u64 = 5_000;

/// Entries in one append message; their bytes are bounded apart from this (3 MiB).
const ENTRIES_PER_MESSAGE: u64 = 512;

/// Requests that may wait for Raft's core before callers wait in turn. Those who write over HTTP
/// are bounded before this.
const WAITING_REQUESTS: u64 = 4_096;

/// How soon a peer that did not answer is tried again.
const BACKOFF: &str = "100ms 200ms 400ms ..1s";

pub(super) fn config(timing: Timing) -> Arc<Config> {
    let config = Config {
        cluster_name: "hive".to_owned(),
        heartbeat_interval: timing.heartbeat_ms,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        max_payload_entries: ENTRIES_PER_MESSAGE,
        replication_lag_threshold: LAG_OF_VOTER,
        // Raft counts entries only: `compaction` counts bytes, too, and triggers both.
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        api_channel_size: Some(WAITING_REQUESTS),
        backoff: BACKOFF.to_owned(),
        // A controller that was cut off must not depose a leader that works when it comes back.
        enable_pre_vote: Some(true),
        // What was committed is on disk without a sync of its own, so a restarted leader may know
        // too little of it: it has to be elected like everyone else.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    Arc::new(
        config
            .validate()
            .expect("Timing keeps heartbeats and elections in order, and the rest is constant"),
    )
}
