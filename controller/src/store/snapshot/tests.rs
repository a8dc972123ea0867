#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;

use hive_manifests::Resource;
use serde_json::json;

use super::*;
use crate::state::{Command, Key};
use crate::store::seal::keys::Keys;
use crate::store::types::{LeaderId, LogId, StoredMembership};

fn state(objects: u64) -> State {
    let mut state = State::default();
    for number in 0..objects {
        let name = format!("o{number}");
        let body = json!({ "metadata": { "name": name }, "data": { "number": number } });
        let key = Key::new(Resource::ConfigMap, "default", name);
        state
            .apply(Command::Create {
                key,
                body: body.into(),
            })
            .unwrap();
    }
    state
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(LogId {
            leader_id: LeaderId {
                term: 2,
                node_id: 1,
            },
            index,
        }),
        last_membership: StoredMembership::default(),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_newest_snapshot_is_found_again_and_two_are_kept() {
    for keys in [Keys::default(), Keys::of(1)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
        assert!(snapshots.current().is_none());
        for index in [5, 9, 10, 100] {
            snapshots.write(&meta(index), &state(index)).unwrap();
        }
        let kept = names(directory.path());
        assert_eq!(kept.len(), 2, "{kept:?}");

        let again = Snapshots::open(directory.path(), keys.clone()).unwrap();
        let current = again.current().unwrap();
        assert_eq!(*current.meta(), meta(100));
        assert_eq!(current.load().unwrap().image(), state(100).image());
    }
}

#[test]
fn a_snapshot_being_read_outlives_its_successors() {
    for keys in [Keys::default(), Keys::of(1)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
        let old = snapshots.write(&meta(1), &state(3)).unwrap();
        for index in 2..6 {
            snapshots.write(&meta(index), &state(1)).unwrap();
        }
        assert_eq!(old.load().unwrap().image(), state(3).image());
    }
}

#[test]
fn what_an_interrupted_write_left_is_removed_and_never_read() {
    for keys in [Keys::default(), Keys::of(1)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
        snapshots.write(&meta(1), &state(3)).unwrap();
        drop(snapshots.receive().unwrap());
        assert_eq!(
            names(directory.path()).len(),
            1,
            "given up: nothing is left"
        );

        fs::write(directory.path().join("7.partial"), b"half").unwrap();
        let again = Snapshots::open(directory.path(), keys.clone()).unwrap();
        assert_eq!(names(directory.path()).len(), 1);
        assert_eq!(*again.current().unwrap().meta(), meta(1));
    }
}

/// Every byte flipped and every length cut: found, named, with the repair; never served.
#[test]
fn a_damaged_snapshot_is_named_and_never_served() {
    for keys in [Keys::default(), Keys::of(1)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
        snapshots.write(&meta(1), &state(4)).unwrap();
        let [name] = &names(directory.path())[..] else {
            panic!("one file")
        };
        let path = directory.path().join(name);
        let good = fs::read(&path).unwrap();
        let damaged = |bytes: &[u8], what: &str| {
            fs::write(&path, bytes).unwrap();
            let error = Snapshots::open(directory.path(), keys.clone())
                .and_then(|snapshots| snapshots.current().unwrap().load())
                .err()
                .unwrap_or_else(|| panic!("{what} went unnoticed"));
            let text = error.to_string();
            assert!(text.contains(name.as_str()), "{what}: {text}");
            assert!(text.contains("join it again"), "{what}: {text}");
            assert!(path.exists(), "{what}: kept for a person to look at");
        };
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            damaged(&bytes, &format!("a flip in byte {at}"));
            damaged(&good[..at], &format!("a cut at byte {at}"));
        }
        let mut longer = good.clone();
        longer.push(0);
        damaged(&longer, "a byte more");
    }
}

#[test]
fn a_snapshot_sent_in_chunks_arrives_whole_or_not_at_all() {
    let there = tempfile::tempdir().unwrap();
    // Each has a key of its own; what travels is the content.
    let sent = Snapshots::open(there.path(), Keys::of(1))
        .unwrap()
        .write(&meta(8), &state(50))
        .unwrap();
    let here = tempfile::tempdir().unwrap();
    let keys = Keys::of(2);
    let snapshots = Snapshots::open(here.path(), keys.clone()).unwrap();
    let receive = |skip: Option<u64>| {
        let mut receiving = snapshots.receive().unwrap();
        let mut offset = 0;
        for number in 0.. {
            let chunk = sent.read_at(offset, 100).unwrap();
            if chunk.is_empty() {
                break;
            }
            offset += chunk.len() as u64;
            if skip != Some(number) {
                receiving.write(&chunk).unwrap();
            }
        }
        receiving
    };
    for skip in 0..3 {
        let error = receive(Some(skip)).finish(&meta(8)).err().unwrap();
        assert!(matches!(error, SnapshotError::Damaged { .. }), "{error}");
    }
    let error = receive(None).finish(&meta(9)).err().unwrap();
    assert!(error.to_string().contains("announced"), "{error}");
    assert!(snapshots.current().is_none());
    assert_eq!(names(here.path()), [] as [&str; 0]);

    let received = receive(None).finish(&meta(8)).unwrap();
    assert!(snapshots.current().is_none(), "not before it is adopted");
    snapshots.adopt(&received).unwrap();
    drop(received);
    assert_eq!(names(here.path()).len(), 1);
    let current = snapshots.current().unwrap();
    assert_eq!(current.load().unwrap().image(), state(50).image());
}

