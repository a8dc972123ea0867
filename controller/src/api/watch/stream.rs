//! One watch under way: what it has sent, and what it sends next.

use bytes::{Bytes, BytesMut};
use hive_manifests::Resource;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::auth::User;
use super::super::errors::ApiError;
use super::super::limits::Place;
use super::super::path::ObjectPath;
use super::super::respond::Shape;
use super::super::selectors::Selectors;
use super::event::{self, Encoder, transition};
use super::topics::{Subscription, Topics};
use crate::state::{Key, Object, View};

/// How often a watcher that asked for bookmarks learns the revision: after a break it then need not
/// replay more than this. Kubernetes sends about one a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);

/// Events are sent together up to this size: one write for a burst, and still little memory.
const CHUNK_BYTES: usize = 64 << 10;

/// Which objects a watch is about.
pub(super) struct Scope {
    pub path: ObjectPath,
    pub selectors: Selectors,
}

impl Scope {
    /// The one name that is watched, if it is one.
    pub fn name(&self) -> Option<&str> {
        self.path
            .name
            .as_deref()
            .or_else(|| self.selectors.fields.name())
    }

    fn selects(&self, object: &Object) -> bool {
        let key = object.key();
        self.path
            .name
            .as_deref()
            .is_none_or(|name| name == key.name)
            && self.selectors.matches(object)
    }

    fn concerns(&self, key: &Key) -> bool {
        key.resource == self.path.resource
            && self
                .path
                .namespace
                .as_deref()
                .is_none_or(|namespace| namespace == key.namespace)
    }
}

/// What makes two watches of a topic show the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Audience {
    pub labels: Option<String>,
    pub fields: Option<String>,
    pub shape: Shape,
}

/// Where a watch begins.
pub(super) enum Start {
    /// With what there is, as if it were just added.
    Initial {
        view: View,
        /// Whether to say when that was all.
        announce: bool,
    },
    After(u64),
    /// A revision that this swarm never had.
    Unknown(u64),
}

enum Phase {
    Initial {
        view: View,
        /// The last object that was sent.
        after: Option<Key>,
        announce: bool,
    },
    /// To read what the history holds already.
    CatchingUp,
    Following,
    /// It ends with this.
    Ending(Option<Bytes>),
}

pub(super) struct Watch {
    topics: Topics,
    subscription: Subscription,
    stop: CancellationToken,
    user: User,
    scope: Scope,
    audience: Audience,
    encoder: Encoder,
    /// Everything up to this revision was sent or does not concern the client.
    sent: u64,
    phase: Phase,
    next_bookmark: Option<Instant>,
    deadline: Instant,
    _permit: Place,
}

