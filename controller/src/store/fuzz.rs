//! What the store reads from its disk and from other controllers, damaged in every way.
//!
//! Where a checksum stands before the content, it is made right again: what is behind it must hold
//! by itself, for a peer can send a right checksum of anything.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hive_fuzz::Target;
use hive_manifests::Resource;
use openraft::raft::AppendEntriesRequest;
use openraft::{EntryPayload, Membership};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::codec;
use super::disk::Disk;
use super::disk::simulated::Simulated;
use super::log::record::{Record, Standing};
use super::log::segments::Segments;
use super::network::{SnapshotHeader, VoteMessage};
use super::seal::keys::Keys;
use super::snapshot::Snapshots;
use super::types::{Entry, LeaderId, LogId, Proposal, SnapshotMeta, StoredMembership, Vote};
use crate::state::{Command, Key, Member, State, metering};

fn id(term: u64, index: u64) -> LogId {
    LogId {
        leader_id: LeaderId { term, node_id: 1 },
        index,
    }
}

fn vote() -> Vote {
    Vote {
        leader_id: LeaderId {
            term: 2,
            node_id: 1,
        },
        committed: true,
    }
}

fn create(name: &str) -> Command {
    Command::Create {
        key: Key::new(Resource::ConfigMap, "default", name),
        body: json!({
            "metadata": { "name": name, "labels": { "a": "b" }, "uid": "u" },
            "data": { "text": "t" },
        })
        .into(),
    }
}

fn commands() -> Vec<Command> {
    vec![
        create("one"),
        Command::Replace {
            key: Key::new(Resource::ConfigMap, "default", "one"),
            body: json!({ "metadata": { "name": "one" }, "data": {} }).into(),
            expect: Some(1),
        },
        Command::Delete {
            key: Key::new(Resource::ConfigMap, "default", "one"),
            expect: None,
            uid: Some("u".to_owned()),
        },
        Command::AdmitController {
            member: Member::default(),
        },
        Command::RaiseLevel { to: 1 },
        Command::RegisterArtifact {
            sha256: "ab".repeat(32),
            size: 7,
        },
        Command::Meter {
            batch: metering::Batch {
                device: "d".to_owned(),
                origin: "o".to_owned(),
                sequence: 1,
                at_unix_ms: 1,
                entries: vec![metering::Entry::default()],
            },
        },
        Command::Batch {
            commands: vec![create("two"), Command::RemoveController { id: 1 }],
        },
    ]
}

fn membership() -> Membership<u64, Member> {
    Membership::new_with_defaults(vec![[1, 2].into()], [])
}

fn entries() -> Vec<Entry> {
    let normal = |command: &Command| EntryPayload::Normal(Proposal::encode(command).unwrap());
    let commands = commands();
    let payloads = [EntryPayload::Membership(membership()), EntryPayload::Blank]
        .into_iter()
        .chain(commands.iter().map(normal));
    let entries = payloads.enumerate().map(|(index, payload)| Entry {
        log_id: id(1, index as u64),
        payload,
    });
    entries.collect()
}

/// A command that another controller forwards, applied to a state.
#[test]
fn commands_are_read_or_refused() {
    let mut state = State::default();
    state.apply(create("one")).unwrap();
    Target::new("command", |input: &[u8]| {
        let proposal = Proposal::from_encoded(Bytes::copy_from_slice(input))
            .map_err(|error| error.to_string())?;
        let command = proposal.decode().map_err(|error| error.to_string())?;
        let again = Command::decode(command.encode()).map_err(|error| error.to_string());
        assert_eq!(again.as_ref(), Ok(&command));
        command.check().map_err(|error| error.to_string())?;
        let mut state = state.clone();
        // Refusals are answers.
        let _ = state.apply(command);
        let mut image = Vec::new();
        state.image().write(&mut image).unwrap();
        let read = crate::state::StateImage::read(&mut &image[..]).unwrap();
        let mut written = Vec::new();
        read.write(&mut written).unwrap();
        assert_eq!(written, image, "a snapshot gives what was applied");
        for object in state.list(Resource::ConfigMap, None) {
            object.labels();
            object.uid();
            object.body();
        }
        Ok::<_, String>(())
    })
    .seeds(commands().iter().map(Command::encode))
    .words([
        "\"Create\"",
        "\"Replace\"",
        "\"Delete\"",
        "\"RemoveController\"",
        "\"MoveController\"",
        "\"ForgetArtifact\"",
        "\"Batch\"",
        "{\"id\":1}",
        "\"expect\":null",
        "\"metadata\":",
        "\"resourceVersion\":\"1\",",
        "\"labels\":",
        "\\u0061",
    ])
    .at_most(4 * 1024)
    .hold();
}

