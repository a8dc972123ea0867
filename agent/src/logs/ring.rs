//! The last lines of one function: those of the version that runs here, and the last words of the
//! version before it.
//!
//! Lines go in, each gets its place in the order; readings come out. The oldest line goes when there
//! is no room, and a follower that is too slow is told how many lines it missed: nothing here waits.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hive_proto::v1::{Assignment, LogLine, LogRequest};
use prost::Message;
use tokio::sync::broadcast;

use crate::ids::Digest;

/// Kept of the version that runs, whichever is reached first: several screens of what happened last.
/// With the version before, ten busy functions take no more than 3.2 MiB.
const KEPT_LINES: usize = 1000;
const KEPT_BYTES: usize = 256 * 1024;

/// Kept of the version before: why it was replaced is in its last screens.
const KEPT_PREVIOUS_BYTES: usize = 64 * 1024;

/// What a follower may be behind by. It is only allocated while somebody follows.
const FOLLOWER_LINES: usize = 256;

/// A line as it goes into a frame: its text must leave room for the other fields.
const LINE_BYTES: usize = 8 * 1024;

/// What an instance was made of. A function's generation alone does not say it: it also grows with
/// the number of copies, and then nothing of them changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    generation: u64,
    content: Option<Digest>,
}

pub struct Ring {
    /// Tells this log from the one that an agent had before it began anew.
    id: u64,
    last_sequence: u64,
    /// Of what `current` is; `None` before its first line.
    version: Option<Version>,
    current: Half,
    previous: Half,
    followers: Option<broadcast::Sender<Arc<LogLine>>>,
}

#[derive(Default)]
struct Half {
    lines: VecDeque<Arc<LogLine>>,
    bytes: usize,
}

/// The answer to a request: lines there are, and those to come.
pub struct Reading {
    pub kept: Vec<Arc<LogLine>>,
    pub following: Option<broadcast::Receiver<Arc<LogLine>>>,
}

impl Version {
    pub fn of(assignment: &Assignment) -> Self {
        let content = Assignment {
            name: String::new(),
            uid: String::new(),
            function_generation: 0,
            ..assignment.clone()
        };
        Self {
            generation: assignment.function_generation,
            content: Some(Digest::of(&content.encode_to_vec())),
        }
    }

    pub fn generation(self) -> u64 {
        self.generation
    }

    fn is_same(self, other: Self) -> bool {
        self.content == other.content
    }
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            // Never 0, which is none.
            id: RandomState::new().hash_one(0) | 1,
            last_sequence: 0,
            version: None,
            current: Half::default(),
            previous: Half::default(),
            followers: None,
        }
    }
}

impl Ring {
    /// What runs from now on is `version`, whatever ran before.
    pub fn begin(&mut self, version: Version) {
        let is_new = self.version.is_some_and(|before| !before.is_same(version));
        // Of a version that said nothing there are no last words to keep.
        if is_new && !self.current.lines.is_empty() {
            self.previous = std::mem::take(&mut self.current);
            self.previous.cut_to(KEPT_PREVIOUS_BYTES);
        }
        self.version = Some(version);
    }

    /// An instance of `version` serves now. Where it is of an older generation, it is one of those that
    /// are replaced one after the other.
    pub fn serve(&mut self, version: Version) {
        let newest = self.version.map_or(0, |newest| newest.generation);
        if version.generation >= newest {
            self.begin(version);
        }
    }

    /// While versions change, instances of both speak: whose function is of an older generation
    /// belongs to the version before.
    pub fn push(&mut self, version: Version, mut line: LogLine) {
        line.text
            .truncate(line.text.floor_char_boundary(LINE_BYTES));
        self.last_sequence += 1;
        line.sequence = self.last_sequence;
        line.log_id = self.id;
        let line = Arc::new(line);
        let now = *self.version.get_or_insert(version);
        if version.generation < now.generation && !version.is_same(now) {
            self.previous.push(line.clone(), KEPT_PREVIOUS_BYTES);
        } else {
            if version.generation > now.generation {
                self.begin(version);
            }
            self.current.push(line.clone(), KEPT_BYTES);
        }
        if let Some(followers) = &self.followers
            && followers.send(line).is_err()
        {
            // The last one left.
            self.followers = None;
        }
    }

    /// No line is lost or doubled between those that are kept and those that follow, nor by one who
    /// goes on after a break, as long as what he missed is kept.
    pub fn read(&mut self, request: &LogRequest) -> Reading {
        let goes_on = request.log_id == self.id;
        let is_asked_for = |line: &Arc<LogLine>| {
            is_of(line, &request.request_id)
                && match goes_on {
                    true => line.sequence > request.after_sequence,
                    false => line.time_unix_ms >= request.since_unix_ms,
                }
        };
        // Whoever goes on, or looks for one request, does not care which version said it.
        let of_both = goes_on || !request.request_id.is_empty();
        let (previous, current) = (&self.previous.lines, &self.current.lines);
        let mut kept: Vec<Arc<LogLine>> = match (request.previous, of_both) {
            (true, _) => previous
                .iter()
                .filter(|line| is_asked_for(line))
                .cloned()
                .collect(),
            (false, false) => current
                .iter()
                .filter(|line| is_asked_for(line))
                .cloned()
                .collect(),
            (false, true) => {
                let both = previous.iter().chain(current);
                both.filter(|line| is_asked_for(line)).cloned().collect()
            }
        };
        // Late lines of the version before came between those of this one.
        kept.sort_by_key(|line| line.sequence);
        if !goes_on && request.tail > 0 {
            kept.drain(..kept.len().saturating_sub(request.tail as usize));
        }
        let follow = request.follow && !request.previous;
        let following = follow.then(|| {
            self.followers
                .get_or_insert_with(|| broadcast::Sender::new(FOLLOWER_LINES))
                .subscribe()
        });
        Reading { kept, following }
    }

    pub fn end_followers(&mut self) {
        self.followers = None;
    }

    pub fn bytes(&self) -> usize {
        self.current.bytes + self.previous.bytes
    }
}

impl Half {
    fn push(&mut self, line: Arc<LogLine>, kept_bytes: usize) {
        self.bytes += size(&line);
        self.lines.push_back(line);
        self.cut_to(kept_bytes);
    }

    fn cut_to(&mut self, kept_bytes: usize) {
        while self.lines.len() > KEPT_LINES || self.bytes > kept_bytes {
            let Some(oldest) = self.lines.pop_front() else {
                break;
            };
            self.bytes -= size(&oldest);
        }
    }
}

/// Whether a line was said in the request, or in a request of the trace, of that id; empty is any.
pub fn is_of(line: &LogLine, id: &str) -> bool {
    id.is_empty() || line.request_id == id || line.trace_id == id
}

/// What a line takes in memory, roughly: its texts and its own fields.
fn size(line: &LogLine) -> usize {
    let texts = [
        &line.text,
        &line.context,
        &line.request_id,
        &line.trace_id,
        &line.assignment,
    ];
    texts.map(String::len).iter().sum::<usize>() + size_of::<LogLine>()
}

#[cfg(test)]
mod tests;
