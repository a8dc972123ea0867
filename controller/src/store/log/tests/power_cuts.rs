//! Thousands of power cuts at any moment of writing, opening and removing: what was acknowledged
//! is there, nothing is there that was never written, and the log always opens.

use super::super::record::Record;
use super::super::replay::OpenError;
use super::super::segments::Segments;
use super::{Model, entry, log_id, open, vote};
use crate::store::disk::simulated::{Random, Simulated};
use crate::store::seal::keys::Keys;

/// More with `HIVE_SEEDS=100000`.
const SEEDS: u64 = 2_000;
const CUTS_PER_SEED: usize = 4;

/// What the disk may hold: the acknowledged state, then the state after each record since.
struct Expected {
    possible: Vec<Model>,
}

impl Expected {
    fn newest(&self) -> &Model {
        self.possible.last().unwrap()
    }

    fn wrote(&mut self, record: &Record) {
        let mut next = self.newest().clone();
        next.apply(record);
        self.possible.push(next);
    }

    fn acknowledged(&mut self) {
        self.possible.drain(..self.possible.len() - 1);
    }
}

fn random_record(random: &mut Random, model: &Model) -> Record {
    let next = model.last().map_or(0, |id| id.index + 1);
    let term = 1 + model
        .last()
        .map_or(0, |id| id.leader_id.term)
        .max(model.standing.vote.map_or(0, |v| v.leader_id.term));
    match random.below(20) {
        0 => Record::Vote(vote(term)),
        1 if !model.entries.is_empty() => {
            // Raft never truncates what is committed, nor what is purged.
            let committed = model.standing.committed.map_or(0, |id| id.index);
            let first = (model.entries[0].log_id.index + 1)
                .max(committed + 1)
                .min(next);
            Record::Truncate {
                from: first + random.below(next - first + 1),
            }
        }
        2 | 3 if !model.entries.is_empty() => {
            let upto = random.below(model.entries.len() as u64) as usize;
            Record::Purge(model.entries[upto].log_id)
        }
        // A snapshot was installed from further on.
        4 if random.chance(20) => Record::Purge(log_id(term, next + random.below(5))),
        5 | 6 => match model.last() {
            Some(last) => Record::Committed(last),
            None => Record::Vote(vote(term)),
        },
        _ => Record::Entry(entry(term - 1 + random.below(2), next)),
    }
}

/// Writes until the power goes.
fn write_until_cut(
    segments: &mut Segments,
    random: &mut Random,
    expected: &mut Expected,
    keys: &Keys,
) -> std::io::Result<()> {
    loop {
        if keys.first().is_some() && random.chance(3) {
            // A person puts another key first.
            set_keys(keys, random);
            if random.chance(50) {
                segments.renew_seal()?;
            }
        }
        let mut purge = false;
        let mut batch = Vec::new();
        for _ in 0..=random.below(6) {
            let record = random_record(random, expected.newest());
            expected.wrote(&record);
            purge |= matches!(record, Record::Purge(_));
            batch.push(record);
        }
        segments.write(&batch)?;
        if purge || random.chance(80) {
            segments.sync()?;
            expected.acknowledged();
        }
        if purge {
            segments.remove_purged()?;
        }
    }
}

const KEYS: u64 = 3;

/// All keys, another of them first.
fn set_keys(keys: &Keys, random: &mut Random) {
    let first = random.below(KEYS) as u8;
    let all: Vec<u8> = (0..KEYS as u8)
        .map(|key| (first + key) % KEYS as u8)
        .collect();
    keys.set(&all);
}

#[test]
fn what_was_acknowledged_survives_any_power_cut() {
    let mut torn = 0;
    let mut lost_unacknowledged = 0;
    let mut cut_while_opening = 0;
    let seeds = std::env::var("HIVE_SEEDS").map_or(SEEDS, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let mut random = Random::new(seed);
        let disk = Simulated::new(seed ^ 0xd15c);
        let mut expected = Expected {
            possible: vec![Model::default()],
        };
        // Two of three logs are sealed.
        let keys = Keys::default();
        if seed % 3 > 0 {
            set_keys(&keys, &mut random);
        }
        for _ in 0..CUTS_PER_SEED {
            disk.cut_after(random.below(60));
            let (mut segments, recovered) = loop {
                match open(&disk, &keys) {
                    Ok(opened) => break opened,
                    Err(OpenError::Io { .. }) if disk.is_off() => {
                        cut_while_opening += 1;
                        disk.power_cycle();
                        disk.cut_after(random.below(60));
                    }
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            };
            torn += usize::from(recovered.cut.is_some());
            // Reading back is no part of the experiment.
            let found = Model::read(&disk.copy(), &segments, &recovered);
            let at = expected
                .possible
                .iter()
                .position(|model| model.recovered() == found)
                .unwrap_or_else(|| {
                    panic!(
                        "seed {seed}: found {found:#?}, acknowledged {:#?}",
                        expected.possible[0]
                    )
                });
            lost_unacknowledged += usize::from(at + 1 < expected.possible.len());
            // Opening syncs what it read.
            expected.possible = vec![found];
            write_until_cut(&mut segments, &mut random, &mut expected, &keys).unwrap_err();
            disk.power_cycle();
        }
    }
    // The experiment did happen.
    assert!(torn > 100, "{torn} torn tails");
    assert!(lost_unacknowledged > 100, "{lost_unacknowledged} lost");
    assert!(cut_while_opening > 100, "{cut_while_opening} while opening");
}

/// The same disk without the syncs loses acknowledged records: the experiment can fail.
#[test]
fn without_syncs_the_simulated_disk_loses_data() {
    let lost = (0..50).filter(|seed| {
        let disk = Simulated::new(*seed);
        let (mut segments, _) = open(&disk, &Keys::of(1)).unwrap();
        for index in 0..20 {
            segments.write(&[Record::Entry(entry(1, index))]).unwrap();
        }
        disk.power_cycle();
        let Ok((_, recovered)) = open(&disk, &Keys::of(1)) else {
            return true;
        };
        recovered.entries.len() < 20
    });
    assert!(lost.count() > 25);
}
