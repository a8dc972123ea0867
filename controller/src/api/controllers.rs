//! The controllers as a resource: list, get, watch, and delete, which ends a membership.
//!
//! Nothing of it is stored as objects; what the leader sees is put into their shape on each request.

mod following;
mod watch;

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::response::Response;
use hive_manifests::{Controller, ControllerSpec, ControllerStatus, GROUP};
use hive_proto::v1::ControllerStatus as Told;
use http::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::errors::ApiError;
use super::media::Form;
use super::query::{IncludeObject, dry_run};
use super::reads::Wanted;
use super::selectors::{FieldSelector, LabelSelector};
use super::{Api, Call, respond, table};
use crate::controllers::{Described, RemoveError, Standing};
use crate::objects::timestamp;
use crate::store::ProposeError;
pub(super) use following::Following;
use following::Seen;

/// A controller that answered within this time is there. Heartbeats go out every 2 s at most.
const SILENCE: Duration = Duration::from_secs(8);

/// Log entries that a controller may lack and count as up to date: under load some always are on
/// their way.
const FEW: u64 = 1000;

pub(super) async fn serve(
    context: &Api,
    id: Option<String>,
    call: Call,
) -> Result<Response, ApiError> {
    match (&call.method, id) {
        (&Method::GET, None) if call.query.watch => watch::serve(context, call).await,
        (&Method::GET | &Method::HEAD, None) => list(context, &call).await,
        (&Method::GET | &Method::HEAD, Some(id)) => get(context, &id, &call).await,
        (&Method::DELETE, Some(id)) => remove(context, &id, &call).await,
        _ => Err(ApiError::MethodNotAllowed),
    }
}

/// Which controllers a request is about. None has labels.
struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

fn selection(call: &Call) -> Result<Selection, ApiError> {
    let fields = call.query.field_selector.as_deref().unwrap_or_default();
    Ok(Selection {
        labels: call.query.labels()?,
        fields: FieldSelector::by_name("controllers", fields)
            .map_err(|error| ApiError::BadRequest(format!("fieldSelector: {error}")))?,
    })
}

impl Selection {
    /// By their names.
    fn of(&self, seen: &Seen) -> BTreeMap<String, Controller> {
        let named = |controller: &Controller| {
            let name = controller.metadata.name.clone()?;
            self.fields
                .matches_name(&name)
                .then(|| (name, controller.clone()))
        };
        match self.labels.matches_unlabelled() {
            true => seen.controllers.iter().filter_map(named).collect(),
            false => BTreeMap::new(),
        }
    }
}

/// The form in which a client wants to see controllers.
#[derive(Clone, Copy)]
struct Shown {
    form: Form,
    include: IncludeObject,
}

impl Shown {
    fn to(call: &Call) -> Result<Self, ApiError> {
        Ok(Self {
            form: Form::accepted(&call.headers)?,
            include: call.query.include_object,
        })
    }

    fn one(self, controller: &Controller) -> Value {
        let object = json!(controller);
        match self.form {
            Form::Object => object,
            Form::Metadata => table::partial(&object),
            Form::Table => {
                let version = &object["metadata"]["resourceVersion"];
                self.table([&object], json!({ "resourceVersion": version }))
            }
        }
    }

    fn list(self, controllers: impl Iterator<Item = Controller>, revision: u64) -> Value {
        let objects: Vec<Value> = controllers.map(|one| json!(one)).collect();
        let metadata = json!({ "resourceVersion": revision.to_string() });
        match self.form {
            Form::Table => self.table(&objects, metadata),
            Form::Metadata => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata,
                "items": objects.iter().map(table::partial).collect::<Vec<_>>(),
            }),
            Form::Object => json!({
                "kind": "ControllerList",
                "apiVersion": "hive.dev/v1",
                "metadata": metadata,
                "items": objects,
            }),
        }
    }

    /// That all there was has been sent.
    fn bookmark(self, revision: u64) -> Value {
        let metadata = json!({
            "resourceVersion": revision.to_string(),
            "creationTimestamp": null,
            "annotations": { "k8s.io/initial-events-end": "true" },
        });
        match self.form {
            Form::Object => json!({
                "kind": "Controller",
                "apiVersion": "hive.dev/v1",
                "metadata": metadata,
            }),
            Form::Metadata => table::partial(&json!({ "metadata": metadata })),
            Form::Table => self.table([], metadata),
        }
    }

    fn table<'a>(self, objects: impl IntoIterator<Item = &'a Value>, metadata: Value) -> Value {
        let objects = objects.into_iter();
        table::of_controllers(objects, metadata, self.include, Timestamp::now())
    }
}

async fn list(context: &Api, call: &Call) -> Result<Response, ApiError> {
    let (selection, shown) = (selection(call)?, Shown::to(call)?);
    let seen = Seen::now(&context.controllers).await;
    match Wanted::by(&call.query, None)? {
        Wanted::Exact(revision) if revision != seen.revision => Err(ApiError::Expired {
            message: "The resourceVersion for the provided list is too old.".into(),
            restart: None,
        }),
        _ => {
            let selected = selection.of(&seen).into_values();
            let response = respond::json(StatusCode::OK, &shown.list(selected, seen.revision))?;
            Ok(respond::warn(response, seen.warning().as_slice()))
        }
    }
}

async fn get(context: &Api, id: &str, call: &Call) -> Result<Response, ApiError> {
    let shown = Shown::to(call)?;
    let seen = Seen::now(&context.controllers).await;
    let found = seen
        .controllers
        .iter()
        .find(|one| one.metadata.name.as_deref() == Some(id))
        .ok_or_else(|| absent(id))?;
    let response = respond::json(StatusCode::OK, &shown.one(found))?;
    Ok(respond::warn(response, seen.warning().as_slice()))
}

