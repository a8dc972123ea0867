//! Three controllers: any of them takes writes, and losing one loses nothing.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::join_all;
use hive_controller::state::Command;
use hive_controller::store::{MembershipError, ProposeError, Timing};

use crate::swarm::{PATIENCE, Swarm, create, holds, image, key, member, soon, until, write};

fn assert_equal(swarm: &Swarm) {
    let mut images = swarm.replicas().into_iter().map(|replica| image(&replica));
    let first = images.next().unwrap();
    assert!(images.all(|other| other == first), "replicas differ");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_through_any_controller_is_seen_there_at_once() {
    let swarm = Swarm::of_three().await;
    for replica in swarm.replicas() {
        let name = format!("by-{}", replica.id());
        replica.propose(create(&name)).await.unwrap();
        assert!(holds(&replica, &name), "{name} not seen by its author");
    }
    let writes = swarm.replicas().into_iter().flat_map(|replica| {
        (0..100).map(move |number| {
            let replica = replica.clone();
            async move {
                let name = format!("{}-{number}", replica.id());
                replica.propose(create(&name)).await.unwrap();
                assert!(holds(&replica, &name));
            }
        })
    });
    soon("300 writes", join_all(writes)).await;
    swarm.converge().await;
    assert_equal(&swarm);
    let health = swarm.leader().await.health();
    assert_eq!(health.voters, [1, 2, 3]);
    assert_eq!(health.learners, [] as [u64; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_shows_what_others_wrote_before_it() {
    let swarm = Swarm::of_three().await;
    let writer = swarm.leader().await;
    let reader = swarm.follower().await;
    for number in 0..50 {
        let name = format!("o{number}");
        writer.propose(create(&name)).await.unwrap();
        reader.read_barrier().await.unwrap();
        assert!(holds(&reader, &name), "{name} not seen after a barrier");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_when_the_leader_is_lost_and_it_catches_up_later() {
    let mut swarm = Swarm::of_three().await;
    let lost = swarm.leader().await;
    let others: Vec<_> = swarm
        .replicas()
        .into_iter()
        .filter(|r| r.id() != lost.id())
        .collect();
    for number in 0..20 {
        lost.propose(create(&format!("before-{number}")))
            .await
            .unwrap();
    }
    swarm.isolate(lost.id());
    let leader = swarm.leader_among(&others).await;
    assert_ne!(leader.id(), lost.id());
    for number in 0..20 {
        others[number % 2]
            .propose(create(&format!("after-{number}")))
            .await
            .unwrap();
    }
    for number in 0..20 {
        assert!(holds(&leader, &format!("before-{number}")), "acknowledged");
    }
    // The one that was cut off does not go on as leader.
    let mut leadership = lost.leadership();
    soon(
        "the lost leader to notice",
        leadership.wait_for(|l| !l.is_leader),
    )
    .await
    .unwrap();

    swarm.heal(lost.id());
    swarm.converge().await;
    assert_equal(&swarm);

    // And the same across a restart.
    swarm.stop(lost.id()).await;
    leader.propose(create("while-away")).await.unwrap();
    swarm.start(lost.id()).await;
    swarm.converge().await;
    assert_equal(&swarm);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_far_behind_gets_a_snapshot() {
    let mut swarm = Swarm::of_three().await;
    let away = swarm.follower().await.id();
    swarm.stop(away).await;
    let leader = swarm.leader().await;
    for number in 0..50 {
        leader.propose(create(&format!("o{number}"))).await.unwrap();
    }
    for replica in swarm.replicas() {
        replica.compact().await.unwrap();
    }
    leader.propose(create("behind-the-snapshot")).await.unwrap();

    swarm.start(away).await;
    swarm.converge().await;
    assert_equal(&swarm);
    // A newcomer starts from the snapshot too.
    swarm.join(4).await;
    swarm.converge().await;
    assert_equal(&swarm);
    assert_eq!(swarm.leader().await.health().voters, [1, 2, 3, 4]);
    // What the snapshot gave is kept.
    swarm.stop(4).await;
    swarm.start(4).await;
    assert!(holds(&swarm.replica(4), "o7"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_controller_leaves_and_a_new_one_takes_its_place() {
    let mut swarm = Swarm::of_three().await;
    let dead = swarm.follower().await.id();
    swarm.stop(dead).await;
    let leader = swarm.leader().await;
    leader
        .propose(Command::RemoveController { id: dead })
        .await
        .unwrap();
    leader.remove_member(dead).await.unwrap();
    leader.remove_member(dead).await.unwrap();
    swarm.join(4).await;
    let voters: Vec<u64> = [1, 2, 3, 4].into_iter().filter(|id| *id != dead).collect();
    assert_eq!(leader.health().voters, voters);
    assert!(leader.state().is_former_controller(dead));
    swarm.converge().await;
    assert_equal(&swarm);
}

/// It never hears of its removal but by the refusal of its votes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_removed_while_cut_off_learns_it_from_a_majority() {
    let swarm = Swarm::of_three().await;
    let leader = swarm.leader().await;
    let removed = swarm.follower().await;
    swarm.isolate(removed.id());
    let removal = Command::RemoveController { id: removed.id() };
    leader.propose(removal).await.unwrap();
    leader.remove_member(removed.id()).await.unwrap();
    leader.propose(create("without")).await.unwrap();
    swarm.heal(removed.id());
    soon("learns of its removal", removed.cast_out()).await;
    assert!(!removed.has_removed(removed.id()), "nobody told it");
    for other in swarm.replicas() {
        if other.id() != removed.id() {
            assert!(other.cast_out().now_or_never().is_none());
        }
    }
    leader.propose(create("after")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_go_hands_over_and_is_removed_by_its_successor() {
    let swarm = Swarm::of_three().await;
    let removed = swarm.leader().await;
    assert!(matches!(
        removed.remove_member(removed.id()).await,
        Err(MembershipError::NotLeader)
    ));
    let others: Vec<_> = swarm
        .replicas()
        .into_iter()
        .filter(|r| r.id() != removed.id())
        .collect();
    let leader = swarm.leader_among(&others).await;
    leader.remove_member(removed.id()).await.unwrap();
    assert!(leader.without_member(removed.id(), PATIENCE).await);
    leader.propose(create("after")).await.unwrap();
    assert_eq!(leader.health().voters.len(), 2);
}

/// Elections are further off than the test's patience: nobody else makes a new leader here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stops_hands_over_and_writes_go_on_without_an_election_being_due() {
    let patient = Timing {
        heartbeat_ms: 500,
        election_min_ms: 120_000,
        election_max_ms: 180_000,
    };
    let mut swarm = Swarm::timed(patient).await;
    for id in [2, 3] {
        swarm.join(id).await;
    }
    let follower = swarm.follower().await;
    swarm.stop(swarm.leader().await.id()).await;
    swarm.leader().await;
    let written = follower.propose(create("after"));
    soon("a write after the hand-over", written).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_knows_how_its_followers_keep_up() {
    let mut swarm = Swarm::of_three().await;
    let follower = swarm.follower().await.id();
    let leader = swarm.leader().await;
    leader.propose(create("one")).await.unwrap();
    swarm.converge().await;
    let heard = |id: u64| leader.progress()[&id].silent;
    until("the follower to confirm", || {
        leader.progress()[&follower].matched >= leader.health().last_log
    })
    .await;
    assert!(heard(follower).is_some());
    swarm.stop(follower).await;
    until("its silence to be noticed", || {
        heard(follower).is_some_and(|silent| silent >= Duration::from_secs(1))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_leader_changes_members_and_addresses_can_change() {
    let swarm = Swarm::of_three().await;
    let follower = swarm.follower().await;
    assert!(matches!(
        follower.add_member(9, &member(9)).await,
        Err(MembershipError::NotLeader)
    ));
    let leader = swarm.leader().await;
    let mut moved = member(follower.id());
    moved.link = "elsewhere:7000".to_owned();
    leader.add_member(follower.id(), &moved).await.unwrap();
    leader.propose(create("after-the-move")).await.unwrap();
    swarm.converge().await;
    assert_equal(&swarm);
}

/// Without a majority nothing is acknowledged, and nobody is told a lie.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_majority_nothing_is_written_or_read() {
    let swarm = Swarm::of_three().await;
    let leader = swarm.leader().await;
    let follower = swarm.follower().await;
    for replica in swarm.replicas() {
        swarm.isolate(replica.id());
    }
    let (by_leader, by_follower, read) = tokio::join!(
        leader.propose(create("by-leader")),
        follower.propose(create("by-follower")),
        follower.read_barrier(),
    );
    assert!(
        matches!(
            by_leader,
            Err(ProposeError::TimedOut | ProposeError::NoLeader)
        ),
        "{by_leader:?}"
    );
    assert_eq!(by_follower, Err(ProposeError::NoLeader));
    assert_eq!(read, Err(ProposeError::NoLeader));
    for replica in swarm.replicas() {
        assert!(replica.state().get(&key("by-follower")).is_none());
        swarm.heal(replica.id());
    }
    // Who led may be deposed just now by one that asked for votes before it was heard again.
    write(&swarm.leader().await, "again").await;
    swarm.converge().await;
    assert_equal(&swarm);
}

/// Whoever is cut off says so in the time that the asker has, also behind others who have more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_cut_off_answers_in_the_time_there_is() {
    let swarm = Swarm::of_three().await;
    let both = [swarm.leader().await, swarm.follower().await];
    for replica in swarm.replicas() {
        swarm.isolate(replica.id());
    }
    let patience = Duration::from_millis(300);
    for replica in both {
        let others: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let replica = replica.clone();
                    async move { replica.read_barrier().await }
                })
            })
            .collect();
        let read = soon("an answer", replica.read_barrier_within(patience)).await;
        assert_eq!(read, Err(ProposeError::NoLeader));
        let write = replica.propose_within(create("in-time"), patience);
        let write = soon("an answer", write).await;
        assert!(
            matches!(write, Err(ProposeError::NoLeader | ProposeError::TimedOut)),
            "{write:?}"
        );
        // One whose time is over is not even sent.
        let late = replica.propose_within(create("late"), Duration::ZERO).await;
        assert_eq!(late, Err(ProposeError::NoLeader));
        // Those have far more time, of whom two are in rounds of their own.
        for other in others {
            assert!(!other.is_finished(), "it was waited for");
            other.abort();
        }
    }
}
