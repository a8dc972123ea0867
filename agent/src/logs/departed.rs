//! Logs of functions that left this node, for those who ask why.
//!
//! Bounded in time, number and bytes; who left first is forgotten first. Nothing wakes for it: what
//! is too old goes when somebody looks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::FunctionLog;
use crate::ids::FunctionId;

/// Long enough to look after a node was drained or a function moved.
const KEPT_FOR: Duration = Duration::from_secs(15 * 60);

/// As many as a drained node's person asks for.
const KEPT_LOGS: usize = 32;

/// Of all of them together, as they are when they leave: what four busy functions have.
const KEPT_BYTES: usize = 1024 * 1024;

/// Oldest first.
#[derive(Default)]
pub struct Departed(VecDeque<Left>);

struct Left {
    function: FunctionId,
    at: Instant,
    bytes: usize,
    log: FunctionLog,
}

impl Departed {
    pub fn add(&mut self, function: FunctionId, log: FunctionLog, now: Instant) {
        let bytes = {
            let mut ring = log.ring();
            ring.end_followers();
            ring.bytes()
        };
        if bytes == 0 {
            return;
        }
        self.0.retain(|left| left.function != function);
        self.0.push_back(Left {
            function,
            at: now,
            bytes,
            log,
        });
        self.forget_oldest(now);
    }

    pub fn find(&mut self, function: &FunctionId, now: Instant) -> Option<&FunctionLog> {
        self.forget_oldest(now);
        let left = self.0.iter().find(|left| left.function == *function)?;
        Some(&left.log)
    }

    /// Of a function that came back.
    pub fn take(&mut self, function: &FunctionId, now: Instant) -> Option<FunctionLog> {
        self.forget_oldest(now);
        let index = self.0.iter().position(|left| left.function == *function)?;
        Some(self.0.remove(index)?.log)
    }

    fn forget_oldest(&mut self, now: Instant) {
        let mut bytes: usize = self.0.iter().map(|left| left.bytes).sum();
        while let Some(oldest) = self.0.front()
            && (now.duration_since(oldest.at) >= KEPT_FOR
                || self.0.len() > KEPT_LOGS
                || bytes > KEPT_BYTES)
        {
            bytes -= oldest.bytes;
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_proto::v1::LogLine;

    use super::super::ring::Version;
    use super::*;

    fn id(n: usize) -> FunctionId {
        FunctionId::new("default", format!("f{n}"))
    }

    fn log(bytes: usize) -> FunctionLog {
        let log = FunctionLog::default();
        while log.ring().bytes() < bytes {
            let line = LogLine {
                text: "x".repeat(1024.min(bytes)),
                ..Default::default()
            };
            log.ring().push(Version::default(), line);
        }
        log
    }

    #[test]
    fn it_is_bounded_in_time_number_and_bytes() {
        let begin = Instant::now();
        let mut departed = Departed::default();
        departed.add(id(0), log(0), begin);
        assert!(departed.find(&id(0), begin).is_none(), "nothing was said");
        for n in 0..KEPT_LOGS + 1 {
            departed.add(id(n), log(1), begin + Duration::from_secs(n as u64));
        }
        assert!(departed.find(&id(0), begin).is_none());
        assert!(departed.find(&id(1), begin).is_some());
        let later = begin + KEPT_FOR + Duration::from_secs(2);
        assert!(departed.find(&id(2), later).is_none());
        assert!(departed.find(&id(3), later).is_some());

        for n in 100..108 {
            departed.add(id(n), log(200 * 1024), later);
        }
        let kept: usize = departed.0.iter().map(|left| left.log.ring().bytes()).sum();
        assert!(kept <= KEPT_BYTES, "{kept}");
        assert!(departed.find(&id(107), later).is_some());
        assert!(departed.take(&id(107), later).is_some());
        assert!(departed.take(&id(107), later).is_none());
    }
}
