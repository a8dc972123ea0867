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
use super::{ask, nodes_of, note};
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
    /// Up to when a node's lines were read: it is asked for later ones after a break.
    read_until: BTreeMap<String, u64>,
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
                        self.read_until.insert(node, line.time_unix_ms);
                        return Some(line);
                    }
                    Said::Ended(node) => {
                        self.reading.remove(&node);
                    }
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
        self.unreachable.retain(|node| nodes.contains(node));
        let new: Vec<String> = nodes.difference(&self.reading).cloned().collect();
        for node in new {
            let mut request = self.request.clone();
            if let Some(until) = self.read_until.get(&node) {
                request.tail = 0;
                request.since_unix_ms = until + 1;
            }
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
