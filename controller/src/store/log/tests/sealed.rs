//! Sealed segments: nothing shows, nothing opens elsewhere, and another key means another segment.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;

use super::super::record::{FRAME_BYTES, Record, RecordError, Standing, put_first};
use super::super::replay::{MAX_HEADER_BYTES, OpenError};
use super::super::segments::{Segments, name};
use super::{Model, entry, log_id, open, vote};
use crate::store::disk::Disk;
use crate::store::disk::simulated::Simulated;
use crate::store::seal::Purpose;
use crate::store::seal::keys::Keys;
use crate::store::types::{LeaderId, LogId, Vote};

const BIG_SEGMENT: u64 = 1 << 20;

fn open_big(disk: &Simulated, keys: &Keys) -> Segments {
    let disk = Arc::new(disk.clone());
    Segments::open(disk, BIG_SEGMENT, keys.clone()).unwrap().0
}

fn write(segments: &mut Segments, indexes: std::ops::Range<u64>) {
    for index in indexes {
        segments.write(&[Record::Entry(entry(1, index))]).unwrap();
    }
    segments.sync().unwrap();
}

fn shows(disk: &Simulated, text: &str) -> bool {
    let files = disk.durable_files();
    files.iter().any(|(_, bytes)| {
        bytes
            .windows(text.len())
            .any(|window| window == text.as_bytes())
    })
}

#[test]
fn nothing_of_an_entry_shows_unless_it_is_not_sealed() {
    for (keys, expected) in [(Keys::default(), true), (Keys::of(1), false)] {
        let disk = Simulated::new(1);
        let mut segments = open_big(&disk, &keys);
        segments.write(&[Record::Vote(vote(7))]).unwrap();
        write(&mut segments, 0..3);
        segments.close().unwrap();
        for text in ["1-2", "entry", "leader_id"] {
            assert_eq!(shows(&disk, text), expected, "{text}");
        }
    }
}

#[test]
fn another_key_seals_another_segment() {
    let disk = Simulated::new(1);
    let keys = Keys::default();
    let mut segments = open_big(&disk, &keys);
    write(&mut segments, 0..3);
    let mut expected = BTreeMap::from([(None, 1)]);
    assert_eq!(segments.seals().count(), expected);
    for (at, held) in [(3, &[1][..]), (6, &[2, 1]), (9, &[2, 1])] {
        keys.set(held);
        if at == 9 {
            // Also after a restart, with the first key as before: no further segment is needed.
            drop(segments);
            segments = open_big(&disk, &keys);
        }
        write(&mut segments, at..at + 3);
        expected.insert(keys.first(), 1);
        assert_eq!(segments.seals().count(), expected);
    }
    segments.close().unwrap();
    let (again, recovered) =
        Segments::open(Arc::new(disk.clone()), BIG_SEGMENT, keys.clone()).unwrap();
    assert_eq!(Model::read(&disk, &again, &recovered).entries.len(), 12);

    // Once its entries are purged, nothing is left of the old keys, and they can go.
    let mut segments = again;
    segments.write(&[Record::Purge(log_id(1, 8))]).unwrap();
    segments.renew_seal().unwrap();
    assert_eq!(
        segments.seals().count(),
        BTreeMap::from([(keys.first(), 1)])
    );
    segments.close().unwrap();
    let (segments, recovered) = open(&disk, &Keys::of(2)).unwrap();
    assert_eq!(Model::read(&disk, &segments, &recovered).entries.len(), 3);
}

#[test]
fn an_idle_log_gets_a_new_segment_when_asked() {
    let disk = Simulated::new(1);
    let keys = Keys::of(1);
    let mut segments = open_big(&disk, &keys);
    segments
        .write(&[Record::Vote(vote(7)), Record::Purge(log_id(1, 0))])
        .unwrap();
    keys.set(&[2, 1]);
    segments.renew_seal().unwrap();
    segments.renew_seal().unwrap();
    segments.close().unwrap();
    assert!(!disk.has(&name(1)) && disk.has(&name(2)) && !disk.has(&name(3)));
    let (_, recovered) = open(&disk, &Keys::of(2)).unwrap();
    assert_eq!(recovered.standing.vote, Some(vote(7)));
}

