//! Figures for docs/decisions/0002-raft-log.md; run by hand, on a disk worth measuring:
//! `SPEED_DIR=/path cargo test -p hive-controller --lib log::tests::speed -- --ignored --nocapture`

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::record::Record;
use super::super::segments::{SEGMENT_BYTES, Segments};
use super::log_id;
use crate::store::disk::Directory;
use crate::store::types::{Entry, Proposal};

const TIME: Duration = Duration::from_secs(3);

fn entry(index: u64) -> Record {
    let proposal = Proposal::from_encoded(vec![b'x'; 256].into()).unwrap();
    Record::Entry(Entry {
        log_id: log_id(1, index),
        payload: openraft::EntryPayload::Normal(proposal),
    })
}

#[test]
#[ignore = "a measurement"]
fn commits_a_second() {
    let base = std::env::var_os("SPEED_DIR").map_or_else(std::env::temp_dir, Into::into);
    for batch in [1, 100] {
        let dir = tempfile::tempdir_in(&base).unwrap();
        let (directory, _lock) = Directory::open(&dir.path().join("log")).unwrap();
        let (mut segments, _) = Segments::open(Arc::new(directory), SEGMENT_BYTES).unwrap();
        let mut commits = 0;
        let start = Instant::now();
        while start.elapsed() < TIME {
            let first = commits * batch;
            let records: Vec<Record> = (first..first + batch).map(entry).collect();
            segments.write(&records).unwrap();
            segments.sync().unwrap();
            commits += 1;
        }
        let ours = commits as f64 / start.elapsed().as_secs_f64();

        let mut raw = std::fs::File::create(dir.path().join("raw")).unwrap();
        let bytes = vec![b'x'; 300 * batch as usize];
        let mut commits = 0;
        let start = Instant::now();
        while start.elapsed() < TIME {
            raw.write_all(&bytes).unwrap();
            raw.sync_data().unwrap();
            commits += 1;
        }
        let raw = commits as f64 / start.elapsed().as_secs_f64();
        let batch = batch as f64;
        println!(
            "batch {batch}: log {:.0} records/s, raw file {:.0}, ratio {:.2}",
            ours * batch,
            raw * batch,
            ours / raw
        );
    }
}