async fn remove(context: &Api, id: &str, call: &Call) -> Result<Response, ApiError> {
    let number: u64 = id.parse().map_err(|_| absent(id))?;
    if dry_run("DeleteOptions", &call.query.dry_run)? {
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

/// Ids are never given twice, so they tell controllers apart as uids do.
fn uid(id: u64) -> String {
    format!("00000000-0000-4000-8000-{id:012x}")
}

/// A controller that answers, but knows of nobody who leads.
const LEADERLESS: &str = "Leaderless";

fn shown(described: &Described, now: SystemTime) -> Vec<Controller> {
    match described {
        Described::ByLeader { controllers, term } => controllers
            .iter()
            .map(|told| {
                let mut shown = controller(told, now);
                let status = shown.status.get_or_insert_default();
                status.state = state(told).to_owned();
                status.term = (told.leader && *term > 0).then_some(*term);
                status.matched_index = Some(told.matched);
                status.lag = Some(told.lag);
                shown
            })
            .collect(),
        Described::Leaderless { controllers } => controllers
            .iter()
            .map(|(told, standing)| {
                let mut shown = controller(told, now);
                shown.status.get_or_insert_default().state = match standing {
                    Standing::Answers => LEADERLESS,
                    Standing::Silent if told.member => "Unreachable",
                    Standing::Silent => "Unknown",
                }
                .to_owned();
                shown
            })
            .collect(),
    }
}

/// But for its state, and how far it is.
fn controller(told: &Told, now: SystemTime) -> Controller {
    let endpoint = told.endpoint.clone().unwrap_or_default();
    let id = endpoint.raft_id;
    let silent = told.silent_ms.map(Duration::from_millis);
    let facts = told.facts.as_ref();
    let spec = ControllerSpec {
        link: endpoint.link,
        api: endpoint.api,
        ingress: endpoint.ingress,
        ingress_tls: endpoint.ingress_tls,
    };
    let mut controller = Controller::new(&id.to_string(), spec);
    controller.metadata.uid = Some(uid(id));
    controller.status = Some(ControllerStatus {
        role: role(told).to_owned(),
        leader: told.leader,
        voter: told.voter,
        silent_seconds: silent.map(|silent| silent.as_secs_f64()),
        last_heard: silent.map(|silent| timestamp(now - silent)),
        version: facts
            .map(|facts| facts.version.clone())
            .filter(|version| !version.is_empty()),
        level: facts.map(|facts| facts.level.max(1)),
        disk_sync_microseconds: facts.map(|facts| facts.sync_us).filter(|sync| *sync > 0),
        ..ControllerStatus::default()
    });
    controller
}

fn role(told: &Told) -> &'static str {
    match told {
        Told { leader: true, .. } => "leader",
        Told { voter: true, .. } => "voter",
        Told { member: true, .. } => "learner",
        _ => "admitted",
    }
}

fn state(told: &Told) -> &'static str {
    match told.silent_ms.map(Duration::from_millis) {
        // It has not answered since this leader leads.
        None if told.member => "Unreachable",
        // It has never been there.
        None => "Unknown",
        Some(silent) if silent > SILENCE => "Unreachable",
        Some(_) if told.lag > FEW => "CatchingUp",
        Some(_) => "Ready",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_is_told_by_what_the_leader_saw_of_it() {
        let told = |silent_ms, lag| Told {
            member: true,
            voter: true,
            silent_ms,
            lag,
            ..Told::default()
        };
        for (silent, lag, expected) in [
            (None, 0, "Unreachable"),
            (Some(100), 0, "Ready"),
            (Some(100), 5000, "CatchingUp"),
            (Some(60_000), 5000, "Unreachable"),
        ] {
            assert_eq!(state(&told(silent, lag)), expected);
        }
        assert_eq!(state(&Told::default()), "Unknown");
        let described = Described::ByLeader {
            controllers: vec![told(Some(1500), 3)],
            term: 4,
        };
        let object = json!(shown(&described, SystemTime::now()));
        assert_eq!(object[0]["status"]["silentSeconds"], 1.5);
        assert_eq!(object[0]["status"]["role"], "voter");
        assert_eq!(object[0]["status"]["lag"], 3);
        // It is the leader's.
        assert_eq!(object[0]["status"].get("term"), None);
    }

    #[test]
    fn without_a_leader_nothing_is_told_but_who_answers() {
        let voter = Told {
            member: true,
            voter: true,
            ..Told::default()
        };
        let controllers = vec![
            (voter.clone(), Standing::Silent),
            (voter.clone(), Standing::Answers),
            (voter, Standing::Answers),
            (Told::default(), Standing::Silent),
        ];
        let described = Described::Leaderless { controllers };
        let seen = Seen::of(shown(&described, SystemTime::now()));
        let states: Vec<String> = (seen.controllers.iter())
            .filter_map(|one| Some(one.status.as_ref()?.state.clone()))
            .collect();
        assert_eq!(
            states,
            ["Unreachable", "Leaderless", "Leaderless", "Unknown"]
        );
        let status = json!(seen.controllers[1].status);
        for unknown in ["lag", "matchedIndex", "term", "silentSeconds"] {
            assert_eq!(status.get(unknown), None, "{unknown}");
        }
        let warning = seen.warning().unwrap_or_default();
        assert!(warning.contains("2 of 4 controllers answer"), "{warning}");
    }
}
