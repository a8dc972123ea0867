//! Watches: the changes of a collection as a stream of events, from a revision on.
//!
//! A watcher queues nothing. Woken by a new revision it reads the shared history after the last
//! change it sent; one that reads slowly is held by its connection and falls behind in the history,
//! until that no longer reaches back and it is told to list again.

mod event;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, StatusCode, header};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::auth::User;
use super::errors::ApiError;
use super::limits::Permit;
use super::path::ObjectPath;
use super::query::{Query, VersionMatch};
use super::selectors::Selectors;
use super::{Api, Call};
use crate::state::{Object, State};
use crate::store::Replica;
use event::{Encoder, transition};

/// How often a watcher that asked for bookmarks learns the revision: after a break it then need not
/// replay more than this. Kubernetes sends about one a minute.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);

/// A watch without timeoutSeconds ends after this, and up to twice as long: clients that came
/// together do not come back together. Kubernetes' own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Events are sent together up to this size: one write for a burst, and still little memory.
const CHUNK_BYTES: usize = 64 << 10;

pub(super) async fn serve(
    context: &Api,
    path: ObjectPath,
    call: Call,
) -> Result<Response, ApiError> {
    let permit = context.permits.stream()?;
    let shape = call.shape()?;
    let selectors = Selectors {
        labels: call.query.labels()?,
        fields: call.query.fields(path.resource)?,
    };
    let encoder = Encoder {
        resource: path.resource,
        shape,
    };
    let scope = Scope { path, selectors };
    let (phase, sent) = start(context, &scope, &call.query).await?;
    let now = Instant::now();
    let watch = Watch {
        revisions: context.replica.revisions(),
        replica: context.replica.clone(),
        stop: context.stop.clone(),
        scope,
        encoder,
        sent,
        phase,
        bookmarks: call.query.allow_bookmarks,
        next_bookmark: now + BOOKMARK_INTERVAL,
        deadline: now + deadline(&call.query, &call.user),
        user: call.user,
        _permit: permit,
    };
    let events = futures::stream::unfold(watch, |mut watch| async move {
        let chunk = watch.next().await?;
        Some((Ok::<_, Infallible>(chunk), watch))
    });
    let mut response = Response::new(Body::from_stream(events));
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json;stream=watch"),
    );
    Ok(response)
}

/// Which objects a watch is about.
struct Scope {
    path: ObjectPath,
    selectors: Selectors,
}

impl Scope {
    fn selects(&self, object: &Object) -> bool {
        let key = object.key();
        self.path
            .name
            .as_deref()
            .is_none_or(|name| name == key.name)
            && self.selectors.matches(object)
    }

    fn concerns(&self, key: &crate::state::Key) -> bool {
        key.resource == self.path.resource
            && self
                .path
                .namespace
                .as_deref()
                .is_none_or(|namespace| namespace == key.namespace)
    }

    fn list(&self, state: &State) -> Vec<Arc<Object>> {
        state
            .list(self.path.resource, self.path.namespace.as_deref())
            .filter(|object| self.selects(object))
            .cloned()
            .collect()
    }
}

enum Phase {
    /// What there is already, as if it were just added.
    Initial {
        objects: std::vec::IntoIter<Arc<Object>>,
        /// Whether to say when that was all.
        announce: bool,
    },
    Following,
    /// It ends with this.
    Ending(Option<Bytes>),
}

/// Where a watch begins: a phase, and the revision that the client knows.
async fn start(context: &Api, scope: &Scope, query: &Query) -> Result<(Phase, u64), ApiError> {
    let wants_initial = match query.send_initial_events {
        Some(true) if query.resource_version_match != Some(VersionMatch::NotOlderThan) => {
            return Err(ApiError::BadRequest(
                "sendInitialEvents requires resourceVersionMatch=NotOlderThan".into(),
            ));
        }
        Some(wanted) => wanted,
        None => query.resource_version.unwrap_or(0) == 0,
    };
    let state = match query.resource_version {
        None => context.newest().await?,
        Some(0) => context.replica.state(),
        Some(revision) => match context.reach(revision).await {
            Some(state) => state,
            // From a future that this swarm never had: only a new list helps.
            None => {
                let gone = expired(format!("resource version {revision} is not known here"));
                return Ok((Phase::Ending(Some(event::error(&gone))), revision));
            }
        },
    };
    if wants_initial {
        let phase = Phase::Initial {
            objects: scope.list(&state).into_iter(),
            announce: query.send_initial_events == Some(true) && query.allow_bookmarks,
        };
        return Ok((phase, state.revision()));
    }
    let sent = match query.resource_version {
        Some(revision) if revision > 0 => revision,
        _ => state.revision(),
    };
    Ok((Phase::Following, sent))
}

