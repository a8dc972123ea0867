//! One controller: what it acknowledged is there after a restart.

use hive_controller::peers::{Peers, Route};
use hive_controller::state::{Command, Outcome, Rejection};
use hive_controller::store::seal::keys::Keys;
use hive_controller::store::{ProposeError, Replica, ReplicaOptions, StartError, Timing};
use tokio::sync::watch;

use crate::swarm::{Swarm, create, holds, image, member, soon};

fn nobody() -> Peers {
    Peers::connecting(Box::new(|_, _| Route::following(watch::channel(None).1)), 1)
}

#[tokio::test]
async fn a_restart_changes_nothing() {
    let mut swarm = Swarm::first().await;
    for number in 0..50 {
        swarm
            .replica(1)
            .propose(create(&format!("o{number}")))
            .await
            .unwrap();
    }
    let before = image(&swarm.replica(1));
    for _ in 0..2 {
        swarm.stop(1).await;
        swarm.start(1).await;
        swarm.leader().await;
        assert_eq!(image(&swarm.replica(1)), before);
    }
    swarm.replica(1).compact().await.unwrap();
    swarm
        .replica(1)
        .propose(create("after-the-snapshot"))
        .await
        .unwrap();
    let before = image(&swarm.replica(1));
    swarm.stop(1).await;
    swarm.start(1).await;
    swarm.leader().await;
    assert_eq!(image(&swarm.replica(1)), before);
    swarm.replica(1).propose(create("more")).await.unwrap();
}

#[tokio::test]
async fn a_restart_remembers_what_was_before_the_snapshot() {
    let mut swarm = Swarm::first().await;
    let from = swarm.replica(1).state().revision();
    for name in ["a", "b"] {
        swarm.replica(1).propose(create(name)).await.unwrap();
    }
    swarm.replica(1).compact().await.unwrap();
    swarm.replica(1).propose(create("c")).await.unwrap();
    swarm.stop(1).await;
    swarm.start(1).await;
    swarm.leader().await;
    let state = swarm.replica(1).state();
    // Who watched before goes on.
    let seen = state.changes_since(from).unwrap();
    let seen: Vec<&str> = seen.map(|change| &*change.key.name).collect();
    assert_eq!(seen, ["a", "b", "c"]);
}

#[tokio::test]
async fn beginning_twice_is_beginning_once() {
    let mut swarm = Swarm::first().await;
    swarm.replica(1).bootstrap(member(1)).await.unwrap();
    swarm.stop(1).await;
    swarm.start(1).await;
    swarm.replica(1).bootstrap(member(1)).await.unwrap();
    let controllers: Vec<_> = swarm
        .replica(1)
        .state()
        .controllers()
        .map(|(id, member)| (id, member.clone()))
        .collect();
    assert_eq!(controllers, [(1, member(1))]);
    let health = swarm.replica(1).health();
    assert_eq!((health.voters, health.leader), (vec![1], Some(1)));
}

#[tokio::test]
async fn answers_say_what_became_of_a_command() {
    let swarm = Swarm::first().await;
    let replica = swarm.replica(1);
    let mut revisions = replica.revisions();
    revisions.borrow_and_update();
    assert!(matches!(
        replica.propose(create("a")).await,
        Ok(Outcome::Created(_))
    ));
    assert!(revisions.has_changed().unwrap());
    assert!(holds(&replica, "a"), "seen by its author at once");
    assert_eq!(
        replica.propose(create("a")).await,
        Err(ProposeError::Rejected(Rejection::AlreadyExists))
    );
    let huge = Command::RegisterArtifact {
        sha256: "a".repeat(3 << 20),
        size: 0,
    };
    assert!(matches!(
        replica.propose(huge).await,
        Err(ProposeError::TooLarge(_))
    ));
    replica.read_barrier().await.unwrap();
    replica.shutdown().await;
    assert_eq!(
        soon("an answer after the end", replica.propose(create("b"))).await,
        Err(ProposeError::Stopped)
    );
}

async fn start(dir: &std::path::Path) -> Result<Replica, StartError> {
    let options = ReplicaOptions {
        keys: Keys::default(),
        dir: dir.to_owned(),
        id: 1,
        timing: Some(Timing::for_sync(std::time::Duration::ZERO)),
    };
    Replica::start(options, nobody()).await
}

#[tokio::test]
async fn two_controllers_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = start(dir.path()).await.unwrap();
    let error = start(dir.path()).await.err().unwrap();
    assert!(error.to_string().contains("in use"), "{error}");
    first.shutdown().await;
    start(dir.path()).await.unwrap().shutdown().await;
}

/// Damage on disk is named with its repair, and nothing is served.
#[tokio::test]
async fn a_damaged_file_keeps_the_replica_from_starting() {
    for (part, extension) in [("log", "log"), ("snapshots", "snapshot")] {
        let mut swarm = Swarm::first().await;
        for number in 0..20 {
            swarm
                .replica(1)
                .propose(create(&format!("o{number}")))
                .await
                .unwrap();
        }
        swarm.replica(1).compact().await.unwrap();
        swarm.replica(1).propose(create("last")).await.unwrap();
        swarm.stop(1).await;

        let dir = swarm.dir(1).join("raft");
        let file = std::fs::read_dir(dir.join(part))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.extension().is_some_and(|e| e == extension))
            .unwrap();
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();

        let error = start(&dir).await.err().unwrap().to_string();
        assert!(error.contains(file.to_str().unwrap()), "{error}");
        assert!(error.contains("join it again"), "{error}");
    }
}
