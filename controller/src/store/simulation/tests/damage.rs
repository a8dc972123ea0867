//! One bit flipped in what a member acknowledged: it does not start, it says which file and what to
//! do, the others go on, and a new member takes its place.

use crate::state::{Body, Command, Key};
use crate::store::seal::keys::Keys;
use crate::store::simulation::cluster::{Cluster, Crash};
use crate::store::simulation::world;
use hive_manifests::Resource;
use serde_json::json;

/// In each file.
const FLIPS: u64 = 12;

const DAMAGED: u64 = 2;

async fn write(cluster: &Cluster, count: u64) {
    for number in 0..count {
        let leader = cluster.leader().expect("nothing happened to it");
        let written = cluster.on(leader, move |replica| async move {
            let name = format!("o{number}");
            let body: Body = json!({ "metadata": { "name": name } }).into();
            let key = Key::new(Resource::ConfigMap, "default", name);
            // Whether it is there already does not matter here.
            let _ = replica.propose(Command::Create { key, body }).await;
        });
        written.await.expect("the leader runs");
    }
}

async fn damage_and_rebuild(cluster: Cluster) -> u64 {
    cluster.found(3).await;
    write(&cluster, 30).await;
    let stopped = cluster.on(DAMAGED, |replica| async move {
        replica.compact().await.expect("a snapshot is taken");
        replica.shutdown().await;
    });
    stopped.await.expect("it runs");
    cluster.crash(DAMAGED, Crash::Process);
    let disk = cluster.disk(DAMAGED);
    let files = disk.durable_files().into_iter();
    let mut files: Vec<_> = files.filter(|(name, _)| name != "synced").collect();
    // One before the newest is read, and checked, only when a person goes back to it.
    let is_snapshot = |name: &String| name.ends_with(".snapshot");
    let newest = files
        .iter()
        .map(|(name, _)| name)
        .filter(|name| is_snapshot(name));
    let newest = newest.max().cloned();
    files.retain(|(name, _)| !is_snapshot(name) || Some(name) == newest.as_ref());
    assert!(
        files.iter().any(|(name, _)| name.ends_with(".log")),
        "{files:?}"
    );
    assert!(
        files.iter().any(|(name, _)| name.ends_with(".snapshot")),
        "{files:?}"
    );
    let mut found = 0;
    for (name, good) in &files {
        for _ in 0..FLIPS {
            let mut bytes = good.clone();
            let at = world::below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << world::below(8);
            disk.set_content(name, bytes);
            let said = cluster.try_start(DAMAGED).await;
            let said = said.expect_err(&format!("a flip in byte {at} of {name} went unnoticed"));
            assert!(said.contains(name.as_str()), "{said}");
            assert!(said.contains("join it again"), "{said}");
            cluster.crash(DAMAGED, Crash::Process);
            found += 1;
        }
        disk.set_content(name, good.clone());
    }
    // The others go on, and do without it.
    write(&cluster, 5).await;
    world::Sleep::of(std::time::Duration::from_secs(2)).await;
    let leader = cluster.leader().expect("two of three go on");
    let removed = cluster.on(leader, |replica| async move {
        replica.remove_member(DAMAGED).await
    });
    removed
        .await
        .expect("it runs")
        .expect("the other two agree");
    cluster.retire(DAMAGED);
    assert!(cluster.join().await, "a new member takes its place");
    assert!(cluster.agrees().await, "it has caught up");
    cluster.end();
    found
}

#[test]
fn a_member_with_a_flipped_bit_does_not_start_and_is_replaced() {
    for seed in 0..4 {
        let keys = [Keys::default(), Keys::of(1)][seed as usize % 2].clone();
        let cluster = Cluster::new(None, keys);
        let watching = cluster.clone();
        let (found, _) = world::run(seed, damage_and_rebuild(cluster), |host| {
            watching.observe(host)
        });
        assert!(found >= 2 * FLIPS, "{found}");
    }
}
