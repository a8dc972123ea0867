//! The log as Raft uses it: openraft's own suite, callbacks, group commit, reads from disk.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use openraft::storage::{IOFlushed, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::{TypeConfigExt, alias};
use openraft::{RaftLogReader, StorageError};
use tempfile::TempDir;

use super::super::{Log, lock};
use super::{entry, log_id, vote};
use crate::store::disk::simulated::Simulated;
use crate::store::machine::Machine;
use crate::store::seal::keys::Keys;
use crate::store::snapshot::Snapshots;
use crate::store::types::TypeConfig;

struct Builder;

impl StoreBuilder<TypeConfig, Log, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Log, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(&dir.path().join("snapshots"), Keys::of(1)).unwrap();
        let (machine, _) = Machine::open(snapshots).unwrap();
        let log = Log::open(Arc::new(Simulated::new(1)), Keys::of(1)).unwrap();
        Ok((dir, log, machine))
    }
}

#[tokio::test]
async fn openrafts_own_suite() {
    Suite::test_all(Builder).await.unwrap();
}

type Flushed = alias::OneshotReceiverOf<TypeConfig, std::io::Result<()>>;

fn flushed() -> (IOFlushed<TypeConfig>, Flushed) {
    let (done, result) = TypeConfig::oneshot();
    (IOFlushed::signal(done), result)
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), what)
        .await
        .expect("in time")
}

#[tokio::test]
async fn an_append_is_readable_at_once_and_acknowledged_only_after_its_sync() {
    let disk = Simulated::new(1);
    let mut log = Log::open(Arc::new(disk.clone()), Keys::of(1)).unwrap();
    let before = disk.content("0000000000000001.log").len();
    disk.hold_syncs(true);
    let (callback, mut result) = flushed();
    log.append([entry(1, 0), entry(1, 1)], callback)
        .await
        .unwrap();
    assert_eq!(log.try_get_log_entries(0..2).await.unwrap().len(), 2);
    // It is written, so that only the sync is missing.
    soon(async {
        while disk.content("0000000000000001.log").len() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(
        (&mut result).now_or_never().is_none(),
        "acknowledged before its sync"
    );
    disk.hold_syncs(false);
    soon(result).await.unwrap().unwrap();
}

#[tokio::test]
async fn appends_that_wait_are_synced_together() {
    let disk = Simulated::new(1);
    let mut log = Log::open(Arc::new(disk.clone()), Keys::of(1)).unwrap();
    disk.hold_syncs(true);
    let before = disk.syncs();
    let mut results = Vec::new();
    for index in 0..100 {
        let (callback, result) = flushed();
        log.append([entry(1, index)], callback).await.unwrap();
        results.push(result);
    }
    disk.hold_syncs(false);
    for result in results {
        soon(result).await.unwrap().unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs <= 2, "{syncs} syncs for 100 appends");
}

#[tokio::test]
async fn a_failed_sync_reaches_whoever_waits_for_it_and_all_after() {
    let disk = Simulated::new(1);
    let mut log = Log::open(Arc::new(disk.clone()), Keys::of(1)).unwrap();
    disk.fail_syncs(true);
    let (callback, result) = flushed();
    log.append([entry(1, 0)], callback).await.unwrap();
    let error = soon(result).await.unwrap().unwrap_err();
    assert!(error.to_string().contains("/simulated"), "{error}");
    disk.fail_syncs(false);
    soon(log.save_vote(&vote(2))).await.unwrap_err();
}

#[tokio::test]
async fn what_left_the_cache_is_read_from_disk() {
    let disk = Simulated::new(1);
    let mut log = Log::open(Arc::new(disk.clone()), Keys::of(1)).unwrap();
    let entries: Vec<_> = (0..500).map(|index| entry(1, index)).collect();
    log.blocking_append(entries.clone()).await.unwrap();
    lock(&log.index).set_cache_limit(1000);
    assert_eq!(log.try_get_log_entries(..).await.unwrap(), entries);
    assert_eq!(
        log.try_get_log_entries(490..).await.unwrap(),
        entries[490..]
    );
    log.purge(log_id(1, 399)).await.unwrap();
    log.truncate_after(Some(log_id(1, 449))).await.unwrap();
    assert_eq!(
        log.try_get_log_entries(..).await.unwrap(),
        entries[400..450]
    );

    log.close().await.unwrap();
    let mut again = Log::open(Arc::new(disk), Keys::of(1)).unwrap();
    assert_eq!(
        again.try_get_log_entries(..).await.unwrap(),
        entries[400..450]
    );
    assert_eq!(again.purged(), Some(log_id(1, 399)));
    again.blocking_append([entry(2, 450)]).await.unwrap();
}

#[tokio::test]
async fn votes_and_commits_outlive_a_restart() {
    let disk = Simulated::new(1);
    let mut log = Log::open(Arc::new(disk.clone()), Keys::of(1)).unwrap();
    log.save_vote(&vote(3)).await.unwrap();
    log.blocking_append([entry(1, 0), entry(1, 1)])
        .await
        .unwrap();
    log.save_committed(Some(log_id(1, 1))).await.unwrap();
    log.close().await.unwrap();
    let mut again = Log::open(Arc::new(disk), Keys::of(1)).unwrap();
    assert_eq!(again.read_vote().await.unwrap(), Some(vote(3)));
    assert_eq!(again.read_committed().await.unwrap(), Some(log_id(1, 1)));
}

#[tokio::test]
async fn a_message_never_carries_more_than_it_may() {
    let disk = Simulated::new(1);
    let mut log = Log::open(Arc::new(disk), Keys::of(1)).unwrap();
    let big = |index| {
        let mut entry = entry(1, index);
        let bytes = vec![b' '; 1024 * 1024];
        entry.payload = openraft::EntryPayload::Normal(
            crate::store::types::Proposal::from_encoded(bytes.into()).unwrap(),
        );
        entry
    };
    log.blocking_append((0..6).map(big)).await.unwrap();
    let read = log.limited_get_log_entries(0, 6).await.unwrap();
    assert!((1..=3).contains(&read.len()), "{} entries", read.len());
}