fn deadline(query: &Query, user: &User) -> Duration {
    let timeout = query
        .timeout
        .filter(|timeout| !timeout.is_zero())
        .unwrap_or_else(|| {
            let mut random = [0; 2];
            SystemRandom::new()
                .fill(&mut random)
                .expect("the system's random source works");
            DEFAULT_TIMEOUT
                + DEFAULT_TIMEOUT.mul_f64(f64::from(u16::from_le_bytes(random)) / 65_536.0)
        });
    let allowed = user
        .expiry()
        .map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default());
    // Longer than a day is no use to anyone, and keeps the sum within what an Instant can hold.
    allowed
        .map_or(timeout, |allowed| timeout.min(allowed))
        .min(Duration::from_secs(86_400))
}

fn expired(why: String) -> ApiError {
    ApiError::Expired {
        message: format!("too old resource version: {why}"),
        restart: None,
    }
}

struct Watch {
    replica: Replica,
    revisions: tokio::sync::watch::Receiver<u64>,
    stop: CancellationToken,
    user: User,
    scope: Scope,
    encoder: Encoder,
    /// Everything up to this revision was sent or does not concern the client.
    sent: u64,
    phase: Phase,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    _permit: Permit,
}

impl Watch {
    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            match &mut self.phase {
                Phase::Ending(last) => return last.take(),
                Phase::Initial { .. } => {
                    if let Some(chunk) = self.initial() {
                        return Some(chunk);
                    }
                }
                Phase::Following => {
                    // Seen before it is read: a revision that comes meanwhile wakes again.
                    self.revisions.borrow_and_update();
                    if let Some(chunk) = self.follow() {
                        return Some(chunk);
                    }
                    if matches!(self.phase, Phase::Following)
                        && let Some(chunk) = self.wait().await
                    {
                        return Some(chunk);
                    }
                }
            }
        }
    }

    fn initial(&mut self) -> Option<Bytes> {
        let Phase::Initial { objects, announce } = &mut self.phase else {
            return None;
        };
        let mut chunk = BytesMut::new();
        for object in objects {
            self.encoder.added(&mut chunk, &object);
            if chunk.len() >= CHUNK_BYTES {
                return Some(chunk.freeze());
            }
        }
        if *announce {
            self.encoder.bookmark(&mut chunk, self.sent, true);
        }
        self.phase = Phase::Following;
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// What happened since the last event; moves on even if none of it concerns the client.
    fn follow(&mut self) -> Option<Bytes> {
        let state = self.replica.state();
        if !self.user.still_allowed(&state) {
            let gone = ApiError::Unauthenticated("the token was revoked, changed, or has expired");
            self.phase = Phase::Ending(Some(event::error(&gone)));
            return None;
        }
        let changes = match state.changes_since(self.sent) {
            Ok(changes) => changes,
            Err(compacted) => {
                let gone = expired(format!("{} ({})", compacted.asked, compacted.oldest));
                self.phase = Phase::Ending(Some(event::error(&gone)));
                return None;
            }
        };
        let mut chunk = BytesMut::new();
        for change in changes {
            self.sent = change.revision;
            if self.scope.concerns(&change.key)
                && let Some(event) = transition(change, |object| self.scope.selects(object))
            {
                self.encoder.event(&mut chunk, &event);
                if chunk.len() >= CHUNK_BYTES {
                    return Some(chunk.freeze());
                }
            }
        }
        self.sent = self.sent.max(state.revision());
        (!chunk.is_empty()).then(|| chunk.freeze())
    }

    /// Waits for a new revision, the time of a bookmark, or the end.
    async fn wait(&mut self) -> Option<Bytes> {
        let ends = tokio::select! {
            changed = self.revisions.changed() => changed.is_err(),
            () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                self.next_bookmark = Instant::now() + BOOKMARK_INTERVAL;
                return Some(self.bookmark());
            }
            () = tokio::time::sleep_until(self.deadline) => true,
            () = self.stop.cancelled() => true,
        };
        if ends {
            // Whoever comes back need not replay what it knows.
            let last = self.bookmarks.then(|| self.bookmark());
            self.phase = Phase::Ending(last);
        }
        None
    }

    fn bookmark(&self) -> Bytes {
        let mut chunk = BytesMut::new();
        self.encoder.bookmark(&mut chunk, self.sent, false);
        chunk.freeze()
    }
}
