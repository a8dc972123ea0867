//! Sends one object: creates it, or patches what is there by compare-and-swap.
//!
//! The object as it is on the server is read, the three-way patch computed and sent with the
//! resourceVersion that was read. If somebody wrote in between, all of it is done again.

use http::Method;
use serde_json::Value;

use super::{DryRun, Prepared, desired};
use crate::cluster::{Call, Cluster, DRY_RUN, RequestError, STRICT, path};
use crate::object;
use crate::threeway;

/// Whose the fields are that are set by comparing here. Apart from hivectl's other commands, so that
/// `--server-side` takes over what was applied and not what `label` or `scale` has set.
const FIELD_MANAGER: (&str, &str) = ("fieldManager", "hivectl-client-side-apply");

/// How often a change that met another writer is tried; kubectl's number.
const ATTEMPTS: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Created,
    Configured,
    Unchanged,
    /// What it came to only the server knows.
    ServerSideApplied,
}

pub struct Submission {
    pub outcome: Outcome,
    /// As it was before; None if it was not there.
    pub before: Option<Value>,
    /// As it is now, or would be.
    pub object: Value,
}

pub async fn submit(
    cluster: &Cluster,
    item: &Prepared,
    dry_run: DryRun,
) -> Result<Submission, RequestError> {
    let desired = item.desired();
    let mut attempt = 1;
    loop {
        match submit_once(cluster, item, &desired, dry_run).await {
            // Somebody else created, changed or deleted it since it was read.
            Err(error)
                if attempt < ATTEMPTS
                    && (error.is_conflict()
                        || error.is_already_exists()
                        || is_deleted_since(&error)) =>
            {
                attempt += 1;
            }
            result => return result,
        }
    }
}

/// A patch answered 404: between our read and the patch the object went.
fn is_deleted_since(error: &RequestError) -> bool {
    error.is_not_found()
        && error
            .status()
            .and_then(|status| status.details.as_ref())
            .is_some_and(|details| !details.kind.starts_with("namespace"))
}

async fn submit_once(
    cluster: &Cluster,
    item: &Prepared,
    desired: &Value,
    dry_run: DryRun,
) -> Result<Submission, RequestError> {
    let manifest = &item.manifest;
    let resource = manifest.resource;
    let namespace = manifest.namespace.as_deref();
    let query = [
        Some(STRICT),
        Some(FIELD_MANAGER),
        (dry_run == DryRun::Server).then_some(DRY_RUN),
    ]
    .into_iter()
    .flatten();
    let live = match cluster.get(resource, namespace, manifest.name()).await {
        Ok(live) => live,
        Err(error) if error.is_not_found() => {
            let object = match dry_run {
                DryRun::Client => desired.clone(),
                DryRun::None | DryRun::Server => {
                    let path = path::collection(resource, namespace);
                    let path = path::with_query(&path, query);
                    let call = Call::new(Method::POST, &path).json(desired);
                    cluster.json(&call).await?
                }
            };
            return Ok(Submission {
                outcome: Outcome::Created,
                before: None,
                object,
            });
        }
        Err(error) => return Err(error),
    };
    let last_applied = desired::last_applied(&live);
    let mut patch = threeway::merge_patch(last_applied.as_ref(), desired, &live);
    if threeway::is_empty(&patch) {
        return Ok(Submission {
            outcome: Outcome::Unchanged,
            before: Some(live.clone()),
            object: live,
        });
    }
    let object = match dry_run {
        DryRun::Client => {
            let mut object = live.clone();
            threeway::apply_merge_patch(&mut object, &patch);
            object
        }
        DryRun::None | DryRun::Server => {
            patch["metadata"]["resourceVersion"] = object::resource_version(&live).into();
            let path = path::object(resource, namespace, manifest.name());
            let path = path::with_query(&path, query);
            let call = Call::new(Method::PATCH, &path)
                .body("application/merge-patch+json", patch.to_string().into());
            cluster.json(&call).await?
        }
    };
    // The server may find that the patch says the same in other words.
    let same = dry_run == DryRun::None
        && object::resource_version(&object) == object::resource_version(&live);
    Ok(Submission {
        outcome: match same {
            true => Outcome::Unchanged,
            false => Outcome::Configured,
        },
        before: Some(live),
        object,
    })
}
