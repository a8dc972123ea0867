#![allow(clippy::unwrap_used)]

use futures::stream;
use hive_manifests::Resource;
use openraft::EntryPayload;
use serde_json::json;

use super::*;
use crate::state::{Command, Key};
use crate::store::seal::keys::Keys;
use crate::store::types::{Entry, LeaderId, Proposal};

fn entry(index: u64, payload: EntryPayload<Proposal, u64, crate::state::Member>) -> Entry {
    Entry {
        log_id: LogId {
            leader_id: LeaderId {
                term: 1,
                node_id: 1,
            },
            index,
        },
        payload,
    }
}

fn create(index: u64) -> Entry {
    let name = format!("o{index}");
    let command = Command::Create {
        body: json!({ "metadata": { "name": name } }).into(),
        key: Key::new(Resource::ConfigMap, "default", name),
    };
    let proposal = Proposal::encode(&command).unwrap();
    entry(index, EntryPayload::Normal(proposal))
}

async fn apply(machine: &mut Machine, entries: Vec<Entry>) -> io::Result<()> {
    machine
        .apply(stream::iter(entries.into_iter().map(|e| Ok((e, None)))))
        .await
}

fn machine(directory: &std::path::Path) -> (Machine, Published) {
    Machine::open(Snapshots::open(directory, Keys::default()).unwrap()).unwrap()
}

#[tokio::test]
async fn revisions_wake_for_changes_of_the_state_only() {
    let directory = tempfile::tempdir().unwrap();
    let (mut machine, published) = machine(directory.path());
    let mut revisions = published.revisions.clone();
    apply(&mut machine, vec![entry(0, EntryPayload::Blank)])
        .await
        .unwrap();
    assert!(!revisions.has_changed().unwrap());
    assert_eq!(published.applied.borrow().last.unwrap().index, 0);
    apply(&mut machine, vec![create(1), create(2)])
        .await
        .unwrap();
    assert!(revisions.has_changed().unwrap());
    assert_eq!(*revisions.borrow_and_update(), 2);
    assert_eq!(published.applied.borrow().state.revision(), 2);
}

#[tokio::test]
async fn a_snapshot_holds_the_moment_it_was_begun() {
    let directory = tempfile::tempdir().unwrap();
    let (mut machine, _) = machine(directory.path());
    apply(&mut machine, vec![create(1), create(2)])
        .await
        .unwrap();
    let mut builder = machine.get_snapshot_builder().await;
    apply(&mut machine, vec![create(3)]).await.unwrap();
    let snapshot = builder.build_snapshot().await.unwrap();
    assert_eq!(snapshot.meta.last_log_id.unwrap().index, 2);
    assert_eq!(snapshot.snapshot.load().unwrap().revision(), 2);
    let current = machine.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, snapshot.meta);

    // A machine that starts here goes on from the snapshot.
    let (mut again, published) = super::tests::machine(directory.path());
    assert_eq!(published.applied.borrow().index(), 2);
    apply(&mut again, vec![create(3)]).await.unwrap();
    assert_eq!(again.applied.state.image(), machine.applied.state.image());
}

#[tokio::test]
async fn a_command_of_a_newer_version_stops_the_machine_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (mut machine, published) = machine(directory.path());
    let unknown = Proposal::from_encoded("{\"Dance\":{}}".into()).unwrap();
    let entries = vec![
        create(1),
        entry(2, EntryPayload::Normal(unknown)),
        create(3),
    ];
    let error = apply(&mut machine, entries).await.unwrap_err();
    assert!(error.to_string().contains("older"), "{error}");
    assert_eq!(published.applied.borrow().index(), 1);
}

/// Whichever order two snapshots arrive in, and whatever was applied meanwhile.
#[tokio::test]
async fn an_older_snapshot_never_replaces_a_newer_state() {
    let there = tempfile::tempdir().unwrap();
    let (mut sender, _) = machine(there.path());
    apply(&mut sender, vec![create(1), create(2)])
        .await
        .unwrap();
    let old = sender.get_snapshot_builder().await;
    let old = { old }.build_snapshot().await.unwrap();
    apply(&mut sender, vec![create(3), create(4)])
        .await
        .unwrap();
    let new = sender.get_snapshot_builder().await;
    let new = { new }.build_snapshot().await.unwrap();

    let here = tempfile::tempdir().unwrap();
    let (mut receiver, published) = machine(here.path());
    let mut install = async |snapshot: &super::super::network::RaftSnapshot| {
        receiver
            .install_snapshot(&snapshot.meta, snapshot.snapshot.clone())
            .await
            .map(|()| receiver.applied.index())
    };
    assert_eq!(install(&old).await.unwrap(), 2);
    assert_eq!(install(&new).await.unwrap(), 4);
    // The same again is nothing new.
    assert_eq!(install(&new).await.unwrap(), 4);
    let error = install(&old).await.unwrap_err();
    assert!(
        error.to_string().contains("ends at entry 2"),
        "names both: {error}"
    );
    assert_eq!(published.applied.borrow().state.revision(), 4);
    let (again, _) = machine(here.path());
    assert_eq!(again.applied.index(), 4, "nor on disk");

    // Applied from the log, in no snapshot yet.
    let elsewhere = tempfile::tempdir().unwrap();
    let (mut applied, published) = machine(elsewhere.path());
    apply(&mut applied, (1..=3).map(create).collect())
        .await
        .unwrap();
    let refused = applied.install_snapshot(&old.meta, old.snapshot.clone());
    assert!(refused.await.is_err());
    assert_eq!(published.applied.borrow().state.revision(), 3);
}
