//! Functions' statuses, from their assignments.

mod base;
mod explain;
mod summary;

use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::events::{self, Notice};
use super::schedule::Seen;
use crate::ingress::routes::Follower;
use crate::objects::{self, EditError};
use crate::reconcile::Outlook;
use crate::state::{Key, State, level};
use crate::store::Replica;

pub(super) use base::Base;
pub use summary::{Summary, summaries};

/// Why a function is as it should be. Every other reason says what is still missing.
const SETTLED: [&str; 2] = ["Ready", "ScaledToZero"];

/// As Gateway API calls it.
const ROUTES_ACCEPTED: &str = "RoutesAccepted";

/// Writes functions' statuses.
pub struct Statuses {
    seen: Seen,
    routes: Follower,
    /// What functions were found to say, and at which revision: they need not be read again for it.
    said: BTreeMap<Key, (u64, Summary)>,
    /// At which level.
    level: u32,
}

impl Statuses {
    pub fn new(seen: Seen, state: &State) -> Self {
        Self {
            seen,
            routes: Follower::of(state),
            said: BTreeMap::new(),
            level: state.level(),
        }
    }

    /// One look: writes the statuses that say something else.
    pub async fn pass(&mut self, replica: &Replica, state: &State) -> Outlook {
        let mut outlook = Outlook::Settled;
        let level = state.level();
        self.routes.follow(state);
        let mut before = std::mem::take(&mut self.said);
        if self.level != level {
            before.clear();
            self.level = level;
        }
        let summaries = self.seen.at(state, Timestamp::now(), |view, plan| {
            summaries(state, view, plan, &self.routes)
        });
        for (key, summary) in summaries {
            let Some(object) = state.get(&key) else {
                continue;
            };
            let found = (object.revision(), summary);
            if before.get(&key) == Some(&found) {
                self.said.insert(key, found);
                continue;
            }
            let (mut is_written, mut news) = (false, None);
            let edited = objects::edit(replica, &key, |body| {
                let status = &mut body["status"];
                news = route_lost(status, &found.1);
                is_written = set(status, &found.1, &key, level);
                is_written
            })
            .await;
            match edited {
                Ok(()) if !is_written => {
                    self.said.insert(key, found);
                }
                Ok(()) => {
                    if let Some(notice) = news {
                        events::record(replica, &key, notice).await;
                    }
                }
                Err(EditError::NotFound(_)) => {}
                Err(error) => {
                    tracing::warn!(function = %key, error = &error as &dyn std::error::Error, "cannot write status");
                    outlook = Outlook::Again;
                }
            }
        }
        outlook
    }
}

/// That something else has a route, unless the status said so already.
fn route_lost(told: &Value, summary: &Summary) -> Option<Notice> {
    let lost = summary.lost_route.as_ref()?;
    let message = lost.to_string();
    let mut told = told["conditions"].as_array().into_iter().flatten();
    if told.any(|it| it["type"] == ROUTES_ACCEPTED && it["message"] == message) {
        return None;
    }
    Some(Notice {
        warning: true,
        reason: lost.reason().to_owned(),
        message,
        source: "ingress".to_owned(),
        count: 1,
    })
}

/// At the swarm's `level`: controllers before revisions refuse a function whose status says more than
/// they know, whoever wrote it.
fn set(status: &mut Value, summary: &Summary, key: &Key, level: u32) -> bool {
    let before = status.clone();
    let now = SystemTime::now();
    for (kind, is_so) in [
        ("Ready", SETTLED.contains(&summary.reason)),
        ("Available", summary.available),
    ] {
        let is_so = if is_so { "True" } else { "False" };
        let (reason, message) = (summary.reason, &summary.message);
        objects::set_condition(status, kind, is_so, reason, message, now);
    }
    let is_known = |condition: &Value| condition["type"] == ROUTES_ACCEPTED;
    let mut known = status["conditions"].as_array().into_iter().flatten();
    match &summary.lost_route {
        Some(lost) => {
            let (reason, why) = (lost.reason(), lost.to_string());
            objects::set_condition(status, ROUTES_ACCEPTED, "False", reason, &why, now);
        }
        // Of most functions it is not worth saying.
        None if known.any(is_known) => {
            let all = "all its routes are its own";
            objects::set_condition(status, ROUTES_ACCEPTED, "True", "Accepted", all, now);
        }
        None => {}
    }
    status["observedGeneration"] = json!(summary.generation);
    status["replicas"] = json!(summary.replicas);
    status["readyReplicas"] = json!(summary.ready);
    if level >= level::REVISIONS {
        status["updatedReplicas"] = json!(summary.updated);
    }
    status["ready"] = json!(format!("{}/{}", summary.ready, summary.replicas));
    status["url"] = json!(summary.url);
    status["selector"] = json!(format!("hive.dev/function={}", key.name));
    *status != before
}

#[cfg(test)]
mod tests;
