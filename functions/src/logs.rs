//! What guests print, as lines.
//!
//! Bytes that a guest writes to stdout or stderr and what it says by `wasi:logging` come in, and whole
//! lines go to the function's sink, with the id of the request they belong to. Neither a line nor a request's log can grow without
//! bound, and the sink must never block: it is called while the guest runs.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    async_trait,
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::host::{Log, LogLevel};
use crate::trace::Trace;

/// Longer lines are cut into pieces of this size, so that a guest that never ends its line costs
/// no more memory than this.
const LINE_BYTES: usize = 8 * 1024;

/// What a guest calls the context of a message; more is no name. It comes with each of its lines.
const CONTEXT_BYTES: usize = 256;

/// Lines of one request; what follows is dropped after one line that says so. Enough for a stack
/// trace in a loop, too few to push everybody else's lines out of an agent's memory.
const LINES_PER_REQUEST: u32 = 1000;

/// What a guest may write at once; wasmtime asks for a bound.
const WRITE_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    Stdout,
    Stderr,
    /// Said by `wasi:logging`.
    Log(LogLevel),
    /// Said by the runtime about the function: a trap, a limit, a refused request.
    Hive,
}

impl LogStream {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Log(_) => "log",
            Self::Hive => "hive",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    pub time: SystemTime,
    pub function: Arc<str>,
    /// From the request's `x-request-id`.
    pub request_id: Option<Arc<str>>,
    /// From its `traceparent`: 32 hexadecimal digits.
    pub trace_id: Option<Arc<str>>,
    pub stream: LogStream,
    /// What the guest named as the context of what it said by `wasi:logging`, at most 256 bytes.
    pub context: String,
    /// One line without its end, at most 8 KiB; bytes that are not UTF-8 are replaced.
    pub text: String,
    /// What the line tells is worth an Event too.
    pub event: Option<LogEvent>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEvent {
    /// For machines: one CamelCase word.
    pub reason: &'static str,
    /// The same for the same cause, whichever request it was.
    pub message: String,
}

/// Takes every line. Called from where guests run: it must return at once.
pub type LogSink = Arc<dyn Fn(LogRecord) + Send + Sync>;

/// Where the lines of one request go, and what else its guest does in its name.
#[derive(Clone)]
pub(crate) struct RequestLog {
    sink: LogSink,
    function: Arc<str>,
    request_id: Option<Arc<str>>,
    trace: Option<Arc<Trace>>,
    written: Arc<AtomicU32>,
}

impl RequestLog {
    pub(crate) fn new(sink: LogSink, function: Arc<str>, request_id: Option<Arc<str>>) -> Self {
        Self {
            sink,
            function,
            request_id,
            trace: None,
            written: Arc::default(),
        }
    }

    pub(crate) fn within(mut self, trace: Option<Trace>) -> Self {
        self.trace = trace.map(Arc::new);
        self
    }

    /// To which its request belongs.
    pub(crate) fn trace(&self) -> Option<&Trace> {
        self.trace.as_deref()
    }

    /// Says something about the function, whatever the guest has written already.
    pub(crate) fn hive(&self, text: String) {
        self.send(LogStream::Hive, "", text, None);
    }

    /// Says what an Event is to say as well.
    pub(crate) fn event(&self, text: String, event: LogEvent) {
        self.send(LogStream::Hive, "", text, Some(event));
    }

    fn guest(&self, stream: LogStream, context: &str, line: &[u8]) {
        // Saturating: a guest that prints for hours must not come round to 0.
        let before = self
            .written
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| {
                Some(n.saturating_add(1))
            })
            .unwrap_or(u32::MAX);
        if before < LINES_PER_REQUEST {
            let text = String::from_utf8_lossy(line).into_owned();
            self.send(stream, context, text, None);
        } else if before == LINES_PER_REQUEST {
            self.hive(format!(
                "{LINES_PER_REQUEST} lines are kept of a request: the rest is dropped"
            ));
        }
    }

    fn send(&self, stream: LogStream, context: &str, text: String, event: Option<LogEvent>) {
        (self.sink)(LogRecord {
            time: SystemTime::now(),
            function: self.function.clone(),
            request_id: self.request_id.clone(),
            trace_id: self.trace().map(|trace| trace.id().clone()),
            stream,
            context: context.to_owned(),
            text,
            event,
        });
    }
}

impl Log for RequestLog {
    /// A message of several lines is as many lines of the log: no guest can make one look like
    /// another's.
    fn log(&self, level: LogLevel, context: &str, message: &str) {
        let context = &context[..context.floor_char_boundary(CONTEXT_BYTES)];
        // A line's end in the context would be a line's end in the log.
        let context = context.replace(|c: char| c.is_control(), " ");
        let stream = LogStream::Log(level);
        let mut lines = message.lines().peekable();
        if lines.peek().is_none() {
            self.guest(stream, &context, b"");
        }
        for mut line in lines {
            while line.len() > LINE_BYTES {
                let (part, rest) = line.split_at(line.floor_char_boundary(LINE_BYTES));
                self.guest(stream, &context, part.as_bytes());
                line = rest;
            }
            self.guest(stream, &context, line.as_bytes());
        }
    }
}

/// One guest's stdout or stderr. Every stream that the guest opens on it writes to the same line.
#[derive(Clone)]
pub(crate) struct GuestOutput(Arc<Mutex<Lines>>);

impl GuestOutput {
    pub(crate) fn new(log: RequestLog, stream: LogStream) -> Self {
        Self(Arc::new(Mutex::new(Lines {
            log,
            stream,
            rest: Vec::new(),
        })))
    }

