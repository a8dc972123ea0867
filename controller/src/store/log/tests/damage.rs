//! Torn tails are cut; damage to what was acknowledged is found and named, never served.

use std::sync::Arc;

use super::super::record::Record;
use super::super::replay::OpenError;
use super::super::segments::{Segments, name};
use super::{Model, SMALL_SEGMENT, entry, log_id, open, plain_and_sealed, vote};
use crate::store::disk::Disk;
use crate::store::disk::simulated::Simulated;
use crate::store::seal::keys::Keys;

fn records() -> Vec<Record> {
    let mut records = vec![Record::Vote(vote(1))];
    records.extend((0..8).map(|index| Record::Entry(entry(1, index))));
    records.push(Record::Truncate { from: 6 });
    records.push(Record::Vote(vote(2)));
    records.extend((6..12).map(|index| Record::Entry(entry(2, index))));
    records.push(Record::Committed(log_id(2, 9)));
    records.push(Record::Purge(log_id(1, 2)));
    records
}

/// A log of several segments, every byte of it acknowledged.
fn small_log(keys: &Keys) -> (Simulated, Model) {
    let disk = Simulated::new(1);
    let (mut segments, _) = open(&disk, keys).unwrap();
    let mut model = Model::default();
    for record in records() {
        segments.write(std::slice::from_ref(&record)).unwrap();
        segments.sync().unwrap();
        model.apply(&record);
    }
    segments.close().unwrap();
    disk.settle();
    (disk, model)
}

fn newest_segment(disk: &Simulated) -> String {
    let mut number = 1;
    while disk.copy().has(&name(number + 1)) {
        number += 1;
    }
    name(number)
}

fn is_repairable(error: &OpenError, file: &str) {
    let text = error.to_string();
    assert!(text.contains(file), "{text} names {file}");
    assert!(text.contains("join it again"), "{text} names the repair");
}

#[test]
fn a_log_holds_what_was_written_when_opened_again() {
    for keys in plain_and_sealed() {
        let (disk, model) = small_log(&keys);
        assert_ne!(newest_segment(&disk), name(1), "several segments");
        for _ in 0..2 {
            let (segments, recovered) = open(&disk, &keys).unwrap();
            assert_eq!(Model::read(&disk, &segments, &recovered), model);
            assert_eq!(recovered.cut, None);
        }
    }
}

#[test]
fn every_flipped_bit_is_found_and_named() {
    for keys in plain_and_sealed() {
        let (disk, model) = small_log(&keys);
        let mut segment = 1;
        while disk.has(&name(segment)) {
            let file = name(segment);
            let good = disk.content(&file);
            for byte in 0..good.len() {
                for bit in 0..8 {
                    let damaged = disk.copy();
                    let mut bytes = good.clone();
                    bytes[byte] ^= 1 << bit;
                    damaged.set_content(&file, bytes);
                    match open(&damaged, &keys) {
                        Ok(_) => panic!("{file}: bit {bit} of byte {byte} went unnoticed"),
                        Err(error @ OpenError::Damaged { offset, .. }) => {
                            is_repairable(&error, &file);
                            assert!(offset <= byte as u64);
                        }
                        Err(other) => panic!("{file}: bit {bit} of byte {byte}: {other}"),
                    }
                }
            }
            segment += 1;
        }
        // The mark only helps to tell; a flip in it costs nothing.
        let good = disk.content("synced");
        for byte in 0..good.len() {
            let damaged = disk.copy();
            let mut bytes = good.clone();
            bytes[byte] ^= 0x10;
            damaged.set_content("synced", bytes);
            let (segments, recovered) = open(&damaged, &keys).unwrap();
            assert_eq!(Model::read(&damaged, &segments, &recovered), model);
        }
    }
}

#[test]
fn an_acknowledged_file_cut_short_at_any_byte_is_named() {
    for keys in plain_and_sealed() {
        let (disk, _) = small_log(&keys);
        let file = newest_segment(&disk);
        let good = disk.content(&file);
        for length in 0..good.len() {
            let damaged = disk.copy();
            damaged.set_content(&file, good[..length].to_vec());
            match open(&damaged, &keys) {
                Err(error @ OpenError::Shortened { .. }) => is_repairable(&error, &file),
                Err(other) => panic!("cut at {length}: {other}"),
                Ok(_) => panic!("cut at {length} went unnoticed"),
            }
        }
    }
}