#[test]
fn every_file_is_sealed_and_no_content_shows() {
    let marker = json!({ "metadata": { "name": "s" }, "data": { "marker": "VmVyeSBzZWNyZXQ" } });
    let key = Key::new(Resource::Secret, "default", "s");
    let mut state = state(3);
    state
        .apply(Command::Create {
            key,
            body: marker.into(),
        })
        .unwrap();
    for (keys, shows) in [(Keys::default(), true), (Keys::of(1), false)] {
        let directory = tempfile::tempdir().unwrap();
        let snapshots = Snapshots::open(directory.path(), keys).unwrap();
        let made = snapshots.write(&meta(1), &state).unwrap();
        let mut receiving = snapshots.receive().unwrap();
        receiving.write(&made.read_at(0, 1 << 20).unwrap()).unwrap();
        let received = receiving.finish(&meta(1)).unwrap();
        let files = names(directory.path());
        assert_eq!(files.len(), 2, "{files:?}");
        for name in files {
            let bytes = fs::read(directory.path().join(&name)).unwrap();
            // What follows the checksum of the seal is compressed, so its first bytes are looked for.
            let found = bytes.windows(8).any(|window| window == b"hivesnp2");
            assert_eq!(found, shows, "{name}");
        }
        drop(received);
    }
}

#[test]
fn snapshots_are_written_anew_when_another_key_comes_first() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Keys::default();
    let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
    snapshots.write(&meta(1), &state(3)).unwrap();
    snapshots.write(&meta(2), &state(4)).unwrap();
    let reading = snapshots.current().unwrap();
    for held in [&[1][..], &[2, 1], &[1, 2]] {
        keys.set(held);
        snapshots.renew_seals().unwrap();
        let expected = BTreeMap::from([(keys.first(), 2)]);
        assert_eq!(snapshots.seals().unwrap(), expected);
    }
    assert_eq!(names(directory.path()).len(), 2);
    assert_eq!(reading.load().unwrap().image(), state(4).image());
    let current = snapshots.current().unwrap();
    assert_eq!(current.load().unwrap().image(), state(4).image());
    let again = Snapshots::open(directory.path(), Keys::of(1)).unwrap();
    assert_eq!(
        again.current().unwrap().load().unwrap().image(),
        state(4).image()
    );

    // Without the key nothing is read, and nothing changed.
    fs::write(directory.path().join("7.partial"), b"half").unwrap();
    for others in [Keys::default(), Keys::of(3)] {
        let error = Snapshots::open(directory.path(), others).err().unwrap();
        assert!(matches!(error, SnapshotError::Key { .. }), "{error}");
        assert_eq!(names(directory.path()).len(), 3);
    }
}

/// The file with one of its bytes changed.
fn damage(path: &Path, place: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[place] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_older_snapshot_does_not_keep_a_key_in_use() {
    // In the seal's header, and in what is sealed.
    for place in [0, 300] {
        let directory = tempfile::tempdir().unwrap();
        let keys = Keys::of(1);
        let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
        snapshots.write(&meta(1), &state(3)).unwrap();
        snapshots.write(&meta(2), &state(4)).unwrap();
        let files = names(directory.path());
        damage(&directory.path().join(&files[0]), place);
        keys.set(&[2, 1]);
        snapshots.seals().unwrap();
        snapshots.renew_seals().unwrap();
        assert_eq!(names(directory.path()), files[1..]);
        let expected = BTreeMap::from([(keys.first(), 1)]);
        assert_eq!(snapshots.seals().unwrap(), expected);
        let current = snapshots.current().unwrap();
        assert_eq!(current.load().unwrap().image(), state(4).image());
    }
}

#[test]
fn a_damaged_newest_snapshot_stays_and_so_does_the_one_before() {
    let directory = tempfile::tempdir().unwrap();
    let keys = Keys::of(1);
    let snapshots = Snapshots::open(directory.path(), keys.clone()).unwrap();
    snapshots.write(&meta(1), &state(3)).unwrap();
    snapshots.write(&meta(2), &state(4)).unwrap();
    let files = names(directory.path());
    for file in &files {
        damage(&directory.path().join(file), 300);
    }
    keys.set(&[2, 1]);
    let error = snapshots.renew_seals().unwrap_err().to_string();
    assert!(error.contains(&files[1]), "{error}");
    assert_eq!(names(directory.path()), files);
}
