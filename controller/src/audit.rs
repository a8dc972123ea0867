//! The audit log: who asked for what, when, and what came of it, one JSON line each.
//!
//! The API hands in an [`Event`] for each request that the [`Policy`] wants recorded; a thread of its
//! own appends them to a file that is rotated by size. Values of secrets never get here.

mod event;
mod file;
mod policy;

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

pub use event::{Decision, Event, Identity, ObjectReference, Stage};
pub use file::Rotation;
pub use policy::{Asked, Level, Policy, PolicyError, Subject};

use file::RotatingFile;

/// Lines that may wait for the disk. At 1 KB each this is 1 MB; a disk that is further behind holds
/// the requests themselves back, or loses lines, as the operator chose.
const QUEUE: usize = 1024;

/// Requests of nobody known that are recorded in a second. They cost their sender nothing, and must not
/// push what others did out of the rotated files.
const STRANGERS_A_SECOND: u32 = 5;

/// What is recorded is on disk after this long at most; a crash of the process alone loses nothing
/// that was written.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Lines of so long are written together: waking the writer for each would cost a busy controller
/// more than the writing. At most so much is lost when the process is killed.
const GATHER: Duration = Duration::from_millis(10);

/// Bytes written at once. A file may become longer than it should by as much.
const WRITTEN_TOGETHER: usize = 64 * 1024;

/// Before a disk that refused a line is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// What happens to requests while the log cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnFailure {
    /// They are answered; lines that do not fit into the queue are lost, counted and reported
    Continue,
    /// They are refused until the log can be written again
    Refuse,
}

pub struct AuditOptions {
    pub path: PathBuf,
    pub rotation: Rotation,
    pub policy: Policy,
    pub on_failure: OnFailure,
}

/// The handle that requests record through. Clones share one log.
#[derive(Clone)]
pub struct Audit {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Vec<u8>>,
}

struct Shared {
    policy: Policy,
    on_failure: OnFailure,
    failing: AtomicBool,
    lost: AtomicU64,
    strangers: Mutex<Strangers>,
}

/// Requests of nobody known, in the second that began then.
#[derive(Default)]
struct Strangers {
    second: Option<Instant>,
    recorded: u32,
    /// Since the last one that was recorded.
    skipped: u64,
}

/// Requests are refused because they could not be recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the audit log cannot be written, and this controller does nothing unrecorded: its own log says why"
)]
pub struct Unrecordable;

impl Audit {
    /// Opens the log. The task ends, with everything on disk, when the last handle is gone.
    pub fn open(options: AuditOptions) -> io::Result<(Self, JoinHandle<()>)> {
        let AuditOptions {
            path,
            rotation,
            policy,
            on_failure,
        } = options;
        let file = RotatingFile::open(path, rotation)?;
        let (queue, lines) = mpsc::channel(QUEUE);
        let shared = Arc::new(Shared {
            policy,
            on_failure,
            failing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            strangers: Mutex::default(),
        });
        let runtime = tokio::runtime::Handle::current();
        let writer = tokio::task::spawn_blocking({
            let shared = shared.clone();
            move || write(&runtime, file, lines, &shared)
        });
        Ok((Self { shared, queue }, writer))
    }

    /// How much of a request is to be recorded. A refused one is recorded even where this is
    /// [`Level::None`].
    pub fn level(&self, asked: &Asked<'_>) -> Level {
        self.shared.policy.level(asked)
    }

    /// To be asked before anything is done.
    pub fn admit(&self) -> Result<(), Unrecordable> {
        let refuses = self.shared.on_failure == OnFailure::Refuse;
        if refuses && self.shared.failing.load(Ordering::Relaxed) {
            return Err(Unrecordable);
        }
        Ok(())
    }