#[test]
fn a_missing_segment_is_named() {
    for keys in plain_and_sealed() {
        let (disk, _) = small_log(&keys);
        let newest = newest_segment(&disk);
        for file in [name(2), newest] {
            let damaged = disk.copy();
            damaged.remove(&file).unwrap();
            let error = open(&damaged, &keys).err().unwrap();
            is_repairable(&error, &file);
        }
    }
}

#[test]
fn a_torn_tail_is_cut_at_any_byte_and_reported() {
    for keys in plain_and_sealed() {
        let disk = Simulated::new(1);
        // One segment, so that the tail has something before it.
        let big = 1 << 20;
        let (mut segments, _) = Segments::open(Arc::new(disk.clone()), big, keys.clone()).unwrap();
        let mut states = vec![Model::default()];
        let mut ends = Vec::new();
        let mut wrote = |segments: &mut Segments, record: Record| {
            segments.write(std::slice::from_ref(&record)).unwrap();
            let mut next = states.last().unwrap().clone();
            next.apply(&record);
            states.push(next);
            ends.push(disk.content(&name(1)).len());
        };
        for index in 0..4 {
            wrote(&mut segments, Record::Entry(entry(1, index)));
        }
        segments.sync().unwrap();
        let synced = disk.content(&name(1)).len();
        for index in 4..8 {
            wrote(&mut segments, Record::Entry(entry(1, index)));
        }
        let whole = disk.content(&name(1));
        for length in synced..=whole.len() {
            for rubbish in [&b""[..], &[0; 40], &[0xa5; 40]] {
                let torn = disk.copy();
                let mut bytes = whole[..length].to_vec();
                bytes.extend_from_slice(rubbish);
                let written = bytes.len() as u64;
                torn.set_content(&name(1), bytes);
                let (mut segments, recovered) =
                    Segments::open(Arc::new(torn.clone()), big, keys.clone()).unwrap();
                let complete = ends.iter().filter(|end| **end <= length).count();
                assert_eq!(Model::read(&torn, &segments, &recovered), states[complete]);
                let kept = ends[complete - 1] as u64;
                match &recovered.cut {
                    None => assert_eq!(kept, written),
                    Some(cut) => {
                        assert_eq!((cut.kept, cut.removed), (kept, written - kept));
                        assert!(cut.path.ends_with(name(1)));
                    }
                }
                // And the log goes on from there.
                let next = recovered.entries.back().unwrap().0.index + 1;
                segments.write(&[Record::Entry(entry(2, next))]).unwrap();
                segments.close().unwrap();
                let (_, again) =
                    Segments::open(Arc::new(torn.clone()), SMALL_SEGMENT, keys.clone()).unwrap();
                assert_eq!(again.cut, None);
                assert_eq!(again.entries.back().unwrap().0, log_id(2, next));
            }
        }
    }
}

#[test]
fn purged_segments_are_removed_and_their_votes_kept() {
    for keys in plain_and_sealed() {
        let disk = Simulated::new(1);
        let (mut segments, _) = open(&disk, &keys).unwrap();
        segments.write(&[Record::Vote(vote(7))]).unwrap();
        for index in 0..100 {
            segments.write(&[Record::Entry(entry(1, index))]).unwrap();
        }
        segments.write(&[Record::Purge(log_id(1, 97))]).unwrap();
        segments.sync().unwrap();
        segments.remove_purged().unwrap();
        segments.close().unwrap();
        assert!(!disk.has(&name(1)));
        let (_, recovered) = open(&disk, &keys).unwrap();
        assert_eq!(recovered.standing.vote, Some(vote(7)));
        assert_eq!(recovered.standing.purged, Some(log_id(1, 97)));
        let left: Vec<u64> = recovered.entries.iter().map(|(id, _)| id.index).collect();
        assert_eq!(left, [98, 99]);
    }
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    for keys in plain_and_sealed() {
        let disk = Simulated::new(1);
        let (mut segments, _) = open(&disk, &keys).unwrap();
        segments.write(&[Record::Entry(entry(1, 0))]).unwrap();
        disk.fail_syncs(true);
        segments.sync().unwrap_err();
        disk.fail_syncs(false);
        // A second sync could succeed without the lost pages: it must not be believed.
        let error = segments.sync().unwrap_err();
        assert!(error.to_string().contains("earlier failure"), "{error}");
        segments.write(&[Record::Entry(entry(1, 1))]).unwrap_err();
    }
}
