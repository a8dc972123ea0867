//! The last lines of each function, for whoever asks through a controller.
//!
//! Lines come from where guests run, so nothing here waits: the oldest line goes when there is no
//! room, and a follower that is too slow is told how many lines it missed. Nothing reaches the disk.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use hive_functions::{LogRecord, LogSink};
use hive_proto::v1::{LogLine, LogRequest};
use tokio::sync::broadcast;

use crate::ids::{FunctionId, SlotId};

/// Kept of one function, whichever is reached first: several screens of what happened last, and
/// with ten busy functions no more than 2.5 MiB.
const KEPT_LINES: usize = 1000;
const KEPT_BYTES: usize = 256 * 1024;

/// What a follower may be behind by. It is only allocated while somebody follows.
const FOLLOWER_LINES: usize = 256;

/// A line as it goes into a frame: its text must leave room for the other fields.
const LINE_BYTES: usize = 8 * 1024;

/// The logs of all functions of this node. A clone is the same.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<BTreeMap<FunctionId, FunctionLog>>>);

/// The log of one function. A clone is the same.
#[derive(Clone, Default)]
pub struct FunctionLog(Arc<Mutex<Ring>>);

#[derive(Default)]
struct Ring {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
    followers: Option<broadcast::Sender<Arc<LogLine>>>,
}

/// The answer to a request: lines there are, and those to come.
pub struct Reading {
    pub kept: Vec<Arc<LogLine>>,
    pub following: Option<broadcast::Receiver<Arc<LogLine>>>,
}

impl Logs {
    /// The log of a function; made if there is none.
    pub fn of(&self, function: &FunctionId) -> FunctionLog {
        lock(&self.0).entry(function.clone()).or_default().clone()
    }

    pub fn find(&self, function: &FunctionId) -> Option<FunctionLog> {
        lock(&self.0).get(function).cloned()
    }

    /// Forgets the functions that are not among `kept`. Their followers' streams end.
    pub fn retain(&self, kept: impl Fn(&FunctionId) -> bool) {
        lock(&self.0).retain(|function, _| kept(function));
    }
}

impl FunctionLog {
    /// Where an instance's lines go.
    pub fn sink(&self, slot: &SlotId) -> LogSink {
        let (log, assignment) = (self.clone(), slot.name.clone());
        Arc::new(move |record: LogRecord| {
            log.push(LogLine {
                time_unix_ms: unix_ms(record.time),
                assignment: assignment.clone(),
                stream: record.stream.as_str().to_owned(),
                text: record.text,
                request_id: record.request_id.as_deref().unwrap_or_default().to_owned(),
            });
        })
    }

    pub fn push(&self, mut line: LogLine) {
        line.text
            .truncate(line.text.floor_char_boundary(LINE_BYTES));
        let line = Arc::new(line);
        let mut ring = lock(&self.0);
        ring.bytes += size(&line);
        ring.lines.push_back(line.clone());
        while ring.lines.len() > KEPT_LINES || ring.bytes > KEPT_BYTES {
            let Some(oldest) = ring.lines.pop_front() else {
                break;
            };
            ring.bytes -= size(&oldest);
        }
        if let Some(followers) = &ring.followers
            && followers.send(line).is_err()
        {
            // The last one left.
            ring.followers = None;
        }
    }

    /// No line is lost or doubled between those that are kept and those that follow.
    pub fn read(&self, request: &LogRequest) -> Reading {
        let mut ring = lock(&self.0);
        let recent: Vec<_> = ring
            .lines
            .iter()
            .filter(|line| line.time_unix_ms >= request.since_unix_ms)
            .cloned()
            .collect();
        let skipped = match request.tail {
            0 => 0,
            tail => recent.len().saturating_sub(tail as usize),
        };
        let following = request.follow.then(|| {
            ring.followers
                .get_or_insert_with(|| broadcast::Sender::new(FOLLOWER_LINES))
                .subscribe()
        });
        Reading {
            kept: recent[skipped..].to_vec(),
            following,
        }
    }
}

pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What a line takes in memory, roughly: its texts and its own fields.
fn size(line: &LogLine) -> usize {
    line.text.len() + line.request_id.len() + line.assignment.len() + size_of::<LogLine>()
}

/// What is behind these locks is whole between any two statements: a panic leaves nothing torn.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn line(time: u64, text: &str) -> LogLine {
        LogLine {
            time_unix_ms: time,
            text: text.into(),
            ..Default::default()
        }
    }

    fn texts(reading: &Reading) -> Vec<&str> {
        reading.kept.iter().map(|line| &*line.text).collect()
    }

    #[test]
    fn tail_and_since_choose_from_what_is_kept() {
        let log = FunctionLog::default();
        for (time, text) in [(1, "a"), (2, "b"), (3, "c")] {
            log.push(line(time, text));
        }
        let read = |tail, since_unix_ms| {
            log.read(&LogRequest {
                tail,
                since_unix_ms,
                ..Default::default()
            })
        };
        assert_eq!(texts(&read(0, 0)), ["a", "b", "c"]);
        assert_eq!(texts(&read(2, 0)), ["b", "c"]);
        assert_eq!(texts(&read(9, 3)), ["c"]);
    }

    #[test]
    fn a_follower_gets_every_line_once() {
        let log = FunctionLog::default();
        log.push(line(1, "before"));
        let request = LogRequest {
            follow: true,
            ..Default::default()
        };
        let mut reading = log.read(&request);
        log.push(line(2, "after"));
        assert_eq!(texts(&reading), ["before"]);
        let mut following = reading.following.take().unwrap();
        assert_eq!(following.try_recv().unwrap().text, "after");
        assert!(following.try_recv().is_err());
        drop(following);
        log.push(line(3, "unheard"));
        assert!(lock(&log.0).followers.is_none());
    }

    #[test]
    fn neither_lines_nor_bytes_grow_without_bound() {
        let log = FunctionLog::default();
        for n in 0..2 * KEPT_LINES {
            log.push(line(n as u64, "x"));
        }
        assert_eq!(log.read(&LogRequest::default()).kept.len(), KEPT_LINES);
        for _ in 0..200 {
            log.push(line(0, &"é".repeat(LINE_BYTES)));
        }
        let ring = lock(&log.0);
        assert!(ring.bytes <= KEPT_BYTES);
        let counted: usize = ring.lines.iter().map(|line| size(line)).sum();
        assert_eq!(counted, ring.bytes);
    }

    #[test]
    fn logs_of_functions_that_are_gone_are_forgotten() {
        let logs = Logs::default();
        let hello = FunctionId::new("default", "hello");
        logs.of(&hello).push(line(1, "a"));
        assert!(logs.find(&hello).is_some());
        logs.retain(|_| false);
        assert!(logs.find(&hello).is_none());
    }
}