impl Watch {
    #[expect(
        clippy::too_many_arguments,
        reason = "each part of a watch comes from another place"
    )]
    pub fn new(
        topics: Topics,
        subscription: Subscription,
        stop: CancellationToken,
        scope: Scope,
        audience: Audience,
        encoder: Encoder,
        start: Start,
        bookmarks: bool,
        timeout: Duration,
        user: User,
        permit: Place,
    ) -> Self {
        let (phase, sent) = match start {
            Start::Initial { view, announce } => {
                let sent = view.revision();
                let after = None;
                let phase = Phase::Initial {
                    view,
                    after,
                    announce,
                };
                (phase, sent)
            }
            Start::After(revision) => (Phase::CatchingUp, revision),
            Start::Unknown(revision) => {
                let gone = expired(format!("resource version {revision} is not known here"));
                (Phase::Ending(Some(event::error(&gone))), revision)
            }
        };
        let now = Instant::now();
        Self {
            topics,
            subscription,
            stop,
            user,
            scope,
            audience,
            encoder,
            sent,
            phase,
            next_bookmark: bookmarks.then(|| now + BOOKMARK_INTERVAL),
            deadline: now + timeout,
            _permit: permit,
        }
    }

    /// The next events; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let chunk = match &mut self.phase {
                Phase::Ending(last) => return last.take(),
                Phase::Initial { .. } => self.initial(),
                Phase::CatchingUp => self.catch_up(),
                Phase::Following => self.wait().await,
            };
            if chunk.is_some() {
                return chunk;
            }
        }
    }

    fn initial(&mut self) -> Option<Bytes> {
        let Phase::Initial {
            view,
            after,
            announce,
        } = &mut self.phase
        else {
            return None;
        };
        let resource: Resource = self.scope.path.resource;
        let namespace = self.scope.path.namespace.as_deref();
        let mut chunk = BytesMut::new();
        let mut reached = None;
        for object in view.list(resource, namespace, after.as_ref()) {
            if self.scope.selects(object) {
                self.encoder.added(&mut chunk, object);
                if chunk.len() >= CHUNK_BYTES {
                    reached = Some(object.key().clone());
                    break;
                }
            }
        }
        if reached.is_some() {
            *after = reached;
            return Some(chunk.freeze());
        }
        if *announce {
            self.encoder.bookmark(&mut chunk, self.sent, true);
        }
        self.phase = Phase::CatchingUp;
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// What was there when the watch began to follow its topic.
    fn catch_up(&mut self) -> Option<Bytes> {
        // Seen before it is read: what comes meanwhile is announced again.
        self.subscription.marks.mark_unchanged();
        self.subscription.ticks.mark_unchanged();
        if self.is_revoked() {
            return None;
        }
        let upto = self.topics.state().revision();
        let chunk = self.read(self.sent, upto);
        if self.sent >= upto && matches!(self.phase, Phase::CatchingUp) {
            self.phase = Phase::Following;
        }
        chunk
    }

    /// Events of the changes after `from`, up to `upto`; moves on even if none concerns the client.
    fn read(&mut self, from: u64, upto: u64) -> Option<Bytes> {
        if from >= upto {
            return None;
        }
        let topic = &self.subscription.topic;
        if let Some((chunk, sent)) = topic.shared(&self.audience, from, upto) {
            self.sent = sent;
            return Some(chunk).filter(|chunk| !chunk.is_empty());
        }
        let state = self.topics.state();
        let changes = match state.changes_since(from) {
            Ok(changes) => changes,
            Err(compacted) => {
                let gone = expired(format!("{} ({})", compacted.asked, compacted.oldest));
                self.phase = Phase::Ending(Some(event::error(&gone)));
                return None;
            }
        };
        let mut chunk = BytesMut::new();
        let mut sent = upto;
        for change in changes.take_while(|change| change.revision <= upto) {
            if self.scope.concerns(&change.key)
                && let Some(event) = transition(change, |object| self.scope.selects(object))
            {
                self.encoder.event(&mut chunk, &event);
                if chunk.len() >= CHUNK_BYTES {
                    sent = change.revision;
                    break;
                }
            }
        }
        let chunk = chunk.freeze();
        topic.share(&self.audience, from, upto, &chunk, sent);
        self.sent = sent;
        Some(chunk).filter(|chunk| !chunk.is_empty())
    }

    /// Waits for a change of its topic, a tick, the time of a bookmark, or the end; the events, if
    /// there are any.
    async fn wait(&mut self) -> Option<Bytes> {
        let timer = self
            .next_bookmark
            .map_or(self.deadline, |next| next.min(self.deadline));
        let Subscription { marks, ticks, .. } = &mut self.subscription;
        let ends = tokio::select! {
            biased;
            () = self.stop.cancelled() => true,
            changed = marks.changed() => changed.is_err(),
            changed = ticks.changed() => changed.is_err(),
            () = tokio::time::sleep_until(timer) => false,
        };
        if ends || Instant::now() >= self.deadline {
            // Whoever comes back need not replay what it knows. What was announced just now is not
            // sent any more, and not claimed.
            let last = self.next_bookmark.map(|_| self.bookmark());
            self.phase = Phase::Ending(last);
            return None;
        }
        if self.is_revoked() {
            return None;
        }
        let mark = *self.subscription.marks.borrow_and_update();
        let from = mark.from(self.sent);
        if from < mark.last {
            let chunk = self.read(from, mark.last);
            if self.sent < mark.last {
                // The rest of a burst, without waiting for more.
                self.subscription.marks.mark_changed();
            }
            return chunk;
        }
        self.advance();
        match self.next_bookmark {
            Some(next) if next <= Instant::now() => {
                self.next_bookmark = Some(Instant::now() + BOOKMARK_INTERVAL);
                Some(self.bookmark())
            }
            _ => None,
        }
    }

    /// Ends the watch of somebody who may not watch any more.
    fn is_revoked(&mut self) -> bool {
        if self.user.still_allowed(&self.topics.state()) {
            return false;
        }
        let gone = ApiError::Unauthenticated(
            "the token or certificate was revoked, changed, or has expired",
        );
        self.phase = Phase::Ending(Some(event::error(&gone)));
        true
    }

    /// If all of the topic that was announced was sent, there is nothing to look for before what is
    /// announced next. Whether this was woken by a mark says nothing about that: a mark that was seen
    /// is not yet one that was read.
    fn advance(&mut self) {
        // In this order: what is announced in between has a mark, and is not below `scanned`.
        let scanned = self.topics.scanned();
        if self.sent >= self.subscription.marks.borrow().last {
            self.sent = self.sent.max(scanned);
        }
    }

    fn bookmark(&mut self) -> Bytes {
        self.advance();
        let mut chunk = BytesMut::new();
        self.encoder.bookmark(&mut chunk, self.sent, false);
        chunk.freeze()
    }
}

fn expired(why: String) -> ApiError {
    ApiError::Expired {
        message: format!("too old resource version: {why}"),
        restart: None,
    }
}

#[cfg(test)]
mod tests;
