//! A log that goes on: the function's nodes come and go, and their lines with them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream, SelectAll};
use hive_proto::v1::{LogLine, LogRequest};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::super::Api;
use super::super::auth::User;
use super::super::errors::error_chain;
use super::places::{former_nodes_of, nodes_of};
use super::{NOTE, ask, note, open_former};
use crate::gateway::Nodes;
use crate::state::Key;
use crate::store::Replica;

/// How often the assignments are looked at again, and whether the reader still may read: soon
/// enough for somebody who watches, and next to nothing for the controller.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What a node's stream yields: lines, then that it ended.
enum Said {
    Line(String, LogLine),
    Ended(String),
    /// By a node that the function left: nothing follows.
    Last(LogLine),
}

/// A place in a node's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    log_id: u64,
    sequence: u64,
    time_unix_ms: u64,
}

impl Position {
    fn of(line: &LogLine) -> Self {
        Self {
            log_id: line.log_id,
            sequence: line.sequence,
            time_unix_ms: line.time_unix_ms,
        }
    }

    /// What to ask for to go on behind it. Where the agent has begun another log meanwhile, nothing in
    /// that was read, and what is newer than this line is new. An older agent numbers no lines: of
    /// those that were written in the same millisecond as this one some may be lost.
    fn go_on(self, first: &LogRequest) -> LogRequest {
        let is_numbered = self.sequence > 0;
        LogRequest {
            tail: 0,
            since_unix_ms: self.time_unix_ms + u64::from(!is_numbered),
            log_id: self.log_id,
            after_sequence: self.sequence,
            ..first.clone()
        }
    }
}

pub(super) struct Follow {
    replica: Replica,
    nodes: Nodes,
    stop: CancellationToken,
    user: User,
    function: Key,
    request: LogRequest,
    lines: SelectAll<BoxStream<'static, Said>>,
    reading: BTreeSet<String>,
    /// Nodes that could not be asked, so that each is mentioned once.
    unreachable: BTreeSet<String>,
    /// Up to where a node's lines were read: it is asked for later ones after a break.
    read_until: BTreeMap<String, Position>,
    /// Whether the nodes that the function left before were asked for what they have.
    former_asked: bool,
    looks: Interval,
}

impl Follow {
    pub fn new(context: &Api, user: User, function: Key, request: LogRequest) -> Self {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            replica: context.replica.clone(),
            nodes: context.nodes.clone(),
            stop: context.stop.clone(),
            user,
            function,
            request,
            lines: SelectAll::new(),
            reading: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            read_until: BTreeMap::new(),
            former_asked: false,
            looks,
        }
    }

    /// The next line; `None` when the function is gone, its reader may read no longer, or the
    /// controller stops.
    pub async fn next(&mut self) -> Option<LogLine> {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return None,
                _ = self.looks.tick() => self.look().await?,
                Some(said) = self.lines.next(), if !self.lines.is_empty() => match said {
                    Said::Line(node, line) => {
                        // A note is this controller's, with the time of its own clock.
                        if line.stream != NOTE {
                            self.read_until.insert(node, Position::of(&line));
                        }
                        return Some(line);
                    }
                    Said::Ended(node) => {
                        self.reading.remove(&node);
                    }
                    Said::Last(line) => return Some(line),
                },
            }
        }
    }

    /// Asks the nodes that run the function and are not read yet.
    async fn look(&mut self) -> Option<()> {
        let state = self.replica.state();
        if !self.user.still_allowed(&state) {
            return None;
        }
        state.get(&self.function)?;
        let nodes = nodes_of(&state, &self.function);
        if !std::mem::replace(&mut self.former_asked, true) {
            let former = former_nodes_of(&state, &self.function);
            for lines in open_former(&self.nodes, &former, &self.request).await {
                self.lines.push(lines.map(Said::Last).boxed());
            }
        }
        self.unreachable.retain(|node| nodes.contains(node));
        let new: Vec<String> = nodes.difference(&self.reading).cloned().collect();
        for node in new {
            let request = match self.read_until.get(&node) {
                Some(position) => position.go_on(&self.request),
                None => self.request.clone(),
            };
            match ask(&self.nodes, &node, request).await {
                Ok(lines) => {
                    self.unreachable.remove(&node);
                    self.reading.insert(node.clone());
                    let ended = stream::iter([Said::Ended(node.clone())]);
                    let said = lines.map(move |line| Said::Line(node.clone(), line));
                    self.lines.push(said.chain(ended).boxed());
                }
                Err(error) if self.unreachable.insert(node.clone()) => {
                    let line = note(&node, &error_chain(&error));
                    self.lines
                        .push(stream::iter([Said::Line(node, line)]).boxed());
                }
                Err(_) => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(time_unix_ms: u64, log_id: u64, sequence: u64) -> LogLine {
        LogLine {
            time_unix_ms,
            log_id,
            sequence,
            ..Default::default()
        }
    }

    #[test]
    fn after_a_break_a_log_goes_on_behind_the_last_line() {
        let first = LogRequest {
            function: "hello".into(),
            tail: 10,
            follow: true,
            since_unix_ms: 1,
            request_id: "x".into(),
            ..Default::default()
        };
        let next = Position::of(&line(500, 7, 3)).go_on(&first);
        let expected = LogRequest {
            tail: 0,
            // Only heeded in another log, in which no line of this millisecond was read.
            since_unix_ms: 500,
            log_id: 7,
            after_sequence: 3,
            ..first.clone()
        };
        assert_eq!(next, expected);
        let of_an_older_agent = Position::of(&line(500, 0, 0)).go_on(&first);
        assert_eq!(of_an_older_agent.since_unix_ms, 501);
    }
}
