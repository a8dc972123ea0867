//! Deletion of one object or of many.
//!
//! What that means is decided in [`crate::deletion`]; here are the conditions, and the answers.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt};
use hive_manifests::Resource;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;

use super::super::errors::ApiError;
use super::super::limits::object_body;
use super::super::media::parse_body;
use super::super::path::ObjectPath;
use super::super::query::{dry_run, not_supported};
use super::super::respond::{self, ListMetadata};
use super::super::{Api, Call};
use super::collection::select;
use crate::deletion::{self, Propagation};
use crate::state::{Key, Object, Outcome, Rejection};
use crate::store::ProposeError;

/// Of the options of a deletion.
const KIND: &str = "DeleteOptions";

/// Attempts of a deletion that changes keep overtaking.
const ATTEMPTS: usize = 8;

/// Deletions of one collection proposed at once: enough for the log to batch its syncs.
const CONCURRENT_DELETIONS: usize = 16;

/// What must hold for a deletion, and whether it is only tried.
#[derive(Debug, Default)]
struct Options {
    propagation: Option<Propagation>,
    uid: Option<String>,
    revision: Option<u64>,
    dry_run: bool,
}

/// What a deletion came to.
enum Deleted {
    /// It is gone.
    Gone(Arc<Object>),
    /// It waits for finalizers, or to be emptied.
    Marked(Arc<Object>),
}

impl Deleted {
    fn object(self) -> Arc<Object> {
        match self {
            Self::Gone(object) | Self::Marked(object) => object,
        }
    }
}

pub(super) async fn one(
    context: &Api,
    key: &Key,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    let shape = call.shape()?;
    let options = Options::read(call, body).await?;
    match delete(context, key, &options).await? {
        Deleted::Gone(object) => respond::deleted(key, object.uid()),
        Deleted::Marked(object) => Ok(respond::object(StatusCode::OK, shape, &object)),
    }
}

