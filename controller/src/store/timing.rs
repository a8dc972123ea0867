//! Heartbeat and election times, chosen from what the disk can do.
//!
//! Measured once, on the data directory, and kept there: a follower that waits for a slow card to
//! sync must not be taken for dead.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Syncs timed. Enough for a median that one slow journal commit does not move.
const SAMPLES: usize = 21;

/// A heartbeat at least this far apart. Each wakes some fifteen tasks: at four a second an idle
/// controller used 0.9 % of a core.
const MIN_HEARTBEAT: Duration = Duration::from_millis(400);

/// Beyond this a dead leader is noticed too late to call it failover.
const MAX_HEARTBEAT: Duration = Duration::from_secs(2);

/// An append waits for one sync on the leader and one on the follower, under load for the one
/// before as well.
const SYNCS_PER_HEARTBEAT: u32 = 4;

/// Heartbeats missed before an election; the wait is random between the two.
const MISSED_HEARTBEATS: (u32, u32) = (3, 6);

const FILE: &str = "timing.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

/// Why timing could not be measured or kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot measure how fast {} syncs", path.display())]
pub struct TimingError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

impl Timing {
    /// What a disk calls for whose sync takes `median`.
    pub fn for_sync(median: Duration) -> Self {
        let heartbeat = (median * SYNCS_PER_HEARTBEAT).clamp(MIN_HEARTBEAT, MAX_HEARTBEAT);
        let millis = |missed: u32| (heartbeat * missed).as_millis() as u64;
        Self {
            heartbeat_ms: millis(1),
            election_min_ms: millis(MISSED_HEARTBEATS.0),
            election_max_ms: millis(MISSED_HEARTBEATS.1),
        }
    }

    /// What was chosen before, or else what a measurement calls for now. Blocks.
    pub fn of(directory: &Path) -> Result<Self, TimingError> {
        let path = directory.join(FILE);
        let failed = |source| TimingError {
            path: directory.to_owned(),
            source,
        };
        match fs::read(&path) {
            Ok(known) => match serde_json::from_slice(&known) {
                Ok(timing) => return Ok(timing),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "measuring timing anew");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let median = measure(directory).map_err(failed)?;
        let timing = Self::for_sync(median);
        tracing::info!(
            sync_us = median.as_micros() as u64,
            heartbeat_ms = timing.heartbeat_ms,
            election_min_ms = timing.election_min_ms,
            "chose Raft's timing from the speed of the disk"
        );
        let json = serde_json::to_vec_pretty(&timing).expect("numbers have a JSON form");
        // Not synced: if it is lost, the next start measures again.
        fs::write(&path, json).map_err(failed)?;
        Ok(timing)
    }
}

/// The median time of a small append with fdatasync.
fn measure(directory: &Path) -> io::Result<Duration> {
    let path = directory.join("timing.partial");
    let mut file = File::create(&path)?;
    let mut times = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let start = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    fs::remove_file(&path)?;
    times.sort_unstable();
    Ok(times[SAMPLES / 2])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn slow_disks_get_patience_and_fast_ones_quick_failover() {
        for (sync_us, heartbeat, election_min, election_max) in [
            (0, 400, 1200, 2400),
            (200, 400, 1200, 2400),
            (100_000, 400, 1200, 2400),
            (200_000, 800, 2400, 4800),
            (500_000, 2000, 6000, 12_000),
            (9_000_000, 2000, 6000, 12_000),
        ] {
            assert_eq!(
                Timing::for_sync(Duration::from_micros(sync_us)),
                Timing {
                    heartbeat_ms: heartbeat,
                    election_min_ms: election_min,
                    election_max_ms: election_max,
                },
                "{sync_us} us"
            );
        }
    }

    #[test]
    fn the_choice_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let chosen = Timing::of(directory.path()).unwrap();
        let other = Timing {
            heartbeat_ms: 77,
            ..chosen
        };
        let json = serde_json::to_vec(&other).unwrap();
        fs::write(directory.path().join(FILE), json).unwrap();
        assert_eq!(Timing::of(directory.path()).unwrap(), other);
    }

    #[test]
    fn a_choice_that_cannot_be_read_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{").unwrap();
        Timing::of(directory.path()).unwrap();
    }
}
