//! The controllers as a resource: list, get, and delete, which ends a membership.
//!
//! Nothing of it is stored as objects; what the leader sees is put into their shape on each request.

use std::time::{Duration, SystemTime};

use axum::response::Response;
use hive_manifests::GROUP;
use hive_proto::v1::ControllerStatus;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::media::Form;
use super::{Api, Call, respond, table};
use crate::controllers::RemoveError;
use crate::objects::timestamp;
use crate::store::ProposeError;

/// A controller that answered within this time is there. Heartbeats go out every 2 s at most.
const SILENCE: Duration = Duration::from_secs(8);

/// Log entries that a controller may lack and count as up to date: under load some always are on
/// their way.
const FEW: u64 = 1000;

pub(super) async fn serve(
    context: &Api,
    id: Option<String>,
    call: &Call,
) -> Result<Response, ApiError> {
    match (&call.method, id) {
        (&Method::GET | &Method::HEAD, None) if call.query.watch => Err(ApiError::MethodNotAllowed),
        (&Method::GET | &Method::HEAD, None) => list(context, call).await,
        (&Method::GET | &Method::HEAD, Some(id)) => get(context, &id, call).await,
        (&Method::DELETE, Some(id)) => remove(context, &id, call).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

async fn list(context: &Api, call: &Call) -> Result<Response, ApiError> {
    let form = Form::accepted(&call.headers)?;
    let items = objects(context).await;
    let metadata = json!({ "resourceVersion": context.replica.state().revision().to_string() });
    let shown = match form {
        Form::Table => table::of_controllers(
            items.iter(),
            metadata,
            call.query.include_object,
            Timestamp::now(),
        ),
        Form::Metadata => json!({
            "kind": "PartialObjectMetadataList",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": metadata,
            "items": items.iter().map(table::partial).collect::<Vec<_>>(),
        }),
        Form::Object => json!({
            "kind": "ControllerList",
            "apiVersion": "hive.dev/v1",
            "metadata": metadata,
            "items": items,
        }),
    };
    respond::json(StatusCode::OK, &shown)
}

async fn get(context: &Api, id: &str, call: &Call) -> Result<Response, ApiError> {
    let form = Form::accepted(&call.headers)?;
    let items = objects(context).await;
    let found = items
        .iter()
        .find(|item| item["metadata"]["name"] == id)
        .ok_or_else(|| absent(id))?;
    let shown = match form {
        Form::Table => table::of_controllers(
            std::iter::once(found),
            json!({ "resourceVersion": found["metadata"]["resourceVersion"] }),
            call.query.include_object,
            Timestamp::now(),
        ),
        Form::Metadata => table::partial(found),
        Form::Object => found.clone(),
    };
    respond::json(StatusCode::OK, &shown)
}

async fn remove(context: &Api, id: &str, call: &Call) -> Result<Response, ApiError> {
    let number: u64 = id.parse().map_err(|_| absent(id))?;
    if call.query.dry_run {
        return Err(ApiError::BadRequest(
            "dryRun: the removal of a controller cannot be tried".into(),
        ));
    }
    context
        .controllers
        .remove(number, call.query.force.unwrap_or_default())
        .await
        .map_err(|error| match error {
            RemoveError::Unknown { .. } => absent(id),
            RemoveError::Refused(why) => {
                ApiError::Forbidden(format!("controllers.{GROUP} {id:?} is forbidden: {why}"))
            }
            RemoveError::Propose(error) => ApiError::replicating(error),
            RemoveError::NotLeader => ApiError::replicating(ProposeError::NoLeader),
            error @ RemoveError::Unconfirmed { .. } => ApiError::Unconfirmed(error.to_string()),
        })?;
    let status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": { "name": id, "group": GROUP, "kind": "controllers", "uid": uid(number) },
    });
    respond::json(StatusCode::OK, &status)
}

fn absent(id: &str) -> ApiError {
    ApiError::Absent(format!("controllers.{GROUP} {id:?} not found"))
}

async fn objects(context: &Api) -> Vec<Value> {
    let revision = context.replica.state().revision();
    let seen = context.controllers.describe().await;
    let now = SystemTime::now();
    seen.iter().map(|one| object(one, revision, now)).collect()
}

/// Ids are never given twice, so they tell controllers apart as uids do.
fn uid(id: u64) -> String {
    format!("00000000-0000-4000-8000-{id:012x}")
}

fn object(seen: &ControllerStatus, revision: u64, now: SystemTime) -> Value {
    let endpoint = seen.endpoint.clone().unwrap_or_default();
    let id = endpoint.raft_id;
    let mut status = json!({
        "role": role(seen),
        "state": state(seen),
        "leader": seen.leader,
        "voter": seen.voter,
        "matchedIndex": seen.matched,
        "lag": seen.lag,
    });
    if let Some(silent) = seen.silent_ms.map(Duration::from_millis) {
        status["silentSeconds"] = json!(silent.as_secs_f64());
        status["lastHeard"] = json!(timestamp(now - silent));
    }
    if let Some(facts) = &seen.facts {
        if !facts.version.is_empty() {
            status["version"] = json!(facts.version);
        }
        status["level"] = json!(facts.level.max(1));
        if facts.sync_us > 0 {
            status["diskSyncMicroseconds"] = json!(facts.sync_us);
        }
    }
    json!({
        "apiVersion": "hive.dev/v1",
        "kind": "Controller",
        "metadata": {
            "name": id.to_string(),
            "uid": uid(id),
            "resourceVersion": revision.to_string(),
        },
        "spec": {
            "link": endpoint.link,
            "api": endpoint.api,
            "ingress": endpoint.ingress,
        },
        "status": status,
    })
}

fn role(seen: &ControllerStatus) -> &'static str {
    match seen {
        ControllerStatus { leader: true, .. } => "leader",
        ControllerStatus { voter: true, .. } => "voter",
        ControllerStatus { member: true, .. } => "learner",
        _ => "admitted",
    }
}

fn state(seen: &ControllerStatus) -> &'static str {
    match seen.silent_ms.map(Duration::from_millis) {
        // Nobody leads, or it has never been there.
        None => "Unknown",
        Some(silent) if silent > SILENCE => "Unreachable",
        Some(_) if seen.lag > FEW => "CatchingUp",
        Some(_) => "Ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_told_by_what_the_leader_saw_of_it() {
        let seen = |silent_ms, lag| ControllerStatus {
            member: true,
            voter: true,
            silent_ms,
            lag,
            ..ControllerStatus::default()
        };
        for (silent, lag, expected) in [
            (None, 0, "Unknown"),
            (Some(100), 0, "Ready"),
            (Some(100), 5000, "CatchingUp"),
            (Some(60_000), 5000, "Unreachable"),
        ] {
            assert_eq!(state(&seen(silent, lag)), expected);
        }
        let object = object(&seen(Some(1500), 3), 7, SystemTime::now());
        assert_eq!(object["status"]["silentSeconds"], 1.5);
        assert_eq!(object["status"]["role"], "voter");
    }
}
