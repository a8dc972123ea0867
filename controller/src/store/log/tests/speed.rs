//! Figures for docs/decisions/0002-raft-log.md and 0004-secrets-at-rest.md; run by hand, on a disk
//! worth measuring:
//! `SPEED_DIR=/path cargo test -p hive-controller --lib log::tests::speed -- --ignored --nocapture`

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::super::record::Record;
use super::super::segments::{SEGMENT_BYTES, Segments};
use super::{log_id, plain_and_sealed};
use crate::store::disk::Directory;
use crate::store::seal::Purpose;
use crate::store::seal::keys::Keys;
use crate::store::types::{Entry, Proposal};

const TIME: Duration = Duration::from_secs(1);

/// In turn, so that a disk which is busy for a while is so for all.
const ROUNDS: usize = 5;

fn entry(index: u64, size: usize) -> Record {
    let proposal = Proposal::from_encoded(vec![b'x'; size].into()).unwrap();
    Record::Entry(Entry {
        log_id: log_id(1, index),
        payload: openraft::EntryPayload::Normal(proposal),
    })
}

/// How often a second something can be done.
fn rate(mut act: impl FnMut(u64)) -> f64 {
    let mut done = 0;
    let start = Instant::now();
    while start.elapsed() < TIME {
        act(done);
        done += 1;
    }
    done as f64 / start.elapsed().as_secs_f64()
}

fn log_rate(base: &Path, keys: &Keys, batch: u64, size: usize) -> f64 {
    let dir = tempfile::tempdir_in(base).unwrap();
    let (directory, _lock) = Directory::open(&dir.path().join("log")).unwrap();
    let (mut segments, _) =
        Segments::open(Arc::new(directory), SEGMENT_BYTES, keys.clone()).unwrap();
    rate(|commit| {
        let first = commit * batch;
        let records: Vec<Record> = (first..first + batch).map(|i| entry(i, size)).collect();
        segments.write(&records).unwrap();
        segments.sync().unwrap();
    })
}

fn raw_rate(base: &Path, batch: u64, size: usize) -> f64 {
    let dir = tempfile::tempdir_in(base).unwrap();
    let mut raw = std::fs::File::create(dir.path().join("raw")).unwrap();
    let bytes = vec![b'x'; (size + 44) * batch as usize];
    rate(|_| {
        raw.write_all(&bytes).unwrap();
        raw.sync_data().unwrap();
    })
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

#[test]
#[ignore = "a measurement"]
fn commits_a_second() {
    let base = std::env::var_os("SPEED_DIR").map_or_else(std::env::temp_dir, Into::into);
    let [plain, sealed] = plain_and_sealed();
    for (batch, size) in [(1, 256), (1, 1024), (100, 256), (100, 1024)] {
        let (mut logs, mut seals, mut raws) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            logs.push(log_rate(&base, &plain, batch, size));
            seals.push(log_rate(&base, &sealed, batch, size));
            raws.push(raw_rate(&base, batch, size));
        }
        let of = |rates| median(rates) * batch as f64;
        println!(
            "{batch} of {size} B a sync, records/s: plain {:.0}, sealed {:.0}, raw file {:.0}",
            of(logs),
            of(seals),
            of(raws)
        );
    }
}

/// What encoding and reading back one record takes, without the disk.
#[test]
#[ignore = "a measurement"]
fn time_of_a_record() {
    for size in [256, 1024, 64 * 1024] {
        let record = entry(7, size);
        for keys in plain_and_sealed() {
            let sealer = keys.begin(Purpose::LogSegment);
            let mut out = BytesMut::with_capacity(2 * size + 1024);
            let put = rate(|_| {
                out.clear();
                record.put(&mut out, 1, 400, sealer.as_ref());
            });
            let bytes = out.clone().freeze();
            let get = rate(|_| {
                Record::get(&bytes, 1, 400, sealer.as_ref()).unwrap();
            });
            println!(
                "{size} B, {}: {} B, {:.2} us to write, {:.2} us to read",
                if sealer.is_some() { "sealed" } else { "plain" },
                bytes.len(),
                1e6 / put,
                1e6 / get
            );
        }
    }
}