#[test]
fn appends_are_read_or_refused() {
    let request = |entries: Vec<Entry>| {
        codec::put_append(&AppendEntriesRequest {
            vote: vote(),
            prev_log_id: Some(id(1, 0)),
            entries,
            leader_commit: Some(id(1, 0)),
        })
    };
    Target::new("append", |input: &[u8]| {
        let body = Bytes::copy_from_slice(input);
        let read = codec::get_append(body).map_err(|error| error.to_string())?;
        let written = codec::put_append(&read);
        let again = codec::get_append(written.clone()).unwrap();
        assert_eq!(codec::put_append(&again), written);
        assert_eq!(again.entries, read.entries);
        for entry in &read.entries {
            assert!(codec::entry_size(entry) > 0);
        }
        Ok::<_, String>(())
    })
    .seeds([request(Vec::new()), request(entries())])
    .words([
        "\"configs\":",
        "\"nodes\":",
        "[[1,2],[3]]",
        "null",
        "\x02",
        "\0\0\0\0",
    ])
    .at_most(16 * 1024)
    .hold();
}

#[test]
fn messages_are_read_or_refused() {
    let header = SnapshotHeader {
        vote: vote(),
        meta: SnapshotMeta {
            last_log_id: Some(id(1, 9)),
            last_membership: StoredMembership::new(Some(id(1, 3)), membership()),
        },
    };
    let asks = VoteMessage {
        pre_vote: true,
        request: openraft::raft::VoteRequest::new(vote(), Some(id(1, 9))),
    };
    Target::new("raft_messages", |input: &[u8]| {
        let header = codec::get_message::<SnapshotHeader>(input);
        if let Ok(header) = &header {
            codec::put_message(header);
        }
        let vote = codec::get_message::<VoteMessage>(input);
        match (header, vote) {
            (Err(error), Err(_)) => Err(error.to_string()),
            _ => Ok(()),
        }
    })
    .seeds([codec::put_message(&header), codec::put_message(&asks)])
    .words([
        "\"pre_vote\":",
        "\"nodes\":",
        "\"configs\":",
        "null",
        "[]",
        "{}",
    ])
    .at_most(8 * 1024)
    .hold();
}

/// As a disk that holds only this file.
fn disk_with(name: &str, content: &[u8]) -> Simulated {
    let disk = Simulated::new(1);
    let file = disk.create(name).unwrap();
    file.write_all_at(0, content).unwrap();
    disk
}

/// The framing of each record, as far as lengths lead, made right.
fn reseal(input: &mut [u8]) {
    let mut offset = 0;
    while let Some(frame) = input.get(offset..offset + 8) {
        let length = u32::from_le_bytes(frame[..4].try_into().unwrap()) as usize;
        let end = offset.saturating_add(8).saturating_add(length);
        let Some(content) = input.get(offset + 8..end) else {
            return;
        };
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&1_u64.to_le_bytes());
        hasher.update(&(offset as u64).to_le_bytes());
        hasher.update(&(length as u64).to_le_bytes());
        hasher.update(content);
        let sum = hasher.finalize().to_le_bytes();
        input[offset + 4..offset + 8].copy_from_slice(&sum);
        offset = end;
    }
}

