//! The log and the snapshots take a bounded part of the disk, whatever is written.

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use hive_controller::state::Command;
use hive_controller::store::{Bounds, Replica};
use serde_json::json;

use tokio::sync::Semaphore;

use super::swarm::{Swarm, image, key, until};

const MIB: u64 = 1024 * 1024;

/// Objects that the writes below go round.
const OBJECTS: u64 = 16;

fn bytes_below(dir: &Path) -> u64 {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        bytes += match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.len(),
            // Removed meanwhile.
            Err(_) => 0,
        };
    }
    bytes
}

/// Text that no compression makes much smaller, never twice the same.
fn text(number: u64, bytes: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-";
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::with_capacity(bytes as usize + 8);
    while text.len() < bytes as usize {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let letters = state
            .to_le_bytes()
            .map(|byte| LETTERS[usize::from(byte) % 64]);
        text.extend(letters.map(char::from));
    }
    text.truncate(bytes as usize);
    text
}

fn large(number: u64, bytes: u64) -> Command {
    let name = format!("large-{}", number % OBJECTS);
    let text = text(number, bytes);
    let body = json!({ "metadata": { "name": name }, "data": { "text": text } }).into();
    let key = key(&name);
    match number < OBJECTS {
        true => Command::Create { key, body },
        false => Command::Replace {
            key,
            body,
            expect: None,
        },
    }
}

/// Writes that come while a snapshot is written: as many as the bounds below have room for.
const MEANWHILE: u64 = 16;

fn is_snapshot_under_way(dir: &Path) -> bool {
    let mut files = std::fs::read_dir(dir.join("raft/snapshots")).unwrap();
    files.any(|file| {
        let path = file.unwrap().path();
        path.extension().is_some_and(|it| it == "partial")
    })
}

/// Writes and says how large the directory ever was. On a busy machine a snapshot may take seconds in which
/// hundreds of writes would come: those after the first few wait for it.
async fn write(replica: &Replica, dir: &Path, numbers: Range<u64>, bytes: u64) -> u64 {
    let (mut most, mut meanwhile) = (0, 0);
    for number in numbers {
        replica.propose(large(number, bytes)).await.unwrap();
        most = most.max(bytes_below(dir));
        meanwhile = match is_snapshot_under_way(dir) {
            true => meanwhile + 1,
            false => 0,
        };
        if meanwhile == MEANWHILE {
            until("the snapshot", || !is_snapshot_under_way(dir)).await;
            meanwhile = 0;
        }
    }
    most
}

/// Of objects of a mebibyte, 16 MiB of them state. Enough that the log is cut several times;
/// `HIVE_LOG_WRITES=2000` writes 2 GiB.
const WRITES: u64 = 250;

/// As it is shipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_written_again_and_again_take_a_bounded_part_of_the_disk() {
    /// Two stretches of log of 64 MiB, of which one may be overshot by a sixteenth; two snapshots
    /// kept and one being written; what is written meanwhile; and two segments more, since whole
    /// ones are removed.
    const BOUND: u64 = (64 + 68 + 3 * 16 + 16 + 16) * MIB;
    let writes = std::env::var("HIVE_LOG_WRITES").map_or(WRITES, |text| text.parse().unwrap());
    let mut swarm = Swarm::first().await;
    let dir = swarm.dir(1).to_owned();
    let most = write(&swarm.replica(1), &dir, 0..writes, MIB).await;
    println!("never more than {} MiB", most / MIB);
    assert!(most > 64 * MIB, "nothing was ever kept: {most}");
    assert!(most < BOUND, "{most} bytes are more than {BOUND}");

    let before = image(&swarm.replica(1));
    swarm.stop(1).await;
    let begun = Instant::now();
    swarm.start(1).await;
    swarm.leader().await;
    println!("started again in {:.1?}", begun.elapsed());
    assert_eq!(image(&swarm.replica(1)), before);
}

const SMALL: Bounds = Bounds {
    entries: 10_000,
    bytes: MIB,
};

const KIB: u64 = 1024;

/// What [`SMALL`] comes to, with segments of 8 MiB that are removed as a whole.
const SMALL_BOUND: u64 = 32 * MIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_long_away_costs_no_disk_and_gets_a_snapshot() {
    let mut swarm = Swarm::within(SMALL).await;
    for id in [2, 3] {
        swarm.join(id).await;
    }
    let away = swarm.follower().await.id();
    swarm.isolate(away);
    let leader = swarm.leader().await;
    let dir = swarm.dir(leader.id()).to_owned();
    let most = write(&leader, &dir, 0..1_000, 64 * KIB).await;
    assert!(
        most < SMALL_BOUND,
        "{most} bytes are more than {SMALL_BOUND}"
    );
    assert_eq!(swarm.installed(), 0);
    swarm.heal(away);
    swarm.converge().await;
    assert_eq!(image(&swarm.replica(away)), image(&leader));
    assert!(swarm.installed() > 0);
}

/// It answers, but is slower than those who write: Raft alone would keep what it still reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_never_catches_up_costs_no_disk_and_gets_a_snapshot() {
    let mut swarm = Swarm::within(SMALL).await;
    for id in [2, 3] {
        swarm.join(id).await;
    }
    let slow = swarm.follower().await.id();
    swarm.stop(slow).await;
    let turns = swarm.slow_down(slow);
    swarm.start(slow).await;
    let leader = swarm.leader().await;
    let dir = swarm.dir(leader.id()).to_owned();
    for round in 0..12 {
        // A message holds 3 MiB of entries at most, and these are 6.
        let numbers = round * 96..(round + 1) * 96;
        let most = write(&leader, &dir, numbers, 64 * KIB).await;
        assert!(
            most < SMALL_BOUND,
            "{most} bytes are more than {SMALL_BOUND}"
        );
        turns.add_permits(1);
    }
    until("a snapshot to be sent", || swarm.installed() > 0).await;
    turns.add_permits(Semaphore::MAX_PERMITS / 2);
    swarm.converge().await;
    assert_eq!(image(&swarm.replica(slow)), image(&leader));
}
