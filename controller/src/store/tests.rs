#![allow(clippy::unwrap_used)]

use super::disk::simulated::Simulated;
use super::seal::keys::Keys;
use super::start::Opened;
use super::*;
use crate::peers::Route;
use crate::state::{Command, Member};

fn no_peers() -> Peers {
    let connect = |_, _: &Member| Route::following(watch::channel(None).1);
    Peers::connecting(Box::new(connect), 1)
}

const QUICK: Timing = Timing {
    heartbeat_ms: 50,
    election_min_ms: 200,
    election_max_ms: 400,
};

/// A disk that fails ends the replica, loudly: nothing is acknowledged after it.
#[tokio::test]
async fn a_failing_disk_stops_the_replica_and_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Simulated::new(1);
    let snapshots = Snapshots::open(directory.path(), Keys::default()).unwrap();
    let (machine, published) = Machine::open(snapshots.clone()).unwrap();
    let opened = Opened {
        lock: None,
        log: Log::open(Arc::new(disk.clone()), Keys::default()).unwrap(),
        snapshots,
        machine,
        published,
        timing: QUICK,
        disk: None,
    };
    let log = opened.log.clone();
    let dir = directory.path().to_owned();
    let replica = Replica::assemble(1, dir, opened, log, no_peers(), Bounds::default())
        .await
        .unwrap();
    replica.bootstrap(Member::default()).await.unwrap();

    disk.fail_syncs(true);
    let register = |sha256: &str| Command::RegisterArtifact {
        sha256: sha256.to_owned(),
        size: 1,
    };
    let soon = Duration::from_secs(120);
    let failed = tokio::time::timeout(soon, replica.propose(register("aa"))).await;
    let failed = failed.unwrap().unwrap_err();
    assert!(
        matches!(failed, ProposeError::Storage(_) | ProposeError::TimedOut),
        "{failed:?}"
    );
    let said = tokio::time::timeout(soon, replica.fatal()).await.unwrap();
    assert!(said.contains("/simulated"), "{said}");

    disk.fail_syncs(false);
    let refused = replica.propose(register("bb")).await.unwrap_err();
    assert!(matches!(refused, ProposeError::Storage(_)), "{refused:?}");
    assert!(!replica.leadership().borrow().is_leader);
    assert!(replica.state().artifact("aa").is_none());
}