/// One segment, read as at a start: then what is there can be read, and more can be written.
#[test]
fn segments_are_read_or_refused() {
    let records = [
        vec![Record::Header {
            segment: 1,
            standing: Standing::default(),
        }],
        entries().into_iter().map(Record::Entry).collect(),
        vec![
            Record::Vote(vote()),
            Record::Truncate { from: 6 },
            Record::Entry(Entry {
                log_id: id(2, 6),
                payload: EntryPayload::Blank,
            }),
            Record::Purge(id(1, 2)),
            Record::Committed(id(1, 3)),
        ],
    ]
    .concat();
    let mut segment = BytesMut::new();
    for record in &records {
        let offset = segment.len() as u64;
        record.put(&mut segment, 1, offset, None);
    }
    Target::new("segment", |input: &[u8]| {
        let disk = disk_with("0000000000000001.log", input);
        let opened = Segments::open(Arc::new(disk.clone()), 1 << 20, Keys::default());
        let (mut segments, recovered) = opened.map_err(|error| error.in_full())?;
        for (id, place) in &recovered.entries {
            match super::log::segments::read_record(&disk, segments.seals(), *place).unwrap() {
                Record::Entry(entry) => assert_eq!(entry.log_id, *id),
                other => panic!("{other:?} where entry {id} should be"),
            }
        }
        let last = recovered.entries.back().map(|(id, _)| id.index);
        let cut = recovered.cut.is_some();
        let next = Record::Vote(vote());
        segments.write(&[next]).unwrap();
        segments.close().unwrap();
        let (_, again) = Segments::open(Arc::new(disk), 1 << 20, Keys::default()).unwrap();
        assert_eq!(again.entries.back().map(|(id, _)| id.index), last);
        match cut {
            // Never acknowledged.
            true => Err("a torn tail".to_owned()),
            false => Ok(()),
        }
    })
    .seeds([segment])
    .words(["\x04", "\x05", "\x02", "\"purged\":null"])
    .repaired(|input| reseal(input))
    .at_most(8 * 1024)
    .hold();
}

/// A snapshot as another controller sends it.
#[test]
fn snapshots_are_read_or_refused() {
    let mut state = State::default();
    for name in ["one", "two"] {
        state.apply(create(name)).unwrap();
    }
    let meta = SnapshotMeta {
        last_log_id: Some(id(1, 9)),
        last_membership: StoredMembership::new(Some(id(1, 3)), membership()),
    };
    let sent = Snapshots::on(Arc::new(Simulated::new(1)), Keys::default()).unwrap();
    let sent = sent.write(&meta, &state).unwrap();
    let good = sent.read_at(0, 1 << 20).unwrap();
    let sum = |input: &mut Vec<u8>| {
        if let Some(end) = input.len().checked_sub(32) {
            let sum = Sha256::digest(&input[..end]);
            input[end..].copy_from_slice(&sum);
        }
    };
    // What is compressed, as it is before: an image, between whose parts a byte makes another.
    let meta_end = 12 + u32::from_le_bytes(good[8..12].try_into().unwrap()) as usize;
    let image = zstd::decode_all(&good[meta_end..good.len() - 32]).unwrap();
    let head = good[..meta_end].to_vec();
    let open = |file: &[u8]| {
        let here = Snapshots::on(Arc::new(Simulated::new(1)), Keys::default()).unwrap();
        let mut receiving = here.receive().unwrap();
        receiving.write(file).unwrap();
        let received = receiving.finish(&meta).map_err(|error| error.to_string())?;
        let state = received.load().map_err(|error| error.to_string())?;
        for object in state.list(Resource::ConfigMap, None) {
            object.labels();
            object.uid();
        }
        here.adopt(&received).unwrap();
        let kept = here.current().unwrap().load().unwrap();
        assert!(kept.image() == state.image());
        Ok::<_, String>(())
    };
    Target::new("snapshot_file", open)
        .seeds([&good])
        .repaired(sum)
        .at_most(8 * 1024)
        .hold();
    Target::new("snapshot_image", |input: &[u8]| {
        let mut file = head.clone();
        file.extend(zstd::encode_all(input, 1).unwrap());
        file.extend([0; 32]);
        sum(&mut file);
        open(&file)
    })
    .seeds([image])
    .words([
        "\"objects\":",
        "\"revision\":",
        "\"keys\":{",
        "{}",
        "null",
        "\0\0\0\0",
    ])
    .at_most(8 * 1024)
    .hold();
}