#[test]
fn without_its_key_a_log_is_left_alone_and_says_what_it_needs() {
    let disk = Simulated::new(1);
    let mut segments = open_big(&disk, &Keys::of(1));
    write(&mut segments, 0..3);
    // A torn tail would be cut.
    segments.write(&[Record::Entry(entry(1, 3))]).unwrap();
    let mut torn = disk.content(&name(1));
    torn.truncate(torn.len() - 1);
    disk.set_content(&name(1), torn);
    disk.settle();
    let before = disk.durable_files();
    for others in [Keys::default(), Keys::of(2)] {
        let error = open(&disk, &others).err().unwrap();
        assert!(matches!(error, OpenError::Key { .. }), "{error}");
        assert!(error.to_string().contains(&name(1)), "{error}");
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains("--encryption-key-file"), "{cause}");
        assert!(
            cause.contains(&Keys::of(1).first().unwrap().to_string()),
            "{cause}"
        );
        assert_eq!(disk.durable_files(), before);
    }
    open(&disk, &Keys::of(1)).unwrap();
}

/// The torn tail's place is written again with the same key: were the nonce the place, whoever has
/// both images of the disk would learn what differs.
#[test]
fn a_place_written_twice_shows_nothing_of_what_is_equal() {
    let disk = Simulated::new(1);
    let mut segments = open_big(&disk, &Keys::of(1));
    write(&mut segments, 0..2);
    let kept = disk.content(&name(1)).len();
    segments.write(&[Record::Entry(entry(1, 2))]).unwrap();
    let first = disk.content(&name(1))[kept..].to_vec();
    // The power goes before the sync, and the sectors are as they were.
    let image = disk.content(&name(1))[..kept].to_vec();
    disk.set_content(&name(1), image);
    let mut segments = open_big(&disk, &Keys::of(1));
    segments.write(&[Record::Entry(entry(1, 2))]).unwrap();
    let second = disk.content(&name(1))[kept..].to_vec();
    assert_eq!(first.len(), second.len());
    let equal = |(a, b): &(&u8, &u8)| a == b;
    let behind = first.iter().zip(&second).skip(FRAME_BYTES);
    let matching = behind.clone().filter(equal).count();
    assert!(matching < behind.count() / 4, "{matching} bytes are equal");
}

/// Who alters a file on purpose also sets the checksum. Even behind the mark that is no torn write.
#[test]
fn what_was_altered_or_moved_is_named_although_its_checksum_is_right() {
    let disk = Simulated::new(1);
    let mut segments = open_big(&disk, &Keys::of(1));
    segments.sync().unwrap();
    let start = disk.content(&name(1)).len();
    write(&mut segments, 0..1);
    let one = disk.content(&name(1)).len();
    write(&mut segments, 1..2);
    let good = disk.content(&name(1));
    let length = one - start;
    assert_eq!(good.len(), one + length);

    let mut altered = good.clone();
    altered[start + FRAME_BYTES + 20] ^= 1;
    fix_checksum(&mut altered[start..one], start);
    let mut swapped = good[..start].to_vec();
    swapped.extend_from_slice(&good[one..]);
    swapped.extend_from_slice(&good[start..one]);
    fix_checksum(&mut swapped[start..one], start);
    fix_checksum(&mut swapped[one..], one);
    for (what, bytes) in [("altered", altered), ("swapped", swapped)] {
        let damaged = disk.copy();
        damaged.set_content(&name(1), bytes);
        damaged.remove("synced").unwrap();
        let error = open(&damaged, &Keys::of(1)).err().unwrap();
        let OpenError::Damaged { offset, source, .. } = &error else {
            panic!("{what}: {error}");
        };
        assert_eq!(*offset, start as u64, "{what}");
        assert!(matches!(source, RecordError::Seal(_)), "{what}: {source}");
        assert!(error.to_string().contains("join it again"), "{error}");
    }
}

fn fix_checksum(record: &mut [u8], offset: usize) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&1u64.to_le_bytes());
    hasher.update(&(offset as u64).to_le_bytes());
    hasher.update(&((record.len() - FRAME_BYTES) as u64).to_le_bytes());
    hasher.update(&record[FRAME_BYTES..]);
    let checksum = hasher.finalize();
    record[4..8].copy_from_slice(&checksum.to_le_bytes());
}

/// A torn header is told from rot by its length.
#[test]
fn the_longest_header_is_no_longer_than_a_header_may_be() {
    let id = LogId {
        leader_id: LeaderId {
            term: u64::MAX,
            node_id: u64::MAX,
        },
        index: u64::MAX,
    };
    let standing = Standing {
        vote: Some(Vote {
            leader_id: id.leader_id,
            committed: false,
        }),
        purged: Some(id),
        committed: Some(id),
    };
    let sealer = Keys::of(1).begin(Purpose::LogSegment);
    let longest = put_first(u64::MAX, standing, sealer.as_ref()).len() as u64;
    assert!(longest < MAX_HEADER_BYTES, "{longest}");
}
