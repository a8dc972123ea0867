//! Watches of the controllers: what differs from one look at the leader to the next.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::response::Response;
use bytes::Bytes;
use hive_manifests::Controller;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::auth::User;
use super::super::errors::ApiError;
use super::super::limits::Place;
use super::super::watch::{answer, timeout, wants_initial};
use super::super::{Api, Call};
use super::following::{Seen, lasting};
use super::{Shown, selection};
use crate::store::Replica;

pub(super) async fn serve(context: &Api, call: Call) -> Result<Response, ApiError> {
    let permit = context.permits.watch(&call.user.info)?;
    let (selection, shown) = (selection(&call)?, Shown::to(&call)?);
    let query = &call.query;
    let wants_initial = wants_initial(query)?;
    // Before the look: what changes after that is told. Others may have looked long before.
    let changes = context
        .following
        .subscribe(&context.controllers, &context.stop);
    let seen = context.following.look_now(&context.controllers).await;
    let known = selection.of(&seen);
    let mut pending = Vec::new();
    let mut is_ending = false;
    if wants_initial {
        for controller in known.values() {
            pending.push(("ADDED", shown.one(controller)));
        }
        if query.send_initial_events == Some(true) && query.allow_bookmarks {
            pending.push(("BOOKMARK", shown.bookmark(seen.revision)));
        }
    } else if query
        .resource_version
        .is_some_and(|asked| asked > 0 && asked != seen.revision)
    {
        let gone = ApiError::Expired {
            message: "too old resource version: the controllers have changed since".into(),
            restart: None,
        };
        pending.push(("ERROR", json!(gone.status())));
        is_ending = true;
    }
    let watch = Watch {
        pending: lines(pending),
        is_ending,
        known,
        deadline: Instant::now() + timeout(query, &call.user),
        selection,
        shown,
        changes,
        revisions: context.replica.revisions(),
        replica: context.replica.clone(),
        stop: context.stop.clone(),
        user: call.user,
        _permit: permit,
    };
    Ok(answer(futures::stream::unfold(watch, |mut watch| async {
        Some((watch.next().await?, watch))
    })))
}

struct Watch {
    /// What is to be sent before anything else happens.
    pending: Bytes,
    /// Whether that is all.
    is_ending: bool,
    known: BTreeMap<String, Controller>,
    deadline: Instant,
    selection: super::Selection,
    shown: Shown,
    changes: watch::Receiver<Arc<Seen>>,
    /// Each commit may be the end of the user's token.
    revisions: watch::Receiver<u64>,
    replica: Replica,
    stop: CancellationToken,
    user: User,
    _permit: Place,
}

impl Watch {
    /// The next events; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.pending.is_empty() {
                return Some(std::mem::take(&mut self.pending));
            }
            if self.is_ending {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep_until(self.deadline) => return None,
                changed = self.changes.changed() => changed.ok()?,
                changed = self.revisions.changed() => changed.ok()?,
            }
            if !self.user.still_allowed(&self.replica.state()) {
                let gone =
                    ApiError::Unauthenticated("the token was revoked, changed, or has expired");
                self.pending = lines(vec![("ERROR", json!(gone.status()))]);
                self.is_ending = true;
                continue;
            }
            let seen = self.changes.borrow_and_update().clone();
            let after = self.selection.of(&seen);
            let shown = differences(&self.known, &after, seen.revision)
                .map(|(kind, controller)| (kind, self.shown.one(&controller)))
                .collect();
            self.pending = lines(shown);
            self.known = after;
        }
    }
}

/// What somebody who knows `before` must hear to know `after`.
fn differences<'a>(
    before: &'a BTreeMap<String, Controller>,
    after: &'a BTreeMap<String, Controller>,
    revision: u64,
) -> impl Iterator<Item = (&'static str, Controller)> + use<'a> {
    let gone = before
        .iter()
        .filter(|(name, _)| !after.contains_key(*name))
        .map(move |(_, controller)| {
            let mut last = controller.clone();
            last.metadata.resource_version = Some(revision.to_string());
            ("DELETED", last)
        });
    let here = after.iter().filter_map(|(name, now)| {
        let kind = match before.get(name) {
            None => "ADDED",
            Some(then) if lasting(then) != lasting(now) => "MODIFIED",
            Some(_) => return None,
        };
        Some((kind, now.clone()))
    });
    gone.chain(here)
}

fn lines(events: Vec<(&str, Value)>) -> Bytes {
    let line = |(kind, object)| json!({ "type": kind, "object": object }).to_string() + "\n";
    events.into_iter().map(line).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use hive_manifests::ControllerStatus;

    use super::*;

    fn swarm(states: &[(&str, &str, u64)]) -> BTreeMap<String, Controller> {
        let of = |(name, state, lag): &(&str, &str, u64)| {
            let mut controller = Controller::new(name, Default::default());
            controller.status = Some(ControllerStatus {
                state: (*state).to_owned(),
                lag: Some(*lag),
                ..ControllerStatus::default()
            });
            ((*name).to_owned(), controller)
        };
        states.iter().map(of).collect()
    }

    #[test]
    fn who_watches_hears_what_lasts() {
        let before = swarm(&[("1", "Ready", 0), ("2", "Ready", 0), ("3", "Ready", 0)]);
        let after = swarm(&[
            ("1", "Ready", 9),
            ("2", "Unreachable", 0),
            ("4", "Unknown", 0),
        ]);
        let told: Vec<String> = differences(&before, &after, 7)
            .map(|(kind, controller)| {
                format!("{kind} {}", controller.metadata.name.unwrap_or_default())
            })
            .collect();
        assert_eq!(told, ["DELETED 3", "MODIFIED 2", "ADDED 4"]);
        assert_eq!(differences(&after, &after, 7).count(), 0);
    }
}
