//! What goes wrong, and when: drawn from the seed, undone after a while.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::cluster::{Cluster, Crash};
use super::faults::Fault;
use super::world::{self, Sleep};

/// Between two faults, at most.
const PAUSE_MS: u64 = 900;

/// Until a machine that went down is started again, at most. Longer than an election.
const DOWN_MS: u64 = 4_000;

/// Votes stay cheap to count, and a majority of the members exists when one leaves.
const MEMBERS: std::ops::RangeInclusive<usize> = 3..=5;

const SLOW_DISK: Duration = Duration::from_millis(400);

fn millis(below: u64) -> Duration {
    Duration::from_millis(world::below(below) + 1)
}

fn any(ids: &[u64]) -> u64 {
    ids[world::below(ids.len() as u64) as usize]
}

/// The leader as often as all others.
fn target(cluster: &Cluster) -> u64 {
    match cluster.leader() {
        Some(leader) if world::chance(50) => leader,
        _ => any(&cluster.ids()),
    }
}

fn later(task: impl Future<Output = ()> + Send + 'static) {
    world::spawn_on(world::OUTSIDE, task);
}

/// Breaks things for so long.
pub async fn run(cluster: Cluster, duration: Duration) {
    let end = world::true_time() + duration;
    let changing = Arc::new(Mutex::new(false));
    while world::true_time() < end {
        Sleep::of(millis(PAUSE_MS)).await;
        let id = target(&cluster);
        let others: Vec<u64> = cluster.ids().into_iter().filter(|o| *o != id).collect();
        world::record(&id.to_le_bytes());
        match world::below(19) {
            0 | 1 => crash(&cluster, id, Fault::PowerCut, Crash::Power),
            2 => crash(&cluster, id, Fault::Killed, Crash::Process),
            3 => {
                // All of them, as in a house without power.
                for id in cluster.ids() {
                    crash(&cluster, id, Fault::PowerCut, Crash::Power);
                }
            }
            4 | 5 => {
                cluster.disk(id).cut_after(world::below(40));
                restart_later(&cluster, id);
            }
            6 => {
                cluster.seen.happened(Fault::Paused);
                world::pause(id, millis(3_000));
            }
            7 => {
                cluster.seen.happened(Fault::ClockJump);
                world::jump(id, millis(3_000));
            }
            8 => {
                cluster.seen.happened(Fault::SlowDisk);
                world::slow_disk(id, Some(SLOW_DISK));
                later(async move {
                    Sleep::of(millis(3_000)).await;
                    world::slow_disk(id, None);
                });
            }
            9 => fail_disk(&cluster, id, Fault::DiskFull),
            10 => fail_disk(&cluster, id, Fault::SyncFailed),
            11 | 12 => cut_off(&cluster, id, &others),
            13 => {
                cluster
                    .fabric
                    .disturb(world::below(20), world::below(20), world::below(20));
                let cluster = cluster.clone();
                later(async move {
                    Sleep::of(millis(4_000)).await;
                    cluster.fabric.disturb(0, 0, 0);
                });
            }
            14 => snapshot(&cluster, id),
            15 => compact(&cluster, id),
            16 => change_members(&cluster, id, changing.clone()),
            17 => change_key(&cluster, id),
            _ => hand_over(&cluster),
        }
    }
}

fn crash(cluster: &Cluster, id: u64, fault: Fault, how: Crash) {
    if cluster.replica(id).is_some() {
        cluster.seen.happened(fault);
    }
    cluster.crash(id, how);
    restart_later(cluster, id);
}

/// Starts a machine again if it is down by then.
fn restart_later(cluster: &Cluster, id: u64) {
    let cluster = cluster.clone();
    later(async move {
        Sleep::of(millis(DOWN_MS)).await;
        if cluster.is_down(id) {
            cluster.start(id).await;
        }
    });
}

