//! Heartbeat and election times, chosen from what the disk can do.
//!
//! Measured on the data directory and kept there, and measured anew when that is old or the
//! directory lies on another disk: a follower that waits for a slow card to sync must not be taken
//! for dead.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

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

/// Cards wear and clouds move disks, but not within days; at each start it would cost seconds where
/// the disk is slow.
const GOOD_FOR: Duration = Duration::from_secs(30 * 24 * 3600);

const FILE: &str = "timing.json";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    pub heartbeat_ms: u64,
    pub election_min_ms: u64,
    pub election_max_ms: u64,
}

/// What a disk was found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpeed {
    /// Median of a small append with fdatasync.
    sync_us: u64,
    slowest_us: u64,
}

/// A measurement, what was chosen from it, and when and where it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Measured {
    #[serde(flatten)]
    timing: Timing,
    #[serde(flatten)]
    speed: DiskSpeed,
    /// Seconds since 1970.
    at: u64,
    /// Number of the device that the directory lay on.
    device: u64,
}

/// Whether a disk will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// It works, and everything that writes is slow.
    Slow,
    /// Followers can be taken for dead while they sync.
    TooSlow,
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

    /// What was chosen before, or else what a measurement calls for now, and what it found. Blocks.
    pub fn of(directory: &Path) -> Result<(Self, DiskSpeed), TimingError> {
        let path = directory.join(FILE);
        let failed = |source| TimingError {
            path: directory.to_owned(),
            source,
        };
        let now = SystemTime::now();
        let at = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let device = fs::metadata(directory).map_err(failed)?.dev();
        match fs::read(&path) {
            Ok(known) => match serde_json::from_slice::<Measured>(&known) {
                Ok(known) if known.holds(at, device) => return Ok((known.timing, known.speed)),
                Ok(_) => tracing::info!(file = %path.display(), "measuring the disk anew"),
                Err(error) => {
                    tracing::warn!(file = %path.display(), %error, "measuring timing anew");
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let speed = DiskSpeed::measure(directory)?;
        let timing = speed.timing();
        tracing::info!(
            sync_us = speed.sync_us,
            heartbeat_ms = timing.heartbeat_ms,
            election_min_ms = timing.election_min_ms,
            "chose Raft's timing from the speed of the disk"
        );
        if speed.verdict() != Verdict::Good {
            tracing::warn!(directory = %directory.display(), "the disk is slow: {speed}");
        }
        let measured = Measured {
            timing,
            speed,
            at,
            device,
        };
        let json = serde_json::to_vec_pretty(&measured).expect("numbers have a JSON form");
        // Not synced: if it is lost, the next start measures again.
        fs::write(&path, json).map_err(failed)?;
        Ok((timing, speed))
    }
}

impl Measured {
    /// A clock that was set back makes it look younger than now: measured anew, too.
    fn holds(&self, now: u64, device: u64) -> bool {
        let age = now.checked_sub(self.at);
        self.device == device && age.is_some_and(|age| age < GOOD_FOR.as_secs())
    }
}

impl DiskSpeed {
    /// Beyond this a person who waits for a write notices.
    const SLOW: Duration = Duration::from_millis(25);
    /// Beyond this the times can't be stretched any more.
    const TOO_SLOW: Duration = Duration::from_millis(500);

    /// Times small appends in a directory. Blocks.
    pub fn measure(directory: &Path) -> Result<Self, TimingError> {
        measure(directory).map_err(|source| TimingError {
            path: directory.to_owned(),
            source,
        })
    }

    pub fn sync(&self) -> Duration {
        Duration::from_micros(self.sync_us)
    }

    pub fn timing(&self) -> Timing {
        Timing::for_sync(self.sync())
    }

    pub fn verdict(&self) -> Verdict {
        match self.sync() {
            sync if sync > Self::TOO_SLOW => Verdict::TooSlow,
            sync if sync > Self::SLOW => Verdict::Slow,
            _ => Verdict::Good,
        }
    }
}

/// What was found, and what follows from it.
impl fmt::Display for DiskSpeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timing = self.timing();
        let seconds = |ms: u64| ms as f64 / 1000.0;
        write!(
            f,
            "one small synced write takes {:.1} ms (the slowest of {SAMPLES}: {:.1} ms), so some {} writes/s \
             one after the other; a dead leader is replaced after {:.1} to {:.1} s",
            self.sync_us as f64 / 1000.0,
            self.slowest_us as f64 / 1000.0,
            1_000_000 / self.sync_us.max(1),
            seconds(timing.election_min_ms),
            seconds(timing.election_max_ms),
        )?;
        match self.verdict() {
            Verdict::Good => Ok(()),
            Verdict::Slow => f.write_str(
                ". The disk is slow: it works, but every change waits for it. An SSD, or a card of \
                 application class A2, is faster",
            ),
            Verdict::TooSlow => f.write_str(
                ". The disk is TOO SLOW for a controller: followers can be taken for dead while they \
                 sync, and leaders will change under load. Use another disk",
            ),
        }
    }
}

fn measure(directory: &Path) -> io::Result<DiskSpeed> {
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
    Ok(DiskSpeed {
        sync_us: times[SAMPLES / 2].as_micros() as u64,
        slowest_us: times[SAMPLES - 1].as_micros() as u64,
    })
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

    fn keep(directory: &Path, change: impl FnOnce(&mut Measured)) -> Timing {
        Timing::of(directory).unwrap();
        let path = directory.join(FILE);
        let mut known: Measured = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        known.timing.heartbeat_ms = 77;
        change(&mut known);
        fs::write(&path, serde_json::to_vec(&known).unwrap()).unwrap();
        Timing::of(directory).unwrap().0
    }

    #[test]
    fn the_choice_outlives_a_restart_but_not_its_disk_or_its_time() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(keep(directory.path(), |_| {}).heartbeat_ms, 77);
        assert_ne!(
            keep(directory.path(), |known| known.device += 1).heartbeat_ms,
            77
        );
        let old = |known: &mut Measured| known.at -= GOOD_FOR.as_secs() + 1;
        assert_ne!(keep(directory.path(), old).heartbeat_ms, 77);
    }

    #[test]
    fn a_disk_is_told_good_slow_and_too_slow() {
        for (sync_us, verdict, says) in [
            (200, Verdict::Good, "some 5000 writes/s"),
            (120_000, Verdict::Slow, "The disk is slow"),
            (700_000, Verdict::TooSlow, "TOO SLOW"),
        ] {
            let speed = DiskSpeed {
                sync_us,
                slowest_us: sync_us,
            };
            assert_eq!(speed.verdict(), verdict);
            assert!(speed.to_string().contains(says), "{speed}");
        }
    }

    #[test]
    fn a_choice_that_cannot_be_read_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        // Of the first release, too: it did not say when and where it was made.
        let first = r#"{"heartbeat_ms":77,"election_min_ms":1,"election_max_ms":2}"#;
        for text in ["{", first] {
            fs::write(directory.path().join(FILE), text).unwrap();
            assert_ne!(Timing::of(directory.path()).unwrap().0.heartbeat_ms, 77);
        }
    }
}