    /// Hands an event to the writer; waits for room where nothing may be lost.
    pub async fn record(&self, event: &Event) {
        let line = event.line();
        match self.shared.on_failure {
            OnFailure::Refuse => {
                // An error means that the writer has ended with the controller.
                drop(self.queue.send(line).await);
            }
            OnFailure::Continue => {
                if self.queue.try_send(line).is_err() {
                    self.shared.lost.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Records a request of nobody known, if there are few of them; else it is counted, and the next
    /// one that is recorded says how many there were.
    pub async fn record_stranger(&self, event: &mut Event) {
        if let Some(skipped) = self.shared.admit_stranger(Instant::now()) {
            event.skipped = skipped;
            self.record(event).await;
        }
    }

    /// Lines that were lost since the start.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }
}

impl Shared {
    /// How many were skipped before this one; `None` when it is to be skipped, too.
    fn admit_stranger(&self, now: Instant) -> Option<u64> {
        let mut strangers = self
            .strangers
            .lock()
            .expect("nothing panics while it holds this lock");
        let is_new = |second: Instant| now.duration_since(second) >= Duration::from_secs(1);
        if strangers.second.is_none_or(is_new) {
            (strangers.second, strangers.recorded) = (Some(now), 0);
        }
        if strangers.recorded == STRANGERS_A_SECOND {
            strangers.skipped += 1;
            return None;
        }
        strangers.recorded += 1;
        Some(std::mem::take(&mut strangers.skipped))
    }
}

/// Appends lines as they come, several at a time, until no handle is left.
fn write(
    runtime: &tokio::runtime::Handle,
    mut file: RotatingFile,
    mut lines: mpsc::Receiver<Vec<u8>>,
    shared: &Shared,
) {
    let mut batch = Vec::new();
    loop {
        let received = runtime.block_on(async {
            tokio::time::timeout(SYNC_INTERVAL, lines.recv_many(&mut batch, QUEUE)).await
        });
        if !batch.is_empty() && !lines.is_closed() {
            std::thread::sleep(GATHER);
        }
        while batch.len() < QUEUE
            && let Ok(line) = lines.try_recv()
        {
            batch.push(line);
        }
        let mut together = Vec::new();
        let mut count = 0;
        for line in batch.drain(..) {
            together.extend_from_slice(&line);
            count += 1;
            if together.len() >= WRITTEN_TOGETHER {
                append(&mut file, &together, count, &lines, shared);
                together.clear();
                count = 0;
            }
        }
        if count > 0 {
            append(&mut file, &together, count, &lines, shared);
        }
        let ended = received == Ok(0);
        if let Err(error) = file.sync_if_due(if ended { Duration::ZERO } else { SYNC_INTERVAL }) {
            tracing::error!(%error, "the audit log cannot be synced");
        }
        if ended {
            return;
        }
    }
}

/// Tries until the text, which is `count` lines, is written, or the controller stops.
fn append(
    file: &mut RotatingFile,
    text: &[u8],
    count: u64,
    lines: &mpsc::Receiver<Vec<u8>>,
    shared: &Shared,
) {
    while let Err(error) = file.append(text) {
        if !shared.failing.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, path = %file.path().display(), "the audit log cannot be written");
        }
        if lines.is_closed() {
            shared.lost.fetch_add(count, Ordering::Relaxed);
            return;
        }
        std::thread::sleep(RETRY_INTERVAL);
    }
    if shared.failing.swap(false, Ordering::Relaxed) {
        let lost = shared.lost.load(Ordering::Relaxed);
        tracing::warn!(lost, "the audit log can be written again");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;

    fn event(uri: &str) -> Event {
        Event {
            level: Level::Metadata,
            stage: Stage::ResponseComplete,
            audit_id: "a".into(),
            request_uri: uri.into(),
            verb: "create".into(),
            user: None,
            impersonated_user: None,
            source: None,
            user_agent: None,
            object: None,
            code: 201,
            decision: None,
            request: None,
            received: SystemTime::UNIX_EPOCH,
            staged: SystemTime::UNIX_EPOCH,
            notes: Vec::new(),
            skipped: 0,
        }
    }

    fn options(path: PathBuf, on_failure: OnFailure) -> AuditOptions {
        AuditOptions {
            path,
            rotation: Rotation::default(),
            policy: Policy::default(),
            on_failure,
        }
    }

    #[tokio::test]
    async fn everything_recorded_is_in_the_file_when_the_log_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (audit, writer) = Audit::open(options(path.clone(), OnFailure::Refuse)).unwrap();
        let count = QUEUE + 10;
        for n in 0..count {
            audit.record(&event(&format!("/{n}"))).await;
        }
        drop(audit);
        writer.await.unwrap();
        let text = std::fs::read_to_string(path).unwrap();
        let uris: Vec<String> = text
            .lines()
            .map(|line| {
                let event: Value = serde_json::from_str(line).unwrap();
                event["requestURI"].as_str().unwrap().to_owned()
            })
            .collect();
        let expected: Vec<String> = (0..count).map(|n| format!("/{n}")).collect();
        assert_eq!(uris, expected);
    }

    #[tokio::test]
    async fn strangers_fill_no_disk_but_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let (audit, _writer) = Audit::open(options(path, OnFailure::Refuse)).unwrap();
        let start = Instant::now();
        let admitted = |at: Instant| audit.shared.admit_stranger(at);
        for _ in 0..STRANGERS_A_SECOND {
            assert_eq!(admitted(start), Some(0));
        }
        assert_eq!(admitted(start), None);
        assert_eq!(admitted(start), None);
        let later = start + Duration::from_secs(1);
        assert_eq!(admitted(later), Some(2));
        assert_eq!(admitted(later), Some(0));
    }

    /// `/dev/full` takes no byte, as a full disk does.
    #[tokio::test(flavor = "multi_thread")]
    async fn while_the_disk_is_full_requests_are_refused_or_lines_are_counted_as_lost() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let (audit, _writer) = Audit::open(options(path.clone(), OnFailure::Refuse)).unwrap();
        assert_eq!(audit.admit(), Ok(()));
        audit.record(&event("/")).await;
        let refused = async {
            while audit.admit().is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(120), refused)
            .await
            .expect("what cannot be recorded is refused");

        let (audit, _writer) = Audit::open(options(path, OnFailure::Continue)).unwrap();
        for _ in 0..3 * QUEUE {
            audit.record(&event("/")).await;
            assert_eq!(audit.admit(), Ok(()));
        }
        assert!(audit.lost() > 0);
    }
}