    /// What is written from now on is another request's; a line that has begun ends.
    pub(crate) fn speaks_for(&self, log: RequestLog) {
        let mut lines = self.lines();
        if !lines.rest.is_empty() {
            lines.end_line();
        }
        lines.log = log;
    }

    fn write(&self, bytes: &[u8]) {
        self.lines().write(bytes);
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // A panic in the sink leaves the lines as they are: complete.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Lines {
    log: RequestLog,
    stream: LogStream,
    /// The line that has not ended yet.
    rest: Vec<u8>,
}

impl Lines {
    fn write(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            for part in text.chunks(LINE_BYTES) {
                if self.rest.len() + part.len() > LINE_BYTES {
                    self.end_line();
                }
                self.rest.extend_from_slice(part);
            }
            if ended {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        let line = self.rest.strip_suffix(b"\r").unwrap_or(&self.rest);
        self.log.guest(self.stream, "", line);
        self.rest.clear();
    }
}

impl Drop for Lines {
    /// The guest is gone, with a line that it never ended.
    fn drop(&mut self) {
        if !self.rest.is_empty() {
            self.end_line();
        }
    }
}

impl IsTerminal for GuestOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    /// Written through at once: the default would hand lines to a task that may outlive the guest.
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for GuestOutput {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        GuestOutput::write(self, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES)
    }
}

impl AsyncWrite for GuestOutput {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        GuestOutput::write(&self, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    /// What the sink got when `writes` were written and the guest ended.
    fn lines(writes: &[&[u8]]) -> Vec<(LogStream, String)> {
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink: LogSink = {
            let got = got.clone();
            Arc::new(move |record: LogRecord| {
                got.lock().unwrap().push((record.stream, record.text))
            })
        };
        let output = GuestOutput::new(
            RequestLog::new(sink, "hello".into(), None),
            LogStream::Stdout,
        );
        for bytes in writes {
            output.write(bytes);
        }
        drop(output);
        Arc::into_inner(got).unwrap().into_inner().unwrap()
    }

    fn texts(writes: &[&[u8]]) -> Vec<String> {
        lines(writes).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn lines_are_put_together_from_writes() {
        assert_eq!(texts(&[b"a", b"b\nc", b"\r\n\nd"]), ["ab", "c", "", "d"]);
        assert_eq!(texts(&[b""]), Vec::<String>::new());
        assert_eq!(texts(&[b"\xff\n"]), ["\u{fffd}"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let long = vec![b'x'; 2 * LINE_BYTES + 1];
        let lengths: Vec<_> = texts(&[&long]).iter().map(String::len).collect();
        assert_eq!(lengths, [LINE_BYTES, LINE_BYTES, 1]);
    }

    #[test]
    fn a_request_that_prints_for_ever_is_cut_off_with_a_notice() {
        let got = lines(&[&b"x\n".repeat(3 * LINES_PER_REQUEST as usize)]);
        assert_eq!(got.len(), LINES_PER_REQUEST as usize + 1);
        let (stream, text) = got.last().unwrap();
        assert_eq!(*stream, LogStream::Hive);
        assert!(text.contains("dropped"), "{text}");
    }

    fn said(level: LogLevel, context: &str, message: &str) -> Vec<LogRecord> {
        let got = Arc::new(Mutex::new(Vec::new()));
        let sink: LogSink = {
            let got = got.clone();
            Arc::new(move |record| got.lock().unwrap().push(record))
        };
        RequestLog::new(sink, "hello".into(), None).log(level, context, message);
        Arc::into_inner(got).unwrap().into_inner().unwrap()
    }

    #[test]
    fn what_is_said_has_a_level_and_a_context_in_each_of_its_lines() {
        let lines = said(LogLevel::Warn, "db\npool", "first\r\nsecond\n");
        let lines: Vec<_> = lines
            .iter()
            .map(|it| (it.stream, it.context.as_str(), it.text.as_str()))
            .collect();
        let stream = LogStream::Log(LogLevel::Warn);
        assert_eq!(
            lines,
            [(stream, "db pool", "first"), (stream, "db pool", "second")]
        );
        assert_eq!(said(LogLevel::Info, "", "").len(), 1);
    }

    #[test]
    fn what_is_said_is_cut_between_characters() {
        let long = "ü".repeat(LINE_BYTES);
        let lines = said(LogLevel::Info, &long, &long);
        let texts: Vec<_> = lines.iter().map(|it| it.text.as_str()).collect();
        assert_eq!(texts.concat(), long);
        assert!(lines.iter().all(|it| it.text.len() <= LINE_BYTES));
        assert!(lines.iter().all(|it| it.context.len() <= CONTEXT_BYTES));
    }

    #[test]
    fn what_is_said_for_ever_is_cut_off_as_what_is_printed() {
        let lines = said(
            LogLevel::Info,
            "",
            &"x\n".repeat(3 * LINES_PER_REQUEST as usize),
        );
        assert_eq!(lines.len(), LINES_PER_REQUEST as usize + 1);
        assert_eq!(lines.last().unwrap().stream, LogStream::Hive);
    }

    proptest! {
        #[test]
        fn how_writes_are_cut_does_not_matter(
            text in "[a-c\n]{0,60}", cuts in prop::collection::vec(0usize..60, 0..6)
        ) {
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let writes: Vec<_> = cuts.windows(2).map(|w| &text.as_bytes()[w[0]..w[1]]).collect();
            prop_assert_eq!(texts(&writes), text.lines().collect::<Vec<_>>());
        }
    }
}