/// A disk that fails without losing power. Whoever finds that out stops, and is started anew.
fn fail_disk(cluster: &Cluster, id: u64, fault: Fault) {
    let disk = cluster.disk(id);
    let before = disk.refused();
    match fault {
        Fault::DiskFull => disk.fill(true),
        _ => disk.fail_syncs(true),
    }
    let cluster = cluster.clone();
    later(async move {
        Sleep::of(millis(2_500)).await;
        if disk.refused() > before {
            cluster.seen.happened(fault);
        }
        disk.fill(false);
        disk.fail_syncs(false);
        // A full disk lost nothing; after a failed sync nobody knows what is there.
        let how = match fault {
            Fault::DiskFull => Crash::Process,
            _ => Crash::Power,
        };
        cluster.crash(id, how);
        Sleep::of(millis(1_000)).await;
        if cluster.is_down(id) {
            cluster.start(id).await;
        }
    });
}

fn cut_off(cluster: &Cluster, id: u64, others: &[u64]) {
    match world::below(3) {
        0 => {
            cluster.seen.happened(Fault::Isolated);
            for other in others {
                cluster.fabric.cut(id, *other);
                cluster.fabric.cut(*other, id);
            }
        }
        1 => {
            cluster.seen.happened(Fault::OneWay);
            let hears = world::chance(50);
            for other in others {
                match hears {
                    true => cluster.fabric.cut(id, *other),
                    false => cluster.fabric.cut(*other, id),
                }
            }
        }
        _ => {
            cluster.seen.happened(Fault::Split);
            let (here, there): (Vec<u64>, Vec<u64>) =
                others.iter().partition(|_| world::chance(50));
            for one in here.iter().chain([&id]) {
                for other in &there {
                    cluster.fabric.cut(*one, *other);
                    cluster.fabric.cut(*other, *one);
                }
            }
        }
    }
    let cluster = cluster.clone();
    later(async move {
        Sleep::of(millis(5_000)).await;
        cluster.fabric.heal();
    });
}

/// A snapshot, with the log left as it is.
fn snapshot(cluster: &Cluster, id: u64) {
    let cluster = cluster.clone();
    later(async move {
        let triggered = cluster.on(id, |replica| async move {
            replica.shared.raft.trigger().snapshot().await.is_ok()
        });
        if triggered.await == Some(true) {
            cluster.seen.happened(Fault::Snapshot);
        }
    });
}

fn compact(cluster: &Cluster, id: u64) {
    let cluster = cluster.clone();
    later(async move {
        let compacted = cluster.on(id, |replica| async move { replica.compact().await.is_ok() });
        if compacted.await == Some(true) {
            cluster.seen.happened(Fault::Compaction);
        }
    });
}

/// Another key comes first, which seals whatever is written next; one machine also writes anew what
/// it has. A disk that was not sealed is from here on.
fn change_key(cluster: &Cluster, id: u64) {
    let first = world::below(2) as u8;
    cluster.keys.set(&[first, 1 - first]);
    let cluster = cluster.clone();
    later(async move {
        let renewed = cluster.on(
            id,
            |replica| async move { replica.renew_seals().await.is_ok() },
        );
        if renewed.await == Some(true) {
            cluster.seen.happened(Fault::KeyChanged);
        }
    });
}

fn change_members(cluster: &Cluster, id: u64, changing: Arc<Mutex<bool>>) {
    let members = cluster.ids().len();
    // One change at a time, as an operator makes them.
    if std::mem::replace(&mut *changing.lock().expect("no panics inside"), true) {
        return;
    }
    let cluster = cluster.clone();
    later(async move {
        if members < *MEMBERS.end() && (members == *MEMBERS.start() || world::chance(50)) {
            if cluster.join().await {
                cluster.seen.happened(Fault::MemberAdded);
            }
        } else if members > *MEMBERS.start()
            && let Some(leader) = cluster.leader()
        {
            let removed = cluster.on(leader, move |replica| async move {
                replica.remove_member(id).await.is_ok()
            });
            if removed.await == Some(true) {
                cluster.seen.happened(Fault::MemberRemoved);
                cluster.retire(id);
            }
        }
        *changing.lock().expect("no panics inside") = false;
    });
}

/// A clean stop of whoever leads.
fn hand_over(cluster: &Cluster) {
    let Some(leader) = cluster.leader() else {
        return;
    };
    let cluster = cluster.clone();
    later(async move {
        let stopped = cluster.on(leader, |replica| async move { replica.shutdown().await });
        if stopped.await.is_some() {
            crash(&cluster, leader, Fault::Killed, Crash::Process);
        }
    });
}
