//! Watches: the changes of a collection as a stream of events, from a revision on.
//!
//! A watcher queues nothing. Woken when something changed that may concern it, it reads the shared
//! history after the last change it sent; one that reads slowly is held by its connection and falls
//! behind in the history, until that no longer reaches back and it is told to list again.

mod event;
mod stream;
mod topics;

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use http::{HeaderValue, header};
use ring::rand::{SecureRandom, SystemRandom};

use super::auth::User;
use super::errors::ApiError;
use super::path::ObjectPath;
use super::query::{Query, VersionMatch};
use super::selectors::Selectors;
use super::{Api, Call};
use event::Encoder;
use stream::{Audience, Scope, Start, Watch};

pub(super) use topics::Topics;

/// Of what a watch is answered with.
pub(super) const CONTENT_TYPE: &str = "application/json;stream=watch";

/// A watch without timeoutSeconds ends after this, and up to twice as long: clients that came
/// together do not come back together. Kubernetes' own default.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

/// Longer is no use to anyone, and a sum with it is within what an Instant can hold.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

pub(super) async fn serve(
    context: &Api,
    path: ObjectPath,
    call: Call,
) -> Result<Response, ApiError> {
    let permit = context.permits.watch(&call.user.info)?;
    let shape = call.shape()?;
    let selectors = Selectors {
        labels: call.query.labels()?,
        fields: call.query.fields(path.resource)?,
    };
    let encoder = Encoder {
        resource: path.resource,
        shape,
    };
    let audience = Audience {
        labels: call.query.label_selector.clone(),
        fields: call.query.field_selector.clone(),
        shape,
    };
    let scope = Scope { path, selectors };
    // Before the state is read: what changes after that is announced.
    let subscription = context.topics.subscribe(&scope);
    let start = start(context, &call.query).await?;
    let timeout = timeout(&call.query, &call.user);
    let watch = Watch::new(
        context.topics.clone(),
        subscription,
        context.stop.clone(),
        scope,
        audience,
        encoder,
        start,
        call.query.allow_bookmarks,
        timeout,
        call.user,
        permit,
    );
    Ok(answer(futures::stream::unfold(watch, |mut watch| async {
        Some((watch.next().await?, watch))
    })))
}

/// Events as they come; the answer ends with them.
pub(super) fn answer(events: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let mut response = Response::new(Body::from_stream(events.map(Ok::<_, Infallible>)));
    let form = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, form);
    response
}

/// Whether what there is already is wanted first. Kubernetes' rules for the options of a watch.
pub(super) fn wants_initial(query: &Query) -> Result<bool, ApiError> {
    let refuse = |why: &str| Err(ApiError::BadRequest(why.to_owned()));
    match (query.send_initial_events, query.resource_version_match) {
        (Some(wanted), Some(VersionMatch::NotOlderThan)) => Ok(wanted),
        (Some(_), _) => {
            refuse("sendInitialEvents requires setting resourceVersionMatch=NotOlderThan")
        }
        (None, Some(_)) => refuse(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
        (None, None) => Ok(query.resource_version.unwrap_or(0) == 0),
    }
}

async fn start(context: &Api, query: &Query) -> Result<Start, ApiError> {
    let wants_initial = wants_initial(query)?;
    let state = match query.resource_version {
        None => context.newest().await?,
        Some(0) => context.replica.state(),
        Some(revision) => match context.reach(revision).await {
            Some(state) => state,
            // From a future that this swarm never had: only a new list helps.
            None => return Ok(Start::Unknown(revision)),
        },
    };
    if wants_initial {
        return Ok(Start::Initial {
            view: state.view(),
            announce: query.send_initial_events == Some(true) && query.allow_bookmarks,
        });
    }
    Ok(Start::After(match query.resource_version {
        Some(revision) if revision > 0 => revision,
        _ => state.revision(),
    }))
}

pub(super) fn timeout(query: &Query, user: &User) -> Duration {
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
    allowed
        .map_or(timeout, |allowed| timeout.min(allowed))
        .min(MAX_TIMEOUT)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_there_is_comes_first_where_kubernetes_sends_it() {
        for (query, expected) in [
            ("", Some(true)),
            ("resourceVersion=0", Some(true)),
            ("resourceVersion=7", Some(false)),
            ("sendInitialEvents=true", None),
            ("sendInitialEvents=false", None),
            ("resourceVersionMatch=NotOlderThan", None),
            (
                "sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=7",
                None,
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan",
                Some(true),
            ),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=7",
                Some(true),
            ),
            (
                "sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=0",
                Some(false),
            ),
        ] {
            let parsed = Query::parse(Some(query)).unwrap();
            assert_eq!(wants_initial(&parsed).ok(), expected, "{query}");
        }
    }
}