pub(super) async fn collection(
    context: &Api,
    path: &ObjectPath,
    call: &Call,
    body: Body,
) -> Result<Response, ApiError> {
    // A slip of the finger must not take every namespace with it; Kubernetes refuses this too.
    if path.resource == Resource::Namespace {
        return Err(ApiError::MethodNotAllowed);
    }
    let shape = call.shape()?;
    let options = Options::read(call, body).await?;
    // A page of them where the client says so, as it would be listed.
    let (selected, metadata) = select(context, path, call).await?;
    let keys: Vec<Key> = selected.iter().map(|object| object.key().clone()).collect();
    let deleted: Vec<Option<Arc<Object>>> = futures::stream::iter(keys)
        .map(|key| {
            let options = &options;
            async move {
                match delete(context, &key, options).await {
                    Ok(deleted) => Ok(Some(deleted.object())),
                    // Somebody else was quicker.
                    Err(ApiError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            }
        })
        .buffered(CONCURRENT_DELETIONS)
        .try_collect()
        .await?;
    let metadata = ListMetadata {
        revision: context.replica.state().revision(),
        ..metadata
    };
    let objects = deleted.into_iter().flatten().collect();
    Ok(respond::list(shape, path.resource, objects, &metadata))
}

async fn delete(context: &Api, key: &Key, options: &Options) -> Result<Deleted, ApiError> {
    if deletion::is_protected(key) {
        return Err(ApiError::forbidden(
            key,
            "this namespace may not be deleted",
        ));
    }
    let mut current = context.find(key).await?;
    let mut is_newest = false;
    for _ in 0..ATTEMPTS {
        if let Err(error) = options.check(&current) {
            // Perhaps it is only this replica that is behind.
            if is_newest {
                return Err(error);
            }
        } else {
            match attempt(context, &current, options).await {
                Err(ProposeError::Rejected(Rejection::Conflict { .. })) => {}
                Err(error) => return Err(ApiError::proposing(key, error)),
                Ok(deleted) => return Ok(deleted),
            }
        }
        let state = context.newest().await?;
        current = state
            .get(key)
            .cloned()
            .ok_or_else(|| ApiError::not_found(key))?;
        is_newest = true;
    }
    Err(ApiError::modified(key))
}

async fn attempt(
    context: &Api,
    current: &Arc<Object>,
    options: &Options,
) -> Result<Deleted, ProposeError> {
    let now = SystemTime::now();
    if options.dry_run {
        return Ok(match deletion::step(current, options.propagation, now) {
            deletion::Step::Remove => Deleted::Gone(current.clone()),
            deletion::Step::Nothing => Deleted::Marked(current.clone()),
            deletion::Step::Mark(body) => Deleted::Marked(Arc::new(Object::new(
                current.key().clone(),
                body,
                current.revision(),
            ))),
        });
    }
    let Some(command) = deletion::command(current, options.propagation, now) else {
        return Ok(Deleted::Marked(current.clone()));
    };
    match context.propose(command).await? {
        Outcome::Deleted(object) => Ok(Deleted::Gone(object)),
        Outcome::Replaced(object) | Outcome::Unchanged(object) => Ok(Deleted::Marked(object)),
        other => unreachable!("a deletion is answered by an object, not {other:?}"),
    }
}

/// The policy that a client chose, by its name or in the older way.
fn propagation(
    policy: Option<&str>,
    orphan_dependents: Option<bool>,
) -> Result<Option<Propagation>, ApiError> {
    match (policy, orphan_dependents) {
        (Some(policy), Some(_)) => Err(ApiError::option(
            KIND,
            "propagationPolicy",
            "FieldValueInvalid",
            format!(
                "Invalid value: {policy:?}: orphanDependents and deletionPropagation cannot be both set"
            ),
        )),
        (None, None) => Ok(None),
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some(name), None) => Propagation::ALL
            .into_iter()
            .find(|policy| policy.name() == name)
            .map(Some)
            .ok_or_else(|| {
                let supported = Propagation::ALL.map(Propagation::name);
                not_supported(KIND, "propagationPolicy", &format!("{name:?}"), &supported)
            }),
    }
}

impl Options {
    /// From the query and, where there is one, a DeleteOptions body. A grace period means nothing
    /// here: no kind of object has anything to wind up.
    async fn read(call: &Call, body: Body) -> Result<Self, ApiError> {
        let body = object_body(&call.headers, body).await?;
        let sent: DeleteOptions = if body.is_empty() {
            DeleteOptions::default()
        } else {
            serde_json::from_value(parse_body(&call.headers, &body)?).map_err(|error| {
                ApiError::BadRequest(format!("the body is not DeleteOptions: {error}"))
            })?
        };
        // As Kubernetes has it: of a field and a parameter, the field counts.
        let propagation =
            match propagation(sent.propagation_policy.as_deref(), sent.orphan_dependents)? {
                Some(propagation) => Some(propagation),
                None => propagation(
                    call.query.propagation_policy.as_deref(),
                    call.query.orphan_dependents,
                )?,
            };
        let is_tried = dry_run(KIND, &call.query.dry_run)?
            | dry_run(KIND, sent.dry_run.as_deref().unwrap_or_default())?;
        let preconditions = sent.preconditions.unwrap_or_default();
        let revision = preconditions
            .resource_version
            .map(|text| text.parse())
            .transpose()
            .map_err(|_| {
                ApiError::BadRequest(
                    "preconditions.resourceVersion is not one that this API gave out".into(),
                )
            })?;
        Ok(Self {
            propagation,
            uid: preconditions.uid,
            revision,
            dry_run: is_tried,
        })
    }

    fn check(&self, current: &Object) -> Result<(), ApiError> {
        let failed = |what: &str, wanted: &dyn std::fmt::Display, found: &dyn std::fmt::Display| {
            Err(ApiError::conflict(
                current.key(),
                format!(
                    "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
                ),
            ))
        };
        if let Some(uid) = &self.uid
            && uid != current.uid()
        {
            return failed("UID", uid, &current.uid());
        }
        if let Some(revision) = self.revision
            && revision != current.revision()
        {
            return failed("ResourceVersion", &revision, &current.revision());
        }
        Ok(())
    }
}
