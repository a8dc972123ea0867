//! Deletion of one object or of many.
//!
//! What has finalizers, and every namespace, is only marked: it goes when those it waits for are done.

use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;
use futures::{StreamExt, TryStreamExt};
use hive_manifests::Resource;
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use serde_json::json;

use super::super::admission::PROTECTED_NAMESPACES;
use super::super::errors::ApiError;
use super::super::limits::object_body;
use super::super::media::parse_body;
use super::super::metadata;
use super::super::path::ObjectPath;
use super::super::respond::{self, ListMetadata};
use super::super::selectors::Selectors;
use super::super::{Api, Call};
use super::collection::select;
use crate::objects;
use crate::state::{Command, Key, Object, Outcome, Rejection};
use crate::store::ProposeError;

/// Attempts of a deletion that changes keep overtaking.
const ATTEMPTS: usize = 8;

/// Deletions of one collection proposed at once: enough for the log to batch its syncs.
const CONCURRENT_DELETIONS: usize = 16;

/// What must hold for a deletion, and whether it is only tried.
#[derive(Debug, Default)]
struct Options {
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
    let selectors = Selectors {
        labels: call.query.labels()?,
        fields: call.query.fields(path.resource)?,
    };
    let options = Options::read(call, body).await?;
    let state = context.newest().await?;
    let keys: Vec<Key> = select(&state, path, &selectors)
        .map(|object| object.key().clone())
        .collect();
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
        continue_token: None,
        remaining: None,
    };
    let objects = deleted.into_iter().flatten().collect();
    Ok(respond::list(shape, path.resource, objects, &metadata))
}

async fn delete(context: &Api, key: &Key, options: &Options) -> Result<Deleted, ApiError> {
    if key.resource == Resource::Namespace && PROTECTED_NAMESPACES.contains(&key.name.as_str()) {
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
            match attempt(context, &current, options.dry_run).await {
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
    dry_run: bool,
) -> Result<Deleted, ProposeError> {
    let key = current.key();
    let must_wait =
        key.resource == Resource::Namespace || !metadata::finalizers(current.body()).is_empty();
    if must_wait && current.is_being_deleted() {
        return Ok(Deleted::Marked(current.clone()));
    }
    if dry_run {
        return Ok(if must_wait {
            Deleted::Marked(current.clone())
        } else {
            Deleted::Gone(current.clone())
        });
    }
    let expect = Some(current.revision());
    if !must_wait {
        let command = Command::Delete {
            key: key.clone(),
            expect,
            uid: None,
        };
        return match context.replica.propose(command).await? {
            Outcome::Deleted(object) => Ok(Deleted::Gone(object)),
            other => unreachable!("a deletion is answered by what was deleted, not {other:?}"),
        };
    }
    let mut body = current.body().clone();
    body["metadata"]["deletionTimestamp"] = json!(objects::timestamp(SystemTime::now()));
    body["metadata"]["deletionGracePeriodSeconds"] = json!(0);
    if key.resource == Resource::Namespace {
        body["status"]["phase"] = json!("Terminating");
    }
    let command = Command::Replace {
        key: key.clone(),
        body: body.into(),
        expect,
    };
    match context.replica.propose(command).await? {
        Outcome::Replaced(object) | Outcome::Unchanged(object) => Ok(Deleted::Marked(object)),
        other => unreachable!("a replacement is answered by an object, not {other:?}"),
    }
}

impl Options {
    /// From the query and, where there is one, a DeleteOptions body.
    async fn read(call: &Call, body: Body) -> Result<Self, ApiError> {
        let body = object_body(&call.headers, body).await?;
        let sent: DeleteOptions = if body.is_empty() {
            DeleteOptions::default()
        } else {
            serde_json::from_value(parse_body(&call.headers, &body)?).map_err(|error| {
                ApiError::BadRequest(format!("the body is not DeleteOptions: {error}"))
            })?
        };
        let policy = sent
            .propagation_policy
            .or_else(|| call.query.propagation_policy.clone());
        // Dependents are always removed in the background, by the reconcilers that made them.
        if let Some(policy) = policy
            && !["Orphan", "Background", "Foreground"].contains(&policy.as_str())
        {
            return Err(ApiError::BadRequest(format!(
                "propagationPolicy: unsupported value {policy:?}; supported are: Orphan, Background, Foreground"
            )));
        }
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
            uid: preconditions.uid,
            revision,
            dry_run: call.query.dry_run || sent.dry_run.is_some_and(|stages| !stages.is_empty()),
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
