//! The last lines of each function, for whoever asks through a controller.
//!
//! Lines come from where guests run, so nothing here waits. Nothing reaches the disk: a restart of
//! the agent begins every log anew. Of a function that left this node the last words are kept for a
//! while, because that is when somebody asks why it left.

mod departed;
mod ring;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use hive_functions::{LogEvent, LogRecord, LogSink, LogStream};
use hive_proto::v1::{LogLine, LogRequest};

use crate::events::{Events, Kind, Occasion};
use crate::ids::{FunctionId, SlotId};
use departed::Departed;
use ring::Ring;
pub use ring::{Reading, Version, is_of};

/// The logs of all functions of this node. A clone is the same.
#[derive(Clone, Default)]
pub struct Logs(Arc<Mutex<Shelves>>);

#[derive(Default)]
struct Shelves {
    here: BTreeMap<FunctionId, FunctionLog>,
    departed: Departed,
}

/// The log of one function. A clone is the same.
#[derive(Clone, Default)]
pub struct FunctionLog(Arc<Mutex<Ring>>);

impl Logs {
    /// Where the lines of an instance go, which is of that version of its function. What is worth
    /// an event goes to `events` too.
    pub fn sink(
        &self,
        function: &FunctionId,
        slot: &SlotId,
        version: Version,
        events: Events,
    ) -> LogSink {
        let (log, assignment) = (self.of(function, version), slot.name.clone());
        let (function, slot) = (function.clone(), slot.clone());
        let text = |id: Option<Arc<str>>| id.as_deref().unwrap_or_default().to_owned();
        Arc::new(move |record: LogRecord| {
            let (request_id, trace_id) = (text(record.request_id), text(record.trace_id));
            if let Some(LogEvent { reason, message }) = record.event {
                let occasion = Occasion {
                    request_id: request_id.clone(),
                    trace_id: trace_id.clone(),
                    generation: version.generation(),
                };
                events.push_of(Kind::Warning, &slot, &function, reason, message, occasion);
            }
            let level = match record.stream {
                LogStream::Log(level) => level.as_str(),
                LogStream::Stdout | LogStream::Stderr | LogStream::Hive => "",
            };
            let line = LogLine {
                time_unix_ms: unix_ms(record.time),
                assignment: assignment.clone(),
                stream: record.stream.as_str().to_owned(),
                level: level.to_owned(),
                context: record.context,
                text: record.text,
                request_id,
                trace_id,
                ..Default::default()
            };
            log.ring().push(version, line);
        })
    }

    /// An instance of that version serves.
    pub fn serve(&self, function: &FunctionId, version: Version) {
        if let Some(log) = lock(&self.0).here.get(function) {
            log.ring().serve(version);
        }
    }

    /// Says in a function's log what its instances cannot know.
    pub fn note(&self, function: &FunctionId, slot: &SlotId, version: Version, text: &str) {
        let line = LogLine {
            time_unix_ms: unix_ms(SystemTime::now()),
            assignment: slot.name.clone(),
            stream: "hive".to_owned(),
            text: text.to_owned(),
            ..Default::default()
        };
        self.of(function, version).ring().push(version, line);
    }

    /// The log of a function, one of whose versions is to run here; made if there is none.
    fn of(&self, function: &FunctionId, version: Version) -> FunctionLog {
        let mut shelves = lock(&self.0);
        if let Some(log) = shelves.here.get(function) {
            return log.clone();
        }
        let log = match shelves.departed.take(function, Instant::now()) {
            // The same one came back, or one that was made anew under its name.
            Some(log) => {
                log.ring().begin(version);
                log
            }
            None => FunctionLog::default(),
        };
        shelves.here.insert(function.clone(), log.clone());
        log
    }

    /// `None` of a function of which nothing is known here. Of one that left nothing follows.
    pub fn read(&self, function: &FunctionId, request: &LogRequest) -> Option<Reading> {
        let mut shelves = lock(&self.0);
        if let Some(log) = shelves.here.get(function) {
            return Some(log.ring().read(request));
        }
        let log = shelves.departed.find(function, Instant::now())?;
        let kept = LogRequest {
            follow: false,
            ..request.clone()
        };
        Some(log.ring().read(&kept))
    }

