//! One controller goes on alone: from what it holds after its majority was lost.

use hive_controller::peers::{Peers, Route};
use hive_controller::state::{Command, Member, REVISION_LEAP};
use hive_controller::store::seal::keys::Keys;
use hive_controller::store::{Replica, ReplicaOptions, StartError, offline};
use tokio::sync::watch;

use crate::swarm::{Swarm, TIMING, create, holds, member, soon};

/// A replica that reaches nobody.
async fn alone(dir: &std::path::Path, id: u64) -> Replica {
    let nowhere = Box::new(|_, _: &Member| Route::following(watch::channel(None).1));
    let options = ReplicaOptions {
        keys: Keys::default(),
        dir: dir.to_owned(),
        id,
        timing: Some(TIMING),
    };
    Replica::start(options, Peers::connecting(nowhere, id))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_goes_on_with_all_that_was_acknowledged() {
    let mut swarm = Swarm::of_three().await;
    swarm.leader().await.propose(create("early")).await.unwrap();
    let survivor = swarm.follower().await.id();
    // Part of it is in a snapshot, part in the log.
    swarm.converge().await;
    swarm.replica(survivor).compact().await.unwrap();
    for number in 0..20 {
        let name = format!("late-{number}");
        swarm.leader().await.propose(create(&name)).await.unwrap();
    }
    swarm.converge().await;
    let revision = swarm.replica(survivor).state().revision();
    let dir = swarm.dir(survivor).to_owned();
    let running = offline::read(&dir.join("raft"), &Keys::default()).await;
    assert!(matches!(running, Err(StartError::Directory(_))), "it runs");
    for id in [1, 2, 3] {
        swarm.stop(id).await;
    }

    let found = offline::read(&dir.join("raft"), &Keys::default())
        .await
        .unwrap();
    assert_eq!(found.state.revision(), revision);
    assert_eq!(found.members.len(), 3);
    assert!(found.written.is_some() && found.last_term > 0);
    assert!(found.committed <= found.last_index);
    let (id, state) = found.state.begin_anew(member(9));
    let new = dir.join("raft-4");
    // An attempt that was interrupted before is in nobody's way.
    std::fs::create_dir_all(new.join("snapshots")).unwrap();
    std::fs::write(new.join("snapshots/1.partial"), "half").unwrap();
    offline::found(
        &new,
        id,
        &member(9),
        found.last_index,
        &state,
        &Keys::default(),
    )
    .unwrap();
    drop(found);

    for round in 0..2 {
        let replica = alone(&new, id).await;
        let written = replica.propose(create(&format!("after-{round}")));
        soon("a write by the survivor", written).await.unwrap();
        assert!(holds(&replica, "early") && holds(&replica, "late-19"));
        assert!(holds(&replica, "after-0"));
        assert_eq!(replica.health().voters, [id]);
        assert_eq!(replica.state().epoch(), 1);
        assert!(replica.state().revision() > revision + REVISION_LEAP);
        assert!((1..4).all(|former| replica.state().is_former_controller(former)));
        replica.shutdown().await;
    }
    // What was there before can still be read.
    let before = offline::read(&dir.join("raft"), &Keys::default())
        .await
        .unwrap();
    assert_eq!(before.state.epoch(), 0);
}

/// As in a rolling update: a member of the release before is among them, and stops rather than
/// differ when a command comes that it cannot know.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_that_this_program_does_not_know_stops_it() {
    let dir = tempfile::tempdir().unwrap();
    let replica = alone(&dir.path().join("raft"), 1).await;
    replica.bootstrap(member(1)).await.unwrap();
    replica.propose(create("before")).await.unwrap();
    let newer = hive_controller::state::level::OWN + 1;
    let raised = replica.propose(Command::RaiseLevel { to: newer }).await;
    assert!(raised.is_err(), "{raised:?}");
    let why = soon("the replica to stop", replica.fatal()).await;
    assert!(
        why.contains("run the version that the other controllers run"),
        "{why}"
    );
    replica.shutdown().await;
}