/// The mark of what was synced is only ever believed where it is whole.
#[test]
fn marks_are_read_or_passed_over() {
    let slot = |sequence: u64, length: u64| {
        let mut slot = Vec::new();
        slot.extend(sequence.to_le_bytes());
        slot.extend(1_u64.to_le_bytes());
        slot.extend(length.to_le_bytes());
        slot.extend(crc32fast::hash(&slot).to_le_bytes());
        slot
    };
    let mut good = vec![0; 1024];
    good[..28].copy_from_slice(&slot(4, 100));
    good[512..540].copy_from_slice(&slot(5, 200));
    Target::new("mark", |input: &[u8]| {
        let disk = disk_with("synced", input);
        let (mut mark, synced) = super::log::mark::Mark::open(&disk).map_err(|e| e.to_string())?;
        let synced = synced.ok_or("nothing known")?;
        mark.set(synced).unwrap();
        let (_, again) = super::log::mark::Mark::open(&disk).unwrap();
        assert_eq!(again, Some(synced));
        Ok::<_, String>(())
    })
    .seeds([good])
    .repaired(|input| {
        for start in [0, 512] {
            if let Some(slot) = input.get_mut(start..start + 28) {
                let sum = crc32fast::hash(&slot[..24]);
                slot[24..].copy_from_slice(&sum.to_le_bytes());
            }
        }
    })
    .at_most(2 * 1024)
    .hold();
}

/// What lies sealed on the disk: nothing that was not sealed so, in this place, with a key that is
/// there, is ever read. The salts are fresh in each run.
#[test]
fn sealed_files_are_read_or_refused() {
    let keys = Keys::of(1);
    let good = Simulated::new(1);
    let (mut segments, _) = Segments::open(Arc::new(good.clone()), 1 << 20, keys.clone()).unwrap();
    let records: Vec<Record> = entries().into_iter().map(Record::Entry).collect();
    segments.write(&records).unwrap();
    segments.close().unwrap();
    let segment = good.content("0000000000000001.log");
    Target::new("sealed_segment", |input: &[u8]| {
        let disk = disk_with("0000000000000001.log", input);
        let opened = Segments::open(Arc::new(disk.clone()), 1 << 20, keys.clone());
        let (segments, recovered) = opened.map_err(|error| error.in_full())?;
        for (index, (id, place)) in recovered.entries.iter().enumerate() {
            let read = super::log::segments::read_record(&disk, segments.seals(), *place);
            assert_eq!(read.unwrap(), records[index], "entry {id}");
        }
        match recovered.cut.is_some() || recovered.entries.is_empty() {
            true => Err("nothing, or a torn tail".to_owned()),
            false => Ok(()),
        }
    })
    .seeds([segment])
    .repaired(|input| reseal(input))
    .at_most(8 * 1024)
    .hold();

    let text = "-----BEGIN PRIVATE KEY-----";
    let sealed = super::seal::text::seal(&keys, "key.pem", text);
    Target::new("sealed_text", |input: &[u8]| {
        let stored = hive_fuzz::text(input)?;
        let opened = super::seal::text::open(&keys, "key.pem", stored);
        let opened = opened.map_err(|error| error.to_string())?;
        match super::seal::text::key_of(stored) {
            Some(_) => assert_eq!(opened, text),
            // Not sealed: a file from before there were keys.
            None => assert_eq!(opened, stored),
        }
        Ok::<_, String>(())
    })
    .seeds([sealed.as_str(), text])
    .words([
        "\"seal\":",
        "\"key\":",
        "\"salt\":",
        "\"content\":",
        "null",
        "\"\"",
    ])
    .at_most(2 * 1024)
    .hold();
}

#[test]
fn key_files_are_read_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let line = super::seal::keys::generate_line();
    Keys::load_or_create(&path).unwrap();
    Target::new("key_file", |input: &[u8]| {
        std::fs::write(&path, input).unwrap();
        let keys = Keys::load(&path).map_err(|error| error.to_string())?;
        assert!(keys.first().is_none_or(|first| keys.ids().contains(&first)));
        Ok::<_, String>(())
    })
    .seeds([
        format!("# keys\n{line}\nidentity\n"),
        format!("identity\n{line} # old\n"),
    ])
    .words(["#", "\n", "identity", "=", " "])
    .at_most(2 * 1024)
    .hold();
}