    /// The functions that are not among `kept` have left this node. Their followers' streams end.
    pub fn retain(&self, kept: impl Fn(&FunctionId) -> bool) {
        let now = Instant::now();
        let mut shelves = lock(&self.0);
        let Shelves { here, departed } = &mut *shelves;
        for (function, log) in here.extract_if(.., |function, _| !kept(function)) {
            departed.add(function, log, now);
        }
    }
}

impl FunctionLog {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        lock(&self.0)
    }
}

pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What is behind these locks is whole between any two statements: a panic leaves nothing torn.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use hive_proto::v1::Assignment;

    use super::*;

    fn version(generation: u64, host: &str) -> Version {
        Version::of(&Assignment {
            function_generation: generation,
            allowed_hosts: vec![host.to_owned()],
            ..Default::default()
        })
    }

    fn said(text: &str) -> LogRecord {
        LogRecord {
            time: SystemTime::now(),
            function: "default/hello".into(),
            request_id: None,
            trace_id: None,
            stream: LogStream::Stdout,
            context: String::new(),
            text: text.to_owned(),
            event: None,
        }
    }

    fn texts(logs: &Logs, function: &FunctionId, previous: bool) -> Option<Vec<String>> {
        let reading = logs.read(
            function,
            &LogRequest {
                previous,
                ..Default::default()
            },
        )?;
        Some(reading.kept.iter().map(|line| line.text.clone()).collect())
    }

    #[test]
    fn what_a_function_said_before_it_left_can_be_asked_for() {
        let logs = Logs::default();
        let hello = FunctionId::new("default", "hello");
        let slot = SlotId::new("default", "hello.0");
        let sink = logs.sink(&hello, &slot, version(1, "a"), Events::default());
        sink(said("one"));
        let follow = LogRequest {
            follow: true,
            ..Default::default()
        };
        let mut follower = logs.read(&hello, &follow).unwrap().following.unwrap();

        logs.retain(|_| false);
        assert!(matches!(
            follower.try_recv(),
            Err(tokio::sync::broadcast::error::TryRecvError::Closed)
        ));
        // The last request ends after its instance stopped serving.
        sink(said("two"));
        assert_eq!(texts(&logs, &hello, false).unwrap(), ["one", "two"]);
        assert!(logs.read(&hello, &follow).unwrap().following.is_none());

        // It comes back as it was: its log goes on.
        logs.sink(&hello, &slot, version(1, "a"), Events::default())(said("three"));
        assert_eq!(
            texts(&logs, &hello, false).unwrap(),
            ["one", "two", "three"]
        );
        // It was deleted and made anew: generations begin at 1 again, and all else is of another.
        logs.retain(|_| false);
        logs.sink(&hello, &slot, version(1, "b"), Events::default())(said("new"));
        assert_eq!(texts(&logs, &hello, false).unwrap(), ["new"]);
        assert_eq!(texts(&logs, &hello, true).unwrap(), ["one", "two", "three"]);
        let other = FunctionId::new("default", "other");
        assert!(logs.read(&other, &follow).is_none());
    }

    #[test]
    fn a_note_is_a_line_of_its_version() {
        let logs = Logs::default();
        let hello = FunctionId::new("default", "hello");
        let slot = SlotId::new("default", "hello.0");
        logs.note(&hello, &slot, version(3, "a"), "the agent started");
        logs.sink(&hello, &slot, version(3, "a"), Events::default())(said("one"));
        assert_eq!(
            texts(&logs, &hello, false).unwrap(),
            ["the agent started", "one"]
        );
    }
    #[test]
    fn a_failure_is_a_line_and_an_event_and_a_line_no_event() {
        let (logs, events) = (Logs::default(), Events::default());
        let hello = FunctionId::new("default", "hello");
        let slot = SlotId::new("default", "hello.0");
        let sink = logs.sink(&hello, &slot, version(1, "a"), events.clone());
        sink(said("one"));
        assert_eq!(events.take(), []);
        sink(LogRecord {
            event: Some(LogEvent {
                reason: "Trap",
                message: "unreachable in main".to_owned(),
            }),
            ..said("Trap: unreachable")
        });
        let told = events.take();
        assert_eq!(told.len(), 1);
        assert_eq!(
            (told[0].reason.as_str(), told[0].message.as_str()),
            ("Trap", "unreachable in main")
        );
        assert_eq!(
            (told[0].function.as_str(), told[0].assignment.as_str()),
            ("hello", "hello.0")
        );
        assert_eq!(
            texts(&logs, &hello, false).unwrap(),
            ["one", "Trap: unreachable"]
        );
    }
}
